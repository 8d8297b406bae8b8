"""What the request would cost, least first; an unknown price goes last, equals in the order of the route.

Prompt and answer are those of the needs; where a request sets no limit its answer is taken to be of typical length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.pool.candidate import price_for
from gateway.pool.statistics import TYPICAL_TOKENS

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.pool.candidate import Candidate
    from gateway.pool.capability import Needs

_UNKNOWN = float("inf")


def rank(needs: Needs, candidates: Sequence[Candidate], _now: float, _rng: random.Random) -> list[Candidate]:
    """See above."""
    read, written = _sizes(needs)
    costs = [
        _UNKNOWN
        if each.input_usd is None or each.output_usd is None
        else read * each.input_usd + written * each.output_usd
        for each in candidates
    ]
    return [candidates[at] for at in sorted(range(len(costs)), key=costs.__getitem__)]


def why(needs: Needs, candidate: Candidate, _now: float) -> str:
    """Its price."""
    cost = price_for(candidate, *_sizes(needs))
    return "price unknown" if cost is None else f"about {cost:.6f} USD"


def _sizes(needs: Needs) -> tuple[int, int]:
    return needs.input_tokens or TYPICAL_TOKENS, min(needs.output_tokens or TYPICAL_TOKENS, TYPICAL_TOKENS)
