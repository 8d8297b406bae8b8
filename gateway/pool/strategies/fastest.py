"""The better of two that were drawn by lot, by time to first token and load; then the others by their average.

Two choices (Mitzenmacher 2001) spread the load nearly as well as looking at all, without sending everybody to the one
that looked best a moment ago. The cost is Finagle's peak-EWMA: first token's seconds times the requests in flight and
one; an answer that is being waited for counts already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.pool.candidate import Candidate
    from gateway.pool.capability import Needs

_LEAST_S = 0.01  # so that load counts where nothing is known


def rank(_needs: Needs, candidates: Sequence[Candidate], now: float, rng: random.Random) -> list[Candidate]:
    """See above."""
    count = len(candidates)
    means = [each.statistics.first_token_s or 0.0 for each in candidates]
    if count > 1:
        one = int(rng.random() * count)
        other = int(rng.random() * (count - 1))
        other += other >= one
        better = one if _cost(candidates[one], now) <= _cost(candidates[other], now) else other
        means[better] = -1.0
    return [candidates[at] for at in sorted(range(count), key=means.__getitem__)]


def _cost(candidate: Candidate, now: float) -> float:
    found = candidate.statistics
    return (found.peak_s(now) + _LEAST_S) * (found.in_flight + 1)


def why(_needs: Needs, candidate: Candidate, now: float) -> str:
    """What its cost is made of."""
    found = candidate.statistics
    return f"first token {1000 * found.peak_s(now):.0f} ms at worst, {found.in_flight} in flight, one of two"
