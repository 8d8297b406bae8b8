"""The decoder of server-sent events: the same bytes give the same events, however they are cut."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.sse import OversizeEvent, SSEDecoder

SAMPLES = {
    "usual": b"data: a\n\ndata: b\n\ndata: [DONE]\n\n",
    "crlf": b"data: a\r\n\r\ndata: b\r\n\r\n",
    "cr": b"data: a\r\rdata: b\r\r",
    "mixed": b"data: a\n\r\ndata: b\r\n\ndata: c\r\rdata: d\r\n\rdata: e\n\n",
    "bom": b"\xef\xbb\xbfdata: a\n\ndata: b\n\n",
    "bom of an empty stream": b"\xef\xbb\xbf",
    "half a bom": b"\xef\xbb\n\ndata: a\n\n",
    "comments": b": OPENROUTER PROCESSING\n\ndata: a\n\n:\n\n: x\r\ndata: b\n\n",
    "several lines": b"data: a\ndata: b\ndata:c\ndata\n\ndata:\n\ndata: d\n\n",
    "other fields": b"event: x\nid: 7\ndata: a\nretry: 10\n\nid: 8\n\ndata: b\nevent: y\n\n",
    "no blank line": b"data: a\n\ndata: [DONE]",
    "one line end": b"data: a\n\ndata: [DONE]\r\n",
    "blank lines": b"\n\n\r\n\n\r\rdata: a\n\n\n\n\ndata: b\n\n",
    "spaces": b"data:a\n\ndata:  a\n\ndata: \n\n data: no\n\ndatax: no\n\n",
    "not text": b"data: \xff\xfe\n\ndata: \xe6\x97\xa5\n\n\x00\n\n",
    "data in data": b"data: data: x\n\ndata: \\n\\ndata: x\n\n",
}
_PIECES = st.sampled_from(
    [b"data: ", b"data:", b"data", b":", b" ", b"\n", b"\n\n", b"\r", b"\r\n", b"x", b"id: 1", b"\xef\xbb\xbf", b"\xc3"]
)


def reference(raw: bytes) -> list[bytes]:
    """The WHATWG grammar, a byte at a time; like the product, it takes a last event without its blank line."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    lines, line, at = [], b"", 0
    while at < len(raw):
        byte = raw[at : at + 1]
        at += 1
        if byte in {b"\r", b"\n"}:
            at += raw[at - 1 : at + 1] == b"\r\n"
            lines.append(line)
            line = b""
        else:
            line += byte
    events, data = [], []
    for each in [*lines, line, b""]:
        field, _, value = each.partition(b":")
        if field == b"data":
            data.append(value[1:] if value[:1] == b" " else value)
        elif not each and data:
            events.append(b"\n".join(data))
            data = []
    return events


def decoded(*pieces: bytes) -> list[bytes]:
    """All events of the pieces, the rest at the end of the body included."""
    decoder = SSEDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.flush()


@pytest.mark.parametrize("raw", SAMPLES.values(), ids=SAMPLES)
def test_samples(raw: bytes) -> None:
    """In one piece the product reads what the standard says."""
    assert decoded(raw) == reference(raw)


@pytest.mark.parametrize("raw", SAMPLES.values(), ids=SAMPLES)
def test_cut_at_every_pair_of_offsets(raw: bytes) -> None:
    """Three pieces give what one piece gives, wherever the cuts are."""
    whole = decoded(raw)
    for first, second in combinations(range(len(raw) + 1), 2):
        assert decoded(raw[:first], raw[first:second], raw[second:]) == whole, (first, second)


@pytest.mark.parametrize("raw", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_pieces(raw: bytes, size: int) -> None:
    """Pieces of one, two or three bytes give what one piece gives."""
    assert decoded(*(raw[at : at + size] for at in range(0, len(raw), size))) == decoded(raw)


@given(st.lists(st.lists(_PIECES, max_size=6).map(b"".join), max_size=12))
def test_any_bytes_in_any_pieces(pieces: list[bytes]) -> None:
    """Whatever the bytes and the pieces, the events are those of the standard."""
    assert decoded(*pieces) == reference(b"".join(pieces))


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_noise(pieces: list[bytes]) -> None:
    """No bytes break the decoder."""
    assert decoded(*pieces) == reference(b"".join(pieces))


def test_events_come_with_the_read_that_completes_them() -> None:
    """An event is not held back once its blank line is there, not even for an LF that may follow a CR."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [b"a"]
    assert decoder.feed(b"\ndata: b\n") == []
    assert decoder.feed(b"\n") == [b"b"]
    assert decoder.flush() == []


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_oversize(size: int) -> None:
    """An event without end is refused at the limit, not kept; one below the limit passes, and many after it."""
    decoder = SSEDecoder(limit=256)
    good = b"data: " + b"x" * 200 + b"\n\n"
    for at in range(0, len(good * 5), size):
        decoder.feed((good * 5)[at : at + size])
    assert decoder.flush() == []

    def endless() -> None:
        for _ in range(0, 4096, size):
            decoder.feed(b"x" * size)

    with pytest.raises(OversizeEvent, match="256"):
        endless()
