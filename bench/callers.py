"""Callers that come whether or not they are served: an open loop of requests at a rate, as overload is made of.

A caller takes a connection that is idle; where none is, its request counts as unsent. Latency counts from the moment at
which its request was due, so what the generator itself is late is in it. An answer is `good` if it is whole and 200, a
`refusal` if it is a whole 429, 503 or 529 that says in its dialect what it is and when to come back, and `bad` else.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from time import monotonic

import msgspec

from bench.wire import DONE, HOST, LAST_CHUNK, STOP, Wire

TICK_S = 0.002
PATIENCE_S = 10.0
OPEN_AT_ONCE = 50
MAX_WORDS = 5
_REFUSALS: Mapping[Wire, frozenset[int]] = {"openai": frozenset({429, 503}), "anthropic": frozenset({429, 529})}


class Tally:
    """What came of one group of callers. Latencies in seconds; the moments are `monotonic`."""

    def __init__(self) -> None:
        self.sent = self.good = self.bad = self.unsent = 0
        self.good_s: list[float] = []
        self.refusal_s: list[float] = []
        self.last_refusal = 0.0
        self.words: list[str] = []

    def spoil(self, why: str) -> None:
        """An answer that should not be; the first few are kept."""
        self.bad += 1
        if len(self.words) < MAX_WORDS:
            self.words.append(why)


class Caller(asyncio.Protocol):
    """One keep-alive connection of a `Crowd`."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd, self._transport = crowd, asyncio.Transport()
        self._head: bytes | None = b""
        self._rest, self._left, self._status, self._due = b"", 0, 0, 0.0
        self._is_done = self.is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    @property
    def is_overdue(self) -> bool:
        """Whether nobody waits for this answer any more."""
        return self.is_busy and monotonic() - self._due > PATIENCE_S

    def call(self, due: float, request: bytes) -> None:
        """Ask; the request should have been sent at `due`."""
        self._due, self.is_busy, self._is_done, self._head, self._rest = due, True, False, b"", b""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        if self._head is not None:
            head, found, data = (self._head + data).partition(b"\r\n\r\n")
            if not found:
                self._head = head
                return
            self._begin(head)
        if self._status == 200:
            self._rest = self._rest[-32:] + data
            self._is_done = self._is_done or self._crowd.mark in self._rest
            if self._rest.endswith(LAST_CHUNK):
                self._end()
        else:
            self._rest += data
            if len(self._rest) >= self._left:
                self._end()

    def _begin(self, head: bytes) -> None:
        self._head, self._status = None, int(head[9:12])
        self._fields = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
        self._left = int(self._fields.get("content-length", "0"))

    def _end(self) -> None:
        tally, took_s = self._crowd.tally, monotonic() - self._due
        self.is_busy = False
        if self._status == 200:
            if self._is_done:
                tally.good += 1
                tally.good_s.append(took_s)
            else:
                tally.spoil("a 200 without its end")
        elif (why := malformed(self._crowd.wire, self._status, self._fields, self._rest)) is not None:
            tally.spoil(why)
        else:
            tally.refusal_s.append(took_s)
            tally.last_refusal = monotonic()
        if self._fields.get("connection") != "close":
            self._crowd.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, with an answer or without."""
        if self in self._crowd.idle:
            self._crowd.idle.remove(self)
        self._crowd.open.discard(self)
        if self.is_busy:
            self.is_busy = False
            self._crowd.tally.spoil(f"connection lost: {exc!r}")

    def hang_up(self) -> None:
        """Leave."""
        self._transport.abort()


def malformed(wire: Wire, status: int, fields: Mapping[str, str], body: bytes) -> str | None:
    """What is wrong with a refusal; None: nothing."""
    if status not in _REFUSALS[wire]:
        return f"status {status}: {body[:200]!r}"
    if not fields.get("retry-after", "").isdigit() or fields.get("x-should-retry") not in {"true", "false"}:
        return f"a {status} without its headers: {fields}"
    try:
        answer = msgspec.json.decode(body)
        error = answer["error"]
        right = isinstance(error["message"], str) and isinstance(error["type"], str)
        right = right and (answer["type"] == "error" if wire == "anthropic" else bool(error["code"]))
    except (msgspec.DecodeError, KeyError, TypeError):
        right = False
    return None if right else f"a {status} of another shape: {body[:200]!r}"


class Crowd:
    """Callers of one kind: what they send, to where, and what came of it."""

    def __init__(self, port: int, request: bytes, wire: Wire = "openai") -> None:
        self.wire, self.mark = wire, STOP if wire == "anthropic" else DONE
        self._port, self._request = port, request
        self.tally = Tally()
        self.idle: deque[Caller] = deque()
        self.open: set[Caller] = set()
        self._until = 0.0

    async def connect(self, callers: int) -> None:
        """Have so many connections; before a load, as opening them is not what is measured."""
        loop = asyncio.get_running_loop()
        while (lacking := callers - len(self.open)) > 0:
            opening = [
                loop.create_connection(lambda: Caller(self), HOST, self._port)
                for _ in range(min(lacking, OPEN_AT_ONCE))
            ]
            for _, caller in await asyncio.gather(*opening):
                self.open.add(caller)
                self.idle.append(caller)

    async def run(self, rate: float, seconds: float) -> Tally:
        """Send at this rate for so long, then wait for what is under way; a fresh tally."""
        self.tally = tally = Tally()
        begun, sent = monotonic(), 0
        while (now := monotonic()) - begun < seconds:
            due = int(rate * (now - begun))
            for at in range(sent, due):
                self._one(begun + at / rate)
            sent = due
            await asyncio.sleep(TICK_S)
        await self._settled()
        return tally

    async def loop(self, callers: int, seconds: float) -> Tally:
        """So many who ask again as soon as they are answered; a fresh tally, of all they did within that time."""
        await self.connect(callers)
        self.tally = tally = Tally()
        self._until = monotonic() + seconds
        while self.idle:
            self._one(monotonic())
        await asyncio.sleep(seconds)
        self.tally = Tally()
        await self._settled()
        return tally

    def close(self) -> None:
        """Everybody leaves."""
        for caller in tuple(self.open):
            caller.hang_up()

    def answered(self, caller: Caller) -> None:
        """A caller is free: for the next request, in the order in which they became so."""
        self.idle.append(caller)
        if monotonic() < self._until:
            self._one(monotonic())

    def _one(self, due: float) -> None:
        if not self.idle:
            self.tally.unsent += 1
            return
        self.tally.sent += 1
        self.idle.popleft().call(due, self._request)

    async def _settled(self) -> None:
        """Wait until everything is answered, or nobody waits for it any more."""
        while any(caller.is_busy and not caller.is_overdue for caller in self.open):  # noqa: ASYNC110  a look is enough
            await asyncio.sleep(0.02)
        for caller in [caller for caller in self.open if caller.is_busy]:
            caller.hang_up()
        await asyncio.sleep(0.02)


def percentile(values: list[float], share: float) -> float:
    """Nearest rank, in milliseconds; NaN of nothing."""
    return sorted(values)[round((len(values) - 1) * share)] * 1000 if values else float("nan")
