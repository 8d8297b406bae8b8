"""What an endpoint's settings make of the request line and the headers, seen from the other end of a socket."""

from typing import Any

import pytest

from config.load import load
from config.presets import presets
from config.settings import Endpoint, Settings
from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.clock import SystemClock
from gateway.pool_from_settings import _provider, _transport
from gateway.upstream.contract import Provider, Timeouts
from gateway.upstream.transport import Trust
from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider, Received
from tests.support.run import run

REQUEST = ChatRequest(dialect="none", model="r", messages=(Message(role="user", parts=(TextPart(text="?"),)),))


def built(found: Endpoint) -> Provider:
    """The adapter of an endpoint's first key."""
    key = found.keys[0].get_secret_value() if found.keys else None
    return _provider(found, key, _transport(found, Timeouts(), Trust()), SystemClock())


def received(base: str = "", **members: Any) -> Received:
    """The request that an endpoint of these settings sends; `base` is put behind the provider's address."""

    async def go() -> Received:
        async with baseline(), ChaosProvider() as up:
            row = {"name": "a", "model": "m", "base_url": up.root_url + base, **members}
            (found,) = Settings(endpoints=[row]).endpoints
            provider = built(found)
            async with provider.stream(REQUEST, "m") as batches:
                assert [batch async for batch in batches]
            await provider.aclose()
            return up.last

    return run(go())


def test_azures_v1() -> None:
    """Azure's v1 API gets the key in its own header, and the deployment's name as model."""
    request = received("/openai/v1", preset="azure", keys=["azure-key"])
    assert request.path == "/openai/v1/chat/completions"
    assert request.headers["api-key"] == "azure-key"
    assert "authorization" not in request.headers


def test_azures_deployments() -> None:
    """Azure's older API gets its version as query, behind the path of the deployment."""
    base = "/openai/deployments/gpt-5/?api-version=2024-10-21"
    request = received(base, preset="azure", keys=["azure-key"])
    assert request.path == "/openai/deployments/gpt-5/chat/completions"
    assert request.query == "api-version=2024-10-21"
    assert request.headers["api-key"] == "azure-key"


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [("bearer", "authorization", "Bearer k"), ("api-key", "api-key", "k"), ("x-api-key", "x-api-key", "k")],
)
def test_ways_to_send_a_key(auth: str, name: str, value: str) -> None:
    """A key goes out in the header that the endpoint names, and in no other."""
    headers = received("/v1", keys=["k"], auth=auth).headers
    assert {"authorization", "api-key", "x-api-key"} & headers.keys() == {name}
    assert headers[name] == value


@pytest.mark.parametrize(
    ("auth", "sent"), [({}, {"x-api-key": "k"}), ({"auth": "bearer"}, {"authorization": "Bearer k"})]
)
def test_ways_to_send_a_key_to_anthropic(auth: dict[str, str], sent: dict[str, str]) -> None:
    """Anthropic gets the key as its own API has it, unless the endpoint says otherwise."""
    headers = received(kind="anthropic", keys=["k"], **auth).headers
    assert {name: headers[name] for name in ("authorization", "x-api-key") if name in headers} == sent


def test_headers_of_an_endpoint() -> None:
    """Headers of the settings go out with every request, in place of Atlas's own."""
    headers = received("/v1", keys=["k"], headers={"X-Team": "blue", "Authorization": "Basic abc"}).headers
    assert headers["x-team"] == "blue"
    assert headers["authorization"] == "Basic abc"
    assert headers["accept"] == "text/event-stream"


def test_quirks_of_a_preset_reach_the_adapter() -> None:
    """A host that refuses stream options is not sent any, because its preset says so."""
    assert "stream_options" not in received("/v1", preset="mistral", keys=["k"]).json
    assert "stream_options" in received("/v1", preset="groq", keys=["k"]).json


def test_every_vendor_of_the_environment_can_be_built() -> None:
    """With all variables of all vendors set, every endpoint has an adapter that takes its settings."""
    rows = presets().values()
    environ = {name: "key" for row in rows for name in (row.key_env, row.host_env) if name}
    settings = load(None, environ | {row.url_env: "https://h" for row in rows if row.url_env})
    kinds = {built(found).kind for found in settings.endpoints}
    assert kinds == {"openai_chat", "anthropic", "ollama"}


def test_ollama() -> None:
    """An Ollama server is asked on its own route."""
    assert received(preset="ollama").path == "/api/chat"
