"""Selection in a running gateway: who is asked, who rests, and what operators see and do."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from config.settings import Settings
from gateway.app import create
from tests.e2e.agent_house import team
from tests.e2e.house import House, house, run, sid_of
from tests.e2e.test_control import ended
from tests.e2e.test_ops import metrics, total
from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider, Gate, Plan, event_of, refusing
from tests.support.clock import ManualClock
from tests.support.fold import fold
from tests.support.keys import keyed, made
from tests.support.server import AtlasServer, atlas_config
from tests.support.signals import eventually

UNREADABLE = Plan(content_type="text/html", body=b"<html>no</html>")
"""A failure that counts, and after which the same endpoint is not asked again."""

TOO_LONG = refusing(400, code="context_length_exceeded")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
FAST_TICK = {"tick_s": 0.02}


@asynccontextmanager
async def unlike(
    *members: tuple[Plan, Mapping[str, Any]],
    clock: ManualClock | None = None,
    route: Mapping[str, Any] | None = None,
    **sections: Any,
) -> AsyncIterator[House]:
    """A house of providers whose endpoints have settings of their own."""
    async with baseline():
        ups = [ChaosProvider(plan) for plan, _ in members]
        for up in ups:
            await up.__aenter__()
        try:
            shape = atlas_config(*ups, route=route, **sections)
            for row, (_, own) in zip(shape["endpoints"], members, strict=True):
                row.update(own)
            app = create(Settings(**shape), clock=clock)
            async with AtlasServer(app) as atlas:
                yield House(app, atlas, ups)
        finally:
            for up in ups:
                await up.__aexit__(None, None, None)


async def pool_of(it: House) -> dict[str, Any]:
    """`GET /v1/pool`, endpoints by name."""
    body = (await it.call("GET", "/v1/pool")).json
    return {each["endpoint"]: each for each in body["endpoints"]}


async def answered_by(it: House, headers: Mapping[str, str] | None = None, **body: Any) -> str:
    """Who answers one request."""
    answer = await it.ask(headers, **body)
    assert answer.status == 200, answer
    return answer.headers["x-atlas-endpoint"]


@asynccontextmanager
async def under_way(it: House, **body: Any) -> AsyncIterator[None]:
    """A request that is not answered meanwhile; leaving hangs up."""
    task = asyncio.create_task(it.ask(**body))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# Rest.


def test_an_endpoint_that_fails_is_left_alone_and_probed() -> None:
    """Behind three failures in a row nobody asks it; then one request does, and each failed probe doubles the rest."""

    async def scenario() -> None:
        clock = ManualClock()
        async with house(UNREADABLE, Plan(), clock=clock, endpoint={"breaker": {"failures": 3}}) as it:
            for _ in range(5):
                assert await answered_by(it) == "up2"
            assert len(it.up.requests) == 3
            shown = (await pool_of(it))["up"]
            assert (shown["usable"], shown["blocked"], shown["breaker"]["state"]) == (False, "breaker open", "open")
            assert (shown["breaker"]["policy"]["failures"], shown["breaker"]["policy"]["open_max_s"]) == (3, 300)
            samples = await metrics(it)
            assert total(samples, "atlas_circuit_state", 'endpoint="up"') == 2
            assert total(samples, "atlas_endpoint_up", 'endpoint="up"') == 0
            assert total(samples, "atlas_endpoint_up", 'endpoint="up2"') == 1
            clock.advance(5.01)
            for _ in range(3):
                assert await answered_by(it) == "up2"
            assert len(it.up.requests) == 4  # one probe
            clock.advance(5.01)
            assert await answered_by(it) == "up2"
            assert len(it.up.requests) == 4  # twice as long now, less a fifth at most
            clock.advance(5.01)
            it.up.default = Plan()
            assert [await answered_by(it) for _ in range(2)] == ["up", "up"]
            samples = await metrics(it)
            counted = [
                total(samples, "atlas_circuit_transitions", 'endpoint="up"', f'to="{state}"')
                for state in ("open", "half_open", "closed")
            ]
            assert counted == [2, 2, 1]
            assert total(samples, "atlas_fallbacks", 'from="up"', 'to="up2"', 'phase="before"', 'result="ok"') == 4

    run(scenario())


def test_nobody_can_be_asked() -> None:
    """With every breaker open a request is a 503 at once that names the wait, and no provider hears of it."""

    async def scenario() -> None:
        clock = ManualClock()
        own = {"breaker": {"failures": 1, "open_s": 30}}
        async with house(UNREADABLE, UNREADABLE, clock=clock, endpoint=own) as it:
            assert (await it.ask()).status == 502
            for stream in (True, False):
                refused = await it.ask(stream=stream)
                assert (refused.status, refused.json["error"]["code"]) == (503, "no_endpoint")
                assert refused.json["error"]["message"] == "up: breaker open; up2: breaker open"
                assert 24 <= int(refused.headers["retry-after"]) <= 30
                assert refused.headers["x-should-retry"] == "true"
            shown = (await ended(it, sid_of(refused)))["selection"]
            assert (shown["chosen"], shown["left_out"]) == (None, dict.fromkeys(("up", "up2"), "breaker open"))
            assert [len(up.requests) for up in it.ups] == [1, 1]

    run(scenario())


def test_a_cancelled_probe_frees_its_place() -> None:
    """A caller who hangs up while the probe waits decides nothing: the next request is the probe."""

    async def scenario() -> None:
        clock, gate = ManualClock(), Gate()
        async with house(UNREADABLE, clock=clock, endpoint={"breaker": {"failures": 1}}, streams=FAST_TICK) as it:
            await it.ask()
            clock.advance(5.01)
            it.up.script = [Plan(hold_headers=gate)]
            async with under_way(it):
                await it.up.received(2)
            await it.up.all_closed()
            await eventually(lambda: it.channels == 0)
            it.up.default = Plan()
            assert await answered_by(it) == "up"

    run(scenario())


def test_another_key_first() -> None:
    """A key that was refused for its rate rests until it may be used; its request goes on with the next key."""

    async def scenario() -> None:
        clock = ManualClock()
        async with house(Plan(), Plan(), clock=clock, endpoint={"keys": ["one", "two"]}) as it:
            it.up.script = [refusing(429, code="rate_limit_exceeded", retry_after="30")]
            answer = await it.ask()
            assert (await ended(it, sid_of(answer)))["attempts"] == ["up: rate_limited", "up: ok"]
            assert await answered_by(it) == "up"
            assert [each.headers["authorization"] for each in it.up.requests] == ["Bearer one", *["Bearer two"] * 2]
            keys = (await pool_of(it))["up"]["keys"]
            assert [(each["state"], each["reason"]) for each in keys] == [("parked", "rate limited"), ("ready", None)]
            assert total(await metrics(it), "atlas_retries", 'endpoint="up"', 'category="rate_limited"') == 1
            it.up.script = [refusing(429, code="rate_limit_exceeded", retry_after="30")]
            assert await answered_by(it) == "up2"  # both rest
            clock.advance(30.01)
            assert await answered_by(it) == "up"

    run(scenario())


def test_a_flapping_provider() -> None:
    """One that goes down for seconds again and again is probed twice each time, and asked first again within 10 s."""

    async def scenario() -> None:
        clock = ManualClock()
        async with house(Plan(), Plan(), clock=clock) as it:
            for _ in range(3):
                it.up.default = UNREADABLE
                asked = len(it.up.requests)
                for step in range(28):  # seven seconds
                    assert await answered_by(it) == "up2", step
                    clock.advance(0.25)
                assert 5 <= len(it.up.requests) - asked <= 5 + 2  # what opens the breaker, and the probes
                it.up.default = Plan()
                for _ in range(40):
                    clock.advance(0.25)
                    if await answered_by(it) == "up":
                        break
                else:
                    raise AssertionError("it was not asked again")

    run(scenario())


def test_a_rate_limit_without_a_time() -> None:
    """A 429 that says nothing of a time is not repeated there: the next endpoint answers, and the key rests a while."""

    async def scenario() -> None:
        clock = ManualClock()
        async with house(Plan(), Plan(), clock=clock) as it:
            it.up.script = [refusing(429, code="rate_limit_exceeded")]
            assert [await answered_by(it) for _ in range(3)] == ["up2"] * 3
            assert len(it.up.requests) == 1
            clock.advance(300.01)
            assert await answered_by(it) == "up"

    run(scenario())


def test_a_silent_provider_is_not_asked_twice() -> None:
    """Who gives no first token in time costs that time once: the next one is asked, and alone it is a 504."""

    async def scenario() -> None:
        own = {"timeouts": {"first_token_s": 0.1}}
        silent = Plan(hold_headers=Gate())
        async with unlike((silent, own), (Plan(), {})) as it:
            assert await answered_by(it) == "up2"
            assert len(it.up.requests) == 1
        async with house(silent, endpoint=own) as it:
            answer = await it.ask()
            assert (answer.status, answer.json["error"]["code"]) == (504, "timeout_first_token")
            assert len(it.up.requests) == 1

    run(scenario())


def test_a_spent_quota_is_hit_once_a_key() -> None:
    """Each key of a spent account is refused once, and nobody asks again before it may be filled up."""

    async def scenario() -> None:
        clock = ManualClock()
        spent = refusing(429, message="You exceeded your current quota", code="insufficient_quota")
        async with house(spent, clock=clock, endpoint={"keys": ["one", "two"]}) as it:
            first = await it.ask()
            assert (first.status, first.json["error"]["code"]) == (429, "insufficient_quota")
            assert first.headers["x-should-retry"] == "false"
            for _ in range(3):
                assert (await it.ask()).json["error"]["code"] == "no_endpoint"
            assert [each.headers["authorization"] for each in it.up.requests] == ["Bearer one", "Bearer two"]
            clock.advance(3601)
            it.up.default = Plan()
            assert await answered_by(it) == "up"

    run(scenario())


@pytest.mark.parametrize(("status", "code"), [(401, "provider_auth"), (403, "provider_permission")])
def test_a_refused_key_is_the_reason_for_every_caller(status: int, code: str) -> None:
    """Whose endpoint's only key is refused is told so, also by the later answers: waiting does not help."""

    async def scenario() -> None:
        async with house(refusing(status)) as it:
            for _ in range(3):
                answer = await it.ask()
                assert (answer.status, answer.json["error"]["code"]) == (502, code)
                assert answer.headers["x-should-retry"] == "false"
                assert "retry-after" not in answer.headers
            assert answer.json["error"]["message"] == "up: its provider refuses every key"
            assert len(it.up.requests) == 1
            shown = (await pool_of(it))["up"]
            assert shown["blocked"] == "its provider refuses every key"
            assert shown["keys"][0]["reason"] == f"refused: {code}"
            await it.call("POST", "/v1/pool/up/enable")
            it.up.default = Plan()
            assert await answered_by(it) == "up"

    run(scenario())


