"""The main job: pause, resume, cancel, re-read; seen at the client's socket and at the provider's."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain, pairwise
from typing import Any

import pytest

from gateway.core.principal import Principal
from gateway.dialects.openai_chat import parse
from gateway.pipeline import Options
from gateway.streams.lifecycle import Op, Step
from tests.e2e.house import House, ask, house, run, sid_of
from tests.support.chaos import Gate, Plan, tokens_seen
from tests.support.clock import ManualClock
from tests.support.fold import fold
from tests.support.http import Answer, RawStream
from tests.support.signals import eventually
from tests.support.sse import data_frames, frames

UNKNOWN = "str_" + "a" * 26
ENDED = {"completed", "incomplete", "cancelled", "failed"}


def native_text(raw: bytes) -> str:
    """The text of a native feed."""
    return "".join(frame.json["text"] for frame in data_frames(raw) if frame.event == "text")


def kinds(raw: bytes) -> list[str | None]:
    """The names of a native feed's events."""
    return [frame.event for frame in data_frames(raw)]


async def ended(it: House, sid: str) -> dict[str, Any]:
    """The status object once the stream is over and settled."""
    hub = it.app.services.pipeline.hub
    await eventually(lambda: hub.find(sid.removeprefix("str_")) is None, what=f"{sid} to be settled")
    return await it.status(sid)


async def finished(it: House, **body: Any) -> str:
    """The id of a stream that was read to its end."""
    async with it.chat(**body) as answer:
        await answer.read()
    await ended(it, sid_of(answer))
    return sid_of(answer)


@asynccontextmanager
async def held(it: House, gate: Gate, headers: dict[str, str] | None = None) -> AsyncIterator[RawStream]:
    """A stream that has said its first word and stands at the gate."""
    gate.allow(2)  # the role and the first text: the status line waits for it
    async with it.chat(headers) as answer:
        await answer.until_frames(2)
        yield answer


# --- pause and resume


def test_paused_stream_is_the_same_text() -> None:
    """Pausing and resuming a stream, over and over, changes not one character of what its client gets."""

    async def scenario() -> None:
        gate = Gate()
        plan = Plan(tokens=24, gate=gate)
        async with house(plan) as it, held(it, gate) as answer:
            for step in range(1, 6):
                assert (await it.control(sid_of(answer), "pause")).json["changed"] is True
                await gate.release(2)
                assert (await it.control(sid_of(answer), "resume")).json["changed"] is True
                await answer.until_frames(2 + 2 * step)
            gate.open()
            folded = fold(await answer.read())
            assert (folded.text, folded.finish, folded.done) == (plan.text(), "stop", True)
            assert len(folded.ids) == 1

    run(scenario())


