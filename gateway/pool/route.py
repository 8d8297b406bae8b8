"""A route as its attempts see it: its endpoints and policy, and who is told how they fare."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.pool.candidate import introduce
from gateway.pool.continuation import Fallback
from gateway.pool.hedging import Hedging
from gateway.pool.retry_budget import RetryBudget
from gateway.pool.selection import Selector
from gateway.pool.strategies import load_strategy

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.core.errors import Category
    from gateway.pool.candidate import Candidate
    from gateway.pool.endpoint import Endpoint
    from gateway.pool.hedging import HedgePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The endpoints of one route. `model` may end in `*`: then it serves every model with that prefix.

    `on_attempt(endpoint, outcome, seconds)` is told how each attempt went: `ok` at its first content, else the
    category; `on_broken(endpoint, category)` how one failed after that. `on_retry(endpoint, category)`: the same one is
    asked again after such a failure; `on_fallback(from, to, phase, result)`: another one was asked, `before` the first
    content or `mid_stream`, and it came to content (`ok`) or `failed`. `on_unmapped(endpoint, status)` is told of
    errors that nothing but the class of their status explains, `on_malformed(endpoint, count)` of payloads that an
    attempt could not read; `on_hedge(endpoint, result)`: who was asked beside a silent one `won`, `lost` or `failed`.
    `strategy` is the name of a module of `pool.strategies`; `selector` is made of it. `repeats` gates asking the same
    endpoint again, and hedges; `hedging` is None where the route has none.

    Raises:
        ValueError: there is no such strategy.
    """

    model: str
    endpoints: tuple[Endpoint, ...]
    rng: random.Random
    clock: Callable[[], float]
    fallback: Fallback = field(default_factory=Fallback)
    strategy: str = "priority"
    selector: Selector = field(init=False)
    repeats: RetryBudget = field(init=False)
    hedge: HedgePolicy | None = None
    hedging: Hedging | None = field(init=False)
    by_candidate: Mapping[Candidate, Endpoint] = field(init=False, repr=False, compare=False)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    on_retry: Callable[[str, Category], None] = field(default=lambda _endpoint, _category: None)
    on_fallback: Callable[[str, str, str, str], None] = field(default=lambda _from, _to, _phase, _result: None)
    on_attempt: Callable[[str, str, float], None] = field(default=lambda _endpoint, _outcome, _seconds: None)
    on_broken: Callable[[str, Category], None] = field(default=lambda _endpoint, _category: None)
    on_hedge: Callable[[str, str], None] = field(default=lambda _endpoint, _result: None)
    on_unmapped: Callable[[str, int], None] = field(default=lambda _endpoint, _status: None)
    on_malformed: Callable[[str, int], None] = field(default=lambda _endpoint, _count: None)

    def __post_init__(self) -> None:
        candidates = [each.candidate for each in self.endpoints]
        introduce([candidates])
        strategy = load_strategy(self.strategy)
        # The dataclass is frozen, and these follow from its members.
        object.__setattr__(self, "selector", Selector(self.model, candidates, self.strategy, strategy, self.rng))
        object.__setattr__(self, "by_candidate", {each.candidate: each for each in self.endpoints})
        now = self.clock()
        object.__setattr__(self, "repeats", RetryBudget(now))
        object.__setattr__(self, "hedging", None if self.hedge is None else Hedging(self.hedge, now))

    def endpoints_of(self, ranked: list[Candidate]) -> tuple[Endpoint, ...]:
        """The endpoints in this order."""
        by_candidate = self.by_candidate
        return tuple([by_candidate[each] for each in ranked])

    @property
    def wildcard(self) -> bool:
        """Whether this route serves a whole prefix."""
        return self.model.endswith("*")

    def wanted(self, named: str) -> str:
        """The part of the client's model name that wildcard endpoints are asked for."""
        return named[len(self.model) - 1 :] if self.wildcard else named
