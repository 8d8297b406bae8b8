"""The decoder of Ollama's lines: no line breaks it, and how lines fall into reads changes nothing."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.events import Finish, SourceEvent, ToolCall, UsageReport, decode, encode
from gateway.providers._ollama_lines import OllamaDecoder
from gateway.providers._reading import InStreamError, Malformed

TEXTS = st.none() | st.text(max_size=4)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
CALLS = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": st.text(max_size=3)}, optional={"arguments": JSON})},
    optional={"id": st.sampled_from(["a", "b", ""])},
)
MESSAGES = st.fixed_dictionaries({}, optional={"content": TEXTS, "thinking": TEXTS, "tool_calls": st.lists(CALLS)})
LINES = st.fixed_dictionaries(
    {"message": MESSAGES},
    optional={"done": st.booleans(), "done_reason": TEXTS, "eval_count": JSON, "prompt_eval_count": JSON},
)
_NAMES = st.sampled_from(["message", "error", "done", "done_reason", "response", "eval_count", "thinking"])
ODD = st.dictionaries(_NAMES, JSON | MESSAGES, max_size=3)
PAYLOADS = (LINES | ODD | JSON).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=12)


def outcome(reads: list[list[bytes]]) -> tuple[list[SourceEvent], str | None]:
    """All events, and the kind of failure that ended them; reads as the adapter does."""
    decoder, events = OllamaDecoder(), []
    try:
        for read in reads:
            if decoder.done:
                break
            events += decoder.feed(read)
            if decoder.failure is not None:
                decoder.feed([])
    except (Malformed, InStreamError) as error:
        return events, type(error).__name__
    return events, None


@settings(max_examples=300)
@given(st.lists(PAYLOADS, max_size=5))
def test_no_line_breaks_it(payloads: list[bytes]) -> None:
    """Whatever a server sends gives events that can be stored, or one of the two failures."""
    events, _ = outcome([payloads])
    assert decode(encode([*events])) == events


@given(st.lists(PAYLOADS, max_size=6), st.data())
def test_reads(payloads: list[bytes], data: st.DataObject) -> None:
    """How lines fall into reads changes neither the events nor the failure, nor what is delivered before it."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(payloads)), max_size=4)))
    reads = [payloads[low:high] for low, high in zip([0, *cuts], [*cuts, len(payloads)], strict=True)]
    assert outcome(reads) == outcome([payloads])


@given(st.lists(LINES.map(lambda line: json.dumps(line).encode()), max_size=5))
def test_shape_of_an_answer(payloads: list[bytes]) -> None:
    """Calls are numbered densely with ids of their own, a line's events belong together, and the end comes last."""
    events, _ = outcome([payloads])
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert [call.index for call in calls] == list(range(len(calls)))
    assert len({call.id for call in calls}) == len(calls)
    assert not events or not events[-1].more
    ends = [at for at, event in enumerate(events) if isinstance(event, Finish | UsageReport)]
    assert ends in ([], [len(events) - 1], [len(events) - 2, len(events) - 1])
