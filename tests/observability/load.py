"""A mixed load with faults: every sort of answer, refusal, break and control operation, again and again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Protocol

from tests.e2e.house import CHAT, House, ask, house, sid_of
from tests.support.chaos import ChaosProvider, Garbage, Gate, Plan, refusing
from tests.support.http import CutBodyError
from tests.support.redis_server import RedisServer

PRICE = {"input": 2.0, "output": 10.0}
TOKENS = 12


class Reached(Protocol):
    """A Redis, by the URL under which Atlas reaches it."""

    @property
    def url(self) -> str:
        """See `config.settings.Journal`."""
        ...


@asynccontextmanager
async def loaded_house(redis: Reached) -> AsyncIterator[House]:
    """A gateway over Redis, and what it asks.

    `chaos/*` goes to two endpoints, where it falls from the first to the second; `claude/*` to the same providers on
    another wire, where they behave; on a third one, `llama/*`, they refuse the key. Nobody answers for `dead/*`; for
    `late` somebody sleepy does, and sometimes somebody lively beside it.
    """
    sections: dict[str, Any] = {
        "journal": {"kind": "redis", "url": redis.url, "poll_s": 0.2},
        "server": {"heartbeat_s": 0.1},
        "streams": {"tick_s": 0.02},
        "kinds": ("openai_chat", "anthropic", "ollama"),
        "endpoints": [
            {"name": "dead", "base_url": "http://127.0.0.1:9/v1", "model": "*"},
            {"name": "sleepy", "kind": "mock", "model": "mock-slow"},
            {"name": "lively", "kind": "mock", "model": "mock-fast"},
        ],
        "routes": [
            {"model": "dead/*", "endpoints": ["dead"]},
            {"model": "late", "endpoints": ["sleepy", "lively"], "hedge": {"enabled": True, "wait_unknown_s": 0.02}},
        ],
        "agents": [
            {"name": "lucky", "kind": "task_aware", "route": "mock-fast"},
            {"name": "unlucky", "kind": "task_aware", "route": "dead/any"},
        ],
    }
    async with house(Plan(tokens=TOKENS), Plan(tokens=TOKENS), endpoint={"price": PRICE}, **sections) as it:
        for up in it.ups:
            _plan(up)
        it.up.plans["limited"] = refusing(429, code="rate_limit_exceeded")
        yield it


def _plan(up: ChaosProvider) -> None:
    whole = Plan(tokens=TOKENS, usage="always")
    up.plans = {
        "slow": whole.with_(pace_s=0.01),
        "cut": whole.with_(reset_at_byte=900, pace_s=0.002),
        "strange": whole.with_(garbage=Garbage(kind="json", at=3)),
        "unknown": refusing(418, message="I am a teapot."),
        "down": refusing(500),
        "locked": refusing(401),
    }


async def one_round(it: House) -> None:
    """Everything once, side by side."""
    await _fail(it, "chaos/limited")  # answered by the second one, while neither rests
    async with asyncio.TaskGroup() as tasks:
        for model in ("claude/any", "claude/slow", "claude/strange", "mock-fast", "agent/lucky"):
            tasks.create_task(_read(it, model))
        for model in (
            "chaos/cut",
            "chaos/unknown",
            "chaos/down",
            "dead/any",
            "llama/locked",
            "agent/unlucky",
            "mock-429",
            "nobody",
        ):
            tasks.create_task(_fail(it, model))
        for _ in range(21):  # of which one may be hedged
            tasks.create_task(_read(it, "late", max_tokens=1))
        tasks.create_task(_controlled(it, "resume"))
        tasks.create_task(_controlled(it, "cancel"))


async def _read(it: House, model: str, **body: Any) -> None:
    async with it.chat(model=model, **body) as answer:
        assert answer.status == 200, model
        await answer.read()


async def _fail(it: House, model: str) -> None:
    """Whatever becomes of it."""
    async with it.client() as client:
        answer = await client.stream("POST", CHAT, {}, json=ask(model=model))
        with suppress(CutBodyError):
            await answer.read()


async def _controlled(it: House, op: str) -> None:
    """A stream that is read by two, paused in its midst, and then resumed or cancelled."""
    gate, name = Gate(), f"gated-{op}"
    plan = Plan(tokens=TOKENS, gate=gate)
    for up in it.ups:
        up.plans[name] = plan
    gate.allow(6)
    async with AsyncExitStack() as stack:
        answer = await stack.enter_async_context(it.chat(model=f"claude/{name}"))
        await answer.until_frames(2)
        other = await stack.enter_async_context(it.read(f"/v1/streams/{sid_of(answer)}/events"))
        assert (await it.control(sid_of(answer), "pause")).status == 200
        await other.until(b": keep-alive")
        if op == "cancel":
            await gate.release(2)
        assert (await it.control(sid_of(answer), op)).status == 200
        gate.open()
        await asyncio.gather(answer.read(), other.read())


async def without_redis(it: House, redis: RedisServer) -> None:
    """In the midst of streams every connection to Redis is closed from its side; returns when it is back."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(_fail(it, "claude/slow"))
        async with it.chat(model="claude/slow") as answer:
            await answer.next()
            with redis.client() as client:
                client.client_kill_filter(_type="normal", skipme=True)
            with suppress(CutBodyError):
                await answer.read()
    while (await it.ask(model="claude/any")).status != 200:
        pass
