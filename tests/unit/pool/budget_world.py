"""What tests of budgets stand on: an account with round figures, sources of words, replicas over one ledger."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.clock import Clock, SystemClock
from gateway.core.events import Finish, Leg, SourceEvent, Text, UsageReport
from gateway.core.principal import Principal
from gateway.core.tokens import Ratio
from gateway.core.usage import Usage
from gateway.pool.budget import Budget
from gateway.pool.budgets import Budgets
from gateway.pool.ledger import Ledger
from gateway.pool.plan import Plans
from gateway.pool.settlement import Settlement
from gateway.upstream.contract import Batch, Timeouts
from tests.support.clock import ManualClock

WHO = Principal("acme", "a")


class EveryEventIsAToken:
    """Estimates: each event is one token, the prompt `prompt`; USD a token as told, None unknown."""

    def __init__(self, prompt: int = 10, usd: float | None = 0.0, usd_of: dict[str, float] | None = None) -> None:
        self.prompt, self.usd, self.usd_of = prompt, usd, usd_of or {}

    def input_tokens(self, leg: Leg | None, /) -> int:
        return self.prompt

    def ratio(self, leg: Leg | None, /) -> Ratio:
        return Ratio(event_bytes=(0.0, 1e9))

    def cost_usd(self, leg: Leg | None, usage: Usage, /) -> float | None:
        usd = self.usd if leg is None else self.usd_of.get(leg.endpoint, self.usd)
        return None if usd is None else (usage.input_tokens + usage.output_tokens) * usd

    def unpriced(self) -> str | None:
        return "somewhere" if self.usd is None else None


class FourBytesAToken(EveryEventIsAToken):
    """Estimates by length."""

    def ratio(self, leg: Leg | None, /) -> Ratio:
        return Ratio(bytes_per_token=4.0, events_per_token=None)


def asked(**members: Any) -> ChatRequest:
    """A short request."""
    turn = Message(role="user", parts=(TextPart(text="Say it."),))
    return ChatRequest(**{"dialect": "openai_chat", "model": "m", "messages": (turn,), **members})


def leg(number: int = 1, endpoint: str = "e") -> Leg:
    """The beginning of an answer."""
    return Leg(number, endpoint, "mock", "priority", "first in order")


class Words:
    """A source of so many one-token events, `size` in each read; each read waits for `ready`, if there is one."""

    def __init__(self, count: int, *, size: int = 1, ready: asyncio.Semaphore | None = None) -> None:
        self.timeouts, self.attempts = Timeouts(), ["e: ok"]
        self._count, self._size, self._ready = count, size, ready
        self.read = 0
        self.left = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[Batch]]:
        try:
            yield self._batches()
        finally:
            self.left = True

    async def _batches(self) -> AsyncIterator[Batch]:
        yield [leg()]
        while self.read < self._count:
            if self._ready is not None:
                await self._ready.acquire()
            else:
                await asyncio.sleep(0)
            size = min(self._size, self._count - self.read)
            self.read += size
            batch: list[SourceEvent] = [Text(0, "word ")] * size
            yield batch
        yield [Finish(0, "stop"), UsageReport(Usage(input_tokens=10, output_tokens=self._count))]


@asynccontextmanager
async def replica(
    ledger: Ledger, *budgets: Budget, rid: str = "r1", clock: Clock | None = None
) -> AsyncIterator[Budgets]:
    """Budgets of one replica, running."""
    found = Budgets(ledger, Plans(budgets), clock or SystemClock(), rid)
    task = asyncio.create_task(found.run())
    try:
        yield found
        await found.flush()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def bill(sid: str, usage: Usage, number: int = 1, usd: float | None = 0.0) -> Settlement:
    """What the pipeline says of a leg."""
    return Settlement(
        stream="str_" + sid, tenant="acme", key="a", route="m", endpoint="e", provider="mock", model="m", leg=number,
        usage=usage, cost_usd=usd, end="completed", stops_on_close=True, billed_beyond=False, duration_s=1.0,
    )  # fmt: skip


async def stream(
    budgets: Budgets, sid: str, source: Words, account: Any = None, **members: Any
) -> tuple[int, str | None]:
    """One stream from admission to settlement: how many words passed, and what stopped it."""
    account = account or EveryEventIsAToken()
    ticket = await budgets.admit(sid, WHO, asked(**members), account)
    assert ticket is not None
    metered = budgets.metered(source, ticket)
    passed = 0
    usage: list[Usage] = []

    def accept(batch: Batch) -> bool:
        nonlocal passed
        passed += sum(isinstance(event, Text) for event in batch)
        usage.extend(event.usage for event in batch if isinstance(event, UsageReport))
        return True

    async with metered.open() as batches:
        while await batches.pump(accept):  # type: ignore[attr-defined]
            pass
    budgets.on_settled(bill(sid, usage[-1] if usage else Usage(input_tokens=account.prompt, output_tokens=passed)))
    budgets.close(sid)
    return passed, getattr(metered, "stopped_by", None)


__all__ = [
    "WHO", "EveryEventIsAToken", "FourBytesAToken", "ManualClock", "Words", "asked", "bill", "leg", "replica", "stream",
]  # fmt: skip
