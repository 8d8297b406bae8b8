"""Several processes over every kind of Redis that may be named by a URL: what holds over one server holds there."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.journal.subjects.redis_cluster import shared_cluster, url_of
from tests.support.chaos import Plan
from tests.support.follower import Follower
from tests.support.redis_server import RedisServer, kill_watched, replica_of, sentinel_of
from tests.support.replicas import HASTY, Replicas, replicas
from tests.support.run import run

TOKENS = 120


async def _followed(it: Replicas, n: int) -> list[tuple[str, "asyncio.Task[Follower]"]]:
    """So many streams of all gateways in turn, each read to its end by cursor, from all of them."""
    begun: list[tuple[str, asyncio.Task[Follower]]] = []
    for seed in range(n):
        sid = await it.begin(it.gateways[seed % 3], seed=seed, plans=Plan(tokens=TOKENS, pace_s=0.02))
        gateways = it.gateways[seed % 3 :] + it.gateways[: seed % 3]
        begun.append((sid, asyncio.ensure_future(Follower(sid=sid, seed=seed).follow(gateways))))
    return begun


async def _control_and_death(it: Replicas) -> None:
    """Pause here, resume there, cancel elsewhere; an owner dies: no loss, no doubling, explicit ends."""
    begun = await _followed(it, 6)
    (first, _), (second, cancelled) = begun[0], begun[1]
    paused = await it.control(it.b, first, "pause")
    assert (paused.status, paused.json["changed"]) == (200, True), paused
    resumed = await it.control(it.c, first, "resume")
    assert (resumed.status, resumed.json["stream"]["state"]) == (200, "running"), resumed
    answer = await it.control(it.a, second, "cancel", wait_s=10)
    assert (answer.status, answer.json["upstream"]) == (200, "closed"), answer
    assert (await cancelled).state == "cancelled"
    it.c.kill()
    for sid, task in begun:
        follower = await task
        follower.check(TOKENS)
        status = await it.status(it.a, sid)
        assert (status["state"], status["recovering"]) == (follower.state, False)
    assert [(await task).state for _, task in begun].count("completed") == 3


def test_a_cluster(tmp_path: Path) -> None:
    """Over a cluster of three masters, whose slots hold the streams, indexes and hints of all replicas."""

    async def scenario() -> None:
        for server in shared_cluster():
            server.flush()
        async with replicas(tmp_path, journal={"url": url_of(shared_cluster()), **HASTY}) as it:
            await _control_and_death(it)

    run(scenario(), 60, fast=True)


@contextmanager
def _with_sentinel() -> Iterator[tuple[RedisServer, int]]:
    with (
        RedisServer.started(tcp=True) as master,
        replica_of(master),
        sentinel_of(master) as port,
    ):
        yield master, port


def test_a_failover(tmp_path: Path) -> None:
    """When the master dies under running streams the replica is the master, and every reader gets the whole answer."""

    async def scenario(master: RedisServer, sentinel: int) -> None:
        async with replicas(tmp_path, journal={"url": f"redis+sentinel://127.0.0.1:{sentinel}/atlas"}) as it:
            begun = await _followed(it, 6)
            await it.ended(it.a, await it.begin(it.a, seed=99, plans=Plan(tokens=2)))
            kill_watched(master, sentinel)
            for _, task in begun:
                follower = await task
                follower.check(TOKENS)
                assert follower.state == "completed", follower
            again = await it.begin(it.b, seed=98, plans=Plan(tokens=2))
            assert (await it.ended(it.c, again))["state"] == "completed"

    with _with_sentinel() as (master, sentinel):
        run(scenario(master, sentinel), 60, fast=True)
