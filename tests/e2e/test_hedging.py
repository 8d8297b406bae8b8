"""A second endpoint beside a silent one, on real sockets: the faster answers, both are paid for, and seldom."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.e2e.house import House, house, run, sid_of
from tests.e2e.test_control import ended
from tests.e2e.test_ops import metrics, total
from tests.support.chaos import Gate, Plan, refusing
from tests.support.signals import eventually

SOON = {"enabled": True, "wait_min_s": 0.02, "wait_unknown_s": 0.02}
HONEST = Plan()


@asynccontextmanager
async def hedging(*plans: Plan, earned: int = 20, **sections: Any) -> AsyncIterator[House]:
    """A house that hedges soon, after so many requests that were answered at once: twenty of them earn a hedge."""
    own = {"route": {"hedge": SOON}, **sections}
    async with house(*plans, **own) as it:
        for up in it.ups:
            up.plans["warm"] = HONEST
        for _ in range(earned):
            assert (await it.ask({"x-atlas-fallback": "off"}, model="chaos/warm")).status == 200  # not hedged itself
        it.up.requests.clear()
        yield it


async def hedge_of(it: House) -> dict[str, Any]:
    """What `GET /v1/pool` says of the route's hedges."""
    routes = (await it.call("GET", "/v1/pool")).json["routes"]
    (route,) = [each for each in routes if each["model"] == "chaos/*"]
    return dict(route["hedge"])


async def endpoint_of(it: House, name: str) -> dict[str, Any]:
    """What it says of an endpoint."""
    body = (await it.call("GET", "/v1/pool")).json
    return next(dict(each) for each in body["endpoints"] if each["endpoint"] == name)


def test_the_faster_one_answers() -> None:
    """A silent endpoint is hedged: the other one's answer is served, the silent one's socket closed, both billed."""

    async def scenario() -> None:
        async with hedging(Plan(hold_headers=Gate()), HONEST) as it:
            answer = await it.ask()
            assert answer.json["choices"][0]["message"]["content"] == HONEST.text()
            assert (answer.headers["x-atlas-endpoint"], answer.headers["x-atlas-attempts"]) == ("up2", "2")
            await it.up.requests[0].gone()
            shown = await ended(it, sid_of(answer))
            assert shown["attempts"] == ["up: outrun", "up2: ok"]
            legs = [(leg["leg"], leg["endpoint"], leg["strategy"], leg["end"]) for leg in shown["legs"]]
            assert legs == [(1, "up", "outrun", "outrun"), (2, "up2", "priority", "completed")]
            lost, won = (leg["usage"] for leg in shown["legs"])
            assert (lost["output_tokens"], lost["estimated"], won["estimated"]) == (0, True, False)
            assert lost["input_tokens"] > 0
            assert shown["usage"]["input_tokens"] == lost["input_tokens"] + won["input_tokens"]
            assert answer.json["usage"]["prompt_tokens"] == won["input_tokens"]  # the caller is told of its answer
            silent = await endpoint_of(it, "up")
            assert (silent["breaker"]["window"]["failures"], silent["statistics"]["failures"]) == (0, 0)
            assert silent["statistics"]["in_flight"] == silent["limits"]["running"] == 0
            hedge = await hedge_of(it)
            assert [hedge[name] for name in ("sent", "won", "lost", "failed", "may_send")] == [1, 1, 0, 0, 0]
            samples = await metrics(it)
            assert total(samples, "atlas_hedges", 'endpoint="up2"', 'result="won"') == 1
            assert total(samples, "atlas_upstream_requests", 'endpoint="up"', 'outcome="outrun"') == 1
            assert total(samples, "atlas_fallbacks") == 0

    run(scenario())


def test_the_first_one_may_still_win() -> None:
    """A hedged endpoint that answers first after all is the one that answers; the other one's socket is closed."""

    async def scenario() -> None:
        first = Gate()
        async with hedging(Plan(hold_headers=first), Plan(hold_headers=Gate())) as it:
            asking = asyncio.create_task(it.ask())
            other = await it.ups[1].received()
            first.open()
            answer = await asking
            assert answer.json["choices"][0]["message"]["content"] == HONEST.text()
            assert answer.headers["x-atlas-endpoint"] == "up"
            await other.gone()
            shown = await ended(it, sid_of(answer))
            assert shown["attempts"] == ["up2: outrun", "up: ok"]
            assert (await hedge_of(it))["lost"] == 1

    run(scenario())


