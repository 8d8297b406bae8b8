"""The Redis journal on a cluster that changes under it: slots that move, masters that die, replicas that take over."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from examples.ports import free_port
from gateway.core.ids import new_sid
from gateway.streams.journal import Appended, JournalUnavailable, UnknownStream
from gateway.streams.journal_redis import RedisJournal
from gateway.streams.layout_redis import keys_of
from gateway.streams.lifecycle import Op, Outcome, Record, Step
from gateway.streams.writer_redis import Batching
from gateway.upstream.link_redis import Observer
from gateway.upstream.slots_redis import slot_of
from tests.conformance.journal.subjects.redis_cluster import shared_cluster, url_of
from tests.support.redis_server import RedisServer, cluster
from tests.support.run import run
from tests.unit.streams.redis_world import STEADY, append, as_soon_as_may_be, begin, journal_at, log_of, texts, until


def ask(server: RedisServer, *command: Any) -> Any:
    """One command, from outside."""
    with server.client() as client:
        answer = client.execute_command(*command)
    return answer.decode() if isinstance(answer, bytes) else answer


def id_of(server: RedisServer) -> str:
    """What the cluster calls a node."""
    return str(ask(server, "CLUSTER", "MYID"))


def in_slots_of(number: int, masters: int = 3) -> str:
    """A stream id that the node of this number serves, as the cluster was made."""
    share = 16_384 // masters
    while True:
        sid = new_sid()
        if min(slot_of(sid) // share, masters - 1) == number:
            return sid


async def pause(journal: RedisJournal, sid: str) -> int:
    """One that changes something; the gen after it."""
    answer, _ = await journal.step(sid, Step(op=Op.PAUSE, op_id=new_sid()))
    assert answer.outcome is Outcome.CHANGED
    return answer.gen


# A slot that moves.


class Move:
    """One slot from one node to another, in the steps that redis-cli takes."""

    def __init__(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        self.slot, self.source, self.target = slot, source, target

    def begin(self) -> None:
        """From now on the slot is of two minds."""
        ask(self.target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", id_of(self.source))
        ask(self.source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", id_of(self.target))

    def carry(self, most: int = 100) -> None:
        """Some of its keys go over."""
        with self.source.client() as client:
            keys = client.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, most)
        ask(self.source, "MIGRATE", "127.0.0.1", self.target.port, "", 0, 5_000, "KEYS", *keys)

    def end(self, servers: list[RedisServer]) -> None:
        """The slot is the target's."""
        for server in [self.target, *[server for server in servers if server is not self.target]]:
            ask(server, "CLUSTER", "SETSLOT", self.slot, "NODE", id_of(self.target))


async def _writing(journal: RedisJournal, record: Record, stop: asyncio.Event) -> list[str]:
    """Appends until told to stop; what was acknowledged."""
    said: list[str] = []
    while not stop.is_set():
        word = str(len(said))
        assert await append(journal, record.sid, texts(record.gen, len(said) + 1, word)) is Appended.ACKED
        said.append(word)
    return said


async def _moved_under_way() -> None:
    servers = shared_cluster()
    async with journal_at(url_of(servers)) as journal:
        record = await begin(journal, sid=in_slots_of(0))
        other = await begin(journal, sid=in_slots_of(0))
        stop = asyncio.Event()
        writing = [asyncio.ensure_future(_writing(journal, each, stop)) for each in (record, other)]
        move = Move(slot_of(record.sid), servers[0], servers[1])
        try:
            for step in (move.begin, lambda: move.carry(1), move.carry, lambda: move.end(servers)):
                await asyncio.to_thread(step)
                await asyncio.sleep(0.03)  # some appends and refusals
            known = await journal.known(record.sid)
            await asyncio.sleep(0.03)
            stop.set()
            said = await asyncio.gather(*writing)
            assert known.tail > 0
            for each, words in zip((record, other), said, strict=True):
                assert await log_of(journal, each.sid) == ["Start", *words]
            await pause(journal, record.sid)
            (found,) = await journal.tail([(record.sid, record.gen, len(said[0]))])
            assert isinstance(found, list)
            assert len(found) == 1
        finally:
            back = Move(move.slot, servers[1], servers[0])
            for step in (back.begin, back.carry, lambda: back.end(servers)):
                step()


def test_a_slot_moves_under_way() -> None:
    """While a slot moves its streams wait a little and go on at the new node; nothing is lost or doubled."""
    run(_moved_under_way())


async def _stuck() -> None:
    servers = shared_cluster()
    timing = replace(STEADY, answer_s=0.3)
    async with (
        journal_at(url_of(servers)) as other,
        journal_at(url_of(servers), timing=timing, batching=Batching(give_up_s=0.3)) as journal,
    ):
        record = await begin(other, sid=in_slots_of(0))
        assert await append(other, record.sid, texts(record.gen, 1, "a")) is Appended.ACKED
        assert (await as_soon_as_may_be(lambda: journal.known(record.sid))).tail == 1
        move = Move(slot_of(record.sid), servers[0], servers[1])
        move.begin()
        move.carry()
        assert await append(journal, record.sid, texts(record.gen, 2, "b")) is Appended.UNKNOWN
        with pytest.raises(JournalUnavailable):
            await pause(journal, record.sid)
        move.end(servers)
        assert await as_soon_as_may_be(lambda: log_of(journal, record.sid)) == ["Start", "a"]
        await pause(other, record.sid)
        back = Move(move.slot, servers[1], servers[0])
        for step in (back.begin, back.carry, lambda: back.end(servers)):
            step()
        assert await as_soon_as_may_be(lambda: log_of(journal, record.sid)) == ["Start", "a", "Pause"]


