"""Control of runs: a pause, a cancel and a provider's death reach the whole tree, seen at the providers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from gateway.app import create
from gateway.cli import main
from tests.e2e.agent_house import ANSWER, BOTH, IN_ROW, asked, begin, plan, progress, steps, team
from tests.e2e.house import House, house, run
from tests.e2e.test_control import ended, native_text
from tests.support.chaos import Gate, Plan
from tests.support.clock import ManualClock
from tests.support.signals import eventually

QUICK = {"tick_s": 0.02}
HULL = Plan(tokens=10, seed=3)


def over(it: House, sid: str) -> int:
    """Calls of a run that are over."""
    session: Any = it.app.services.pipeline.hub.find(sid.removeprefix("str_")).session  # type: ignore[union-attr]
    return len(session.attempts)


async def paused_in_its_first_step(it: House) -> str:
    """A run that was paused while its first step ran; that step is over, and it waits at its gate."""
    gate = Gate()
    plan(it, IN_ROW)
    it.up.plans["ada"] = HULL.with_(gate=gate)
    sid = await begin(it)
    await gate.held()
    assert (await it.control(sid, "pause")).json["changed"] is True
    gate.open()
    await it.up.requests[1].answered()
    await eventually(lambda: over(it, sid) == 2, what="the step to be over")
    return sid


def test_a_paused_run_begins_nothing() -> None:
    """A run paused in the middle of a step lets that step finish, begins no other, and resumes to the exact answer."""

    async def scenario() -> None:
        async with house(**team()) as it:
            sid = await paused_in_its_first_step(it)
            shown = await it.status(sid)
            assert (shown["state"], [call["step"] for call in shown["run"]["calls"]]) == ("paused", ["run", "hull"])
            await asyncio.sleep(0.05)  # what must not happen has no event
            assert asked(it.up) == ["boss", "ada"]
            await it.control(sid, "resume")
            assert (await ended(it, sid))["state"] == "completed"
            assert asked(it.up) == ["boss", "ada", "bob", "boss"]
            feed = (await it.native(sid)).body
            said = "".join(row["text"] for row in progress(feed, "text") if row["agent"] == "ada")
            assert (said, native_text(feed)) == (HULL.text(), ANSWER.text())

    run(scenario())


def test_a_pause_makes_nobody_late() -> None:
    """The deadline of a step does not run while its run is paused."""

    async def scenario() -> None:
        gate = Gate()
        limits = {"step_s": 2.5, "retries": 0}
        async with house(**team(limits=limits, on_failure="fail"), streams=QUICK) as it:
            plan(it, steps(("hull", "ada", ())))
            it.up.plans["ada"] = HULL.with_(gate=gate)
            sid = await begin(it)
            await gate.held()
            await it.control(sid, "pause")
            await asyncio.sleep(2.6)
            await it.control(sid, "resume")
            gate.open()
            assert (await ended(it, sid))["state"] == "completed"

    run(scenario())


def test_cancel_closes_every_socket() -> None:
    """A cancelled run closes the sockets of all its workers before it says so: the provider saw them close."""

    async def scenario() -> None:
        gate = Gate()
        async with house(**team()) as it:
            plan(it, BOTH)
            it.up.plans |= {"ada": HULL.with_(gate=gate), "bob": HULL.with_(gate=gate)}
            sid = await begin(it)
            workers = [await it.up.received(n) for n in (2, 3)]
            gate.allow(4)  # role and first word of both
            for worker in workers:
                await worker.wrote(2)
            answer = await it.control(sid, "cancel", reason="enough", wait_s=10)
            assert (answer.status, answer.json["upstream"]) == (200, "closed")
            for worker in workers:
                await worker.gone()
            shown = await ended(it, sid)
            assert (shown["state"], shown["reason"]) == ("cancelled", "enough")
            assert len(shown["run"]["calls"]) == 3
            assert shown["usage"]["output_tokens"] > 0

    run(scenario())


def test_cancel_while_paused() -> None:
    """A paused run that waits at its gate is cancelled like any other."""

    async def scenario() -> None:
        async with house(**team()) as it:
            sid = await paused_in_its_first_step(it)
            assert (await it.control(sid, "cancel")).json["upstream"] == "closed"
            assert (await ended(it, sid))["state"] == "cancelled"
            assert asked(it.up) == ["boss", "ada"]

    run(scenario())


def test_the_pool_heals_a_worker() -> None:
    """A worker whose provider dies in mid-stream goes on at the next one; plan and answer know nothing of it."""

    async def scenario() -> None:
        async with house(Plan(), HULL.with_(prefill="continues"), endpoint={"continuation": "prefill"}, **team(),
                         streams=QUICK) as it:  # fmt: skip
            plan(it, IN_ROW)
            it.up.plans["ada"] = HULL.with_(reset_at_byte=1200)
            sid = await begin(it)
            shown = await ended(it, sid)
            assert shown["state"] == "completed"
            assert asked(it.ups[1]) == ["ada"]
            feed = (await it.native(sid)).body
            said = "".join(row["text"] for row in progress(feed, "text") if row["agent"] == "ada")
            assert (said, native_text(feed)) == (HULL.text(), ANSWER.text())
            assert "up: ok, then stream_broken" in shown["attempts"]

    run(scenario())


def test_a_silent_provider_is_left() -> None:
    """A worker whose provider goes silent is failed by that endpoint's own deadline, and its step is tried again."""

    async def scenario() -> None:
        clock = ManualClock()
        async with house(clock=clock, **team(), streams=QUICK) as it:
            plan(it, IN_ROW)
            it.up.plans["ada"] = [HULL.with_(stall_at_event=4), HULL]
            sid = await begin(it)
            await (await it.up.received(2)).wrote(4)

            def is_asked_again() -> bool:
                clock.advance(1)
                return len(it.up.requests) > 2

            await eventually(is_asked_again)
            shown = await ended(it, sid)
            assert shown["state"] == "completed"
            assert asked(it.up) == ["boss", "ada", "ada", "bob", "boss"]
            feed = (await it.native(sid)).body
            assert [row["attempt"] for row in progress(feed, "step_started")] == [1, 2, 1]
            await it.up.requests[1].gone()

    run(scenario())


