"""What operators and their machines see: probes, metrics, logs, the description; and that two apps share nothing."""

import json
import logging
import re

import pytest

from gateway.telemetry.logs import JsonFormatter
from tests.e2e.house import CHAT, House, ask, house, run, sid_of
from tests.e2e.test_control import ended, held
from tests.support.chaos import Gate, Plan, refusing
from tests.support.fold import fold
from tests.support.signals import eventually

PROMPT, ANSWER, CALLER_KEY, PROVIDER_KEY = "canary-prompt", "canary-answer", "sk-canary-caller", "sk-canary-provider"


async def metrics(it: House) -> dict[str, float]:
    """The exposition as numbers by sample."""
    answer = await it.call("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    rows = [line.rpartition(" ") for line in answer.body.decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in rows}


def total(samples: dict[str, float], family: str, *labels: str) -> float:
    """The sum of a family's samples that carry these labels."""
    return sum(
        value
        for name, value in samples.items()
        if re.match(rf"{family}(_total|_count)?(\{{|$)", name) and all(label in name for label in labels)
    )


def test_probes() -> None:
    """Liveness, readiness and health answer 200 while the gateway serves, and somebody answers at its root."""

    async def scenario() -> None:
        async with house() as it:
            for path in ("/livez", "/readyz", "/healthz"):
                answer = await it.call("GET", path)
                assert (answer.status, answer.json) == (200, {"status": "ok"})
            assert (await it.call("HEAD", "/")).status == 200
            assert (await it.call("GET", "/")).json["service"] == "atlas"
            it.app.services.pipeline.draining = True
            assert (await it.call("GET", "/livez")).status == 200
            for path in ("/readyz", "/healthz"):
                assert (await it.call("GET", path)).status == 503
            refused = await it.ask()
            assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")
            assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("3", "true")

    run(scenario())


async def _traffic(it: House) -> None:
    """Three answers, one by the second endpoint, and a stream of its that is paused, read by another, and cancelled."""
    gate = Gate(2)
    for stream in (True, False):
        assert (await it.ask(stream=stream)).status == 200
    it.up.script = [refusing(429, code="rate_limit_exceeded")]
    assert (await it.ask()).status == 200
    it.ups[1].plans["held"] = Plan(gate=gate)  # the first one's key rests now
    async with it.chat(model="chaos/held") as answer:
        await answer.until_frames(2)
        sid = sid_of(answer)
        samples = await metrics(it)
        assert total(samples, "atlas_streams", 'state="running"') == 1
        assert samples["atlas_stream_buffer_bytes"] > 0
        await it.control(sid, "pause")
        assert total(await metrics(it), "atlas_streams", 'state="paused"') == 1
        async with it.read(f"/v1/streams/{sid}/events") as other:
            await other.until(b": keep-alive")  # some looks of the housekeeper, who measures the pause
            await it.control(sid, "cancel")
            await other.read()
        await answer.read()
    await ended(it, sid)
    await it.call("GET", "/nowhere/at/all")


COUNTED: list[tuple[float, str, tuple[str, ...]]] = [
    (4, "atlas_http_requests", (f'route="{CHAT}"', 'status="200"')),
    (1, "atlas_http_requests", ('route="unmatched"', 'status="404"')),
    (1, "atlas_http_requests", ('route="/v1/streams/{stream_id}/pause"',)),
    (4, "atlas_http_request_duration_seconds", (CHAT,)),
    (2, "atlas_upstream_requests", ('endpoint="up"', 'outcome="ok"')),
    (1, "atlas_upstream_requests", ('endpoint="up"', 'outcome="rate_limited"')),
    (2, "atlas_upstream_requests", ('endpoint="up2"', 'outcome="ok"')),
    (1, "atlas_fallbacks", ('from="up"', 'to="up2"', 'phase="before"', 'result="ok"')),
    (3, "atlas_upstream_duration_seconds", ('endpoint="up"',)),
    (4, "atlas_time_to_first_token_seconds", ('route="chaos/*"',)),
    (21, "atlas_tokens", ('endpoint="up2"', 'type="output"')),  # one of them of the cancelled stream
    (18, "atlas_tokens", ('endpoint="up2"', 'type="input"')),  # as estimated, 8 of them
    (3, "atlas_stream_ends", ("completed",)),
    (1, "atlas_stream_ends", ("cancelled",)),
    (1, "atlas_stream_reattaches", ()),
    (1, "atlas_stream_control", ('op="pause"', 'result="changed"')),
    (1, "atlas_stream_control", ('op="cancel"', 'result="changed"')),
    (1, "atlas_stream_paused_seconds", ()),
    (1, "atlas_cancel_to_close_seconds", ()),
    (0, "atlas_streams", ()),
]


def test_metrics_after_traffic() -> None:
    """After traffic each metric family counts what happened, under closed labels: no id, no model of a client's."""

    async def scenario() -> None:
        pace = {"server": {"heartbeat_s": 0.05}, "streams": {"tick_s": 0.01}}
        async with house(Plan(tokens=20), Plan(tokens=20), **pace) as it:
            await _traffic(it)
            samples = await metrics(it)
            for wanted, family, labels in COUNTED:
                assert total(samples, family, *labels) == wanted, (family, labels)
            assert "held" not in str(samples)
            assert "str_" not in str(samples)

    run(scenario())


def test_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Each finished stream gives one line of JSON with its ids; no prompt, no answer and no key is in any line."""
    caplog.set_level(logging.DEBUG, logger="atlas")

    async def scenario() -> None:
        body = ask(messages=[{"role": "user", "content": PROMPT}], user=PROMPT)
        good = Plan(prologue=f": {ANSWER}\n\n".encode(), extra_delta={"vendor": ANSWER})
        echo = refusing(400, message=f"you said {PROMPT}")
        async with house(good, api_key=PROVIDER_KEY) as it:
            headers = {"authorization": f"Bearer {CALLER_KEY}", "idempotency-key": "canary-key"}
            shown: list[tuple[str, str, str]] = []
            first = await it.call("POST", CHAT, headers, json=body)
            shown.append((first.headers["x-request-id"], sid_of(first), "completed"))
            it.up.script = [echo, Plan(tokens=20, reset_at_byte=2500)]
            for state in ("failed", "failed"):
                answer = await it.call("POST", CHAT, {"authorization": CALLER_KEY}, json=body)
                shown.append((answer.headers["x-request-id"], sid_of(answer), state))
            gate = Gate()
            it.up.default = Plan(gate=gate)
            async with held(it, gate) as answer:
                shown.append((answer.headers["x-request-id"], sid_of(answer), "cancelled"))
            await ended(it, sid_of(answer))
            await it.call("POST", CHAT, {"authorization": CALLER_KEY}, b"{" + PROMPT.encode())
            await eventually(lambda: it.channels == 0)
        lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
        ends = [line for line in lines if line["message"] == "stream ended"]
        found = [(line["request"], line["stream"].removeprefix("str_"), line["state"]) for line in ends]
        assert sorted(found) == sorted((request, sid.removeprefix("str_"), state) for request, sid, state in shown)
        for line in ends:
            assert line["route"] == "chaos/*"
            assert line["duration_ms"] >= 0
            assert line["time"].endswith("Z")
        text = "\n".join(map(json.dumps, lines)) + caplog.text
        for canary in (PROMPT, ANSWER, CALLER_KEY, PROVIDER_KEY, "canary-key"):
            assert canary not in text

    run(scenario())


def test_two_apps_share_nothing() -> None:
    """Two apps in one process have their own streams, metrics and keys; ending one leaves the other running."""

    async def scenario() -> None:
        gate, key = Gate(), {"idempotency-key": "same"}
        plan = Plan(tokens=10, gate=gate)
        async with house(plan) as one, held(one, gate) as answer:
            sid = sid_of(answer)
            async with house(Plan(), checked=False) as two:
                assert (await two.call("GET", f"/v1/streams/{sid}")).status == 404
                assert (await two.call("GET", "/v1/streams")).json["data"] == []
                assert (await two.ask(key)).status == 200
                await eventually(lambda: two.channels == 0)
                assert total(await metrics(one), "atlas_stream_ends") == 0
                assert total(await metrics(two), "atlas_stream_ends") == 1
            gate.open()
            assert fold(await answer.read()).text == plan.text()
            assert "x-atlas-idempotent" not in (await one.ask(key)).headers

    run(scenario())


def test_the_description_knows_the_hot_route() -> None:
    """The OpenAPI document lists every route of ours, chat completions too, which the framework never sees."""

    async def scenario() -> None:
        async with house() as it:
            document = (await it.call("GET", "/openapi.json")).json
            assert {CHAT, "/v1/models", "/v1/streams", "/v1/streams/{stream_id}/pause", "/metrics"} <= set(
                document["paths"]
            )
            assert set(document["paths"][CHAT]) == {"post"}
            schema = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
            assert schema["required"] == ["model", "messages"]
            refused = await it.call("GET", CHAT)
            assert (refused.status, refused.headers["allow"]) == (405, "POST")

    run(scenario())


def test_leaving_ends_the_streams() -> None:
    """An app that is shut down says so to its clients, closes its upstreams, and leaves nothing running."""

    async def scenario() -> None:
        async with house(Plan(gate=Gate(2))) as it:
            client = await it.client().__aenter__()
            answer = await client.stream("POST", CHAT, {"x-atlas-on-disconnect": "continue"}, json=ask())
            await answer.until_frames(2)
            await client.__aexit__()
            up = it.up.last
        assert up.outcome in {"left", "stopped"}
        assert up.closed.is_set()

    run(scenario())
