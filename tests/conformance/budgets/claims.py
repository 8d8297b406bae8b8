"""What every ledger promises; each claim is a function of a subject, and its docstring the sentence that must hold."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from gateway.pool.budget import DAY_S, TOTAL_S, Budget, Per, Unit, window_of
from gateway.pool.ledger import Ask, Denial, Grant
from tests.conformance.budgets.subject import LEASE_S, Subject

Claim: TypeAlias = Callable[[Subject], Awaitable[None]]
CLAIMS: dict[str, Claim] = {}

DAILY = Budget(tenant="acme", key="a", unit=Unit.TOKENS, limit=1000, per=Per.DAY)
TENANTS = Budget(tenant="acme", unit=Unit.TOKENS, limit=600, per=Per.MONTH)


def claim(function: Claim) -> Claim:
    """Adds it to the suite."""
    CLAIMS[function.__name__] = function  # type: ignore[attr-defined]
    return function


def of(budget: Budget, limit: int) -> Budget:
    """The same one with another limit."""
    return Budget(
        tenant=budget.tenant, key=budget.key, unit=budget.unit, limit=limit, per=budget.per, stops=budget.stops
    )


async def take(subject: Subject, need: int, *budgets: Budget, rid: str = "r1", block: int = 0) -> Sequence[Grant]:
    """What was granted of each."""
    answer = await subject.ledger.move(rid, 0, [Ask(budget, need=need, block=block) for budget in budgets])
    assert not isinstance(answer, Denial), answer
    return answer


async def settle(subject: Subject, budget: Budget, grant: Grant, spent: int, rid: str = "r1", number: int = 0) -> Grant:
    """Gives all of it back, with so much spent."""
    answer = await subject.ledger.move(rid, number, [Ask(budget, grant.window, grant.amount, spent)])
    assert not isinstance(answer, Denial)
    return answer[0]


@claim
async def what_is_reserved_is_nobody_elses(subject: Subject) -> None:
    """What one stream reserved cannot be reserved by another, on whatever replica."""
    (grant,) = await take(subject, 700, DAILY)
    assert (grant.amount, grant.left) == (700, 300)
    denial = await subject.ledger.move("r2", 0, [Ask(DAILY, need=301)])
    assert isinstance(denial, Denial)
    assert (denial.budget, denial.left, denial.reset) == (DAILY, 300, window_of(Per.DAY, subject.now()).end)
    assert (await take(subject, 300, DAILY, rid="r2"))[0].left == 0


@claim
async def many_at_once_never_reserve_more_than_there_is(subject: Subject) -> None:
    """A hundred replicas that reserve at once get the limit in all, not one more."""
    asks = [subject.ledger.move(f"r{at}", 0, [Ask(DAILY, need=30)]) for at in range(100)]
    answers = await asyncio.gather(*asks)
    granted = [answer[0].amount for answer in answers if not isinstance(answer, Denial)]
    assert granted == [30] * 33
    assert await subject.ledger.spent(DAILY) == (0, 990)


@claim
async def one_denial_changes_nothing(subject: Subject) -> None:
    """Where the last of several budgets denies, the others have lost nothing."""
    answer = await subject.ledger.move("r1", 0, [Ask(DAILY, need=700), Ask(TENANTS, need=700)])
    assert isinstance(answer, Denial)
    assert answer.budget == TENANTS
    assert await subject.ledger.spent(DAILY) == (0, 0)
    assert await subject.ledger.spent(TENANTS) == (0, 0)


@claim
async def what_was_not_spent_comes_back(subject: Subject) -> None:
    """Settling returns the rest of the reservation at once, and what was spent stays spent."""
    (grant,) = await take(subject, 512, DAILY)
    assert (await settle(subject, DAILY, grant, 112)).left == 888
    assert await subject.ledger.spent(DAILY) == (112, 0)


@claim
async def a_repeated_settlement_counts_once(subject: Subject) -> None:
    """A settlement that the network repeats, also after others, is spent once and answered as before."""
    (grant,) = await take(subject, 512, DAILY)
    first = await settle(subject, DAILY, grant, 100, number=7)
    (other,) = await take(subject, 50, DAILY)
    assert await settle(subject, DAILY, grant, 100, number=7) == first
    assert await subject.ledger.spent(DAILY) == (100, 50)
    await settle(subject, DAILY, other, 50, number=8)
    assert await settle(subject, DAILY, grant, 100, number=7) == first
    assert await subject.ledger.spent(DAILY) == (150, 0)


@claim
async def a_repeated_reservation_holds_once(subject: Subject) -> None:
    """A reservation whose answer was lost is answered again, and held once."""
    asks = [Ask(DAILY, need=100, block=100)]
    assert await subject.ledger.move("r1", 3, asks) == await subject.ledger.move("r1", 3, asks)
    assert await subject.ledger.spent(DAILY) == (0, 200)


@claim
async def a_repeated_denial_is_a_denial(subject: Subject) -> None:
    """A refusal whose answer was lost is a refusal, even if there is room by now."""
    (grant,) = await take(subject, 1000, DAILY, rid="r2")
    denied = await subject.ledger.move("r1", 3, [Ask(DAILY, need=1)])
    await settle(subject, DAILY, grant, 0, rid="r2")
    assert isinstance(denied, Denial)
    assert await subject.ledger.move("r1", 3, [Ask(DAILY, need=1)]) == denied


@claim
async def numbers_of_replicas_are_their_own(subject: Subject) -> None:
    """Two replicas may use the same number for different steps."""
    await subject.ledger.move("r1", 1, [Ask(DAILY, need=100)])
    await subject.ledger.move("r2", 1, [Ask(DAILY, need=100)])
    assert await subject.ledger.spent(DAILY) == (0, 200)


@claim
async def what_was_overspent_counts(subject: Subject) -> None:
    """A stream that took more than it had reserved is charged all of it, and the next one is denied."""
    (grant,) = await take(subject, 500, DAILY)
    assert (await settle(subject, DAILY, grant, 1003)).left == 0
    assert await subject.ledger.spent(DAILY) == (1003, 0)
    assert isinstance(await subject.ledger.move("r1", 0, [Ask(DAILY, need=1)]), Denial)


@claim
async def an_estimate_that_was_too_high_is_corrected(subject: Subject) -> None:
    """Spending less than was counted before gives the difference back, and never makes a budget larger than it is."""
    (grant,) = await take(subject, 100, DAILY)
    more = (await subject.ledger.move("r1", 0, [Ask(DAILY, grant.window, 100, 100, block=64)]))[0]
    assert isinstance(more, Grant)
    await settle(subject, DAILY, more, -40)
    assert await subject.ledger.spent(DAILY) == (60, 0)
    await settle(subject, DAILY, Grant(more.window, 0, 0, 0), -100)
    assert await subject.ledger.spent(DAILY) == (0, 0)


@claim
async def blocks_shrink_as_a_budget_runs_dry(subject: Subject) -> None:
    """Where little is left, a stream is not given all of it: a dozen can still begin."""
    amounts = [(await take(subject, 1, of(DAILY, 600), block=512))[0].amount for _ in range(12)]
    assert amounts[0] == 1 + 599 // 4
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[-1] > 0


@claim
async def a_block_without_need_is_never_denied(subject: Subject) -> None:
    """Asking for more where nothing is left is answered with nothing, and what was spent is counted all the same."""
    (grant,) = await take(subject, 1000, DAILY)
    (more,) = await subject.ledger.move("r1", 0, [Ask(DAILY, grant.window, 900, 900, block=512)])
    assert isinstance(more, Grant)
    assert (more.amount, more.left) == (0, 0)
    assert await subject.ledger.spent(DAILY) == (900, 100)


@claim
async def what_the_dead_held_is_free_again(subject: Subject) -> None:
    """A replica that is not heard of for its lease holds nothing any more; what it had spent stays spent."""
    (grant,) = await take(subject, 400, DAILY, rid="dead")
    await subject.ledger.move("dead", 0, [Ask(DAILY, grant.window, 150, 150)])
    await subject.elapse(LEASE_S - 0.5)
    assert await subject.ledger.spent(DAILY) == (150, 250)
    await subject.elapse(1)
    assert await subject.ledger.spent(DAILY) == (150, 0)
    assert (await take(subject, 850, DAILY, rid="r2"))[0].left == 0


@claim
async def renewing_keeps_what_is_held(subject: Subject) -> None:
    """A replica that renews keeps its reservations for as long as it does."""
    (grant,) = await take(subject, 400, DAILY)
    for _ in range(4):
        await subject.elapse(LEASE_S / 2)
        await subject.ledger.renew("r1", [(DAILY, grant.window, 400)])
    assert await subject.ledger.spent(DAILY) == (0, 400)


@claim
async def a_replica_that_was_stopped_holds_again(subject: Subject) -> None:
    """A replica that was taken for dead and renews holds again what it holds."""
    (grant,) = await take(subject, 400, DAILY)
    await subject.elapse(LEASE_S * 2)
    assert await subject.ledger.spent(DAILY) == (0, 0)
    await subject.ledger.renew("r1", [(DAILY, grant.window, 400)])
    assert await subject.ledger.spent(DAILY) == (0, 400)


@claim
async def a_lease_that_ran_out_is_settled_for_what_was_spent(subject: Subject) -> None:
    """Settling after one's lease ran out charges what was spent, and takes nothing from what others hold."""
    (grant,) = await take(subject, 400, DAILY)
    await subject.elapse(LEASE_S * 2)
    await take(subject, 100, DAILY, rid="r2")
    await settle(subject, DAILY, grant, 50)
    assert await subject.ledger.spent(DAILY) == (50, 100)


