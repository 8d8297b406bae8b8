"""What becomes of the streams of a replica that died: three others sweep side by side."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.errors import Category
from gateway.core.events import Claim, End, State
from gateway.core.ids import new_sid
from gateway.core.usage import Usage
from gateway.streams.fleet_redis import FleetTiming
from gateway.streams.journal import Appended, JournalUnavailable, Known, UnknownStream
from gateway.streams.layout_redis import key_of_owned
from gateway.streams.lifecycle import Op, Record, Step
from gateway.streams.status import usage_object
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import RedisServer, shared_redis
from tests.support.run import run
from tests.unit.streams.fleet_world import BRISK, HINTS_ONLY, Replica, replicas
from tests.unit.streams.redis_world import QUICK, append, texts, until

STREAMS = 40


@pytest.fixture
def server() -> RedisServer:
    """The server of this test process, empty."""
    server = shared_redis()
    server.flush()
    return server


async def _controls(replica: Replica, sid: str) -> list[Any]:
    page = await replica.journal.read(sid, -1, 1_000_000)
    return [entry.control for entry in page.entries if entry.control is not None][1:]


def _is_swept(server: RedisServer, dead: Replica) -> bool:
    with server.client() as client:
        return not server.names(key_of_owned(dead.rid)) and client.zscore("atlas:reps", dead.rid) is None


def test_streams_of_a_dead_replica_end_once(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Each ends as failed(owner_lost), exactly once, with the usage that was known; then nothing is left to sweep.

    One replica says so, and bills it: an end that another one wrote is no answer to one's own.
    """

    async def story() -> None:
        async with replicas(3, server.url, sweeping=True) as living, replicas(1, server.url) as (dead,):
            records = [(await dead.begin())[0] for _ in range(STREAMS)]
            usage = Usage(input_tokens=7, output_tokens=2)
            await dead.journal.annotate(records[0].sid, {"usage": usage_object(usage), "legs": [{}, {}]})
            channel, _ = await living[0].read(records[0].sid)
            await dead.die()
            await until(lambda: _is_swept(server, dead))
            for record in records:
                (end,) = await _controls(living[0], record.sid)
                assert isinstance(end, End)
                assert (end.state, end.reason) == (State.FAILED, "owner_lost")
                assert (await living[0].journal.known(record.sid)).record.end == end
            (end,) = await _controls(living[0], records[0].sid)
            assert (end.usage, end.legs) == (usage, 2)
            await until(lambda: channel.ended)

    run(story())
    told = [record for record in caplog.records if record.message == "the replica of a stream is gone"]
    assert len(told) == STREAMS


def test_a_dead_replicas_streams_are_revived_once(server: RedisServer) -> None:
    """Of three that would go on with a stream one does, and it is not ended."""

    async def story() -> None:
        async with replicas(3, server.url, sweeping=True) as living, replicas(1, server.url) as (dead,):
            for replica in living:
                replica.revives = True
            records = [(await dead.begin())[0] for _ in range(STREAMS)]
            await dead.die()
            await until(lambda: _is_swept(server, dead))
            assert sorted(sid for replica in living for sid in replica.revived) == sorted(
                record.sid for record in records
            )
            for record in records:
                controls = await _controls(living[0], record.sid)
                assert [type(control) for control in controls] == [Claim]
                known = await living[0].journal.known(record.sid)
                assert server.names(key_of_owned(known.record.owner.partition("-")[0]))

    run(story())


def test_what_needs_nobody_is_let_be(server: RedisServer) -> None:
    """Ended streams, kept ends and streams of another owner are not touched; a paused one gets its end to keep."""

    async def story() -> None:
        async with replicas(2, server.url, sweeping=True) as (heir, other), replicas(1, server.url) as (dead,):
            ended, kept, paused, claimed = [(await dead.begin())[0] for _ in range(4)]
            finish = Step(op=Op.FINISH, op_id="finish", end=End(State.COMPLETED))
            await dead.journal.step(ended.sid, finish)
            await dead.journal.step(kept.sid, Step(op=Op.PAUSE, op_id="pause"))
            await dead.journal.step(kept.sid, finish)
            await dead.journal.step(paused.sid, Step(op=Op.PAUSE, op_id="pause"))
            claim = Step(op=Op.CLAIM, op_id="claim", owner=f"{heir.rid}-1")
            await heir.journal.step(claimed.sid, claim)
            await dead.die()
            await until(lambda: _is_swept(server, dead))
            assert [end.state for end in await _controls(other, ended.sid)] == [State.COMPLETED]
            assert (await other.journal.known(kept.sid)).record.kept == End(State.COMPLETED)
            assert (await other.journal.known(claimed.sid)).record.state is State.RUNNING
            record = (await other.journal.known(paused.sid)).record
            assert record.state is State.PAUSED
            assert record.kept is not None
            assert record.kept.reason == "owner_lost"

    run(story())


