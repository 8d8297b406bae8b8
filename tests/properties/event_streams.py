"""Events as hypothesis makes them up, and whole logs of the chat dialect."""

from typing import Any, get_args

from hypothesis import strategies as st

from gateway.core.errors import Category, Failure
from gateway.core.events import (
    Claim,
    End,
    Event,
    Extra,
    Finish,
    FinishReason,
    Leg,
    Pause,
    Progress,
    Reasoning,
    Refusal,
    Resume,
    SourceEvent,
    Start,
    State,
    Text,
    ToolCall,
    UsageReport,
)
from gateway.core.usage import Usage

DIALECT = "openai_chat"
TEXT = st.text(max_size=6)
_COUNT = st.integers(0, 2**31)
_MEMBERS = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT, max_size=3)
_USAGES = st.builds(
    Usage, input_tokens=_COUNT, output_tokens=_COUNT, cached_tokens=st.none() | _COUNT, estimated=st.booleans()
)
_FAILURES = st.builds(
    Failure,
    category=st.sampled_from(Category),
    message=TEXT,
    retry_after_s=st.none() | st.floats(0, 300),
    param=st.none() | TEXT,
    attempts=st.lists(TEXT, max_size=2).map(tuple),
    status=st.sampled_from([None, 404]),
)
_CHOICE = st.integers(0, 65_535)
_REASON = st.none() | TEXT
_MORE = {"more": st.booleans()}
EVENTS: dict[type, st.SearchStrategy[Event]] = {
    Start: st.builds(Start, TEXT, TEXT, _COUNT, TEXT, TEXT, _MEMBERS),
    Text: st.builds(Text, _CHOICE, TEXT, **_MORE),
    Reasoning: st.builds(Reasoning, _CHOICE, TEXT, TEXT, **_MORE),
    Refusal: st.builds(Refusal, _CHOICE, TEXT, **_MORE),
    ToolCall: st.builds(ToolCall, _CHOICE, _CHOICE, TEXT, st.none() | TEXT, st.none() | TEXT, **_MORE),
    Finish: st.builds(Finish, _CHOICE, st.sampled_from(get_args(FinishReason)), st.none() | TEXT, **_MORE),
    Extra: st.builds(Extra, TEXT, _MEMBERS, st.none() | _CHOICE, **_MORE),
    UsageReport: st.builds(UsageReport, _USAGES, TEXT, st.none() | _MEMBERS, **_MORE),
    Leg: st.builds(Leg, _COUNT, TEXT, TEXT, TEXT, TEXT, **_MORE),
    Progress: st.builds(Progress, TEXT, TEXT, TEXT, st.none() | TEXT, _MEMBERS, **_MORE),
    Pause: st.builds(Pause, _REASON),
    Resume: st.builds(Resume, _REASON),
    Claim: st.builds(Claim, TEXT),
    End: st.builds(End, st.sampled_from(State), _REASON, st.none() | _FAILURES, st.none() | _USAGES, _COUNT),
}

# Whole answers: what a provider of the chat dialect yields, chunk by chunk.

_TOPS = st.sampled_from([{}, {"system_fingerprint": "fp_1"}, {"system_fingerprint": "fp_2", "x": {"y": [1]}}])
_AT_CHOICE = st.sampled_from(
    [
        {
            "logprobs": {
                "content": [{"token": "a", "logprob": -1.0, "bytes": None, "top_logprobs": []}],
                "refusal": None,
            }
        },
        {"content_filter_results": {"hate": {"filtered": False}}},
        {"delta": {"x_note": "n"}},
    ]
)
_SOURCE_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
_USAGE_CHUNKS = st.sampled_from(
    [
        UsageReport(Usage(input_tokens=3, output_tokens=2), DIALECT, _SOURCE_USAGE),
        UsageReport(Usage(input_tokens=3, output_tokens=2, cached_tokens=1, reasoning_tokens=1)),
    ]
)


def _chunk(events: list[SourceEvent]) -> list[SourceEvent]:
    from msgspec.structs import replace

    return [*(replace(event, more=True) for event in events[:-1]), *events[-1:]]


@st.composite
def answers(draw: st.DrawFn) -> list[list[SourceEvent]]:
    """The chunks of one answer with at least one semantic delta, of one or two choices, each finished or not."""
    choices = range(draw(st.integers(1, 2)))
    chunks: list[list[SourceEvent]] = []
    if draw(st.booleans()):
        chunks.append([Extra(DIALECT, draw(_TOPS))])
    roles = draw(st.booleans())
    begun: dict[int, int] = dict.fromkeys(choices, 0)
    if roles:
        chunks += [[Extra(DIALECT, {"delta": {"role": "assistant", "content": ""}}, choice)] for choice in choices]
    for _ in range(draw(st.integers(1, 8))):
        choice = draw(st.sampled_from(choices))
        chunk: list[SourceEvent] = []
        if draw(st.integers(0, 4)) == 0:
            chunk.append(Extra(DIALECT, draw(_TOPS)))
        if draw(st.integers(0, 4)) == 0:
            chunk.append(Extra(DIALECT, draw(_AT_CHOICE), choice))
        chunk += draw(_deltas(choice, begun))
        chunks.append(_chunk(chunk))
    if draw(st.integers(0, 3)) == 0:
        chunks.append([draw(_USAGE_CHUNKS)])
    for choice in choices:
        if draw(st.integers(0, 5)):
            chunks.append([Finish(choice, draw(st.sampled_from(["stop", "length", "content_filter"])))])
    if draw(st.booleans()):
        chunks.append([draw(_USAGE_CHUNKS)])
    return chunks


@st.composite
def _deltas(draw: st.DrawFn, choice: int, begun: dict[int, int]) -> list[SourceEvent]:
    text = draw(st.text(min_size=1, max_size=4))
    match draw(st.sampled_from(["text", "text", "text", "reasoning", "refusal", "call", "fragment"])):
        case "reasoning":
            return [Reasoning(choice, text, draw(st.sampled_from(["reasoning", "reasoning_content"])))]
        case "refusal":
            return [Refusal(choice, text)]
        case "call":
            index = begun[choice]
            begun[choice] += 1
            note = {"delta": {"tool_calls": [{"index": index, "x_note": {"y": 1}}]}}
            call = ToolCall(choice, index, draw(TEXT), f"call_{index}", "f")
            return [Extra(DIALECT, note, choice), call] if draw(st.booleans()) else [call]
        case "fragment" if begun[choice]:
            return [ToolCall(choice, begun[choice] - 1, text)]
        case _:
            return [Text(choice, text)]


def log_of(chunks: list[list[SourceEvent]], state: State, **flags: Any) -> list[list[Event]]:
    """The entries of a stream: its start, a leg, the chunks, its end."""
    start = Start("s", "chatcmpl-1", 7, "m", DIALECT, flags)
    failure = Failure(Category.STREAM_BROKEN, "cut") if state is State.FAILED else None
    return [[start], [Leg(1, "e", "p", "s", "w")], *([*chunk] for chunk in chunks), [End(state, None, failure)]]
