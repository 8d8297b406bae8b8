"""Repeats and hedges are a bounded share of the traffic."""

import random

from gateway.pool.candidate import Candidate, Trial
from gateway.pool.extra_load import HEDGE_SAMPLES, HEDGES, REPEATS, ExtraBudget, hedge_after_s


def test_an_outage_is_not_answered_with_a_multiple_of_its_load() -> None:
    """Of 1000 requests in ten seconds that all fail about a fifth is repeated, and one a second beside."""
    budget = ExtraBudget(REPEATS, 0.0)
    repeated = 0
    for at in range(1000):
        budget.earn()
        repeated += budget.spend(at / 100)
    assert 200 <= repeated <= 222


def test_rare_requests_may_always_be_repeated() -> None:
    """A single failed request is repeated although nothing was earned before."""
    budget = ExtraBudget(REPEATS, 0.0)
    assert all(budget.spend(at * 2.0) for at in range(50))


def test_hedges_are_at_most_a_twentieth() -> None:
    """Whatever the provider does, hedging adds no more than 5 % of requests."""
    budget = ExtraBudget(HEDGES, 0.0)
    hedged = 0
    for at in range(1000):
        budget.earn()
        hedged += budget.spend(float(at))
    assert hedged == 50


def test_hedges_wait_for_the_95th_percentile() -> None:
    """Nothing is hedged before enough is known; then only what is slower than nearly all others."""
    found = Candidate("e", random.Random(1))
    for at in range(HEDGE_SAMPLES):
        assert hedge_after_s(found.statistics) is None
        trial = found.begin(0.0)
        assert isinstance(trial, Trial)
        trial.answered(float(at))
    assert hedge_after_s(found.statistics) == 19.0