def test_the_text_is_as_new_as_the_status() -> None:
    """A text asked for behind an acknowledged pause ends at it, although readers here have yet to hear of it."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=8, gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            journal = it.app.services.pipeline.journal  # as another replica does, whose hint is lost
            paused, _ = await journal.step(sid.removeprefix("str_"), Step(op=Op.PAUSE, op_id="there"))
            got = (await it.call("GET", f"/v1/streams/{sid}/text")).json
            assert got["seq"] == paused.seq == (await it.status(sid))["seq"]
            assert tokens_seen(1, got["text"]) == 1
            assert (await it.control(sid, "resume")).status == 200
            gate.open()
            assert fold(await answer.read()).done

    run(scenario())


def test_pause_goes_on_reading_the_provider() -> None:
    """While a stream is paused its client gets nothing, and the provider is read on to its end."""

    async def scenario() -> None:
        gate = Gate()
        plan = Plan(tokens=200, gate=gate)
        async with house(plan, server={"heartbeat_s": 0.02}, streams={"tick_s": 0.01}) as it:
            async with held(it, gate) as answer:
                sid, before = sid_of(answer), len(data_frames(bytes(answer.body)))
                seq = (await it.control(sid, "pause", reason="lunch")).json["seq"]
                gate.open()
                assert await it.up.last.answered() == "complete"  # the provider's own books
                assert it.up.last.tokens == 200
                heartbeats = bytes(answer.body).count(b": keep-alive")
                await answer.until(b": keep-alive\n\n" * 3)
                assert len(data_frames(bytes(answer.body))) == before
                assert bytes(answer.body).count(b": keep-alive") > heartbeats
                status = await it.status(sid)
                assert (status["state"], status["seq"], status["readers"]) == ("paused", seq, 1)
                assert status["paused_since"] == pytest.approx(status["created"], abs=10)
                held_text = (await it.call("GET", f"/v1/streams/{sid}/text")).json
                assert tokens_seen(1, held_text["text"]) == 1
                assert held_text["seq"] == seq
                assert (await it.control(sid, "resume")).status == 200
                assert fold(await answer.read()).text == plan.text()
            assert (await ended(it, sid))["state"] == "completed"

    run(scenario())


def test_nobody_is_served_behind_a_pause() -> None:
    """Every reader stands still at the pause, also one that comes while it lasts, and all go on with the resume."""

    async def scenario() -> None:
        gate = Gate()
        plan = Plan(tokens=40, gate=gate)
        async with house(plan) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            seq = (await it.control(sid, "pause")).json["seq"]
            await gate.release(10)
            async with it.read(f"/v1/streams/{sid}/events") as late:
                await late.until(b"event: pause")
                assert data_frames(bytes(late.body))[-1].id == f"{(await it.status(sid))['gen']}-{seq}"
                await it.control(sid, "resume")
                gate.open()
                assert native_text(await late.read()) == plan.text()
            assert fold(await answer.read()).text == plan.text()

    run(scenario())


def test_pause_of_an_answer_that_is_not_streamed() -> None:
    """An answer with stream:false waits through a pause like any reader, and is whole after it."""

    async def scenario() -> None:
        gate = Gate(3)
        plan = Plan(tokens=12, gate=gate)
        async with house(plan) as it, it.client() as client:
            asked = asyncio.ensure_future(client.request("POST", "/v1/chat/completions", json=ask(stream=False)))
            await it.up.received()
            await it.up.last.wrote(3)
            sid = (await it.call("GET", "/v1/streams")).json["data"][0]["id"]
            assert (await it.control(sid, "pause")).status == 200
            gate.open()
            assert await it.up.last.answered() == "complete"
            assert not asked.done()
            await it.control(sid, "resume")
            answer = await asked
            assert (answer.status, answer.json["choices"][0]["message"]["content"]) == (200, plan.text())

    run(scenario())


def test_pause_hold_bound_stops_reading() -> None:
    """At the pause's bound the provider is read no further; after the resume its answer is whole all the same."""

    async def scenario() -> None:
        gate, clock = Gate(), ManualClock()
        plan = Plan(tokens=60_000, tokens_per_event=20, gate=gate)
        bounds = {"pause_hold_bytes": 4096, "tick_s": 0.01}
        async with house(plan, clock=clock, streams=bounds) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            await it.control(sid, "pause")
            gate.open()
            session = it.app.services.pipeline.hub.sessions()[0]
            await eventually(lambda: session._room is not None, what="the bound")  # type: ignore[attr-defined]
            assert it.up.last.outcome == "open"
            clock.advance(600)  # nobody reads the provider, so it is not silent
            await asyncio.sleep(0.05)  # several looks of the housekeeper
            await it.control(sid, "resume")
            assert fold(await answer.read()).text == plan.text()

    run(scenario())


def test_pause_expires() -> None:
    """A pause that nobody ends is ended by the gateway: cancelled by default, and the provider's socket closed."""

    async def scenario() -> None:
        gate, clock = Gate(), ManualClock()
        async with house(Plan(gate=gate), clock=clock, streams={"tick_s": 0.01}) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            await it.control(sid, "pause")
            clock.advance(901)
            assert (fold(await answer.read()).error or {})["code"] == "stream_cancelled"
            await it.up.last.gone()
            assert (await ended(it, sid))["reason"] == "pause_expired"

    run(scenario())


