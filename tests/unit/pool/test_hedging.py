"""When a hedge may go out, and what an endpoint that was outrun is known for."""

import random

from gateway.pool.candidate import Candidate, Trial
from gateway.pool.hedging import HedgePolicy, Hedging
from gateway.pool.statistics import Statistics


def answered(*seconds: float) -> Statistics:
    """An endpoint whose answers took so long to begin."""
    known = Statistics()
    for each in seconds:
        known.first_token(known.begin(0.0), each)
    return known


def test_the_wait_is_the_p95_of_the_endpoint_itself() -> None:
    """Of twenty and more answers; before that the policy's guess, and never less than its minimum."""
    hedging = Hedging(HedgePolicy(wait_min_s=0.2, wait_unknown_s=2.0), 0.0)
    assert hedging.wait_s(answered(*[0.5] * 19)) == 2.0
    assert hedging.wait_s(answered(*[0.5] * 58, *[3.0] * 6)) == 3.0
    assert hedging.wait_s(answered(*[0.5] * 62, *[3.0] * 2)) == 0.5
    assert hedging.wait_s(answered(*[0.01] * 64)) == 0.2


def test_no_more_than_a_share_ever() -> None:
    """At no moment more than a twentieth of the requests so far was hedged, and after a quiet time not many at once."""
    hedging, sent = Hedging(HedgePolicy(), 0.0), 0
    for requests in range(1, 2001):
        hedging.earn()
        if requests % 700 > 300:  # sometimes nobody is slow
            sent += hedging.spend(1000.0 * requests)
        assert sent <= 0.05 * requests
    assert sent >= 60
    for _ in range(2000):
        hedging.earn()
    assert sum(hedging.spend(1e9) for _ in range(100)) == 5


def test_who_is_outrun_is_not_quicker_for_it() -> None:
    """A wait that was cut short counts as a lower bound, no breaker hears of it, and a short one says nothing."""
    found = Candidate("slow", random.Random(1))

    def begin() -> Trial:
        trial = found.begin(0.0)
        assert isinstance(trial, Trial)
        return trial

    begin().answered(0.1)
    begin().outrun(3.0)
    assert found.statistics.first_token_percentile_s(0.95) == 3.0
    begin().outrun(0.01)
    shown = found.shown(3.0)
    assert (shown["statistics"]["answers"], shown["statistics"]["failures"]) == (1, 0)
    assert (shown["statistics"]["in_flight"], shown["limits"]["running"]) == (1, 1)  # the one that answered
    assert shown["statistics"]["first_token_p95_ms"] == 3000
    assert shown["breaker"]["window"] == {"samples": 1, "failures": 0}
