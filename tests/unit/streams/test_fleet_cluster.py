"""The fleet on a cluster of three masters: leases, indexes, hints and streams lie on different nodes."""

import asyncio

from gateway.core.events import End, State
from gateway.streams.layout_redis import key_of_owned
from gateway.streams.lifecycle import Op, Step
from tests.conformance.journal.subjects.redis_cluster import shared_cluster, url_of
from tests.support.redis_server import RedisServer
from tests.support.run import run
from tests.unit.streams.fleet_world import HINTS_ONLY, replicas
from tests.unit.streams.redis_world import until

STREAMS = 12


def _servers() -> list[RedisServer]:
    servers = shared_cluster()
    for server in servers:
        server.flush()
    return servers


def _names(servers: list[RedisServer], pattern: str) -> list[str]:
    return [name for server in servers for name in server.names(pattern)]


def test_replicas_read_one_another_on_a_cluster() -> None:
    """By hints alone, streams of every node are read elsewhere to their ends, and revocations arrive."""

    async def story(servers: list[RedisServer]) -> None:
        async with replicas(3, url_of(servers), timing=HINTS_ONLY) as (owner, *others):
            records = [(await owner.begin())[0] for _ in range(STREAMS)]
            channels = [(await other.read(record.sid))[0] for other in others for record in records]
            for number in range(5):
                await asyncio.gather(*[owner.say(record, number + 1, "word") for record in records])
            for record in records:
                await owner.journal.step(record.sid, Step(op=Op.FINISH, op_id="end", end=End(State.COMPLETED)))
            await owner.fleet.revoke("key_1")
            await until(lambda: all(channel.ended for channel in channels))
            await until(lambda: all(replica.revoked == {"key_1"} for replica in (owner, *others)), within_s=10)

    run(story(_servers()))


def test_a_dead_replicas_streams_end_on_a_cluster() -> None:
    """Three sweepers settle streams of every node; nothing of the dead replica is left, nor anything without TTL."""

    async def story(servers: list[RedisServer]) -> None:
        url = url_of(servers)
        async with replicas(3, url, sweeping=True) as living, replicas(1, url) as (dead,):
            records = [(await dead.begin())[0] for _ in range(STREAMS)]
            await dead.die()
            await until(lambda: not _names(servers, key_of_owned(dead.rid)))
            for record in records:
                page = await living[0].journal.read(record.sid, -1, 1_000_000)
                assert [type(entry.control) for entry in page.entries[1:]] == [End]
            for server in servers:
                with server.client() as client:
                    assert [name for name in server.names() if client.pttl(name) == -1] == []

    run(story(_servers()))
