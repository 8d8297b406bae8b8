"""Reading on for the bill, on real sockets: what a cancelled stream took where hanging up does not stop the meter."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.pool.settlement import Settlement
from tests.e2e.house import House, house, run, sid_of
from tests.e2e.test_control import ended
from tests.support.chaos import Gate, Plan, usage_of
from tests.support.fold import fold
from tests.support.signals import eventually

BILLED_ON = {"stops_on_close": False}
ON = {"enabled": True}


@asynccontextmanager
async def metered(
    *plans: Plan, drain: dict[str, Any], **sections: Any
) -> AsyncIterator[tuple[House, list[Settlement]]]:
    """A house whose endpoints bill on after a hang-up, and the bills."""
    rows: list[Settlement] = []
    async with house(*plans, **{"endpoint": BILLED_ON, "usage_drain": drain, **sections}) as it:
        it.app.services.pipeline.bookkeeping._on_settled += (rows.append,)
        yield it, rows


def gated(tokens: int = 40, seen: int = 6) -> tuple[Plan, Gate]:
    """An answer that stands still after some events."""
    gate = Gate(seen)
    return Plan(tokens=tokens, gate=gate), gate


def test_the_true_bill_of_a_cancelled_stream() -> None:
    """A cancel says `closing` while Atlas still reads, then `closed`, and the bill is the provider's own figure."""

    async def scenario() -> None:
        plan, gate = gated()
        async with metered(plan, drain=ON) as (it, rows), it.chat() as answer:
            await answer.until_frames(4)
            said = await it.control(sid_of(answer), "cancel", wait_s=0.05)
            assert (said.status, said.json["upstream"]) == (202, "closing")
            text = fold(await answer.read())
            assert text.error is not None  # its reader is told at once
            assert it.up.open == 1
            assert not rows
            gate.open()
            again = await it.control(sid_of(answer), "cancel")
            assert (again.status, again.json["upstream"], again.json["changed"]) == (200, "closed", False)
            shown = await ended(it, sid_of(answer))
            wanted = usage_of(it.up.requests[0].plan, it.up.requests[0].json)
            (row,) = rows
            assert row.usage.output_tokens == wanted["completion_tokens"] == 40
            assert row.usage.input_tokens == wanted["prompt_tokens"]
            assert (row.usage.estimated, row.billed_beyond, row.end) == (False, False, "cancelled:control")
            assert shown["usage"]["output_tokens"] == 40
            assert await it.up.requests[0].answered() == "complete"
            served = (await it.call("GET", f"/v1/streams/{sid_of(answer)}/text")).json["text"]
            assert plan.text().startswith(served)
            assert len(served) < len(plan.text())

    run(scenario())


@pytest.mark.parametrize(
    ("drain", "endpoint"), [({"enabled": False}, BILLED_ON), (ON, {"stops_on_close": True})], ids=["off", "stops"]
)
def test_nobody_reads_on_unasked(drain: dict[str, Any], endpoint: dict[str, Any]) -> None:
    """Without the setting, or where hanging up stops the bill, a cancel closes the socket at once."""

    async def scenario() -> None:
        plan, _ = gated()
        async with metered(plan, drain=drain, endpoint=endpoint) as (it, rows), it.chat() as answer:
            await answer.until_frames(4)
            assert (await it.control(sid_of(answer), "cancel")).json["upstream"] == "closed"
            await it.up.requests[0].gone()
            await answer.read()
            await ended(it, sid_of(answer))
            assert rows[0].usage.estimated
            assert rows[0].billed_beyond is not endpoint["stops_on_close"]

    run(scenario())


@pytest.mark.parametrize("bound", [{"max_s": 0.05}, {"max_bytes": 40}])
def test_the_bounds_of_one(bound: dict[str, Any]) -> None:
    """Beyond its seconds or bytes a stream is closed after all, and its bill stays a lower bound that says so."""

    async def scenario() -> None:
        plan, gate = gated(tokens=2000)
        if "max_bytes" in bound:
            plan = plan.with_(pace_s=0.001)
        async with metered(plan, drain={**ON, **bound}) as (it, rows), it.chat() as answer:
            await answer.until_frames(4)
            await it.control(sid_of(answer), "cancel", wait_s=0)
            if "max_bytes" in bound:
                gate.open()
            await answer.read()
            await it.up.requests[0].gone()
            await ended(it, sid_of(answer))
            assert it.up.requests[0].tokens < 2000
            assert (rows[0].usage.estimated, rows[0].billed_beyond) == (True, True)

    run(scenario())


def test_the_bound_of_all() -> None:
    """No more than so many are read on at once; who is one too many is closed at once."""

    async def scenario() -> None:
        plan, gate = gated()
        other, _ = gated()
        async with metered(plan, drain={**ON, "max_streams": 1}) as (it, rows), it.chat() as first:
            it.up.default = other
            async with it.chat() as second:
                await first.until_frames(2)
                await second.until_frames(2)
                assert (await it.control(sid_of(first), "cancel", wait_s=0)).json["upstream"] == "closing"
                assert (await it.control(sid_of(second), "cancel")).json["upstream"] == "closed"
                gate.open()
                await asyncio.gather(first.read(), second.read())
                await eventually(lambda: len(rows) == 2)
                assert sorted(row.usage.estimated for row in rows) == [False, True]

    run(scenario())


def test_a_used_up_budget() -> None:
    """A stream that its budget stopped ends for its reader at the token, and is billed what was generated."""

    async def scenario() -> None:
        plan = Plan(tokens=400)
        async with metered(plan, drain=ON) as (it, rows):
            async with it.chat({"x-atlas-budget": "tokens=60"}) as answer:
                folded = fold(await answer.read())
            assert (folded.finish, folded.done) == ("length", True)
            await ended(it, sid_of(answer))
            assert rows[0].usage.output_tokens == 400
            assert not rows[0].usage.estimated

    run(scenario())


def test_a_shutdown_waits_for_no_bill() -> None:
    """A process that is told to end closes what it only reads on, and settles it with what it knows."""

    async def scenario() -> None:
        plan, _ = gated()
        async with metered(plan, drain=ON) as (it, rows), it.chat() as answer:
            await answer.until_frames(4)
            await it.control(sid_of(answer), "cancel", wait_s=0)
            await answer.read()
            await it.app.drain.end()
            assert [row.billed_beyond for row in rows] == [True]
            await it.up.requests[0].gone()

    run(scenario())