def test_a_stopped_owner_finds_its_stream_ended(server: RedisServer) -> None:
    """One that comes back after its streams were ended is told to look, and its appends are refused."""

    async def story() -> None:
        async with (
            replicas(2, server.url, sweeping=True) as (living, _),
            RedisProxy.before(server) as proxy,
            replicas(1, proxy.url) as (stopped,),
        ):
            record, session = await stopped.begin()
            proxy.refuse()
            await until(lambda: _is_swept(server, stopped))
            assert session.nudges >= 1
            before = session.nudges
            proxy.refuse(refusing=False)
            await until(lambda: session.nudges > before)
            assert await append(stopped.journal, record.sid, texts(record.gen, 1, "late")) is Appended.FENCED
            await living.sees(record.owner, alive=True)

    run(story())


def test_leaving_hands_over_at_once(server: RedisServer) -> None:
    """What a replica owns when it gives its lease up is swept long before a lease is over, by whoever has just come."""

    async def story() -> None:
        steady = replace(HINTS_ONLY, lease_s=60)
        async with (
            replicas(2, server.url, timing=steady, sweeping=True) as living,
            replicas(1, server.url, timing=steady) as (leaver,),
        ):
            record, _ = await leaver.begin()
            await leaver.fleet.leave_fleet()
            await until(lambda: _is_swept(server, leaver))
            (end,) = await _controls(living[0], record.sid)
            assert end.reason == "owner_lost"

    run(story())


def test_readers_elsewhere_are_hinted_of_an_end(server: RedisServer) -> None:
    """A reader on a replica that neither owned nor swept the stream learns of its end long before the next poll."""

    async def story() -> None:
        timing = FleetTiming(lease_s=0.3, poll_s=30)
        async with (
            replicas(1, server.url, timing=timing, sweeping=True),
            replicas(1, server.url, timing=HINTS_ONLY) as (other,),
            replicas(1, server.url, timing=timing) as (dead,),
        ):
            record, _ = await dead.begin()
            channel, _ = await other.read(record.sid)
            await dead.die()
            await until(lambda: channel.ended)

    run(story())


def test_nobody_is_held_for_dead_after_an_outage(server: RedisServer) -> None:
    """All leases are gone when Redis comes back after a stop: the living have time to renew, no stream is ended."""

    async def story(server: RedisServer) -> None:
        async with replicas(3, server.url, link_timing=QUICK, sweeping=True) as living:
            records = [(await replica.begin())[0] for replica in living]
            await until(lambda: all(replica.fleet.lease.held_s >= BRISK.lease_s for replica in living))
            server.pause()
            await asyncio.sleep(2 * BRISK.lease_s)
            server.go_on()
            await until(lambda: all(replica.fleet.lease.held_s >= 2 * BRISK.lease_s for replica in living))
            for record in records:
                assert (await living[0].journal.known(record.sid)).record.state is State.RUNNING

    with RedisServer.started() as own:
        run(story(own))


