"""By chance: each is first as often as its `weight` says, the next one among the rest likewise.

The order is Efraimidis and Spirakis's sampling without replacement (2006): by an exponential variate over the weight.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.pool.candidate import Candidate
    from gateway.pool.capability import Needs


def rank(_needs: Needs, candidates: Sequence[Candidate], _now: float, rng: random.Random) -> list[Candidate]:
    """See above."""
    draw = rng.random
    drawn = [-log(1.0 - draw()) / each.weight for each in candidates]
    return [candidates[at] for at in sorted(range(len(drawn)), key=drawn.__getitem__)]


def why(_needs: Needs, candidate: Candidate, _now: float) -> str:
    """Its weight."""
    return f"weight {candidate.weight:g}, drawn by lot"