# --- re-reading


@pytest.mark.parametrize("how", ["header", "query", "bare"])
def test_reread_from_the_middle(how: str) -> None:
    """A native re-read from any event's id gives exactly the events behind it, no more, no fewer, no others."""

    async def scenario() -> None:
        async with house(Plan(tokens=12)) as it:
            sid = await finished(it)
            whole = await it.native(sid)
            assert whole.headers["content-type"] == "text/event-stream; charset=utf-8"
            events = data_frames(whole.body)
            for at in (0, 1, len(events) // 2, len(events) - 2):
                cursor = events[at].id or ""
                match how:
                    case "header":  # it wins over the query
                        rest = await it.native(sid, "?after=0", {"last-event-id": cursor})
                    case "query":
                        rest = await it.native(sid, f"?after={cursor}")
                    case _:
                        rest = await it.native(sid, f"?after={cursor.partition('-')[2]}")
                assert data_frames(rest.body) == events[at + 1 :]

    run(scenario())


def test_native_feed_is_dense_and_ends_once() -> None:
    """Native ids count from 0 without a gap, generations never fall, and there is one end event, the last."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=10, gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            for _ in range(3):
                await it.control(sid, "pause")
                await gate.release(1)
                await it.control(sid, "resume")
            gate.open()
            await answer.read()
            events = data_frames((await it.native(sid)).body)
            ids = [tuple(map(int, (event.id or "").split("-"))) for event in events]
            assert [seq for _, seq in ids] == list(range(len(ids)))
            assert [gen for gen, _ in ids] == sorted(gen for gen, _ in ids)
            names = [event.event for event in events]
            assert (names[0], names[-1], names.count("end")) == ("start", "end", 1)
            assert (names.count("pause"), names.count("resume")) == (3, 3)
            start, end = events[0].json, events[-1].json
            assert (start["id"], start["model"], start["dialect"]) == (sid, "chaos/any", "openai_chat")
            assert (end["state"], end["usage"]["output_tokens"], end["legs"]) == ("completed", 10, 1)

    run(scenario())


def test_three_readers_see_the_same() -> None:
    """However many read a stream, at whatever moment they came, all of them get the same bytes."""

    async def scenario() -> None:
        gate = Gate()
        plan = Plan(tokens=30, gate=gate)
        async with house(plan) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            async with (
                it.read(f"/v1/streams/{sid}/events?format=wire") as early,
                it.read(f"/v1/streams/{sid}/events") as native,
            ):
                await gate.release(10)
                async with it.read(f"/v1/streams/{sid}/events?format=wire") as late:
                    gate.open()
                    created, *replays = [await reader.read() for reader in (answer, early, late)]
                    assert replays == [created, created]
                    assert native_text(await native.read()) == plan.text() == fold(created).text
            assert (await ended(it, sid))["metrics"]["readers_max"] == 4

    run(scenario())


@pytest.mark.parametrize(
    "plan",
    [
        Plan(tokens=9, reasoning=3),
        Plan(choices=2, usage="every"),
        Plan(error_event_at=(5, {"error": {"message": "overheated", "code": "server_error"}})),
        Plan(extra_chunk={"system_fingerprint": "fp_1"}, finish_with_last=True),
    ],
    ids=["reasoning", "choices", "failed", "extras"],
)
def test_wire_replay_is_the_live_bytes(plan: Plan) -> None:
    """`format=wire` replays a stream byte for byte as its creator got it; `skip_events` leaves out that many frames."""

    async def scenario() -> None:
        async with house(plan) as it, it.chat(stream_options={"include_usage": True}) as answer:
            live = await answer.read()
            sid = sid_of(answer)
            assert (await it.native(sid, "?format=wire")).body == live
            blocks = [block + b"\n\n" for block in live.split(b"\n\n")[:-1]]
            for n in (1, 3, len(blocks) - 1, len(blocks)):
                rest = await it.native(sid, f"?format=wire&skip_events={n}")
                assert rest.body == b"".join(blocks[n:])

    run(scenario())


def test_text_route() -> None:
    """The text route gives each choice's text so far, and in the end all of it, with the seq that it reaches to."""

    async def scenario() -> None:
        gate = Gate()
        plan = Plan(tokens=10, choices=2, gate=gate)
        async with house(plan) as it:
            gate.allow(5)  # two roles, three texts
            async with it.chat(n=2) as answer:
                sid = sid_of(answer)
                await answer.until_frames(5)
                so_far = (await it.call("GET", f"/v1/streams/{sid}/text")).json
                assert tokens_seen(1, so_far["text"]) == 2
                assert (so_far["id"], so_far["object"], so_far["choice"]) == (sid, "stream.text", 0)
                gate.open()
                await answer.read()
            status = await ended(it, sid)
            for choice in (0, 1):
                got = (await it.call("GET", f"/v1/streams/{sid}/text?choice={choice}")).json
                assert (got["text"], got["seq"]) == (plan.text(choice), status["seq"])

    run(scenario())


def test_attach_to_an_ended_stream() -> None:
    """An ended stream is replayed to its end and closed; at its end there is nothing, which is 204."""

    async def scenario() -> None:
        async with house() as it:
            sid = await finished(it)
            whole = await it.native(sid)
            assert kinds(whole.body)[-1] == "end"
            last = data_frames(whole.body)[-1].id
            for query in (f"?after={last}", "?after=now"):
                assert (await it.native(sid, query)).status == 204

    run(scenario())


def test_now_begins_at_the_end() -> None:
    """A reader that asks for `now` gets only what comes after it."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=10, gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            async with it.read(f"/v1/streams/{sid}/events?after=now") as reader:
                gate.open()
                text = native_text(await reader.read())
                assert Plan(tokens=10).text() == Plan(tokens=1).text() + text

    run(scenario())


@pytest.mark.parametrize(
    ("query", "status", "code", "param"),
    [
        ("?after=99", 409, "cursor_ahead", None),
        ("?after=1-1", 409, "cursor_ahead", None),
        ("?after=last", 400, "bad_cursor", "after"),
        ("?after=-1", 400, "bad_cursor", "after"),
        ("?after=", 400, "bad_cursor", "after"),
        ("?after=%D9%A3", 400, "bad_cursor", "after"),  # a digit, but not one of ours
        ("?after=3&format=wire", 400, "bad_cursor", "after"),
        ("?skip_events=3", 400, "bad_cursor", "skip_events"),
        ("?skip_events=-3&format=wire", 400, "invalid_value", "skip_events"),
        ("?format=xml", 400, "invalid_value", "format"),
        ("?from=3", 400, "unknown_parameter", "from"),
        ("?after=1&after=5", 400, "repeated_parameter", "after"),
        ("?format=wire&format=wire", 400, "repeated_parameter", "format"),
    ],
)
def test_bad_cursors(query: str, status: int, code: str, param: str | None) -> None:
    """A cursor that is none, or is not of this log, is refused with its reason, never taken for the beginning."""

    async def scenario() -> None:
        async with house() as it:
            sid = await finished(it)
            answer = await it.native(sid, query)
            error = answer.json["error"]
            assert (answer.status, error["code"], error["param"]) == (status, code, param)
            if status == 409:
                assert answer.json["stream"]["id"] == sid
                assert error["last_seq"] <= answer.json["stream"]["seq"]

    run(scenario())


# --- cancel


def test_cancel_closes_the_providers_socket() -> None:
    """A cancel that says `closed` has closed the provider's socket, and every reader gets the terminal at once."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=100, gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            async with (
                it.read(f"/v1/streams/{sid}/events?format=wire") as wire,
                it.read(f"/v1/streams/{sid}/events") as native,
            ):
                said = await it.control(sid, "cancel", reason="enough")
                assert (said.status, said.json["changed"], said.json["upstream"]) == (200, True, "closed")
                await it.up.last.gone()
                assert (it.up.last.outcome, it.up.last.closed_by) == ("left", "peer")
                for reader in (answer, wire):
                    folded = fold(await reader.read())
                    assert (folded.done, folded.finish, tokens_seen(1, folded.text)) == (False, None, 1)
                    assert (folded.error or {})["code"] == "stream_cancelled"
                    assert "enough" in (folded.error or {})["message"]
                last = data_frames(await native.read())[-1]
                assert (last.event, last.json["state"], last.json["reason"]) == ("end", "cancelled", "enough")
            status = await ended(it, sid)
            assert (status["state"], status["reason"], status["seq"]) == ("cancelled", "enough", said.json["seq"])

    run(scenario())


