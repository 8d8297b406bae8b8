"""Clients that hang up at any moment: whoever stays gets what is its own, and everything is back at its baseline."""

import asyncio
import logging
import time
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from gateway.core.events import TERMINAL
from gateway.streams import layout_redis as layout
from tests.e2e.house import CHAT, House, ask, house, over_redis, run, sid_of
from tests.replicas.figures import figure, rng
from tests.support.chaos import Plan
from tests.support.fold import fold
from tests.support.http import CutBodyError
from tests.support.redis_server import RedisServer, shared_redis

REQUESTS = figure(500, 10_000)
AT_ONCE = 20
PATIENCE = 1.2
"""Of the time that an answer takes here and now: within it most of them come."""


class Crowd:
    """Clients, each with a stream whose words nobody else's has."""

    def __init__(self, it: House, chance: Random) -> None:
        self._it, self._chance, self._numbers = it, chance, iter(range(REQUESTS))
        self._takes_s = 0.05
        self.came_to: Counter[str] = Counter()

    async def come_and_go(self) -> None:
        """One client after the other."""
        for number in self._numbers:
            plan = Plan(tokens=12, seed=number, pace_s=0.001)
            self._it.up.plans[f"s{number}"] = plan
            longest_s = PATIENCE * self._takes_s
            patience_s = self._chance.random() * longest_s if self._chance.random() < 0.7 else None
            begun = time.monotonic()
            try:
                async with asyncio.timeout(patience_s):
                    await self._one(f"chaos/s{number}", plan)
                self.came_to["answered"] += 1
                if patience_s is None:
                    self._takes_s += 0.5 * (time.monotonic() - begun - self._takes_s)
            except TimeoutError:
                self.came_to["hung up"] += 1

    async def _one(self, model: str, plan: Plan) -> None:
        """One of the things that clients do, and a look at what came of it."""
        headers = {"x-atlas-on-disconnect": self._chance.choice(["cancel", "continue"])}
        match self._chance.choice(["whole", "streamed", "controlled", "read again"]):
            case "whole":
                answer = await self._it.call("POST", CHAT, headers, json=ask(model, stream=False))
                assert answer.json["choices"][0]["message"]["content"] == plan.text()
            case "streamed":
                async with self._it.chat(headers, model=model) as stream:
                    assert fold(await stream.read()).text == plan.text()
            case "controlled":
                await self._control(headers, model, plan)
            case _:
                async with self._it.chat(headers, model=model) as stream:
                    sid = sid_of(stream)
                    assert (await self._it.status(sid))["id"] == sid
                    assert (await self._it.native(sid)).body.count(b"event: end") == 1
                    text = await self._it.call("GET", f"/v1/streams/{sid}/text")
                    assert (text.json["id"], text.json["text"]) == (sid, plan.text())

    async def _control(self, headers: dict[str, str], model: str, plan: Plan) -> None:
        async with self._it.chat(headers, model=model) as stream:
            sid = sid_of(stream)
            for op in ("pause", "resume"):
                answer = await self._it.control(sid, op)
                assert answer.status in {200, 409}
                assert answer.json["stream"]["id"] == sid
            if self._chance.random() < 0.5:
                assert fold(await stream.read()).text == plan.text()
                return
            assert (await self._it.control(sid, "cancel")).json["stream"]["id"] == sid
            with suppress(CutBodyError):
                await stream.read_cut()


def _running(server: RedisServer) -> list[str]:
    """Streams that have no end in Redis."""
    with server.client() as client:
        states: list[Any] = [client.hget(name, "state") for name in server.names("atlas:{*}:m")]
    return [state for state in states if state.decode() not in TERMINAL]


def test_clients_that_hang_up_at_any_moment(caplog: pytest.LogCaptureFixture) -> None:
    """No reply is another's, no stream runs on that nobody wants, nothing is left, no error is logged."""

    async def scenario() -> None:
        server = shared_redis()
        async with house(Plan()) as it:
            await it.ask(model="mock-fast", max_tokens=1)
            await it.call("GET", "/v1/streams")
            before, crowd = server.clients(), Crowd(it, rng("crowd"))
            async with asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    tasks.create_task(crowd.come_and_go())
            for paused in (await it.call("GET", "/v1/streams?state=paused&limit=100")).json["data"]:
                await it.control(paused["id"], "resume")  # whoever paused it left, which ends no pause
            async with asyncio.timeout(30):
                while it.channels or _running(server) or server.names(layout.key_of_owned("*")):  # noqa: ASYNC110  Redis
                    await asyncio.sleep(0.02)
            assert len(server.names("atlas:{*}:m")) > REQUESTS / 2
            assert server.clients() <= before + 1, "a lane may have been opened by the first reader"
            print(f"\n{REQUESTS} requests over Redis: {dict(crowd.came_to)}")
            assert min(crowd.came_to["answered"], crowd.came_to["hung up"]) > REQUESTS / 20

    with over_redis():
        run(scenario(), timeout=180 + REQUESTS / 25)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