def test_a_refused_key_beside_an_endpoint_that_rests() -> None:
    """When the other endpoint will be asked again, callers are told when; when it was asked, what it said."""

    async def scenario() -> None:
        clock = ManualClock()
        async with house(refusing(401), UNREADABLE, clock=clock) as it:
            assert (await it.ask()).json["error"]["code"] == "provider_auth"
            for _ in range(4):
                assert (await it.ask()).json["error"]["code"] == "protocol"
            resting = await it.ask()
            assert (resting.status, resting.json["error"]["code"]) == (503, "no_endpoint")
            assert resting.json["error"]["message"] == "up: its provider refuses every key; up2: breaker open"
            assert 1 <= int(resting.headers["retry-after"]) <= 10

    run(scenario())


def test_repeats_are_few() -> None:
    """When everything fails, repeats on the same endpoint stay a fifth of the requests, beside what was saved up."""

    async def scenario() -> None:
        never = {"breaker": {"failures": 1_000_000, "samples": 1_000_000}}
        async with house(Plan(idle="close"), clock=ManualClock(), endpoint=never) as it:
            it.up.refuse()
            for _ in range(60):
                assert (await it.ask()).status == 502
            attempts = total(await metrics(it), "atlas_upstream_requests", 'endpoint="up"', 'outcome="connect"')
            assert 60 + 10 <= attempts <= 60 + 10 + 12
            await it.up.listen()

    run(scenario())