def test_cancel_without_waiting() -> None:
    """A cancel that does not wait says `closing` with 202 unless it knows better; asked again, it says `closed`."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(gate=gate)) as it, held(it, gate) as answer:
            said = await it.control(sid_of(answer), "cancel", wait_s=0)
            assert (said.status, said.json["upstream"]) in {(202, "closing"), (200, "closed")}
            assert said.json["stream"]["state"] == "cancelled"
            again = await it.control(sid_of(answer), "cancel")
            assert (again.status, again.json["upstream"], again.json["changed"]) == (200, "closed", False)
            await it.up.last.gone()

    run(scenario())


@pytest.mark.parametrize("before_content", [False, True])
@pytest.mark.parametrize("stream", [True, False])
def test_cancel_can_finish(stream: bool, before_content: bool) -> None:
    """With `x-atlas-on-cancel: finish` a cancelled answer is a proper one that stops early, content or not."""

    async def scenario() -> None:
        gate = Gate(0 if before_content else 3)
        async with house(Plan(tokens=100, gate=gate)) as it, it.client() as client:
            body = ask(stream=stream, stream_options={"include_usage": True})
            headers = {"x-atlas-on-cancel": "finish"}
            asked = asyncio.ensure_future(client.request("POST", "/v1/chat/completions", headers, json=body))
            await (await it.up.received()).wrote(0 if before_content else 3)
            sid = (await it.call("GET", "/v1/streams")).json["data"][0]["id"]
            if not before_content:
                await eventually_served(it, sid, tokens=2)
            assert (await it.control(sid, "cancel")).status == 200
            answer = await asked
            assert answer.status == 200
            if stream:
                folded = fold(answer.body)
                assert (folded.finish, folded.done, folded.error) == ("stop", True, None)
                assert folded.usage is not None
                text = folded.text
            else:
                choice = answer.json["choices"][0]
                assert choice["finish_reason"] == "stop"
                text = choice["message"]["content"] or ""
            assert tokens_seen(1, text) == (0 if before_content else 2)

    run(scenario())


async def eventually_served(it: House, sid: str, tokens: int) -> None:
    """Returns when so many tokens are in the log."""
    for _ in range(2000):
        if tokens_seen(1, (await it.call("GET", f"/v1/streams/{sid}/text")).json["text"]) >= tokens:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the log does not grow")


@pytest.mark.parametrize("stream", [True, False])
def test_cancel_before_content(stream: bool) -> None:
    """A stream that is cancelled before its status line went out is answered 409, and not to be retried."""

    async def scenario() -> None:
        async with house(Plan(gate=Gate())) as it, it.client() as client:
            asked = asyncio.ensure_future(client.request("POST", "/v1/chat/completions", json=ask(stream=stream)))
            await it.up.received()
            sid = (await it.call("GET", "/v1/streams")).json["data"][0]["id"]
            assert (await it.control(sid, "cancel")).json["upstream"] == "closed"
            answer = await asked
            assert (answer.status, answer.json["error"]["code"]) == (409, "stream_cancelled")
            assert answer.headers["x-should-retry"] == "false"
            shown = answer.json["stream"]
            assert (sid_of(answer), shown["id"], shown["state"], shown["reason"]) == (sid, sid, "cancelled", "control")
            await it.up.last.gone()

    run(scenario())


def test_cancel_of_a_paused_stream() -> None:
    """What lay behind a pause when the stream was cancelled is never served, to nobody, from no cursor."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=40, gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            seq = (await it.control(sid, "pause")).json["seq"]
            await gate.release(10)
            channel = it.app.services.pipeline.hub.find(sid.removeprefix("str_"))
            await eventually(lambda: channel is not None and channel.tail > seq, what="the log to grow")
            said = await it.control(sid, "cancel")
            assert said.json["seq"] > seq + 1
            folded = fold(await answer.read())
            assert (tokens_seen(1, folded.text), (folded.error or {})["code"]) == (1, "stream_cancelled")
            for query in ("", f"?after={seq}", f"?after={seq + 1}"):
                replay = await it.native(sid, query)
                assert kinds(replay.body)[-1] == "end"
                assert tokens_seen(1, native_text(replay.body)) == (1 if query == "" else 0)
            assert (await it.call("GET", f"/v1/streams/{sid}/text")).json["text"] == folded.text
            assert (await it.native(sid, "?format=wire")).body == bytes(answer.body)

    run(scenario())


