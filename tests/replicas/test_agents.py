"""Runs of agents over several replicas: controlled from anywhere, and ended explicitly when their owner dies."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.e2e.agent_house import ANSWER, BOTH, IN_ROW, says, team
from tests.support.chaos import Gate, Plan
from tests.support.replicas import HASTY, POLL_S, TAKEN_OVER_S, Replicas, replicas
from tests.support.run import run
from tests.support.sse import data_frames


async def begun(it: Replicas, plan: str, gate: Gate) -> str:
    """The id of a run on the first replica whose first worker stands at the gate."""
    it.up.plans |= {"boss": [says(plan), ANSWER], "ada": Plan(tokens=10, gate=gate), "bob": Plan(tokens=10, gate=gate)}
    answer = await it.call(it.a, "POST", "/v1/agents/team/runs", json={"input": "Build it.", "background": True})
    assert answer.status == 202, answer
    await gate.held()
    return str(answer.json["id"])


def test_a_run_is_controlled_from_another_replica(tmp_path: Path) -> None:
    """Paused elsewhere it begins no further step, resumed elsewhere it goes on, and gives its whole answer there."""

    async def scenario() -> None:
        gate = Gate()
        async with replicas(tmp_path, **team()) as it:
            sid = await begun(it, IN_ROW, gate)
            assert (await it.control(it.b, sid, "pause")).json["changed"] is True
            await asyncio.sleep(2 * POLL_S)  # the owner has heard of it, by a hint or by looking
            gate.open()
            await (await it.up.received(2)).answered()
            assert (await it.call(it.b, "GET", f"/v1/streams/{sid}")).json["state"] == "paused"
            assert len(it.up.requests) == 2
            await it.control(it.b, sid, "resume")
            feed = await it.call(it.b, "GET", f"/v1/streams/{sid}/events")
            assert data_frames(feed.body)[-1].json["state"] == "completed"
            text = (await it.call(it.b, "GET", f"/v1/streams/{sid}/text")).json["text"]
            assert text == ANSWER.text()

    run(scenario())


def test_a_run_is_cancelled_from_another_replica(tmp_path: Path) -> None:
    """A cancel elsewhere closes the sockets of all workers before it says so: the provider saw them close."""

    async def scenario() -> None:
        async with replicas(tmp_path, **team()) as it:
            sid = await begun(it, BOTH, Gate())
            workers = [await it.up.received(number) for number in (2, 3)]
            answer = await it.control(it.b, sid, "cancel", wait_s=10)
            assert answer.json["upstream"] == "closed"
            for worker in workers:
                await worker.gone()

    run(scenario())


@pytest.mark.parametrize("recovery", [False, True])
def test_a_run_whose_owner_dies_ends(tmp_path: Path, recovery: bool) -> None:
    """A run does not outlive its replica: it ends as failed for that reason, and what it said can still be read."""

    async def scenario() -> None:
        async with replicas(tmp_path, journal=HASTY, **team(), streams={"recovery": recovery}) as it:
            sid = await begun(it, IN_ROW, Gate())
            async with it.reading(it.b, sid) as feed:
                await feed.until(b"step_started")  # it is in the log
            it.a.kill()
            died = time.monotonic()
            whole = await it.call(it.b, "GET", f"/v1/streams/{sid}/events")
            assert time.monotonic() - died < TAKEN_OVER_S
            frames = data_frames(whole.body)
            assert (frames[-1].event, frames[-1].json["state"], frames[-1].json["reason"]) == (
                "end", "failed", "owner_lost",
            )  # fmt: skip
            assert "hull" in json.dumps(frames[1].json)

    run(scenario())
