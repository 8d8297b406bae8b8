"""Vendors found through the environment."""

from pathlib import Path

import pytest

from config.load import load
from config.presets import presets
from config.problems import ConfigError


def test_vendor_is_reachable_by_wildcard() -> None:
    """With OPENAI_API_KEY set and no file, `openai/<any model>` has a route."""
    settings = load(None, {"OPENAI_API_KEY": "sk-1"})
    (endpoint,) = settings.endpoints
    assert (endpoint.name, endpoint.kind, endpoint.model) == ("openai", "openai_chat", "*")
    assert endpoint.base_url == "https://api.openai.com/v1"
    assert endpoint.keys[0].get_secret_value() == "sk-1"
    (route,) = settings.routes
    assert (route.model, route.endpoints, route.is_wildcard) == ("openai/*", ("openai",), True)


def test_base_url_of_the_environment_is_honoured() -> None:
    """OPENAI_BASE_URL replaces the vendor's address, and a wrong one is told by its name."""
    settings = load(None, {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://localhost:1/v1/"})
    assert settings.endpoints[0].base_url == "http://localhost:1/v1"
    with pytest.raises(ConfigError, match=r"^OPENAI_BASE_URL: endpoints\[0\]\.base_url: must be a URL"):
        load(None, {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "localhost"})


def test_every_vendor_that_is_built_is_found() -> None:
    """Each preset with a variable becomes an endpoint and a route, or a note that its wire is not built."""
    environ = {
        name: "http-or-key" for preset in presets().values() for name in (preset.key_env, preset.host_env) if name
    }
    settings = load(None, environ)
    noted = {note.split(" is set")[0] for note in settings.notes}
    assert noted == {"ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OLLAMA_HOST"}
    assert len(settings.endpoints) == len(environ) - len(noted)
    assert {route.model for route in settings.routes} == {f"{endpoint.name}/*" for endpoint in settings.endpoints}


def test_variables_of_presets_are_unique() -> None:
    """No two vendors are switched on by one variable."""
    names = [name for preset in presets().values() for name in (preset.key_env, preset.host_env) if name]
    assert len(names) == len(set(names))


def test_empty_key_is_no_vendor() -> None:
    """A variable set to nothing, as compose files do, adds no vendor."""
    assert load(None, {"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": ""}).endpoints == ()


def test_with_a_file_no_vendor_is_added(tmp_path: Path) -> None:
    """A file says everything: the environment adds no vendor and no note about one."""
    file = tmp_path / "atlas.yaml"
    file.write_text("mock: {enabled: true}")
    settings = load(file, {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"})
    assert (settings.endpoints, settings.routes, settings.notes) == ((), (), ())
    assert settings.mock.enabled
