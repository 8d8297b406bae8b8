"""Any dialect reaches any provider: two official SDKs before Atlas, three vendors' wires behind it, every pair of them.

What each SDK must hear is told in one vocabulary; what each wire must receive is read from what the provider got.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.e2e.house import House, house, run
from tests.support.chaos import ANTHROPIC, OLLAMA, OPENAI, Plan, Tool, event_of, refusing

KINDS = ("openai_chat", "anthropic", "ollama")
WIRES = {"chaos": OPENAI, "claude": ANTHROPIC, "llama": OLLAMA}
DIALECTS = ("openai", "anthropic")
CALLS = (
    Tool(id="call_a", name="add", arguments='{"a": 1, "b": "zwei \\" \\u2028"}'),
    Tool(id="call_b", name="look", arguments="{}"),
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SYSTEM, QUESTION, RESULT = "Be brief.", "What is this?", "it is three"
every_pair = pytest.mark.parametrize(
    ("dialect", "route"), [(dialect, route) for dialect in DIALECTS for route in WIRES]
)
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What an SDK made of an answer; `finish` is one of stop, length, tool_calls, filtered."""

    text: str
    reasoning: str
    calls: list[tuple[str, Any]]
    ids: list[str]
    finish: str
    usage: tuple[int, int]


_FINISH = {
    "end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "refusal": "filtered", "content_filter": "filtered",
}  # fmt: skip
_SAYS = {
    ("length", "chaos"): "length", ("length", "claude"): "max_tokens", ("length", "llama"): "length",
    ("stop", "chaos"): "stop", ("stop", "claude"): "end_turn", ("stop", "llama"): "stop",
    ("filtered", "chaos"): "content_filter", ("filtered", "claude"): "refusal",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clients:
    """The SDKs before one house."""

    house: House
    openai: AsyncOpenAI
    anthropic: AsyncAnthropic

    async def hear(self, dialect: str, model: str, *, stream: bool, **asked: Any) -> Heard:
        """One answer, as one of the SDKs has it."""
        if dialect == "anthropic":
            return await self._anthropic(model, stream=stream, **asked)
        return await self._openai(model, stream=stream, **asked)

    async def _anthropic(self, model: str, *, stream: bool, **asked: Any) -> Heard:
        body: Any = {"max_tokens": 99, "messages": [{"role": "user", "content": QUESTION}], **asked, "model": model}
        if stream:
            async with self.anthropic.messages.stream(**body) as events:
                message: Any = await events.get_final_message()
        else:
            message = await self.anthropic.messages.create(**body)
        tools = [block for block in message.content if block.type == "tool_use"]
        return Heard(
            text="".join(block.text for block in message.content if block.type == "text"),
            reasoning="".join(block.thinking for block in message.content if block.type == "thinking"),
            calls=[(tool.name, tool.input) for tool in tools],
            ids=[tool.id for tool in tools],
            finish=_FINISH.get(message.stop_reason, message.stop_reason),
            usage=(message.usage.input_tokens, message.usage.output_tokens),
        )

    async def _openai(self, model: str, *, stream: bool, **asked: Any) -> Heard:
        body: Any = {"messages": [{"role": "user", "content": QUESTION}], **asked, "model": model}
        if stream:
            options: Any = {"include_usage": True}
            async with self.openai.chat.completions.stream(**body, stream_options=options) as events:
                completion: Any = await events.get_final_completion()
        else:
            completion = await self.openai.chat.completions.create(**body)
        choice = completion.choices[0]
        calls = choice.message.tool_calls or ()
        return Heard(
            text=choice.message.content or "",
            reasoning=getattr(choice.message, "reasoning_content", None) or "",
            calls=[(call.function.name, json.loads(call.function.arguments)) for call in calls],
            ids=[call.id for call in calls],
            finish=_FINISH.get(choice.finish_reason, choice.finish_reason),
            usage=(completion.usage.prompt_tokens, completion.usage.completion_tokens),
        )


@asynccontextmanager
async def clients(plan: Plan) -> AsyncIterator[Clients]:
    """A house whose one provider is reached on every wire."""
    async with (
        house(plan, kinds=KINDS) as it,
        it.sdk() as first,
        AsyncAnthropic(base_url=it.atlas.base_url, api_key="sk-caller", max_retries=0) as second,
    ):
        yield Clients(it, first, second)


def tools_of(dialect: str) -> Any:
    """Two tools, as a dialect declares them."""
    if dialect == "anthropic":
        return [{"name": call.name, "description": call.name, "input_schema": SCHEMA} for call in CALLS]
    declared = [{"name": call.name, "description": call.name, "parameters": SCHEMA} for call in CALLS]
    return [{"type": "function", "function": function} for function in declared]


@streamed_or_not
@every_pair
def test_answer(dialect: str, route: str, stream: bool) -> None:
    """Reasoning, text, why it ended and the provider's own count arrive whole, by every pair."""

    async def scenario() -> None:
        plan = Plan(tokens=30, reasoning=5, tokens_per_event=2, chunking=11)
        async with clients(plan) as them:
            heard = await them.hear(dialect, f"{route}/any", stream=stream)
            assert (heard.text, heard.reasoning) == (plan.text(), plan.reasoning_text())
            assert (heard.calls, heard.finish, heard.usage) == ([], "stop", (10, 35))
            assert them.house.up.last.path.endswith(WIRES[route].path)
            assert await them.house.up.last.answered() == "complete"

    run(scenario())


@streamed_or_not
@every_pair
def test_tool_calls(dialect: str, route: str, stream: bool) -> None:
    """Calls arrive in order with names, arguments and ids of their own, after the text, and end the turn as calls."""

    async def scenario() -> None:
        plan = Plan(tokens=3, tools=CALLS)
        async with clients(plan) as them:
            heard = await them.hear(dialect, f"{route}/any", stream=stream, tools=tools_of(dialect))
            assert heard.text == plan.text()
            assert heard.calls == [(call.name, json.loads(call.arguments)) for call in CALLS]
            assert heard.finish == "tool_calls"
            assert len(set(heard.ids)) == len(CALLS)
            assert all(heard.ids)
            if route != "llama":  # whose calls have no ids
                assert heard.ids == [call.id for call in CALLS]
            assert declared(route, them.house.up.last.json) == [(call.name, SCHEMA) for call in CALLS]

    run(scenario())


def declared(route: str, body: Any) -> list[tuple[str, Any]]:
    """The tools that the provider was told of."""
    if route == "claude":
        return [(tool["name"], tool["input_schema"]) for tool in body["tools"]]
    return [(tool["function"]["name"], tool["function"]["parameters"]) for tool in body["tools"]]


@pytest.mark.parametrize(("finish", "route"), _SAYS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_stop_reasons(dialect: str, finish: str, route: str) -> None:
    """Why an answer ended is said in the caller's words, whatever the provider's are."""

    async def scenario() -> None:
        async with clients(Plan(finish_reason=_SAYS[finish, route])) as them:
            body: Any = {"model": f"{route}/any", "messages": [{"role": "user", "content": QUESTION}]}
            if dialect == "anthropic":
                answer = await them.anthropic.messages.create(**body, max_tokens=9)
                reason = answer.stop_reason
            else:
                reason = (await them.openai.chat.completions.create(**body)).choices[0].finish_reason
            assert _FINISH.get(reason, reason) == finish

    run(scenario())


@every_pair
def test_usage_counts_the_cached(dialect: str, route: str) -> None:
    """Of a prompt that came partly from a cache each SDK is told as its vendor tells it: with it, or beside it."""
    if route == "llama":
        pytest.skip("Ollama does not say what was cached")

    async def scenario() -> None:
        async with clients(Plan(cached=4, usage="always")) as them:
            body: Any = {"model": f"{route}/any", "messages": [{"role": "user", "content": QUESTION}]}
            if dialect == "anthropic":
                usage = (await them.anthropic.messages.create(**body, max_tokens=9)).usage
                assert (usage.input_tokens, usage.cache_read_input_tokens) == (6, 4)
            else:
                told = (await them.openai.chat.completions.create(**body)).usage
                assert told.prompt_tokens == 10
                assert told.prompt_tokens_details.cached_tokens == 4

    run(scenario())


@pytest.mark.parametrize("route", ["claude/any", "llama/any", "mock-fast"])
def test_a_choice_of_tools_without_tools_for_openai(route: str) -> None:
    """A call is asked for where no tool is given: a 400 that names the member, not an answer without one."""
    asked: Any = {"model": route, "messages": [{"role": "user", "content": QUESTION}], "tool_choice": "required"}

    async def scenario() -> None:
        async with clients(Plan()) as it:
            with pytest.raises(openai.BadRequestError) as refused:
                await it.openai.chat.completions.create(**asked)
            body: Any = refused.value.body
            assert (body["code"], body["param"]) == ("bad_request", "tool_choice")
            assert not it.house.up.requests

    run(scenario())


@pytest.mark.parametrize("route", ["chaos/any", "llama/any", "mock-fast"])
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "f"}])
def test_a_choice_of_tools_without_tools_for_anthropic(route: str, choice: Any) -> None:
    """The same in the other dialect."""
    asked: Any = {"model": route, "max_tokens": 9, "messages": [{"role": "user", "content": QUESTION}]}

    async def scenario() -> None:
        async with clients(Plan()) as it:
            with pytest.raises(anthropic.BadRequestError, match="tool_choice"):
                await it.anthropic.messages.create(**asked, tool_choice=choice)
            assert not it.house.up.requests

    run(scenario())


