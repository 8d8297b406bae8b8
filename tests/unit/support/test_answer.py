"""The planned bytes say what the plan says."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.answer import body_of, event_of, pieces_of, usage_of
from tests.support.fold import Call, fold
from tests.support.plan import AZURE_FIRST, OPENROUTER_COMMENT, Garbage, GarbageKind, Plan, Tool, UsageStyle, refusing
from tests.support.sse import data_frames, frames
from tests.support.truth import tokens_seen

STREAM: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
WITH_USAGE = {**STREAM, "stream_options": {"include_usage": True}}
WHOLE = {**STREAM, "stream": False}
TOOLS = (Tool(id="a", name="add", arguments='{"x": [1, 2, "drei ß"]}'), Tool(id="b", name="now"))


@given(
    seed=st.integers(0, 999),
    tokens=st.integers(0, 30),
    reasoning=st.integers(0, 5),
    choices=st.integers(1, 3),
    group=st.integers(1, 4),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_content(seed: int, tokens: int, reasoning: int, choices: int, group: int, newline: str) -> None:
    """A client that reads all of it has the truth of every choice, in any spelling."""
    plan = Plan(seed=seed, tokens=tokens, reasoning=reasoning, tokens_per_event=group, newline=newline)
    folded = fold(body_of(plan, {**STREAM, "n": choices}))
    assert set(folded.choices) == set(range(choices))
    for number, choice in folded.choices.items():
        assert (choice.text, choice.reasoning, choice.finish) == (
            plan.text(number),
            plan.reasoning_text(number),
            "stop",
        )
    assert folded.done
    assert len(folded.ids) == 1


@pytest.mark.parametrize("always_zero", [False, True])
def test_tools(always_zero: bool) -> None:
    """Tool calls come in fragments; some vendors call each of them number 0."""
    plan = Plan(tokens=0, tools=TOOLS, tool_fragment=3, tool_index_zero=always_zero)
    folded = fold(body_of(plan, STREAM))
    assert folded.finish == "tool_calls"
    if always_zero:
        assert folded.choices[0].tools == {0: Call("a", "addnow", TOOLS[0].arguments + TOOLS[1].arguments)}
    else:
        assert folded.choices[0].tools == {0: Call("a", "add", TOOLS[0].arguments), 1: Call("b", "now", "{}")}


def test_usage_styles() -> None:
    """Usage stands where each sort of vendor puts it."""
    full = {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18}
    assert usage_of(Plan(), STREAM) == full

    def usages(style: UsageStyle, request: dict[str, Any]) -> list[Any]:
        return [chunk.get("usage", "absent") for chunk in fold(body_of(Plan(usage=style), request)).chunks]

    assert usages("asked", STREAM) == ["absent"] * 10
    assert usages("asked", WITH_USAGE) == [None] * 10 + [full]
    assert usages("always", STREAM) == ["absent"] * 10 + [full]
    assert usages("finish", STREAM) == ["absent"] * 9 + [full]
    assert usages("never", WITH_USAGE) == ["absent"] * 10
    assert [usage["completion_tokens"] for usage in usages("every", STREAM)] == [0, *range(1, 9), 8]


def test_ends() -> None:
    """Finish and [DONE] can be missing, and finish can come with the last token."""
    assert not fold(body_of(Plan(no_done=True), STREAM)).done
    assert fold(body_of(Plan(no_done=True), STREAM)).finish == "stop"
    assert fold(body_of(Plan(no_finish=True), STREAM)).finish is None
    joined = fold(body_of(Plan(finish_with_last=True, finish_reason="length"), STREAM))
    assert joined.chunks[-1]["choices"][0] == {
        "index": 0,
        "delta": {"content": Plan().text().removeprefix(Plan(tokens=7).text())},
        "finish_reason": "length",
    }


def test_strange_members() -> None:
    """Vendors' own members stand in chunk, choice and delta; Azure's first chunk has no choice."""
    plan = Plan(
        preamble=(AZURE_FIRST,),
        extra_chunk={"system_fingerprint": "fp", "x_groq": {"id": "r"}},
        extra_choice={"logprobs": {"content": []}},
        extra_delta={"obfuscation": "xyz"},
    )
    first, *chunks = fold(body_of(plan, STREAM)).chunks
    assert (first["choices"], first["id"]) == ([], chunks[0]["id"])
    for chunk in chunks:
        assert (chunk["system_fingerprint"], chunk["x_groq"]) == ("fp", {"id": "r"})
        assert chunk["choices"][0]["logprobs"] == {"content": []}
        assert chunk["choices"][0]["delta"]["obfuscation"] == "xyz"


def test_framing_of_the_stream() -> None:
    """Comments, more lines, raw bytes before and after, and no space after the colon are written as planned."""
    plan = Plan(tokens=1, comment=OPENROUTER_COMMENT, frame_lines=("event: message",), data_prefix="data:")
    found = frames(body_of(plan.with_(prologue=b"\xef\xbb\xbf: first\n\n", epilogue=b": last\n\n"), STREAM))
    comments = [frame.comment for frame in found if frame.data is None]
    assert comments == ["first", *["OPENROUTER PROCESSING"] * 4, "last"]
    assert {frame.event for frame in found if frame.data is not None} == {"message"}


def test_faults_of_content() -> None:
    """Errors end the stream, doubles are doubles, garbage lies where it should, and nothing else is lost."""
    fault = {"error": {"message": "no", "code": "overloaded"}}
    failed = fold(body_of(Plan(error_event_at=(4, fault)), STREAM))
    assert (failed.error, failed.done, tokens_seen(1, failed.text)) == (fault["error"], False, 3)
    doubled = body_of(Plan(duplicates=frozenset({3})), STREAM)
    assert data_frames(doubled)[3] == data_frames(doubled)[4]


@pytest.mark.parametrize("kind", get_args(GarbageKind))
def test_garbage(kind: GarbageKind) -> None:
    """Garbage lies where it should, is no chunk, and all else is as it was; or it stands in an event's place."""
    honest = pieces_of(Plan(), STREAM)
    found = pieces_of(Plan(garbage=Garbage(kind=kind, at=3, count=3, size=5000)), STREAM)
    assert [*found[:3], *found[4:]] == honest
    frame = found[3].data[: len(found[3].data) // 3]
    assert frame * 3 == found[3].data
    assert frame.endswith(b"\n\n")
    with pytest.raises((ValueError, AssertionError, TypeError, AttributeError, KeyError)):
        fold(frame)
    assert (len(frame) > 5000) == (kind == "oversize")
    replaced = pieces_of(Plan(garbage=Garbage(kind=kind, at=3, replace=True, size=5000)), STREAM)
    assert [*replaced[:3], *replaced[4:]] == [*honest[:3], *honest[4:]]


def test_refusals_and_whole_answers() -> None:
    """Refusals have OpenAI's shape, and an answer without streaming is one object of the same truth."""
    plan = refusing(429, code="rate_limit_exceeded", retry_after="2")
    assert (plan.status, plan.headers) == (429, {"retry-after": "2"})
    assert json.loads(body_of(plan, STREAM))["error"]["code"] == "rate_limit_exceeded"
    assert "503" in json.loads(body_of(Plan(status=503), WHOLE))["error"]["message"]
    answer = json.loads(body_of(Plan(tools=TOOLS, reasoning=2), {**WHOLE, "n": 2}))
    assert [choice["message"]["content"] for choice in answer["choices"]] == [Plan().text(0), Plan().text(1)]
    assert answer["choices"][0]["message"]["reasoning_content"] == Plan(reasoning=2).reasoning_text()
    streamed = fold(body_of(Plan(tools=TOOLS, reasoning=2, usage="always"), {**STREAM, "n": 2}))
    assert answer["usage"] == streamed.usage


def test_events_are_found_by_kind() -> None:
    """Event numbers are those of the honest frames."""
    plan = Plan(reasoning=2, tools=TOOLS)
    kinds = [piece.kind for piece in pieces_of(plan, WITH_USAGE)]
    assert kinds[:4] == ["role", "reasoning", "reasoning", "text"]
    assert kinds[-3:] == ["finish", "usage", "done"]
    assert (event_of(plan, "role"), event_of(plan, "text", 2), event_of(plan, "done")) == (0, 5, len(kinds) - 1)
    with pytest.raises(LookupError, match="preamble"):
        event_of(plan, "preamble")
