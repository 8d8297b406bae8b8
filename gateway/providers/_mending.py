"""JSON that is not strict, but that other readers take: hosts send it, and their clients never notice. Pure."""

from __future__ import annotations

import json
import re

_ODD = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity")


def mended(payload: bytes) -> bytes | None:
    """JSON as other readers take it, made strict: half a surrogate pair is U+FFFD, no number is null.

    None for what is no such JSON. Hosts that cut texts by UTF-16 units send half an emoji in each of two events.
    """
    if _ODD.search(payload) is None:
        return None
    try:
        said = json.dumps(json.loads(payload, parse_constant=lambda _: None), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    whole = said.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return None if whole == payload else whole
