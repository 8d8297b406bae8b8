"""What a client's hanging up does, by policy, and how an Idempotency-Key brings it back to its stream."""

import asyncio

import pytest

from tests.e2e.house import CHAT, House, ask, house, run, sid_of
from tests.e2e.test_control import ended, held
from tests.support.chaos import Gate, Plan, refusing, tokens_seen
from tests.support.clock import ManualClock
from tests.support.fold import fold
from tests.support.signals import eventually

POLICY = "x-atlas-on-disconnect"


async def left(it: House, sid: str) -> None:
    """Returns when the gateway has noticed that nobody reads the stream any more."""
    channel = it.app.services.pipeline.hub.find(sid.removeprefix("str_"))
    await eventually(lambda: channel is None or not channel.readers, what="the reader to be gone")


@pytest.mark.parametrize("how", ["cut", "reset"])
@pytest.mark.parametrize("headers", [{}, {POLICY: "cancel"}], ids=["default", "cancel"])
def test_hanging_up_stops_the_generation(how: str, headers: dict[str, str]) -> None:
    """Without a word otherwise, hanging up cancels the stream and closes the provider's socket."""

    async def scenario() -> None:
        gate = Gate(2)
        async with house(Plan(gate=gate)) as it:
            async with it.client() as client:
                answer = await client.stream("POST", CHAT, headers, json=ask())
                await answer.until_frames(2)
                getattr(client, how)()
            await it.up.last.gone()
            assert it.up.last.outcome == "left"
            status = await ended(it, sid_of(answer))
            assert (status["state"], status["reason"]) == ("cancelled", "disconnect")
            assert it.channels == 0

    run(scenario())


def test_hanging_up_before_content() -> None:
    """A client that hangs up while the provider still thinks stops it, too."""

    async def scenario() -> None:
        async with house(Plan(gate=Gate())) as it:
            async with it.client() as client:
                asked = asyncio.ensure_future(client.stream("POST", CHAT, json=ask()))
                await it.up.received()
                asked.cancel()
            await it.up.last.gone()
            await eventually(lambda: it.channels == 0)

    run(scenario())


def test_hanging_up_on_an_answer_that_is_not_streamed() -> None:
    """Hanging up on stream:false cancels like hanging up on a stream."""

    async def scenario() -> None:
        async with house(Plan(gate=Gate(3))) as it:
            async with it.client() as client:
                asked = asyncio.ensure_future(client.request("POST", CHAT, json=ask(stream=False)))
                await (await it.up.received()).wrote(3)
                asked.cancel()
            await it.up.last.gone()
            await eventually(lambda: it.channels == 0)
            row = (await it.call("GET", "/v1/streams")).json["data"][0]
            assert (row["state"], row["reason"]) == ("cancelled", "disconnect")

    run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_continue(stream: bool) -> None:
    """With `continue` a stream runs on to its end although its client is gone, and can be read afterwards."""

    async def scenario() -> None:
        gate = Gate(2)
        plan = Plan(tokens=20, gate=gate)
        async with house(plan) as it:
            async with it.client() as client:
                body = ask(stream=stream)
                asked = asyncio.ensure_future(client.stream("POST", CHAT, {POLICY: "continue"}, json=body))
                await (await it.up.received()).wrote(2)
                sid = (await it.call("GET", "/v1/streams")).json["data"][0]["id"]
                asked.cancel()
            await left(it, sid)
            gate.open()
            status = await ended(it, sid)
            assert (status["state"], it.up.last.outcome) == ("completed", "complete")
            assert (await it.call("GET", f"/v1/streams/{sid}/text")).json["text"] == plan.text()

    run(scenario())


def test_grace() -> None:
    """With `grace=<s>` a stream whose client is gone is cancelled after that time, and not before."""

    async def scenario() -> None:
        gate, clock = Gate(), ManualClock()
        async with house(Plan(gate=gate), clock=clock, streams={"tick_s": 0.01}) as it:
            async with held(it, gate, {POLICY: "grace=5"}) as answer:
                sid = sid_of(answer)
            await left(it, sid)
            clock.advance(4.9)
            await asyncio.sleep(0.05)  # several looks of the housekeeper
            assert (await it.status(sid))["state"] == "running"
            clock.advance(0.2)
            await it.up.last.gone()
            status = await ended(it, sid)
            assert (status["state"], status["reason"]) == ("cancelled", "disconnect")

    run(scenario())