def test_never_two_hedges() -> None:
    """A request whose hedge is silent, too, asks nobody third while the two of them may still answer."""

    async def scenario() -> None:
        gate = Gate()
        silent = Plan(hold_headers=gate)
        async with hedging(silent, silent, HONEST, earned=60) as it:
            asking = asyncio.create_task(it.ask())
            await it.ups[1].received()
            await eventually(lambda: len(it.up.requests) == 1)
            await asyncio.sleep(0.1)  # five times the wait
            assert not it.ups[2].requests
            gate.open()
            assert (await asking).status == 200
            assert (await hedge_of(it))["sent"] == 1

    run(scenario())


def test_one_request_in_twenty() -> None:
    """However slow everybody is, hedges stay within a twentieth of the requests."""

    async def scenario() -> None:
        slow = Plan(slow_headers_s=0.04)
        async with hedging(slow, slow, earned=0) as it:
            for _ in range(6):
                await asyncio.gather(*(it.ask() for _ in range(20)))
            arrived = len(it.up.requests) + len(it.ups[1].requests) - 120  # some were outrun before that
            assert arrived <= (await hedge_of(it))["sent"]
            assert 1 <= (await hedge_of(it))["sent"] <= 6

    run(scenario())


def test_a_hedge_that_fails() -> None:
    """It fails no request: the first endpoint is waited for, and answers."""

    async def scenario() -> None:
        gate = Gate()
        async with hedging(Plan(hold_headers=gate), refusing(500)) as it:
            asking = asyncio.create_task(it.ask())
            await it.ups[1].received()
            await it.ups[1].last.answered()
            gate.open()
            answer = await asking
            assert (answer.status, answer.headers["x-atlas-endpoint"]) == (200, "up")
            shown = await ended(it, sid_of(answer))
            assert shown["attempts"] == ["up2: upstream_5xx", "up: ok"]
            assert [leg["endpoint"] for leg in shown["legs"]] == ["up"]
            assert (await hedge_of(it))["failed"] == 1
            samples = await metrics(it)
            assert total(samples, "atlas_fallbacks") == 0
            assert (await endpoint_of(it, "up2"))["breaker"]["window"]["failures"] == 1

    run(scenario())


def test_the_first_one_fails_while_the_hedge_runs() -> None:
    """Then the hedge is the fallback that is under way already; when both fail, nobody is asked again."""

    async def scenario() -> None:
        for second, status in ((HONEST, 200), (refusing(400), 502)):
            first, other = Gate(), Gate()
            async with hedging(refusing(500).with_(hold_headers=first), second.with_(hold_headers=other)) as it:
                asking = asyncio.create_task(it.ask())
                await it.ups[1].received()
                first.open()
                await it.up.last.answered()
                other.open()
                answer = await asking
                assert answer.status == status
                assert [len(up.requests) for up in it.ups] == [1, 1]
                if status == 502:
                    assert answer.json["error"]["attempts"] == ["up: upstream_5xx", "up2: bad_request"]

    run(scenario())


def test_cancelled_in_the_middle_of_both() -> None:
    """Both sockets are closed before the answer says `closed`, no breaker hears of it, and both prompts are billed."""

    async def scenario() -> None:
        silent = Plan(hold_headers=Gate())
        async with hedging(silent, silent, streams={"status_wait_s": 0.01}) as it:
            async with it.chat() as answer:
                await it.ups[1].received()
                said = (await it.control(sid_of(answer), "cancel")).json
                assert said["upstream"] == "closed"
                await answer.read()
            for up in it.ups:
                await up.all_closed()
            shown = await ended(it, sid_of(answer))
            assert [(leg["leg"], leg["endpoint"]) for leg in shown["legs"]] == [(0, "up"), (1, "up2")]
            assert all(leg["usage"]["input_tokens"] for leg in shown["legs"])
            for name in ("up", "up2"):
                found = await endpoint_of(it, name)
                assert (found["statistics"]["failures"], found["limits"]["running"]) == (0, 0)

    run(scenario())


def test_a_hedge_is_no_probe() -> None:
    """An endpoint whose breaker is not closed is not asked as a hedge, so that no hedge holds the place of a probe."""

    async def scenario() -> None:
        own = {"breaker": {"failures": 1, "open_s": 0.001}}
        gate = Gate()
        async with hedging(Plan(hold_headers=gate), HONEST, endpoint=own) as it:
            await it.call("POST", "/v1/pool/up/disable")
            it.ups[1].script = [Plan(content_type="text/html", body=b"no")]
            assert (await it.ask()).status == 502
            await it.call("POST", "/v1/pool/up/enable")
            assert (await endpoint_of(it, "up2"))["breaker"]["state"] != "closed"
            asking = asyncio.create_task(it.ask())
            await eventually(lambda: len(it.up.requests) == 1)
            await asyncio.sleep(0.1)
            assert len(it.ups[1].requests) == 1
            gate.open()
            assert (await asking).headers["x-atlas-endpoint"] == "up"

    run(scenario())
