"""RESP2: replies come back whole, however the network cuts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.resp import Decoder, ErrorReply, ProtocolError, Reply, command

WIRE = (
    b"+OK\r\n:42\r\n:-1\r\n$5\r\nhe\r\nl\r\n$-1\r\n$0\r\n\r\n-ERR no \xc3\xa7\r\n*-1\r\n*0\r\n"
    b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n-OOM x\r\n$-1\r\n"
)
REPLIES: list[Reply] = ["OK", 42, -1, b"he\r\nl", None, b"", ErrorReply("ERR no ç"), None, [],
                        [b"a", [1, ErrorReply("OOM x")], None]]  # fmt: skip


@pytest.mark.parametrize("cut", range(len(WIRE) + 1))
def test_any_cut_gives_the_same(cut: int) -> None:
    """Replies do not depend on where a read ends."""
    decoder = Decoder()
    decoder.feed(WIRE[:cut])
    found = decoder.take(100)
    decoder.feed(WIRE[cut:])
    assert found + decoder.take(100) == REPLIES


def test_no_more_is_taken_than_asked_for() -> None:
    """What belongs to the next question stays."""
    decoder = Decoder()
    decoder.feed(WIRE)
    assert decoder.take(2) == ["OK", 42]
    assert decoder.take(1) == [-1]


def test_an_error_names_its_code() -> None:
    """The first word of an error is its code."""
    assert ErrorReply("READONLY You can't write").code == "READONLY"


@pytest.mark.parametrize("garbage", [b"?1\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_garbage_is_refused(garbage: bytes) -> None:
    """What is no reply is not taken for one."""
    decoder = Decoder()
    decoder.feed(garbage)
    with pytest.raises(ProtocolError):
        decoder.take(1)


@given(st.lists(st.one_of(st.binary(max_size=30), st.text(max_size=10), st.integers()), min_size=1, max_size=6))
def test_commands_are_arrays_of_strings(parts: list[bytes | str | int]) -> None:
    """Whatever is in a part, Redis reads that part."""
    decoder = Decoder()
    decoder.feed(command(*parts))
    assert decoder.take(2) == [[part if isinstance(part, bytes) else str(part).encode() for part in parts]]
