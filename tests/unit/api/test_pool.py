"""What administrators see of the pool and do to it."""

import asyncio
import json
import random
from typing import Any

from config.settings import Settings
from gateway.api import pool as pool_api
from gateway.api.auth import ADMIN, declared
from gateway.app import Atlas, create
from gateway.core.errors import Category, Failure
from gateway.pool.candidate import Candidate, Standing, Trial
from gateway.pool.capability import NOTHING
from gateway.pool.endpoint import Endpoint
from gateway.pool.group import ProviderGroup
from gateway.pool.health import HealthCheck, HealthPolicy
from gateway.pool.overview import Pool
from gateway.providers.mock import MockProvider
from tests.support.asgi import AsgiCall
from tests.support.clock import ManualClock
from tests.support.keys import keyed, made
from tests.support.run import run


class World:
    """An app with two endpoints `a` and `b` on one route; `a` has two keys and a health check that succeeds."""

    def __init__(self, **settings: Any) -> None:
        self.clock, self.checks = ManualClock(), 0
        self.a = Candidate("a", random.Random(1), Standing(keys=2))
        self.b = Candidate("b", random.Random(2))
        check = HealthCheck(self.a, self._ask, HealthPolicy(), self.clock)
        mock = MockProvider()
        route = ProviderGroup(
            model="smart",
            endpoints=tuple(Endpoint(name=it.name, provider=mock, model="m", candidate=it) for it in (self.a, self.b)),
            rng=random.Random(3),
            clock=self.clock.monotonic,
        )
        self.selector = route.selector
        pool = Pool([route], {"a": check})
        self.app: Atlas = create(Settings(**settings))
        self.router = pool_api.router(pool, self.clock)
        self.app.include_router(self.router)
        routes = self.app.router.routes
        routes.insert(0, routes.pop())  # before the app's own, of the app's own pool

    async def _ask(self) -> None:
        self.checks += 1
        await asyncio.sleep(0)

    async def call(self, method: str, path: str, key: str | None = None) -> tuple[int, Any]:
        """Status and body of one request."""
        headers = {"host": "localhost"} | ({} if key is None else {"authorization": f"Bearer {key}"})
        async with AsgiCall(self.app, method, path, headers, b"") as call:
            status, _ = await call.start()
            return status, json.loads(await call.rest())

    def choose(self) -> list[str]:
        """Who would be asked now."""
        return [each.name for each in self.selector.choose(NOTHING, self.clock.monotonic()).ranked]


def test_everything_is_shown() -> None:
    """State, statistics, keys at rest and the newest choices with their reasons stand on one page."""

    async def scenario() -> None:
        world = World()
        world.choose()
        trial = world.a.begin(world.clock.monotonic())
        assert isinstance(trial, Trial)
        trial.failed(world.clock.monotonic(), Failure(Category.RATE_LIMITED, "429", 60.0))
        status, body = await world.call("GET", "/v1/pool")
        assert status == 200
        shown = body["endpoints"][0]
        assert [each["state"] for each in shown["keys"]] == ["parked", "ready"]
        assert shown["breaker"]["state"] == "closed"
        assert shown["statistics"]["failures"] == 1
        assert shown["health"] == {"failing": False, "last": None, "interval_s": 15.0}
        (route,) = body["routes"]
        assert route["candidates"] == ["a", "b"]
        assert route["last_choices"] == [{"ago_s": 0.0, "chosen": "a", "why": "first in order", "of": 2}]

    run(scenario())


def test_disable_and_enable() -> None:
    """A disabled endpoint gets no new requests until it is enabled, and then has all its keys again."""

    async def scenario() -> None:
        world = World()
        trial = world.a.begin(0.0)
        assert isinstance(trial, Trial)
        trial.failed(0.0, Failure(Category.PROVIDER_AUTH, "401"))
        assert (await world.call("POST", "/v1/pool/a/disable"))[1]["blocked"] == "disabled"
        assert world.choose() == ["b"]
        status, body = await world.call("POST", "/v1/pool/a/enable")
        assert (status, body["disabled"], body["usable"]) == (200, False, True)
        assert {each["state"] for each in body["keys"]} == {"ready"}
        assert world.choose() == ["a", "b"]

    run(scenario())


def test_probe() -> None:
    """An open breaker lets the next request be its probe, and the health check runs at once."""

    async def scenario() -> None:
        world = World()
        world.a.breaker.trip(world.clock.monotonic(), "down")
        world.a.refresh()
        assert world.choose() == ["b"]
        _, body = await world.call("POST", "/v1/pool/a/probe")
        assert (body["breaker"]["state"], body["health"]["last"], world.checks) == ("half_open", "ok", 1)
        assert world.choose() == ["a", "b"]

    run(scenario())


def test_unknown_endpoint() -> None:
    """A slip in the name is a 404 that says which there are."""

    async def scenario() -> None:
        status, body = await World().call("POST", "/v1/pool/c/disable")
        assert status == 404
        assert "there are: a, b" in body["error"]["message"]

    run(scenario())


def test_administrators_only() -> None:
    """Every route of the pool asks for the scope admin."""

    async def scenario() -> None:
        admin, other = made("a", "admin"), made("a", "infer", "control", "metrics")
        world = World(**keyed(admin, other))
        assert set(declared(world.router.routes).values()) == {ADMIN}
        assert (await world.call("GET", "/v1/pool"))[0] == 401
        assert (await world.call("GET", "/v1/pool", other.secret))[0] == 403
        assert (await world.call("GET", "/v1/pool", admin.secret))[0] == 200

    run(scenario())
