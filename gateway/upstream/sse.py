"""Server-sent events, sans-IO: bytes in any pieces -> the data of whole events.

Follows the WHATWG grammar (https://html.spec.whatwg.org/multipage/server-sent-events.html) for line ends (LF, CR,
CRLF), a leading BOM, comments and multi-line data. `event`, `id` and `retry` are not returned: every vendor repeats
what matters inside the data. One deliberate difference: `flush` also returns a last event that the end of the body cut
short of its blank line, because vendors forget it after `[DONE]`; whether it is whole is for its JSON to show.
"""

MAX_EVENT_BYTES = 1_048_576
_BOM = b"\xef\xbb\xbf"


class OversizeEvent(ValueError):
    """An event longer than the bound."""


class SSEDecoder:
    """Feed it what each read gave; it returns the data of the events that became whole, in order."""

    __slots__ = ("_limit", "_pending", "_started", "_swallow_lf")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._started = False
        self._swallow_lf = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of every event that `chunk` completes.

        Raises:
            OversizeEvent: more than the limit without the end of an event.
        """
        if not self._started and not (chunk := self._start(chunk)):
            return []
        if self._swallow_lf or b"\r" in chunk:
            chunk = self._normalise(chunk)
        if not self._pending and chunk.endswith(b"\n\n"):
            if chunk.startswith(b"data: "):
                events = chunk[6:-2].split(b"\n\ndata: ")
                if chunk.count(b"\n") == 2 * len(events):
                    return events  # the usual case: nothing but one-line data
            return _split(chunk)
        return self._feed_parts(chunk)

    def flush(self) -> list[bytes]:
        """The data of an event that the end of the body left without its blank line."""
        rest, self._pending = bytes(self._pending), bytearray()
        return _split(rest.rstrip(b"\n") + b"\n\n") if rest.strip() else []

    def _feed_parts(self, chunk: bytes) -> list[bytes]:
        """The slow half: events that span reads. The search begins where the last one ended."""
        pending = self._pending
        start = max(len(pending) - 1, 0)
        pending += chunk
        cut = pending.rfind(b"\n\n", start)
        if cut < 0:
            if len(pending) > self._limit:
                msg = f"no end of event within {self._limit} bytes"
                raise OversizeEvent(msg)
            return []
        whole = bytes(pending[: cut + 2])
        del pending[: cut + 2]
        return _split(whole)

    def _start(self, chunk: bytes) -> bytes:
        """Drop a BOM, which may come in pieces."""
        self._pending += chunk
        head = bytes(self._pending)
        if len(head) < len(_BOM) and _BOM.startswith(head):
            return b""
        self._pending.clear()
        self._started = True
        return head.removeprefix(_BOM)

    def _normalise(self, chunk: bytes) -> bytes:
        """Make every line end LF. A CR at the end counts at once; an LF that follows it in the next read does not."""
        if self._swallow_lf and chunk:
            self._swallow_lf = False
            chunk = chunk.removeprefix(b"\n")
        if chunk.endswith(b"\r"):
            self._swallow_lf = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _split(block: bytes) -> list[bytes]:
    """The data of whole events with LF line ends; `block` ends in a blank line."""
    found: list[bytes] = []
    for event in block.split(b"\n\n"):
        lines = [_value(line) for line in event.split(b"\n") if line.startswith(b"data:") or line == b"data"]
        if lines:
            found.append(b"\n".join(lines))
    return found


def _value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value.startswith(b" ") else value
