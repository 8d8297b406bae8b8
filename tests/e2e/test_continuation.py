"""An answer that breaks off goes on elsewhere, and the client sees one."""

import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic

from gateway.app import create
from tests.e2e.house import MESSAGES, MODEL, House, house, run, sid_of
from tests.e2e.test_control import ended
from tests.e2e.test_pool import unlike
from tests.support.baseline import baseline
from tests.support.chaos import (
    ANTHROPIC,
    OPENAI,
    ChaosProvider,
    Gate,
    Plan,
    Tool,
    body_of,
    event_of,
    refusing,
    tokens_seen,
)
from tests.support.fold import fold
from tests.support.server import AtlasServer, atlas_settings

TRUTH = Plan(tokens=20)
QUICK = {"tick_s": 0.02}


def how(continuation: str, **more: Any) -> dict[str, Any]:
    """Endpoints that go on so."""
    return {"continuation": continuation, **more}


async def streamed(it: House, headers: dict[str, str] | None = None, **body: Any) -> Any:
    """A streamed answer, folded, and its status object."""
    async with it.chat(headers, stream_options={"include_usage": True}, **body) as answer:
        folded = fold(await answer.read())
    return folded, await ended(it, sid_of(answer))


@pytest.mark.parametrize("way", ["continues", "echoes"])
def test_prefill(way: Any) -> None:
    """What broke off is gone on with by the next endpoint: one text, one id and one finish."""

    async def scenario() -> None:
        broken, good = TRUTH.with_(cut_at_byte=2000), TRUTH.with_(prefill=way)
        async with house(broken, good, endpoint=how("prefill"), streams=QUICK) as it:
            folded, shown = await streamed(it)
            assert (folded.text, folded.finish, folded.done, len(folded.ids)) == (TRUTH.text(), "stop", True, 1)
            assert shown["state"] == "completed"
            assert [leg["strategy"] for leg in shown["legs"]] == ["priority", "prefill"]
            assert shown["attempts"] == ["up: ok, then stream_broken", "up2: ok"]
            asked = it.ups[1].last.json["messages"]
            assert asked[-1]["role"] == "assistant"
            assert TRUTH.text().startswith(asked[-1]["content"])

    run(scenario())


@pytest.mark.parametrize("way", ["prefill", "replay"])
def test_the_finish_is_the_clients_word(way: str) -> None:
    """An answer that another vendor's endpoint goes on with ends with a reason of the client's dialect."""

    async def scenario() -> None:
        good = TRUTH.with_(prefill="continues") if way == "prefill" else TRUTH
        ways = {"kinds": ("anthropic",), "endpoint": how(way), "streams": QUICK}
        async with house(TRUTH.with_(cut_at_byte=2000), good, **ways) as it:
            folded, _ = await streamed(it, model="claude/any")
            assert (folded.text, folded.finish, folded.done) == (TRUTH.text(), "stop", True)

    run(scenario())


FULL = os.environ.get("ATLAS_CHAOS") == "full"
FLAVOURS = {"fin": "cut_at_byte", "rst": "reset_at_byte"}
# How the providers behave, and what their endpoints are configured to do.
MODES: dict[str, tuple[Plan, dict[str, Any]]] = {
    "none": (TRUTH, {}),
    "replay": (TRUTH, {"continuation": "replay"}),
    "prefill": (TRUTH.with_(prefill="continues"), {"continuation": "prefill"}),
    "echo": (TRUTH.with_(prefill="echoes"), {"continuation": "prefill", "preset": "mistral"}),
}
ASKED = {"stream": True, "stream_options": {"include_usage": True}}


def boundaries(wire: Any) -> list[int]:
    """Where the body is cut: a sample of the ends of frames, a byte before and behind; if all is asked, any byte."""
    body = body_of(TRUTH, ASKED, wire)
    if FULL:
        return list(range(len(body)))
    ends = [at + 2 for at in range(len(body)) if body.startswith(b"\n\n", at)]
    places = sorted({at + by for at in (0, *ends) for by in (-1, 0, 1) if 0 <= at + by < len(body)})
    return sorted(random.Random(6).sample(places, 12))


