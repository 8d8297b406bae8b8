"""A canned upstream of two wires, as cheap as Python can make it: it shares its core with the load generator.

1. One timer wheel of 1 ms slots drives all paced streams; new streams take the slots of their period in turn, so that
   400 streams at 50 a second are 20 writes every millisecond and not 400 every 20 ms.
2. A paced chunk is written straight to the socket: the transport would send it at the end of the loop's turn, after
   the stamp in it had aged. Only what the kernel does not take goes through the transport.
3. The HTTP parser knows what a gateway's client sends and nothing else.

`GET /closed` gives {user: monotonic ns} of requests whose client left before the end; `GET /stats` gives the counters.
Run as `python -m bench.upstream`; the first line of stdout is the port. Ends when stdin closes.
"""

import asyncio
import contextlib
import gc
import json
import os
import re
import sys
from time import monotonic_ns

import uvloop

from bench.wire import HOST, PATHS, Script, Wire, script

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_MODEL = re.compile(rb'"model" ?: ?"([^"]+)"')
_USER = re.compile(rb'"user" ?: ?"([^"]+)"')
_POSTS = {wire: f"POST {path}".encode() for wire, path in PATHS.items()}
_MAX_CLOSED = 100_000
_SLOTS = 1024  # of 1 ms; the slowest pace is thus one chunk a second
_TICK_S = 0.001  # the loop's own resolution: a shorter delay would spin


class Wheel:
    """Calls `step()` of each stream once per period (milliseconds) until it returns False."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[list[Stream]] = [[] for _ in range(_SLOTS)]
        self._start_ns = monotonic_ns()
        self._tick = 0
        self._joined = 0
        self._active = 0
        self.late_ms = 0

    def add(self, stream: "Stream") -> None:
        """Take a stream in, at the next of its period's phases that is due by turn."""
        if not self._active:
            self._tick = self._now()
            self._loop.call_later(_TICK_S, self._turn)
        self._active += 1
        self._joined += 1
        due = self._tick + 1 + (self._joined - self._tick - 1) % stream.period_ms
        self._slots[due % _SLOTS].append(stream)

    def _now(self) -> int:
        return (monotonic_ns() - self._start_ns) // 1_000_000

    def _turn(self) -> None:
        now = self._now()
        self.late_ms = max(self.late_ms, now - self._tick - 1)
        while self._tick < now:
            self._tick += 1
            due = self._slots[self._tick % _SLOTS]
            if due:
                self._slots[self._tick % _SLOTS] = []
                self._run(due)
        if self._active:
            self._loop.call_later(_TICK_S, self._turn)

    def _run(self, due: list["Stream"]) -> None:
        slots, tick = self._slots, self._tick
        for stream in due:
            if stream.step():
                slots[(tick + stream.period_ms) % _SLOTS].append(stream)
            else:
                self._active -= 1