# --- the table of control answers


def test_control_of_a_running_and_a_paused_stream() -> None:
    """Running and paused streams answer control as the table says, with the status object and its ETag."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=5, gate=gate)) as it, held(it, gate) as answer:
            sid, gens = sid_of(answer), []
            for op, status, changed, state in (
                ("resume", 200, False, "running"),
                ("pause", 200, True, "paused"),
                ("pause", 200, False, "paused"),
                ("resume", 200, True, "running"),
                ("resume", 200, False, "running"),
                ("cancel", 200, True, "cancelled"),
                ("cancel", 200, False, "cancelled"),
            ):
                said = await it.control(sid, op)
                shown = said.json["stream"]
                assert (op, said.status, said.json["changed"], shown["state"]) == (op, status, changed, state)
                assert said.headers["etag"] == f'"{shown["gen"]}"'
                assert ("upstream" in said.json) == (op == "cancel")
                assert shown["id"] == sid
                gens.append((shown["gen"], changed))
            for (before, _), (after, changed) in pairwise(gens):
                assert (after > before) if changed else (after == before)
            for op in ("pause", "resume"):
                said = await it.control(sid, op)
                assert (said.status, said.json["error"]["code"]) == (409, "stream_terminal")
                assert said.json["stream"]["state"] == "cancelled"
                assert said.headers["x-should-retry"] == "false"

    run(scenario())


def test_ids_that_are_not_the_callers() -> None:
    """Unknown, foreign and malformed ids get the same answer, byte for byte, whatever is asked of them."""

    async def scenario() -> None:
        async with house() as it:
            raw = json.dumps(ask()).encode()
            opened = await it.app.services.pipeline.open(parse(raw), raw, Principal("somebody else"), Options())
            opened.reader.detach()
            foreign = "str_" + opened.sid
            bodies = set()
            for sid in (UNKNOWN, foreign, "str_x", foreign.upper(), foreign + "%0A", "%00"):
                for method, rest in (
                    ("GET", ""),
                    ("GET", "/events"),
                    ("GET", "/events?format=wire"),
                    ("GET", "/text"),
                    ("POST", "/pause"),
                    ("POST", "/resume"),
                    ("POST", "/cancel"),
                    ("DELETE", ""),
                    ("DELETE", "?force=1"),
                ):
                    answer = await it.call(method, f"/v1/streams/{sid}{rest}")
                    assert answer.status == 404, (method, rest, sid)
                    bodies.add(answer.body)
            assert len(bodies) == 1
            assert json.loads(bodies.pop())["error"]["code"] == "stream_not_found"
            assert (await it.call("GET", "/v1/streams")).json["data"] == []
            await it.up.last.answered()

    run(scenario())


def test_expired_log() -> None:
    """After its time a log is gone: 410 for whoever wants to read or control it, while its status still tells."""

    async def scenario() -> None:
        clock = ManualClock()
        async with house(clock=clock, streams={"tick_s": 0.01}) as it:
            sid = await finished(it)
            clock.advance(901)
            journal = it.app.services.pipeline.journal
            await eventually(lambda: journal.total_bytes == 0, what="the sweep")  # type: ignore[attr-defined]
            for method, rest in (
                ("GET", "/events"), ("GET", "/text"), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/cancel"),
            ):  # fmt: skip
                answer = await it.call(method, f"/v1/streams/{sid}{rest}")
                assert (answer.status, answer.json["error"]["code"]) == (410, "stream_expired"), (method, rest)
            status = await it.status(sid)
            assert (status["state"], status["resumable"]) == ("completed", False)
            assert (await it.call("DELETE", f"/v1/streams/{sid}")).status == 404
            clock.advance(86_401)
            await eventually(lambda: not journal._logs, what="the record's end")  # type: ignore[attr-defined]
            assert (await it.call("GET", f"/v1/streams/{sid}")).status == 404

    run(scenario())


def test_if_match() -> None:
    """A control call made on an old ETag is refused with 412 and changes nothing; one made on the current works."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            old = (await it.call("GET", f"/v1/streams/{sid}")).headers["etag"]
            new = (await it.control(sid, "pause", {"if-match": old})).headers["etag"]
            assert new != old
            for op in ("resume", "cancel"):
                said = await it.control(sid, op, {"if-match": old})
                assert (said.status, said.json["error"]["code"], said.json["stream"]["state"]) == (
                    412,
                    "stale",
                    "paused",
                )
            assert (await it.control(sid, "resume", {"if-match": new})).json["changed"] is True
            assert (await it.control(sid, "cancel", {"if-match": "*"})).json["changed"] is True
            said = await it.control(sid, "cancel", {"if-match": "tuesday"})
            assert (said.status, said.json["error"]["param"]) == (400, "If-Match")

    run(scenario())


