"""Single values: sizes, URLs, loopback."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.values import check_url, host_url, is_loopback, parse_size

UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@given(st.integers(0, 10**12), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]), st.booleans())
def test_size_is_number_times_unit(number: int, unit: str, space: str, lower: bool) -> None:
    """A number with a unit is that many bytes, in any case of letters, with or without a space."""
    text = f"{number}{space if unit else ''}{unit}"
    assert parse_size(text.lower() if lower else text) == number * UNITS[unit]


@given(st.text() | st.booleans() | st.none() | st.floats())
def test_size_is_an_int_or_a_clear_refusal(value: object) -> None:
    """Whatever stands in the place of a size gives a number of bytes or a ValueError, never another exception."""
    with contextlib.suppress(ValueError):
        assert parse_size(value) >= 0


@pytest.mark.parametrize("wrong", ["", "MiB", "50 XB", "-1", "1.5GiB", "٣", True, None, 1.5])
def test_size_refuses(wrong: object) -> None:
    """What is no size is not taken for one."""
    with pytest.raises(ValueError, match="must be a number of bytes"):
        parse_size(wrong)


@pytest.mark.parametrize(
    "wrong",
    ["api.openai.com/v1", "ftp://host", "http://", "http://host:port", "http://user:pa/ss@host", "http://a b", "://"],
)
def test_url_refuses_without_quoting(wrong: str) -> None:
    """A URL that cannot work is refused, and the message does not repeat credentials that it may hold."""
    with pytest.raises(ValueError, match="must be a URL") as caught:
        check_url(wrong)
    assert "pa/ss" not in str(caught.value)


def test_url_loses_its_closing_slash() -> None:
    """Paths are appended to base URLs, so that a closing slash makes no difference."""
    assert check_url("https://host:8443/v1/") == "https://host:8443/v1"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    """An address that other machines can reach is never taken for loopback."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("gpu", "http://gpu:11434"),
        ("gpu:1", "http://gpu:1"),
        (":1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:1", "http://127.0.0.1:1"),
        ("::", "http://[::1]:11434"),
        ("[::]:1", "http://[::1]:1"),
        ("::1", "http://[::1]:11434"),
        ("[2001:db8::1]", "http://[2001:db8::1]:11434"),
        ("1.2.3.4/", "http://1.2.3.4:11434"),
        ("gpu/path/", "http://gpu:11434/path"),
        ("gpu:1/path", "http://gpu:1/path"),
        ("http://gpu", "http://gpu"),
        ("https://gpu/", "https://gpu"),
        ("http://0.0.0.0:1", "http://127.0.0.1:1"),
        ("https://u:p@gpu:1/x", "https://u:p@gpu:1/x"),
        (' "gpu:1" ', "http://gpu:1"),
    ],
)
def test_host_url(given: str, url: str) -> None:
    """Every way in which people name an Ollama server leads to it."""
    assert host_url(given, 11434) == url
    assert check_url(host_url(given, 11434)) == url


@pytest.mark.parametrize("given", ["gpu:port", "http://[::1", "gpu:99999", "ftp://gpu"])
def test_what_is_no_host(given: str) -> None:
    """What cannot be read as an address is refused as one."""
    with pytest.raises(ValueError, match="must be a URL"):
        check_url(host_url(given, 11434))
