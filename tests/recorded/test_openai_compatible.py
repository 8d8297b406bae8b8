"""Recorded traffic of OpenAI and compatible hosts goes through Atlas without loss: the official SDK is the judge.

Each recording is replayed from a real socket, once straight to the SDK and then through a running Atlas, in pieces of
several sizes. Two differences are Atlas's intention: a usage chunk of its own is shown only to who asked for it, and
every choice has a finish reason.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from openai import APIError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient

from tests.recorded.accumulate import accumulated, comparable
from tests.support.chaos import ChaosProvider, Plan
from tests.support.http import RawClient
from tests.support.recordings import Exchange, Recording, folder, need_recordings, recorded, recordings
from tests.support.run import run
from tests.support.server import AtlasServer, atlas_settings

VENDORS = ("openai-chat", "azure-openai", "groq", "mistral", "deepseek", "openrouter", "xai")
MODEL = "recorded"
SMALL = 8_192
SMALLEST: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}]}
_HEADERS_KEPT = ("retry-after", "retry-after-ms", "x-should-retry", "x-request-id")


def left_out(recording: Recording) -> str | None:
    """Why a recording is not replayed here."""
    path = recording.load().path
    return f"recorded from {path}" if path and "/chat/completions" not in path else None


def replayed(kind: str) -> list[Any]:
    """The parameters of a test: every recording of one kind."""
    everything = [param for vendor in VENDORS for param in recorded(vendor, kind)]  # type: ignore[arg-type]
    if not folder().is_dir():
        return everything[:1]
    return [param for param in everything if param.values[0] is not None and left_out(param.values[0]) is None]


def body_of(exchange: Exchange) -> dict[str, Any]:
    """The recorded request, for the replayed model; a small one where only the answer was recorded."""
    recorded_body = exchange.request_body or {}
    messages = recorded_body.get("messages") or [{"role": "user", "content": "?"}]
    return {**recorded_body, "model": MODEL, "messages": messages, "stream": True}


@dataclass(frozen=True, slots=True)
class Ways:
    """The two ways to the same upstream."""

    up: ChaosProvider
    straight: AsyncOpenAI
    through: AsyncOpenAI


@asynccontextmanager
async def ways() -> AsyncIterator[Ways]:
    """An upstream, and clients straight to it and through Atlas."""
    async with ChaosProvider() as up, AtlasServer(atlas_settings(up)) as atlas:
        straight = AsyncOpenAI(
            base_url=up.base_url, api_key="x", max_retries=0, http_client=DefaultAsyncHttpxClient(verify=False)
        )
        async with straight, straight.copy(base_url=atlas.base_url + "/v1") as through:
            yield Ways(up, straight, through)


async def chunks(client: AsyncOpenAI, body: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """What the SDK yields."""
    rest = {name: value for name, value in body.items() if name not in {"messages", "model", "stream"}}
    stream = await client.chat.completions.create(messages=body["messages"], model=model, stream=True, extra_body=rest)
    return [chunk.model_dump(warnings=False) async for chunk in stream]


def plan_of(exchange: Exchange, body: bytes, size: int | None) -> Plan:
    """The recorded answer, written `size` bytes at a time."""
    kept = {name: value for name, value in exchange.headers.items() if name in _HEADERS_KEPT}
    content_type = exchange.headers.get("content-type", "application/json")
    return Plan(
        status=exchange.status, body=body, chunking=size or "whole", content_type=content_type, headers=kept,
        framing="chunked",
    )  # fmt: skip


@pytest.mark.parametrize("recording", replayed("stream"))
def test_stream(recording: Recording) -> None:
    """Through Atlas the SDK accumulates what it accumulates from the vendor, member by member.

    The vendor gets the recorded request member by member, but for the model and the wish for usage.
    """
    exchange = recording.load()
    body = body_of(exchange)
    asked = bool((body.get("stream_options") or {}).get("include_usage"))

    async def both() -> None:
        async with ways() as clients:
            clients.up.default = plan_of(exchange, exchange.body, None)
            direct = await chunks(clients.straight, body, MODEL)
            wanted = comparable(accumulated([each for each in direct if asked or each["choices"] or not each["usage"]]))
            for choice in wanted["choices"].values():  # some vendors forget it, Atlas does not
                choice.setdefault("finish_reason", "tool_calls" if choice["calls"] else "stop")
            # Byte by byte takes long and adds nothing to pieces of seven for what is long.
            for size in (None, 7, *([1] if len(exchange.body) <= SMALL else [])):
                clients.up.default = plan_of(exchange, exchange.body, size)
                relayed = await chunks(clients.through, body, f"chaos/{MODEL}")
                found = comparable(accumulated(relayed))
                if asked and "usage" not in wanted:
                    assert found.pop("usage")["completion_tokens"] > 0  # counted by Atlas
                assert found == wanted, f"in pieces of {size}"
                assert len({each["id"] for each in relayed}) == 1
                assert {each["model"] for each in relayed} == {f"chaos/{MODEL}"}
            options = {**(body.get("stream_options") or {}), "include_usage": True}
            assert clients.up.last.json == {**body, "stream_options": options}

    run(both(), timeout=60)


@pytest.mark.parametrize("recording", replayed("stream"))
def test_cut(recording: Recording) -> None:
    """Of a recording whose end is missing nothing is a success: the SDK raises."""
    exchange = recording.load()
    frames = exchange.body.replace(b"\r\n", b"\n").split(b"\n\n")
    finish = next(at for at, frame in enumerate(frames) if _finishes(frame))

    async def ask() -> None:
        async with ways() as clients:
            for count in {1, finish // 2, finish}:
                part = b"".join(frame + b"\n\n" for frame in frames[:count])
                clients.up.default = plan_of(exchange, part, None)
                with pytest.raises(APIError):
                    await chunks(clients.through, body_of(exchange), f"chaos/{MODEL}")

    run(ask())


def _finishes(frame: bytes) -> bool:
    _, _, data = frame.partition(b"data: ")
    return data == b"[DONE]" or any(part.get("finish_reason") for part in json.loads(data or b"{}").get("choices", ()))


CATEGORIES = {
    "groq-error-000-test-tool-regular-error": (404, "model_not_found"),
    "deepseek-error-002-chat-real-error-scenarios-deepseek-deepseek-chat-handles-con": (400, "context_length_exceeded"),
    "openrouter-error-002-chat-real-error-scenarios-openrouter-claude-haiku-4-5-handle": (
        400,
        "context_length_exceeded",
    ),
    "azure-openai-error-000-test-chat-reasoning": (404, "model_not_found"),
}
_BY_STATUS = {400: (400, "bad_request"), 401: (502, "provider_auth")}


@pytest.mark.parametrize("recording", replayed("error"))
def test_error(recording: Recording) -> None:
    """A recorded error is an error in OpenAI's shape, of a fitting kind; only the provider's key is never blamed."""
    exchange = recording.load()

    async def ask() -> None:
        async with ways() as clients:
            clients.up.default = plan_of(exchange, exchange.body, None)
            if exchange.status == 200:
                with pytest.raises(APIError) as broken:
                    await chunks(clients.through, SMALLEST, f"chaos/{MODEL}")
                assert broken.value.message
                return
            with pytest.raises(APIStatusError) as caught:
                await chunks(clients.through, SMALLEST, f"chaos/{MODEL}")
            error = caught.value
            wanted = next((row for name, row in CATEGORIES.items() if recording.name.startswith(name)), None)
            assert (error.status_code, error.code) == (wanted or _BY_STATUS[exchange.status])
            assert isinstance(error.body, dict)
            assert {"message", "type", "param", "code", "whose"} <= set(error.body)
            assert 0 < len(error.body["message"]) <= 512
            assert error.response.headers["x-should-retry"] == "false"

    run(ask())


def test_raw_error_shape() -> None:
    """On the wire too an error is one member `error`, as JSON, with the headers that SDKs obey."""
    need_recordings()
    exchange = recordings("deepseek", "error")[0].load()

    async def ask() -> None:
        async with (
            ChaosProvider(plan_of(exchange, exchange.body, None)) as up,
            AtlasServer(atlas_settings(up)) as atlas,
        ):
            async with RawClient.to(atlas.base_url) as client:
                body = {**body_of(exchange), "model": f"chaos/{MODEL}"}
                answer = await client.request("POST", "/v1/chat/completions", json=body)
            assert answer.headers["content-type"] == "application/json"
            assert set(answer.json) == {"error"}
            assert json.dumps(answer.json).isascii()

    run(ask())


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    """What was replayed and what was left out is said in the run's output."""
    need_recordings()
    lines = ["", "recorded traffic through Atlas (streams, errors; left out):"]
    for vendor in VENDORS:
        found = recordings(vendor)
        reasons = Counter(reason for each in found if (reason := left_out(each)) is not None)
        kinds = Counter(each.kind for each in found if left_out(each) is None)
        said = "".join(f"; {count} {reason}" for reason, count in reasons.items())
        lines.append(f"  {vendor}: {kinds['stream']}, {kinds['error']}{said}")
    with capsys.disabled():
        print("\n".join(lines))