def test_control_idempotency() -> None:
    """A repeated control call with its Idempotency-Key gets its first answer; the key means that operation only."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(gate=gate)) as it, held(it, gate) as answer:
            sid, key = sid_of(answer), {"idempotency-key": "once"}
            first = await it.control(sid, "pause", key)
            again = await it.control(sid, "pause", key)
            assert first.json["changed"] is again.json["changed"] is True
            assert first.json["seq"] == again.json["seq"]
            said = await it.control(sid, "resume", key)  # the same key with another operation is another request
            assert said.json["stream"]["state"] == "running"
            assert (await it.control(sid, "pause", key)).json["seq"] == first.json["seq"]
            assert (await it.status(sid))["state"] == "running"
            said = await it.control(sid, "cancel", key)
            assert (said.json["changed"], said.json["upstream"]) == (True, "closed")
            assert (await it.control(sid, "cancel", key)).json["changed"] is True
            said = await it.control(sid, "cancel", {"idempotency-key": "k" * 300})
            assert (said.status, said.json["error"]["param"]) == (400, "Idempotency-Key")

    run(scenario())


def test_delete() -> None:
    """A running stream is not deleted unless forced, which cancels it; a deleted one is unknown at once."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            refused = await it.call("DELETE", f"/v1/streams/{sid}")
            assert (refused.status, refused.json["error"]["code"]) == (409, "not_terminal")
            assert (await it.call("DELETE", f"/v1/streams/{sid}?force=1")).status == 204
            await it.up.last.gone()
            assert (fold(await answer.read()).error or {})["code"] == "stream_cancelled"
            assert (await it.call("DELETE", f"/v1/streams/{sid}")).status == 404
            gate.open()
            done = await finished(it)
            deleted = await it.call("DELETE", f"/v1/streams/{done}")
            assert (deleted.status, deleted.body) == (204, b"")
            for method, rest in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
                assert (await it.call(method, f"/v1/streams/{done}{rest}")).status == 404
            assert (await it.call("GET", "/v1/streams")).json["data"] == []

    run(scenario())


