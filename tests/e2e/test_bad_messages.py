"""Requests for messages that are wrong: each is refused in Anthropic's shape, names what is at fault."""

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.house import house, run
from tests.e2e.test_bad_input import BAD_JSON
from tests.support.chaos import Gate, Plan
from tests.support.http import Answer
from tests.support.signals import eventually

JSON = {"content-type": "application/json"}
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
GOOD: dict[str, Any] = {"model": "mock-fast-3", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
}


def check(answer: Answer, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The answer is an error of this status in Anthropic's shape, with all that its readers rely on; returns it.

    Beside it stands the stream's status, where there is a stream.
    """
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == ("true" if status == 408 else "false")
    body = answer.json
    assert set(body) - {"stream"} == {"type", "error", "request_id"}
    assert body.get("stream", {}).get("id") == answer.headers.get("x-atlas-stream-id")
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    assert body["request_id"].startswith("req_")
    error = body["error"]
    assert error["type"] == TYPES[status]
    assert error["message"]
    assert code is None or error["code"] == code, error
    assert param is None or error["param"] == param, error
    return dict(error)


@pytest.mark.parametrize("name", BAD_JSON)
def test_bodies_that_are_no_json_object(name: str) -> None:
    """A body that is not one JSON object with one meaning is a 400 that says so, on both routes."""

    async def scenario() -> None:
        async with house() as it:
            for route in (MESSAGES, COUNT):
                check(await it.call("POST", route, JSON, BAD_JSON[name]), 400, "invalid_json")
            assert not it.up.requests

    run(scenario())


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"stream": 1}, "stream"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
    ],
)
def test_members(members: dict[str, Any], param: str) -> None:
    """A member that is wrong is named."""

    async def scenario() -> None:
        async with house() as it:
            error = check(await it.call("POST", MESSAGES, json=GOOD | members), 400, param=param)
            assert param in error["message"]

    run(scenario())


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_in_the_newest_version(name: str) -> None:
    """A sampling parameter is refused by name if the caller sent the version that has none."""

    async def scenario() -> None:
        async with house() as it:
            new, old = {"anthropic-version": "2026-10-21"}, {"anthropic-version": "2023-06-01"}
            answer = await it.call("POST", MESSAGES, new, json=GOOD | {name: 1})
            check(answer, 400, "unsupported_parameter", name)
            assert (await it.call("POST", MESSAGES, old, json=GOOD | {name: 1})).status == 200

    run(scenario())


def test_heads() -> None:
    """Wrong methods, paths, content types, hosts, header values and sizes are refused in this dialect's shape."""

    async def scenario() -> None:
        async with house(server={"max_body": 2000}) as it:
            body = json.dumps(GOOD).encode()
            check(await it.call("GET", MESSAGES), 405, "method_not_allowed")
            check(await it.call("POST", MESSAGES + "/batches", json=GOOD), 404, "not_found")
            check(await it.call("POST", MESSAGES, {"content-type": "text/plain"}, body), 415, "unsupported_media_type")
            check(await it.call("POST", MESSAGES, {**JSON, "content-encoding": "gzip"}, body), 415)
            check(await it.call("POST", MESSAGES, {"host": "evil.example"}, json=GOOD), 400, "invalid_host", "Host")
            check(await it.call("POST", MESSAGES, {"x-atlas-on-cancel": "maybe"}, json=GOOD), 400, "invalid_header")
            check(await it.call("POST", MESSAGES, json=GOOD | {"system": "x" * 2000}), 413, "request_too_large")
            check(await it.call("POST", MESSAGES, json=GOOD | {"model": "nowhere"}), 404, "model_not_found", "model")
            check(await it.call("POST", COUNT, json=GOOD | {"model": "nowhere"}), 404, "model_not_found", "model")

    run(scenario())


def test_a_key_with_another_body() -> None:
    """An Idempotency-Key that was used with another body is a 422; with the same body it is the same stream."""

    async def scenario() -> None:
        async with house() as it:
            key = {"idempotency-key": "k"}
            first = await it.call("POST", MESSAGES, key, json=GOOD)
            again = await it.call("POST", MESSAGES, key, json=GOOD)
            assert again.json == first.json
            assert again.headers["x-atlas-idempotent"] == "replayed"
            answer = await it.call("POST", MESSAGES, key, json=GOOD | {"max_tokens": 8})
            check(answer, 422, "idempotency_key_reused", "Idempotency-Key")

    run(scenario())


def test_cancelled_before_a_byte() -> None:
    """A stream that is cancelled before anything was sent is a 409 in this dialect's shape."""

    async def scenario() -> None:
        async with house(Plan(hold_headers=Gate())) as it:
            asked = asyncio.create_task(it.call("POST", MESSAGES, json=GOOD | {"model": "chaos/any"}))
            await it.up.received()
            (listed,) = (await it.call("GET", "/v1/streams")).json["data"]
            await it.control(listed["id"], "cancel")
            check(await asked, 409, "stream_cancelled")
            await eventually(lambda: it.channels == 0)

    run(scenario())


def test_errors_of_models_are_the_askers() -> None:
    """The list of models belongs to two APIs: an error there is in the shape of who asks."""

    async def scenario() -> None:
        async with house() as it:
            version = {"anthropic-version": "2023-06-01"}
            check(await it.call("GET", "/v1/models/nowhere", version), 404, "model_not_found")
            assert "type" not in (await it.call("GET", "/v1/models/nowhere")).json
            assert "type" not in (await it.call("POST", "/v1/chat/completions", version, json={})).json

    run(scenario())