@pytest.mark.parametrize("fault", FLAVOURS)
@pytest.mark.parametrize("mode", MODES)
def test_cut_anywhere_seen_by_openais_sdk(mode: str, fault: str) -> None:
    """Wherever an answer is cut, the stock SDK sees a prefix of the truth and an error, or all of it and an end."""
    good, endpoint = MODES[mode]

    async def scenario() -> None:
        async with house(good, good, endpoint=endpoint, streams=QUICK) as it, it.sdk() as client:
            for at in boundaries(OPENAI):
                it.up.script = [TRUTH.with_(**{FLAVOURS[fault]: at})]
                told, finish, broken = "", None, False
                try:
                    stream: Any = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
                    async for chunk in stream:
                        told += chunk.choices[0].delta.content or "" if chunk.choices else ""
                        finish = chunk.choices[0].finish_reason or finish if chunk.choices else finish
                except openai.APIError:
                    broken = True
                judge(told, whole=not broken, at=at, mode=mode)
                assert broken or finish == "stop"
            await judge_logs(it)

    run(scenario(), timeout=600)


@pytest.mark.parametrize("fault", FLAVOURS)
@pytest.mark.parametrize("mode", sorted(MODES.keys() - {"echo"}))
def test_cut_anywhere_seen_by_anthropics_sdk(mode: str, fault: str) -> None:
    """The same in the other dialect: one message of one text block, whoever wrote it."""
    good, endpoint = MODES[mode]

    async def scenario() -> None:
        ways = {"kinds": ("anthropic",), "endpoint": endpoint, "streams": QUICK}
        async with house(good, good, **ways) as it, anthropic_sdk(it) as client:
            for at in boundaries(ANTHROPIC):
                it.up.script = [TRUTH.with_(**{FLAVOURS[fault]: at})]
                told, broken = "", False
                try:
                    asked = {"model": "claude/any", "messages": MESSAGES, "max_tokens": 999}
                    async with client.messages.stream(**asked) as stream:
                        async for text in stream.text_stream:
                            told += text
                        message = await stream.get_final_message()
                    assert ["".join(block.text for block in message.content)] == [
                        block.text for block in message.content
                    ]
                    assert message.stop_reason == "end_turn"
                except anthropic.APIError:
                    broken = True
                judge(told, whole=not broken, at=at, mode=mode)
            await judge_logs(it)

    run(scenario(), timeout=600)


def anthropic_sdk(it: House) -> AsyncAnthropic:
    """The official client, which does not retry by itself."""
    return AsyncAnthropic(base_url=it.atlas.base_url, api_key="sk-caller", max_retries=0)


def judge(told: str, *, whole: bool, at: int, mode: str) -> None:
    """What a client was told, against the truth."""
    assert TRUTH.text().startswith(told), at
    assert not whole or told == TRUTH.text(), at
    assert whole or mode == "none", f"cut at byte {at} was not gone on with"


async def judge_logs(it: House) -> None:
    """Each log has one end, at its end; nobody was asked more than three times; its text is a prefix of the truth."""
    listed = (await it.call("GET", "/v1/streams?limit=100")).json["data"]
    for each in listed:
        shown = await ended(it, each["id"])
        assert len(shown["attempts"]) <= 3
        events = native_events((await it.native(each["id"])).body)
        assert [kind for kind, _ in events].count("end") == 1
        assert events[-1][0] == "end"
        text = "".join(data["text"] for kind, data in events if kind == "text")
        assert TRUTH.text().startswith(text)
        assert (text == TRUTH.text()) or shown["state"] == "failed"
        assert (await it.call("GET", f"/v1/streams/{each['id']}/text")).json["text"] == text


