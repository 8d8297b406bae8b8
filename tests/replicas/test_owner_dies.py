"""A stream survives the replica that owned it, or ends and says so; and a replica that comes back changes nothing."""

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.replicas.figures import figure, quantile, rng
from tests.support.chaos import Gate, Plan
from tests.support.follower import Follower
from tests.support.gateway_process import GatewayProcess
from tests.support.http import CutBodyError, RawStream
from tests.support.replicas import HASTY, TAKEN_OVER_S, Replicas, replicas
from tests.support.run import run

TOKENS, LATE = 60, 999_999
PLANS = (Plan(tokens=TOKENS, pace_s=0.02), Plan(tokens=TOKENS, pace_s=0.001))
RECOVERY: dict[str, Any] = {"streams": {"recovery": True}, "endpoint": {"continuation": "replay"}}


@dataclass(slots=True)
class Toll:
    """What many kills came to: how each stream ended, and how long its readers waited for the end."""

    ends: dict[str, int] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)

    def show(self, kills: int, recovery: bool) -> None:
        how = "with recovery" if recovery else "without recovery"
        p50, worst = quantile(self.waits, 0.5), max(self.waits, default=0.0)
        print(f"\n{kills} kills {how}: {self.ends}; from kill to end p50 {p50:.2f} s, max {worst:.2f} s")


async def killing(
    it: Replicas, owner: GatewayProcess, chance: Random, seeds: list[int]
) -> tuple[list[Follower], float]:
    """The owner of these streams is killed when one of them has got anywhere.

    What their readers have in the end, and the longest time from the kill to an end.
    """
    before = len(it.up.requests)
    answers = [await it.attach(owner, seed=seed, plans=PLANS) for seed in seeds]
    async with asyncio.TaskGroup() as tasks:
        following = [
            tasks.create_task(_followed(it, answer, seed, chance)) for answer, seed in zip(answers, seeds, strict=True)
        ]
        first = await it.up.received(before + 1)
        await first.wrote(chance.randint(2, TOKENS + 2), TAKEN_OVER_S)
        tasks.create_task(_begun_too_late(it, owner))
        await asyncio.sleep(chance.random() * 0.01)
        owner.kill()
        died = time.monotonic()
        tasks.create_task(owner.start())
    followers = [task.result() for task in following]
    for follower in followers:
        follower.check(TOKENS)
    for answer in answers:
        _looks_whole_only_if_it_is(answer, await answer.read_cut())
    await it.hang_up()
    await _nobody_runs(it, died + TAKEN_OVER_S)
    return followers, max(follower.ended_at for follower in followers) - died


async def _followed(it: Replicas, answer: RawStream, seed: int, chance: Random) -> Follower:
    gateways = chance.sample(it.gateways, len(it.gateways))
    return await Follower(sid=answer.headers["x-atlas-stream-id"], seed=seed).follow(gateways, TAKEN_OVER_S + 5)


async def _begun_too_late(it: Replicas, owner: GatewayProcess) -> None:
    """A client that asks while the replica dies: it has an answer, or it never hears of its stream."""
    with contextlib.suppress(CutBodyError, ConnectionError):
        await it.begin(owner, seed=LATE, plans=PLANS)


async def _nobody_runs(it: Replicas, deadline: float) -> None:
    """No stream is left that no client knows of."""
    for gateway in it.gateways:
        while rows := (await it.call(gateway, "GET", "/v1/streams?state=running")).json["data"]:
            assert time.monotonic() < deadline, rows
            await asyncio.sleep(0.05)


def _looks_whole_only_if_it_is(answer: RawStream, body: bytes) -> None:
    """The creating response either broke off, or has the dialect's own end."""
    whole = b"data: [DONE]" in body or b'data: {"error"' in body
    assert whole == (answer.ended == "complete"), (answer.ended, body[-300:])


@pytest.mark.parametrize("recovery", [False, True], ids=["explicit end", "continued"])
def test_the_owner_is_killed(tmp_path: Path, recovery: bool) -> None:
    """After kill -9 of the owner each stream goes on elsewhere or ends as failed, and its readers lose nothing."""
    kills, streams = figure(2 if recovery else 1, 50), figure(4, 6)

    async def scenario() -> None:
        chance, toll = rng(f"kills {recovery}"), Toll()
        async with replicas(tmp_path, journal=HASTY, **(RECOVERY if recovery else {})) as it:
            for n in range(kills):
                owner = it.gateways[n % 3]
                followers, wait_s = await killing(it, owner, chance, [n * streams + i for i in range(streams)])
                assert wait_s < TAKEN_OVER_S
                toll.waits.append(wait_s)
                for follower in followers:
                    _judge(follower, recovery)
                    toll.ends[follower.state] = toll.ends.get(follower.state, 0) + 1
                    for gateway in it.gateways:
                        status = await it.status(gateway, follower.sid)
                        assert (status["state"], status["recovering"]) == (follower.state, False)
        toll.show(kills, recovery)

    run(scenario(), 60 + kills * 20, fast=True)


def _judge(follower: Follower, recovery: bool) -> None:
    assert follower.kinds[0] == "start"
    assert follower.kinds.count("end") == 1
    if recovery:
        assert follower.state == "completed", follower
    elif follower.state != "completed":
        assert (follower.state, follower.end and follower.end["reason"]) == ("failed", "owner_lost"), follower


def test_a_replica_that_stood_still(tmp_path: Path) -> None:
    """A replica stopped for longer than its lease finds its streams ended by others, appends nothing, and lets go."""

    async def scenario() -> None:
        gate = Gate(5)
        async with replicas(tmp_path, journal=HASTY) as it:
            sid = await it.begin(it.a, seed=9, plans=Plan(tokens=200, gate=gate))
            upstream = it.up.last
            it.a.signal(signal.SIGSTOP)
            status = await it.ended(it.b, sid)
            assert (status["state"], status["reason"]) == ("failed", "owner_lost")
            log = entries(it, sid)
            await gate.release(50)
            it.a.signal(signal.SIGCONT)
            await upstream.gone()
            assert upstream.outcome == "left"
            for gateway in it.gateways:
                follower = await Follower(sid=sid, seed=9).follow([gateway], TAKEN_OVER_S)
                follower.check(200)
                assert (follower.state, follower.kinds.count("end")) == ("failed", 1)
                assert (await it.status(gateway, sid))["state"] == "failed"
            assert entries(it, sid) == log
            fresh = await it.begin(it.a, seed=10)
            assert (await it.ended(it.b, fresh))["state"] == "completed", "it serves again"

    run(scenario(), 60, fast=True)


def entries(it: Replicas, sid: str) -> Any:
    """The log as Redis has it."""
    with it.redis.client() as client:
        return client.xrange(f"atlas:{{{sid.removeprefix('str_')}}}:j")