class Stream:
    """A paced answer: what is left of it and where it goes."""

    __slots__ = ("connection", "left", "period_ms", "script")

    def __init__(self, connection: "Connection", plan: Script) -> None:
        self.connection: Connection | None = connection
        self.script = plan
        self.left = plan.chunks - 1
        self.period_ms = min(_SLOTS - 1, max(1, 1000 // plan.rate))

    def step(self) -> bool:
        """Send the next chunk or the ending; False when nothing is left to do."""
        connection = self.connection
        if connection is None:
            return False
        if self.left <= 0:
            connection.finish(self.script.ending)
            return False
        self.left -= 1
        connection.send(self.script.content())
        return True


class Board:
    """Counters and close times, shared by all connections."""

    def __init__(self) -> None:
        self.requests = 0
        self.finished = 0
        self.left_early = 0
        self.closed: dict[str, int] = {}

    def leave(self, user: str) -> None:
        """Note that the client of this request closed its connection before the end."""
        self.left_early += 1
        if len(self.closed) < _MAX_CLOSED:
            self.closed[user] = monotonic_ns()


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, board: Board, wheel: Wheel) -> None:
        self._board, self._wheel = board, wheel
        self._received = b""
        self._user: bytes | None = None
        self._stream: Stream | None = None
        self._script: Script | None = None
        self._writes: list[bytes] = []
        self._paused = False
        self._behind = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket's number beside the transport (oddity 2)."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._fd: int = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        """Collect a request and answer it."""
        if self._received:
            data = self._received + data
        taken = _request_length(data)
        if taken == 0:
            self._received = data
            return
        self._received = b""
        if data.startswith(_POSTS["openai"]):
            self._answer(data, "openai")
        elif data.startswith(_POSTS["anthropic"]):
            self._answer(data, "anthropic")
        else:
            self._tell(data.split(b" ", 2)[1])

    def _answer(self, data: bytes, wire: Wire) -> None:
        model, user = _MODEL.search(data), _USER.search(data)
        plan = script(model[1].decode(), wire) if model else None
        if plan is None:
            self._json({"error": {"message": "unknown model", "code": "model_not_found"}}, status="404 Not Found")
            return
        self._board.requests += 1
        self._user = user[1] if user else b""
        if plan.rate:
            self._stream = Stream(self, plan)
            self.send(plan.opening + plan.content())
            self._wheel.add(self._stream)
        elif not plan.ends:
            self.send(plan.opening + plan.content())
        elif plan.chunks == 1:
            self.finish(plan.opening + plan.unstamped(1) + plan.ending)
        else:
            self._script, self._writes = plan, plan.writes()
            self._transport.write(plan.opening)
            self._pump()

    def send(self, data: bytes) -> None:
        """Write at once; what the kernel does not take waits in the transport, in order."""
        if self._behind and self._transport.get_write_buffer_size():
            self._transport.write(data)
            return
        self._behind = False
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._transport.abort()
            return
        if sent < len(data):
            self._behind = True
            self._transport.write(data[sent:])

    def finish(self, ending: bytes) -> None:
        """Write the end of the answer; the connection is ready for the next request."""
        self._board.finished += 1
        self._user = self._stream = self._script = None
        self.send(ending)

    def _pump(self) -> None:
        while self._writes and not self._paused:
            self._transport.write(self._writes.pop())
        if not self._writes and self._script is not None:
            self._transport.write(self._script.ending)
            self._board.finished += 1
            self._behind = True
            self._user = self._script = None

    def pause_writing(self) -> None:
        """Stop an unpaced stream at the transport's high-water mark."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with an unpaced stream."""
        self._paused = False
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Note an answer that was left early."""
        if self._stream is not None:
            self._stream.connection = None
        if self._user is not None:
            self._board.leave(self._user.decode())
        self._writes, self._script = [], None

    def _tell(self, path: bytes) -> None:
        board = self._board
        if path == b"/closed":
            self._json(board.closed)
        elif path == b"/stats":
            counters = {name: value for name, value in vars(board).items() if isinstance(value, int)}
            self._json({**counters, "late_ms": self._wheel.late_ms})
            self._wheel.late_ms = 0
        elif path == b"/v1/models":
            self._json({"object": "list", "data": [{"id": "bench-one", "object": "model", "owned_by": "bench"}]})
        else:
            self._json({"error": {"message": "no such route"}}, status="404 Not Found")

    def _json(self, body: object, *, status: str = "200 OK") -> None:
        payload = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
        self._transport.write(head.encode() + payload)


def _request_length(data: bytes) -> int:
    """Length of the first whole request in `data`, 0 if it is not all there."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    length = _LENGTH.search(data, 0, end)
    if length:
        whole = end + 4 + int(length[1])
    elif _CHUNKED.search(data, 0, end):
        last = data.find(b"0\r\n\r\n", end + 4)
        whole = last + 5 if last >= 0 else len(data) + 1
    else:
        whole = end + 4
    return whole if whole <= len(data) else 0


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    board, wheel = Board(), Wheel(loop)
    server = await loop.create_server(lambda: Connection(board, wheel), HOST, 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent_left = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), parent_left.set)
    await parent_left.wait()
    server.close()


def main() -> None:
    """Serve until stdin closes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve())


if __name__ == "__main__":
    main()
