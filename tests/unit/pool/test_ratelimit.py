"""What callers are told of their limits, and the arithmetic of windows."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.principal import Principal
from gateway.pool.budget import NANO, Budget, Per, Unit, granted, window_of
from gateway.pool.ledger import Denial
from gateway.pool.plan import Limits, Plans
from gateway.pool.ratelimit import BudgetExceeded, duration, refusal, standing_headers

RPM = Budget(tenant="acme", key="a", unit=Unit.REQUESTS, limit=60, per=Per.MINUTE, stops=False)
DAILY = Budget(tenant="acme", key="a", unit=Unit.TOKENS, limit=1000, per=Per.DAY)
NOON = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0ms"), (0.35, "350ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3600, "1h0m0s"), (-1, "0ms")],
)
def test_durations_are_openais(seconds: float, shown: str) -> None:
    """Times to a reset are written as OpenAI writes them."""
    assert duration(seconds) == shown


def test_headers_of_each_dialect() -> None:
    """OpenAI's callers get durations, Anthropic's moments; budgets are nobody's rate limit."""
    standing = [(RPM, 59, NOON + 30), (DAILY, 1, NOON)]
    assert standing_headers("openai_chat", standing, NOON) == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"30s"),
    ]
    assert standing_headers("anthropic_messages", standing, NOON) == [
        (b"anthropic-ratelimit-requests-limit", b"60"),
        (b"anthropic-ratelimit-requests-remaining", b"59"),
        (b"anthropic-ratelimit-requests-reset", b"2026-11-23T12:01:00Z"),
    ]


def test_refusals_say_what_and_when() -> None:
    """A limit says when to come back; a budget says that no retry helps, and when it is renewed."""
    limit = refusal(Denial(RPM, 0, NOON + 29.5), "openai_chat", NOON)
    assert (limit.status, limit.type, limit.headers["retry-after"]) == (429, "rate_limit_error", "30")
    budget = refusal(Denial(DAILY, 0, datetime(2026, 11, 24, tzinfo=UTC).timestamp()), "openai_chat", NOON)
    assert isinstance(budget, BudgetExceeded)
    assert (budget.status, budget.type, budget.code) == (429, "insufficient_quota", "budget_exceeded")
    assert budget.message == (
        "the budget of key 'a': 1000 tokens a day is used up; it is renewed at 2026-11-24T00:00:00Z"
    )
    assert not budget.failure.consequence.retry


def test_what_a_caller_falls_under() -> None:
    """A key has its own budgets and its tenant's, and no others; what stops streams is looked at first."""
    tenants = Budget(tenant="acme", unit=Unit.USD, limit=NANO, per=Per.MONTH)
    plans = Plans([*Limits(rpm=60).budgets("acme", "a"), DAILY, tenants])
    assert plans.of(Principal("acme", "a")) == (DAILY, tenants, RPM)
    assert plans.of(Principal("acme", "b")) == (tenants,)
    assert plans.of(Principal("other", "a")) == ()
    assert Plans().of(Principal()) == ()


@given(now=st.floats(0, 4e9), per=st.sampled_from([Per.MINUTE, Per.HOUR, Per.DAY, Per.MONTH]))
def test_windows_hold_the_moment_and_touch(now: float, per: Per) -> None:
    """Every moment lies in its window, and where one window ends the next one begins."""
    window = window_of(per, now)
    assert window.start <= now < window.end
    assert window_of(per, window.end).start == window.end
    assert window_of(per, window.end - 0.5) == window


@given(free=st.integers(-100, 10**6), need=st.integers(0, 10**5), block=st.integers(0, 10**5))
def test_what_is_granted_is_there(free: int, need: int, block: int) -> None:
    """A grant is all of the need, at most need and block, and never more than is free, unless nothing was needed."""
    found = granted(free, need, block)
    if found is None:
        assert free < need
    else:
        assert need <= found <= min(max(free, 0), need + block)
        assert found > need or not block or free == need
