"""The vendors' rows: each is usable as it stands, and an endpoint may differ from its row."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from config.endpoints import Auth, Endpoint, Timeouts
from config.presets import presets
from config.section import MISSING_WIRES
from config.settings import Settings
from config.show import redacted_yaml
from gateway.providers._account import CREDENTIALS
from gateway.providers.openai_chat import Quirks

CLOUD_OF_NONE = {"mock"}


def endpoint(**members: Any) -> Endpoint:
    """An endpoint with what every one needs."""
    return Endpoint.model_validate({"name": "a", "model": "m", **members})


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_row_makes_an_endpoint(name: str) -> None:
    """Each row gives a valid endpoint, with an address of one's own where the vendor has none; or is not built yet."""
    row = presets()[name]
    address = {} if row.base_url or name in CLOUD_OF_NONE else {"base_url": "https://own.example/v1"}
    if row.kind in MISSING_WIRES:
        with pytest.raises(ValidationError, match="is not built yet"):
            endpoint(preset=name)
        return
    made = endpoint(preset=name, **address)
    assert (made.kind, made.auth, made.stops_on_close) == (row.kind, row.auth, row.stops_on_close)
    assert made.base_url == (address.get("base_url") or row.base_url)
    assert made.timeouts == Timeouts(**row.timeouts)


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_row_has_quirks_that_its_adapter_knows(name: str) -> None:
    """Quirks stand in rows of the wire that has some, and are what its adapter takes."""
    row = presets()[name]
    assert row.kind == "openai_chat" or not row.quirks
    quirks = Quirks(**row.quirks)
    assert all(isinstance(other, str) for other in quirks.members.values())
    assert endpoint(preset="azure", base_url="https://h").quirks == presets()["azure"].quirks


def test_keys_are_sent_in_ways_that_the_adapter_knows() -> None:
    """Every `auth` of the configuration is one of the adapter's, and none is missing."""
    assert set(get_args(Auth)) == set(CREDENTIALS)


def test_what_is_written_wins_over_the_row() -> None:
    """An endpoint may send its key otherwise, wait otherwise and count otherwise than its vendor's row says."""
    made = endpoint(preset="azure", base_url="https://h", auth="bearer", stops_on_close=False)
    assert (made.auth, made.stops_on_close) == ("bearer", False)
    made = endpoint(preset="ollama", timeouts={"idle_s": 7})
    assert (made.timeouts.first_token_s, made.timeouts.idle_s) == (300, 7)
    assert endpoint(preset="ollama", timeouts={"first_token_s": 5}).timeouts.first_token_s == 5
    assert endpoint(preset="vllm", kind="mock").quirks == {}
    assert endpoint(kind="mock").quirks == {}


def test_timeouts_of_a_wrong_shape_are_refused() -> None:
    """A preset's timeouts do not hide that what was written is no section."""
    with pytest.raises(ValidationError, match="timeouts"):
        endpoint(preset="ollama", timeouts=5)


def test_an_address_of_its_own_is_required_by_name() -> None:
    """A vendor that has an address for each customer says that it is missing."""
    with pytest.raises(ValidationError, match="base_url is required"):
        endpoint(preset="azure")


def test_ollama_takes_its_address_as_its_own_tools_do() -> None:
    """`base_url: ${OLLAMA_HOST}` means in the file what the variable means to the server."""
    assert endpoint(preset="ollama", base_url="gpu").base_url == "http://gpu:11434"


@pytest.mark.parametrize("bad", ["sk\n", "sk\r\nx: y", "\x00", "sk\x7f", "€", "\t"])
def test_what_no_header_can_carry_is_refused(bad: str) -> None:
    """A key or a header's value with a control character is refused when it is read, and not shown."""
    for members in ({"keys": ["fine", bad]}, {"headers": {"x-team": bad}}):
        with pytest.raises(ValidationError, match="no HTTP header can carry") as caught:
            endpoint(preset="groq", **members)
        assert repr(bad)[1:-1] not in str(caught.value)


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "connection"])
def test_headers_that_frame_the_message_are_refused(name: str) -> None:
    """A header that would break the request's framing is refused by name."""
    with pytest.raises(ValidationError, match=f"{name.lower()} cannot be set"):
        endpoint(preset="groq", headers={name: "x"})


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n"])
def test_what_is_no_header_name_is_refused(name: str) -> None:
    """A name that HTTP does not allow is refused."""
    with pytest.raises(ValidationError):
        endpoint(preset="groq", headers={name: "x"})


def test_headers_are_secret() -> None:
    """Headers may hold credentials: their values are never shown, their names are."""
    shown = redacted_yaml(Settings(endpoints=[endpoint(preset="groq", headers={"X-Team-Token": "s3cret"})]))
    assert "s3cret" not in shown
    assert "x-team-token: '***'" in shown
