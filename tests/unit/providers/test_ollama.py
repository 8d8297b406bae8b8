"""The Ollama adapter: what it sends, and how an answer ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gateway.core.chat import (
    ChatRequest,
    ImagePart,
    Message,
    OpaquePart,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from gateway.core.errors import Category, ProviderError
from gateway.core.events import SourceEvent, Text
from gateway.providers.ollama import OllamaProvider, request_body
from gateway.upstream.contract import Timeouts
from gateway.upstream.transport import Transport
from tests.support.baseline import baseline
from tests.support.chaos import OLLAMA, ChaosProvider, Plan, event_of
from tests.support.clock import ManualClock
from tests.support.run import run

C = Category
PNG = "data:image/png;base64,iVBORw0KGgo="
ANN = Message(role="user", parts=(), name="ann")
F = Tool(name="f", description="d", parameters={"type": "object", "properties": {}}, strict=True)


def asked(*parts: Any, role: Any = "user", **members: Any) -> ChatRequest:
    """A request of another dialect with one turn."""
    return ChatRequest(dialect="other", model="route", messages=(Message(role=role, parts=parts),), **members)


def sent(request: ChatRequest) -> dict[str, Any]:
    """The body as the server reads it."""
    return dict(msgspec.json.decode(msgspec.json.encode(request_body(request, "m"))))


def turns(*messages: Message) -> list[dict[str, Any]]:
    """The history that goes out."""
    return list(sent(ChatRequest(dialect="other", model="route", messages=messages))["messages"])


# What is sent.


def test_nothing_is_dropped_in_silence() -> None:
    """The server is told to refuse a prompt that does not fit; nothing is said that was not asked for."""
    assert sent(asked(TextPart(text="?"))) == {
        "model": "m",
        "messages": [{"role": "user", "content": "?"}],
        "stream": True,
        "truncate": False,
        "shift": False,
    }


def test_settings_are_translated() -> None:
    """Every canonical setting has its name among the server's options."""
    body = sent(
        asked(
            max_output_tokens=9, temperature=0.0, top_p=0.5, top_k=3, stop=("a", "b"), seed=0, frequency_penalty=0.1,
            presence_penalty=0.2, tools=(F,), schema={"type": "object"},
        )
    )  # fmt: skip
    assert body["options"] == {
        "num_predict": 9, "temperature": 0.0, "top_p": 0.5, "top_k": 3, "stop": ["a", "b"], "seed": 0,
        "frequency_penalty": 0.1, "presence_penalty": 0.2,
    }  # fmt: skip
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["format"] == {"type": "object"}
    assert sent(asked(schema={}))["format"] == "json"
    assert sent(asked(tools=(Tool(name="g"),)))["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {},
    }


@pytest.mark.parametrize(
    ("members", "think"),
    [
        ({"effort": "none"}, False),
        ({"effort": "minimal"}, "low"),
        ({"effort": "medium"}, "medium"),
        ({"effort": "max"}, "max"),
        ({"effort": "xhigh", "thinking_tokens": 0}, "max"),
        ({"thinking_tokens": 0}, False),
        ({"thinking_tokens": 1024}, True),
    ],
)
def test_thinking(members: dict[str, Any], think: object) -> None:
    """An effort is one of the server's levels; a budget says whether to think at all."""
    assert sent(asked(**members))["think"] == think


