"""The same Idempotency-Key at the same time: one stream, whoever asks and wherever."""

import asyncio
from contextlib import AsyncExitStack, nullcontext

import pytest

from tests.e2e.house import house, over_redis, run, sid_of
from tests.support.chaos import Plan
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import shared_redis

KEY = {"idempotency-key": "the-same"}
AT_ONCE = 8


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_stream_for_all_who_ask_at_once(replicas: int) -> None:
    """Requests that overtake one another between binding the key and creating the stream all get the same answer."""

    async def scenario() -> None:
        plan = Plan(tokens=5)
        async with AsyncExitStack() as stack:
            its = [await stack.enter_async_context(house(plan, checked=at == 0)) for at in range(replicas)]
            answers = await asyncio.gather(*[its[at % replicas].ask(KEY) for at in range(AT_ONCE)])
            assert {answer.status for answer in answers} == {200}
            assert len({sid_of(answer) for answer in answers}) == 1
            assert {answer.json["choices"][0]["message"]["content"] for answer in answers} == {plan.text()}
            assert sum(len(it.up.requests) for it in its) == 1
            replayed = [answer.headers.get("x-atlas-idempotent") for answer in answers]
            assert replayed.count("replayed") == AT_ONCE - 1

    with nullcontext() if replicas == 1 else over_redis():
        run(scenario())


def test_who_bound_the_key_first_and_is_slow() -> None:
    """A replica that sees a key whose stream is not there yet waits for it, and begins none of its own."""

    async def scenario() -> None:
        server = shared_redis()
        server.flush()
        async with (
            RedisProxy.before(server) as proxy,
            house(journal={"kind": "redis", "url": proxy.url}) as slow,
            house(journal={"kind": "redis", "url": server.url}, checked=False) as quick,
        ):
            assert (await slow.ask()).status == (await quick.ask()).status == 200
            proxy.delay_s = 0.1
            first = asyncio.ensure_future(slow.ask(KEY))
            while not server.names("atlas:idem:*"):  # noqa: ASYNC110  Redis has no event for it
                await asyncio.sleep(0.001)
            second = await quick.ask(KEY)
            assert sid_of(second) == sid_of(await first)
            assert (len(slow.up.requests), len(quick.up.requests)) == (2, 1)

    run(scenario())
