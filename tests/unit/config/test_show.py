"""What may be shown of a configuration."""

import string
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.load import load
from config.settings import Settings
from config.show import redacted, redacted_url, redacted_yaml

# A marker that no other part of the output can hold, with characters that matter to YAML and URLs around it.
SECRETS = st.text(string.ascii_letters + string.punctuation + " ä", max_size=20).map(lambda tail: f"S3CR3T{tail}")


@given(SECRETS, SECRETS, SECRETS)
def test_no_secret_is_ever_shown(key: str, password: str, query: str) -> None:
    """Whatever a key, a password in a URL or a value of a query is, nothing of it is shown."""
    endpoint = {
        "name": "a",
        "model": "m",
        "keys": [key],
        "base_url": f"https://user:{quote(password, safe='')}@host/v1?api-key={quote(query, safe='')}",
        "proxy": f"http://{quote(password, safe='')}@proxy:3128",
    }
    shown = redacted_yaml(Settings(endpoints=[endpoint]))
    assert "S3CR3T" not in shown
    assert "https://***@host/v1?api-key=***" in shown
    assert "http://***@proxy:3128" in shown


@given(st.text(max_size=40))
def test_any_text_can_be_redacted(text: str) -> None:
    """No value makes the redaction raise, and no password survives it."""
    assert "S3CR3T" not in redacted_url(f"http://user:S3CR3T@{text}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("redis://:pw@h:6379/0", "redis://***@h:6379/0"),
        ("http://u:p@w@h/x", "http://***@h/x"),
        ("http://h/?a=1&b=&c", "http://h/?a=***&b=***&c=***"),
        ("http://h/#frag", "http://h/"),
        ("http://[::1", "***"),
        ("see http://u:p@h", "***"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    """URLs stay recognisable without their credentials."""
    assert redacted_url(url) == shown


def test_names_of_secrets_hide_their_values() -> None:
    """A key's hash is not shown even though it is plain text to the settings."""
    assert redacted([{"id": "a", "hash": "hmac", "n": 1}]) == [{"id": "a", "hash": "***", "n": 1}]


def test_shown_settings_are_a_valid_file(tmp_path: Path) -> None:
    """The output of `config show` is accepted again and means the same, secrets apart."""
    settings = load(None, {"OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"}, port=99)
    file = tmp_path / "atlas.yaml"
    file.write_text(redacted_yaml(settings))
    assert file.read_text().startswith("# note: GEMINI_API_KEY")
    again = load(file, {})
    assert redacted(again.model_dump()) == redacted(settings.model_dump())