def _frames(*deltas: dict[str, Any]) -> bytes:
    """An answer of OpenAI's wire, of these deltas."""
    said = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks = [*said, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


@streamed_or_not
def test_images_of_an_answer(stream: bool) -> None:
    """Images that Anthropic's answers cannot hold are not lost in silence: the text says where they are."""
    shown = [
        {"type": "image_url", "image_url": {"url": url}} for url in (f"data:image/png;base64,{PIXEL}", "https://i/1")
    ]
    body = _frames({"role": "assistant", "content": "Here:"}, {"content": "", "images": shown})

    async def scenario() -> None:
        async with clients(Plan(body=body)) as it:
            heard = await it.hear("anthropic", "chaos/any", stream=stream)
            (sid,) = [each["id"] for each in (await it.house.call("GET", "/v1/streams")).json["data"]]
            place = f"/v1/streams/{sid}/events"
            told = f"[image: it cannot be shown here; its bytes are at {place}]"
            assert heard.text == f"Here:\n{told}\n![image](https://i/1)"
            assert PIXEL in (await it.house.native(sid)).body.decode()

    run(scenario())


def test_an_answer_of_an_image_alone() -> None:
    """It is not an empty one."""
    url = f"data:image/png;base64,{PIXEL}"
    body = _frames({"role": "assistant", "images": [{"type": "image_url", "image_url": {"url": url}}, "odd"]})

    async def scenario() -> None:
        async with clients(Plan(body=body)) as it:
            heard = await it.hear("anthropic", "chaos/any", stream=True)
            assert heard.text.startswith("[image: ")
            assert heard.text.count("[image: ") == 2

    run(scenario())


def conversation(dialect: str) -> dict[str, Any]:
    """A system prompt, a picture, a call and its result, as a dialect says them."""
    arguments = {"a": 1, "b": "x"}
    if dialect == "anthropic":
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
        called = {"type": "tool_use", "id": "call_a", "name": "add", "input": arguments}
        result = {"type": "tool_result", "tool_use_id": "call_a", "content": RESULT}
        messages = [
            {"role": "user", "content": [{"type": "text", "text": QUESTION}, picture]},
            {"role": "assistant", "content": [called]},
            {"role": "user", "content": [result]},
        ]
        return {"system": SYSTEM, "messages": messages, "tools": tools_of(dialect)}
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    function = {"name": "add", "arguments": json.dumps(arguments)}
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}, shown]},
            {"role": "assistant", "tool_calls": [{"id": "call_a", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "call_a", "content": RESULT},
        ],
        "tools": tools_of(dialect),
    }


