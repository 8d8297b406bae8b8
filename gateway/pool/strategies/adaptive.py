"""A bandit: the endpoint that serves best by what was learnt, and now and then another one, to learn of it.

Served well is the least of: seconds for an answer of typical length (first token and tokens per second), plus seconds
for what went wrong (a refusal or a 429 about 5 s, a failure after the content 20 s, each weighed by how often it
happens lately), plus stalls, plus the price in seconds. An answer that is being waited for counts already. Endpoints
that nobody has asked come first, then in one of twenty requests any other one goes first: with so few and noisy facts
a fixed share (epsilon-greedy, Sutton and Barto, chapter 2) does as well as finer bandits, and copes with change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.pool.candidate import Candidate
    from gateway.pool.capability import Needs

EXPLORE = 0.05
SECONDS_A_USD = 30.0
"""What a dollar weighs: an answer for 1 cent less may take 0.3 s longer."""


def rank(_needs: Needs, candidates: Sequence[Candidate], now: float, rng: random.Random) -> list[Candidate]:
    """See above."""
    costs = [
        max((found := each.statistics).expected_s, now - found.waiting_since) + SECONDS_A_USD * each.typical_usd
        for each in candidates
    ]
    if costs and rng.random() < EXPLORE:
        costs[int(rng.random() * len(costs))] = -1.0
    return [candidates[at] for at in sorted(range(len(costs)), key=costs.__getitem__)]


def why(_needs: Needs, candidate: Candidate, now: float) -> str:
    """What its cost is made of."""
    found = candidate.statistics
    if not found.attempts:
        return "not asked yet"
    waits = max(found.expected_s, now - found.waiting_since)
    return f"expected {waits:.2f} s: answer {found.delay_s:.2f}, failures {found.penalty_s:.2f}"
