"""The official anthropic SDK before Atlas: whatever provider answers, it gets messages as Anthropic's own."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.e2e.house import House, house, run, sid_of
from tests.support.chaos import Gate, Plan, Tool, refusing
from tests.support.sse import data_frames, frames

ROUTE = "/v1/messages"
HI: Any = [{"role": "user", "content": "Say it."}]
TOOLS: Any = [{"name": name, "input_schema": {"type": "object"}} for name in ("add", "look")]
CALLS = (
    Tool(id="call_a", name="add", arguments='{"a": 1, "b": "zwei \\" } \\u2028"}'),
    Tool(id="call_b", name="look", arguments="{}"),
    Tool(id="call_c", name="add", arguments='{"a": {"b": [3]}}'),
)
ANTHROPIC: dict[str, Any] = {"kinds": ("anthropic",)}
OPENAI, CLAUDE = "chaos/any", "claude/any"


@asynccontextmanager
async def door(*plans: Plan, **sections: Any) -> AsyncIterator[tuple[House, AsyncAnthropic]]:
    """A house, and the SDK before it."""
    async with house(*plans, **sections) as it, client(it.atlas.base_url) as sdk:
        yield it, sdk


def client(base_url: str, **options: Any) -> AsyncAnthropic:
    """The official client, which does not retry by itself."""
    return AsyncAnthropic(**{"base_url": base_url, "api_key": "sk-caller", "max_retries": 0, **options})


def ask(model: str = OPENAI, **body: Any) -> dict[str, Any]:
    """The arguments of a request."""
    return {"model": model, "max_tokens": 1000, "messages": HI, **body}


def shown(message: Any) -> dict[str, Any]:
    """A message as plain data, without what each gateway names by itself."""
    data = dict(message.model_dump(exclude={"id", "model"}))
    for block in data["content"]:
        block.pop("parsed_output", None)
    return data


async def streamed(sdk: AsyncAnthropic, model: str, **body: Any) -> dict[str, Any]:
    """What the SDK's streaming helper accumulates."""
    async with sdk.messages.stream(**ask(model, **body)) as stream:
        return shown(await stream.get_final_message())


SAME: dict[str, tuple[Plan, dict[str, Any]]] = {
    "tools": (Plan(tokens=3, tools=CALLS), {"tools": TOOLS}),
    "refusal": (Plan(refusal=True), {}),
    "vendor's own": (Plan(extra_chunk={"told": 1}, extra_choice={"told": [2]}), {}),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_dialect(name: str) -> None:
    """Through Atlas the SDK gets from Anthropic exactly what it gets from it directly, streamed and not."""
    plan, body = SAME[name]

    async def scenario() -> None:
        async with door(plan, **ANTHROPIC) as (it, through), client(it.up.root_url) as direct:
            assert await streamed(through, CLAUDE, **body) == await streamed(direct, "any", **body)
            got = shown(await through.messages.create(**ask(CLAUDE, **body)))
            wanted = shown(await direct.messages.create(**ask("any", **body)))
            assert {**wanted, "content": got["content"]} == {**wanted, **got}
            assert [block["type"] for block in got["content"]] == [block["type"] for block in wanted["content"]]
            for block, other in zip(got["content"], wanted["content"], strict=True):
                assert {**block, **other} == block

    run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_openai_as_provider(stream: bool) -> None:
    """Text, thoughts, tool calls, stop reason and usage of an OpenAI-compatible provider are Anthropic's."""
    plan = Plan(tokens=6, reasoning=4, tools=CALLS, usage="always", cached=2)

    async def scenario() -> None:
        async with door(plan) as (it, sdk):
            body = {"tools": TOOLS, "system": "Be brief.", "stop_sequences": ["END"]}
            if stream:
                message = await streamed(sdk, OPENAI, **body)
            else:
                message = shown(await sdk.messages.create(**ask(OPENAI, **body)))
            assert [block["type"] for block in message["content"]] == ["thinking", "text", *["tool_use"] * 3]
            assert message["content"][0]["thinking"] == plan.reasoning_text()
            assert message["content"][1]["text"] == plan.text()
            for block, call in zip(message["content"][2:], CALLS, strict=True):
                assert (block["id"], block["name"], block["input"]) == (call.id, call.name, json.loads(call.arguments))
            assert message["stop_reason"] == "tool_use"
            usage = message["usage"]
            assert usage["cache_read_input_tokens"] == 2
            assert usage["output_tokens"] > 0
            sent = it.up.last.json
            assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
            assert sent["stop"] == ["END"]
            assert [tool["function"]["name"] for tool in sent["tools"]] == ["add", "look"]

    run(scenario())


def test_tool_results_go_back() -> None:
    """A conversation with a call and its result reaches an OpenAI-compatible provider turn by turn."""

    async def scenario() -> None:
        async with door(Plan()) as (it, sdk):
            turns: Any = [
                *HI,
                {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "add", "input": {"b": 1}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "2"}]},
            ]
            await sdk.messages.create(**ask(messages=turns, tools=TOOLS))
            sent = it.up.last.json["messages"]
            assert [turn["role"] for turn in sent] == ["user", "assistant", "tool"]
            assert (sent[2]["tool_call_id"], sent[2]["content"]) == ("a", "2")
            assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == {"b": 1}

    run(scenario())


