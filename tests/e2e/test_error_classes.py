"""What the official SDKs raise for each category, and whether they come again: judged by the SDKs themselves."""

import asyncio
import json
from collections import Counter
from typing import Any

import anthropic
import openai
import pytest

from gateway.api.exchange import Exchange
from gateway.core.errors import CONSEQUENCES, Category, Failure
from tests.e2e.house import MESSAGES, house, run, sdk
from tests.e2e.test_ops import metrics, total
from tests.support.chaos import Garbage, Plan, event_of, refusing
from tests.support.server import AtlasServer

OPENAI = {
    400: openai.BadRequestError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    413: openai.APIStatusError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    502: openai.InternalServerError,
    503: openai.InternalServerError,
    504: openai.InternalServerError,
}
ANTHROPIC = {
    400: anthropic.BadRequestError,
    402: anthropic.APIStatusError,
    404: anthropic.NotFoundError,
    409: anthropic.ConflictError,
    413: anthropic.ContentTooLargeError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    502: anthropic.InternalServerError,
    503: anthropic.ServiceUnavailableError,
    504: anthropic.GatewayTimeoutError,
    529: anthropic.OverloadedError,
}
STATUS = {Category.QUOTA: 402, Category.BUDGET: 402, Category.OVERLOADED: 529, Category.GATEWAY_OVERLOADED: 529}
"""Where Anthropic's shape has another status than OpenAI's."""

CANARY = "sk-canary-provider"


