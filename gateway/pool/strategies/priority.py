"""The lowest `priority` first; equals in the order of the route."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.pool.candidate import Candidate
    from gateway.pool.capability import Needs

_PRIORITY = attrgetter("priority")


def rank(_needs: Needs, candidates: Sequence[Candidate], _now: float, _rng: random.Random) -> list[Candidate]:
    """See above."""
    return sorted(candidates, key=_PRIORITY)


def why(_needs: Needs, candidate: Candidate, _now: float) -> str:
    """Its priority."""
    return f"priority {candidate.priority}" if candidate.priority else "first in order"
