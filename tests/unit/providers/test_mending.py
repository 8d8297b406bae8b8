"""Payloads that are no strict JSON are told as far as they say something; nothing of an answer is lost in silence."""

import pytest

from gateway.core.events import SourceEvent, Text
from gateway.providers._anthropic_events import EventDecoder
from gateway.providers._mending import mended
from gateway.providers._ollama_lines import OllamaDecoder
from gateway.providers._openai_chunks import ChunkDecoder


def said(events: list[SourceEvent]) -> str:
    """The visible text."""
    return "".join(event.text for event in events if isinstance(event, Text))


def test_half_an_emoji_in_each_chunk() -> None:
    """A host that cuts texts by UTF-16 units loses an emoji, and nothing around it."""
    halves = [rb'{"choices": [{"index": 0, "delta": {"content": "A\ud83d"}}]}',
              rb'{"choices": [{"index": 0, "delta": {"content": "\ude00B"}}]}']  # fmt: skip
    decoder = ChunkDecoder()
    assert said(decoder.feed(halves)) == "A\ufffd\ufffdB"
    assert decoder.malformed == 0


def test_on_every_wire() -> None:
    """The same in the events of messages and in lines."""
    head = b'{"type": "message_start", "message": {}}'
    block = b'{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}'
    delta = rb'{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "A\ud83d"}}'
    assert said(EventDecoder().feed([head, block, delta])) == "A\ufffd"
    assert said(OllamaDecoder().feed([rb'{"message": {"content": "A\ud83d"}, "done": false}'])) == "A\ufffd"


def test_a_number_that_is_none() -> None:
    """A log-probability of minus infinity costs the answer no word."""
    odd = b'{"choices": [{"index": 0, "delta": {"content": "A"}, "logprobs": {"content": [{"logprob": -Infinity}]}}]}'
    assert said(ChunkDecoder().feed([odd])) == "A"


@pytest.mark.parametrize("payload", [b"{", b'{"a": "NaN"}', rb'{"a": "\\ud83d"}', b"NaN{", b"[" * 100_000 + b"NaN"])
def test_what_is_not_mended(payload: bytes) -> None:
    """What is strict, or is broken beyond that, stays what it is."""
    assert mended(payload) is None
