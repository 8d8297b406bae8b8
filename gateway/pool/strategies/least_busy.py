"""The fewest streams at once for its weight first; equals by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.pool.candidate import Candidate
    from gateway.pool.capability import Needs

_LOT = 1e-9  # less than any difference of load


def rank(_needs: Needs, candidates: Sequence[Candidate], _now: float, rng: random.Random) -> list[Candidate]:
    """See above."""
    draw = rng.random
    loads = [each.statistics.in_flight / each.weight + _LOT * draw() for each in candidates]
    return [candidates[at] for at in sorted(range(len(loads)), key=loads.__getitem__)]


def why(_needs: Needs, candidate: Candidate, _now: float) -> str:
    """Its load."""
    return f"{candidate.statistics.in_flight} in flight at weight {candidate.weight:g}"