# Choice.


@pytest.mark.parametrize(
    ("strategy", "own"),
    [
        ("priority", [{"priority": 2}, {"priority": 1}]),
        ("weighted", [{"weight": 0.000001}, {"weight": 1000}]),
        ("cheapest", [{"price": {"input": 5, "output": 9}}, {"price": {"input": 1, "output": 2}}]),
        ("task_aware", [{}, {"profile": {"strengths": {"tools": 1}}}]),
    ],
)
def test_strategies(strategy: str, own: list[dict[str, Any]]) -> None:
    """A route's strategy decides who answers, and the status object says why."""

    async def scenario() -> None:
        members = [(Plan(), each) for each in own]
        async with unlike(*members, route={"strategy": strategy}) as it:
            answer = await it.ask(tools=[TOOL])
            assert answer.headers["x-atlas-endpoint"] == "up2"
            shown = await ended(it, sid_of(answer))
            assert shown["selection"]["strategy"] == shown["legs"][0]["strategy"] == strategy
            assert shown["selection"]["considered"] == ["up2", "up"]
            assert shown["selection"]["chosen"] == "up2"
            assert shown["selection"]["why"]
            routes = (await it.call("GET", "/v1/pool")).json["routes"]
            (route,) = [each for each in routes if each["model"] == "chaos/*"]
            assert (route["strategy"], route["last_choices"][0]["chosen"]) == (strategy, "up2")

    run(scenario())


