"""Active health checks: what counts as failing, and what follows for the breaker."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from gateway.core.errors import Category, ProviderError
from gateway.pool.breaker import BreakerState
from gateway.pool.candidate import Candidate, Trial
from gateway.pool.health import HealthCheck, HealthJudge, HealthPolicy, ask_for
from gateway.upstream.contract import Timeouts
from gateway.upstream.fixed_headers import FixedHeaders
from gateway.upstream.transport import Transport, parse_url
from tests.support.baseline import baseline
from tests.support.clock import ManualClock
from tests.support.run import run
from tests.support.signals import PATIENCE_S
from tests.unit.upstream.raw_server import raw_server

POLICY = HealthPolicy(interval_s=10, timeout_s=0.05, rises=2, falls=3)


async def fine() -> None:
    """A check that succeeds."""


async def broken() -> None:
    """A check that fails."""
    raise ProviderError(Category.CONNECT, "refused")


async def silent() -> None:
    """A check that nobody answers."""
    await asyncio.Event().wait()


class Checked:
    """An endpoint and its checks; `ask` is what the next check meets."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.candidate = Candidate("e", random.Random(1))
        self.ask: Callable[[], Awaitable[None]] = fine
        self.check = HealthCheck(self.candidate, self._meet, POLICY, self.clock)

    async def _meet(self) -> None:
        await self.ask()

    async def see(self, ask: Callable[[], Awaitable[None]], times: int = 1) -> BreakerState:
        """So many checks; the breaker's state after them."""
        self.ask = ask
        for _ in range(times):
            await self.check.once()
        return self.candidate.breaker.state(self.clock.monotonic())


def test_rises_and_falls() -> None:
    """A single failed check says nothing, three in a row do; a single good one does not end that, two do."""
    judge = HealthJudge(POLICY)
    failing: list[bool] = []
    for wrong in ("x", "x", None, "x", "x", "x", None, "x", None, None):
        judge.seen(wrong)
        failing.append(judge.is_failing)
    assert failing == [False] * 5 + [True] * 4 + [False]


@pytest.mark.parametrize("how", [broken, silent])
def test_a_dead_endpoint_is_not_asked(how: Callable[[], Awaitable[None]]) -> None:
    """An endpoint that refuses or swallows its checks gets no requests, before any of them failed."""

    async def scenario() -> None:
        found = Checked()
        assert await found.see(how, 2) is BreakerState.CLOSED
        assert await found.see(how) is BreakerState.OPEN
        assert not found.candidate.usable(found.clock.monotonic())
        assert found.check.shown()["failing"]

    run(scenario())


def test_while_checks_fail_no_request_is_the_probe() -> None:
    """An endpoint that is known to be down costs no caller a failed attempt when its open time is over."""

    async def scenario() -> None:
        found = Checked()
        await found.see(broken, 3)
        for _ in range(20):
            found.clock.advance(10)
            await found.see(broken)
            assert not found.candidate.usable(found.clock.monotonic())

    run(scenario())


def test_checks_open_and_never_close() -> None:
    """After good checks one request proves that content comes; the checks alone let nobody else in."""

    async def scenario() -> None:
        found = Checked()
        await found.see(broken, 10)
        assert await found.see(fine) is BreakerState.OPEN
        assert await found.see(fine, 5) is BreakerState.HALF_OPEN
        now = found.clock.monotonic()
        probe = found.candidate.begin(now)
        assert isinstance(probe, Trial)
        assert not isinstance(found.candidate.begin(now), Trial)
        probe.answered(now)
        assert await found.see(fine) is BreakerState.CLOSED

    run(scenario())


def test_checks_go_on_until_cancelled() -> None:
    """The first check comes within an interval, the next ones an interval apart, whatever they say."""

    async def scenario() -> None:
        found, waits = Checked(), list[float]()
        found.ask = broken

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) > 5:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await found.check.run(random.Random(1), sleep)
        assert 0 <= waits[0] < 10
        assert waits[1:] == [10] * 5
        assert found.check.judge.is_failing

    run(scenario())


def answer(status: bytes) -> bytes:
    """A whole answer of this status."""
    return b"HTTP/1.1 %b\r\ncontent-length: 2\r\n\r\n{}" % status


def test_only_silence_and_5xx_are_failures_on_the_wire() -> None:
    """A 401 or 404 shows that somebody is there; a 503 and a closed connection do not."""

    async def scenario() -> None:
        async with baseline():
            made = Transport(Timeouts(connect_s=PATIENCE_S))
            fixed = FixedHeaders(Timeouts(connect_s=PATIENCE_S), {"x-team": "a"})
            for transport in (made, fixed):
                async with raw_server(answer(b"200 OK"), answer(b"401 No"), answer(b"503 Busy"), b"") as url:
                    await ask_for(transport, parse_url(url), [])
                    await ask_for(transport, parse_url(url), [])
                    for _ in range(2):
                        with pytest.raises(ProviderError):
                            await ask_for(transport, parse_url(url), [])
                await transport.aclose()

    run(scenario())
