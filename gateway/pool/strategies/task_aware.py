"""The profile whose strengths fit the task best first; equals by `priority`, then in the order of the route.

What counts are the strengths that the request states and those it hints at (tools, images, a schema, much thought, a
long prompt), each with the profile's figure, weighed by how often this endpoint came to a whole answer when asked
for that; a strength that is not declared counts nothing.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.pool.candidate import Candidate
    from gateway.pool.capability import Needs

_PRIORITY = attrgetter("priority")


def rank(needs: Needs, candidates: Sequence[Candidate], _now: float, _rng: random.Random) -> list[Candidate]:
    """See above."""
    wanted = needs.words
    if not wanted:
        return sorted(candidates, key=_PRIORITY)
    profiles = [(each.profile.strengths, each.proven.rates) for each in candidates]
    fits = [0.0] * len(profiles)
    for word in wanted:
        fits = [
            fit - has.get(word, 0.0) * proven.get(word, 1.0) for fit, (has, proven) in zip(fits, profiles, strict=True)
        ]
    order = sorted(range(len(fits)), key=lambda at: (fits[at], candidates[at].priority))
    return [candidates[at] for at in order]


def why(needs: Needs, candidate: Candidate, _now: float) -> str:
    """What it is good at, of what counts."""
    wanted = sorted(needs.words)
    if not wanted:
        return f"the task asks for no strength; priority {candidate.priority}"
    has = candidate.profile.strengths
    return ", ".join(f"{each} {has.get(each, 0.0):g}{_proof(candidate, each)}" for each in wanted)[:80]


def _proof(candidate: Candidate, word: str) -> str:
    rate = candidate.proven.rate(word)
    return "" if rate > 0.99 else f" ({rate:.0%} whole)"