def test_headers_and_unknown_members_reach_anthropic() -> None:
    """Version and beta headers, and members that nobody here knows, go on to a provider of the same dialect."""

    async def scenario() -> None:
        async with door(Plan(), **ANTHROPIC) as (it, sdk):
            headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "a-2026,b-2026"}
            body = {"a_new_one": {"x": [1]}, "metadata": {"user_id": "u"}, "top_k": 3}
            await sdk.messages.create(**ask(CLAUDE), extra_headers=headers, extra_body=body)
            received = it.up.last
            assert headers.items() <= received.headers.items()
            assert body.items() <= received.json.items()

    run(scenario())


def test_untranslatable_is_refused_by_name() -> None:
    """What an OpenAI-compatible provider cannot be asked is a 400 that names the member."""

    async def scenario() -> None:
        async with door(Plan()) as (it, sdk):
            search: Any = [{"type": "web_search_20260318", "name": "web_search"}]
            with pytest.raises(anthropic.BadRequestError) as caught:
                await sdk.messages.create(**ask(tools=search))
            error: Any = caught.value.body
            assert error["error"]["param"] == "tools.0"
            assert not it.up.requests

    run(scenario())


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("nowhere", anthropic.NotFoundError),
        ("mock-400", anthropic.BadRequestError),
        ("mock-429", anthropic.RateLimitError),
        ("mock-503", anthropic.OverloadedError),
        ("mock-500", anthropic.InternalServerError),
        ("mock-401", anthropic.InternalServerError),
        ("mock-413", anthropic.ContentTooLargeError),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_errors_are_the_sdks_own(model: str, kind: type[anthropic.APIStatusError], stream: bool) -> None:
    """Whatever fails before the first content is raised by the SDK as the right class, in Anthropic's shape."""

    async def scenario() -> None:
        async with door() as (_, sdk):
            with pytest.raises(kind) as caught:
                await sdk.messages.create(**ask(model, stream=stream))
            error = caught.value
            body: Any = error.body
            assert type(error) is kind
            assert body["type"] == "error"
            assert {"type", "message"} <= set(body["error"])
            assert error.request_id == body["request_id"] == error.response.headers["x-request-id"]

    run(scenario())


async def _drained(stream: Any, seen: Counter[str]) -> None:
    """Read to the end; `seen` counts the events by type also when the stream fails."""
    async for event in stream:
        seen[event.type] += 1


def test_errors_in_the_stream() -> None:
    """A provider that breaks off in the middle is an error event, which the SDK raises; no end of a message follows."""

    async def scenario() -> None:
        async with door() as (it, sdk):
            stream: Any = await sdk.messages.create(**ask("mock-fast-cut-5", stream=True))
            seen: Counter[str] = Counter()
            with pytest.raises(anthropic.APIStatusError):
                await _drained(stream, seen)
            assert seen["content_block_delta"] == 5
            answer = await it.call("POST", ROUTE, json=ask("mock-fast-cut-5", stream=True))
            kinds = [frame.event for frame in data_frames(answer.body)]
            assert kinds[-1] == "error"
            assert "message_stop" not in kinds

    run(scenario())


def test_retries_of_the_sdk_are_told_when() -> None:
    """The SDK retries what may be retried, as it is told, and what may not at most never."""

    async def scenario() -> None:
        async with door(Plan()) as (it, _), client(it.atlas.base_url, max_retries=2) as sdk:
            it.up.script = [refusing(401)]
            with pytest.raises(anthropic.InternalServerError):
                await sdk.messages.create(**ask())
            assert len(it.up.requests) == 1

    run(scenario())


def test_sync_client() -> None:
    """The synchronous client streams text and finds the message whole."""

    def talk(base_url: str) -> None:
        with (
            Anthropic(base_url=base_url, api_key="x", max_retries=0) as sdk,
            sdk.messages.stream(**ask("mock-fast-20")) as stream,
        ):
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
            assert message.content[0].text == text  # type: ignore[union-attr]
            assert message.usage.output_tokens == 20
            assert message.stop_reason == "end_turn"

    async def scenario() -> None:
        async with house() as it:
            await asyncio.to_thread(talk, it.atlas.base_url)

    run(scenario())


