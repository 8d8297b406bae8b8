"""A log that ran out while no replica lived: its record says that the stream is over."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.chaos import Gate, Plan
from tests.support.redis_server import ELAPSE
from tests.support.replicas import HASTY, Replicas, replicas
from tests.support.run import run

LIVE_S = 1800
SHORT_PAUSES = {"streams": {"pause_max_s": 1}}


def elapse(it: Replicas, seconds: float) -> None:
    """Time passes in Redis, while no gateway lives."""
    with it.redis.client() as client:
        client.eval(ELAPSE, 0, int(seconds * 1000))


async def came_back(it: Replicas, sid: str) -> dict[str, Any]:
    """The status object of a stream whose only replica is killed, and back after its log is gone."""
    it.a.kill()
    elapse(it, LIVE_S)
    await it.a.start()
    events = await it.call(it.a, "GET", f"/v1/streams/{sid}/events")
    assert (events.status, events.json["error"]["code"]) == (410, "stream_expired")
    status = await it.ended(it.a, sid)
    for state in ("running", "paused"):
        assert not (await it.call(it.a, "GET", f"/v1/streams?state={state}")).json["data"]
    return status


@pytest.mark.parametrize("is_paused", [False, True], ids=["running", "paused"])
def test_a_log_that_expired_under_its_owner(tmp_path: Path, is_paused: bool) -> None:
    """Its stream failed, and says why; it is not said to be at work until its record is gone, too."""

    async def scenario() -> None:
        async with replicas(tmp_path, 1, journal=HASTY) as it:
            sid = await it.begin(it.a, seed=3, plans=Plan(tokens=30, gate=Gate(5)))
            if is_paused:
                assert (await it.control(it.a, sid, "pause")).status == 200
            status = await came_back(it, sid)
            assert (status["state"], status["reason"], status["recovering"]) == ("failed", "journal_lost", False)

    run(scenario(), 60, fast=True)


def test_a_log_that_expired_with_an_end_that_was_held_back(tmp_path: Path) -> None:
    """A paused stream whose end waited for its resume needs no owner: its pause is over all the same."""

    async def scenario() -> None:
        gate = Gate(5)
        async with replicas(tmp_path, 1, journal=HASTY, **SHORT_PAUSES) as it:
            sid = await it.begin(it.a, seed=3, plans=Plan(tokens=30, gate=gate))
            assert (await it.control(it.a, sid, "pause")).status == 200
            gate.open()
            await it.settled(it.a, sid)
            status = await came_back(it, sid)
            assert (status["state"], status["reason"], status["recovering"]) == ("cancelled", "pause_expired", False)

    run(scenario(), 60, fast=True)
