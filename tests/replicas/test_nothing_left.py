"""Redis is not a place where things pile up."""

import asyncio
import signal
import time
from pathlib import Path

from tests.support.chaos import Gate, Plan
from tests.support.replicas import HASTY, LEASE_S, Replicas, replicas
from tests.support.run import run

SHORT = {"pause_max_s": 1, "ttl_live_s": 5, "ttl_terminal_s": 1, "ttl_record_s": 5}

INDEX, WEEK_MS = "atlas:ten:{local}", 604_800_000
"""A tenant's index outlives its streams by a week, for one that goes on and on."""


def keys(it: Replicas) -> dict[str, int]:
    """Every key with what is left of its life in ms; -1 for one that lives for ever."""
    with it.redis.client() as client:
        lives = {key.decode(): int(client.pttl(key)) for key in client.scan_iter(count=1000)}
    return {key: life for key, life in lives.items() if life != -2}


def endless(it: Replicas) -> list[str]:
    """The keys that would stay."""
    return sorted(key for key, life in keys(it).items() if life == -1)


def test_every_key_expires(tmp_path: Path) -> None:
    """No key is without a TTL at any time, and once everything has expired there is none."""

    async def scenario() -> None:
        async with replicas(tmp_path, 2, streams=SHORT, journal=HASTY) as it:
            await it.begin(it.a, seed=1, plans=Plan(tokens=20, pace_s=0.01))
            paused = await it.begin(it.a, seed=2, plans=Plan(gate=Gate(4)))
            cancelled = await it.begin(it.b, seed=3, plans=Plan(gate=Gate(4)))
            lost = await it.begin(it.b, seed=4, plans=Plan(gate=Gate(4)))
            assert keys(it)
            assert endless(it) == []
            assert (await it.control(it.b, paused, "pause")).status == 200
            assert (await it.control(it.a, cancelled, "cancel")).status == 200
            assert endless(it) == []
            it.b.kill()
            ends = await asyncio.gather(it.ended(it.a, lost), it.ended(it.a, paused))
            assert [end["reason"] for end in ends] == ["owner_lost", "pause_expired"]
            assert endless(it) == []
            it.a.signal(signal.SIGTERM)
            assert await it.a.ended() == 0
            assert endless(it) == []
            deadline = time.monotonic() + SHORT["ttl_live_s"] + 2 * LEASE_S + 10
            while left := keys(it).keys() - {INDEX}:
                assert time.monotonic() < deadline, left
                await asyncio.sleep(0.1)
            assert keys(it).get(INDEX, 0) < WEEK_MS + 60_000

    run(scenario(), 60, fast=True)