def test_tool_runner_of_the_sdk() -> None:
    """The SDK's own loop of tool calls and results comes to its end."""

    async def scenario() -> None:
        async with door() as (_, sdk):

            @anthropic.beta_async_tool
            async def get_weather(city: str) -> str:
                """Look out of the window.

                Args:
                    city: where
                """
                return f"rain in {city}"

            runner = sdk.beta.messages.tool_runner(**ask("mock-fast-tools"), tools=[get_weather])
            last = await runner.until_done()
            assert last.stop_reason == "end_turn"

    run(scenario())


def test_control() -> None:
    """A stream of messages is paused, resumed, read again as it was, and cancelled with an error event."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=8, gate=gate)) as it, it.client() as raw:
            gate.allow(6)
            answer = await raw.stream("POST", ROUTE, None, json=ask(stream=True))
            sid = sid_of(answer)
            assert (await it.control(sid, "pause")).json["changed"]
            gate.open()
            assert (await it.control(sid, "resume")).json["changed"]
            live = await answer.read()
            again = await it.native(sid, "?format=wire")
            assert data_frames(again.body) == data_frames(live)
            assert data_frames(live)[-1].event == "message_stop"
            skipped = await it.native(sid, "?format=wire&skip_events=3")
            assert data_frames(skipped.body) == data_frames(live)[3:]

    run(scenario())


@pytest.mark.parametrize("finish", [True, False])
def test_cancel(finish: bool) -> None:
    """A cancelled stream ends with an error event, or as if it were whole, if its caller asked for that."""

    async def scenario() -> None:
        headers = {"x-atlas-on-cancel": "finish"} if finish else {}
        async with house() as it, it.client() as raw:
            answer = await raw.stream("POST", ROUTE, headers, json=ask("mock-slow", stream=True))
            await it.control(sid_of(answer), "cancel")
            kinds = [frame.event for frame in data_frames(await answer.read())]
            assert kinds[-1] == ("message_stop" if finish else "error")
            assert ("message_delta" in kinds) is finish

    run(scenario())


def test_pings() -> None:
    """While a stream is silent after its beginning, it is kept open by Anthropic's own ping."""

    async def scenario() -> None:
        gate = Gate()
        quick = {"server": {"heartbeat_s": 0.05}, "streams": {"tick_s": 0.02}}
        async with house(Plan(gate=gate), **quick) as it, it.client() as raw:
            gate.allow(3)
            answer = await raw.stream("POST", ROUTE, None, json=ask(stream=True))
            await answer.until(b"event: ping")
            gate.open()
            found = frames(await answer.read())
            assert {frame.data for frame in found if frame.event == "ping"} == {'{"type": "ping"}'}
            assert found[0].event == "message_start"

    run(scenario())


def test_counting() -> None:
    """Tokens are counted by a provider that can, else by estimate, and the answer says which."""

    async def scenario() -> None:
        async with door(Plan(), kinds=("anthropic", "openai_chat")) as (it, sdk):
            counted = await sdk.messages.with_raw_response.count_tokens(model=CLAUDE, messages=HI)
            assert "x-atlas-estimated" not in counted.headers
            assert len(it.up.others) == 1
            estimated = await sdk.messages.with_raw_response.count_tokens(model=OPENAI, messages=HI, tools=TOOLS)
            assert estimated.headers["x-atlas-estimated"] == "true"
            assert (await estimated.parse()).input_tokens > 5
            with pytest.raises(anthropic.NotFoundError):
                await sdk.messages.count_tokens(model="nowhere", messages=HI)
            assert not it.up.requests

    run(scenario())


def test_models() -> None:
    """Models are listed page by page for who sends a version, and as OpenAI lists them for everybody else."""

    async def scenario() -> None:
        async with door() as (it, sdk):
            names = [model.id async for model in sdk.models.list(limit=3)]
            plain = (await it.call("GET", "/v1/models")).json
            assert names == [model["id"] for model in plain["data"]]
            assert (await sdk.models.retrieve("mock")).display_name == "mock"
            with pytest.raises(anthropic.NotFoundError):
                await sdk.models.retrieve("nowhere")
            with pytest.raises(anthropic.BadRequestError):
                await sdk.models.list(after_id="nowhere")
            assert (await sdk.models.list(before_id=names[2], limit=1)).data[0].id == names[1]

    run(scenario())


def test_how_claude_code_comes() -> None:
    """Probes of the root, the beta query and the old credential header are answered."""

    async def scenario() -> None:
        async with house() as it:
            assert (await it.call("HEAD", "/")).status == 200
            headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
            answer = await it.call("POST", ROUTE + "?beta=true", headers, json=ask("mock-fast-5", temperature=1))
            assert answer.status == 200
            assert answer.headers["request-id"] == answer.headers["x-request-id"]

    run(scenario())
