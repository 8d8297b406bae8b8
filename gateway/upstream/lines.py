"""Lines of JSON (NDJSON), sans-IO: bytes in any pieces -> whole lines.

Lines end in LF; a CR before it belongs to the end (https://github.com/ndjson/ndjson-spec). Empty lines say nothing and
are not returned. What is in a line, also whether it is text, is for its decoder to judge.
"""

from gateway.upstream.sse import OversizeEvent

MAX_LINE_BYTES = 1_048_576


class LineDecoder:
    """Feed it what each read gave; it returns the lines that became whole, in order, without their ends."""

    __slots__ = ("_limit", "_pending")

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._pending = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Every line that `chunk` completes.

        Raises:
            OversizeEvent: more than the limit without the end of a line.
        """
        cut = chunk.rfind(b"\n")
        if cut < 0:
            self._pending += chunk
            if len(self._pending) > self._limit:
                msg = f"no end of line within {self._limit} bytes"
                raise OversizeEvent(msg)
            return []
        whole, rest = chunk[:cut], chunk[cut + 1 :]
        if self._pending:
            whole = bytes(self._pending) + whole
            self._pending.clear()
        self._pending += rest
        return _split(whole)

    def flush(self) -> list[bytes]:
        """The line that the end of the body left without its end."""
        rest, self._pending = bytes(self._pending), bytearray()
        return _split(rest)


def _split(whole: bytes) -> list[bytes]:
    lines = whole.split(b"\n")
    if b"\r" in whole:
        lines = [line.removesuffix(b"\r") for line in lines]
    return lines if all(lines) else [line for line in lines if line]
