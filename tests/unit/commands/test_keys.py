"""Keys on the command line without a gateway: listed and rotated from the configuration, which is never written."""

import json
from pathlib import Path

import pytest

from config.keys import DEFAULT_SCOPES
from config.load import load
from gateway.cli import main
from tests.support.keys import PEPPER, made

ENVIRON = {"ATLAS_KEY_PEPPER": PEPPER}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with two keys."""
    rows = [
        made("a", "infer", id="team-a", budgets=[{"tokens": 1000, "per": "day"}], limits={"rpm": 60}).row,
        made("ops", "admin", id="ops-9", expires="2020-01-01T00:00:00Z").row,
    ]
    found = tmp_path / "atlas.yaml"
    found.write_text(json.dumps({"keys": rows}))
    return found


def test_keys_are_listed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`keys list` is a table of all that a row says but the hash; `--json` the same for scripts."""
    assert main(["keys", "list", "--config", str(file)], ENVIRON) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ID      TENANT  SCOPES  EXPIRES                      BUDGETS              LIMITS",
        "team-a  a       infer   never                        1000 tokens per day  rpm 60",
        "ops-9   ops     admin   2020-01-01 00:00Z (expired)  -                    -",
    ]
    assert main(["keys", "list", "--config", str(file), "--json"], ENVIRON) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in found] == ["team-a", "ops-9"]
    assert "hash" not in str(found)


def test_no_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """Without keys the list says how to make one."""
    assert main(["keys", "list"], {}) == 0
    assert "atlas keys create" in capsys.readouterr().err


def test_a_key_is_rotated(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The new key may do what the old one may, has a name of its own, and loads beside it."""
    before = file.read_text()
    assert main(["keys", "rotate", "team-a", "--config", str(file), "--json"], ENVIRON) == 0
    made_ = json.loads(capsys.readouterr().out)
    assert made_["pepper"] is None
    assert {name: made_["row"][name] for name in ("id", "tenant", "scopes", "budgets", "limits")} == {
        "id": "team-a-2",
        "tenant": "a",
        "scopes": ["infer"],
        "budgets": [{"tokens": 1000, "per": "day"}],
        "limits": {"rpm": 60},
    }
    assert file.read_text() == before
    file.write_text(json.dumps({"keys": [*json.loads(before)["keys"], made_["row"]]}))
    assert [key.id for key in load(file, ENVIRON).keys] == ["team-a", "ops-9", "team-a-2"]
    assert main(["keys", "rotate", "team-a-2", "--config", str(file)], ENVIRON) == 0
    out = capsys.readouterr().out
    assert 'id: "team-a-3"' in out
    assert "atlas keys revoke team-a-2" in out
    assert main(["keys", "rotate", "ops-9", "--id", "ops", "--expires", "90d", "--config", str(file)], ENVIRON) == 0
    assert 'id: "ops"' in capsys.readouterr().out


def test_a_key_that_is_not_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that no row has gives 2, with the nearest one."""
    assert main(["keys", "rotate", "team-b", "--config", str(file)], ENVIRON) == 2
    assert capsys.readouterr().err.startswith(
        "ID: there is no key 'team-b' in the configuration; did you mean 'team-a'?"
    )


def test_help_names_the_default_scopes(capsys: pytest.CaptureFixture[str]) -> None:
    """What the help says of scopes is what a key gets."""
    with pytest.raises(SystemExit):
        main(["keys", "create", "--help"], {})
    assert f"(default: {','.join(DEFAULT_SCOPES)})" in " ".join(capsys.readouterr().out.split())
