"""Repeats are a bounded share of the traffic."""

from gateway.pool.retry_budget import RetryBudget


def test_an_outage_is_not_answered_with_a_multiple_of_its_load() -> None:
    """Of 1000 requests in ten seconds that all fail about a fifth is repeated, and one a second beside."""
    budget = RetryBudget(0.0)
    repeated = 0
    for at in range(1000):
        budget.earn()
        repeated += budget.spend(at / 100)
    assert 200 <= repeated <= 222


def test_rare_requests_may_always_be_repeated() -> None:
    """A single failed request is repeated although nothing was earned before."""
    budget = RetryBudget(0.0)
    assert all(budget.spend(at * 2.0) for at in range(50))
