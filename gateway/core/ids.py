"""Ids: what they look like and how they are read back.

A stream id is 128 random bits in lower-case base32 without padding (26 characters), shown as `str_<sid>`. It is not a
credential: every look-up also checks the tenant.
"""

import base64
import re
import secrets

_SID = re.compile(r"[a-z2-7]{26}")


def new_sid() -> str:
    """A fresh stream id without its prefix."""
    return base64.b32encode(secrets.token_bytes(16)).decode("ascii").rstrip("=").lower()


def new_request_id() -> str:
    """A fresh request id, `req_` and 24 hexadecimal digits."""
    return "req_" + secrets.token_hex(12)


def show_sid(sid: str) -> str:
    """The public form of a stream id."""
    return "str_" + sid


def parse_sid(shown: str) -> str | None:
    """The bare stream id of `str_<sid>`; None for anything else."""
    prefix, _, sid = shown.partition("_")
    return sid if prefix == "str" and _SID.fullmatch(sid) else None
