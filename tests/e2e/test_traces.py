"""Traces as a collector gets them, over a real socket."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.app import create
from gateway.telemetry.tracing import FLUSH_S
from tests.e2e.house import CHAT, House, house, run, sid_of
from tests.e2e.test_hedging import hedging
from tests.support.chaos import Gate, Plan, refusing
from tests.support.collector import Collector
from tests.support.server import atlas_settings

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MINE = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
REQUEST = f"POST {CHAT}"


@asynccontextmanager
async def traced(
    collector: Collector, *plans: Plan, propagate: tuple[str, ...] = (), **sections: Any
) -> AsyncIterator[House]:
    """A house whose traces go to this collector; they are there once it was left."""
    async with house(*plans, telemetry=sent_to(collector, propagate=propagate), **sections) as it:
        yield it


def sent_to(collector: Collector, **tracing: Any) -> dict[str, Any]:
    """The section `telemetry` that sends traces there."""
    return {"tracing": {"endpoint": collector.url, **tracing}}


def test_a_request_and_its_attempt() -> None:
    """The caller's trace goes on in Atlas: its request, and within it the call with model, tokens and finish reason."""

    async def scenario() -> None:
        async with Collector() as collector:
            async with traced(collector, Plan(tokens=5)) as it:
                answer = await it.ask(MINE)
            (request,), (attempt,) = collector.named(REQUEST), collector.named("chat any")
            assert (request.trace, request.parent, attempt.trace) == (TRACE, PARENT, TRACE)
            assert attempt.parent == request.id
            assert request.begun_ns <= attempt.begun_ns <= attempt.ended_ns <= request.ended_ns
            usage = answer.json["usage"]
            expected = {
                "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.system": "openai",
                "gen_ai.request.model": "any", "gen_ai.response.model": "any", "atlas.endpoint": "up",
                "gen_ai.usage.input_tokens": usage["prompt_tokens"],
                "gen_ai.usage.output_tokens": usage["completion_tokens"],
            }  # fmt: skip
            assert attempt.attributes.items() >= expected.items()
            assert attempt.events == ["gen_ai.first_content"]
            about = request.attributes
            assert (about["http.route"], about["http.response.status_code"]) == (CHAT, 200)
            assert (about["atlas.stream"], about["atlas.state"]) == (sid_of(answer), "completed")
            assert about["gen_ai.response.finish_reasons"] == ["stop"]
            assert about["gen_ai.request.model"] == "chaos/any"
            assert "traceparent" not in it.up.last.headers

    run(scenario())


def test_a_provider_on_the_list_learns_the_trace() -> None:
    """`traceparent` goes out to endpoints of `propagate`, with the attempt as the parent, and to no others."""

    async def scenario() -> None:
        async with Collector() as collector:
            async with traced(collector, Plan(status=503), Plan(), propagate=("up2",)) as it:
                await it.ask()
            first, *_, last = collector.named("chat any")
            assert all("traceparent" not in received.headers for received in it.ups[0].requests)
            assert it.ups[1].last.headers["traceparent"].startswith(f"00-{first.trace}-{last.id}-")

    run(scenario())


def test_a_fallback_is_seen() -> None:
    """Every attempt is a span, failed ones with their category, and the request says that it fell back."""

    async def scenario() -> None:
        async with Collector() as collector:
            async with traced(collector, Plan(status=500), Plan(tokens=3)) as it:
                assert (await it.ask()).status == 200
            attempts = collector.named("chat any")
            outcomes = [(span.attributes["atlas.endpoint"], span.attributes.get("error.type")) for span in attempts]
            assert outcomes[0] == ("up", "upstream_5xx")
            assert outcomes[-1] == ("up2", None)
            assert [span.failed for span in attempts] == [outcome is not None for _, outcome in outcomes]
            assert "gen_ai.usage.output_tokens" not in attempts[0].attributes
            (request,) = collector.named(REQUEST)
            assert (request.events, request.failed) == (["atlas.fallback"], False)

    run(scenario())


def test_a_hedge_that_wins_is_seen() -> None:
    """Both attempts are spans of the request, side by side, each with its own bill; who was outrun is no failure."""

    async def scenario() -> None:
        async with Collector() as collector:
            async with hedging(Plan(hold_headers=Gate()), Plan(), telemetry=sent_to(collector)) as it:
                assert (await it.ask(MINE)).headers["x-atlas-endpoint"] == "up2"
            first, second = collector.of(TRACE, "chat any")
            assert [span.attributes["atlas.endpoint"] for span in (first, second)] == ["up", "up2"]
            assert first.begun_ns < second.begun_ns < first.ended_ns
            assert [span.events for span in (first, second)] == [[], ["gen_ai.first_content"]]
            assert [(span.failed, span.attributes.get("error.type")) for span in (first, second)] == [(False, None)] * 2
            assert [span.attributes["atlas.end"] for span in (first, second)] == ["outrun", "completed"]
            tokens = [span.attributes["gen_ai.usage.output_tokens"] for span in (first, second)]
            assert tokens == [0, Plan().tokens]
            (request,) = collector.of(TRACE, REQUEST)
            assert {first.parent, second.parent} == {request.id}
            assert (request.events, request.failed) == ([], False)

    run(scenario())


