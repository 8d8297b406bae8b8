"""One endpoint as selection sees it: admission, keys, breaker and statistics together, by attempts."""

import random

import pytest

from gateway.core.errors import Category, Failure
from gateway.pool.admission import EndpointLimits
from gateway.pool.breaker import BreakerState
from gateway.pool.candidate import Candidate, Standing, Trial, introduce

BROKEN = Failure(Category.UPSTREAM_5XX, "500")


def candidate(name: str = "e", **standing: object) -> Candidate:
    """An endpoint of this standing."""
    return Candidate(name, random.Random(1), Standing(**standing))  # type: ignore[arg-type]


def begun(found: Candidate, now: float, tokens: int = 0) -> Trial:
    """An attempt that must be admitted."""
    trial = found.begin(now, tokens)
    assert isinstance(trial, Trial), trial
    return trial


def refused(found: Candidate, now: float, tokens: int = 0) -> Failure:
    """The refusal of an attempt that must not be admitted."""
    failure = found.begin(now, tokens)
    assert isinstance(failure, Failure)
    return failure


def limit(a: int | None = None, *, rpm: int | None = None, tpm: int | None = None) -> EndpointLimits:
    """Limits in short."""
    return EndpointLimits(max_concurrent=a, rpm=rpm, tpm=tpm)


def test_a_place_comes_back_whatever_happens() -> None:
    """Finished, failed and cancelled attempts all give their place back, once each."""
    found = candidate(limits=limit(1))
    for end in ("finished", "failed", "released"):
        trial = begun(found, 1.0)
        assert not found.usable(1.0)
        assert refused(found, 1.0).category is Category.POOL_EXHAUSTED
        for _ in range(2):
            if end == "failed":
                trial.failed(2.0, BROKEN)
            elif end == "finished":
                trial.finished()
            trial.released(3.0)
        assert (found.admission.running, found.statistics.in_flight) == (0, 0)
        assert found.usable(1.0)


def test_five_failures_close_it_to_everybody() -> None:
    """An endpoint that fails in a row is left out of selection, and says when it may be asked again."""
    found = candidate()
    introduce([[found]])
    for _ in range(5):
        begun(found, 1.0).failed(1.0, BROKEN)
    assert not found.usable(1.0)
    failure = refused(found, 1.0)
    assert failure.category is Category.NO_ENDPOINT
    assert failure.retry_after_s == pytest.approx(4.5, abs=0.6)
    assert found.usable(6.0)


def test_the_ratio_rule_knows_the_routes() -> None:
    """Of two endpoints that refuse half their requests the second one stays: it is the last of its route."""
    one, other, alone = candidate("one"), candidate("other"), candidate("alone")
    introduce([[one, other], [alone], [one]])
    limited = Failure(Category.RATE_LIMITED, "429", 0.0)
    for each in (other, one, alone):
        for _ in range(20):
            trial = each.begin(1.0)
            if isinstance(trial, Trial):
                trial.failed(1.0, limited)
    assert [each.breaker.is_closed for each in (one, other, alone)] == [True, False, True]


def test_a_probe_that_is_cancelled_lets_the_next_one_in() -> None:
    """A client that hangs up while its request is the probe does not keep the endpoint closed."""
    found = candidate()
    found.breaker.trip(0.0, "down")
    found.refresh()
    trial = begun(found, 10.0)
    assert not found.usable(10.0)
    trial.released(10.5)
    begun(found, 10.5).answered(11.0)
    assert found.breaker.state(11.0) is BreakerState.CLOSED
    assert found.usable(11.0)


def test_keys_take_turns_before_the_endpoint_is_left() -> None:
    """A key over its rate rests until its reset, and the next one is used at once."""
    found = candidate(keys=2)
    first = begun(found, 0.0)
    assert first.failed(0.0, Failure(Category.RATE_LIMITED, "429", 20.0))
    second = begun(found, 1.0)
    assert (first.key, second.key) == (0, 1)
    assert not second.failed(1.0, Failure(Category.RATE_LIMITED, "429", 500.0))
    assert not found.usable(1.0)
    reason, wait = found.blocked(1.0)
    assert (reason, wait) == ("every key rests", pytest.approx(19.0))
    assert begun(found, 20.0).key == 0
    assert [each["state"] for each in found.keys.shown(20.0)] == ["ready", "parked"]
    assert found.keys.shown(20.0)[1]["rests_s"] == pytest.approx(281.0)


