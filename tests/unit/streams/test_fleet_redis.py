"""Replicas that share a Redis: what one writes the others read, with hints or without."""

import asyncio
from dataclasses import replace

import pytest

from gateway.core.clock import SystemClock
from gateway.core.events import Claim, End, State, Text
from gateway.core.ids import new_sid
from gateway.streams.fleet_redis import FleetTiming
from gateway.streams.journal import ExpiredStream, JournalRegressed, JournalUnavailable
from gateway.streams.layout_redis import key_of_log, key_of_owned, key_of_replica
from gateway.streams.lifecycle import Op, Step
from gateway.streams.reader import JournalGap
from tests.support.baseline import baseline
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import RedisServer, shared_redis
from tests.support.run import run
from tests.unit.streams.fleet_world import BRISK, HINTS_ONLY, Reader, Replica, replicas
from tests.unit.streams.redis_world import QUICK, as_soon_as_may_be, until

WORDS = 60


@pytest.fixture
def server() -> RedisServer:
    """The server of this test process, empty."""
    server = shared_redis()
    server.flush()
    return server


def _texts(replica: Replica, sid: str) -> list[str]:
    channel = replica.hub.channels[sid]
    return [event.text for entry in channel.ring for event in entry.events if isinstance(event, Text)]


async def _tells(owner: Replica, others: list[Replica]) -> None:
    """The owner writes, the others read all of it, in order, up to the end."""
    record, _ = await owner.begin()
    for other in others:
        await other.read(record.sid)
    words = [str(number) for number in range(WORDS)]
    for number, word in enumerate(words):
        await owner.say(record, number + 1, word)
    end = Step(op=Op.FINISH, op_id="end", end=End(State.COMPLETED))
    await owner.journal.step(record.sid, end)
    await until(lambda: all(other.hub.channels[record.sid].ended for other in others))
    for other in others:
        assert _texts(other, record.sid) == words


def test_other_replicas_read_what_one_writes(server: RedisServer) -> None:
    """With hints alone (no poll would come for half a minute) two replicas read a third's log in order to its end."""

    async def story() -> None:
        async with replicas(3, server.url, timing=HINTS_ONLY) as (owner, *others):
            await _tells(owner, others)

    run(story())


def test_without_hints_the_poll_finds_everything(server: RedisServer) -> None:
    """Where nobody may publish or subscribe, the log is read all the same."""

    async def story() -> None:
        with server.client() as client:
            client.execute_command("ACL SETUSER default resetchannels")
        try:
            async with replicas(2, server.url, listening=False) as (owner, other):
                await _tells(owner, [other])
        finally:
            with server.client() as client:
                client.execute_command("ACL SETUSER default allchannels")

    run(story())


def test_a_killed_subscription_comes_back(server: RedisServer) -> None:
    """CLIENT KILL TYPE pubsub costs nothing but a moment: hints arrive again, and nothing was missed."""

    async def story() -> None:
        async with replicas(2, server.url, timing=HINTS_ONLY) as (owner, other):
            record, _ = await owner.begin()
            channel, _ = await other.read(record.sid)
            await until(lambda: record.sid in owner.fleet._watchers.of)
            for number in range(20):
                if number % 5 == 2:
                    with server.client() as client:
                        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await owner.say(record, number + 1, str(number))
                await asyncio.sleep(0.005)
            await until(lambda: channel.tail == 20)
            assert _texts(other, record.sid) == [str(number) for number in range(20)]

    run(story())


def test_a_silent_subscription_is_given_up() -> None:
    """A connection for hints that is open but says nothing any more is replaced within two looks at its health."""

    async def story(server: RedisServer) -> None:
        async with replicas(1, server.url) as (replica,):
            listener = replica.fleet._listener
            await until(lambda: listener._wire is not None)
            silent = listener._wire
            server.pause()
            await until(lambda: listener._wire is not silent)
            server.go_on()
            await until(lambda: listener._wire is not None)
            assert listener._wire is not silent

    with RedisServer.started() as server:
        run(story(server))


