"""Ids: what they look like and how they are read back.

A stream id is 130 random bits in lower-case base32 (26 characters), shown as `str_<sid>`. It is not a
credential: every look-up also checks the tenant.
"""

import os
import re
from itertools import count

_SID = re.compile(r"[a-z2-7]{26}")
_DIGITS = b"abcdefghijklmnopqrstuvwxyz234567" * 8  # each byte to one of them, all equally likely


def new_sid() -> str:
    """A fresh stream id without its prefix."""
    return os.urandom(26).translate(_DIGITS).decode("ascii")


class RequestIds:
    """Fresh request ids: `req_`, 16 hexadecimal digits that are this process's, and a number."""

    def __init__(self) -> None:
        self._prefix = "req_" + os.urandom(8).hex()
        self._numbers = count(1)

    def new(self) -> str:
        """An id that nobody else has."""
        return f"{self._prefix}{next(self._numbers):08x}"


def show_sid(sid: str) -> str:
    """The public form of a stream id."""
    return "str_" + sid


def parse_sid(shown: str) -> str | None:
    """The bare stream id of `str_<sid>`; None for anything else."""
    prefix, _, sid = shown.partition("_")
    return sid if prefix == "str" and _SID.fullmatch(sid) else None
