"""Clients that do not read, and streams that say nothing: the first are dropped, the second keep their clients."""

import asyncio
import json

import pytest

from tests.e2e.house import CHAT, ask, house, run, sid_of
from tests.e2e.test_control import ended, held
from tests.support.chaos import Gate, Plan
from tests.support.clock import ManualClock
from tests.support.fold import fold
from tests.support.http import CutBodyError
from tests.support.signals import eventually
from tests.support.sse import frames

LONG = Plan(tokens=800, extra_chunk={"padding": "x" * 10_000})
"""About 8 MB on the wire, more than the kernel holds for who does not read; the log keeps the padding once."""
SMALL = 4096
SHORT = {"tick_s": 0.02, "client_send_s": 0.2}


def test_a_client_that_does_not_read_is_dropped() -> None:
    """A client that does not read is reset after `client_send_s`, and another reader of its stream gets everything."""

    async def scenario() -> None:
        clock = ManualClock()  # for as long as it stands still the other reader may be as late as it likes
        async with house(LONG, streams=SHORT, clock=clock) as it, it.client(receive_buffer=SMALL) as slow:
            answer = await slow.stream("POST", CHAT, {"x-atlas-on-disconnect": "continue"}, json=ask())
            sid = sid_of(answer)
            async with it.read(f"/v1/streams/{sid}/events?format=wire") as other:
                whole = await other.read()
            assert fold(whole).text == LONG.text()

            def is_dropped() -> bool:
                clock.advance(0.1)
                return it.channels == 0

            await eventually(is_dropped, what="the slow reader to be dropped")
            assert (await ended(it, sid))["state"] == "completed"
            with pytest.raises(CutBodyError) as caught:
                await answer.read()
            assert caught.value.how == "reset"
            assert b"[DONE]" not in caught.value.body
            await eventually(lambda: it.atlas.connections == 0)
            seen = len(frames(caught.value.body))
            rest = await it.native(sid, f"?format=wire&skip_events={seen}")  # it comes back where it stood
            assert b"".join(block + b"\n\n" for block in whole.split(b"\n\n")[:seen]) + rest.body == whole

    run(scenario())


def test_a_slow_reader_slows_nobody() -> None:
    """The provider is read at its own pace, however slowly the client reads."""

    async def scenario() -> None:
        async with house(LONG, streams={**SHORT, "client_send_s": 30}) as it, it.client(receive_buffer=SMALL) as slow:
            answer = await slow.stream("POST", CHAT, json=ask())
            assert await it.up.last.answered() == "complete"
            assert (await it.status(sid_of(answer)))["state"] == "completed"
            assert fold(await answer.read()).text == LONG.text()

    run(scenario())


def test_a_whole_answer_that_is_not_read_is_dropped() -> None:
    """Also an answer that is not streamed has a bound on how long its client may take."""

    async def scenario() -> None:
        plan = Plan(tokens=300, extra_delta={"vendor": "x" * 20_000})
        async with house(plan, streams=SHORT) as it, it.client(receive_buffer=SMALL) as slow:
            answer = await slow.stream("POST", CHAT, json=ask(stream=False))
            assert answer.status == 200
            await eventually(lambda: it.atlas.connections == 0, what="the client to be dropped")
            with pytest.raises(CutBodyError):
                await answer.read()

    run(scenario())


def test_heartbeats_of_a_silent_stream() -> None:
    """While a provider is silent its clients get a comment every `heartbeat_s`, in both formats."""

    async def scenario() -> None:
        gate = Gate()
        async with (
            house(Plan(gate=gate), server={"heartbeat_s": 0.05}, streams={"tick_s": 0.01}) as it,
            held(it, gate) as answer,
            it.read(f"/v1/streams/{sid_of(answer)}/events") as native,
        ):
            for reader in (answer, native):
                await reader.until(b": keep-alive\n\n: keep-alive\n\n")
            gate.open()
            assert fold(await answer.read()).text == Plan().text()
            assert {frame.comment for frame in frames(await native.read())} <= {None, "keep-alive"}

    run(scenario())


def test_heartbeats_do_not_count_as_life() -> None:
    """Heartbeats to the client do not keep a stalled provider alive: its idle timeout comes as it would."""

    async def scenario() -> None:
        clock, pace = ManualClock(), {"server": {"heartbeat_s": 20}, "streams": {"tick_s": 0.01}}
        async with house(Plan(stall_at_event=3), clock=clock, endpoint={"timeouts": {"idle_s": 60}}, **pace) as it:
            async with it.chat() as answer:
                await answer.until_frames(3)  # all that the provider says
                for beats in (1, 2):
                    clock.advance(25)
                    await answer.until(b": keep-alive\n\n" * beats)
                clock.advance(25)  # a minute and a quarter after the provider's last word
                folded = fold(await answer.read())
            assert (folded.error or {})["code"] == "timeout_idle"
            await it.up.last.gone()

    run(scenario())


def test_the_status_line_waits_no_longer_than_it_must() -> None:
    """After `status_wait_s` without content the status line goes out, with a comment; what fails then fails in-band."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(hold_headers=gate), streams={"status_wait_s": 0.1, "tick_s": 0.01}) as it:
            async with it.chat() as answer:
                assert answer.status == 200
                await answer.until(b": keep-alive\n\n")
                assert bytes(answer.body) == b": keep-alive\n\n"
                gate.open()
                folded = fold(await answer.read())
                assert (folded.text, folded.done) == (Plan().text(), True)
            it.up.default = Plan(hold_headers=Gate())
            async with it.chat() as answer:
                await answer.until(b": keep-alive\n\n")
                await it.control(sid_of(answer), "cancel")
                folded = fold(await answer.read())
                assert ((folded.error or {})["code"], folded.done) == ("stream_cancelled", False)

    run(scenario())


def test_the_status_line_waits_for_content() -> None:
    """Before the first content nothing goes out, not even the status line, so that any failure can still be told."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(gate=gate)) as it, it.client() as client:
            asked = asyncio.ensure_future(client.stream("POST", CHAT, json=ask()))
            await it.up.received()
            await gate.release(1)  # the role
            await asyncio.sleep(0.05)
            assert not asked.done()
            gate.open()
            assert fold(await (await asked).read()).text == Plan().text()

    run(scenario())


def test_a_paused_stream_before_its_content() -> None:
    """A stream that is paused before it said anything keeps its client by heartbeats, and then says it all."""

    async def scenario() -> None:
        gate = Gate()
        pace = {"status_wait_s": 0.05, "tick_s": 0.01}
        async with house(Plan(gate=gate), streams=pace, server={"heartbeat_s": 0.05}) as it, it.client() as client:
            asked = asyncio.ensure_future(client.stream("POST", CHAT, json=ask()))
            await it.up.received()
            sid = (await it.call("GET", "/v1/streams")).json["data"][0]["id"]
            await it.control(sid, "pause")
            gate.open()
            answer = await asked
            await answer.until(b": keep-alive\n\n" * 3)
            assert json.loads((await it.call("GET", f"/v1/streams/{sid}/text")).body)["text"] == ""
            await it.control(sid, "resume")
            assert fold(await answer.read()).text == Plan().text()

    run(scenario())
