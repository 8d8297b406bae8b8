"""Alerts in real trouble: a real gateway, a real Redis, a provider that fails; a real Prometheus judges by the rules.

A minute of the rules takes less than half a second here, whatever it stands for.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.house import CHAT, ask
from tests.support.chaos import ChaosProvider, Plan, refusing
from tests.support.gateway_process import GatewayProcess
from tests.support.http import CutBodyError
from tests.support.prometheus import Prometheus
from tests.support.redis_server import RedisServer
from tests.support.run import run
from tests.support.server import atlas_config

HASTE = 150
WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A gateway under a steady load, what it stands on, and who watches it."""

    gateway: GatewayProcess
    up: ChaosProvider
    redis: RedisServer
    prometheus: Prometheus

    async def fires(self, *names: str) -> None:
        """Returns once all of these alerts fire at once."""
        await self.prometheus.until(lambda firing: firing >= set(names), WITHIN_S)

    async def is_calm(self) -> None:
        """Returns once none fires."""
        await self.prometheus.until(lambda firing: not firing, WITHIN_S)


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    """Everything up and calm, and asked twenty times a second."""
    breaker = {"open_s": 0.1, "open_max_s": 0.5}
    with RedisServer.started("--appendonly", "yes", tcp=True) as redis:
        async with ChaosProvider() as up:
            endpoint = {"breaker": breaker, "timeouts": {"idle_s": 2.5}}
            config = atlas_config(
                up, endpoint=endpoint, journal={"kind": "redis", "url": redis.url}, streams={"tick_s": 0.1}
            )
            async with GatewayProcess(config, folder) as gateway:
                with Prometheus.started(folder, f"127.0.0.1:{gateway.port}", haste=HASTE) as prometheus:
                    it = Watched(gateway, up, redis, prometheus)
                    load = asyncio.create_task(_load(gateway))
                    try:
                        while await prometheus.scrapes() < 8:  # noqa: ASYNC110  it has no event
                            await asyncio.sleep(0.1)
                        await it.is_calm()
                        yield it
                    finally:
                        load.cancel()
                        await asyncio.gather(load, return_exceptions=True)


async def _load(gateway: GatewayProcess) -> None:
    async with asyncio.TaskGroup() as tasks:
        while True:
            tasks.create_task(_one(gateway))
            await asyncio.sleep(0.05)


async def _one(gateway: GatewayProcess) -> None:
    with suppress(OSError, CutBodyError, EOFError, asyncio.IncompleteReadError):
        async with gateway.client() as client:
            answer = await client.stream("POST", CHAT, {}, json=ask())
            await answer.read()


def test_redis_is_killed_and_hangs(tmp_path: Path) -> None:
    """While Redis is gone or silent it is said so, and that calls fail; soon after nothing is said any more."""

    async def scenario() -> None:
        async with watched(tmp_path) as it:
            it.redis.kill()
            await it.fires("AtlasRedisAway", "AtlasErrors")
            it.redis.start()
            await it.is_calm()
            it.redis.pause()
            await it.fires("AtlasRedisAway", "AtlasErrors")
            it.redis.go_on()
            await it.is_calm()

    run(scenario(), 240)


def test_a_provider_is_down_and_refuses_the_key(tmp_path: Path) -> None:
    """A provider that nobody reaches is told of from every side until it is back; a refused key is said at once."""

    async def scenario() -> None:
        async with watched(tmp_path) as it:
            it.up.refuse()
            it.up.reset_all()
            await it.fires("AtlasCircuitOpen", "AtlasEndpointDown", "AtlasErrors", "AtlasStreamsFail")
            await it.up.listen()
            await it.is_calm()
            it.up.default = refusing(401)
            await it.fires("AtlasProviderRefusesKey")
            await it.fires("AtlasEndpointDown")

    run(scenario(), 240)


def test_streams_stall_the_loop_lags_and_the_process_dies(tmp_path: Path) -> None:
    """Answers that fall silent for good are told of, a process that is late all the time, and one that is gone."""

    async def scenario() -> None:
        async with watched(tmp_path) as it:
            it.up.default = Plan(stall_at_event=3)
            await it.fires("AtlasStalls", "AtlasStreamsFail")
            it.up.default = Plan()
            await it.is_calm()
            async with asyncio.TaskGroup() as tasks:
                slow = tasks.create_task(_slowed(it.gateway))
                await it.fires("AtlasLoopLags")
                slow.cancel()
            await it.is_calm()
            it.gateway.kill()
            await it.fires("AtlasDown", "AtlasGone")

    run(scenario(), 240)


async def _slowed(gateway: GatewayProcess) -> None:
    """It stands still for most of the time."""
    try:
        while True:
            gateway.signal(signal.SIGSTOP)
            await asyncio.sleep(0.4)
            gateway.signal(signal.SIGCONT)
            await asyncio.sleep(0.1)
    finally:
        gateway.signal(signal.SIGCONT)
