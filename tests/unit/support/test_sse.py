"""The frame parser reads what the standard says, however the lines end."""

import pytest

from tests.support.fold import fold
from tests.support.sse import Frame, data_frames, frames, tail


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_fields(end: str) -> None:
    """Every field is read, one leading space is dropped, several data lines are joined."""
    raw = end.join(["id: 7", "event:text", "data:  one", "data:two", "retry: 5", "", ": hi", ":", "", ""]).encode()
    assert frames(raw) == [Frame(id="7", event="text", data=" one\ntwo", retry="5"), Frame(comment="hi\n")]
    assert tail(raw) == b""


def test_unfinished_block_is_left_out() -> None:
    """What follows the last blank line is no frame yet, not even if it breaks a character."""
    raw = b"data: 1\n\ndata: \xf0\x9f"
    assert frames(raw) == [Frame(data="1")]
    assert tail(raw) == b"data: \xf0\x9f"
    assert frames(b"") == []


def test_mark_and_empty_data() -> None:
    """A byte order mark is skipped; a data field may be empty, or lack its colon."""
    assert frames(b"\xef\xbb\xbfdata\n\ndata:\n\n\n\n") == [Frame(data=""), Frame(data="")]


def test_separators_of_unicode_end_no_line() -> None:
    """U+2028 and U+0085 are text."""
    assert frames("data: a\u2028b\u0085c\n\n".encode())[0].data == "a\u2028b\u0085c"


def test_strangers_are_refused() -> None:
    """A line that is no field of SSE is reported, not skipped."""
    with pytest.raises(AssertionError, match="html"):
        frames(b"<html>\n\n")


def test_comments_are_no_data() -> None:
    """Heartbeats are told from data."""
    assert data_frames(b": beat\n\ndata: 1\n\n") == [Frame(data="1")]


def test_fold_refuses_what_follows_the_end() -> None:
    """A stream that speaks after its terminal is found out."""
    assert fold(b"data: [DONE]\n\n: beat\n\n").done
    for raw in (b"data: [DONE]\n\ndata: [DONE]\n\n", b'data: {"error": {}}\n\ndata: [DONE]\n\n'):
        with pytest.raises(AssertionError, match="after"):
            fold(raw)