def test_streams_of_a_claimed_owner_are_watched_at_the_new_one(server: RedisServer) -> None:
    """When another replica claims a stream, its readers elsewhere are hinted by that replica from then on."""

    async def story() -> None:
        timing = FleetTiming(poll_s=0.3)
        async with replicas(3, server.url, timing=timing) as (owner, heir, other):
            record, _ = await owner.begin()
            channel, _ = await other.read(record.sid)
            claim = Step(op=Op.CLAIM, op_id="claim", owner=f"{heir.rid}-1")
            _, (claimed,) = await heir.journal.step(record.sid, claim)
            assert claimed.control == Claim(f"{heir.rid}-1")
            await until(lambda: channel.owner == f"{heir.rid}-1")
            await until(lambda: record.sid in heir.fleet._watchers.of)

    run(story())


def test_what_grew_before_a_watch_arrived_is_said_at_once(server: RedisServer) -> None:
    """Whatever an owner wrote before it knew of a reader elsewhere is hinted with the first watch."""

    async def story() -> None:
        async with replicas(2, server.url, timing=HINTS_ONLY) as (owner, other):
            record, _ = await owner.begin()
            channel, _ = await other.read(record.sid)
            await until(lambda: record.sid in owner.fleet._watchers.of)
            owner.fleet._watchers.of.clear()
            await owner.say(record, 1, "to nobody")
            other.fleet._watch(channel)
            await until(lambda: channel.tail == 1)

    run(story())


@pytest.mark.parametrize(("count", "size"), [(1000, 10), (20, 100_000)])
def test_a_reader_far_behind_catches_up_without_waiting(server: RedisServer, count: int, size: int) -> None:
    """What does not come in one look is looked for again at once, be it many entries or large ones."""

    async def story() -> None:
        async with replicas(2, server.url, timing=HINTS_ONLY) as (owner, other):
            record, _ = await owner.begin()
            page = await other.journal.read(record.sid, -1, 1)
            for number in range(count):
                await owner.say(record, number + 1, "x" * size)
            channel = other.hub.join(page)
            channel.attach(Reader())
            await until(lambda: channel.tail == count)

    run(story())


def test_watchers_are_forgotten(server: RedisServer) -> None:
    """A replica that does not repeat what it reads is told nothing any more; one that does goes on to be."""

    async def story() -> None:
        async with replicas(3, server.url) as (owner, leaver, stayer):
            record, _ = await owner.begin()
            channel, reader = await leaver.read(record.sid)
            await stayer.read(record.sid)
            watching = owner.fleet._watchers.of
            await until(lambda: len(watching.get(record.sid, ())) == 2)
            channel.detach(reader)
            leaver.hub.release(channel)
            await until(lambda: set(watching.get(record.sid, ())) == {stayer.rid})
            await stayer.die()
            await until(lambda: not watching)

    run(story())


def test_control_from_elsewhere_reaches_the_session_and_its_readers(server: RedisServer) -> None:
    """A step on one replica nudges the session on a second, and readers on a third see its entry, by hints alone."""

    async def story() -> None:
        async with replicas(3, server.url, timing=HINTS_ONLY) as (owner, controller, other):
            record, session = await owner.begin()
            channel, _ = await other.read(record.sid)
            await until(lambda: record.sid in owner.fleet._watchers.of)
            pause = Step(op=Op.PAUSE, op_id="pause")
            await controller.journal.step(record.sid, pause)
            controller.fleet.tell(record.owner, record.sid)
            await until(lambda: session.nudges == 1 and channel.hold == 1)

    run(story())


def test_a_paused_channel_is_read_on(server: RedisServer) -> None:
    """Behind a pause a remote channel holds no more than its ring, and finds the resume."""

    async def story() -> None:
        async with replicas(2, server.url) as (owner, other):
            record, _ = await owner.begin()
            channel, _ = await other.read(record.sid)
            answer, _ = await owner.journal.step(record.sid, Step(op=Op.PAUSE, op_id="pause"))
            record = (await owner.journal.known(record.sid)).record
            for number in range(10):
                await owner.say(record, answer.seq + 1 + number, "x" * 100_000)
            await until(lambda: channel.tail == answer.seq + 10)
            assert channel.limit == answer.seq
            assert channel.ring_bytes < 500_000
            await owner.journal.step(record.sid, Step(op=Op.RESUME, op_id="resume"))
            await until(lambda: channel.hold is None)

    run(story())


