"""The decoder of Anthropic's events: its short way changes nothing, and no payload breaks it."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.events import Extra, Finish, SourceEvent, Text, ToolCall, UsageReport, decode, encode, is_content
from gateway.providers._anthropic_events import EventDecoder
from gateway.providers._reading import InStreamError, Malformed
from tests.properties.chunk_streams import JSON, TEXTS

BLOCKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "text": ({"text": ""}, "text_delta", "text"),
    "thinking": ({"thinking": "", "signature": ""}, "thinking_delta", "thinking"),
    "tool_use": ({"id": "toolu_1", "name": "f", "input": {}}, "input_json_delta", "partial_json"),
    "server_tool_use": ({"id": "srv_1", "name": "g", "input": {}}, "input_json_delta", "partial_json"),
    "web_search_tool_result": ({"content": [{"url": "u"}]}, "citations_delta", "citation"),
}
START: dict[str, Any] = {
    "type": "message_start",
    "message": {"id": "m", "usage": {"input_tokens": 3, "output_tokens": 1}},
}


class SlowDecoder(EventDecoder):
    """Parses every event."""

    @staticmethod
    def _plain(_: bytes) -> Any:
        raise msgspec.ValidationError


@st.composite
def _write(draw: st.DrawFn, event: dict[str, Any]) -> bytes:
    """An event as one vendor writes it: order of members, blanks, escapes, padding at the end."""
    shown = dict(reversed(event.items())) if draw(st.booleans()) else event
    separators = draw(st.sampled_from([(",", ":"), (", ", " : ")]))
    text = json.dumps(shown, ensure_ascii=draw(st.booleans()), separators=separators)
    payload = (text[:-1] + " " * draw(st.integers(0, 3)) + "}").encode(errors="replace")
    spoilt = [payload] * 8 + [payload[:-3], payload.replace(b"x", b"\xff"), payload.replace(b'"index"', b'"x"')]
    return draw(st.sampled_from(spoilt))


@st.composite
def _block(draw: st.DrawFn, index: int) -> list[dict[str, Any]]:
    kind = draw(st.sampled_from(["text"] * 4 + ["thinking"] * 2 + ["tool_use"] * 2 + sorted(BLOCKS)))
    first, delta, member = BLOCKS[kind]
    events: list[dict[str, Any]] = [{"type": "content_block_start", "index": index, "content_block": {"type": kind}}]
    events[0]["content_block"] |= first
    for text in draw(st.lists(TEXTS, max_size=5)):
        oddities: list[dict[str, Any]] = [*[{}] * 6, {"x": 1}, {member: None}, {"type": "signature_delta"}]
        odd = draw(st.sampled_from(oddities))
        place = draw(st.sampled_from([index] * 12 + [0, index + 1]))
        events.append({"type": "content_block_delta", "index": place, "delta": {"type": delta, member: text, **odd}})
    return [*events, {"type": "content_block_stop", "index": index}] if draw(st.integers(0, 5)) else events


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The payloads of one stream: blocks one after another, some without end, some out of place."""
    events: list[dict[str, Any]] = [START]
    for number in range(draw(st.integers(0, 4))):
        events += draw(_block(number))
        events += [{"type": "ping"}] * draw(st.integers(0, 1))
    reason = draw(st.sampled_from(["end_turn", "tool_use", "refusal", "odd", None]))
    usage = draw(st.sampled_from([{"output_tokens": 9}, {"output_tokens": 9, "input_tokens": None}, None]))
    events.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage})
    events += draw(st.sampled_from([[], [{"type": "message_stop"}], [{"type": "error", "error": {"type": "x"}}]]))
    if draw(st.integers(0, 5)) == 0:
        events = draw(st.permutations(events))
    return [draw(_write(event)) for event in events]


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """An event but for one member, which is anything."""
    event = json.loads(json.dumps(draw(st.sampled_from([START, *draw(_block(0))]))))
    places = [event, *(value for value in event.values() if isinstance(value, dict))]
    place = draw(st.sampled_from(places))
    place[draw(st.sampled_from([*place, "error", "usage", "type", "index", "delta"]))] = draw(JSON)
    return json.dumps(event).encode()


def outcome(decoder: EventDecoder, reads: list[list[bytes]]) -> tuple[list[SourceEvent], str | None]:
    """All events, and the kind of failure that ended them; like the adapter, asks on after a failure."""
    events: list[SourceEvent] = []
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


def canonical(events: list[SourceEvent]) -> list[SourceEvent]:
    """What other dialects see, without the borders of chunks."""
    return [msgspec.structs.replace(event, more=False) for event in events if not isinstance(event, Extra)]


