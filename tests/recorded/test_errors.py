"""Every error that vendors were recorded with, and every one that their documentation gives, by its category.

Classified without a socket, and then through a running Atlas, where the SDKs judge what they are answered.

pytest tests/recorded/test_errors.py -rA      # says what was left out
"""

import asyncio
import importlib
import json
from collections.abc import Callable
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from gateway.core.errors import Category, Failure, ProviderError
from gateway.dialects import anthropic_errors, openai_errors
from gateway.providers._reading import Reading, Wire
from gateway.upstream.answer import Answer
from tests.e2e.test_error_classes import ANTHROPIC, OPENAI
from tests.recorded.replay import ASKED, MODEL, Ways, anthropic_message, openai_chunks, plan_of, route_of, ways
from tests.support.chaos import Plan
from tests.support.recordings import Exchange, Recording, need_recordings, recorded, recordings
from tests.support.run import run

ERRORS = "errors"
"""The property whose values the report prints."""

KINDS = {"anthropic": "anthropic", "ollama": "ollama"}
"""Vendors that are not asked on the wire of OpenAI."""

SPOKEN = ("openai-chat", "azure-openai", "groq", "mistral", "deepseek", "openrouter", "perplexity", "xai", "anthropic")
NOT_SPOKEN = {
    "openai-responses": "another API: errors of /v1/responses",
    "bedrock": "another API: AWS event streams",
    "cohere": "another API: its own chat and embed",
    "gemini": "another API: generateContent; the compatible one is in the corpus",
    "vertex-gemini": "another API: generateContent",
}
DOCUMENTED = {
    "anthropic-402": "quota",
    "anthropic-403": "provider_permission",
    "anthropic-413": "too_large",
    "anthropic-429": "rate_limited",
    "anthropic-500": "upstream_5xx",
    "anthropic-504": "upstream_5xx",
    "anthropic-529": "overloaded",
    "anthropic-stream-overloaded": "overloaded",
    "gemini-503": "overloaded",
    "ollama-404": "model_not_found",
    "ollama-stream-error": "stream_error",
    "openai-429-quota": "quota",
    "openai-429-rate": "rate_limited",
    "openai-500": "upstream_5xx",
    "openai-503": "overloaded",
    "openai-stream-error": "upstream_5xx",
}
# By vendor and the number that the recording's name begins with.
RECORDED = {
    "openai-chat": {
        0: "bad_request",
        2: "bad_request",
        4: "bad_request",
        6: "bad_request",
        8: "bad_request",
        10: "bad_request",
        12: "provider_auth",
    },
    "azure-openai": {0: "model_not_found", 2: "provider_auth"},
    "groq": {0: "model_not_found", 2: "bad_request", 4: "bad_request"},
    "mistral": {0: "provider_auth"},
    "deepseek": {0: "provider_auth", 2: "context_length"},
    "openrouter": {0: "provider_auth", 2: "context_length"},
    "perplexity": {0: "provider_auth"},
    "xai": {0: "provider_auth"},
    "anthropic": {
        0: "provider_auth",
        2: "bad_request",
        4: "model_not_found",
        6: "provider_auth",
        8: "context_length",
        10: "model_not_found",
        12: "provider_auth",
        14: "model_not_found",
        16: "provider_auth",
        18: "provider_auth",
        20: "model_not_found",
        22: "model_not_found",
    },
}


class Replayed(Answer):
    """A recorded answer, all of it in one read."""

    def __init__(self, exchange: Exchange) -> None:
        self.status, self.headers, self._left = exchange.status, exchange.headers, [exchange.body, b""]

    async def read(self) -> bytes:
        """All of it, then the end."""
        return self._left.pop(0)


def number(recording: Recording) -> int:
    """What its name begins with."""
    return int(recording.path.stem.partition("-")[0])


def spoken() -> list[Any]:
    """The recorded errors of all wires that Atlas speaks."""
    return [each for vendor in SPOKEN for each in recorded(vendor, "error")]


def provoked(recording: Recording) -> ProviderError:
    """What the adapter raises, without the socket."""
    kind = KINDS.get(recording.provider, "openai_chat")
    exchange = recording.load()
    if exchange.status == 200:
        return asyncio.run(_read(importlib.import_module(f"gateway.providers.{kind}").WIRE, exchange))
    errors = importlib.import_module(f"gateway.providers._{kind.removesuffix('_chat')}_errors")
    error: ProviderError = errors.from_answer(exchange.status, exchange.headers, exchange.body, 0.0)
    return error


async def _read(wire: Wire, exchange: Exchange) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        async for _ in Reading(Replayed(exchange), wire):
            pass
    return caught.value


