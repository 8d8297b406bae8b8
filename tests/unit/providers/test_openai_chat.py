"""The OpenAI adapter: what it sends, and how an answer ends."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.core.chat import ChatRequest, ImagePart, Message, OpaquePart, TextPart, Tool, ToolCallPart, ToolResultPart
from gateway.core.errors import Category, ProviderError
from gateway.core.events import Finish, SourceEvent, Text
from gateway.dialects.openai_chat import DIALECT
from gateway.providers.openai_chat import OpenAIProvider, request_body
from gateway.upstream.contract import Timeouts
from gateway.upstream.transport import Transport
from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider, Garbage, Gate, Plan, event_of
from tests.support.chaos import Tool as Called
from tests.support.clock import ManualClock
from tests.support.run import run

C = Category


def asked(*parts: Any, role: Any = "user", **members: Any) -> ChatRequest:
    """A request of another dialect with one turn."""
    return ChatRequest(dialect="other", model="route", messages=(Message(role=role, parts=parts),), **members)


def own(body: dict[str, Any]) -> ChatRequest:
    """A request of this dialect."""
    return ChatRequest(dialect=DIALECT, model="route", messages=(), body=body)


# What is sent.


def test_own_dialect_passes_through() -> None:
    """A request of this dialect keeps every member, but for the model, and asks for a stream with usage."""
    body = {"model": "route", "messages": [{"role": "user", "content": "?", "x": 1}], "vendor": {"y": [None]}}
    sent = request_body(own(body), "gpt")
    assert sent == {**body, "model": "gpt", "stream": True, "stream_options": {"include_usage": True}}
    assert body["model"] == "route"


@pytest.mark.parametrize("options", [{"include_usage": False}, {"x": 1}, {}, None])
def test_stream_options_are_merged(options: dict[str, Any] | None) -> None:
    """The client's other stream options are kept, and usage is always asked for."""
    sent = request_body(own({"stream_options": options}), "gpt")
    assert sent["stream_options"] == {**(options or {}), "include_usage": True}


def test_settings_are_translated() -> None:
    """Every canonical setting has its name on this wire; what was not asked for is not sent."""
    request = asked(
        TextPart(text="?"), n=2, max_output_tokens=9, temperature=0.0, top_p=0.5, stop=("a", "b"),
        tools=(Tool(name="f", parameters={"type": "object"}),), tool_choice="f", schema={"type": "object"},
    )  # fmt: skip
    assert request_body(request, "gpt") == {
        "model": "gpt",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "?"}],
        "n": 2,
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ["a", "b"],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
    }
    assert set(request_body(asked(TextPart(text="?")), "gpt")) == {"model", "stream", "stream_options", "messages"}


def test_any_json_object() -> None:
    """A schema that asks for any object is the wire's own format for that."""
    assert request_body(asked(schema={}), "gpt")["response_format"] == {"type": "json_object"}


def test_turns_are_translated() -> None:
    """Texts are joined by lines, an answer's without; images stand among them, calls keep all, names are kept."""
    call = ToolCallPart(id="c", name="f", arguments="{}")
    messages = (
        Message(role="system", parts=(TextPart(text="a"), TextPart(text="b")), name="boss"),
        Message(role="user", parts=(TextPart(text="a"), ImagePart(url="data:,", detail="low"))),
        Message(role="assistant", parts=(TextPart(text="a"), TextPart(text="b"), call)),
        Message(role="tool", parts=(ToolResultPart(id="c", text="1"), ToolResultPart(id="d", text="2"))),
        Message(role="assistant", parts=()),
    )
    image = {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}
    shown = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sent = request_body(ChatRequest(dialect="other", model="route", messages=messages), "gpt")["messages"]
    assert sent == [
        {"role": "system", "name": "boss", "content": "a\nb"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, image]},
        {"role": "assistant", "content": "ab", "tool_calls": [shown]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "tool", "tool_call_id": "d", "content": "2"},
        {"role": "assistant", "content": ""},
    ]


