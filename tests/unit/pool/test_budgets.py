"""Budgets of running streams: stopped to the token, settled once, returned after crashes, on memory and real Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.clock import SystemClock
from gateway.core.errors import ProviderError, RequestError
from gateway.core.events import UsageReport
from gateway.core.principal import Principal
from gateway.core.usage import Usage
from gateway.pool.budget import NANO, Budget, Per, Unit
from gateway.pool.ledger import Answer, Ask, Ledger, LedgerUnavailable
from gateway.pool.ledger_memory import MemoryLedger
from gateway.pool.ledger_redis import RedisLedger
from gateway.pool.plan import Limits, own_budgets
from gateway.pool.ratelimit import BudgetExceeded
from gateway.upstream.lane_redis import Lane
from gateway.upstream.link_redis import Link, Timing
from tests.support.baseline import baseline
from tests.support.redis_server import shared_redis
from tests.support.run import run
from tests.unit.pool.budget_world import WHO, EveryEventIsAToken, ManualClock, Words, asked, bill, replica, stream

TOKENS = Budget(tenant="acme", key="a", unit=Unit.TOKENS, limit=1000, per=Per.TOTAL)


def tokens(limit: int, key: str | None = "a") -> Budget:
    """A budget of all time."""
    return Budget(tenant="acme", key=key, unit=Unit.TOKENS, limit=limit, per=Per.TOTAL)


def redis_ledger() -> RedisLedger:
    """One replica's, on the server of this process."""
    return RedisLedger(Lane(Link(shared_redis().url, SystemClock())))


@asynccontextmanager
async def ledgers(kind: str, count: int) -> AsyncIterator[list[Ledger]]:
    """So many replicas' views of one ledger."""
    if kind == "memory":
        yield [MemoryLedger(SystemClock())] * count
    else:
        shared_redis().flush()
        yield [redis_ledger() for _ in range(count)]


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_two_hundred_streams_on_three_replicas_stop_at_the_budget(kind: str) -> None:
    """Two hundred streams of one key over three replicas take exactly the budget, and not one token more."""
    limit = 12_000

    async def scenario() -> None:
        async with baseline(), ledgers(kind, 3) as found, AsyncExitStack() as stack:
            replicas = [
                await stack.enter_async_context(replica(ledger, tokens(limit), rid=f"r{at}"))
                for at, ledger in enumerate(found)
            ]
            answers = await asyncio.gather(
                *(stream(replicas[at % 3], f"s{at}", Words(10_000, size=3)) for at in range(200)),
                return_exceptions=True,
            )
            served = [answer for answer in answers if isinstance(answer, tuple)]
            refused = [answer for answer in answers if isinstance(answer, BudgetExceeded)]
            assert len(served) + len(refused) == 200, [each for each in answers if isinstance(each, Exception)][:3]
            assert {why for _, why in served} == {"budget"}
            for each in replicas:
                assert await each.flush()
            spent = sum(passed + 10 for passed, _ in served)
            assert limit - 200 <= spent <= limit
            assert await replicas[0].ledger.spent(tokens(limit)) == (spent, 0)

    run(scenario())


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_a_stream_stops_at_the_token(size: int) -> None:
    """One stream gives all that its budget has, however much comes in one read, and nothing beyond."""

    async def scenario() -> None:
        async with replica(MemoryLedger(SystemClock()), tokens(2010)) as budgets:
            source = Words(5000, size=size)
            assert await stream(budgets, "s", source) == (2000, "budget")
            assert source.left
            assert source.read <= 2000 + size
            await budgets.flush()
            assert await budgets.ledger.spent(tokens(2010)) == (2010, 0)
            with pytest.raises(BudgetExceeded, match="is used up"):
                await stream(budgets, "t", Words(1))

    run(scenario())


def test_a_stream_within_its_budget_is_charged_what_the_provider_says() -> None:
    """What is settled is the provider's usage, and the rest of the reservation is free at once."""

    async def scenario() -> None:
        async with replica(MemoryLedger(SystemClock()), tokens(1000)) as budgets:
            assert await stream(budgets, "s", Words(20)) == (20, None)
            await budgets.flush()
            assert await budgets.ledger.spent(tokens(1000)) == (30, 0)
            assert budgets.open == 0

    run(scenario())


def test_no_chunk_waits_while_the_ledger_is_quicker_than_the_model() -> None:
    """Blocks are reserved ahead of need: a stream of several blocks never waits for one."""

    async def scenario() -> None:
        ledger = redis_ledger()
        move, under_way = ledger.move, set[int]()

        async def moves(rid: str, number: int, asks: Any) -> Any:
            under_way.add(number)
            try:
                return await move(rid, number, asks)
            finally:
                under_way.discard(number)

        ledger.move = moves  # type: ignore[method-assign]
        async with replica(ledger, tokens(100_000)) as budgets:
            ready = asyncio.Semaphore(0)
            streaming = asyncio.create_task(stream(budgets, "s", Words(1500, ready=ready)))
            while not streaming.done():
                if not under_way:
                    ready.release()
                await asyncio.sleep(0.0002)
            assert await streaming == (1500, None)
            assert budgets.waits == 0

    shared_redis().flush()
    run(scenario())


