"""The circuit breaker: when it opens, for how long, and whom it admits to prove the endpoint well again."""

import random

import pytest

from gateway.core.errors import CONSEQUENCES, Category
from gateway.pool.breaker import BreakerState, CircuitBreaker


def breaker(seed: int = 1) -> CircuitBreaker:
    """A closed breaker."""
    return CircuitBreaker(random.Random(seed))


def fail(found: CircuitBreaker, now: float, weight: str = "counts", *, after: bool = False, last: bool = False) -> None:
    """One request that is admitted and fails."""
    ticket = found.admit(now)
    assert ticket is not None
    if after:
        found.answered(ticket, now)
    found.failed(ticket, now, weight, after_content=after, last_closed=last)  # type: ignore[arg-type]


def test_five_failures_in_a_row_open() -> None:
    """An endpoint that fails five times in a row is not asked again for about five seconds."""
    found = breaker()
    for _ in range(4):
        fail(found, 10.0)
        assert found.is_closed
    fail(found, 10.0)
    assert found.state(10.0) is BreakerState.OPEN
    assert found.admit(13.9) is None
    assert found.admit(15.0) is not None


def test_the_row_rule_opens_the_last_closed_endpoint_too() -> None:
    """A route whose only endpoint is down answers at once instead of asking it again and again."""
    found = breaker()
    for _ in range(5):
        fail(found, 10.0, last=True)
    assert not found.is_closed


def test_the_ratio_rule_spares_the_last_closed_endpoint() -> None:
    """Half of the answers are better than none: the ratio alone never takes away a route's last endpoint."""
    found = breaker()
    for _ in range(30):
        fail(found, 10.0, "ratio", last=True)
    assert found.is_closed
    fail(found, 10.0, "ratio")
    assert not found.is_closed


def test_old_failures_do_not_count() -> None:
    """Failures of more than 30 s ago open nothing."""
    found = breaker()
    for _ in range(9):
        fail(found, 10.0, "ratio")
    fail(found, 41.0, "ratio")
    assert found.is_closed
    assert found.shown(41.0)["window"] == {"samples": 1, "failures": 1}
    assert found.shown(100.0)["window"] == {"samples": 0, "failures": 0}


def test_an_endpoint_that_cuts_every_stream_opens() -> None:
    """First content alone does not make an endpoint healthy whose streams all break off later."""
    found = breaker()
    for _ in range(5):
        fail(found, 10.0, after=True)
    assert not found.is_closed


def test_long_streams_that_end_well_keep_it_closed() -> None:
    """Four cuts, one whole answer and four more cuts among many answers open nothing."""
    found = breaker()
    for _ in range(2):
        for _ in range(4):
            fail(found, 10.0, after=True)
        for _ in range(3):
            ticket = found.admit(10.0)
            assert ticket is not None
            found.answered(ticket, 10.0)
            found.finished(ticket)
    assert found.is_closed


def test_open_times_double_up_to_five_minutes() -> None:
    """An endpoint that stays down is probed ever more seldom, but at least every five minutes."""
    found, now, waits = breaker(), 0.0, list[float]()
    for _ in range(5):
        fail(found, now)
    for _ in range(9):
        waits.append(found.blocked_until - now)
        now = found.blocked_until
        fail(found, now)
    nominal = [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert all(0.8 * most <= wait <= most for wait, most in zip(waits, nominal, strict=True))


def test_jitter_differs() -> None:
    """Replicas whose breakers open at the same moment do not probe at the same moment."""
    found = [breaker(seed) for seed in range(20)]
    for each in found:
        each.trip(0.0, "down")
    assert len({each.blocked_until for each in found}) == 20


def half_open() -> CircuitBreaker:
    """A breaker that opened at 0 s, for five seconds at most."""
    found = breaker()
    found.trip(0.0, "down")
    return found


def test_one_probe_at_a_time() -> None:
    """A hundred requests at the moment of half open send one to the endpoint."""
    found = half_open()
    assert [found.admit(6.0) is not None for _ in range(100)].count(True) == 1


def test_a_probe_is_judged_at_its_first_content() -> None:
    """A long answer need not end before others are let in."""
    found = half_open()
    ticket = found.admit(6.0)
    assert ticket is not None
    found.answered(ticket, 7.0)
    assert found.is_closed


def test_a_lost_probe_frees_itself() -> None:
    """A probe of which nothing is heard for 30 s does not lock the endpoint up; what it says later is not heard."""
    found = half_open()
    lost = found.admit(6.0)
    assert lost is not None
    assert found.admit(35.9) is None
    assert found.admit(36.0) is not None
    found.answered(lost, 36.5)
    assert not found.is_closed


def test_a_cancelled_probe_frees_the_slot() -> None:
    """The next request is the probe when the one before was cancelled or paused."""
    found = half_open()
    ticket = found.admit(6.0)
    assert ticket is not None
    found.released(ticket, 6.5)
    assert found.admit(6.5) is not None


@pytest.mark.parametrize("category", [Category.RATE_LIMITED, Category.QUOTA])
def test_a_429_fails_a_probe(category: Category) -> None:
    """An endpoint that refuses its probe with a 429 is not well again."""
    found = half_open()
    fail(found, 6.0, CONSEQUENCES[category].breaker)
    assert found.state(6.0) is BreakerState.OPEN


def test_a_callers_mistake_says_nothing_of_the_endpoint() -> None:
    """A bad request neither opens a breaker nor fails a probe."""
    found = breaker()
    for _ in range(50):
        fail(found, 1.0, CONSEQUENCES[Category.BAD_REQUEST].breaker)
    assert found.is_closed
    found.trip(2.0, "down")
    fail(found, 8.0, CONSEQUENCES[Category.BAD_REQUEST].breaker)
    assert found.state(8.0) is BreakerState.HALF_OPEN


def test_old_answers_close_nothing() -> None:
    """A stream of before the opening proves nothing about now."""
    found = breaker()
    old = found.admit(0.0)
    assert old is not None
    found.trip(0.0, "down")
    found.answered(old, 1.0)
    assert not found.is_closed


def test_our_own_doings_never_open() -> None:
    """Cancelled streams, our own total deadline, limits and budgets are no provider's fault."""
    ours = {Category.CANCELLED, Category.TIMEOUT_TOTAL, Category.POOL_EXHAUSTED, Category.BUDGET, Category.INTERNAL}
    assert {CONSEQUENCES[each].breaker for each in ours} == {"ignores"}


def test_an_administrator_may_ask_for_the_probe_now() -> None:
    """The next request is the probe although the open time has not passed."""
    found = half_open()
    found.probe_now(1.0)
    assert found.state(1.0) is BreakerState.HALF_OPEN
    assert found.admit(1.0) is not None