def test_a_slot_that_is_stuck_is_said() -> None:
    """A slot that hangs between two nodes is nobody's success: unknown, unavailable, and well again afterwards."""
    run(_stuck())


# Masters that die.


async def _one_died() -> None:
    states: list[float] = []
    with cluster(3) as servers:
        timing = replace(STEADY, answer_s=2.0, patience_s=0.1)
        observer = Observer(on_state=states.append)
        async with journal_at(
            url_of(servers), timing=timing, observer=observer, batching=Batching(give_up_s=2.0)
        ) as journal:
            dead, alive = await begin(journal, sid=in_slots_of(0)), await begin(journal, sid=in_slots_of(1))
            for record in (dead, alive):
                assert await append(journal, record.sid, texts(record.gen, 1, "a")) is Appended.ACKED
            servers[0].kill()
            under_way = [append(journal, record.sid, texts(record.gen, 2, "b")) for record in (dead, alive)]
            assert await asyncio.gather(*under_way) == [Appended.UNKNOWN, Appended.ACKED]
            for _ in range(3):
                with pytest.raises(JournalUnavailable):
                    await pause(journal, dead.sid)
            found = await journal.tail([(dead.sid, dead.gen, 0), (alive.sid, alive.gen, 1)])
            assert isinstance(found[0], JournalUnavailable)
            assert isinstance(found[1], list)
            assert len(found[1]) == 1
            assert await journal.moved([(dead.sid, dead.gen), (alive.sid, alive.gen - 1)]) == [False, True]
            assert await log_of(journal, alive.sid) == ["Start", "a", "b"]
            assert states == [0.0]
            await asyncio.to_thread(servers[0].start)
            await until(lambda: states == [0.0, 1.0])
            with pytest.raises(UnknownStream):  # it kept nothing on disk
                await as_soon_as_may_be(lambda: journal.known(dead.sid))
            assert await append(journal, dead.sid, texts(dead.gen, 2, "b")) is Appended.MISSING


def test_a_dead_master_takes_only_its_own_streams_along() -> None:
    """What a dead node served is unknown and unavailable, all else goes on, and it is noticed when it is back."""
    run(_one_died())


@contextmanager
def with_replica(servers: list[RedisServer]) -> Iterator[RedisServer]:
    """A replica of the first master, in step with it, and at home in the cluster."""
    with RedisServer.started("--cluster-enabled", "yes", tcp=True) as replica:
        ask(replica, "CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        wait_for(lambda: id_of(servers[0]) in str(ask(replica, "CLUSTER", "NODES")))
        ask(replica, "CLUSTER", "REPLICATE", id_of(servers[0]))
        with replica.client() as client:
            wait_for(lambda: client.info("replication").get("master_link_status") == "up")
        # Whoever takes over while it has no link to a node is not heard there for seconds, and one that did not find
        # the cluster whole before takes no writes for as long.
        wait_for(lambda: "cluster_state:ok" in str(ask(replica, "CLUSTER", "INFO")))
        for server in servers:
            wait_for(lambda server=server: is_linked(server, replica) and is_linked(replica, server))
        yield replica


def is_linked(one: RedisServer, other: RedisServer) -> bool:
    """Whether a node knows another one and holds a connection to it."""
    lines = str(ask(one, "CLUSTER", "NODES")).splitlines()
    return any(line.startswith(id_of(other)) and line.split()[7] == "connected" for line in lines)


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits for what nodes tell one another."""

    async def story() -> None:
        await until(condition, within_s=20)

    asyncio.run(story())


async def _taken_over(servers: list[RedisServer], replica: RedisServer) -> None:
    async with journal_at(url_of(servers)) as journal:
        record, other = await begin(journal, sid=in_slots_of(0)), await begin(journal, sid=in_slots_of(2))
        for each in (record, other):
            assert await append(journal, each.sid, texts(each.gen, 1, "a")) is Appended.ACKED
        with servers[0].client() as client:
            client.execute_command("SET", f"{{{record.sid}}}", 1, "PX", 1_000)
            assert client.wait(1, 2_000) == 1
        servers[0].kill()
        under_way = append(journal, record.sid, texts(record.gen, 2, "b", "c"))
        asked = asyncio.ensure_future(journal.known(record.sid))
        await until(lambda: journal.nodes.down_s > 0)
        ask(replica, "CLUSTER", "FAILOVER", "TAKEOVER")
        assert await under_way is Appended.ACKED
        assert (await asked).record.sid == record.sid
        assert await append(journal, record.sid, texts(record.gen, 4, "d")) is Appended.ACKED
        await pause(journal, record.sid)
        assert await log_of(journal, record.sid) == ["Start", "a", "b", "c", "d", "Pause"]
        assert await log_of(journal, other.sid) == ["Start", "a"]
        await until(lambda: journal.nodes.down_s == 0)
        wire = await journal.nodes.connect(keys_of(record.sid)[0])
        wire.abort()


def test_a_replica_takes_over() -> None:
    """When a replica becomes the master of a dead node's slots, its streams go on there, whole."""
    with cluster(3) as servers, with_replica(servers) as replica:
        run(_taken_over(servers, replica))


async def _early() -> None:
    """Everything at once, before the map of slots is known, and from the wrong node."""
    servers = shared_cluster()
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{servers[2].port}"
    async with journal_at(url) as journal:
        records = await asyncio.gather(*[begin(journal) for _ in range(30)])
        under_way = [append(journal, record.sid, texts(record.gen, 1, "a")) for record in records]
        assert set(await asyncio.gather(*under_way)) == {Appended.ACKED}
        for record in records:
            assert await log_of(journal, record.sid) == ["Start", "a"]


def test_what_is_asked_first_finds_its_node() -> None:
    """A seed that is away and a map that is not known yet cost a moment, nothing else."""
    run(_early())