@claim
async def windows_follow_the_calendar(subject: Subject) -> None:
    """A budget is whole again with the next minute, hour, day or month in UTC, not before."""
    for per in (Per.MINUTE, Per.HOUR, Per.DAY, Per.MONTH):
        budget = Budget(tenant="acme", key=per, unit=Unit.TOKENS, limit=10, per=per)
        end = window_of(per, subject.now()).end
        (grant,) = await take(subject, 10, budget)
        assert (grant.window, grant.reset) == (window_of(per, subject.now()).start, end)
        await settle(subject, budget, grant, 10)
        await subject.elapse(end - subject.now() - 1)
        assert await subject.ledger.spent(budget) == (10, 0)
        await subject.elapse(1)
        assert await subject.ledger.spent(budget) == (0, 0)


@claim
async def months_are_as_long_as_they_are(subject: Subject) -> None:
    """The windows of 50 months to come are those of the calendar, leap years too."""
    monthly = of(TENANTS, 10**9)
    for _ in range(50):
        (grant,) = await take(subject, 1, monthly)
        began, now = datetime.fromtimestamp(grant.window, UTC), datetime.fromtimestamp(subject.now(), UTC)
        assert (began.year, began.month, began.day, began.hour) == (now.year, now.month, 1, 0)
        assert grant.reset == window_of(Per.MONTH, subject.now()).end
        await subject.elapse(grant.reset - subject.now())


