"""The official anthropic SDK as the judge: it accumulates through Atlas what it accumulates from the provider."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.e2e.house import House, house, run
from tests.support.chaos import ANTHROPIC, Plan, Tool, event_of, refusing

MODEL = "claude/any"
KINDS = ("openai_chat", "anthropic")
MESSAGES: Any = [{"role": "user", "content": "Say it."}]
TOOLS: Any = [{"name": "add", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}]
CALLS = (
    Tool(id="toolu_a", name="add", arguments='{"a": 1, "b": "zwei \\" \\u2028"}'),
    Tool(id="toolu_b", name="add", arguments="{}"),
)
ANSWERS: dict[str, tuple[Plan, dict[str, Any]]] = {
    "text": (Plan(tokens=60), {}),
    "length": (Plan(finish_reason="max_tokens"), {}),
    "a stop sequence": (Plan(finish_reason="stop_sequence"), {"stop_sequences": ["END"]}),
    "a pause": (Plan(finish_reason="pause_turn"), {}),
    "a refusal": (Plan(refusal=True), {}),
    "thinking": (Plan(reasoning=5), {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
    "one tool": (Plan(tokens=0, tools=CALLS[:1]), {"tools": TOOLS}),
    "thinking, text and tools": (Plan(reasoning=3, tokens=3, tools=CALLS), {"tools": TOOLS}),
    "a cached prompt": (Plan(cached=5), {"system": "Be brief."}),
    "usage at the end only": (Plan(usage="finish"), {}),
    "unknown members": (Plan(extra_chunk={"vendor": 1}, extra_choice={"x": "y"}), {}),
    "windows line ends": (Plan(newline="\r\n", comment=" hold on"), {}),
    "byte by byte": (Plan(chunking=1, tools=CALLS), {"tools": TOOLS}),
    "in one piece": (Plan(tokens=500, chunking="whole"), {}),
}


@asynccontextmanager
async def both(plan: Plan) -> AsyncIterator[tuple[House, AsyncAnthropic, AsyncAnthropic]]:
    """The SDK before Atlas, and before the provider itself."""
    async with house(plan, kinds=KINDS) as it, sdk(it.atlas.base_url) as through, sdk(it.up.root_url) as direct:
        yield it, through, direct


def sdk(base_url: str) -> AsyncAnthropic:
    """The official client, which does not retry by itself; enter it, or its sockets are left."""
    return AsyncAnthropic(base_url=base_url, api_key="sk-caller", max_retries=0)


async def accumulated(client: AsyncAnthropic, model: str, **body: Any) -> dict[str, Any]:
    """What the stream helper makes of a stream."""
    asked: dict[str, Any] = {"max_tokens": 2048, "messages": MESSAGES, **body, "model": model}
    async with client.messages.stream(**asked) as stream:
        return shown(await stream.get_final_message())


def shown(message: Any) -> dict[str, Any]:
    """A message as plain data, without what each gateway names by itself."""
    return dict(message.model_dump(exclude={"id", "model"}, warnings=False))


@pytest.mark.parametrize("name", ANSWERS)
def test_streams_accumulate_to_the_same(name: str) -> None:
    """Streamed through Atlas, the SDK accumulates exactly what it accumulates from the provider directly."""
    plan, body = ANSWERS[name]

    async def scenario() -> None:
        async with both(plan) as (it, through, direct):
            wanted = await accumulated(direct, "any", **body)
            assert await accumulated(through, MODEL, **body) == wanted
            straight, relayed = it.up.requests
            assert relayed.json == straight.json
            assert relayed.headers["anthropic-version"] == straight.headers["anthropic-version"]

    run(scenario())


@pytest.mark.parametrize("name", ANSWERS)
def test_whole_answers_are_the_same(name: str) -> None:
    """Not streamed, the SDK gets from Atlas what it accumulates from the provider's stream."""
    plan, body = ANSWERS[name]

    async def scenario() -> None:
        async with both(plan) as (_, through, direct):
            asked: dict[str, Any] = {"max_tokens": 2048, "messages": MESSAGES, **body, "model": MODEL}
            got = shown(await through.messages.create(**asked))
            wanted = await accumulated(direct, "any", **body)
            if name == "unknown members":  # of the events' own the SDK's accumulation forgets all
                assert got.pop("vendor") == 1
            assert {name: value for name, value in got.items() if value is not None} == {
                name: value for name, value in wanted.items() if value is not None
            }

    run(scenario())