def test_listing() -> None:
    """The listing shows the newest first, in pages, by state, and what it pages through is complete."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(), Plan()) as it:
            it.up.plans["held"] = Plan(gate=gate)
            ids = [await finished(it) for _ in range(5)]
            gate.allow(2)
            async with it.chat(model="chaos/held") as answer:
                ids.append(sid_of(answer))
                pages, after = [], ""
                while True:
                    page = (await it.call("GET", f"/v1/streams?limit=2{after}")).json
                    assert page["object"] == "list"
                    pages.append([row["id"] for row in page["data"]])
                    after = f"&after={pages[-1][-1]}"
                    if not page["has_more"]:
                        break
                assert [len(page) for page in pages] == [2, 2, 2]
                assert list(chain(*pages)) == ids[::-1]
                running = (await it.call("GET", "/v1/streams?state=running")).json["data"]
                assert [row["id"] for row in running] == [ids[-1]]
                assert len((await it.call("GET", "/v1/streams?state=completed&limit=100")).json["data"]) == 5

    run(scenario())


# --- what our own routes refuse


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("GET", "/v1/streams?colour=red", None, "colour"),
        ("GET", "/v1/streams?limit=0", None, "limit"),
        ("GET", "/v1/streams?limit=ten", None, "limit"),
        ("GET", "/v1/streams?state=asleep", None, "state"),
        ("GET", "/v1/streams?after=yesterday", None, "after"),
        ("GET", "/v1/streams/{sid}?verbose=1", None, "verbose"),
        ("GET", "/v1/streams/{sid}/text?choice=-1", None, "choice"),
        ("GET", "/v1/streams/{sid}/text?all=1", None, "all"),
        ("POST", "/v1/streams/{sid}/pause?wait=1", None, "wait"),
        ("DELETE", "/v1/streams/{sid}?force=2", None, "force"),
        ("DELETE", "/v1/streams/{sid}?gently=1", None, "gently"),
        ("POST", "/v1/streams/{sid}/pause", {"why": "lunch"}, "why"),
        ("POST", "/v1/streams/{sid}/cancel", {"wait_s": 11}, "wait_s"),
        ("POST", "/v1/streams/{sid}/cancel", {"reason": 5}, "reason"),
        ("POST", "/v1/streams/{sid}/cancel", {"reason": "x" * 201}, "reason"),
        ("POST", "/v1/streams/{sid}/cancel", [], None),
    ],
)
def test_bad_requests_to_our_own_routes(method: str, path: str, body: Any, param: str | None) -> None:
    """Our own routes refuse what they do not know with a 400 that names it, and the stream is as it was."""

    async def scenario() -> None:
        async with house() as it:
            sid = await finished(it)
            answer: Answer = await it.call(method, path.format(sid=sid), json=body)
            error = answer.json["error"]
            assert (answer.status, error["type"]) == (400, "invalid_request_error"), answer
            assert error["param"] == param, error
            assert (await it.status(sid))["state"] == "completed"

    run(scenario())


def test_frames_are_the_grammar_of_the_dialect() -> None:
    """A chat stream carries data lines and comments, and nothing else that could confuse a stock client."""

    async def scenario() -> None:
        gate = Gate()
        async with (
            house(Plan(gate=gate), server={"heartbeat_s": 0.02}, streams={"tick_s": 0.01}) as it,
            held(it, gate) as answer,
        ):
            await it.control(sid_of(answer), "pause")
            await answer.until(b": keep-alive")
            await it.control(sid_of(answer), "resume")
            gate.open()
            for frame in frames(await answer.read()):
                assert (frame.id, frame.event, frame.retry) == (None, None, None)
                assert (frame.data is None) != (frame.comment is None)

    run(scenario())
