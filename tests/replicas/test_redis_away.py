"""Redis dies under running streams, and comes back."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.replicas.figures import FULL
from tests.support.chaos import Gate, Plan
from tests.support.follower import Follower
from tests.support.replicas import Replicas, replicas
from tests.support.run import run

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
PATIENT = {"lease_s": 6}


def test_redis_is_killed_and_comes_back(tmp_path: Path) -> None:
    """While Redis is away control answers 503; when it is back, streams go on to their whole end within seconds."""

    async def scenario() -> None:
        async with replicas(tmp_path, 2, redis=DURABLE, journal=PATIENT) as it:
            sids = [await it.begin(it.a, seed=seed, plans=Plan(tokens=60, pace_s=0.03)) for seed in range(6)]
            gate = Gate(4)
            held = await it.begin(it.b, seed=99, plans=Plan(gate=gate))
            async with asyncio.TaskGroup() as tasks:
                following = [
                    tasks.create_task(Follower(sid=sid, seed=seed).follow(it.gateways[seed % 2 :] + it.gateways[:1]))
                    for seed, sid in enumerate(sids)
                ]
                await it.up.requests[0].wrote(10)
                it.redis.kill()
                for gateway in it.gateways:
                    for op in ("pause", "cancel"):
                        refused = await it.control(gateway, held, op)
                        assert (refused.status, refused.json["error"]["code"]) == (503, "control_unavailable")
                        assert int(refused.headers["retry-after"]) >= 1
                it.redis.start()
                back = time.monotonic()
                await _controls_again(it, held)
                assert time.monotonic() - back <= 10, "five are promised, of a machine that does not stand still"
                gate.open()
            for task in following:
                follower = task.result()
                follower.check(60)
                assert follower.state == "completed", follower
            status = await it.ended(it.a, held)
            assert status["state"] in {"completed", "cancelled"}, (
                "what was asked for in between has happened, or has not"
            )

    run(scenario(), 60, fast=True)


async def _controls_again(it: Replicas, sid: str) -> None:
    """Until both replicas answer a control call with what they did."""
    for gateway in it.gateways:
        async with asyncio.timeout(10):
            while (await it.control(gateway, sid, "resume")).status == 503:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


@pytest.mark.skipif(not FULL, reason="takes the policy's five seconds: make chaos")
def test_redis_stays_away(tmp_path: Path) -> None:
    """When Redis stays away, attached readers are told within seconds, nothing looks whole, and the record ends so."""

    async def scenario() -> None:
        async with replicas(tmp_path, 2, redis=DURABLE, journal=PATIENT) as it:
            answer = await it.attach(it.a, seed=1, plans=Plan(tokens=400, pace_s=0.05))
            sid = answer.headers["x-atlas-stream-id"]
            await it.up.last.wrote(10)
            it.redis.kill()
            away = time.monotonic()
            body = await answer.read_cut()
            assert b"[DONE]" not in body
            assert b"journal_unavailable" in body
            assert time.monotonic() - away < 10
            it.redis.start()
            status = await it.ended(it.b, sid)
            assert (status["state"], status["reason"]) == ("failed", "journal_unavailable")
            (await Follower(sid=sid, seed=1).follow(it.gateways)).check(400)

    run(scenario(), 60, fast=True)