def test_one_stream_that_cannot_be_settled_stops_no_other(
    server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that cannot be read is logged; the rest are settled, and it is looked at again."""

    async def story() -> None:
        async with replicas(1, server.url) as (living,), replicas(1, server.url) as (dead,):
            records = [(await dead.begin())[0] for _ in range(20)]
            bad = records[3].sid
            known = living.journal.known

            async def stumble(sid: str) -> Known:
                if sid == bad:
                    raise ZeroDivisionError
                return await known(sid)

            monkeypatch.setattr(living.journal, "known", stumble)
            await dead.fleet.leave_fleet()
            await living.sweep()
            with server.client() as client:
                assert client.smembers(key_of_owned(dead.rid)) == {bad.encode()}
            monkeypatch.undo()
            await living.sweep()
            await living.sweep()
            assert _is_swept(server, dead)

    run(story())
    assert "could not be settled" in caplog.text


def test_a_stream_whose_revival_fails_is_ended(
    server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a revival stumbles over, a request of another version perhaps, its stream does not run for ever."""

    async def story() -> None:
        async with replicas(1, server.url) as (living,), replicas(1, server.url) as (dead,):
            record, _ = await dead.begin()

            async def stumble(_record: Record) -> bool:
                raise ZeroDivisionError

            monkeypatch.setattr(living, "revive", stumble)
            await dead.fleet.leave_fleet()
            await living.sweep()
            (end,) = await _controls(living, record.sid)
            assert (end.state, end.reason, end.failure.category) == (State.FAILED, "owner_lost", Category.OWNER_LOST)

    run(story())
    assert "ZeroDivisionError" in caplog.text


def test_a_replica_that_leaves_ends_nothing(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead replica left is let be by one that drains, also in the middle of a turn, for others to go on with."""

    async def story() -> None:
        async with replicas(1, server.url) as (leaving,), replicas(1, server.url) as (dead,):
            records = [(await dead.begin())[0] for _ in range(3)]

            async def is_told_to_leave(_record: Record) -> bool:
                leaving.sweeper.stop()
                return False

            monkeypatch.setattr(leaving, "revive", is_told_to_leave)
            await until(lambda: leaving.fleet.lease.held_s >= BRISK.lease_s)
            await dead.fleet.leave_fleet()
            await leaving.sweeper.turn()
            await leaving.sweeper.turn()
            await leaving.sweeper.run()
            for record in records:
                assert (await leaving.journal.known(record.sid)).record.state is State.RUNNING
            with server.client() as client:
                assert client.scard(key_of_owned(dead.rid)) == 3

    run(story())


def test_a_sweep_without_redis_ends_quietly(server: RedisServer) -> None:
    """No error, no stream touched; the next turn goes on."""

    async def story() -> None:
        impatient = replace(QUICK, answer_s=0.2)
        async with RedisProxy.before(server) as proxy, replicas(1, proxy.url, link_timing=impatient) as (living,):
            await until(lambda: living.fleet.lease.held_s >= BRISK.lease_s)
            proxy.refuse()
            assert await living.sweeper.turn() is False

    run(story())


def test_a_stream_that_is_about_to_be_created_keeps_its_name(server: RedisServer) -> None:
    """A replica that is stopped between naming and creating a stream still owns it in its set when it comes back."""

    async def story() -> None:
        async with replicas(1, server.url, sweeping=True) as (living,), replicas(1, server.url) as (dead,):
            sid = new_sid()
            await dead.fleet._replicas.own(dead.rid, [sid])
            await dead.die()
            await until(lambda: living.fleet.orphans.is_unborn(dead.rid))
            await asyncio.sleep(0.2)
            assert server.names(key_of_owned(dead.rid))
            with pytest.raises(UnknownStream):
                await living.journal.known(sid)

    run(story())


def test_a_stray_is_ended_by_its_own_replica(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is named as a living replica's and has no session there ends; one with a session does not."""
    monkeypatch.setattr("gateway.streams.orphans_redis.STRAY_S", 0.0)

    async def story() -> None:
        async with replicas(1, server.url, timing=HINTS_ONLY) as (replica,):
            served, _ = await replica.begin()
            stray, _ = await replica.begin()
            replica.hub.disown(replica.hub.channels[stray.sid])
            for _ in range(2):
                await replica.sweeper.turn()
            (end,) = await _controls(replica, stray.sid)
            assert end.reason == "owner_lost"
            assert (await replica.journal.known(served.sid)).record.state is State.RUNNING
            with server.client() as client:
                assert client.smembers(key_of_owned(replica.rid)) == {served.sid.encode()}

    run(story())


def test_an_end_whose_answer_was_lost_is_told_of(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who wrote an end and was not told so asks again, and is then who says and bills it: once, like any other."""

    async def story() -> None:
        async with replicas(1, server.url) as (living,), replicas(1, server.url) as (dead,):
            record, _ = await dead.begin()
            take, lost = living.journal.step, [True]

            async def loses_the_answer(sid: str, step: Step) -> Any:
                answer = await take(sid, step)
                if lost and step.op is Op.FINISH:
                    lost.clear()
                    msg = "no answer"
                    raise JournalUnavailable(msg)
                return answer

            monkeypatch.setattr(living.journal, "step", loses_the_answer)
            await dead.die()
            async with asyncio.TaskGroup() as tasks:
                sweeping = tasks.create_task(living.sweeper.run())
                await until(lambda: _is_swept(server, dead))
                sweeping.cancel()
            assert not lost
            assert [type(control) for control in await _controls(living, record.sid)] == [End]

    run(story())
    assert [each.message for each in caplog.records].count("the replica of a stream is gone") == 1