def test_adaptive() -> None:
    """Most requests go where an answer is expected soonest, and the first of them to whom the operator trusts most."""

    async def scenario() -> None:
        doubted, trusted = {"profile": {"availability": 0.1}}, {}
        own: Any = {"clock": ManualClock(), "route": {"strategy": "adaptive"}}  # nobody is slow
        async with unlike((Plan(), doubted), (Plan(), trusted), **own) as it:
            asked = [await answered_by(it) for _ in range(30)]
            assert asked.count("up2") >= 20

    run(scenario())


@pytest.mark.parametrize("strategy", ["least_busy", "fastest"])
def test_load_and_waits_count_while_they_last(strategy: str) -> None:
    """Who answers or waits already is asked less: selection learns from streams that run."""

    async def scenario() -> None:
        clock, gate = ManualClock(), Gate()
        async with house(Plan(), Plan(), clock=clock, route={"strategy": strategy}) as it:
            for up in it.ups:
                up.plans["held"] = Plan(hold_headers=gate)
            async with under_way(it, model="chaos/held"):
                await eventually(lambda: any(up.requests for up in it.ups))
                clock.advance(3)
                busy = "up" if it.up.requests else "up2"
                assert {await answered_by(it) for _ in range(4)} == {"up", "up2"} - {busy}

    run(scenario())


def test_limits_move_on() -> None:
    """What exceeds an endpoint's requests a minute or its streams at once goes to the next, and none is queued."""

    async def scenario() -> None:
        gate = Gate(2)
        members = [(Plan(), {"limits": {"rpm": 1}}), (Plan(gate=gate), {"limits": {"max_concurrent": 1}}), (Plan(), {})]
        async with unlike(*members, clock=ManualClock()) as it:
            assert await answered_by(it) == "up"
            async with it.chat() as held:
                assert held.headers["x-atlas-endpoint"] == "up2"
                assert total(await metrics(it), "atlas_endpoint_inflight", 'endpoint="up2"') == 1
                assert await answered_by(it) == "up3"
                gate.open()
                await held.read()

    run(scenario())


