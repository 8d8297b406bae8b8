"""The shape of the settings: defaults, cross checks, and what is not built yet."""

from typing import Any

import pytest
from pydantic import ValidationError

from config.section import NOT_BUILT
from config.settings import Endpoint, Fallback, Server, Settings

A = {"name": "a", "preset": "openai", "model": "m"}
KEY = {"id": "team-a", "hash": "hmac-sha256:" + "0" * 64, "tenant": "a"}
PEPPER = "sixteen bytes ok"

REFUSED: dict[str, dict[str, Any]] = {
    "Endpoint.kind": {"endpoints": [{**A, "preset": "gemini"}]},
    "Endpoint.continuation": {"endpoints": [{**A, "continuation": "resume"}]},
}


def errors(**values: Any) -> dict[tuple[int | str, ...], str]:
    """The messages of everything that is wrong, by place."""
    with pytest.raises(ValidationError) as caught:
        Settings(**values)
    return {error["loc"]: error["msg"] for error in caught.value.errors()}


def test_defaults_are_the_documented_ones() -> None:
    """Without any configuration Atlas serves the mock on 127.0.0.1:8080 from memory."""
    settings = Settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert settings.server.max_body == 50 * 2**20
    assert settings.journal.kind == "memory"
    assert settings.mock.enabled
    assert (settings.endpoints, settings.routes, settings.keys, settings.agents) == ((), (), (), None)
    assert settings.streams.on_pause_expiry == "cancel"
    assert settings.notes == ()


def test_building_settings_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two applications in one process do not share settings by way of the process environment."""
    monkeypatch.setenv("SERVER", '{"port": 1}')
    monkeypatch.setenv("ATLAS_SERVER__PORT", "1")
    assert Settings().server.port == 8080


def test_settings_do_not_change() -> None:
    """Nobody can change a setting after boot."""
    with pytest.raises(ValidationError):
        Settings().server.port = 1  # type: ignore[misc]


def test_table_of_what_is_not_built_is_covered() -> None:
    """Every row of the table has a test that it refuses something."""
    assert REFUSED.keys() == NOT_BUILT.keys()


@pytest.mark.parametrize("member", sorted(REFUSED))
def test_not_built_is_refused_not_ignored(member: str) -> None:
    """A feature that is specified but not built is refused by name instead of being silently ignored."""
    found = errors(**REFUSED[member])
    assert len(found) == 1
    ((loc, message),) = found.items()
    assert loc[-1] == member.split(".")[1]
    assert "is not built yet; " in message


def test_every_row_refuses_no_default() -> None:
    """The example of the specification's shape with all defaults written out passes."""
    endpoint = {**A, "limits": {"max_concurrent": 1, "rpm": None}, "continuation": "none"}
    route = {"model": "r", "strategy": "priority", "endpoints": ["a"], "fallback": {"mid_stream": "safe"}}
    assert Settings(endpoints=[endpoint], routes=[route], streams={"recovery": False}).routes[0].model == "r"


@pytest.mark.parametrize(("given", "meant"), [(False, "off"), ("off", "off"), ("safe", "safe")])
def test_bare_off_is_off(given: object, meant: str) -> None:
    """`mid_stream: off` means off, although YAML reads it as a boolean."""
    assert Fallback.model_validate({"mid_stream": given}).mid_stream == meant


def test_null_continuation_is_none() -> None:
    """`continuation:` left empty means none."""
    assert Endpoint.model_validate({**A, "continuation": None}).continuation == "none"


def test_contradictions_are_all_reported_where_they_stand() -> None:
    """Duplicate names and dangling references are reported together, each at its own place."""
    routes = [
        {"model": "r", "endpoints": ["aa", "a", "a"]},
        {"model": "r", "endpoints": ["a"]},
    ]
    assert errors(endpoints=[{**A, "name": "a1"}, {**A, "name": "a1"}, A], routes=routes) == {
        ("endpoints", 1, "name"): "'a1' is taken by endpoints[0]",
        ("routes", 1, "model"): "'r' is taken by routes[0]",
        ("routes", 0, "endpoints", 0): "there is no endpoint 'aa'; did you mean 'a'?",
        ("routes", 0, "endpoints", 2): "'a' is named twice",
    }


@pytest.mark.parametrize("route", [{"endpoints": ["a"]}, {"endpoints": ["a", "b"], "fallback": {"mid_stream": "off"}}])
def test_a_hedge_needs_somebody_to_ask(route: dict[str, Any]) -> None:
    """A route that could never ask a second endpoint is refused a hedge, rather than silently without one."""
    found = errors(endpoints=[A, {**A, "name": "b"}], routes=[{"model": "r", "hedge": {"enabled": True}, **route}])
    assert list(found) == [("routes", 0, "hedge", "enabled")]


def test_route_needs_an_endpoint() -> None:
    """A route that nothing can answer is refused at boot."""
    assert ("routes", 0, "endpoints") in errors(routes=[{"model": "r", "endpoints": []}])


def test_endpoint_needs_an_address() -> None:
    """An endpoint without base_url is refused, unless a preset knows the address or the kind has none."""
    assert "base_url is required" in errors(endpoints=[{"name": "a", "model": "m"}])["endpoints", 0]
    assert Endpoint(name="a", model="m", kind="mock").base_url is None
    assert Endpoint(name="a", model="m", preset="mock").kind == "mock"


def test_preset_fills_what_is_absent() -> None:
    """A preset gives kind and address, and what is written out wins over it."""
    assert Endpoint(name="a", model="m", preset="groq").base_url == "https://api.groq.com/openai/v1"
    own = Endpoint(name="a", model="m", preset="groq", base_url="http://localhost:1/v1")
    assert own.base_url == "http://localhost:1/v1"


def test_unknown_preset_is_refused_by_name() -> None:
    """A slip in a preset's name says which one was meant, not that the address is missing."""
    found = errors(endpoints=[{**A, "preset": "groc"}])
    assert found == {("endpoints", 0, "preset"): "Value error, there is no preset 'groc'; did you mean 'groq'?"}


def test_secrets_do_not_print() -> None:
    """Printing the settings, or an error about them, shows no key and no proxy password."""
    secret = "sk-very-secret"
    endpoint = {**A, "keys": [secret], "proxy": f"http://u:{secret}@h:1"}
    assert secret not in repr(Settings(endpoints=[endpoint]))
    with pytest.raises(ValidationError) as caught:
        Settings(endpoints=[{**endpoint, "timeouts": secret, secret: 1, "base_url": f"ftp://{secret}"}])
    assert secret not in str(caught.value).replace(f"endpoints.0.{secret}", "")


def test_empty_key_is_refused() -> None:
    """A variable that is set to nothing does not become an empty key."""
    assert ("endpoints", 0, "keys", 0) in errors(endpoints=[{**A, "keys": [""]}])


@pytest.mark.parametrize(
    ("host", "hosts"), [("127.0.0.1", ("localhost", "127.0.0.1", "::1")), ("::1", ("localhost", "127.0.0.1", "::1"))]
)
def test_allowed_hosts_default_to_loopback_names(host: str, hosts: tuple[str, ...]) -> None:
    """Bound to loopback, a page that rebinds its name to 127.0.0.1 is not answered."""
    assert Server(host=host).allowed_hosts == hosts


def test_allowed_hosts_default_to_all_when_bound_wider() -> None:
    """Bound to more than loopback, any name is answered unless the operator lists them."""
    assert Server(host="0.0.0.0").allowed_hosts == ("*",)
    assert Server(host="0.0.0.0", allowed_hosts=("a",)).allowed_hosts == ("a",)
