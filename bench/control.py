"""How long pause and cancel take to have effect: `python -m bench.control '<plan as JSON>'`, a process of its own.

Run while another process keeps the gateway under load. Each sample is one stream: read, pause, wait and see that
nothing comes, resume, see that it goes on, cancel, see the reader's end, and ask the upstream when its socket closed.
Times count from before the control request is written. A pause has had its effect when it is answered and the last
chunk has come, whichever is later.
"""

import asyncio
import http.client
import json
import random
import sys
from time import monotonic, monotonic_ns

import msgspec
import uvloop

from bench.load import Spread
from bench.wire import FRAME, HOST, LAST_CHUNK, post, request

_QUIET_S = 0.15  # more than seven periods of the stream that is paused
_STEP_WITHIN_S = 5.0
_SLACK_S = 0.3  # for the last sockets to close before the upstream is asked
_CANCELLED = b"stream_cancelled"
_STREAM_ID = b"\r\nx-atlas-stream-id:"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`samples` streams of `model`, `at_once` at a time; no sample begins after `limit_s`.

    Control is asked of `control_port`, where that is not 0: of another replica than the one that serves the stream.
    """

    port: int
    upstream_port: int
    model: str
    samples: int
    at_once: int
    limit_s: float
    control_port: int = 0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Distributions in milliseconds; `after_answer` counts chunks that came after a pause was answered."""

    pause: Spread | None
    resume: Spread | None
    cancel_answer: Spread | None
    cancel_reader: Spread | None
    cancel_upstream: Spread | None
    after_answer: int
    samples: int
    errors: list[str]


class Watched(asyncio.Protocol):
    """One stream: its id and when its last chunk, its error frame and its end came."""

    def __init__(self, payload: bytes) -> None:
        self._payload, self._head = payload, b""
        self.transport: asyncio.Transport | None = None
        self.stream_id = ""
        self.frames = 0
        self.last_ns = 0
        self.cancelled_ns = 0
        self.ended = asyncio.Event()
        self.grew = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once."""
        self.transport = transport  # type: ignore[assignment]
        self.transport.write(self._payload)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        """Note times; heartbeat comments are not chunks."""
        now = monotonic_ns()
        if not self.stream_id:
            self._head += data
            self.stream_id = _header(self._head, _STREAM_ID)
        if _CANCELLED in data:
            self.cancelled_ns = now
        elif FRAME in data:
            self.frames += data.count(FRAME)
            self.last_ns = now
            self.grew.set()
        if data.endswith(LAST_CHUNK):
            self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Nothing more will come."""
        self.ended.set()
        self.grew.set()

    async def next_chunk(self) -> None:
        """Wait for a chunk. Raises TimeoutError."""
        self.grew.clear()
        async with asyncio.timeout(_STEP_WITHIN_S):
            await self.grew.wait()


def _header(head: bytes, name: bytes) -> str:
    at = head.lower().find(name)
    end = head.find(b"\r\n", at + 2)
    return head[at + len(name) : end].strip().decode() if at >= 0 and end >= 0 else ""


