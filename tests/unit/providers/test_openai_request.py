"""What an OpenAI-compatible host is sent for a request of another dialect, and how hosts differ."""

from typing import Any

import pytest

from gateway.core.chat import (
    ChatRequest,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from gateway.core.errors import Category, ProviderError
from gateway.providers._openai_chunks import DIALECT
from gateway.providers._openai_request import Quirks, request_body

PNG = "data:image/png;base64,iVBORw0KGgo="
F = Tool(name="f")
SHOWN = {"type": "image_url", "image_url": {"url": PNG}}
LABEL = {"type": "text", "text": "Images of the result of tool call c:"}


def asked(*messages: Message, **members: Any) -> ChatRequest:
    """A request of another dialect."""
    return ChatRequest(dialect="other", model="route", messages=messages, **members)


def turns(*messages: Message, quirks: Quirks | None = None) -> list[dict[str, Any]]:
    """The history that goes out."""
    return list(request_body(asked(*messages), "m", quirks or Quirks())["messages"])


@pytest.mark.parametrize(
    ("members", "effort"),
    [
        ({"effort": "max"}, "max"),
        ({"effort": "none", "thinking_tokens": 31_999}, "none"),
        ({"thinking_tokens": 0}, "none"),
        ({"thinking_tokens": 1_024}, "low"),
        ({"thinking_tokens": 4_000}, "low"),
        ({"thinking_tokens": 10_000}, "medium"),
        ({"thinking_tokens": 31_999}, "high"),
    ],
)
def test_thinking(members: dict[str, Any], effort: str) -> None:
    """An effort goes out as it is; a budget alone becomes the effort nearest to it."""
    assert request_body(asked(**members), "m")["reasoning_effort"] == effort


def test_sampling() -> None:
    """Seed and penalties have the wire's own names."""
    body = request_body(asked(seed=0, frequency_penalty=0.5, presence_penalty=-0.5), "m")
    assert (body["seed"], body["frequency_penalty"], body["presence_penalty"]) == (0, 0.5, -0.5)


@pytest.mark.parametrize("wanted", [True, False])
def test_parallel_tool_calls(wanted: bool) -> None:
    """Whether calls may be parallel goes along with the tools; without tools the wire refuses the member."""
    assert request_body(asked(tools=(F,), parallel_tool_calls=wanted), "m")["parallel_tool_calls"] is wanted
    assert "parallel_tool_calls" not in request_body(asked(tools=(F,)), "m")
    assert "parallel_tool_calls" not in request_body(asked(parallel_tool_calls=wanted), "m")


@pytest.mark.parametrize(
    ("request_", "quirks", "named"),
    [
        (asked(top_k=3), Quirks(), "top_k"),
        (asked(seed=3), Quirks(members={"seed": None}), "seed"),
        (asked(own=("mcp_servers",)), Quirks(), "mcp_servers"),
    ],
)
def test_what_a_host_cannot_be_told_is_refused_by_name(request_: ChatRequest, quirks: Quirks, named: str) -> None:
    """A member that this host does not have is refused, never left out in silence."""
    with pytest.raises(ProviderError) as caught:
        request_body(request_, "m", quirks)
    assert (caught.value.category, caught.value.failure.param) == (Category.UNTRANSLATABLE, named)


def test_hosts_with_other_names() -> None:
    """A translated request uses the host's names for members."""
    quirks = Quirks(members={"max_tokens": "max_completion_tokens", "seed": "random_seed", "top_k": "top_k"})
    body = request_body(asked(max_output_tokens=5, seed=1, top_k=2), "m", quirks)
    assert (body["max_completion_tokens"], body["random_seed"], body["top_k"]) == (5, 1, 2)
    assert not {"max_tokens", "seed"} & body.keys()


def test_own_dialect_is_not_renamed() -> None:
    """A request of this dialect goes on as it came, also to a host that has other names."""
    quirks = Quirks(members={"max_tokens": "max_completion_tokens"}, reasoning="reasoning_content")
    body = {"messages": [{"role": "assistant", "content": "a", "reasoning": "t"}], "max_tokens": 5}
    sent = request_body(ChatRequest(dialect=DIALECT, model="r", messages=(), body=body), "m", quirks)
    assert {name: sent[name] for name in body} == body


@pytest.mark.parametrize(
    ("options", "left"),
    [(None, None), ({"include_usage": True}, None), ({"include_usage": False, "x": 1}, {"x": 1})],
)
def test_hosts_that_know_no_stream_options(options: dict[str, Any] | None, left: dict[str, Any] | None) -> None:
    """A host that refuses the wish for usage is not told it, neither Atlas's nor the client's."""
    body = {"messages": [], **({} if options is None else {"stream_options": options})}
    own = ChatRequest(dialect=DIALECT, model="r", messages=(), body=body)
    assert request_body(own, "m", Quirks(usage=False)).get("stream_options") == left
    assert "stream_options" not in request_body(asked(), "m", Quirks(usage=False))


def test_thoughts_in_the_history() -> None:
    """Earlier thoughts are left out, and said to hosts that want them beside the calls that they led to."""
    call = ToolCallPart(id="c", name="f", arguments="{}")
    message = Message(role="assistant", parts=(ReasoningPart(text="a"), ReasoningPart(text="b"), call))
    (plain,) = turns(message)
    assert set(plain) == {"role", "content", "tool_calls"}
    (told,) = turns(message, quirks=Quirks(reasoning="reasoning_content"))
    assert told == {**plain, "reasoning_content": "ab"}
    (silent,) = turns(Message(role="assistant", parts=(TextPart(text="a"),)), quirks=Quirks(reasoning="reasoning"))
    assert "reasoning" not in silent


def test_images_of_a_tool() -> None:
    """What a tool shows follows its text as a user's turn, before what the user says."""
    result = ToolResultPart(id="c", text="1", images=(ImagePart(url=PNG),))
    said = {"role": "tool", "tool_call_id": "c", "content": "1"}
    assert turns(Message(role="user", parts=(result,))) == [said, {"role": "user", "content": [LABEL, SHOWN]}]
    go_on = {"type": "text", "text": "go on"}
    assert turns(Message(role="user", parts=(result, TextPart(text="go on")))) == [
        said,
        {"role": "user", "content": [LABEL, SHOWN, go_on]},
    ]


def test_images_never_part_results_from_their_calls() -> None:
    """The wire wants all results directly behind their calls, also when they come in several turns."""
    first = ToolResultPart(id="c", text="1", images=(ImagePart(url=PNG),))
    second = ToolResultPart(id="d", text="2")
    last = Message(role="assistant", parts=(TextPart(text="a"),))
    sent = turns(Message(role="tool", parts=(first,)), Message(role="tool", parts=(second,)), last)
    assert [turn["role"] for turn in sent] == ["tool", "tool", "user", "assistant"]
    assert sent[2]["content"] == [LABEL, SHOWN]


def test_a_tool_that_failed() -> None:
    """That a tool failed is in its text; the wire has no member for it."""
    (sent,) = turns(Message(role="tool", parts=(ToolResultPart(id="c", text="no such city", is_error=True),)))
    assert sent == {"role": "tool", "tool_call_id": "c", "content": "no such city"}