def test_grace_ends_for_good_when_somebody_comes_back() -> None:
    """A reader who comes back within the grace keeps the stream alive beyond it."""

    async def scenario() -> None:
        gate, clock = Gate(), ManualClock()
        plan = Plan(tokens=5, gate=gate)
        async with house(plan, clock=clock, streams={"tick_s": 0.01}) as it:
            async with held(it, gate, {POLICY: "grace=5"}) as answer:
                sid = sid_of(answer)
            await left(it, sid)
            async with it.read(f"/v1/streams/{sid}/events?format=wire") as again:
                clock.advance(6)
                await asyncio.sleep(0.05)
                gate.open()
                assert fold(await again.read()).text == plan.text()
            assert (await ended(it, sid))["state"] == "completed"

    run(scenario())


def test_another_reader_keeps_it_alive() -> None:
    """A stream that somebody else still reads is not cancelled by its creator's hanging up."""

    async def scenario() -> None:
        gate = Gate()
        plan = Plan(tokens=10, gate=gate)
        async with house(plan) as it:
            async with held(it, gate) as answer:
                sid = sid_of(answer)
                other = await it.client().__aenter__()
                feed = await other.stream("GET", f"/v1/streams/{sid}/events?format=wire")
                await feed.until_frames(2)
            await eventually(lambda: it.app.services.pipeline.hub.channels[sid[4:]].readers.__len__() == 1)
            gate.open()
            assert fold(await feed.read()).text == plan.text()
            await other.__aexit__()

    run(scenario())


def test_a_paused_stream_survives_its_client() -> None:
    """Hanging up does not cancel a paused stream: it can be resumed and read from where it stood."""

    async def scenario() -> None:
        gate = Gate()
        plan = Plan(tokens=10, gate=gate)
        async with house(plan) as it:
            async with held(it, gate) as answer:
                sid = sid_of(answer)
                await it.control(sid, "pause")
            await left(it, sid)
            assert (await it.status(sid))["state"] == "paused"
            async with it.read(f"/v1/streams/{sid}/events?format=wire&skip_events=2") as feed:
                await it.control(sid, "resume")
                gate.open()
                rest = fold(await feed.read())
                assert fold(bytes(answer.body)).text + rest.text == plan.text()
                assert rest.done

    run(scenario())


def test_hanging_up_at_the_end_is_no_cancel() -> None:
    """Clients hang up at `[DONE]`: that is a completed stream."""

    async def scenario() -> None:
        async with house() as it:
            for _ in range(20):
                async with it.chat() as answer:
                    await answer.until(b"[DONE]")
                assert (await ended(it, sid_of(answer)))["state"] == "completed"

    run(scenario())


# --- Idempotency-Key on a create


def test_a_key_finds_its_running_stream() -> None:
    """The same key and body give the same stream from its beginning, while it runs and after it ended."""

    async def scenario() -> None:
        gate, key = Gate(), {"idempotency-key": "k-1"}
        plan = Plan(tokens=10, gate=gate)
        async with house(plan) as it:
            async with held(it, gate, key) as answer:
                sid = sid_of(answer)
                assert "x-atlas-idempotent" not in answer.headers
            async with it.chat(key) as again:  # after a lost connection; the stream had its grace
                assert (sid_of(again), again.headers["x-atlas-idempotent"]) == (sid, "replayed")
                gate.open()
                live = await again.read()
                assert fold(live).text == plan.text()
            await ended(it, sid)
            async with it.chat(key) as after:
                assert (sid_of(after), after.headers["x-atlas-idempotent"]) == (sid, "replayed")
                assert await after.read() == live
            assert len(it.up.requests) == 1

    run(scenario())