@claim
async def what_comes_late_is_not_given_to_the_new_window(subject: Subject) -> None:
    """A stream that ends in the next window gives back nothing to it, and is charged there for what it had not held."""
    (grant,) = await take(subject, 400, DAILY)
    await subject.elapse(DAY_S)
    (new,) = await take(subject, 100, DAILY, rid="r2")
    await settle(subject, DAILY, grant, 300)
    assert await subject.ledger.spent(DAILY) == (0, 100)
    await settle(subject, DAILY, grant, 420)
    assert await subject.ledger.spent(DAILY) == (20, 100)
    assert new.window > grant.window


@claim
async def a_budget_of_all_time_is_never_renewed(subject: Subject) -> None:
    """What was spent of a total stays spent through days and months."""
    budget = Budget(tenant="acme", key="a", unit=Unit.USD, limit=5, per=Per.TOTAL)
    (grant,) = await take(subject, 5, budget)
    await settle(subject, budget, grant, 5)
    await subject.elapse(100 * DAY_S)
    assert await subject.ledger.spent(budget) == (5, 0)
    assert isinstance(await subject.ledger.move("r1", 0, [Ask(budget, need=1)]), Denial)


@claim
async def another_limit_is_the_same_budget(subject: Subject) -> None:
    """An operator who raises or lowers a limit does not forget what was spent."""
    (grant,) = await take(subject, 600, DAILY)
    await settle(subject, DAILY, grant, 600)
    assert (await take(subject, 1, of(DAILY, 2000)))[0].left == 1399
    assert isinstance(await subject.ledger.move("r1", 0, [Ask(of(DAILY, 500), need=1)]), Denial)


@claim
async def tenants_and_keys_do_not_share(subject: Subject) -> None:
    """The budgets of two keys, of two tenants, and of a key and its tenant are different ones."""
    others = [
        Budget(tenant="acme", key="b", unit=Unit.TOKENS, limit=1000, per=Per.DAY),
        Budget(tenant="other", key="a", unit=Unit.TOKENS, limit=1000, per=Per.DAY),
        Budget(tenant="acme", unit=Unit.TOKENS, limit=1000, per=Per.DAY),
        Budget(tenant="acme", key="a", unit=Unit.TOKENS, limit=1000, per=Per.DAY, stops=False),
    ]
    await take(subject, 1000, DAILY)
    for other in others:
        assert (await take(subject, 1, other))[0].left == 999


@claim
async def nothing_is_left_in_the_end(subject: Subject) -> None:
    """When everything has run out, nothing is kept."""
    for budget in (DAILY, TENANTS, Budget(tenant="acme", unit=Unit.TOKENS, limit=9, per=Per.TOTAL)):
        await subject.ledger.move("r1", 5, [Ask(budget, need=5)])
    await subject.elapse(1)
    await subject.elapse(TOTAL_S)
    assert subject.names() == []