def test_tools_that_must_not_be_called_are_left_out() -> None:
    """The wire cannot forbid calls, but who is not told of tools calls none."""
    assert "tools" not in sent(asked(tools=(F,), tool_choice="none"))


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (asked(n=2), "n"),
        (asked(tools=(F,), tool_choice="required"), "tool_choice"),
        (asked(tools=(F,), tool_choice="f"), "tool_choice"),
        (asked(tools=(F,), parallel_tool_calls=False), "parallel_tool_calls"),
        (asked(own=("logit_bias",)), "logit_bias"),
        (asked(ImagePart(url="https://x/y.png")), "messages[0].content (an image"),
        (asked(ImagePart(url="data:image/png,x")), "messages[0].content (an image"),
        (asked(OpaquePart(kind="hologram", data={})), "messages[0].content of type 'hologram'"),
        (asked(ToolCallPart(id="c", name="f", arguments="[1]"), role="assistant"), "messages[0].tool_calls (arguments"),
        (asked(ToolCallPart(id="c", name="f", arguments="{"), role="assistant"), "messages[0].tool_calls (arguments"),
        (ChatRequest(dialect="o", model="r", messages=(ANN,)), "messages[0].name"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(request_: ChatRequest, named: str) -> None:
    """What would be lost on this wire is refused, and the refusal says what."""
    with pytest.raises(ProviderError) as caught:
        request_body(request_, "m")
    assert caught.value.category is C.UNTRANSLATABLE
    assert named in str(caught.value.failure.param)


def test_a_wish_about_tools_without_tools_changes_nothing() -> None:
    """What is asked of tools is met where there are none."""
    assert "tools" not in sent(asked(parallel_tool_calls=False))


def test_a_call_without_tools_is_a_bad_request() -> None:
    """A call is asked for, and there is nothing to call."""
    with pytest.raises(ProviderError) as caught:
        sent(asked(tool_choice="required"))
    assert (caught.value.category, caught.value.failure.param) == (C.BAD_REQUEST, "tool_choice")


def test_history() -> None:
    """Thoughts, images, calls and results stand where the server looks for them; results are named after their tool."""
    call = ToolCallPart(id="c", name="f", arguments=' {"n": 12345678901234567890, "a": 1}')
    body = request_body(
        ChatRequest(
            dialect="other",
            model="r",
            messages=(
                Message(role="system", parts=(TextPart(text="a"), TextPart(text="b"))),
                Message(role="user", parts=(TextPart(text="see"), ImagePart(url=PNG, detail="low"))),
                Message(role="assistant", parts=(ReasoningPart(text="t", signature="s"), TextPart(text="go"), call)),
                Message(role="tool", parts=(ToolResultPart(id="c", text="1"), ToolResultPart(id="d", text="2"))),
                Message(role="tool", name="g", parts=(ToolResultPart(id="e", text="3", is_error=True),)),
            ),
        ),
        "m",
    )
    assert b'"arguments":{"n": 12345678901234567890, "a": 1}' in msgspec.json.encode(body)
    body["messages"][2].pop("tool_calls")
    assert body["messages"] == [
        {"role": "system", "content": "a\nb"},
        {"role": "user", "content": "see", "images": ["iVBORw0KGgo="]},
        {"role": "assistant", "content": "go", "thinking": "t"},
        {"role": "tool", "content": "1", "tool_call_id": "c", "tool_name": "f"},
        {"role": "tool", "content": "2", "tool_call_id": "d"},
        {"role": "tool", "content": "3", "tool_call_id": "e", "tool_name": "g"},
    ]


def test_words_and_images_beside_a_tool_result() -> None:
    """What a tool shows, and what stands beside its result, is said by the user after it."""
    result = ToolResultPart(id="c", text="1", images=(ImagePart(url=PNG),))
    assert turns(Message(role="user", parts=(result, TextPart(text="go on")))) == [
        {"role": "tool", "content": "1", "tool_call_id": "c"},
        {"role": "user", "content": "go on", "images": ["iVBORw0KGgo="]},
    ]
    assert turns(Message(role="tool", parts=(result,)))[1:] == [
        {"role": "user", "content": "", "images": ["iVBORw0KGgo="]}
    ]


# How an answer ends.


@asynccontextmanager
async def provider(plan: Plan, key: str | None = None, path: str = "") -> AsyncIterator[tuple[Any, ChaosProvider]]:
    """The adapter and its upstream; nothing may be left behind."""
    async with baseline(), ChaosProvider(plan) as up:
        transport = Transport(Timeouts())
        made = OllamaProvider(base_url=up.root_url + path, key=key, transport=transport, clock=ManualClock())
        try:
            yield made, up
        finally:
            await made.aclose()


async def answered(made: OllamaProvider) -> tuple[list[SourceEvent], ProviderError | None]:
    """What a call gives."""
    events: list[SourceEvent] = []
    try:
        async with made.stream(asked(TextPart(text="?")), "m") as batches:
            async for batch in batches:
                events += batch
    except ProviderError as error:
        return events, error
    return events, None


def outcome(plan: Plan) -> tuple[list[SourceEvent], ProviderError | None]:
    """What a call to an upstream with this plan gives."""

    async def go() -> tuple[list[SourceEvent], ProviderError | None]:
        async with provider(plan) as (made, _):
            return await answered(made)

    return run(go())


ERROR = {"error": "an error was encountered while running the model"}


@pytest.mark.parametrize(
    ("plan", "category"),
    [
        (Plan(no_done=True), C.STREAM_BROKEN),
        (Plan(cut_at_byte=300), C.STREAM_BROKEN),
        (Plan(end_at_byte=300), C.STREAM_BROKEN),
        (Plan(content_type="text/html"), C.PROTOCOL),
        (Plan(content_type="text/event-stream"), C.PROTOCOL),
        (Plan(content_type="application/json", body=b'{"status":"fine"}'), C.PROTOCOL),
        (Plan(content_encoding="gzip"), C.PROTOCOL),
    ],
)
def test_what_is_no_whole_answer(plan: Plan, category: Category) -> None:
    """A body that ends early, or is none of this protocol, is never a success."""
    _, error = outcome(plan)
    assert error is not None
    assert error.category is category


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(newline="\r\n"),
        Plan(comment="blank"),
        Plan(chunking="whole"),
        Plan(chunking=1),
        Plan(content_type="application/x-ndjson; charset=utf-8"),
        Plan(usage="never"),
        Plan(finish_with_last=True),
        Plan(epilogue=b'{"trailing'),
    ],
)
def test_spellings(plan: Plan) -> None:
    """Every spelling of a whole answer is a whole answer."""
    events, error = outcome(plan)
    assert error is None
    assert "".join(event.text for event in events if isinstance(event, Text)) == plan.text()


