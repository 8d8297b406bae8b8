"""Whatever replica a client happens to reach, it is the same stream."""

import asyncio
from pathlib import Path

from tests.support.chaos import Gate, Plan
from tests.support.fold import fold
from tests.support.follower import Follower
from tests.support.replicas import Replicas, replicas
from tests.support.run import run
from tests.support.signals import eventually

BEAT = {"heartbeat_s": 0.2}


def logged(it: Replicas, sid: str) -> int:
    """The seq of the last event in the log, as Redis has it."""
    with it.redis.client() as client:
        last = client.xinfo_stream(f"atlas:{{{sid.removeprefix('str_')}}}:j")["last-generated-id"]
    return int(last.decode().split("-")[1])


def test_pause_here_read_there_resume_elsewhere(tmp_path: Path) -> None:
    """A stream of A that B pauses is served to nobody beyond the pause, and from C's resume on to everybody."""

    async def scenario() -> None:
        gate = Gate(5)
        async with replicas(tmp_path, server=BEAT) as it:
            answer = await it.attach(it.a, seed=7, plans=Plan(tokens=30, gate=gate))
            sid = answer.headers["x-atlas-stream-id"]
            async with it.reading(it.b, sid) as on_b, it.reading(it.c, sid) as on_c:
                await on_b.until(b"event: text")
                paused = await it.control(it.b, sid, "pause", reason="hold on")
                assert (paused.status, paused.json["changed"]) == (200, True), paused
                at = paused.json["seq"]
                await gate.release(12)
                await eventually(lambda: logged(it, sid) >= at + 5, what="the owner to go on reading")
                for reader in (on_b, on_c):
                    await reader.until(b"event: pause")
                    served = len(reader.body)
                    while reader.body.count(b"\n:", served - 1) < 2:  # two heartbeats later there is still nothing
                        assert await reader.next()
                    assert Follower(sid=sid, seed=7).take(bytes(reader.body)).seq == at
                text = await it.call(it.c, "GET", f"/v1/streams/{sid}/text")
                assert text.json["seq"] == at
                again = await it.control(it.c, sid, "pause")
                assert (again.status, again.json["changed"], again.json["seq"]) == (200, False, at)
                resumed = await it.control(it.c, sid, "resume")
                assert (resumed.status, resumed.json["stream"]["state"]) == (200, "running"), resumed
                gate.open()
                for reader in (on_b, on_c):
                    follower = Follower(sid=sid, seed=7).take(await reader.read())
                    follower.check(30)
                    assert follower.state == "completed"
                folded = fold(await answer.read())
                assert (folded.text, folded.done) == (Plan(tokens=30, seed=7).text(), True)

    run(scenario(), 40, fast=True)


def test_cancel_elsewhere_closes_the_upstream(tmp_path: Path) -> None:
    """A cancel at B of a stream of A answers `closed` once A closed the provider's socket; all readers get the end."""

    async def scenario() -> None:
        async with replicas(tmp_path) as it:
            answer = await it.attach(it.a, seed=3, plans=Plan(gate=Gate(4)))
            sid = answer.headers["x-atlas-stream-id"]
            async with it.reading(it.c, sid) as on_c:
                await on_c.until(b"event: text")
                cancelled = await it.control(it.b, sid, "cancel", reason="enough", wait_s=10)
                assert (cancelled.status, cancelled.json["upstream"]) == (200, "closed"), cancelled
                await it.up.last.gone()
                assert it.up.last.outcome == "left"
                follower = Follower(sid=sid, seed=3).take(await on_c.read())
                assert (follower.state, follower.end and follower.end["reason"]) == ("cancelled", "enough")
                error = fold(await answer.read()).error
                assert error is not None
                assert error["code"] == "stream_cancelled"
            again = await it.control(it.c, sid, "cancel")
            assert (again.status, again.json["changed"], again.json["stream"]["state"]) == (200, False, "cancelled")
            late = await it.control(it.b, sid, "pause")
            assert (late.status, late.json["error"]["code"]) == (409, "stream_terminal")

    run(scenario(), 40, fast=True)


def test_a_reader_elsewhere_keeps_a_stream_alive(tmp_path: Path) -> None:
    """A client of A that hangs up ends its stream if nobody reads it on B, be it that B's reader has left."""

    async def scenario() -> None:
        plan = Plan(tokens=60, pace_s=0.05)
        async with replicas(tmp_path, 2) as it:
            kept, dropped = [
                (await it.attach(it.a, seed=seed, plans=plan, on_disconnect="grace=1")).headers["x-atlas-stream-id"]
                for seed in (1, 2)
            ]
            async with it.reading(it.b, dropped) as reader:
                await reader.until(b"event: text")
            follower = asyncio.create_task(Follower(sid=kept, seed=1).follow([it.b]))
            await it.hang_up()
            status = await it.ended(it.b, dropped)
            assert (status["state"], status["reason"]) == ("cancelled", "disconnect")
            (await follower).check(60)
            assert (await follower).state == "completed"

    run(scenario(), 40, fast=True)


def test_listing_over_all(tmp_path: Path) -> None:
    """Every replica lists the streams of all of them, newest first, and finds them by state."""

    async def scenario() -> None:
        async with replicas(tmp_path) as it:
            sids = []
            for seed, gateway in enumerate([it.a, it.b, it.c, it.a]):
                sids.append(await it.begin(gateway, seed=seed, plans=Plan(gate=Gate(3))))
            assert (await it.control(it.c, sids[0], "pause")).status == 200
            for gateway in it.gateways:
                rows = (await it.call(gateway, "GET", "/v1/streams")).json["data"]
                assert [row["id"] for row in rows] == sids[::-1]
                paused = (await it.call(gateway, "GET", "/v1/streams?state=paused")).json["data"]
                assert [row["id"] for row in paused] == sids[:1]

    run(scenario(), 40, fast=True)


def test_lost_hints(tmp_path: Path) -> None:
    """With every pub/sub connection killed again and again, readers elsewhere miss nothing and do not notice."""

    async def scenario() -> None:
        async with replicas(tmp_path, 2) as it:
            sids = [await it.begin(it.a, seed=seed, plans=Plan(tokens=40, pace_s=0.03)) for seed in range(4)]
            killed = 0
            async with asyncio.TaskGroup() as tasks:
                followers = [
                    tasks.create_task(Follower(sid=sid, seed=seed).follow([it.b])) for seed, sid in enumerate(sids)
                ]
                while not all(task.done() for task in followers):
                    with it.redis.client() as client:
                        killed += int(client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))
                    await asyncio.sleep(0.1)
            assert killed >= 3, "nobody was listening"
            for task in followers:
                follower = task.result()
                follower.check(40)
                assert (follower.state, follower.connects) == ("completed", 1)

    run(scenario(), 40, fast=True)
