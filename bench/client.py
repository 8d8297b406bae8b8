"""The load generator's HTTP client: one keep-alive connection that reads one streamed answer at a time.

1. `Reader` does not parse chunked framing: it counts `data: ` and looks for the last chunk at the end of what was read.
   That is exact as long as a read holds whole frames, which is so for paced streams and short answers.
2. `ExactReader` takes the chunks apart, for streams that come as fast as possible and are cut anywhere.
"""

import asyncio
from collections.abc import Callable
from time import monotonic_ns

from bench.wire import DONE, EXTRA_FRAMES, FRAME, HOST, LAST_CHUNK, LONGEST_END, STAMP

_MAX_ERRORS = 5
_NEVER = 1 << 62


class Tally:
    """What all readers of one run add up; all times in nanoseconds."""

    def __init__(self, *, sample_every: int = 0) -> None:
        self.sample_every = sample_every
        self.latencies: list[int] = []
        self.first_tokens: list[int] = []
        self.complete = 0
        self.failed = 0
        self.errors: list[str] = []

    def fail(self, why: str) -> None:
        """Count a stream that did not end as it should; the first few reasons are kept."""
        self.failed += 1
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append(why)


class Reader(asyncio.Protocol):
    """Sends `request` when told to and reads the answer; `on_end` is called after a complete one.

    `frames` counts over all answers of this connection. `expected` is the number of content chunks that an answer has
    to bring; 0 means that it does not end. `mark` is what stands at the end of a whole answer.
    """

    def __init__(
        self, request: bytes, expected: int, tally: Tally, on_end: Callable[["Reader"], None], mark: bytes = DONE
    ) -> None:
        self._mark = mark
        self._request, self._expected, self._tally, self._on_end = request, expected, tally, on_end
        self._transport: asyncio.Transport | None = None
        self._head: bytes | None = None
        self._done = False
        self._first = True
        self._sent_ns = 0
        self._begin_frames = 0
        self._sample_at = _NEVER
        self.frames = 0
        self.busy = False

    async def connect(self, port: int) -> None:
        """Open the connection. Raises OSError."""
        await asyncio.get_running_loop().create_connection(lambda: self, HOST, port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio and uvloop set TCP_NODELAY themselves."""
        self._transport = transport  # type: ignore[assignment]

    def send(self) -> None:
        """Send the request."""
        if self._transport is None:
            return
        self.busy, self._head, self._first, self._done = True, b"", True, False
        self._begin_frames = self.frames
        if self._tally.sample_every:
            self._sample_at = self.frames + self._tally.sample_every
        self._sent_ns = monotonic_ns()
        self._transport.write(self._request)

    @property
    def has_first(self) -> bool:
        """Whether the first content chunk of the present answer has come."""
        return self.busy and not self._first

    def data_received(self, data: bytes) -> None:
        """Count frames, sample latency, notice the end."""
        if self._first:
            data = self._begin(data)
        self.frames += data.count(FRAME)
        if self.frames >= self._sample_at:
            self._sample(data)
        if data.endswith(LAST_CHUNK):
            self._end(done=self._done or self._mark in data)
        elif data.endswith(b"\n\n\r\n") and self._mark in data[-LONGEST_END:]:
            self._done = True

    def _begin(self, data: bytes) -> bytes:
        """Take the response head off, note the first content chunk; returns the body bytes."""
        if self._head is not None:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return b""
            self._head = None
            if not data.startswith(b"HTTP/1.1 200") or b"chunked" not in data[:end].lower():
                self.abort(f"answer was {data[:300]!r}")
                return b""
            data = data[end + 4 :]
        if STAMP.search(data):
            self._first = False
            self._tally.first_tokens.append(monotonic_ns() - self._sent_ns)
        return data

    def _sample(self, data: bytes) -> None:
        stamp = STAMP.search(data)
        if stamp:
            self._tally.latencies.append(monotonic_ns() - int(stamp[1]))
            self._sample_at = self.frames + self._tally.sample_every

    def _end(self, *, done: bool) -> None:
        frames = self.frames - self._begin_frames
        self.busy = False
        if not done or frames < self._expected + EXTRA_FRAMES - 1:
            self._tally.fail(f"ended after {frames} frames, its last {'seen' if done else 'missing'}")
        else:
            self._tally.complete += 1
        self._on_end(self)

    def abort(self, why: str | None = None) -> None:
        """Close the connection; with a reason, the stream counts as failed."""
        self.busy = False
        if why is not None:
            self._tally.fail(why)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that goes in mid-answer is a failed stream."""
        self._transport = None
        if self.busy:
            self.busy = False
            self._tally.fail(f"connection closed after {self.frames - self._begin_frames} frames: {exc!r}")


class ExactReader(Reader):
    """A reader that takes chunked framing apart (oddity 2)."""

    _rest = b""
    _tail = b""

    def data_received(self, data: bytes) -> None:
        """Count frames of whole HTTP chunks; what is cut waits for the next read."""
        if self._first:
            data = self._begin(data)
        data = self._rest + data if self._rest else data
        at, size, pieces = 0, -1, [self._tail]
        while size:
            line = data.find(b"\r\n", at)
            if line < 0:
                break
            size = int(data[at:line], 16)
            if line + size + 4 > len(data):
                break
            pieces.append(data[line + 2 : line + 2 + size])
            at = line + size + 4
        else:
            self._rest, self._tail = b"", b""
            self._count(pieces)
            self._end(done=self._done)
            return
        self._rest = data[at:]
        self._count(pieces)

    def _count(self, pieces: list[bytes]) -> None:
        payload = b"".join(pieces)
        self.frames += payload.count(FRAME) - self._tail.count(FRAME)
        self._done = self._done or self._mark in payload
        self._tail = payload[1 - len(self._mark) :]
