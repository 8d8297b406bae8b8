"""Active health checks of one endpoint: a GET that costs nothing, again and again, whatever its answer is worth.

An endpoint is failing after `falls` checks in a row without an answer, or with a 5xx; any other answer shows that
somebody is there, be it a 401 or a 404. While it is failing its breaker is kept open; after `rises` good checks in a
row the next request may be the probe. A check never closes a breaker: only real content proves that content comes.
The first check waits for a random part of the interval, so that many endpoints are not asked at the same moment.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.core.errors import Category, ProviderError

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from gateway.core.clock import Clock
    from gateway.pool.candidate import Candidate
    from gateway.upstream.transport import Headers, Transport, Url


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """How often, how long, and how many in a row decide."""

    interval_s: float = 15.0
    timeout_s: float = 5.0
    rises: int = 2
    falls: int = 3


class HealthJudge:
    """What a row of checks says. Sans-IO."""

    __slots__ = ("_policy", "_row", "is_failing", "last")

    def __init__(self, policy: HealthPolicy) -> None:
        self._policy = policy
        self._row = 0  # of checks that speak against `is_failing`
        self.is_failing = False
        self.last: str | None = None

    def seen(self, wrong: str | None) -> bool:
        """A check came back, `wrong` if it failed; whether `is_failing` changed."""
        self.last = wrong or "ok"
        if (wrong is not None) == self.is_failing:
            self._row = 0
            return False
        self._row += 1
        if self._row < (self._policy.rises if self.is_failing else self._policy.falls):
            return False
        self.is_failing, self._row = not self.is_failing, 0
        return True


class HealthCheck:
    """The checks of one endpoint; `ask` is one of them and raises ProviderError."""

    def __init__(
        self, candidate: Candidate, ask: Callable[[], Awaitable[None]], policy: HealthPolicy, clock: Clock
    ) -> None:
        self._candidate, self._ask, self._policy, self._clock = candidate, ask, policy, clock
        self.judge = HealthJudge(policy)

    async def run(self, rng: random.Random, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Check until cancelled; the app's task group owns this."""
        await sleep(rng.uniform(0.0, self._policy.interval_s))
        while True:
            await self.once()
            await sleep(self._policy.interval_s)

    async def once(self) -> None:
        """One check, and what follows for the breaker."""
        wrong: str | None = None
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                await self._ask()
        except TimeoutError:
            wrong = f"no answer within {self._policy.timeout_s:g} s"
        except ProviderError as error:
            wrong = str(error)
        changed, now, breaker = self.judge.seen(wrong), self._clock.monotonic(), self._candidate.breaker
        if self.judge.is_failing and wrong is not None:
            breaker.trip(now, f"health check: {wrong}")
        elif changed:
            breaker.probe_now(now)
        self._candidate.refresh()

    def shown(self) -> dict[str, Any]:
        """For `/v1/pool`."""
        return {"failing": self.judge.is_failing, "last": self.judge.last, "interval_s": self._policy.interval_s}


async def ask_for(transport: Transport, url: Url, headers: Headers) -> None:
    """GET `url`.

    Raises:
        ProviderError: there was no answer, or a 5xx.
    """
    async with transport.get(url, headers) as answer:
        if answer.status >= 500:
            raise ProviderError(Category.UPSTREAM_5XX, f"status {answer.status}")
        await answer.drain()