def native_events(body: bytes) -> list[tuple[str, Any]]:
    """Kind and data of each event in Atlas's own format."""
    found: list[tuple[str, Any]] = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_usage_is_that_of_one_answer_and_every_leg_is_billed() -> None:
    """A client pays attention to one prompt and one answer; the rows hold what each leg took."""

    async def scenario() -> None:
        rows: list[Any] = []
        broken = TRUTH.with_(cut_at_byte=body_of(TRUTH, ASKED).index(b"\n\n", 2000) + 2)
        async with rows_of(rows, broken, TRUTH.with_(prefill="continues"), continuation="prefill") as it:
            folded, _ = await streamed(it)
            first, second = rows
            assert folded.usage is not None
            assert (first.leg, first.end, second.leg, second.end) == (1, "replaced", 2, "completed")
            assert second.usage.input_tokens == 20  # ten a message, and the open turn is one
            assert second.usage.output_tokens < 20
            assert not second.usage.estimated
            shown = folded.usage
            assert shown["prompt_tokens"] == first.usage.input_tokens
            assert abs(shown["completion_tokens"] - 20) <= 10  # the first leg's part is estimated
            rows.clear()
        async with rows_of(rows, broken, TRUTH, continuation="replay") as it:
            folded, _ = await streamed(it)
            assert folded.usage == {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
            assert rows[1].usage.output_tokens == 20

    run(scenario())


@asynccontextmanager
async def rows_of(rows: list[Any], *plans: Plan, **endpoint: Any) -> AsyncIterator[House]:
    """A house that tells its bills."""
    async with baseline():
        ups = [ChaosProvider(plan) for plan in plans]
        async with AsyncExitStack() as stack:
            for up in ups:
                await stack.enter_async_context(up)
            app = create(atlas_settings(*ups, endpoint=endpoint, streams=QUICK), on_settled=rows.append)
            atlas = await stack.enter_async_context(AtlasServer(app))
            yield House(app, atlas, ups)


def test_a_refused_continuation_never_replaces_the_original_error() -> None:
    """If the one that should go on answers 400, the client hears of the break, not of the 400."""

    async def scenario() -> None:
        broken = TRUTH.with_(cut_at_byte=2000)
        async with house(broken, TRUTH.with_(prefill="refuses"), endpoint=how("prefill"), streams=QUICK) as it:
            it.up.plans["any"] = broken.with_(prefill="refuses")
            folded, shown = await streamed(it)
            assert folded.error is not None
            assert (folded.error["code"], shown["reason"]) == ("stream_broken", "stream_broken")
            assert shown["attempts"][:2] == ["up: ok, then stream_broken", "up2: bad_request"]
            assert len(shown["attempts"]) <= 3
            assert tokens_seen(1, folded.text) > 0

    run(scenario())


def test_a_replay_that_differs_is_left() -> None:
    """At the first difference the replay stops; nothing of it is seen, and the original error is the end."""

    async def scenario() -> None:
        broken, other = TRUTH.with_(cut_at_byte=2000), Plan(tokens=500, seed=2, pace_s=0.005)
        async with house(broken, other, endpoint=how("replay"), streams=QUICK) as it:
            folded, shown = await streamed(it)
            assert (folded.done, shown["reason"]) == (False, "stream_broken")
            assert TRUTH.text().startswith(folded.text)
            await it.ups[1].last.gone()
            assert it.ups[1].last.tokens < 100
            assert [leg["strategy"] for leg in shown["legs"]] == ["priority", "replay"]

    run(scenario())


@pytest.mark.parametrize(
    ("level", "header", "continuation", "goes_on"),
    [
        ("safe", None, "prefill", True),
        ("safe", None, "instruct", False),
        ("safe", "continue", "instruct", False),
        ("continue", None, "instruct", True),
        ("continue", "safe", "instruct", False),
        ("continue", "off", "prefill", False),
        ("off", "continue", "prefill", False),
        ("off", None, "prefill", False),
    ],
)
def test_levels(level: str, header: str | None, continuation: str, goes_on: bool) -> None:
    """The caller's header lowers what the route lets be done, and never raises it."""

    async def scenario() -> None:
        broken, good = TRUTH.with_(cut_at_byte=2000), TRUTH.with_(prefill="continues", repeats=20)
        if continuation == "prefill":
            good = good.with_(repeats=0)
        settled = {"fallback": {"mid_stream": level}}
        async with house(broken, good, endpoint=how(continuation), route=settled, streams=QUICK) as it:
            folded, _ = await streamed(it, None if header is None else {"x-atlas-fallback": header})
            assert folded.done == goes_on
            assert not goes_on or folded.text == TRUTH.text()
            assert bool(it.ups[1].requests) == goes_on

    run(scenario())


def test_a_route_that_is_off_asks_nobody_else() -> None:
    """With `mid_stream: off` even what fails before content is not tried elsewhere."""

    async def scenario() -> None:
        async with house(refusing(401), Plan(), route={"fallback": {"mid_stream": False}}) as it:
            assert (await it.ask()).status == 502
            assert not it.ups[1].requests

    run(scenario())


def test_a_stall_moves_on() -> None:
    """An endpoint that falls silent behind content is left for one that goes on, before anybody's client gives up."""

    async def scenario() -> None:
        silent = TRUTH.with_(stall_at_event=8)
        hasty = how("prefill", timeouts={"idle_s": 0.2})
        good = TRUTH.with_(prefill="continues")
        async with unlike((silent, hasty), (good, how("prefill")), streams=QUICK) as it:
            folded, shown = await streamed(it)
            assert (folded.text, folded.done) == (TRUTH.text(), True)
            assert shown["attempts"] == ["up: ok, then timeout_idle", "up2: ok"]
            await it.up.last.gone()

    run(scenario())


def test_three_legs_at_most() -> None:
    """An answer that breaks again and again is given up after three attempts, with the first failure."""

    async def scenario() -> None:
        plans = [TRUTH.with_(cut_at_byte=at, prefill="continues") for at in (1200, 900, 900, 900)]
        async with house(*plans, endpoint=how("prefill"), streams=QUICK) as it:
            folded, shown = await streamed(it)
            assert folded.error is not None
            assert (folded.error["code"], len(shown["attempts"]), len(shown["legs"])) == ("stream_broken", 3, 3)
            assert tokens_seen_at_least(folded.text, 3)

    run(scenario())


def tokens_seen_at_least(text: str, n: int) -> bool:
    """Whether `text` is the truth so far, and has at least `n` tokens of it; it may end within one."""
    return TRUTH.text().startswith(text) and len(text) >= len(TRUTH.with_(tokens=n).text())


@pytest.mark.parametrize("kind", ["openai_chat", "anthropic"])
def test_not_streamed_is_begun_anew(kind: str) -> None:
    """What was asked for whole has delivered nothing until its end: a break is hidden by another endpoint's answer."""

    async def scenario() -> None:
        broken, other = TRUTH.with_(cut_at_byte=2000), Plan(tokens=9, seed=5)
        async with house(broken, other, kinds=("openai_chat", "anthropic"), streams=QUICK) as it:
            if kind == "openai_chat":
                answer = await it.ask()
                told = answer.json["choices"][0]["message"]["content"]
                assert answer.json["usage"]["completion_tokens"] == 9
            else:
                body = {"model": "claude/any", "messages": MESSAGES, "max_tokens": 99}
                answer = await it.call("POST", "/v1/messages", json=body)
                told = answer.json["content"][0]["text"]
                assert len(answer.json["content"]) == 1
            assert (answer.status, told) == (200, other.text())
            shown = await ended(it, sid_of(answer))
            assert [leg["strategy"] for leg in shown["legs"]] == ["priority", "restart"]
            assert (await it.call("GET", f"/v1/streams/{sid_of(answer)}/text")).json["text"] == other.text()
            wired = await it.call("GET", f"/v1/streams/{sid_of(answer)}/events?format=wire")
            assert b"begun anew" in wired.body
            assert not wired.body.endswith(b"[DONE]\n\n")

    run(scenario())


def test_atomic_tools() -> None:
    """A tool call that is cut in two is a failure before content: another endpoint's call is all that is seen."""

    async def scenario() -> None:
        calling = Plan(tokens=0, tools=(Tool(id="call_1", name="look", arguments='{"where": "over there"}'),))
        frames = body_of(calling, ASKED).split(b"\n\n")
        broken = calling.with_(cut_at_byte=len(b"\n\n".join(frames[: event_of(calling, "tool", 3)])))
        tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
        for delivery, done in (("atomic", True), ("stream", False)):
            settled = {"fallback": {"tool_delivery": delivery}}
            async with house(broken, calling, route=settled, streams=QUICK) as it:
                folded, shown = await streamed(it, tools=tools)
                assert folded.done == done
                if done:
                    assert folded.choices[0].tools[0].arguments == calling.tools[0].arguments
                    assert shown["attempts"] == ["up: stream_broken", "up: stream_broken", "up2: ok"]

    run(scenario())


def test_the_held_word_goes_out_in_time() -> None:
    """Half a word is held for fifty milliseconds, not for as long as its provider is silent."""

    async def scenario() -> None:
        gate = Gate()
        slow = TRUTH.with_(gate=gate)
        gate.allow(4)
        async with house(slow, TRUTH, endpoint=how("replay"), streams=QUICK) as it, it.chat() as answer:
            text = TRUTH.with_(tokens=3).text()
            seen = b""
            while fold(seen).text != text:
                seen += await answer.next()
            gate.open()
            assert fold(await answer.read()).text == TRUTH.text()

    run(scenario())
