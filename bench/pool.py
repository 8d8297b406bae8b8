"""What the pool costs, measured in a process of its own on the pool's own objects: no socket, no other target.

`python -m bench.pool` prints the figures as JSON. Each is CPU time, the median of several runs of many turns.

selection   an order of 50 endpoints for one request, by the slowest strategy
upkeep      an attempt begun, answered and finished: admission, keys, breaker, statistics
budgets     a chunk of one token through the meter of a stream that has a budget
fallback    a request whose first endpoint fails at once, beyond one whose first endpoint answers
"""

from __future__ import annotations

import asyncio
import pkgutil
import random
import sys
from contextlib import asynccontextmanager
from statistics import median
from time import process_time
from typing import TYPE_CHECKING

import msgspec

from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.clock import SystemClock
from gateway.core.errors import Category, Failure, ProviderError
from gateway.core.events import Finish, Text
from gateway.pool import strategies
from gateway.pool.candidate import Candidate, Standing
from gateway.pool.capability import Capability, Needs
from gateway.pool.endpoint import Endpoint
from gateway.pool.group import ProviderGroup
from gateway.pool.meter import UNLIMITED, Meter
from gateway.pool.prices import PriceList
from gateway.pool.selection import Selector
from gateway.pool.settlement import Books

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from gateway.upstream.contract import Batch

RUNS = 7
ENDPOINTS = 50
REQUEST = ChatRequest(dialect="none", model="m", messages=(Message("user", (TextPart("Say it."),)),), stream=True)
NEEDS = Needs(leanings=frozenset({"coding"}))


def measure() -> dict[str, float]:
    """All figures, by the keys of `bench.report`."""
    slowest = max(_selection(name) for name in _strategies())
    return {
        "pool_selection_us": 1e6 * slowest,
        "pool_upkeep_us": 1e6 * _upkeep(),
        "pool_budget_us": 1e6 * _budgets(),
        "pool_fallback_ms": 1e3 * asyncio.run(_fallback()),
    }


def _timed(turn: Callable[[], object], turns: int) -> float:
    """Seconds of one turn."""
    runs: list[float] = []
    for _ in range(RUNS):
        begun = process_time()
        for _ in range(turns):
            turn()
        runs.append((process_time() - begun) / turns)
    return median(runs)


def _strategies() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(strategies.__path__))
    return [name for name in found if not name.startswith("_")]


def _seasoned(number: int) -> Candidate:
    """An endpoint of which something is known."""
    chance = random.Random(number)
    profile = Capability(strengths={"coding": chance.random()})
    found = Candidate(f"e{number}", chance, Standing(profile=profile, input_usd=1.0, output_usd=chance.random()))
    for at in range(30):
        if not isinstance(trial := found.begin(float(at)), Failure):
            trial.answered(at + chance.random())
            trial.finished()
    return found


def _selection(name: str) -> float:
    members = [_seasoned(number) for number in range(ENDPOINTS)]
    selector = Selector("m", members, name, strategies.load_strategy(name), random.Random(1))
    return _timed(lambda: selector.choose(selector.needs(REQUEST, NEEDS), 60.0), 500)


def _upkeep() -> float:
    found = Candidate("e", random.Random(1))

    def turn() -> None:
        if not isinstance(trial := found.begin(1.0), Failure):
            trial.answered(1.5)
            trial.finished()

    return _timed(turn, 5000)


def _budgets() -> float:
    books = Books(PriceList({}), SystemClock())
    meter = Meter(books.account(_route(_Answers()), REQUEST), counts_usd=False)
    meter.allow(UNLIMITED, UNLIMITED, 256)
    batch: Batch = [Text(0, "token ")]
    return _timed(lambda: meter.passes(batch), 20_000)


class _Answers:
    """A provider that answers at once, or fails at once."""

    kind = "bench"

    def __init__(self, failure: Category | None = None) -> None:
        self._failure = failure

    @asynccontextmanager
    async def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[AsyncIterator[Batch]]:
        """One token."""
        del request, model
        if self._failure is not None:
            raise ProviderError(self._failure, "planned")
        yield _one_token()

    async def aclose(self) -> None:
        """Nothing to close."""


async def _one_token() -> AsyncGenerator[Batch]:
    yield [Text(0, "token")]
    yield [Finish(0, "stop")]


def _route(*providers: _Answers) -> ProviderGroup:
    """The providers in this order; none ever rests."""
    endpoints = tuple(
        Endpoint(
            name=f"e{at}", provider=each, model="m",
            candidate=Candidate(f"e{at}", random.Random(at), Standing(rests=False)),
        )
        for at, each in enumerate(providers)
    )  # fmt: skip
    return ProviderGroup(model="m", endpoints=endpoints, rng=random.Random(1), clock=SystemClock().monotonic)


async def _fallback() -> float:
    """Seconds that a failed first endpoint adds until the first content; its own time is none."""
    straight = await _to_content(_route(_Answers(), _Answers()))
    return await _to_content(_route(_Answers(Category.PROTOCOL), _Answers())) - straight


async def _to_content(route: ProviderGroup, turns: int = 500) -> float:
    runs: list[float] = []
    for _ in range(RUNS):
        begun = process_time()
        for _ in range(turns):
            async with route.attempt(REQUEST).open():
                pass
        runs.append((process_time() - begun) / turns)
    return median(runs)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure()))