class Prober:
    """Takes the samples."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._series = f"{monotonic_ns():x}"
        self._waiting = list(range(plan.samples))
        self._random = random.Random(400)
        self._cancels: dict[str, int] = {}
        self._times: dict[str, list[int]] = {"pause": [], "resume": [], "answer": [], "reader": []}
        self._after_answer = 0
        self._taken = 0
        self._errors: list[str] = []

    async def run(self) -> Result:
        """All samples, then the upstream's word on when its sockets closed."""
        deadline = monotonic() + self._plan.limit_s
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._plan.at_once):
                workers.create_task(self._work(deadline))
        await asyncio.sleep(_SLACK_S)
        closed = await asyncio.to_thread(self._closed)
        missing = [user for user in self._cancels if user not in closed]
        if missing:
            self._errors.append(f"{len(missing)} upstream sockets still open after a cancel")
        times = self._times
        return Result(
            pause=Spread.of(times["pause"]),
            resume=Spread.of(times["resume"]),
            cancel_answer=Spread.of(times["answer"]),
            cancel_reader=Spread.of(times["reader"]),
            cancel_upstream=Spread.of([closed[user] - sent for user, sent in self._cancels.items() if user in closed]),
            after_answer=self._after_answer,
            samples=self._taken,
            errors=self._errors[:5],
        )

    async def _work(self, deadline: float) -> None:
        while self._waiting and monotonic() < deadline:
            user = f"{self._series}-{self._waiting.pop()}"
            stream = Watched(request(self._plan.port, self._plan.model, user=user))
            try:
                await self._sample(stream, user)
                self._taken += 1
            except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
                self._errors.append(f"{type(error).__name__}: {error}")
            finally:
                if stream.transport is not None:
                    stream.transport.abort()

    async def _sample(self, stream: Watched, user: str) -> None:
        await asyncio.get_running_loop().create_connection(lambda: stream, HOST, self._plan.port)
        await stream.next_chunk()
        if not stream.stream_id:
            raise ValueError("the answer has no x-atlas-stream-id")
        channel = await Channel.open(self._plan.control_port or self._plan.port, stream.stream_id)
        try:
            await asyncio.sleep(self._random.uniform(0.1, 0.2))
            await self._pause(stream, channel)
            await asyncio.sleep(self._random.uniform(0.1, 0.2))
            await self._cancel(stream, channel, user)
        finally:
            channel.close()

    async def _pause(self, stream: Watched, channel: "Channel") -> None:
        sent, answered = await channel.call("pause")
        frames = stream.frames
        await asyncio.sleep(_QUIET_S)
        self._times["pause"].append(max(answered, stream.last_ns) - sent)
        self._after_answer += stream.frames - frames
        sent, _ = await channel.call("resume")
        if stream.last_ns < sent:
            await stream.next_chunk()
        if stream.last_ns < sent:
            raise ValueError("the stream ended instead of going on after resume")
        self._times["resume"].append(stream.last_ns - sent)

    async def _cancel(self, stream: Watched, channel: "Channel", user: str) -> None:
        sent, answered = await channel.call("cancel")
        self._cancels[user] = sent
        self._times["answer"].append(answered - sent)
        async with asyncio.timeout(_STEP_WITHIN_S):
            await stream.ended.wait()
        if not stream.cancelled_ns:
            raise ValueError("a cancelled stream ended without an error frame")
        self._times["reader"].append(stream.cancelled_ns - sent)

    def _closed(self) -> dict[str, int]:
        connection = http.client.HTTPConnection(HOST, self._plan.upstream_port, timeout=5)
        connection.request("GET", "/closed")
        closed: dict[str, int] = json.loads(connection.getresponse().read())
        connection.close()
        return closed


class Channel:
    """A keep-alive connection for one stream's control calls, opened before their time is taken."""

    def __init__(self, port: int, stream_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._port, self._stream_id, self._reader, self._writer = port, stream_id, reader, writer

    @classmethod
    async def open(cls, port: int, stream_id: str) -> "Channel":
        """Connect. Raises OSError."""
        return cls(port, stream_id, *await asyncio.open_connection(HOST, port))

    async def call(self, operation: str) -> tuple[int, int]:
        """POST the operation; (time before sending, time of the answer). Raises ValueError unless 200 or 202."""
        payload = post(self._port, f"/v1/streams/{self._stream_id}/{operation}")
        async with asyncio.timeout(_STEP_WITHIN_S):
            sent = monotonic_ns()
            self._writer.write(payload)
            head = await self._reader.readuntil(b"\r\n\r\n")
            body = await self._reader.readexactly(int(_header(head, b"\r\ncontent-length:") or 0))
            answered = monotonic_ns()
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
            raise ValueError(f"{operation} answered {head[9:12].decode()}: {body[:200]!r}")
        return sent, answered

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


def main() -> None:
    """Run the plan in the first argument."""
    result = uvloop.run(Prober(msgspec.json.decode(sys.argv[1], type=Plan)).run())
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