def test_usd_is_held_to_the_limit() -> None:
    """A budget in dollars stops the stream where the money ends, the prompt included."""
    budget = Budget(tenant="acme", key="a", unit=Unit.USD, limit=NANO, per=Per.DAY)

    async def scenario() -> None:
        clock = ManualClock()  # no day begins meanwhile
        async with replica(MemoryLedger(clock), budget, clock=clock) as budgets:
            assert await stream(budgets, "s", Words(5000), EveryEventIsAToken(usd=0.001)) == (990, "budget")
            with pytest.raises(RequestError, match="price of 'm' at 'somewhere' is not known") as caught:
                await stream(budgets, "t", Words(1), EveryEventIsAToken(usd=None))
            assert caught.value.status == 403

    run(scenario())


def test_the_callers_own_budget_needs_no_ledger() -> None:
    """`x-atlas-budget` holds one stream, also where nothing else does, and a prompt that is too long is refused."""

    async def scenario() -> None:
        async with replica(MemoryLedger(SystemClock())) as budgets:
            ticket = await budgets.admit("s", WHO, asked(), EveryEventIsAToken(), own_budgets("tokens=50", "acme"))
            assert ticket is not None
            passed = 0
            async with budgets.metered(Words(100), ticket).open() as batches:
                async for batch in batches:
                    passed += len(batch)
            assert passed == 1 + 40
            budgets.close("s")
            assert budgets.open == 0
            with pytest.raises(BudgetExceeded, match="the prompt alone"):
                await budgets.admit("t", WHO, asked(), EveryEventIsAToken(prompt=50), own_budgets("tokens=50", "acme"))

    run(scenario())


def test_a_bill_beyond_the_callers_own_budget() -> None:
    """A provider that counts more than the caller allowed asks nobody for more: there is nobody who could give it."""

    async def scenario() -> None:
        async with replica(MemoryLedger(SystemClock())) as budgets:
            ticket = await budgets.admit("s", WHO, asked(), EveryEventIsAToken(), own_budgets("tokens=50", "acme"))
            assert ticket is not None
            assert ticket.meter is not None
            assert ticket.meter.passes([UsageReport(Usage(input_tokens=60, output_tokens=1))])
            budgets.close("s")
            assert await budgets.flush()
            assert budgets.open == 0

    run(scenario())


@pytest.mark.parametrize("text", ["", "tokens", "tokens=0", "tokens=-1", "tokens=1e3", "usd=nan", "usd=0", "usd=inf",
                                  "requests=1", "tokens=1,tokens=2", "tokens=1;usd=1", "tokens=1,"])  # fmt: skip
def test_what_is_no_budget_is_refused(text: str) -> None:
    """A header that says anything but tokens and dollars is not guessed at."""
    with pytest.raises(ValueError):  # noqa: PT011  the words are the caller's
        own_budgets(text, "acme")


