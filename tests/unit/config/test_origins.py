"""Origins of pages in the configuration."""

import pytest
from pydantic import ValidationError

from config.settings import Server


@pytest.mark.parametrize(
    ("given", "meant"),
    [("https://Chat.Example.com", "https://chat.example.com"), ("http://localhost:3000/", "http://localhost:3000")],
)
def test_an_origin_is_what_a_browser_sends(given: str, meant: str) -> None:
    """A slash at the end or a capital letter does not make an origin that no browser ever sends."""
    assert Server(cors_origins=(given,)).cors_origins == (meant,)


@pytest.mark.parametrize("given", ["chat.example.com", "https://a/b", "https://u@a", "null", "https://*.a?x", ""])
def test_what_is_no_origin_is_refused(given: str) -> None:
    """What no browser sends as an origin is refused at the start, not met by silence later."""
    with pytest.raises(ValidationError, match=r"origin|URL|at least 1"):
        Server(cors_origins=(given,))
