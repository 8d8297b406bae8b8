"""Recorded traffic of OpenAI and compatible hosts goes through Atlas without loss: the official SDK is the judge.

Each recording is replayed from a real socket, once straight to the SDK and then through a running Atlas, in pieces of
several sizes. Two differences are Atlas's intention: a usage chunk of its own is shown only to who asked for it, and
every choice has a finish reason.
"""

import json
from typing import Any

import pytest
from openai import APIError, APIStatusError

from tests.recorded.accumulate import accumulated, comparable
from tests.recorded.replay import ASKED, COMPATIBLE, MODEL, body_of, plan_of, replayed, sizes_of, ways
from tests.recorded.replay import openai_chunks as chunks
from tests.support.chaos import ChaosProvider
from tests.support.http import RawClient
from tests.support.recordings import Recording, need_recordings, recordings
from tests.support.run import run
from tests.support.server import AtlasServer, atlas_settings

streams = pytest.mark.parametrize("recording", replayed("stream", *COMPATIBLE))


@streams
def test_stream(recording: Recording, record_property: Any) -> None:
    """Through Atlas the SDK accumulates what it accumulates from the vendor, member by member.

    The vendor gets the recorded request member by member, but for the model and the wish for usage.
    """
    record_property("replayed", f"{recording.provider}, on chat completions")
    exchange = recording.load()
    body = body_of(exchange)
    asked = bool((body.get("stream_options") or {}).get("include_usage"))

    async def both() -> None:
        async with ways() as clients:
            clients.up.default = plan_of(exchange, exchange.body, None)
            direct = await chunks(clients.up_openai, body, MODEL)
            wanted = comparable(accumulated([each for each in direct if asked or each["choices"] or not each["usage"]]))
            for choice in wanted["choices"].values():  # some vendors forget it, Atlas does not
                choice.setdefault("finish_reason", "tool_calls" if choice["calls"] else "stop")
            for size in sizes_of(exchange):
                clients.up.default = plan_of(exchange, exchange.body, size)
                relayed = await chunks(clients.openai, body, f"chaos/{MODEL}")
                found = comparable(accumulated(relayed))
                if asked and "usage" not in wanted:
                    assert found.pop("usage")["completion_tokens"] > 0  # counted by Atlas
                assert found == wanted, f"in pieces of {size}"
                assert len({each["id"] for each in relayed}) == 1
                assert {each["model"] for each in relayed} == {f"chaos/{MODEL}"}
            options = {**(body.get("stream_options") or {}), "include_usage": True}
            assert clients.up.last.json == {**body, "stream_options": options}

    run(both())


@streams
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
                    await chunks(clients.openai, body_of(exchange), f"chaos/{MODEL}")

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


@pytest.mark.parametrize("recording", replayed("error", *COMPATIBLE))
def test_error(recording: Recording) -> None:
    """A recorded error is an error in OpenAI's shape, of a fitting kind; only the provider's key is never blamed."""
    exchange = recording.load()

    async def ask() -> None:
        async with ways() as clients:
            clients.up.default = plan_of(exchange, exchange.body, None)
            if exchange.status == 200:
                with pytest.raises(APIError) as broken:
                    await chunks(clients.openai, ASKED, f"chaos/{MODEL}")
                assert broken.value.message
                return
            with pytest.raises(APIStatusError) as caught:
                await chunks(clients.openai, ASKED, f"chaos/{MODEL}")
            error = caught.value
            wanted = next((row for name, row in CATEGORIES.items() if recording.name.startswith(name)), None)
            assert (error.status_code, error.code) == (wanted or _BY_STATUS[exchange.status])
            assert isinstance(error.body, dict)
            assert {"message", "type", "param", "code", "whose"} <= set(error.body)
            assert 0 < len(error.body["message"]) <= 512
            assert error.response.headers["x-should-retry"] == "false"

    run(ask())


def test_raw_error_shape() -> None:
    """On the wire too an error is one member `error`, as JSON, beside it the stream's status."""
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
            assert set(answer.json) == {"error", "stream"}
            assert json.dumps(answer.json).isascii()

    run(ask())