def test_words_beside_a_tool_result() -> None:
    """What stands in one turn with a tool's result is said after it, not lost."""
    sent = request_body(asked(ToolResultPart(id="c", text="1"), TextPart(text="go on")), "gpt")["messages"]
    assert sent == [
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "user", "content": "go on"},
    ]


@pytest.mark.parametrize("beside", [(), (TextPart(text="a"),), (ToolResultPart(id="c", text="1"),)])
def test_unknown_parts_are_refused(beside: tuple[Any, ...]) -> None:
    """A part that this wire cannot say is refused, alone or beside others."""
    with pytest.raises(ProviderError) as caught:
        request_body(asked(*beside, OpaquePart(kind="hologram", data={})), "gpt")
    assert caught.value.category is C.UNTRANSLATABLE
    assert "hologram" in caught.value.failure.message


# How an answer ends.


@asynccontextmanager
async def provider(plan: Plan, key: str | None = "sk-unit") -> AsyncIterator[tuple[OpenAIProvider, ChaosProvider]]:
    """The adapter and its upstream; nothing may be left behind."""
    async with baseline(), ChaosProvider(plan) as up:
        made = OpenAIProvider(base_url=up.base_url + "/", key=key, transport=Transport(Timeouts()), clock=ManualClock())
        yield made, up
        await made.aclose()


async def answered(made: OpenAIProvider) -> tuple[list[SourceEvent], ProviderError | None]:
    """The events of one answer, and what ended it."""
    events: list[SourceEvent] = []
    try:
        async with made.stream(asked(TextPart(text="?")), "gpt") as batches:
            async for batch in batches:
                events += batch
    except ProviderError as error:
        return events, error
    return events, None


def outcome(plan: Plan) -> tuple[list[SourceEvent], ProviderError | None]:
    """One answer of an upstream that does as planned."""

    async def go() -> tuple[list[SourceEvent], ProviderError | None]:
        async with provider(plan) as (made, _):
            return await answered(made)

    return run(go())


HALF = Plan(tokens=4)
OVERLOADED = {"error": {"message": "busy", "type": "overloaded_error"}}


@pytest.mark.parametrize(
    ("plan", "category"),
    [
        (Plan(content_type="text/html", body=b"<html>"), C.PROTOCOL),
        (Plan(content_type="application/json", body=b'{"choices": []}'), C.PROTOCOL),
        (Plan(content_type="application/json", body=b'{"error": {"message": "m", "code": 503}}'), C.OVERLOADED),
        (Plan(content_type="application/json", body=b'{"error": {"message": "m", "type": "odd"}}'), C.STREAM_ERROR),
        (Plan(content_encoding="gzip"), C.PROTOCOL),
        (Plan(garbage=Garbage(kind="utf8", at=1, count=3)), C.PROTOCOL),
        (Plan(garbage=Garbage(kind="oversize", at=1)), C.PROTOCOL),
        (Plan(garbage=Garbage(kind="shape", at=1, count=3)), C.PROTOCOL),
        (HALF.with_(error_event_at=(event_of(HALF, "text"), OVERLOADED)), C.OVERLOADED),
        (HALF.with_(error_event_at=(event_of(HALF, "text"), {"error": {"message": "m"}})), C.STREAM_ERROR),
        (Plan(status=302, body=b""), C.PROTOCOL),
        (Plan(no_done=True, no_finish=True), C.STREAM_BROKEN),
        (Plan(body=b"", content_type="text/event-stream"), C.STREAM_BROKEN),
        (Plan(body=b": ping\n\n", content_type="text/event-stream"), C.STREAM_BROKEN),
    ],
)
def test_failures(plan: Plan, category: Category) -> None:
    """Whatever an upstream does wrong has its category."""
    _, error = outcome(plan)
    assert error is not None
    assert error.category is category