@every_pair
def test_request(dialect: str, route: str) -> None:
    """System prompt, picture, call and result reach every provider in its own shape."""

    async def scenario() -> None:
        async with clients(Plan()) as them:
            await them.hear(dialect, f"{route}/any", stream=True, **conversation(dialect))
            READS[route](them.house.up.last.json)

    run(scenario())


def _read_openai(body: Any) -> None:
    system, user, assistant, tool = body["messages"]
    assert (system["role"], _text(system["content"])) == ("system", SYSTEM)
    assert _text(user["content"]) == QUESTION
    assert [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"] == [
        f"data:image/png;base64,{PIXEL}"
    ]
    (call,) = assistant["tool_calls"]
    assert (call["id"], call["function"]["name"]) == ("call_a", "add")
    assert json.loads(call["function"]["arguments"]) == {"a": 1, "b": "x"}
    assert (tool["role"], tool["tool_call_id"], _text(tool["content"])) == ("tool", "call_a", RESULT)


def _read_anthropic(body: Any) -> None:
    assert _text(body["system"]) == SYSTEM
    assert body["max_tokens"] > 0
    user, assistant, result = body["messages"]
    assert _text(user["content"]) == QUESTION
    assert [part["source"] for part in user["content"] if part["type"] == "image"] == [
        {"type": "base64", "media_type": "image/png", "data": PIXEL}
    ]
    (call,) = assistant["content"]
    assert (call["type"], call["id"], call["name"], call["input"]) == ("tool_use", "call_a", "add", {"a": 1, "b": "x"})
    (told,) = result["content"]
    assert (told["type"], told["tool_use_id"], _text(told["content"])) == ("tool_result", "call_a", RESULT)


