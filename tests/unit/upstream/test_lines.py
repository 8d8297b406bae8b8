"""Lines: what comes with which read."""

from gateway.upstream.lines import LineDecoder


def test_a_line_comes_with_the_read_that_ends_it() -> None:
    """A line is not held back once its end is there, and not given before."""
    decoder = LineDecoder()
    assert decoder.feed(b'{"a":') == []
    assert decoder.feed(b"1}\n{") == [b'{"a":1}']
    assert decoder.feed(b"}\r") == []
    assert decoder.feed(b"\n\n\r\n") == [b"{}"]
    assert decoder.flush() == []


def test_the_last_line_needs_no_end() -> None:
    """A body that ends without a line end loses no line."""
    decoder = LineDecoder()
    assert decoder.feed(b"a\nb") == [b"a"]
    assert decoder.flush() == [b"b"]
    assert decoder.flush() == []


def test_a_carriage_return_within_a_line_stays() -> None:
    """Only the one before the line end is a part of the end."""
    assert LineDecoder().feed(b"a\rb\r\r\n") == [b"a\rb\r"]