def test_a_key_finds_its_finished_answer() -> None:
    """A repeated stream:false request with its key gets the finished answer again, and the provider is not asked."""

    async def scenario() -> None:
        key = {"idempotency-key": "k-1"}
        async with house() as it:
            first, again = await it.ask(key), await it.ask(key)
            assert (first.status, first.body) == (200, again.body)
            assert again.headers["x-atlas-idempotent"] == "replayed"
            assert sid_of(first) == sid_of(again)
            assert len(it.up.requests) == 1

    run(scenario())


def test_a_key_is_for_one_body() -> None:
    """A key that was used with another body is refused, and names itself."""

    async def scenario() -> None:
        key = {"idempotency-key": "k-1"}
        async with house() as it:
            assert (await it.ask(key)).status == 200
            refused = await it.ask(key, temperature=1)
            error = refused.json["error"]
            assert (refused.status, error["code"], error["param"]) == (422, "idempotency_key_reused", "Idempotency-Key")
            assert len(it.up.requests) == 1

    run(scenario())


def test_a_key_is_free_after_a_failure_before_content() -> None:
    """A stream that failed before any content frees its key; one that failed behind content keeps it."""

    async def scenario() -> None:
        key = {"idempotency-key": "k-1"}
        async with house() as it:
            it.up.script = [refusing(400, message="no")]
            assert (await it.ask(key)).status == 400
            good = await it.ask(key)
            assert (good.status, "x-atlas-idempotent" in good.headers) == (200, False)
            it.up.script = [Plan(tokens=8, end_at_byte=900)]
            other = {"idempotency-key": "k-2"}
            broken, again = await it.ask(other, stream=True), await it.ask(other, stream=True)
            assert again.headers["x-atlas-idempotent"] == "replayed"
            assert broken.body == again.body
            assert 0 < tokens_seen(1, fold(broken.body).text) < 8

    run(scenario())


def test_a_key_is_free_after_a_disconnect() -> None:
    """A stream that its client's hanging up cancelled frees its key."""

    async def scenario() -> None:
        key, gate = {"idempotency-key": "k-1", POLICY: "cancel"}, Gate()
        async with house(Plan(gate=gate)) as it:
            async with held(it, gate, key) as answer:
                sid = sid_of(answer)
            await ended(it, sid)
            gate.open()
            async with it.chat(key) as again:
                assert sid_of(again) != sid
                assert fold(await again.read()).done

    run(scenario())


def test_a_key_gives_grace() -> None:
    """A request with a key is not cancelled by a lost connection for a minute, and then it is."""

    async def scenario() -> None:
        gate, clock = Gate(), ManualClock()
        patient = {"timeouts": {"idle_s": 600, "progress_s": 600}}
        async with house(Plan(gate=gate), clock=clock, endpoint=patient, streams={"tick_s": 0.01}) as it:
            async with held(it, gate, {"idempotency-key": "k-1"}) as answer:
                sid = sid_of(answer)
            await left(it, sid)
            clock.advance(59)
            await asyncio.sleep(0.05)
            assert (await it.status(sid))["state"] == "running"
            clock.advance(2)
            assert (await ended(it, sid))["reason"] == "disconnect"

    run(scenario())


def test_two_at_once_with_one_key_are_one_stream() -> None:
    """Two requests with one key at the same moment share one stream and one upstream call."""

    async def scenario() -> None:
        key = {"idempotency-key": "k-1"}
        async with house() as it:
            answers = await asyncio.gather(*(it.ask(key) for _ in range(5)))
            assert len({answer.body for answer in answers}) == 1
            assert len(it.up.requests) == 1
            assert sum("x-atlas-idempotent" in answer.headers for answer in answers) == 4

    run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_never_waits(stream: bool) -> None:
    """Fifty clients that hang up at once leave nothing behind: no stream, no socket, no task."""

    async def scenario() -> None:
        async with house(Plan(gate=Gate())) as it:

            async def rude() -> None:
                async with it.client() as client:
                    await client.send(client._request("POST", CHAT, {}, None, ask(stream=stream)))
                    client.reset()

            await asyncio.gather(*(rude() for _ in range(50)))
            await it.up.all_closed()
            await eventually(lambda: it.channels == 0 and it.atlas.connections == 0)
            assert (await it.call("GET", "/livez")).status == 200

    run(scenario())
