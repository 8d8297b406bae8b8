"""What the Anthropic adapter sends, and what it refuses to send."""

from typing import Any

import msgspec
import pytest

from gateway.core.chat import (
    ChatRequest,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from gateway.core.errors import Category, ProviderError
from gateway.providers._anthropic_events import DIALECT
from gateway.providers._anthropic_models import family_of
from gateway.providers._anthropic_request import VERSION, count_body, request_body, request_headers_of

OLD, BUDGETS, LEVELS = "claude-3-opus-20240229", "claude-haiku-4-5-20251001", "claude-opus-5"
WEATHER = Tool(name="weather", description="d", parameters={"type": "object", "properties": {}}, strict=True)
PNG = "data:image/png;base64,iVBORw0KGgo="


def turn(role: Role, *parts: Part, name: str | None = None) -> Message:
    """A turn."""
    return Message(role=role, parts=parts, name=name)


def said(role: Role, text: str) -> Message:
    """A turn of text."""
    return turn(role, TextPart(text=text))


def asked(*messages: Message, **members: Any) -> ChatRequest:
    """A request of another dialect."""
    return ChatRequest(dialect="other", model="route", messages=messages or (said("user", "?"),), **members)


def own(body: dict[str, Any], **members: Any) -> ChatRequest:
    """A request of this dialect."""
    return ChatRequest(dialect=DIALECT, model="route", messages=(), body=body, **members)


def sent(request: ChatRequest, model: str = "other-model") -> Any:
    """The body as it is on the wire."""
    return msgspec.json.decode(msgspec.json.encode(request_body(request, model)))


def refused(request: ChatRequest, model: str = "other-model") -> str | None:
    """The member that a refusal names."""
    with pytest.raises(ProviderError) as caught:
        request_body(request, model)
    assert caught.value.category is Category.UNTRANSLATABLE
    return caught.value.failure.param


def text(words: str) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": words}


# The same dialect.


def test_own_dialect_passes_through() -> None:
    """A request of this dialect keeps every member, but for the model, and asks for a stream."""
    body = {
        "model": "route",
        "stream": False,
        "messages": [{"role": "user", "content": "?", "x": 1}],
        "new": {"y": [None]},
    }
    request = own(body, own=("new",))
    assert sent(request, "claude") == {**body, "model": "claude", "stream": True}
    assert count_body(request, "claude") == {**body, "model": "claude"}
    assert body["model"] == "route"


def test_headers_of_the_dialect() -> None:
    """The caller's version and betas go on, and nothing else that a caller says."""
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b", "x-other": "c"}
    assert request_headers_of(own({}, headers=headers)) == [
        ("anthropic-version", "2026-10-21"),
        ("anthropic-beta", "a,b"),
    ]


def test_headers_of_other_dialects() -> None:
    """A translated request has the version that it is written for, whatever its caller's headers are."""
    assert request_headers_of(own({})) == [("anthropic-version", VERSION)]
    assert request_headers_of(asked(headers={"anthropic-version": "1", "anthropic-beta": "a"})) == [
        ("anthropic-version", VERSION)
    ]


# Settings.


def test_least() -> None:
    """What was not asked for is not sent, but for the limit, which is required."""
    assert sent(asked()) == {
        "model": "other-model",
        "stream": True,
        "max_tokens": 8_192,
        "messages": [{"role": "user", "content": [text("?")]}],
    }


def test_settings_are_translated() -> None:
    """Every canonical setting has its name on this wire."""
    request = asked(
        said("system", "be"), said("user", "?"), max_output_tokens=9, temperature=0.0, top_p=0.5, top_k=3,
        stop=("a", "b"), tools=(WEATHER,), tool_choice="weather", parallel_tool_calls=False, n=1,
        schema={"type": "object"}, frequency_penalty=0.0,
    )  # fmt: skip
    assert sent(request) == {
        "model": "other-model",
        "stream": True,
        "max_tokens": 9,
        "system": "be",
        "messages": [{"role": "user", "content": [text("?")]}],
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "stop_sequences": ["a", "b"],
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        "tools": [
            {
                "name": "weather",
                "description": "d",
                "strict": True,
                "input_schema": {"type": "object", "properties": {}},
            }
        ],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    }


def test_what_a_count_takes() -> None:
    """A count is asked for with the prompt and what becomes of it, without settings of the answer."""
    request = asked(said("system", "be"), said("user", "?"), max_output_tokens=9, temperature=0.5, stop=("a",))
    assert count_body(request, "claude") == {
        "model": "claude",
        "system": "be",
        "messages": [{"role": "user", "content": [text("?")]}],
    }


@pytest.mark.parametrize(
    ("choice", "parallel", "wanted"),
    [
        ("auto", None, {"type": "auto"}),
        ("auto", True, {"type": "auto"}),
        ("auto", False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
        ("f", None, {"type": "tool", "name": "f"}),
    ],
)
def test_tool_choice(choice: str, parallel: bool | None, wanted: dict[str, Any]) -> None:
    """Which tool is called, and how many at once, is said in one member."""
    request = asked(tools=(Tool(name="f"),), tool_choice=choice, parallel_tool_calls=parallel)
    assert sent(request)["tool_choice"] == wanted
    assert sent(request)["tools"] == [{"name": "f", "input_schema": {"type": "object"}}]


@pytest.mark.parametrize(
    ("param", "members"),
    [
        ("n", {"n": 2}),
        ("seed", {"seed": 0}),
        ("frequency_penalty", {"frequency_penalty": 0.1}),
        ("presence_penalty", {"presence_penalty": -0.1}),
        ("stop", {"stop": ("a", "\n")}),
        ("response_format", {"schema": {}}),
        ("temperature", {"temperature": 1.1}),
        ("logit_bias", {"own": ("logit_bias", "user")}),
        ("thinking", {"thinking_tokens": 1_023}),
        ("reasoning_effort", {"effort": "low", "max_output_tokens": 1_500}),
        ("tool_choice", {"effort": "low", "tools": (WEATHER,), "tool_choice": "required"}),
        ("temperature", {"effort": "low", "temperature": 0.5}),
        ("top_k", {"effort": "low", "top_k": 5}),
        ("top_p", {"effort": "low", "top_p": 0.9}),
    ],
)
def test_refused(param: str, members: dict[str, Any]) -> None:
    """What this wire cannot say is refused by the caller's name for it."""
    assert refused(asked(**members)) == param


# What models take.


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        (OLD, 4_096),
        ("claude-3-5-sonnet-latest", 8_192),
        ("claude-sonnet-4-20250514", 8_192),
        ("claude-sonnet-4-5", 64_000),
        ("anthropic/claude-opus-4.6", 128_000),
        ("us.anthropic.claude-opus-5-v1:0", 128_000),
        ("claude-new-9", 64_000),
        ("llama", 8_192),
    ],
)
def test_default_limit(model: str, limit: int) -> None:
    """Without a limit of the caller's the model's own is asked for, so that no answer ends early."""
    assert sent(asked(), model)["max_tokens"] == limit


