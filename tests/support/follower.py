"""A client that reads one stream to its end by cursor, over whatever gateways answer, and judges what it is served.

It shares no code with the product. It comes back with the id of the last event it has, at the next gateway, whenever a
connection breaks, is refused, or answers 503. A lost, doubled or reordered event, and anything after the end, is an
AssertionError at once.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.gateway_process import GatewayProcess
from tests.support.http import CutBodyError, RawStream
from tests.support.sse import data_frames
from tests.support.truth import tokens_seen

_AGAIN_S = 0.05


@dataclass(slots=True, kw_only=True)
class Follower:
    """What one client of the stream `sid` has, and how it came to it.

    `connects` counts the connections that served it, `refused` the 503s, `gap_s` is the longest time between two
    connections that served, `ended_at` the monotonic time of the end.
    """

    sid: str
    seed: int
    cursor: str | None = None
    gen: int = 0
    seq: int = -1
    kinds: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    end: dict[str, Any] | None = None
    connects: int = 0
    refused: int = 0
    gap_s: float = 0.0
    ended_at: float = 0.0
    _broke: float | None = None

    @property
    def text(self) -> str:
        """The text so far, of choice 0."""
        return "".join(self.parts)

    @property
    def state(self) -> str:
        """How the stream ended."""
        assert self.end is not None, "it has not ended"
        return str(self.end["state"])

    async def follow(self, gateways: Sequence[GatewayProcess], within_s: float = 30) -> "Follower":
        """Read on until the end, from these gateways in turn.

        Raises:
            TimeoutError: no end came in time; says what came.
            AssertionError: what was served is wrong.
        """
        try:
            async with asyncio.timeout(within_s):
                for gateway in itertools.cycle(gateways):
                    await self._once(gateway)
                    if self.end is not None:
                        break
                    await asyncio.sleep(_AGAIN_S)
        except TimeoutError:
            raise TimeoutError(f"no end within {within_s:g} s: {self!r:.2000}") from None
        return self

    def check(self, tokens: int) -> None:
        """The text is a prefix of the truth, and all of its `tokens` if the end says completed."""
        seen = tokens_seen(self.seed, self.text)
        assert self.state != "completed" or seen == tokens, f"completed after {seen} tokens of {tokens}"

    async def _once(self, gateway: GatewayProcess) -> None:
        headers = {} if self.cursor is None else {"last-event-id": self.cursor}
        try:
            async with gateway.client() as client:
                answer = await client.stream("GET", f"/v1/streams/{self.sid}/events", headers)
                if answer.status == 503:
                    self.refused += 1
                    return
                assert answer.status == 200, (answer.status, self, await answer.read_cut())
                self._served()
                await self._read(answer)
        except (CutBodyError, ConnectionError):
            pass
        finally:
            self._broke = time.monotonic()

    def _served(self) -> None:
        self.connects += 1
        if self._broke is not None:
            self.gap_s = max(self.gap_s, time.monotonic() - self._broke)

    async def _read(self, answer: RawStream) -> None:
        unread = b""
        async for piece in answer:
            whole, found, unread = (unread + piece).rpartition(b"\n\n")
            self.take(whole + found)
        assert not unread, f"half an event before a clean end of the body: {unread!r:.200}"

    def take(self, raw: bytes) -> "Follower":
        """Judge whole frames that were served next."""
        for frame in data_frames(raw):
            assert self.end is None, f"after the end: {frame!r:.300}"
            assert frame.id is not None, f"an event without id: {frame!r:.300}"
            self._move(frame.id)
            data = frame.json
            self.kinds.append(frame.event or "")
            if frame.event == "text" and data["choice"] == 0:
                self.parts.append(data["text"])
            elif frame.event == "end":
                self.end, self.ended_at = data, time.monotonic()
        return self

    def _move(self, cursor: str) -> None:
        gen, seq = map(int, cursor.split("-"))
        assert seq == self.seq + 1, f"{cursor} after {self.cursor}: " + ("a gap" if seq > self.seq else "served again")
        assert gen >= self.gen, f"{cursor} after {self.cursor}: the generation went back"
        self.cursor, self.gen, self.seq = cursor, gen, seq