class Failing:
    """Every request fails with the category that it names as its model, as the gateway writes it; counts them."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{kind}"
                await send({"type": f"lifespan.{kind}.complete"})
            return
        exchange = Exchange(scope, receive, send, "req_1")
        named = json.loads(await exchange.body(10_000))["model"]
        self.asked[named] += 1
        await exchange.fail(Failure(Category(named), "no", retry_after_s=0.0, provider_code="c"))


async def _openai(client: openai.AsyncOpenAI, category: Category) -> None:
    row = CONSEQUENCES[category]
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model=category, messages=MESSAGES)
    error = caught.value
    assert type(error) is OPENAI[row.status], category
    assert (error.status_code, error.code, error.type) == (row.status, row.code, row.type)
    body: Any = error.body
    assert (body["message"], body["whose"], body["provider_code"]) == ("no", row.whose, "c")
    assert error.request_id == "req_1"


async def _anthropic(client: anthropic.AsyncAnthropic, category: Category) -> None:
    row = CONSEQUENCES[category]
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(model=category, max_tokens=9, messages=MESSAGES)
    error = caught.value
    status = STATUS.get(category, row.status)
    assert (type(error), error.status_code) == (ANTHROPIC[status], status), category
    body: Any = error.body
    assert (body["type"], body["request_id"]) == ("error", "req_1")
    said = body["error"]
    assert (said["message"], said["code"], said["whose"], said["provider_code"]) == ("no", row.code, row.whose, "c")
    assert error.request_id == "req_1"


def _assert_retried(app: Failing) -> None:
    """Once more where there is hope, not where there is none."""
    assert app.asked == {category: 2 if CONSEQUENCES[category].retry else 1 for category in Category}


def test_openai() -> None:
    """For each category the openai SDK raises the class of its status, and asks again only where there is hope."""

    async def scenario() -> None:
        app = Failing()
        async with AtlasServer(app) as server, sdk(server.base_url + "/v1", max_retries=1) as client:
            await asyncio.gather(*(_openai(client, category) for category in Category))
        _assert_retried(app)

    run(scenario())


def test_anthropic() -> None:
    """So does the anthropic SDK, in its own shape: 402 where money ran out, 529 where the provider is overloaded."""

    async def scenario() -> None:
        app = Failing()
        async with (
            AtlasServer(app) as server,
            anthropic.AsyncAnthropic(base_url=server.base_url, api_key="x", max_retries=1) as client,
        ):
            await asyncio.gather(*(_anthropic(client, category) for category in Category))
        _assert_retried(app)

    run(scenario())


@pytest.mark.parametrize("kind", ["openai_chat", "anthropic", "ollama"])
def test_a_quota_is_not_asked_for_again(kind: str) -> None:
    """A spent budget upstream reaches both SDKs as theirs, and nobody makes the provider refuse it twice."""
    model = {"openai_chat": "chaos/any", "anthropic": "claude/any", "ollama": "llama/any"}[kind]

    plan = refusing(429, message="your credit balance is too low")

    async def scenario() -> None:
        async with house(plan, kinds=(kind,)) as it, it.sdk(max_retries=2) as one:
            with pytest.raises(openai.RateLimitError) as first:
                await one.chat.completions.create(model=model, messages=MESSAGES)
            assert first.value.code == "insufficient_quota"
            assert (await it.ask(model=model)).status == 503
            assert len(it.up.requests) == 1
        async with (
            house(plan, kinds=(kind,)) as it,
            anthropic.AsyncAnthropic(base_url=it.atlas.base_url, api_key="x", max_retries=2) as other,
        ):
            with pytest.raises(anthropic.APIStatusError) as second:
                await other.messages.create(model=model, max_tokens=9, messages=MESSAGES)
            assert second.value.status_code == 402
            assert len(it.up.requests) == 1

    run(scenario())


def test_the_shortest_wait_is_told() -> None:
    """Retry-After is what the least busy provider asks for, and never longer than SDKs would sleep."""

    async def scenario() -> None:
        plans = [refusing(429, code="rate_limit_exceeded", retry_after=wait) for wait in ("250", "7", "100")]
        async with house(*plans) as it:
            answer = await it.ask()
            assert (answer.status, answer.headers["retry-after"], answer.headers["x-should-retry"]) == (
                429,
                "7",
                "true",
            )
            assert answer.json["error"]["attempts"] == ["up: rate_limited", "up2: rate_limited", "up3: rate_limited"]
        async with house(refusing(429, code="rate_limit_exceeded", retry_after="250")) as it:
            assert (await it.ask()).headers["retry-after"] == "60"

    run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_a_key_in_a_stream(stream: bool) -> None:
    """A provider that repeats its key within a stream shows it neither to the client nor in the stream's status."""

    async def scenario() -> None:
        error = {"error": {"message": f"key {CANARY} was revoked", "code": CANARY}}
        plan = Plan(tokens=5)
        broken = plan.with_(error_event_at=(event_of(plan, "text", 3), error))
        async with house(broken, api_key=CANARY) as it:
            answer = await it.ask(stream=stream)
            sid = answer.headers["x-atlas-stream-id"]
            shown = answer.body.decode() + json.dumps(await it.status(sid)) + (await it.native(sid)).body.decode()
            assert CANARY not in shown
            assert "key [key] was revoked" in shown

    run(scenario())


def test_oddities_are_counted() -> None:
    """Errors that no table knows, and events that could not be read, are seen by the operator."""

    async def scenario() -> None:
        plan = Plan(tokens=5)
        async with house(plan.with_(garbage=Garbage(kind="json", at=3, count=2))) as it:
            answer = await it.ask()
            assert answer.status == 200
            status = await it.status(answer.headers["x-atlas-stream-id"])
            assert status["metrics"]["malformed_events"] == 2
            it.up.script = [refusing(418, message="I am a teapot.")]
            assert (await it.ask()).status == 400
            it.up.default = plan.with_(error_event_at=(event_of(plan, "text", 3), {"error": {"type": "new"}}))
            await it.ask()
            seen = await metrics(it)
            assert total(seen, "atlas_upstream_malformed_events", 'endpoint="up"') == 2
            assert total(seen, "atlas_upstream_unmapped_errors", 'endpoint="up"', 'status="418"') == 1
            begun_anew_once = 2
            assert total(seen, "atlas_upstream_unmapped_errors", 'endpoint="up"', 'status="200"') == begun_anew_once

    run(scenario())