def test_an_endpoint_whose_keys_are_refused_says_so() -> None:
    """A key that its provider refuses does not rest: nobody is told to come back for it."""
    found = candidate(keys=1)
    begun(found, 0.0).failed(0.0, Failure(Category.PROVIDER_AUTH, "401"))
    assert found.blocked(1.0) == ("its provider refuses every key", None)
    failure = refused(found, 1.0)
    assert (failure.category, failure.retry_after_s) == (Category.PROVIDER_AUTH, None)
    found.disabled = True
    found.refresh()
    assert refused(found, 1.0).category is Category.NO_ENDPOINT


def test_a_working_key_is_kept() -> None:
    """Keys do not take turns without a reason: vendors' prompt caches belong to one."""
    found = candidate(keys=3)
    keys = set[int]()
    for at in range(9):
        trial = begun(found, float(at))
        keys.add(trial.key)
        trial.finished()
    assert keys == {0}


def test_a_spent_quota_is_asked_once() -> None:
    """A key without money is not asked again before its reset, in an hour where no time was named."""
    found = candidate()
    begun(found, 0.0).failed(0.0, Failure(Category.QUOTA, "no money"))
    assert [found.usable(at) for at in (1.0, 3599.0, 3600.0)] == [False, False, True]


def test_a_refused_key_is_disabled_until_an_administrator_revives_it(caplog: pytest.LogCaptureFixture) -> None:
    """A revoked key is used once, which is logged as an error, and without showing it."""
    found = candidate(keys=2)
    assert begun(found, 0.0).failed(0.0, Failure(Category.PROVIDER_AUTH, "401"))
    assert begun(found, 1e9).key == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    found.keys.revive()
    found.refresh()
    assert begun(found, 1e9).key == 0


def test_requests_a_minute() -> None:
    """The request that would exceed the rate is refused with the time to wait, and passes after it."""
    found = candidate(limits=limit(rpm=10))
    for _ in range(10):
        begun(found, 60.0).finished()
    wait = refused(found, 90.0).retry_after_s
    assert wait is not None
    assert 30.0 < wait <= 40.0
    assert isinstance(found.begin(90.0 + wait + 0.01), Trial)


def test_tokens_a_minute_count_what_was_used() -> None:
    """A request that took more than was guessed leaves less for the next ones."""
    found = candidate(limits=limit(tpm=1000))
    begun(found, 60.0, 100).finished()
    found.settled(61.0, 850, 1.0)
    assert refused(found, 61.0, 100).category is Category.POOL_EXHAUSTED
    assert isinstance(found.begin(61.0, 50), Trial)


def test_a_request_larger_than_the_rate_passes_alone() -> None:
    """A prompt of more tokens than the minute has is not refused for ever."""
    found = candidate(limits=limit(tpm=100))
    begun(found, 60.0, 500).released(60.0)
    wait = refused(found, 61.0, 500).retry_after_s
    assert wait is not None
    assert isinstance(found.begin(61.0 + wait, 500), Trial)


def test_statistics_learn_while_streams_run() -> None:
    """A first token counts when it comes, a stall while it lasts, and a wait before anything came."""
    found = candidate()
    trial = begun(found, 10.0)
    assert found.statistics.waiting_since == 10.0
    trial.answered(15.0)
    assert found.statistics.shown(15.0)["first_token_ms"] == 5000.0
    trial.quiet(2.0)
    trial.quiet(3.0)
    assert (found.statistics.stalls, found.statistics.in_flight) == (1, 1)
    before = found.statistics.expected_s
    trial.quiet(9.0)
    assert found.statistics.expected_s > before
    trial.quiet(2.5)
    assert found.statistics.stalls == 2
    trial.finished()
    found.settled(25.0, 101, 10.0)
    assert found.statistics.shown(25.0)["tokens_per_s"] == 10.0


def test_what_is_shown_holds_no_secret_and_every_fact() -> None:
    """Operators see state, keys, limits, statistics, profile and price of each endpoint."""
    shown = candidate(keys=2, limits=limit(4)).shown(1.0)
    assert shown["breaker"]["state"] == "closed"
    assert [each["key"] for each in shown["keys"]] == [0, 1]
    assert shown["limits"]["max_concurrent"] == 4
    assert shown["statistics"]["attempts"] == 0


def test_a_model_that_the_caller_made_up_closes_nothing() -> None:
    """A wildcard endpoint goes on answering when somebody asks for a model that does not exist."""
    one, other = candidate("one"), candidate("other")
    introduce([[one, other]])
    for each, status in ((one, 404), (other, None)):
        begun(each, 1.0).failed(1.0, Failure(Category.MODEL_NOT_FOUND, "no such model", status=status))
    assert [each.breaker.is_closed for each in (one, other)] == [True, False]