def test_own_budgets_are_read() -> None:
    """Tokens and dollars, either or both."""
    found = own_budgets("tokens=500, usd=0.05", "acme")
    assert [(budget.unit, budget.limit, budget.per) for budget in found] == [
        (Unit.TOKENS, 500, Per.REQUEST), (Unit.USD, NANO // 20, Per.REQUEST),
    ]  # fmt: skip


def test_nobody_is_asked_for_a_caller_without_budgets() -> None:
    """Where nothing limits a caller there is no ticket, and no step of the ledger."""

    async def scenario() -> None:
        async with replica(_Away(), tokens(10)) as budgets:
            assert await budgets.admit("s", Principal("acme", "b"), asked(), EveryEventIsAToken()) is None

    run(scenario())


def test_requests_per_minute() -> None:
    """The third request of a minute is refused with when to come back; headers count down."""
    limits = Limits(rpm=2, tpm=10_000).budgets("acme", "a")

    async def scenario() -> None:
        clock = ManualClock()  # no minute begins meanwhile
        async with replica(MemoryLedger(clock), *limits, clock=clock) as budgets:
            left: list[bytes] = []
            for sid in ("s", "t"):
                ticket = await budgets.admit(sid, WHO, asked(), EveryEventIsAToken())
                assert ticket is not None
                assert ticket.meter is None
                left.append(dict(ticket.headers)[b"x-ratelimit-remaining-requests"])
                budgets.on_settled(bill(sid, Usage(input_tokens=10, output_tokens=5)))
                budgets.close(sid)
            assert left == [b"1", b"0"]
            await budgets.flush()
            with pytest.raises(RequestError, match="2 requests a minute") as caught:
                await budgets.admit("u", WHO, asked(), EveryEventIsAToken())
            assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
            assert 1 <= int(caught.value.headers["retry-after"]) <= 60
            assert caught.value.headers["x-ratelimit-remaining-requests"] == "0"
            (tpm,) = (budget for budget in limits if budget.unit is Unit.TOKENS)
            assert await budgets.ledger.spent(tpm) == (30, 0)

    run(scenario())


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_streams_at_once(kind: str) -> None:
    """No more streams run at once than allowed over all replicas; an end makes room."""
    limits = Limits(max_concurrent_streams=2).budgets("acme", "a")

    async def scenario() -> None:
        async with (
            ledgers(kind, 2) as (one, two),
            replica(one, *limits) as here,
            replica(two, *limits, rid="r2") as there,
        ):
            await here.admit("s", WHO, asked(), EveryEventIsAToken())
            await there.admit("t", WHO, asked(), EveryEventIsAToken())
            with pytest.raises(RequestError, match="2 streams at once") as caught:
                await here.admit("u", WHO, asked(), EveryEventIsAToken())
            assert caught.value.code == "concurrency_limit_exceeded"
            there.close("t")
            await there.flush()
            assert await here.admit("u", WHO, asked(), EveryEventIsAToken()) is not None
            here.close("s")
            here.close("s")
            here.close("u")

    run(scenario())


def test_a_leg_is_charged_once() -> None:
    """The same leg told twice, or after the end, is charged once; several legs are added up."""

    async def scenario() -> None:
        async with replica(MemoryLedger(SystemClock()), tokens(1000)) as budgets:
            await budgets.admit("s", WHO, asked(), EveryEventIsAToken())
            for number in (1, 1, 2):
                budgets.on_settled(bill("s", Usage(input_tokens=10, output_tokens=5), number))
            budgets.close("s")
            budgets.on_settled(bill("s", Usage(input_tokens=10, output_tokens=5), 3))
            budgets.close("s")
            await budgets.flush()
            assert await budgets.ledger.spent(tokens(1000)) == (30, 0)

    run(scenario())


def test_a_leg_that_was_billed_beyond_its_end_is_corrected() -> None:
    """Where closing did not stop the bill, the provider's figure is charged when it is known, even after the end."""

    async def scenario() -> None:
        async with replica(MemoryLedger(SystemClock()), tokens(1000)) as budgets:
            await budgets.admit("s", WHO, asked(), EveryEventIsAToken())
            lower = replace(bill("s", Usage(input_tokens=10, output_tokens=5)), billed_beyond=True)
            budgets.on_settled(lower)
            budgets.close("s")
            await budgets.flush()
            assert await budgets.ledger.spent(tokens(1000)) == (15, 0)
            for _ in range(2):
                budgets.on_settled(bill("s", Usage(input_tokens=10, output_tokens=90)))
                await budgets.flush()
                assert await budgets.ledger.spent(tokens(1000)) == (100, 0)

    run(scenario())


def test_the_request_asks_for_no_more_than_is_left() -> None:
    """The provider is asked for the smaller one of the caller's limit and what is left, for each choice."""

    async def scenario() -> None:
        async with replica(MemoryLedger(SystemClock()), tokens(110)) as budgets:
            ticket = await budgets.admit("s", WHO, asked(), EveryEventIsAToken())
            assert ticket is not None
            body = {"max_tokens": 5000}
            assert ticket.capped(asked(max_output_tokens=5000, body=body)).max_output_tokens == 100
            assert ticket.capped(asked(max_output_tokens=5000, body=body)).body == {"max_tokens": 100}
            assert ticket.capped(asked(max_output_tokens=5000, n=4)).max_output_tokens == 25
            assert ticket.capped(asked()).max_output_tokens == 100
            assert ticket.capped(asked(max_output_tokens=7)).max_output_tokens == 7
            budgets.close("s")

    run(scenario())


class _Away(MemoryLedger):
    """Does not answer while `away`; with `lost` it does what is asked first."""

    def __init__(self) -> None:
        super().__init__(SystemClock(), lease_s=0.06)
        self.away = self.lost = False

    async def move(self, rid: str, number: int, asks: list[Ask]) -> Answer:  # type: ignore[override]
        if self.lost:
            await super().move(rid, number, asks)
        if self.away or self.lost:
            await asyncio.sleep(0)
            raise LedgerUnavailable("away")
        return await super().move(rid, number, asks)


def test_refusals_displace_no_bill(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are refused while the ledger takes nothing, what ended meanwhile is charged in the end."""
    monkeypatch.setattr("gateway.pool.budgets.LATE", 5)

    async def scenario() -> None:
        async with replica(ledger := _Away(), tokens(1000)) as budgets:
            await budgets.admit("s", WHO, asked(), EveryEventIsAToken())
            ledger.away = True
            budgets.on_settled(bill("s", Usage(input_tokens=10, output_tokens=5)))
            budgets.close("s")
            assert not await budgets.flush(0.05)
            for number in range(20):
                with pytest.raises(RequestError) as caught:
                    await budgets.admit(f"t{number}", WHO, asked(), EveryEventIsAToken())
                assert (caught.value.status, caught.value.code) == (503, "budget_unavailable")
            ledger.away = False
            assert await budgets.flush()
            assert await ledger.spent(tokens(1000)) == (15, 0)

    run(scenario())


@pytest.mark.parametrize("lost", [False, True])
def test_a_settlement_waits_for_the_ledger(lost: bool) -> None:
    """A settlement whose answer is lost, or that did not arrive, is made once when the ledger is back."""

    async def scenario() -> None:
        ledger = _Away()
        async with replica(ledger, tokens(1000)) as budgets:
            await budgets.admit("s", WHO, asked(), EveryEventIsAToken())
            ledger.away, ledger.lost = not lost, lost
            budgets.on_settled(bill("s", Usage(input_tokens=10, output_tokens=5)))
            budgets.close("s")
            assert not await budgets.flush(within_s=0.05)
            ledger.away = ledger.lost = False
            assert await budgets.flush()
            assert await ledger.spent(tokens(1000)) == (15, 0)

    run(scenario())


@pytest.mark.parametrize("lost", [False, True])
def test_an_admission_without_answer_holds_nothing(lost: bool) -> None:
    """Without an answer the caller gets a 503, and what may have been reserved is given back."""

    async def scenario() -> None:
        ledger = _Away()
        async with replica(ledger, tokens(1000)) as budgets:
            ledger.away, ledger.lost = not lost, lost
            with pytest.raises(RequestError) as caught:
                await budgets.admit("s", WHO, asked(), EveryEventIsAToken())
            assert (caught.value.status, caught.value.code) == (503, "budget_unavailable")
            ledger.away = ledger.lost = False
            assert await budgets.flush()
            assert await ledger.spent(tokens(1000)) == (0, 0)
            assert budgets.open == 0

    run(scenario())


def test_a_caller_that_hangs_up_while_being_admitted_holds_nothing() -> None:
    """Cancelling an admission at any await leaves no reservation."""

    async def scenario() -> None:
        shared_redis().flush()
        async with replica(redis_ledger(), tokens(100_000)) as budgets:
            for pause in range(40):
                admission = asyncio.create_task(budgets.admit(f"s{pause}", WHO, asked(), EveryEventIsAToken()))
                for _ in range(pause % 20):
                    await asyncio.sleep(0)
                if pause >= 20:
                    await asyncio.sleep(0.0001 * (pause - 20))
                admission.cancel()
                try:
                    await admission
                    budgets.close(f"s{pause}")
                except asyncio.CancelledError:
                    pass
            assert await budgets.flush()
            assert await budgets.ledger.spent(tokens(100_000)) == (0, 0)
            assert budgets.open == 0

    run(scenario())


def test_a_stream_that_outlives_the_ledger_ends_as_failed() -> None:
    """Where a budget cannot be looked up any more, the stream ends with an error, never with free tokens."""

    async def scenario() -> None:
        ledger = _Away()
        async with replica(ledger, tokens(100_000)) as budgets:
            ready = asyncio.Semaphore(10)
            source = Words(5000, ready=ready)
            streaming = asyncio.create_task(stream(budgets, "s", source))
            while source.read < 10:  # noqa: ASYNC110
                await asyncio.sleep(0)
            ledger.away = True
            for _ in range(5000):
                ready.release()
            with pytest.raises(ProviderError, match="cannot be looked up"):
                await streaming
            assert source.read <= 600
            ledger.away = False
            budgets.close("s")

    run(scenario())


def test_a_crash_returns_the_lease() -> None:
    """What a replica held that is gone is free after its lease, and what it had charged stays charged."""

    async def scenario() -> None:
        shared_redis().flush()
        lost = RedisLedger(Lane(Link(shared_redis().url, SystemClock(), timing=Timing())), lease_s=2.0)
        here = RedisLedger(Lane(Link(shared_redis().url, SystemClock())), lease_s=2.0)
        async with replica(here, tokens(1000), rid="here") as budgets:
            gone = asyncio.create_task(lost.run())
            await lost.move("gone", 1, [Ask(tokens(1000), need=600)])
            await lost.move("gone", 2, [Ask(tokens(1000), 0, 100, 100)])
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            assert await here.spent(tokens(1000)) == (100, 500)
            while (await here.spent(tokens(1000)))[1]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            assert await stream(budgets, "s", Words(5000)) == (890, "budget")

    run(scenario())