def test_needs_that_nobody_meets() -> None:
    """Stated needs that no endpoint meets are a 400 that names what is missing, and one that meets them is found."""

    async def scenario() -> None:
        small = {"profile": {"context_tokens": 8000, "lacks": ["tools"]}}
        coder = {"profile": {"context_tokens": 200_000, "strengths": {"coding": 0.9}}}
        async with unlike((Plan(), small), (Plan(), coder)) as it:
            assert await answered_by(it) == "up"
            for needs in ("strengths=coding", "context=100000", "tools"):
                assert await answered_by(it, {"x-atlas-needs": needs}) == "up2"
            assert await answered_by(it, tools=[TOOL]) == "up2"
            refused = await it.ask({"x-atlas-needs": "strengths=coding+law,context=1000000"})
            assert (refused.status, refused.json["error"]["code"]) == (400, "unmet_needs")
            assert "context=1000000 (of 200000)" in refused.json["error"]["message"]
            assert "strengths=law" in refused.json["error"]["message"]
            unread = await it.ask({"x-atlas-needs": "speed=9"})
            assert (unread.status, unread.json["error"]["code"]) == (400, "invalid_header")
            assert it.channels == 0

    run(scenario())


def test_agents_are_not_told_what_their_calls_need() -> None:
    """Needs stated for an agent are refused, not dropped: it finds out by itself what each of its calls needs."""

    async def scenario() -> None:
        async with house(Plan(), **team()) as it:
            refused = await it.ask({"x-atlas-needs": "tools"}, model="agent/sage")
            assert (refused.status, refused.json["error"]["param"]) == (400, "x-atlas-needs")

    run(scenario())


def test_a_prompt_that_is_too_long_goes_to_a_larger_window_only() -> None:
    """Who refuses a prompt for its length is not asked again, nor is anybody of the same size."""

    async def scenario() -> None:
        sizes = [{"profile": {"context_tokens": size}} for size in (8000, 8000, 32_000)]
        async with unlike(*((TOO_LONG, own) for own in sizes[:2]), (Plan(), sizes[2])) as it:
            answer = await it.ask()
            assert (await ended(it, sid_of(answer)))["attempts"] == ["up: context_length", "up3: ok"]
            assert not it.ups[1].requests
        async with house(TOO_LONG, Plan()) as it:
            refused = await it.ask()
            assert (refused.status, refused.json["error"]["code"]) == (400, "context_length_exceeded")
            assert (len(it.up.requests), len(it.ups[1].requests)) == (1, 0)

    run(scenario())


def test_a_stalled_stream_moves_to_whom_selection_prefers_now() -> None:
    """A stall counts against an endpoint while it lasts, and what moves on goes to the best endpoint of that moment."""

    async def scenario() -> None:
        clock, truth = ManualClock(), Plan(tokens=20, prefill="continues")
        stalling = truth.with_(stall_at_event=event_of(truth, "text", 9))
        plans = (stalling, truth, truth)
        async with house(*plans, clock=clock, endpoint={"continuation": "prefill"}, streams=FAST_TICK) as it:
            async with it.chat() as answer:
                await answer.until_frames(8)
                await it.call("POST", "/v1/pool/up2/disable")
                for _ in range(20):  # what was under way at first was no stall
                    clock.advance(2.5)
                    await asyncio.sleep(0.05)
                    if (await pool_of(it))["up"]["statistics"]["stalls"]:
                        break
                assert (await pool_of(it))["up"]["statistics"]["stalls"] == 1
                clock.advance(61)
                folded = fold(await answer.read())
            assert (folded.text, folded.finish, folded.done) == (truth.text(), "stop", True)
            shown = await ended(it, sid_of(answer))
            assert shown["attempts"] == ["up: ok, then timeout_idle", "up3: ok"]
            assert [leg["strategy"] for leg in shown["legs"]] == ["priority", "prefill"]
            samples = await metrics(it)
            assert total(samples, "atlas_fallbacks", 'to="up3"', 'phase="mid_stream"', 'result="ok"') == 1
            assert (await pool_of(it))["up"]["statistics"]["failures"] == 1

    run(scenario())