def test_a_log_that_is_gone_breaks_its_readers(server: RedisServer) -> None:
    """Readers of a log that Redis has lost are told so."""

    async def story() -> None:
        async with replicas(2, server.url) as (owner, other):
            record, _ = await owner.begin()
            _, reader = await other.read(record.sid)
            with server.client() as client:
                client.delete(key_of_log(record.sid))
            await until(lambda: bool(reader.errors))
            assert isinstance(reader.errors[0], ExpiredStream)

    run(story())


def test_a_log_that_lost_its_tail_breaks_its_readers(server: RedisServer) -> None:
    """After a failover that lost what was served here, nobody waits for an end that has an earlier seq."""

    async def story() -> None:
        async with replicas(2, server.url) as (owner, other):
            record, _ = await owner.begin()
            channel, reader = await other.read(record.sid)
            for seq in (1, 2, 3):
                await owner.say(record, seq, str(seq))
            await until(lambda: channel.tail == 3)
            log = key_of_log(record.sid)
            with server.client() as client:
                kept = client.xrange(log, count=2)
                client.delete(log)
                for name, fields in kept:
                    client.xadd(log, fields, id=name)
            end = End(State.FAILED, "journal_regressed")
            await owner.journal.step(record.sid, Step(op=Op.FINISH, op_id="end", end=end))
            await until(lambda: bool(reader.errors))
            assert isinstance(reader.errors[0], JournalRegressed)
            fresh, late = await other.read(record.sid)
            assert (fresh.tail, fresh.ended, late.errors) == (2, True, [])

    run(story())


def test_a_log_with_a_hole_breaks_its_readers(server: RedisServer) -> None:
    """A hole in the log is never read over."""

    async def story() -> None:
        async with replicas(2, server.url) as (owner, other):
            record, _ = await owner.begin()
            channel, reader = await other.read(record.sid)
            await owner.say(record, 2, "behind a hole")
            await until(lambda: bool(reader.errors))
            assert isinstance(reader.errors[0], JournalGap)
            assert channel.tail == 0

    run(story())


def test_an_entry_that_cannot_be_read_breaks_its_own_readers_only(server: RedisServer) -> None:
    """One unreadable entry, of a version to come perhaps, stops its stream's readers and nobody else."""

    async def story() -> None:
        async with replicas(2, server.url) as (owner, other):
            (bad, _), (good, _) = await owner.begin(), await owner.begin()
            _, reader = await other.read(bad.sid)
            channel, untouched = await other.read(good.sid)
            with server.client() as client:
                client.xadd(key_of_log(bad.sid), {"c": b"\x91\x91\xcc\xff"}, id=f"{bad.gen}-1")
            await until(lambda: bool(reader.errors))
            await owner.say(good, 1, "on")
            await until(lambda: channel.tail == 1)
            assert untouched.errors == []

    run(story())


def test_a_replica_follows_all_its_streams_on_one_connection(server: RedisServer) -> None:
    """However many streams are read, the number of connections is the same, and nothing is left behind in the end."""

    async def story() -> None:
        async with baseline(), replicas(2, server.url, timing=HINTS_ONLY) as (owner, other):
            record, _ = await owner.begin()
            await other.read(record.sid)
            await owner.say(record, 1, "one")
            await until(lambda: other.hub.channels[record.sid].tail == 1)
            before = server.clients()
            records = [(await owner.begin())[0] for _ in range(50)]
            for each in records:
                await other.read(each.sid)
            for each in records:
                await owner.say(each, 1, "one")
            await until(lambda: all(channel.tail == 1 for channel in other.hub.channels.values()))
            assert server.clients() == before

    run(story())


