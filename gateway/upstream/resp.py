"""RESP2, the wire of Redis: commands to bytes, bytes to replies. Pure: no I/O, no state but what is not yet complete.

Why not the library's: an append costs about a microsecond here and about ten there, and its one-go parse of long
pipelines holds the event loop up. Errors are values: in a pipeline the reply behind an error is somebody else's.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias


class ErrorReply(NamedTuple):
    """An error that Redis answered; `text` begins with its code."""

    text: str

    @property
    def code(self) -> str:
        """The first word: OOM, READONLY, NOSCRIPT, ERR ..."""
        return self.text.partition(" ")[0]


Reply: TypeAlias = Any
"""int, bytes, str (a status such as OK), None, `ErrorReply`, or a list of replies."""


class ProtocolError(ValueError):
    """Bytes that are no reply."""


class _Incomplete(Exception):
    """More bytes are needed."""


def command(*parts: bytes | str | float) -> bytes:
    """One command as Redis reads it."""
    encoded = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n" % len(encoded) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded])


class Decoder:
    """Bytes in, whole replies out, in order."""

    __slots__ = ("_at", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """More bytes arrived."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def take(self, most: int) -> list[Reply]:
        """The next replies that are complete, at most so many.

        Raises:
            ProtocolError: bytes that are no reply.
        """
        replies: list[Reply] = []
        try:
            while len(replies) < most:
                reply, self._at = _parse(self._data, self._at)
                replies.append(reply)
        except _Incomplete:
            pass
        return replies


def _parse(data: bytes, at: int) -> tuple[Reply, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete
    kind, behind = data[at], end + 2
    if kind == _BULK:
        size = int(data[at + 1 : end])
        if size < 0:
            return None, behind
        stop = behind + size
        if stop + 2 > len(data):
            raise _Incomplete
        return data[behind:stop], stop + 2
    if kind == _ARRAY:
        return _parse_array(data, int(data[at + 1 : end]), behind)
    text = data[at + 1 : end]
    if kind == _INTEGER:
        return int(text), behind
    if kind == _STATUS:
        return text.decode("utf-8", "replace"), behind
    if kind == _ERROR:
        return ErrorReply(text.decode("utf-8", "replace")), behind
    msg = f"not a reply: {data[at : at + 40]!r}"
    raise ProtocolError(msg)


def _parse_array(data: bytes, size: int, at: int) -> tuple[Reply, int]:
    if size < 0:
        return None, at
    items: list[Reply] = []
    for _ in range(size):
        item, at = _parse(data, at)
        items.append(item)
    return items, at


_BULK, _ARRAY, _INTEGER, _STATUS, _ERROR = b"$*:+-"