@pytest.mark.parametrize(
    "plan",
    [
        Plan(no_done=True),
        Plan(no_done=True, framing="close"),
        Plan(no_finish=True),
        Plan(newline="\r\n"),
        Plan(newline="\r"),
        Plan(data_prefix="data:"),
        Plan(frame_lines=("event: message",)),
        Plan(comment=" OPENROUTER PROCESSING"),
        Plan(prologue=b"\xef\xbb\xbf"),
        Plan(epilogue=b"data: {trailing"),
        Plan(garbage=Garbage(kind="json", at=3, count=2)),
        Plan(garbage=Garbage(kind="utf8", at=5)),
        Plan(content_encoding="identity"),
        Plan(usage="every"),
        Plan(usage="finish", finish_with_last=True),
        Plan(role_chunk=False),
        Plan(chunking="whole"),
        Plan(chunking=1),
    ],
)
def test_spellings(plan: Plan) -> None:
    """Every spelling of a whole answer is a whole answer."""
    events, error = outcome(plan)
    assert error is None
    assert "".join(event.text for event in events if isinstance(event, Text)) == plan.text()


@pytest.mark.parametrize("chunking", ["event", "whole"])
def test_text_before_an_error_is_delivered(chunking: Any) -> None:
    """What came before an in-stream error is delivered, also when both came in one read."""
    plan = Plan(tokens=4, chunking=chunking)
    events, error = outcome(plan.with_(error_event_at=(event_of(plan, "text", 2), OVERLOADED)))
    assert len([event for event in events if isinstance(event, Text)]) == 2
    assert error is not None
    assert error.category is C.OVERLOADED


def test_error_then_done() -> None:
    """An error is not forgotten because the end marker follows it (vLLM)."""
    body = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    body += b'data: {"object":"error","message":"boom","code":500}\n\ndata: [DONE]\n\n'
    events, error = outcome(Plan(body=body, content_type="text/event-stream"))
    assert events == [Text(0, "a")]
    assert error is not None
    assert error.category is C.UPSTREAM_5XX


def test_tool_calls_with_index_0() -> None:
    """Parallel calls of a host that says index 0 for all stay apart."""
    tools = tuple(Called(id=f"c{n}", name="f", arguments=f'{{"n": {n}}}') for n in range(3))
    events, error = outcome(Plan(tokens=0, tools=tools, tool_index_zero=True))
    assert error is None
    arguments = ["", "", ""]
    for event in events:
        if hasattr(event, "arguments"):
            arguments[event.index] += event.arguments
    assert arguments == [tool.arguments for tool in tools]
    assert [event.reason for event in events if isinstance(event, Finish)] == ["tool_calls"]


def test_connection_is_kept() -> None:
    """After `[DONE]` the connection serves the next request."""

    async def go() -> None:
        async with provider(Plan()) as (made, up):
            for _ in range(4):
                assert (await answered(made))[1] is None
            assert up.ever == 1

    run(go())


def test_connection_after_an_error_in_stream() -> None:
    """After an error the unread rest is nobody's: the next request gets a connection of its own."""
    body = b'data: {"error": {"message": "m"}}\n\n'
    plan = Plan(body=body, content_type="text/event-stream", gate=Gate(1))

    async def go() -> None:
        async with provider(plan) as (made, up):
            assert (await answered(made))[1] is not None
            up.default = Plan()
            assert (await answered(made))[1] is None

    run(go())


def test_headers() -> None:
    """The key goes out as a bearer, an uncompressed stream is asked for, and no key means no header."""

    async def go(key: str | None) -> dict[str, str]:
        async with provider(Plan(), key) as (made, up):
            await answered(made)
            assert up.last.path == "/v1/chat/completions"
            return up.last.headers

    headers = run(go("sk-unit"))
    assert headers["authorization"] == "Bearer sk-unit"
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("atlas/")
    assert "authorization" not in run(go(None))


def test_the_key_is_not_repeated() -> None:
    """A host that repeats the key in its refusal does not make us show it."""

    async def go() -> None:
        key = base64.b64encode(b"secret key").decode()
        plan = Plan(status=401, error={"error": {"message": f"Incorrect API key provided: {key}."}})
        async with provider(plan, key) as (made, _):
            _, error = await answered(made)
            assert error is not None
            assert key not in repr(error.failure)

    run(go())