@pytest.mark.parametrize(
    ("model", "effort", "members"),
    [
        (BUDGETS, "high", {"thinking": {"type": "enabled", "budget_tokens": 16_384}}),
        (LEVELS, "high", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        (LEVELS, "xhigh", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}),
        (LEVELS, "minimal", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
        ("claude-opus-4-6", "xhigh", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
        (LEVELS, "none", {"thinking": {"type": "disabled"}}),
        ("claude-sonnet-5-5", "none", {"thinking": {"type": "between_tools"}}),
    ],
)
def test_effort(model: str, effort: Any, members: dict[str, Any]) -> None:
    """An effort is a level where the model has levels, else a budget."""
    body = sent(asked(effort=effort), model)
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == members


def test_budget_fits_the_limit() -> None:
    """Thinking is a part of the limit: a budget leaves room for the answer, also where the caller set no limit."""
    limited = sent(asked(effort="max", max_output_tokens=4_000))
    assert (limited["max_tokens"], limited["thinking"]["budget_tokens"]) == (4_000, 2_000)
    unlimited = sent(asked(thinking_tokens=50_000))
    assert (unlimited["max_tokens"], unlimited["thinking"]["budget_tokens"]) == (54_096, 50_000)


@pytest.mark.parametrize(
    ("model", "param", "members"),
    [
        (LEVELS, "thinking", {"thinking_tokens": 2_000}),
        (LEVELS, "temperature", {"temperature": 0.5}),
        (LEVELS, "top_p", {"top_p": 0.99}),
        (LEVELS, "top_k", {"top_k": 5}),
        ("claude-opus-5-5", "reasoning_effort", {"effort": "none"}),
        ("claude-opus-5-5", "tool_choice", {"tools": (WEATHER,), "tool_choice": "weather"}),
    ],
)
def test_refused_by_models(model: str, param: str, members: dict[str, Any]) -> None:
    """What a model is known to refuse is refused before it is asked, so that another endpoint may be."""
    assert refused(asked(**members), model) == param


def test_defaults_are_not_said() -> None:
    """A temperature and top_p of 1 are what holds anyhow: models that take no such members still answer."""
    body = sent(asked(temperature=1.0, top_p=1.0), LEVELS)
    assert not {"temperature", "top_p"} & set(body)


def test_forced_tool_with_levels() -> None:
    """Adaptive thinking goes with a forced tool."""
    assert sent(asked(tools=(WEATHER,), tool_choice="required", effort="low"), LEVELS)["tool_choice"] == {"type": "any"}


def test_family_is_the_longest_name() -> None:
    """A newer minor version is not taken for its elder."""
    assert family_of("claude-opus-5-5-20261101").unthinking is None
    assert family_of("claude-opus-5-20260701").unthinking is not None


# Turns.


def test_system_turns() -> None:
    """System turns are one text in their order, wherever they stood; the turns around them become one."""
    request = asked(said("system", "a"), said("user", "b"), said("system", "c"), said("user", "d"), turn("system"))
    body = sent(request)
    assert body["system"] == "a\nc"
    assert body["messages"] == [{"role": "user", "content": [text("b"), text("d")]}]


def test_tool_turns() -> None:
    """Results of several tools are one user's turn, in front of what the user says with them."""
    results = (
        turn("tool", ToolResultPart(id="1", text="r1"), name="f"),
        turn(
            "user", TextPart(text="and?"), ToolResultPart(id="2", text="", images=(ImagePart(url=PNG),), is_error=True)
        ),
    )
    calls = (ToolCallPart(id="1", name="f", arguments='{"n": 1.50, "m": 12345678901234567890123}'),
             ToolCallPart(id="2", name="g", arguments=""))  # fmt: skip
    request = asked(said("user", "?"), turn("assistant", TextPart(text="so"), *calls), *results)
    raw = msgspec.json.encode(request_body(request, "other-model"))
    assert b'"input":{"n": 1.50, "m": 12345678901234567890123}' in raw
    assistant, user = sent(asked(turn("assistant", *calls[1:]), *results))["messages"]
    assert assistant == {"role": "assistant", "content": [{"type": "tool_use", "id": "2", "name": "g", "input": {}}]}
    assert user["content"][:2] == [
        {"type": "tool_result", "tool_use_id": "1", "content": "r1"},
        {"type": "tool_result", "tool_use_id": "2", "content": [image("iVBORw0KGgo=")], "is_error": True},
    ]
    assert user["content"][2:] == [text("and?")]


def image(data: str) -> dict[str, Any]:
    """An image block of base64."""
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def test_parts_keep_their_order() -> None:
    """Texts and images stand in a turn as they were given, without empty texts."""
    url = "https://example.com/a.png"
    request = asked(turn("user", TextPart(text="a"), ImagePart(url=PNG), TextPart(text=""), ImagePart(url=url)))
    assert sent(request)["messages"][0]["content"] == [
        text("a"),
        image("iVBORw0KGgo="),
        {"type": "image", "source": {"type": "url", "url": url}},
    ]


def test_turns_that_say_nothing() -> None:
    """An empty turn is left out: the API refuses empty texts."""
    body = sent(asked(said("user", "a"), said("assistant", ""), said("user", "b")))
    assert body["messages"] == [{"role": "user", "content": [text("a"), text("b")]}]


def test_thoughts() -> None:
    """Thoughts go back with their signature, or not at all."""
    parts = (ReasoningPart(text="t", signature="s"), ReasoningPart(text="u"), TextPart(text="a"))
    assert sent(asked(turn("assistant", *parts)))["messages"][0]["content"] == [
        {"type": "thinking", "thinking": "t", "signature": "s"},
        text("a"),
    ]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (turn("user", TextPart(text="a"), OpaquePart(kind="file", data={})), "messages[1].content[1]"),
        (turn("user", ImagePart(url="data:image/tiff;base64,AA==")), "messages[1].content[0].image_url"),
        (turn("user", ImagePart(url="file:///etc/passwd")), "messages[1].content[0].image_url"),
        (turn("user", TextPart(text="a"), name="ann"), "messages[1].name"),
        (turn("system", ImagePart(url=PNG)), "messages[1].content"),
        (turn("system", TextPart(text="a"), name="boss"), "messages[1].name"),
        (turn("assistant", ImagePart(url=PNG)), "messages[1].content[0]"),
        (
            turn("assistant", TextPart(text="a"), ToolCallPart(id="1", name="f", arguments="{")),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            turn("assistant", ToolCallPart(id="1", name="f", arguments="[1]")),
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)
def test_refused_turns(message: Message, param: str) -> None:
    """A part that this wire cannot say is refused by its place in the caller's body."""
    assert refused(asked(said("user", "?"), message)) == param
