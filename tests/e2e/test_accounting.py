"""Every leg is settled once, to the provider's own figures where there are any, and to flagged estimates where not."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from gateway.app import create
from gateway.core.clock import Clock
from gateway.core.usage import Usage
from gateway.pool.settlement import Settlement
from gateway.telemetry.logs import JsonFormatter
from tests.e2e.house import CHAT, House, ask, run, sid_of
from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider, Gate, Plan, Tool, refusing
from tests.support.clock import ManualClock
from tests.support.server import AtlasServer, atlas_settings
from tests.support.signals import eventually
from tests.support.sse import data_frames

KINDS = ("openai_chat", "anthropic", "ollama")
MESSAGES = "/v1/messages"
ANSWERS: dict[str, tuple[Plan, int]] = {
    "asked for": (Plan(tokens=30), 30),
    "always": (Plan(tokens=30, usage="always"), 30),
    "on every chunk": (Plan(tokens=30, usage="every"), 30),
    "with the finish": (Plan(tokens=30, usage="finish"), 30),
    "reasoning": (Plan(tokens=10, reasoning=7), 17),
    "from the cache": (Plan(tokens=10, cached=4), 10),
    "two choices": (Plan(tokens=6, choices=2), 12),
    "no end marker": (Plan(tokens=6, no_done=True), 6),
}
PROMPT = 10
PRICE = {"input": 2, "output": 10, "cached": 0.5}


@asynccontextmanager
async def books(
    *plans: Plan, clock: Clock | None = None, **options: Any
) -> AsyncIterator[tuple[House, list[Settlement]]]:
    """A house, and the settlements as a budget would get them."""
    rows: list[Settlement] = []
    async with baseline():
        ups = [ChaosProvider(plan) for plan in plans]
        for up in ups:
            await up.__aenter__()
        try:
            app = create(atlas_settings(*ups, **options), clock=clock, on_settled=rows.append)
            async with AtlasServer(app) as atlas:
                yield House(app, atlas, ups), rows
        finally:
            for up in ups:
                await up.__aexit__(None, None, None)


@contextmanager
def settlement_lines() -> Iterator[list[dict[str, Any]]]:
    """What stands in the log of settlements, as it is written."""
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    logger, keep = logging.getLogger("atlas.settlements"), Keep()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(keep)
        logger.setLevel(level)
        logger.propagate = propagate


def samples(it: House, family: str) -> dict[str, float]:
    """The samples of a metric by their labels."""
    lines = it.app.services.metrics.exposition().decode().splitlines()
    found = [
        line.removeprefix(family).rsplit(" ", 1) for line in lines if line.startswith((family + "{", family + " "))
    ]
    return {labels: float(value) for labels, value in found}


async def settled(rows: list[Settlement], count: int = 1) -> Settlement:
    """The last of `count` rows, of which there are no more."""
    await eventually(lambda: len(rows) >= count, what="the settlement")
    assert len(rows) == count
    return rows[-1]


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "not asked"])
@pytest.mark.parametrize("name", ANSWERS)
def test_usage_is_the_providers(name: str, asked: bool) -> None:
    """Row, status and log have the provider's figures to the token; the client sees a usage chunk only if it asked."""
    plan, tokens = ANSWERS[name]

    async def scenario() -> None:
        async with books(plan) as (it, rows):
            options = {"stream_options": {"include_usage": True}} if asked else {}
            async with it.chat(**options) as answer:
                frames = data_frames(await answer.read())
            chunks = [json.loads(frame.data) for frame in frames if frame.data != "[DONE]"]
            row = await settled(rows)
            assert row.usage == Usage(input_tokens=PROMPT, output_tokens=tokens, cached_tokens=plan.cached or None)
            assert (row.endpoint, row.model, row.leg, row.end) == ("up", "any", 1, "completed")
            bare = [chunk for chunk in chunks if chunk.get("usage") and not chunk["choices"]]
            assert len(bare) <= asked
            if asked:
                assert chunks[-1]["usage"]["completion_tokens"] == tokens
            status = await it.status(sid_of(answer))
            (leg,) = status["legs"]
            assert leg["usage"] == status["usage"]
            assert (leg["usage"]["output_tokens"], leg["usage"]["estimated"], leg["end"]) == (
                tokens,
                False,
                "completed",
            )

    run(scenario())


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("route", ["chaos", "claude", "llama"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_every_dialect_and_wire(path: str, route: str, stream: bool) -> None:
    """Whoever asks and whoever answers, the row has the provider's figures."""

    async def scenario() -> None:
        async with books(Plan(tokens=30), kinds=KINDS) as (it, rows):
            body = ask(f"{route}/any", stream=stream, max_tokens=99)
            async with it.client() as client:
                await client.request("POST", path, {"anthropic-version": "2023-06-01"}, json=body)
            row = await settled(rows)
            assert (row.usage.input_tokens, row.usage.output_tokens, row.usage.estimated) == (PROMPT, 30, False)
            assert (row.route, row.model) == (f"{route}/*", "any")

    run(scenario())


def test_no_usage_is_estimated_and_says_so() -> None:
    """A provider that never says what it used: prompt and answer are estimates, in the row and for the client."""

    async def scenario() -> None:
        async with books(Plan(tokens=100, usage="never")) as (it, rows):
            answer = await it.ask()
            row = await settled(rows)
            assert row.usage.estimated
            assert row.usage.input_tokens > 0
            assert row.usage.output_tokens > 50
            assert answer.json["usage"]["completion_tokens"] == row.usage.output_tokens

    run(scenario())


def test_finished_streams_teach_the_estimates() -> None:
    """What the provider reports of finished streams makes the estimate of a cancelled one right within 15 %."""
    plan = Plan(tokens=400, tokens_per_event=8)

    async def scenario() -> None:
        gate = Gate(26)  # the role, then 25 events
        async with books(plan) as (it, rows):
            for _ in range(6):
                await it.ask()
            it.up.default = plan.with_(gate=gate)
            async with it.chat() as answer:
                await answer.until_frames(25)
                await it.control(sid_of(answer), "cancel")
            row = await settled(rows, 7)
            assert row.usage.estimated
            assert row.usage.output_tokens == pytest.approx(200, rel=0.15)

    run(scenario())


@pytest.mark.parametrize("how", ["control", "disconnect"])
def test_a_cancelled_stream_has_one_row(how: str) -> None:
    """Whoever cancels, the leg is settled once: flagged, with what had come; the metrics count the same tokens."""

    async def scenario() -> None:
        gate = Gate(24)
        async with books(Plan(tokens=50, gate=gate)) as (it, rows):
            async with it.chat() as answer:
                sid = sid_of(answer)
                await answer.until_frames(20)
                if how == "control":
                    await it.control(sid, "cancel")
            row = await settled(rows)
            assert (row.end, row.usage.estimated) == (f"cancelled:{how}", True)
            assert row.usage.output_tokens > 0
            assert row.usage.input_tokens > 0
            assert row.cost_usd is None
            await eventually(lambda: it.channels == 0)
            status = await it.status(sid)
            assert status["legs"][0]["end"] == row.end
            assert status["legs"][0]["usage"]["output_tokens"] == row.usage.output_tokens
            assert status["cost_usd"] is None
            counted = samples(it, "atlas_tokens_total")
            assert counted['{endpoint="up",type="output"}'] == row.usage.output_tokens
            assert samples(it, "atlas_cost_usd_total") == {}

    run(scenario())


def test_anthropic_cut_after_message_start() -> None:
    """A cancelled Anthropic stream has the prompt that message_start reported, and the answer by estimate."""

    async def scenario() -> None:
        gate = Gate(24)
        async with books(Plan(tokens=50, gate=gate), kinds=("anthropic",)) as (it, rows):
            async with it.chat(model="claude/any", max_tokens=99) as answer:
                await answer.until_frames(20)
                await it.control(sid_of(answer), "cancel")
            row = await settled(rows)
            assert (row.usage.input_tokens, row.usage.estimated) == (PROMPT, True)
            assert row.usage.output_tokens > 10

    run(scenario())


def test_a_failed_stream_has_one_row() -> None:
    """A provider that breaks off after content is billed for what came."""

    async def scenario() -> None:
        clock = ManualClock()
        async with books(Plan(tokens=50, stall_at_event=30), clock=clock, streams={"tick_s": 0.02}) as (it, rows):
            async with it.chat() as answer:
                await answer.until_frames(20)
                reading = asyncio.ensure_future(answer.read())

                def is_given_up() -> bool:
                    clock.advance(1)
                    return reading.done()

                await eventually(is_given_up)
            row = await settled(rows)
            assert (row.end, row.usage.estimated) == ("failed:timeout_idle", True)
            assert row.usage.output_tokens > 10

    run(scenario())


def test_a_fallback_is_settled_where_it_answered() -> None:
    """An attempt that was refused has no row: the endpoint that answered has."""

    async def scenario() -> None:
        async with books(refusing(503), Plan(tokens=9)) as (it, rows):
            await it.ask()
            row = await settled(rows)
            assert (row.endpoint, row.usage.output_tokens) == ("up2", 9)

    run(scenario())


def test_an_attempt_that_was_left_before_content_has_a_row() -> None:
    """Who hangs up before the first token has still asked: leg 0, the prompt by estimate."""

    async def scenario() -> None:
        gate = Gate()
        async with books(Plan(gate=gate)) as (it, rows):
            async with it.client() as client:
                asked = asyncio.ensure_future(client.request("POST", CHAT, json=ask(stream=False)))
                await gate.held()
                asked.cancel()
            row = await settled(rows)
            assert (row.leg, row.endpoint, row.end) == (0, "up", "cancelled:disconnect")
            assert (row.usage.estimated, row.usage.output_tokens) == (True, 0)
            assert row.usage.input_tokens > 0

    run(scenario())


def test_a_vendor_that_goes_on_after_the_close() -> None:
    """Where closing does not stop the bill, a cut answer's row says that there is more than is known."""

    async def scenario() -> None:
        gate = Gate(24)
        async with books(Plan(tokens=50, gate=gate, usage="every"), endpoint={"stops_on_close": False}) as (it, rows):
            async with it.chat() as answer:
                await answer.until_frames(20)
                await it.control(sid_of(answer), "cancel")
            row = await settled(rows)
            assert (row.stops_on_close, row.billed_beyond, row.usage.estimated) == (False, True, True)
            assert row.usage.output_tokens >= 10
            gate.open()
            await it.ask()
            whole = await settled(rows, 2)
            assert (whole.billed_beyond, whole.usage.estimated) == (False, False)

    run(scenario())


def test_the_operators_price() -> None:
    """A price of the configuration is what row, status and metric count with; cached tokens have their own."""

    async def scenario() -> None:
        async with books(Plan(tokens=30, cached=4), endpoint={"price": PRICE}) as (it, rows):
            answer = await it.ask()
            row = await settled(rows)
            cost = (6 * 2 + 4 * 0.5 + 30 * 10) / 1e6
            assert row.cost_usd == pytest.approx(cost)
            status = await it.status(sid_of(answer))
            assert status["cost_usd"] == status["legs"][0]["cost_usd"] == row.cost_usd
            assert samples(it, "atlas_cost_usd_total") == {'{endpoint="up"}': pytest.approx(cost)}
            types = samples(it, "atlas_tokens_total")
            assert types['{endpoint="up",type="cached"}'] == 4

    run(scenario())


def test_the_mock_is_free() -> None:
    """The mock costs nothing, which is not the same as unknown."""

    async def scenario() -> None:
        async with books() as (it, rows):
            await it.ask(model="mock-fast-20")
            row = await settled(rows)
            assert (row.cost_usd, row.provider, row.usage.output_tokens) == (0.0, "mock", 20)

    run(scenario())


def test_one_line_without_the_prompt() -> None:
    """A settlement is one line of the log, whole, and nothing that was asked or answered stands in it."""

    async def scenario() -> None:
        with settlement_lines() as lines:
            plan = Plan(tokens=30, cached=2)
            async with books(plan, endpoint={"price": PRICE}) as (it, rows):
                answer = await it.ask()
                row = await settled(rows)
        (line,) = lines
        assert (line["logger"], line["stream"], line["tenant"]) == ("atlas.settlements", sid_of(answer), "local")
        assert (line["endpoint"], line["provider"], line["model"], line["leg"]) == ("up", "openai_chat", "any", 1)
        assert (line["input_tokens"], line["output_tokens"], line["cached_tokens"]) == (PROMPT, 30, 2)
        assert (line["cost_usd"], line["end"], line["estimated"]) == (row.cost_usd, "completed", False)
        assert (line["stops_on_close"], line["billed_beyond"]) == (True, False)
        assert "Say it" not in json.dumps(lines)
        assert plan.text()[:20] not in json.dumps(lines)

    run(scenario())


def test_cancelled_while_paused() -> None:
    """What came behind a pause that a cancel ended was served to nobody: it is counted as wasted, and still billed."""

    async def scenario() -> None:
        gate = Gate(24)
        async with books(Plan(tokens=50, gate=gate)) as (it, rows):
            async with it.chat() as answer:
                await answer.until_frames(20)
                sid = sid_of(answer)
                await it.control(sid, "pause")
                seq = (await it.status(sid))["seq"]
                await gate.release(20)
                await eventually(lambda: it.app.services.pipeline.hub.channels[sid[4:]].tail >= seq + 20)
                await it.control(sid, "cancel")
                await answer.read()
            row = await settled(rows)
            await eventually(lambda: it.channels == 0)
            metrics = (await it.status(sid))["metrics"]
            assert metrics["wasted_tokens"] == pytest.approx(row.usage.output_tokens / 2, rel=0.2)
            assert metrics["cancel_to_close_ms"] >= 0
            assert samples(it, "atlas_stream_wasted_tokens_total") == {"": metrics["wasted_tokens"]}

    run(scenario())


def test_cancelled_after_the_provider_had_finished() -> None:
    """A stream whose provider finished behind a pause is settled as completed; a cancel then wastes what was held."""

    async def scenario() -> None:
        gate = Gate(24)
        async with books(Plan(tokens=50, gate=gate)) as (it, rows), it.chat() as answer:
            await answer.until_frames(20)
            sid = sid_of(answer)
            await it.control(sid, "pause")
            gate.open()
            row = await settled(rows)
            assert (row.end, row.usage.output_tokens, row.usage.estimated) == ("completed", 50, False)
            await it.control(sid, "cancel")
            status = await it.status(sid)
            assert (status["state"], status["legs"][0]["end"]) == ("cancelled", "completed")
            assert 20 <= status["metrics"]["wasted_tokens"] <= 35
            assert samples(it, "atlas_stream_wasted_tokens_total") == {"": status["metrics"]["wasted_tokens"]}
            assert len(rows) == 1

    run(scenario())


def test_replayed_events_are_counted() -> None:
    """The status says how many events were there already when a reader came by the stream's id."""

    async def scenario() -> None:
        gate = Gate(24)
        async with books(Plan(tokens=50, gate=gate)) as (it, _):
            async with it.chat() as answer:
                sid = sid_of(answer)
                await answer.until_frames(20)
                seq = (await it.status(sid))["seq"]
                async with it.read(f"/v1/streams/{sid}/events?after={seq - 5}") as late:
                    await late.until(b"event: text")
                    assert (await it.status(sid))["metrics"]["replayed_events"] >= 5
                    gate.open()
                    await late.read()
                await answer.read()
            await eventually(lambda: it.channels == 0)
            assert (await it.status(sid))["metrics"]["replayed_events"] >= 5

    run(scenario())


def test_tools_are_counted() -> None:
    """Names and arguments of tool calls are in the estimate of an answer that has nothing else."""
    arguments = json.dumps({"text": "some words that are as long as usual " * 10})
    tool = Tool(id="call_1", name="write_it_down", arguments=arguments)

    async def scenario() -> None:
        async with books(Plan(tokens=0, tools=(tool,), usage="never")) as (it, rows):
            await it.ask()
            row = await settled(rows)
            assert row.usage.output_tokens > len(arguments) / 6

    run(scenario())
