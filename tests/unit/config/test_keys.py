"""The section `keys`: its shape, what it refuses, and that it gives nothing away."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from config.keys import Key, ScopeName, expiry
from config.load import load
from config.problems import ConfigError
from config.settings import Settings
from config.show import redacted_yaml
from gateway.core.principal import Scope

HASH = "hmac-sha256:" + "0123456789abcdef" * 4
ROW = {"id": "team-a", "hash": HASH, "tenant": "a"}
PEPPER = "0123456789abcdef"
NOW = 1_800_000_000.0


def problems(file: Path, environ: dict[str, str], text: str) -> list[str]:
    """What is wrong with a file of this text."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ)
    return [str(problem).replace(str(file), "FILE") for problem in caught.value.problems]


def refused(**members: Any) -> dict[tuple[int | str, ...], str]:
    """The messages about one row with these members."""
    with pytest.raises(ValidationError) as caught:
        Key.model_validate({**ROW, **members})
    return {error["loc"]: error["msg"] for error in caught.value.errors()}


def test_the_documented_row_is_read(tmp_path: Path) -> None:
    """The row of the documentation is valid as it stands there, the hash filled in."""
    file = tmp_path / "atlas.yaml"
    file.write_text(f'keys:\n  - {{id: team-a, hash: "{HASH}", tenant: a, scopes: [infer, control]}}\n')
    (key,) = load(file, {"ATLAS_KEY_PEPPER": PEPPER}).keys
    assert (key.id, key.hash, key.tenant, key.scopes) == ("team-a", HASH, "a", ("infer", "control"))
    assert (key.expires, key.budgets) == (None, ())


def test_scopes_are_those_of_the_gateway() -> None:
    """The file knows exactly the scopes that routes ask for, and a key has infer and control unless told otherwise."""
    assert set(get_args(ScopeName)) == set(Scope)
    assert Key.model_validate(ROW).scopes == ("infer", "control")


def test_keys_without_a_pepper_do_not_start(tmp_path: Path) -> None:
    """Keys without the pepper stop the start, and the message says which variable is missing and who makes one."""
    said = problems(tmp_path / "f", {}, f'keys:\n  - {{id: a, hash: "{HASH}", tenant: a}}\n')
    assert len(said) == 1
    assert said[0].startswith("FILE:1: keys: need the pepper under which they were hashed")
    assert "ATLAS_KEY_PEPPER" in said[0]
    assert "atlas keys create" in said[0]


@pytest.mark.parametrize("pepper", ["short", "fifteen bytes..", "[1, 2]", "{a"])
def test_short_peppers_are_refused_unseen(pepper: str, tmp_path: Path) -> None:
    """A pepper of fewer than 16 bytes is refused with or without keys, and is not repeated."""
    (said,) = problems(tmp_path / "f", {"ATLAS_KEY_PEPPER": pepper}, "")
    assert said.startswith("ATLAS_KEY_PEPPER: key_pepper: must be at least 16 bytes")
    assert pepper not in said


@pytest.mark.parametrize("pepper", [PEPPER, "[not JSON] but a pepper", "{" * 20, "é" * 8])
def test_any_long_text_is_a_pepper(pepper: str) -> None:
    """A pepper is taken as it is, whatever it looks like; bytes count, not characters."""
    found = load(None, {"ATLAS_KEY_PEPPER": pepper}).key_pepper
    assert found is not None
    assert found.get_secret_value() == pepper


def test_an_empty_pepper_is_none() -> None:
    """A variable that is set to nothing is no pepper."""
    assert load(None, {"ATLAS_KEY_PEPPER": ""}).key_pepper is None


@pytest.mark.parametrize(
    "hash_", ["", "hmac-sha256:", HASH[:-1], HASH + "0", HASH.upper(), "sha256:" + "0" * 64, "atl_x"]
)
def test_hashes_have_one_form(hash_: str) -> None:
    """What is no hash of ours is refused, and not repeated: somebody may have pasted the key itself."""
    found = refused(hash=hash_)
    assert list(found) == [("hash",)]
    assert "0123" not in found["hash",]
    assert "atl_" not in found["hash",]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "-a", "a/b", "ä", "a" * 65])
