"""The framing of lines: the same bytes give the same lines, however they are cut."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.lines import LineDecoder
from gateway.upstream.sse import OversizeEvent

SAMPLES = {
    "usual": b'{"a":1}\n{"b":2}\n{"done":true}\n',
    "crlf": b'{"a":1}\r\n{"b":2}\r\n',
    "mixed": b"a\nb\r\nc\n\r\nd\r\r\n",
    "blank": b"\n\n\r\n a \n\n",
    "no end": b"a\nb",
    "half an end": b"a\nb\r",
    "not text": b"\xff\xfe\n\xe6\x97\xa5\n\x00\n\xe6\n\x97",
    "nothing": b"",
}
_PIECES = st.sampled_from([b"{}", b"\n", b"\r", b"\r\n", b"\n\n", b"x", b" ", b"\xc3", b"\xef\xbb\xbf"])


def reference(raw: bytes) -> list[bytes]:
    """The grammar at its shortest."""
    return [line for line in (each.removesuffix(b"\r") for each in raw.split(b"\n")) if line]


def decoded(*pieces: bytes) -> list[bytes]:
    """All lines of the pieces, the rest at the end of the body included."""
    decoder = LineDecoder()
    return [line for piece in pieces for line in decoder.feed(piece)] + decoder.flush()


@pytest.mark.parametrize("raw", SAMPLES.values(), ids=SAMPLES)
def test_cut_at_every_pair_of_offsets(raw: bytes) -> None:
    """Three pieces give what the grammar says of the whole, wherever the cuts are."""
    assert decoded(raw) == reference(raw)
    for first, second in combinations(range(len(raw) + 1), 2):
        assert decoded(raw[:first], raw[first:second], raw[second:]) == reference(raw), (first, second)


@pytest.mark.parametrize("raw", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_pieces(raw: bytes, size: int) -> None:
    """Pieces of one, two or three bytes give what one piece gives."""
    assert decoded(*(raw[at : at + size] for at in range(0, len(raw), size))) == reference(raw)


@given(st.lists(st.lists(_PIECES, max_size=6).map(b"".join), max_size=12))
def test_any_bytes_in_any_pieces(pieces: list[bytes]) -> None:
    """Whatever the bytes and the pieces, the lines are those of the grammar."""
    assert decoded(*pieces) == reference(b"".join(pieces))


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_noise(pieces: list[bytes]) -> None:
    """No bytes break the framing."""
    assert decoded(*pieces) == reference(b"".join(pieces))


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_oversize(size: int) -> None:
    """A line without end is refused at the limit, not kept; one below the limit passes, and many after it."""
    decoder = LineDecoder(limit=256)
    good = b"x" * 200 + b"\n"
    lines = [line for at in range(0, len(good * 5), size) for line in decoder.feed((good * 5)[at : at + size])]
    assert lines == [b"x" * 200] * 5

    def endless() -> None:
        for _ in range(0, 4096, size):
            decoder.feed(b"x" * size)

    with pytest.raises(OversizeEvent, match="256"):
        endless()