def test_a_run_has_a_deadline() -> None:
    """A worker that never answers does not hold its run for ever."""

    async def scenario() -> None:
        gate, clock = Gate(), ManualClock()
        async with house(clock=clock, **team(limits={"run_s": 30}), streams=QUICK) as it:
            plan(it, IN_ROW)
            it.up.plans["ada"] = HULL.with_(gate=gate)
            sid = await begin(it)
            await gate.held()
            clock.advance(31)
            shown = await ended(it, sid)
            assert (shown["state"], shown["reason"]) == ("failed", "timeout_total")
            await it.up.requests[1].gone()

    run(scenario())


def test_twenty_workers() -> None:
    """Twenty workers run side by side, each on a socket of its own, and all of it is closed afterwards."""

    async def scenario() -> None:
        gate = Gate()
        many = tuple((f"s{number}", "ada", ()) for number in range(20))
        async with house(**team(limits={"max_steps": 20, "max_workers": 20})) as it:
            plan(it, steps(*many))
            it.up.plans["ada"] = HULL.with_(gate=gate)
            sid = await begin(it)
            await it.up.received(21)
            gate.open()
            shown = await ended(it, sid)
            assert shown["state"] == "completed"
            assert len(shown["run"]["calls"]) == 22

    run(scenario())


@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        ({"route": "nowhere"}, r"agents\.0\.route\s+there is no route 'nowhere'"),
        ({"classifier": "nowhere"}, r"agents\.0\.classifier\s+there is no route 'nowhere'"),
        ({"kind": "no.such.Thing"}, "agent 'x'.*no.such.Thing"),
        ({"kind": "agents.task.NEEDS"}, "agent 'x'"),
        ({"route": "agent/y"}, r"agents\.0\.route\s+there is no route 'agent/y'"),
    ],
)
def test_agents_that_cannot_work(agent: dict[str, Any], problem: str) -> None:
    """A gateway does not start with an agent that could not work, and says which and why."""
    rows = [{"name": "x", "kind": "task_aware", "route": "mock-fast", **agent},
            {"name": "y", "kind": "worker", "route": "mock"}]  # fmt: skip
    with pytest.raises(ValueError, match=problem):
        create(Settings(agents=rows))  # type: ignore[arg-type]


def test_the_start_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operator who names a route that is not there reads one line about it, and no traceback."""
    file = tmp_path / "atlas.yaml"
    file.write_text("agents: [{name: x, kind: worker, route: nowhere}]")
    assert main(["serve", "--config", str(file), "--port", "0"], {}) == 2
    said = capsys.readouterr().err
    assert f"{file}:1: agents[0].route: there is no route 'nowhere'" in said
    assert "Traceback" not in said