def test_a_stall_that_nobody_takes_over_counts() -> None:
    """An endpoint that falls silent in mid-stream has failed, also where the stream had to end for it."""

    async def scenario() -> None:
        clock, truth = ManualClock(), Plan()
        plan = truth.with_(stall_at_event=event_of(truth, "text", 3))
        async with house(plan, clock=clock, endpoint={"breaker": {"failures": 1}}, streams=FAST_TICK) as it:
            async with it.chat() as answer:
                await answer.until_frames(3)
                clock.advance(61)
                assert fold(await answer.read()).error is not None
            assert (await ended(it, sid_of(answer)))["reason"] == "timeout_idle"
            assert (await pool_of(it))["up"]["breaker"]["state"] == "open"

    run(scenario())


# Operators.


def test_administrators_switch_endpoints() -> None:
    """Who is disabled gets no new request until it is enabled; a probe checks its health and lets one request in."""

    async def scenario() -> None:
        admin, caller = made("a", "admin"), made("a")
        by, plain = ({"authorization": f"Bearer {each.secret}"} for each in (admin, caller))
        own = {"health": {"interval_s": 3600, "falls": 1}, "breaker": {"failures": 1, "open_s": 300}}
        async with house(Plan(), Plan(), clock=ManualClock(), endpoint=own, **keyed(admin, caller)) as it:
            assert (await it.call("POST", "/v1/pool/up/disable", plain)).status == 403
            assert (await it.call("POST", "/v1/pool/up/disable", by)).json["blocked"] == "disabled"
            answer = await it.ask(plain)
            assert answer.headers["x-atlas-endpoint"] == "up2"
            assert (await it.call("POST", "/v1/pool/up/enable", by)).json["usable"]
            assert await answered_by(it, plain) == "up"
            it.up.script = [UNREADABLE]
            assert [await answered_by(it, plain) for _ in range(2)] == ["up2", "up2"]
            probed = (await it.call("POST", "/v1/pool/up/probe", by)).json
            assert (probed["breaker"]["state"], probed["health"]["last"]) == ("half_open", "ok")
            assert it.up.others[-1].path == "/v1/models"
            assert await answered_by(it, plain) == "up"
            it.up.leave()
            probed = (await it.call("POST", "/v1/pool/up/probe", by)).json
            assert (probed["breaker"]["state"], probed["health"]["failing"]) == ("open", True)
            assert await answered_by(it, plain) == "up2"
            await it.up.listen()
            assert (await it.call("GET", "/v1/pool", plain)).status == 403

    run(scenario())


def test_health_checks_run() -> None:
    """An endpoint whose checks fail is asked no more, and one request tries it when they succeed again."""

    async def scenario() -> None:
        own = {"health": {"interval_s": 0.02, "falls": 2, "rises": 2}}
        async with house(Plan(), Plan(), endpoint=own) as it:
            assert await answered_by(it) == "up"
            it.up.leave()
            await breaker_is(it, "open")
            assert await answered_by(it) == "up2"
            shown = (await pool_of(it))["up"]
            assert shown["breaker"]["reason"].startswith("health check:")
            assert (len(it.up.requests), shown["health"]["failing"]) == (1, True)
            await it.up.listen()
            await breaker_is(it, "half_open")
            assert await answered_by(it) == "up"
            assert (await pool_of(it))["up"]["breaker"]["state"] == "closed"

    run(scenario())


async def breaker_is(it: House, state: str) -> None:
    """Returns when the first endpoint's breaker is in this state."""
    for _ in range(2000):
        if (await pool_of(it))["up"]["breaker"]["state"] == state:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the breaker is not {state}")


def test_the_mock_never_rests() -> None:
    """The mock's faults are asked for by name: each time they are what was asked for."""

    async def scenario() -> None:
        async with house() as it:
            for _ in range(12):
                assert (await it.ask(model="mock-500")).status == 502
            assert (await it.ask(model="mock-401")).status == 502
            assert (await it.ask(model="mock-429")).status == 429
            assert (await it.ask(model="mock-fast")).status == 200

    run(scenario())


def test_there_is_no_such_strategy() -> None:
    """A slip in a strategy's name refuses the start, and lists those that there are."""
    row = {"name": "a", "kind": "mock", "model": "mock"}
    settings = Settings(endpoints=[row], routes=[{"model": "r", "endpoints": ["a"], "strategy": "cheap"}])
    with pytest.raises(ValueError, match="cheapest"):
        create(settings)