@settings(max_examples=300)
@given(streams())
def test_short_way(payloads: list[bytes]) -> None:
    """What plain deltas say by the short way is what a decoder says that parses every event."""
    fast, slow = EventDecoder(), SlowDecoder()
    (events, failure), (wanted, failed) = outcome(fast, [payloads]), outcome(slow, [payloads])
    assert (canonical(events), failure) == (canonical(wanted), failed)
    assert (fast.malformed, fast.done) == (slow.malformed, slow.done)


@given(streams(), st.data())
def test_reads(payloads: list[bytes], data: st.DataObject) -> None:
    """How payloads fall into reads changes neither the events nor the failure, nor what is delivered before it."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(payloads)), max_size=4)))
    reads = [payloads[low:high] for low, high in zip([0, *cuts], [*cuts, len(payloads)], strict=True)]
    assert outcome(EventDecoder(), reads) == outcome(EventDecoder(), [payloads])


@settings(max_examples=300)
@given(st.lists(hostile() | JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20), max_size=4))
def test_no_payload_breaks_it(payloads: list[bytes]) -> None:
    """Whatever a vendor sends gives events that can be stored, or one of the two failures."""
    start = json.dumps(START).encode()
    for reads in ([payloads], [[start, *payloads]]):
        events, _ = outcome(EventDecoder(), reads)
        assert decode(encode([*events])) == events


@given(streams())
def test_more(payloads: list[bytes]) -> None:
    """The events of one payload are one chunk: each but the last says that more follows."""
    decoder = EventDecoder()
    for payload in payloads:
        if decoder.done or decoder.failure is not None:
            break
        try:
            events = decoder.feed([payload])
        except (Malformed, InStreamError):
            break
        assert [event.more for event in events] == [True] * (len(events) - 1) + [False] * bool(events)


@given(streams())
def test_order(payloads: list[bytes]) -> None:
    """There is one finish at most, no content comes behind it, and tool calls are numbered from 0 without gaps."""
    events, _ = outcome(EventDecoder(), [payloads])
    finishes = [at for at, event in enumerate(events) if isinstance(event, Finish)]
    assert len(finishes) <= 1
    if finishes:
        assert not any(is_content(event) for event in events[finishes[0] :])
    begun = [event.index for event in events if isinstance(event, ToolCall) and event.id is not None]
    assert begun == list(range(len(begun)))


@given(st.lists(TEXTS, max_size=6))
def test_text(texts: list[str]) -> None:
    """Any text comes out as it went in, whatever blanks follow it."""
    decoder = EventDecoder()
    decoder.feed([json.dumps(START).encode(), *(json.dumps(event).encode() for event in BEGIN)])
    payloads = [
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%s}%s}'
        % (json.dumps(text, ensure_ascii=False).encode(errors="replace"), b" " * at)
        for at, text in enumerate(texts)
    ]
    assert canonical(decoder.feed(payloads)) == [Text(0, text) for text in texts if text]


BEGIN = [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}]


@pytest.mark.parametrize("deep", [b"[", b'{"type":', b'{"type":"content_block_delta","delta":['])
def test_bottomless(deep: bytes) -> None:
    """JSON that nests without end is malformed, not a crash."""
    decoder = EventDecoder()
    decoder.feed([json.dumps(START).encode(), *(json.dumps(event).encode() for event in BEGIN)])
    assert decoder.feed([deep * 50_000]) == []
    assert decoder.malformed == 1


@pytest.mark.parametrize("place", ["message", "usage"])
def test_numbers_that_cannot_be_logged(place: str) -> None:
    """A number beyond 64 bits makes its event malformed, as one that no journal could hold."""
    event = json.loads(json.dumps(START))
    (event["message"] if place == "message" else event["message"]["usage"])["input_tokens"] = 2**70
    decoder = EventDecoder()
    assert decoder.feed([json.dumps(event).encode()]) == []
    assert decoder.malformed == 1


@given(st.lists(st.dictionaries(st.sampled_from(["input_tokens", "output_tokens"]), st.none() | st.integers(0, 99))))
def test_usage_is_cumulative(usages: list[dict[str, Any]]) -> None:
    """The last count that was given is the one that is reported, and no report repeats the one before."""
    payloads = [{"type": "message_delta", "delta": {}, "usage": usage} for usage in usages]
    events, _ = outcome(EventDecoder(), [[json.dumps(event).encode() for event in (START, *payloads)]])
    sources = [event.source for event in events if isinstance(event, UsageReport)]
    known = dict(START["message"]["usage"])
    for usage in usages:
        known |= {name: value for name, value in usage.items() if value is not None}
    assert sources[-1] == known
    assert all(earlier != later for earlier, later in pairwise(sources))