def test_names_are_words(name: str) -> None:
    """Tenants and ids are words: no tenant can be made to look like part of another's data."""
    assert refused(tenant=name, id=name).keys() == {("tenant",), ("id",)}


def test_unknown_and_empty_scopes() -> None:
    """A scope that does not exist is refused by place, and so is a key without any."""
    assert list(refused(scopes=["infer", "root"])) == [("scopes", 1)]
    assert list(refused(scopes=[])) == [("scopes",)]


def test_ids_and_hashes_are_unique() -> None:
    """Two rows with one id, or of one key, are refused at the second; two keys of one tenant are a rotation."""
    other = {**ROW, "hash": HASH.replace("0", "f")}
    with pytest.raises(ValidationError) as caught:
        Settings(keys=[ROW, other, {**ROW, "id": "team-b"}], key_pepper=PEPPER)
    assert {error["loc"]: error["msg"] for error in caught.value.errors()} == {
        ("keys", 1, "id"): "'team-a' is taken by keys[0]",
        ("keys", 2, "hash"): "is the same as in keys[0]; a key has one row",
    }
    assert len(Settings(keys=[ROW, {**other, "id": "team-a-2"}], key_pepper=PEPPER).keys) == 2


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2027-01-31T12:00:00Z", datetime(2027, 1, 31, 12, tzinfo=UTC)),
        ("2027-01-31T12:00:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
        ("2027-01-31 12:00", datetime(2027, 1, 31, 12, tzinfo=UTC)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
    ],
)
def test_expiry_in_a_file(written: str, meant: datetime) -> None:
    """A key expires at a moment in ISO 8601, in UTC where no zone is named."""
    assert Key.model_validate({**ROW, "expires": written}).expires == meant


@pytest.mark.parametrize("written", ["", "90d", "soon", 90, 1.5, "31.01.2027", True])
def test_no_expiry_is_guessed(written: object) -> None:
    """What is no moment is refused: a key never lives longer, or shorter, than its row seems to say."""
    assert refused(expires=written) == {
        ("expires",): "Value error, must be a date and time like 2027-01-31T12:00:00Z, or null"
    }


def test_expiry_on_the_command_line() -> None:
    """A span counts from now; a moment is taken as it is; the past, and what is neither, is refused."""
    assert expiry("90d", NOW).timestamp() == NOW + 90 * 86_400
    assert expiry("12h", NOW).timestamp() == NOW + 12 * 3600
    assert expiry("2w", NOW).timestamp() == NOW + 14 * 86_400
    assert expiry("2099-01-01", NOW) == datetime(2099, 1, 1, tzinfo=UTC)
    for wrong in ("90", "d", "-1d", "1y", "90 d", "", "999999d"):
        with pytest.raises(ValueError, match="must be like 90d"):
            expiry(wrong, NOW)
    for past in ("0d", "2020-01-01"):
        with pytest.raises(ValueError, match="in the past"):
            expiry(past, NOW)


def test_what_is_shown_gives_nothing_away(tmp_path: Path) -> None:
    """Neither hash nor pepper is in `config show` or in a representation, and what is shown is in the file's shape."""
    settings = Settings(keys=[{**ROW, "expires": "2027-01-31T12:00:00Z"}], key_pepper=PEPPER)
    for text in (redacted_yaml(settings), repr(settings), str(settings)):
        assert HASH not in text
        assert PEPPER not in text
        assert "team-a" in text
    file = tmp_path / "atlas.yaml"
    file.write_text(redacted_yaml(settings).replace("'***'", f"'{HASH}'"))
    assert load(file, {}).keys == settings.keys


def test_keys_from_the_environment() -> None:
    """Keys can be given without a file, as every other setting."""
    rows = f'[{{"id": "a", "hash": "{HASH}", "tenant": "a", "scopes": ["metrics"]}}]'
    (key,) = load(None, {"ATLAS_KEYS": rows, "ATLAS_KEY_PEPPER": PEPPER}).keys
    assert key.scopes == ("metrics",)