def test_the_fleet_is_whole_again_after_an_outage(server: RedisServer) -> None:
    """Redis is cut off for longer than a lease: sessions look at their logs, twice, and reading goes on."""

    async def story() -> None:
        async with (
            RedisProxy.before(server) as proxy,
            replicas(1, server.url) as (other,),
            replicas(1, proxy.url) as (owner,),
        ):
            record, session = await owner.begin()
            channel, _ = await other.read(record.sid)
            proxy.refuse()
            await until(lambda: session.nudges == 1)
            assert owner.fleet.lease.held_s == 0
            await other.sees(record.owner, alive=False)  # in Redis it is over a little later
            assert await owner.fleet.is_alive("somebody-else") is True, "nobody can say"
            proxy.refuse(refusing=False)
            await until(lambda: session.nudges >= 2)
            await owner.say(record, 1, "on")
            await until(lambda: channel.tail == 1)
            await other.sees(record.owner, alive=True)

    run(story())


def test_readers_elsewhere_are_told_when_redis_stays_away(server: RedisServer) -> None:
    """A log that does not answer for the patience of readers breaks them; who comes back later reads on."""

    async def story() -> None:
        timing, link_timing = replace(BRISK, patience_s=0.5), replace(QUICK, answer_s=0.3, patience_s=0.2)
        async with (
            RedisProxy.before(server) as proxy,
            replicas(1, server.url) as (owner,),
            replicas(1, proxy.url, timing=timing, link_timing=link_timing) as (other,),
        ):
            record, _ = await owner.begin()
            channel, reader = await other.read(record.sid)
            answered_at = other.fleet._tail._followed[record.sid].answered_at
            proxy.refuse()
            await until(lambda: bool(reader.errors))
            assert SystemClock.monotonic() - answered_at >= timing.patience_s
            assert isinstance(reader.errors[0], JournalUnavailable)
            proxy.refuse(refusing=False)
            await owner.say(record, 1, "on")
            await until(lambda: other.journal.nodes.down_s == 0)
            again, late = await as_soon_as_may_be(lambda: other.read(record.sid))  # the first one has not left yet
            assert again is channel
            await until(lambda: channel.tail == 1)
            assert late.errors == []

    run(story())


def test_a_replica_that_leaves_is_dead_at_once(server: RedisServer) -> None:
    """Who gives the lease up is not waited for, and what owned nothing leaves nothing behind."""

    async def story() -> None:
        async with replicas(2, server.url) as (leaver, other):
            await other.sees(f"{leaver.rid}-1", alive=True)
            await leaver.fleet.leave_fleet()
            assert server.names(key_of_replica(leaver.rid)) == []
            await other.sees(f"{leaver.rid}-1", alive=False)
            await asyncio.sleep(BRISK.lease_s)
            assert server.names(key_of_replica(leaver.rid)) == []
            with server.client() as client:
                assert client.zscore("atlas:reps", leaver.rid) is None

    run(story())


def test_a_revoked_key_is_known_everywhere(server: RedisServer) -> None:
    """A key that is revoked on one replica is known to the others, and to one that starts later."""

    async def story() -> None:
        async with replicas(3, server.url, timing=HINTS_ONLY) as found:
            await found[0].fleet.revoke("key_1")
            await until(lambda: all(replica.revoked == {"key_1"} for replica in found), within_s=10)
            async with replicas(1, server.url) as (late,):
                await late.fleet.load_revoked()
                assert late.revoked == {"key_1"}

    run(story())


def test_a_revocation_is_found_without_hints(server: RedisServer) -> None:
    """Where hints are lost the poll finds it."""

    async def story() -> None:
        async with replicas(2, server.url) as found:
            await found[0].fleet._revoked.revoke("key_1")
            await until(lambda: all(replica.revoked == {"key_1"} for replica in found))

    run(story())


def test_nothing_is_left_without_a_time_to_live(server: RedisServer) -> None:
    """Every key of leases, indexes, streams and revocations has a time to live from its first write."""

    async def story() -> None:
        async with replicas(2, server.url, timing=HINTS_ONLY) as (owner, other):
            record, _ = await owner.begin()
            await other.read(record.sid)
            await owner.fleet.revoke(new_sid())
            await owner.fleet._replicas.own(owner.rid, [record.sid, new_sid()])
            names = server.names()
            assert {key_of_owned(owner.rid), key_of_replica(owner.rid), "atlas:reps", "atlas:revoked"} <= set(names)
            await owner.fleet.leave_fleet()
            with server.client() as client:
                assert [name for name in server.names() if client.pttl(name) == -1] == []

    run(story())
