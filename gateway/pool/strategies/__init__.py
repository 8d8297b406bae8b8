"""In which order a route's endpoints are asked: a `strategy` in the configuration is the name of a module here.

Each has `rank`, which is pure: it changes nothing, and the same arguments (with a generator in the same state) give the
same order. What it returns is a permutation of the candidates, and the rest of the list is the fallback order. `why` is
a short reason for the place of one candidate, for humans. Callers leave out who cannot be asked.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from gateway.pool.candidate import Candidate
    from gateway.pool.capability import Needs


class Strategy(Protocol):
    """A module of this package. `now` is in monotonic seconds."""

    @staticmethod
    def rank(needs: Needs, candidates: Sequence[Candidate], now: float, rng: random.Random, /) -> list[Candidate]:
        """The candidates, best first."""
        ...

    @staticmethod
    def why(needs: Needs, candidate: Candidate, now: float, /) -> str:
        """What spoke for or against this one, at most 80 characters."""
        ...


def strategy_names() -> list[str]:
    """Every strategy there is."""
    return sorted(each.name for each in pkgutil.iter_modules(__path__))


def load_strategy(name: str) -> Strategy:
    """The strategy of this name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in strategy_names():
        msg = f"there is no strategy {name!r}; there are: {', '.join(strategy_names())}"
        raise ValueError(msg)
    return cast("Strategy", importlib.import_module(f"{__name__}.{name}"))
