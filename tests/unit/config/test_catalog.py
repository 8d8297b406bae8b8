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
    rows = presets().values()
    environ = {name: "http-or-key" for row in rows for name in (row.key_env, row.host_env) if name}
    environ |= {row.url_env: "http://h/" for row in rows if row.url_env}
    settings = load(None, environ)
    assert [note.split(" is set")[0] for note in settings.notes] == ["GEMINI_API_KEY"]
    wanted = {name for name, row in presets().items() if row.key_env or row.host_env} - {"gemini"}
    assert {endpoint.name for endpoint in settings.endpoints} == wanted
    assert {route.model for route in settings.routes} == {f"{name}/*" for name in wanted}


def test_ollama_is_found_by_its_host() -> None:
    """OLLAMA_HOST alone serves `ollama/*` without a key; a key for ollama.com goes along, and alone is no server."""
    (endpoint,) = load(None, {"OLLAMA_HOST": "gpu:1"}).endpoints
    assert (endpoint.kind, endpoint.base_url, endpoint.keys) == ("ollama", "http://gpu:1", ())
    (endpoint,) = load(None, {"OLLAMA_HOST": "https://ollama.com", "OLLAMA_API_KEY": "k"}).endpoints
    assert (endpoint.base_url, len(endpoint.keys)) == ("https://ollama.com", 1)
    assert load(None, {"OLLAMA_API_KEY": "k"}).endpoints == ()


def test_a_wrong_host_is_told_by_its_variable() -> None:
    """An OLLAMA_HOST that is no address is refused, and the message names the variable."""
    with pytest.raises(ConfigError, match=r"^OLLAMA_HOST: endpoints\[0\]\.base_url: must be a URL"):
        load(None, {"OLLAMA_HOST": "host:port"})


@pytest.mark.parametrize("given", ["https://r.openai.azure.com/", "https://r.openai.azure.com/openai/v1/"])
def test_azure_needs_its_address(given: str) -> None:
    """A key for Azure serves nothing until the resource is named; its address is completed to that of the API."""
    settings = load(None, {"AZURE_OPENAI_API_KEY": "k"})
    assert settings.endpoints == ()
    assert settings.notes == ("AZURE_OPENAI_API_KEY is set, but AZURE_OPENAI_ENDPOINT is not: azure/* is not served",)
    (endpoint,) = load(None, {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": given}).endpoints
    assert (endpoint.base_url, endpoint.auth) == ("https://r.openai.azure.com/openai/v1", "api-key")


def test_a_key_that_no_header_can_carry_is_told_by_its_variable() -> None:
    """A key with the line end of the file that it came from stops the start, by name and without being shown."""
    with pytest.raises(
        ConfigError, match=r"^GROQ_API_KEY: endpoints\[0\]\.keys\[0\]: holds a control character"
    ) as caught:
        load(None, {"GROQ_API_KEY": "sk-secret\n"})
    assert "sk-secret" not in str(caught.value)


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
