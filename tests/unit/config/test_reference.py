"""docs/configuration.md: made from the settings, and current."""

import re
from pathlib import Path

from config.reference import document
from config.settings import Settings

FILE = Path(__file__).parents[3] / "docs/configuration.md"


def test_it_is_current() -> None:
    """What the file says is what the settings are; if not, `python -m config.reference` prints what it should be."""
    assert FILE.read_text() == document()


def test_every_member_has_a_row() -> None:
    """No section and no member of the configuration file is left out, and rows say type, default and meaning."""
    text = document()
    assert set(re.findall(r"^## `(\w+)(?:\[\])?`$", text, re.MULTILINE)) == Settings.model_fields.keys() - {
        "key_pepper"
    }
    for row in (
        "| `port` | whole number from 0 to 65,535 | `8080` | 0 takes any free port |",
        "| `max_body` | size | `50MiB` | of one request |",
        "| `idle_s` | number above 0 | `60` | without any byte |",
        "| `keys` | list of: secret | `[]` |  |",
        "| `name` | text | required |  |",
        "| `health` | see below | none | active checks,",
        "| `per` | `request`, `minute`, `hour`, `day`, `month`, `total` | required |  |",
        "| `hash` | text | required | of the key, under the pepper in the environment variable ATLAS_KEY_PEPPER |",
    ):
        assert row in text, row
    assert "## `endpoints.timeouts`" in text
    assert "## `keys.budgets[]`" in text
