"""Budgets and limits through a running gateway: what callers see before, in, and after a stream."""

import json
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import RateLimitError

from tests.e2e.house import CHAT, MESSAGES, ask, house, run, sid_of
from tests.support.chaos import Plan
from tests.support.clock import ManualClock
from tests.support.keys import keyed, made
from tests.support.signals import eventually

PROMPT = 10
"""The prompt of these tests, estimated; the chaos provider's tokens are an event each."""


def test_a_key_stops_at_its_budget() -> None:
    """A stream is cut at the budget with finish_reason length; the next request is a 429 that no SDK repeats."""

    async def scenario() -> None:
        key = made("acme", budgets=[{"tokens": 60, "per": "total"}])
        async with house(Plan(tokens=500), **keyed(key)) as it:
            async with it.chat(key.headers()) as answer:
                body = await answer.read()
            assert b'"finish_reason":"length"' in body
            assert body.endswith(b"data: [DONE]\n\n")
            status = (await it.call("GET", f"/v1/streams/{sid_of(answer)}", key.headers())).json
            assert (status["state"], status["reason"]) == ("incomplete", "budget")
            assert 40 <= status["usage"]["input_tokens"] + status["usage"]["output_tokens"] <= 60
            await it.app.services.pipeline.budgets.flush()
            async with it.sdk(api_key=key.secret, max_retries=3) as client:
                with pytest.raises(RateLimitError) as caught:
                    await client.chat.completions.create(model="chaos/any", messages=MESSAGES)
            assert caught.value.code == "budget_exceeded"
            assert caught.value.response.headers.get_list("x-should-retry") == ["false"]
            assert "60 tokens in all" in str(caught.value)
            assert len(it.up.requests) == 1

    run(scenario())


def test_anthropics_callers_get_their_own_words() -> None:
    """On the messages route the end is `max_tokens`, and the refusal a billing error."""

    async def scenario() -> None:
        key = made("acme", budgets=[{"tokens": 60, "per": "day"}])
        async with house(Plan(tokens=500), clock=ManualClock(), **keyed(key)) as it:
            async with AsyncAnthropic(base_url=it.atlas.base_url, api_key=key.secret, max_retries=0) as client:
                said: dict[str, Any] = {"model": "chaos/any", "max_tokens": 1000, "messages": MESSAGES}
                answer = await client.messages.create(**said)
                assert answer.stop_reason == "max_tokens"
                await it.app.services.pipeline.budgets.flush()
            refused = await it.call(
                "POST", "/v1/messages", {**key.headers(), "anthropic-version": "2023-06-01"}, json=said
            )
            assert (refused.status, refused.json["error"]["type"]) == (402, "billing_error")

    run(scenario())


def test_a_caller_limits_its_own_stream() -> None:
    """`x-atlas-budget` needs no configuration; nonsense in it is refused by name."""

    async def scenario() -> None:
        async with house(Plan(tokens=500)) as it:
            answer = await it.ask({"x-atlas-budget": "tokens=40"})
            assert answer.json["choices"][0]["finish_reason"] == "length"
            assert answer.json["usage"]["total_tokens"] <= 40
            wrong = await it.ask({"x-atlas-budget": "lots"})
            assert (wrong.status, wrong.json["error"]["param"]) == (400, "x-atlas-budget")

    run(scenario())


def test_limits_are_shown_and_kept() -> None:
    """Answers count down, the request beyond the limit gets a 429 with Retry-After, an end frees a place."""

    async def scenario() -> None:
        key = made("acme", limits={"rpm": 3, "max_concurrent_streams": 1})
        async with house(Plan(tokens=3), clock=ManualClock(), **keyed(key)) as it:
            left: list[str] = []
            for _ in range(3):
                answer = await it.ask(key.headers())
                assert answer.status == 200, answer
                left.append(answer.headers["x-ratelimit-remaining-requests"])
                await it.app.services.pipeline.budgets.flush()
            refused = await it.ask(key.headers())
            assert refused.status == 429
            assert refused.json["error"]["code"] == "rate_limit_exceeded"
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert left == ["2", "1", "0"]

    run(scenario())


def test_one_stream_at_a_time() -> None:
    """While a stream runs its key gets a 429; a cancel makes room."""

    async def scenario() -> None:
        key = made("acme", limits={"max_concurrent_streams": 1})
        async with house(Plan(tokens=500, pace_s=0.01), **keyed(key)) as it:
            async with it.chat(key.headers()) as answer:
                refused = await it.call("POST", CHAT, key.headers(), json=ask())
                assert (refused.status, refused.json["error"]["code"]) == (429, "concurrency_limit_exceeded")
                await it.control(sid_of(answer), "cancel", key.headers())
            await eventually(lambda: it.channels == 0)
            await it.app.services.pipeline.budgets.flush()
            async with it.chat(key.headers()) as answer:
                assert answer.status == 200

    run(scenario())


def test_the_provider_is_asked_for_no_more_than_is_left() -> None:
    """The caller's limit is lowered to what its budget has left; who named none gets one, by the host's name for it."""

    async def scenario() -> None:
        key = made("acme", budgets=[{"tokens": 60, "per": "month"}])
        for named, preset, sent in (
            ({"max_tokens": 5000}, {}, "max_tokens"),
            ({"max_completion_tokens": 5000}, {}, "max_completion_tokens"),
            ({}, {}, "max_tokens"),
            ({}, {"preset": "openai"}, "max_completion_tokens"),  # its reasoning models refuse the other one
        ):
            async with house(Plan(tokens=5), endpoint=preset, **keyed(key)) as it:
                await it.ask(key.headers(), **named)
                body = json.loads(it.up.requests[0].body)
                assert 30 <= body[sent] <= 55
                assert len({"max_tokens", "max_completion_tokens"} & body.keys()) == 1

    run(scenario())


def test_who_has_plenty_left_is_not_limited() -> None:
    """A caller that named no limit gets none while more is left than any model is sure to take for a limit."""

    async def scenario() -> None:
        key = made("acme", budgets=[{"tokens": 100_000, "per": "month"}])
        async with house(Plan(tokens=5), **keyed(key)) as it:
            await it.ask(key.headers())
            assert not {"max_tokens", "max_completion_tokens"} & json.loads(it.up.requests[0].body).keys()

    run(scenario())
