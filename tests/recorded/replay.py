"""Recorded traffic, replayed from a real socket: to a vendor's own client directly, and through a running Atlas.

The clients here are the judges: `said.py` says what they made of a stream, this file only how they are asked.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from anthropic import AsyncAnthropic
from anthropic import DefaultAsyncHttpxClient as AnthropicHttpxClient
from ollama import AsyncClient
from openai import AsyncOpenAI
from openai import DefaultAsyncHttpxClient as OpenaiHttpxClient

from tests.support.chaos import ChaosProvider, Plan
from tests.support.recordings import Exchange, Kind, Recording, folder, recorded
from tests.support.server import AtlasServer, atlas_settings

COMPATIBLE = ("openai-chat", "azure-openai", "groq", "mistral", "deepseek", "openrouter", "xai")
VENDORS = (*COMPATIBLE, "anthropic", "ollama")
KINDS = ("openai_chat", "anthropic", "ollama")
MODEL = "recorded"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}]}
SMALL = 8_192
_PATHS = {"anthropic": "/v1/messages", "ollama": "/api/chat"}
_ROUTES = {"anthropic": "claude", "ollama": "llama"}
_STOP = b"event: message_stop"
_HEADERS_KEPT = ("retry-after", "retry-after-ms", "x-should-retry", "x-request-id", "request-id")


def left_out(recording: Recording) -> str | None:
    """Why a recording is not replayed: it is of another API of the same vendor."""
    path = recording.load().path.partition("?")[0]
    wanted = _PATHS.get(recording.provider, "/chat/completions")
    return f"of {path}" if path and not path.endswith(wanted) else None


def replayed(kind: Kind, *vendors: str) -> list[Any]:
    """The parameters of a test: every recording of one kind, of these vendors."""
    everything = [param for vendor in vendors for param in recorded(vendor, kind)]
    if not folder().is_dir():
        return everything[:1]
    return [param for param in everything if param.values[0] is not None and left_out(param.values[0]) is None]


def loaded(recording: Recording) -> Exchange:
    """The exchange; of a recording that holds the answers to two requests, the first one."""
    exchange = recording.load()
    first, end, rest = exchange.body.partition(_STOP)
    if not rest.strip() or recording.kind != "stream":
        return exchange
    tail, blank, _ = rest.partition(b"\n\n")
    return replace(exchange, body=first + end + tail + blank)


def route_of(recording: Recording) -> str:
    """The model that a client of Atlas names to reach the replayed vendor on the vendor's own wire."""
    return f"{_ROUTES.get(recording.provider, 'chaos')}/{MODEL}"


def body_of(exchange: Exchange) -> dict[str, Any]:
    """The recorded request, for the replayed model; a small one where only the answer was recorded."""
    recorded_body = exchange.request_body or {}
    messages = recorded_body.get("messages") or ASKED["messages"]
    return {**recorded_body, "model": MODEL, "messages": messages, "stream": True}


def plan_of(exchange: Exchange, body: bytes, size: int | None) -> Plan:
    """The recorded answer, written `size` bytes at a time."""
    kept = {name: value for name, value in exchange.headers.items() if name in _HEADERS_KEPT}
    content_type = exchange.headers.get("content-type", "application/json")
    return Plan(
        status=exchange.status, body=body, chunking=size or "whole", content_type=content_type, headers=kept,
        framing="chunked",
    )  # fmt: skip


def sizes_of(exchange: Exchange) -> list[int | None]:
    """All at once, in sevens, and byte by byte what is short: that takes long, and adds nothing for what is long."""
    return [None, 7, *([1] if len(exchange.body) <= SMALL else [])]


@dataclass(frozen=True, slots=True)
class Ways:
    """An upstream, and each vendor's client straight to it (`up_*`) and through Atlas."""

    up: ChaosProvider
    atlas: AtlasServer
    up_openai: AsyncOpenAI
    up_anthropic: AsyncAnthropic
    up_ollama: AsyncClient
    openai: AsyncOpenAI
    anthropic: AsyncAnthropic


ASKED_AGAIN = {"breaker": {"enabled": False}}
"""Recorded errors are replayed by the dozen: the endpoint must not rest after the first of them."""


@asynccontextmanager
async def ways() -> AsyncIterator[Ways]:
    """All of them, open; leaving closes them."""
    async with ChaosProvider() as up, AtlasServer(atlas_settings(up, kinds=KINDS, endpoint=ASKED_AGAIN)) as atlas:
        openai = AsyncOpenAI(
            base_url=atlas.base_url + "/v1", api_key="x", max_retries=0, http_client=OpenaiHttpxClient(verify=False)
        )
        anthropic = AsyncAnthropic(
            base_url=atlas.base_url, api_key="x", max_retries=0, http_client=AnthropicHttpxClient(verify=False)
        )
        ollama = AsyncClient(host=up.root_url, verify=False)
        async with openai, anthropic:
            straight = (openai.copy(base_url=up.base_url), anthropic.copy(base_url=up.root_url), ollama)
            yield Ways(up, atlas, *straight, openai, anthropic)
        await ollama.close()  # type: ignore[no-untyped-call]


async def openai_chunks(client: AsyncOpenAI, body: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """What the SDK yields, unknown members too."""
    rest = {name: value for name, value in body.items() if name not in {"messages", "model", "stream"}}
    stream = await client.chat.completions.create(messages=body["messages"], model=model, stream=True, extra_body=rest)
    return [chunk.model_dump(warnings=False) async for chunk in stream]


async def anthropic_message(
    client: AsyncAnthropic, body: dict[str, Any], model: str, *, is_beta: bool = False
) -> dict[str, Any]:
    """What the SDK accumulates of a stream, unknown members too."""
    asked = _anthropic(body, model)
    if is_beta:
        async with client.beta.messages.stream(**asked) as stream:
            return dict((await stream.get_final_message()).model_dump(warnings=False))
    async with client.messages.stream(**asked) as plain:
        return dict((await plain.get_final_message()).model_dump(warnings=False))


async def anthropic_whole(
    client: AsyncAnthropic, body: dict[str, Any], model: str, *, is_beta: bool = False
) -> dict[str, Any]:
    """What the SDK gets where it does not ask for a stream, unknown members too."""
    asked = {**_anthropic(body, model), "timeout": 30}  # without one the SDK refuses to wait for many tokens
    if is_beta:
        return dict((await client.beta.messages.create(**asked)).model_dump(warnings=False))
    return dict((await client.messages.create(**asked)).model_dump(warnings=False))


def _anthropic(body: dict[str, Any], model: str) -> dict[str, Any]:
    apart = {"messages", "model", "stream", "max_tokens"}
    rest = {name: value for name, value in body.items() if name not in apart}
    asked = {"messages": body["messages"], "model": model, "max_tokens": body.get("max_tokens", 1024)}
    return {**asked, "extra_body": rest}


async def ollama_lines(client: AsyncClient) -> list[dict[str, Any]]:
    """What the client yields."""
    stream = await client.chat(model=MODEL, messages=ASKED["messages"], stream=True)
    return [line.model_dump() async for line in stream]


def is_beta(exchange: Exchange) -> bool:
    """Whether the vendor was asked for what its SDK keeps apart."""
    return "beta=true" in exchange.path