def assert_means(error: ProviderError, category: str) -> None:
    """The category is this one, it was known, and both shapes say it with the provider's own words."""
    assert (error.category, error.unmapped) == (category, None)
    for shape in (openai_errors, anthropic_errors):
        said = json.loads(json.dumps(shape.failure_body(error.failure)))["error"]
        assert (said["message"], said["whose"]) == (error.failure.message, error.failure.consequence.whose)
        assert "the provider answered" not in said["message"]


@pytest.mark.parametrize("recording", spoken())
def test_recorded(recording: Recording) -> None:
    """A recorded error has the category of the table, and its words reach the client in both shapes."""
    assert_means(provoked(recording), RECORDED[recording.provider][number(recording)])


@pytest.mark.parametrize("recording", recorded("documented"))
def test_documented(recording: Recording) -> None:
    """So has a documented one, in an answer as in a stream."""
    assert_means(provoked(recording), DOCUMENTED[recording.path.stem])


def test_through_atlas() -> None:
    """In either dialect the SDK raises the class of the error's category, whichever wire the error came by."""
    need_recordings()
    everything = [each for vendor in SPOKEN for each in recordings(vendor, "error")] + recordings("documented")
    failures = {each.name: _answered(provoked(each).failure) for each in everything}

    async def scenario() -> None:
        async with ways() as clients:
            clients.up.plans.update({each.name: _plan(each) for each in everything})
            judged = [judge(clients, each, failures[each.name]) for each in everything for judge in (_chat, _messages)]
            found = await asyncio.gather(*judged, return_exceptions=True)
        wrong = [each for each in found if isinstance(each, Exception)]
        if wrong:
            raise ExceptionGroup("wrongly answered", wrong)

    run(scenario())


def _plan(recording: Recording) -> Plan:
    exchange = recording.load()
    return plan_of(exchange, exchange.body, None)


def _answered(failure: Failure) -> Failure:
    """Who names a model that does not exist is told so: the routes here serve every name."""
    named = failure.category is Category.MODEL_NOT_FOUND
    return msgspec.structs.replace(failure, status=404) if named else failure


async def _chat(clients: Ways, recording: Recording, failure: Failure) -> None:
    """The openai SDK, with and without a stream. Errors behind content have no status."""
    row, model = failure.consequence, route_of(recording).replace(MODEL, recording.name)
    with pytest.raises(openai.APIStatusError) as whole:
        await clients.openai.chat.completions.create(messages=ASKED["messages"], model=model)
    assert (type(whole.value), whole.value.status_code) == (OPENAI[row.status], row.status), recording.name
    with pytest.raises(openai.APIError) as streamed:
        await openai_chunks(clients.openai, ASKED, model)
    assert recording.status == 200 or type(streamed.value) is OPENAI[row.status], recording.name
    for error in (whole.value, streamed.value):
        body: Any = error.body
        assert (error.code, error.type, body["whose"]) == (row.code, row.type, row.whose), recording.name
        assert body["message"] == failure.message, recording.name


async def _messages(clients: Ways, recording: Recording, failure: Failure) -> None:
    """So the anthropic SDK."""
    row, model = failure.consequence, route_of(recording).replace(MODEL, recording.name)
    status, kind = row.messages_answer
    with pytest.raises(anthropic.APIStatusError) as whole:
        await clients.anthropic.messages.create(messages=ASKED["messages"], model=model, max_tokens=9)
    assert (type(whole.value), whole.value.status_code) == (ANTHROPIC[status], status), recording.name
    with pytest.raises(anthropic.APIStatusError) as streamed:
        await anthropic_message(clients.anthropic, ASKED, model)
    assert recording.status == 200 or type(streamed.value) is ANTHROPIC[status], recording.name
    for error in (whole.value, streamed.value):
        body: Any = error.body
        said = body["error"]
        assert (said["type"], said["code"], said["whose"]) == (kind, row.code, row.whose), recording.name
        assert said["message"] == failure.message, recording.name


def test_nothing_is_left_out(record_property: Callable[[str, object], None]) -> None:
    """Every vendor's recorded errors are in the tables, or the vendor's wire is one that Atlas does not speak."""
    need_recordings()
    for vendor in SPOKEN:
        assert {number(each) for each in recordings(vendor, "error")} == RECORDED[vendor].keys(), vendor
        record_property(ERRORS, f"{vendor}: {len(RECORDED[vendor])} classified")
    assert {each.path.stem for each in recordings("documented")} == DOCUMENTED.keys()
    for vendor, why in NOT_SPOKEN.items():
        record_property(ERRORS, f"{vendor}: {len(recordings(vendor, 'error'))} left out, {why}")
    assert not recordings("ollama", "error"), "those of Ollama are documented only"