def _read_ollama(body: Any) -> None:
    system, user, assistant, tool = body["messages"]
    assert (system["role"], system["content"]) == ("system", SYSTEM)
    assert (user["content"], user["images"]) == (QUESTION, [PIXEL])
    (call,) = assistant["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("add", {"a": 1, "b": "x"})
    assert (tool["role"], tool["content"], tool["tool_name"]) == ("tool", RESULT, "add")


READS = {"chaos": _read_openai, "claude": _read_anthropic, "llama": _read_ollama}


def _text(content: Any) -> str:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return "".join(part["text"] for part in parts if part["type"] == "text")


@pytest.mark.parametrize(
    ("plan", "kinds"),
    [
        (refusing(400, message="no such thing"), (openai.BadRequestError, anthropic.BadRequestError)),
        (refusing(429, x_should_retry="false"), (openai.RateLimitError, anthropic.RateLimitError)),
        (refusing(503, retry_after_ms="1"), (openai.InternalServerError, anthropic.InternalServerError)),
    ],
    ids=["400", "429", "503"],
)
@every_pair
def test_refusals(dialect: str, route: str, plan: Plan, kinds: tuple[type[Exception], type[Exception]]) -> None:
    """A refusal of any provider is raised by each SDK as the class that fits."""

    async def scenario() -> None:
        if plan.status == 503 and route != "claude":
            pytest.skip("what is tried again takes its time: once is enough")
        async with clients(plan) as them:
            with pytest.raises(kinds[DIALECTS.index(dialect)]) as caught:
                await them.hear(dialect, f"{route}/any", stream=True)
            if plan.refused is not None and plan.status == 400:
                assert plan.refused.message in str(caught.value)

    run(scenario())


@pytest.mark.parametrize("fault", ["cut", "stopped", "error"])
@every_pair
def test_broken_streams(dialect: str, route: str, fault: str) -> None:
    """A stream that breaks off on any wire is never a success: both SDKs raise, after the text that came."""

    async def scenario() -> None:
        wire = WIRES[route]
        at = event_of(Plan(tokens=20), "text", 10, wire=wire)
        said = {"error": "out of memory"} if route == "llama" else {"type": "error", "error": {"message": "oh"}}
        faults: dict[str, dict[str, Any]] = {
            "cut": {"cut_at_byte": 900},
            "stopped": {"no_done": True, "no_finish": True},
            "error": {"error_event_at": (at, said)},
        }
        async with clients(Plan(tokens=20).with_(**faults[fault])) as them:
            with pytest.raises((openai.APIError, anthropic.APIError)):
                await them.hear(dialect, f"{route}/any", stream=True)

    run(scenario())
