"""New versions roll out replica by replica while streams run."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.replicas.figures import figure, quantile, rng
from tests.support.chaos import Plan
from tests.support.follower import Follower
from tests.support.replicas import PATIENT_LEASE_S, replicas
from tests.support.run import run

TOKENS = 50
DRAINED: dict[str, Any] = {"server": {"drain_s": 30}}
HANDED_OVER: dict[str, Any] = {
    "server": {"drain_s": 0.5}, "streams": {"recovery": True}, "endpoint": {"continuation": "replay"},
}  # fmt: skip


def plans(pace_s: float) -> list[Plan]:
    """A stream, and the same at once, for whoever goes on with it."""
    return [Plan(tokens=TOKENS, pace_s=pace_s), Plan(tokens=TOKENS, pace_s=0.002)]


@pytest.mark.parametrize(
    ("settings", "paces_s"),
    [(DRAINED, (0.02, 0.05, 0.08)), (HANDED_OVER, (0.1, 0.15, 0.2))],
    ids=["drained", "handed over"],
)
def test_rolling_restart(tmp_path: Path, settings: dict[str, Any], paces_s: tuple[float, ...]) -> None:
    """Three replicas restart one by one under a hundred streams, and each reader has all of its stream, once.

    The later a replica's turn comes the longer its streams take, so that each restart meets some.
    """
    streams = figure(100, 300)

    async def scenario() -> None:
        chance = rng("rolling")
        async with replicas(tmp_path, **settings) as it:
            sids = await asyncio.gather(
                *(it.begin(it.gateways[seed % 3], seed=seed, plans=plans(paces_s[seed % 3])) for seed in range(streams))
            )
            async with asyncio.TaskGroup() as tasks:
                following = [
                    tasks.create_task(Follower(sid=sid, seed=seed).follow(chance.sample(it.gateways, 3), 120))
                    for seed, sid in enumerate(sids)
                ]
                for gateway in it.gateways:
                    assert await gateway.stop(40) == 0, gateway.log[-4000:]
                    await gateway.start()
                began = time.monotonic()
            assert time.monotonic() - began < PATIENT_LEASE_S / 2, "what was handed over waited for a lease"
            followers = [task.result() for task in following]
            for follower in followers:
                follower.check(TOKENS)
                assert follower.state == "completed", follower
            new = await it.begin(it.a, seed=streams, plans=Plan())
            assert (await it.ended(it.c, new))["state"] == "completed"
        gaps = [follower.gap_s for follower in followers if follower.connects > 1]
        print(
            f"\nrolling restart of 3 replicas under {streams} streams: 0 lost, 0 doubled, 0 errors; "
            f"{len(gaps)} readers came back, longest gap p99 {quantile(gaps, 0.99):.2f} s"
        )

    run(scenario(), 180, fast=True)
