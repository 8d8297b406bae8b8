"""A metered source inside a session: what the log, the status and both dialects' clients see of a budget's end."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.core.clock import SystemClock
from gateway.core.events import End, Finish, Start, State, UsageReport
from gateway.core.usage import Usage
from gateway.dialects.catalog import ANTHROPIC_MESSAGES, OPENAI_CHAT
from gateway.pool.budget import Budget, Per, Unit
from gateway.pool.ledger_memory import MemoryLedger
from tests.unit.pool.budget_world import WHO, EveryEventIsAToken, asked, leg, replica
from tests.unit.streams.world import Owned, Said, World, looped, text

TOKENS = Budget(tenant="acme", key="a", unit=Unit.TOKENS, limit=13, per=Per.TOTAL)


async def ended(source: Said, *budgets: Budget) -> Owned:
    """A stream of a session that is over."""
    async with replica(MemoryLedger(SystemClock()), *budgets) as found:
        ticket = await found.admit("s", WHO, asked(), EveryEventIsAToken())
        assert ticket is not None
        stream = await World().session(found.metered(source, ticket))
        stream.start_task()
        await stream.over()
        found.close("s")
    return stream


@looped
async def test_the_stream_ends_incomplete_by_its_budget() -> None:
    """What fits is in the log, then the end says why; the source is closed, and the usage is an estimate."""
    source = Said([leg()], text("a", "b"), text("c", "d"), text("e"), None)
    stream = await ended(source, TOKENS)
    assert await stream.words() == "abc"
    end = await stream.end()
    assert (end.state, end.reason, end.failure) == (State.INCOMPLETE, "budget", None)
    assert end.usage is not None
    assert end.usage.estimated
    assert source.opened == source.closed == 1
    assert source.read == 3


@looped
async def test_an_answer_that_just_fits_completes() -> None:
    """An answer of exactly the budget is whole."""
    usage = Usage(input_tokens=10, output_tokens=3)
    stream = await ended(Said([leg()], text("a", "b", "c"), [Finish(0, "stop"), UsageReport(usage)], None), TOKENS)
    assert await stream.end() == End(State.COMPLETED, None, None, usage, 1)


@pytest.mark.parametrize(
    ("dialect", "reason"),
    [
        (OPENAI_CHAT, lambda body: body["choices"][0]["finish_reason"] == "length"),
        (ANTHROPIC_MESSAGES, lambda body: body["stop_reason"] == "max_tokens"),
    ],
)
def test_both_dialects_call_it_a_length_limit(dialect: Any, reason: Any) -> None:
    """Clients see the end that they know from a token limit, with the text that was paid for."""

    async def scenario() -> None:
        stream = await ended(Said([leg()], text("a", "b", "c", "d"), None), TOKENS)
        events = await stream.events()
        start, end = events[0], events[-1]
        assert isinstance(start, Start)
        assert isinstance(end, End)
        collector = dialect.collector(msgspec.structs.replace(start, dialect=dialect.name))
        collector.add(events[1:])
        body = msgspec.json.decode(collector.body(end))
        assert reason(body)
        assert "abc" in str(body)
        assert "abcd" not in str(body)

    asyncio.run(scenario())


@looped
async def test_a_refused_append_does_not_lose_the_cut() -> None:
    """A pause in between, which refuses an append, changes nothing of what passes."""
    async with replica(MemoryLedger(SystemClock()), TOKENS) as found:
        ticket = await found.admit("s", WHO, asked(), EveryEventIsAToken())
        assert ticket is not None
        source = Said([leg()], text("a"))
        stream = await World().session(found.metered(source, ticket))
        await stream.go()
        answer = await stream.world.control.pause(stream.shown, stream.record.tenant)
        source.say(text("b", "c", "d"), None)
        await asyncio.sleep(0.01)
        await stream.world.control.resume(stream.shown, stream.record.tenant)
        assert (await stream.over()).reason == "budget"
        assert await stream.words() == "abc"
        assert answer is not None
        found.close("s")