def test_a_hedge_that_loses_or_fails_is_seen() -> None:
    """The content and its tokens are told of the attempt that they came from, also if that was the one hedged."""

    async def scenario() -> None:
        async with Collector() as collector:
            first = Gate()
            held = Plan(hold_headers=first)
            async with hedging(held, refusing(500), telemetry=sent_to(collector)) as it:
                asking = asyncio.create_task(it.ask(MINE))
                await it.ups[1].received()
                await it.ups[1].last.answered()
                first.open()
                assert (await asking).headers["x-atlas-endpoint"] == "up"
            one, other = collector.of(TRACE, "chat any")
            assert (one.attributes["atlas.endpoint"], one.events, one.failed) == ("up", ["gen_ai.first_content"], False)
            assert one.attributes["gen_ai.usage.output_tokens"] == held.tokens
            assert (other.attributes["error.type"], other.events) == ("upstream_5xx", [])
            assert "gen_ai.usage.output_tokens" not in other.attributes

    run(scenario())


def test_control_of_a_stream_whose_client_left() -> None:
    """A stream that goes on without its client is traced to its end: pause, resume and cancel are events of it."""

    async def scenario() -> None:
        gate = Gate(2)
        async with Collector() as collector:
            async with traced(collector, Plan(gate=gate)) as it:
                async with it.chat({"x-atlas-on-disconnect": "continue"}) as answer:
                    await answer.until_frames(2)
                for op in ("pause", "resume", "cancel"):
                    assert (await it.control(sid_of(answer), op)).status == 200
            (request,), (attempt,) = collector.named(REQUEST), collector.named("chat any")
            assert request.events == ["atlas.stream.pause", "atlas.stream.resume", "atlas.stream.cancel"]
            assert (request.attributes["atlas.state"], request.failed) == ("cancelled", False)
            assert attempt.attributes["error.type"] == "cancelled"
            assert [span.attributes["http.route"] for span in collector.named("POST /v1/streams/{stream_id}/pause")]

    run(scenario())


def test_a_run_of_an_agent_is_one_trace() -> None:
    """The calls of a run, from whatever task of it, are attempts within its request, each with its bill."""

    async def scenario() -> None:
        async with Collector() as collector:
            async with traced(collector) as it:
                answer = await it.call("POST", "/v1/agents/team/runs", MINE, json={"input": "Hello"})
                assert answer.status == 200
            (request,) = collector.named("POST /v1/agents/{name}/runs")
            calls = [span for span in collector.spans if span.parent == request.id]
            assert len(calls) > 1
            assert [call.name for call in calls if "gen_ai.usage.output_tokens" not in call.attributes] == []

    run(scenario())


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "away"])
def test_a_collector_that_is_not_there_holds_up_nobody(*, silent: bool) -> None:
    """Requests are answered as ever, and the process ends in time, where spans can be sent to nobody."""

    async def scenario() -> None:
        async with Collector(silent=silent) as collector:
            url = collector.url
            if not silent:
                await collector.__aexit__()
            async with house(telemetry={"tracing": {"endpoint": url}}, checked=False) as it:
                for _ in range(20):
                    assert (await it.ask(model="mock-fast", max_tokens=1)).status == 200
                begun = time.monotonic()
            assert time.monotonic() - begun < FLUSH_S + 5

    run(scenario())


def test_nothing_of_it_is_there_while_it_is_off() -> None:
    """A gateway without tracing imports no line of OpenTelemetry, and its requests pass no code of it."""
    code = "import sys, gateway.app, gateway.cli; sys.exit(any('opentelemetry.sdk' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    app = create(atlas_settings())
    assert app.entrance is app.edge


def test_without_the_extra_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who configures tracing and did not install it is told how, at the start."""
    monkeypatch.setattr("gateway.from_settings.is_installed", lambda: False)
    with pytest.raises(ValueError, match=r"requirements-otel\.lock"):
        create(atlas_settings(telemetry={"tracing": {"endpoint": "http://127.0.0.1:4318"}}))
