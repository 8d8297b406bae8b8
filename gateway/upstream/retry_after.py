"""How long a provider asks us to wait, from whichever header or member it uses. Pure."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

CAP_S = 300.0


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, 0..300; None when the answer does not say. `headers` has lower-case names; `now` is Unix time.

    `retry-after-ms` (Azure, OpenAI) is the finer one and wins; `retry-after` is seconds or an HTTP date (RFC 9110
    section 10.2.3).
    """
    if (wait := _number(headers.get("retry-after-ms"))) is not None:
        return _capped(wait / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    if (wait := _number(value)) is not None:
        return _capped(wait)
    try:
        return _capped(parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def retry_delay_s(delay: Any) -> float | None:
    """Seconds of a `google.rpc.RetryInfo.retryDelay`, such as `34.07s`; 0..300, None for anything else."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", delay) if isinstance(delay, str) else None
    return None if found is None else _capped(float(found[1]))


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value else None
    except ValueError:
        return None
    return number if number is not None and number >= 0 and number == number else None  # noqa: PLR0124  NaN


def _capped(seconds: float) -> float:
    return min(max(seconds, 0.0), CAP_S)