def test_stream_helper() -> None:
    """The helper's text stream says the text as it comes, and its events end with the message's stop."""

    async def scenario() -> None:
        plan = Plan(tokens=30)
        async with both(plan) as (_, through, _direct):
            asked: Any = {"max_tokens": 99, "messages": MESSAGES, "model": MODEL}
            async with through.messages.stream(**asked) as stream:
                assert "".join([text async for text in stream.text_stream]) == plan.text()
            async with through.messages.stream(**asked) as stream:
                kinds = [event.type async for event in stream]
            assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")

    run(scenario())


def test_the_blocking_client() -> None:
    """The SDK's blocking client, in a thread, streams, asks, and counts like the asynchronous one."""

    async def scenario() -> None:
        plan = Plan(tokens=30)
        async with house(plan, kinds=KINDS) as it:

            def blocking() -> tuple[str, str, int]:
                asked: Any = {"max_tokens": 99, "messages": MESSAGES, "model": MODEL}
                with Anthropic(base_url=it.atlas.base_url, api_key="x", max_retries=0) as client:
                    with client.messages.stream(**asked) as stream:
                        text = "".join(stream.text_stream)
                    whole: Any = client.messages.create(**asked)
                    count = client.messages.count_tokens(model=MODEL, messages=MESSAGES)
                return text, whole.content[0].text, count.input_tokens

            assert await asyncio.to_thread(blocking) == (plan.text(), plan.text(), 10)

    run(scenario())


@pytest.mark.parametrize("model", [MODEL, "chaos/any", "mock"])
def test_count_tokens(model: str) -> None:
    """Tokens are counted for every provider: by itself where it can, else estimated."""

    async def scenario() -> None:
        async with both(Plan()) as (it, through, _):
            count = await through.messages.count_tokens(model=model, messages=MESSAGES * 3)
            assert count.input_tokens > 0
            if model == MODEL:
                assert (count.input_tokens, it.up.others[-1].json["model"]) == (30, "any")
            assert not it.up.requests

    run(scenario())


@pytest.mark.parametrize(
    ("plan", "kind"),
    [
        (refusing(400, message="max_tokens: too many"), anthropic.BadRequestError),
        (refusing(429, x_should_retry="false"), anthropic.RateLimitError),
        (refusing(529, retry_after_ms="1"), anthropic.InternalServerError),
        (Plan(cut_at_byte=0), anthropic.APIStatusError),
    ],
    ids=["400", "429", "529", "cut"],
)
@pytest.mark.parametrize("stream", [True, False])
def test_errors_are_the_sdks_own(plan: Plan, kind: type[anthropic.APIStatusError], stream: bool) -> None:
    """Errors before the first word are the SDK's classes, in Anthropic's shape, and say whether to come again."""

    async def scenario() -> None:
        async with both(plan) as (_, through, _direct):
            asked: Any = {"max_tokens": 9, "messages": MESSAGES, "model": MODEL}
            with pytest.raises(kind) as caught:
                await through.messages.create(**asked, stream=stream)
            body: Any = caught.value.body
            assert (body["type"], type(body["error"]["message"])) == ("error", str)
            assert caught.value.response.headers["x-should-retry"] in {"true", "false"}
            assert caught.value.request_id

    run(scenario())


async def _collect(client: AsyncAnthropic, texts: list[str]) -> None:
    async with client.messages.stream(max_tokens=9, messages=MESSAGES, model=MODEL) as stream:
        async for text in stream.text_stream:
            texts.append(text)  # noqa: PERF401 - what came before an error counts


@pytest.mark.parametrize("fault", ["cut", "no end", "overloaded"])
def test_the_sdk_raises_on_a_broken_stream(fault: str) -> None:
    """A stream that breaks off after text is an error in the stream, which the SDK raises after that text."""

    async def scenario() -> None:
        at = event_of(Plan(tokens=20), "text", 10, wire=ANTHROPIC)
        overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        faults: dict[str, dict[str, Any]] = {
            "cut": {"cut_at_byte": 1500},
            "no end": {"no_done": True, "no_finish": True},
            "overloaded": {"error_event_at": (at, overloaded)},
        }
        async with both(Plan(tokens=20).with_(**faults[fault])) as (_, through, _direct):
            texts: list[str] = []
            with pytest.raises(anthropic.APIError):
                await _collect(through, texts)
            assert texts
            assert Plan(tokens=20).text().startswith("".join(texts))

    run(scenario())
