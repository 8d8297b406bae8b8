"""The decoder of chunks: its short cut changes nothing, and no chunk breaks it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.events import Extra, SourceEvent, Text, UsageReport, decode, encode
from gateway.providers._openai_chunks import ChunkDecoder
from gateway.providers._reading import InStreamError, Malformed
from tests.properties.chunk_streams import JSON, TEXTS, hostile, streams


def encode_json(value: Any) -> bytes:
    """JSON as most vendors write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


class SlowDecoder(ChunkDecoder):
    """Parses every chunk."""

    def _learn(self, payload: bytes, chunk: dict[str, Any], found: list[SourceEvent]) -> None:
        """Learn nothing."""


def outcome(decoder: ChunkDecoder, reads: list[list[bytes]]) -> tuple[list[SourceEvent], str | None]:
    """All events, and the kind of failure that ended them; like the adapter, asks on after a failure."""
    events: list[SourceEvent] = []
    try:
        for read in reads:
            events += decoder.feed(read)
            if decoder.failure is not None:
                decoder.feed([])
    except (Malformed, InStreamError) as error:
        return events, type(error).__name__
    return events, None


@settings(max_examples=300)
@given(streams())
def test_short_cut(payloads: list[bytes]) -> None:
    """The events by template are those of a decoder that parses every chunk."""
    fast, slow = ChunkDecoder(), SlowDecoder()
    assert outcome(fast, [payloads]) == outcome(slow, [payloads])
    assert (fast.malformed, fast.seen, fast.finished) == (slow.malformed, slow.seen, slow.finished)


@given(streams(), st.data())
def test_reads(payloads: list[bytes], data: st.DataObject) -> None:
    """How payloads fall into reads changes neither the events nor the failure, nor what is delivered before it."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(payloads)), max_size=4)))
    reads = [payloads[low:high] for low, high in zip([0, *cuts], [*cuts, len(payloads)], strict=True)]
    assert outcome(ChunkDecoder(), reads) == outcome(ChunkDecoder(), [payloads])


@given(st.lists(TEXTS, max_size=4))
def test_text(texts: list[str]) -> None:
    """Any text of a repeated shape comes out as it went in, and the short cut was taken."""
    envelope = b'{"id":"x","choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}],"z":{"content":"y"}}'
    decoder = ChunkDecoder()
    said = ["first", "second", *texts]
    events = decoder.feed([envelope % encode_json(text) for text in said])
    assert [event.text for event in events if isinstance(event, Text)] == [text for text in said if text]
    assert decoder._prefix


@given(st.lists(hostile() | JSON.map(encode_json) | st.binary(max_size=20), max_size=3))
@settings(max_examples=300)
def test_no_payload_breaks_it(payloads: list[bytes]) -> None:
    """Whatever a vendor sends gives events that can be stored, or one of the two failures."""
    events, _ = outcome(ChunkDecoder(), [payloads])
    assert decode(encode([*events])) == events


@given(streams())
def test_more(payloads: list[bytes]) -> None:
    """A read never ends within a chunk: its last event says that nothing of its chunk follows."""
    for payload in payloads:
        events, _ = outcome(ChunkDecoder(), [[payload]])
        assert [event.more for event in events] == [True] * (len(events) - 1) + [False] * bool(events)


def test_template_forgets_usage() -> None:
    """Usage that changes and changes back is reported each time, also when the chunks look alike again."""

    def chunk(tokens: int) -> bytes:
        return b'{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"completion_tokens":%d}}' % tokens

    events = ChunkDecoder().feed([chunk(1), chunk(1), chunk(1), chunk(2), chunk(1), chunk(1)])
    reports = [event.usage.output_tokens for event in events if isinstance(event, UsageReport)]
    assert reports == [1, 2, 1]


def test_template_keeps_unknown_members() -> None:
    """Members that stand in every chunk of a template are in the log once, or with each chunk of their choice."""
    payload = b'{"fp":1,"choices":[{"index":0,"delta":{"content":"a","y":2},"filter":{"z":3}}]}'
    events = ChunkDecoder().feed([payload] * 3)
    assert [event.patch for event in events if isinstance(event, Extra) and event.choice is None] == [{"fp": 1}]
    assert sum(isinstance(event, Extra) and event.choice == 0 for event in events) == 3


@pytest.mark.parametrize(
    "text", [b'"\xff"', b'"\\ud800"', b'"a" ', b'"a","content":"b"', b'"\x01"', b"null", b"1", b'""']
)
def test_template_with_odd_text(text: bytes) -> None:
    """What stands where a template has its text is read as JSON, whatever it is."""
    around = b'{"choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]}'
    payloads = [around % b'"a"', around % b'"b"', around % text, around % b'"c"']
    assert outcome(ChunkDecoder(), [payloads]) == outcome(SlowDecoder(), [payloads])


@pytest.mark.parametrize("deep", [b"[", b'{"choices":['])
def test_bottomless(deep: bytes) -> None:
    """JSON that nests without end is malformed, not a crash."""
    decoder = ChunkDecoder()
    assert decoder.feed([deep * 50_000]) == []
    assert decoder.malformed == 1