def test_an_error_in_the_stream() -> None:
    """An error line ends the answer behind what was said before it, in the server's words."""
    plan = Plan(tokens=4)
    events, error = outcome(plan.with_(error_event_at=(event_of(plan, "text", 2, wire=OLLAMA), ERROR)))
    assert len([event for event in events if isinstance(event, Text)]) == 2
    assert error is not None
    assert "running the model" in error.failure.message


def test_an_error_with_a_status_of_success() -> None:
    """A JSON object with an error instead of a stream is that error."""
    _, error = outcome(Plan(content_type="application/json", body=b'{"error":"model requires more memory"}'))
    assert error is not None
    assert "memory" in error.failure.message


def test_headers() -> None:
    """Lines are asked for, uncompressed; a key goes out as a bearer, and without one there is no header for it."""

    async def go(key: str | None, path: str) -> tuple[str, dict[str, str]]:
        async with provider(Plan(), key, path) as (made, up):
            assert (await answered(made))[1] is None
            return up.last.path, dict(up.last.headers)

    path, headers = run(go("sk-unit", "/"))
    assert path == "/api/chat"
    assert headers["authorization"] == "Bearer sk-unit"
    assert headers["accept"] == "application/x-ndjson"
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in run(go(None, ""))[1]


def test_the_key_is_not_repeated() -> None:
    """A host that repeats the key in its refusal does not make us show it."""

    async def go() -> None:
        async with provider(Plan(status=401, error={"error": "bad key sk-unit-secret"}), "sk-unit-secret") as (made, _):
            _, error = await answered(made)
            assert error is not None
            assert "sk-unit-secret" not in repr(error.failure)

    run(go())


def test_connection_is_kept() -> None:
    """After the last line the connection serves the next request."""

    async def go() -> None:
        async with provider(Plan()) as (made, up):
            for _ in range(4):
                assert (await answered(made))[1] is None
            assert up.ever == 1

    run(go())
