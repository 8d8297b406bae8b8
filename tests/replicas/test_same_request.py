"""One Idempotency-Key at several replicas at once is one stream."""

import asyncio
from pathlib import Path

from tests.support.chaos import Plan
from tests.support.fold import fold
from tests.support.http import Answer
from tests.support.replicas import CHAT, Replicas, replicas
from tests.support.run import run

ROUNDS, AT_ONCE = 8, 10


async def _ask(it: Replicas, number: int, seed: int) -> Answer:
    body = {"model": f"chaos/s{seed}", "stream": True, "messages": [{"role": "user", "content": "Say it."}]}
    headers = {"idempotency-key": f"key-{seed}"}
    return await it.call(it.gateways[number % len(it.gateways)], "POST", CHAT, headers, json=body)


def test_the_same_request_at_once_is_one_stream(tmp_path: Path) -> None:
    """Ten at once over two replicas ask the provider once, and each gets the whole answer of the one stream."""

    async def scenario() -> None:
        async with replicas(tmp_path, 2) as it:
            for seed in range(ROUNDS):
                plan = Plan(tokens=12, seed=seed)
                it.up.plans[f"s{seed}"] = plan
                async with asyncio.timeout(10):
                    answers = await asyncio.gather(*[_ask(it, number, seed) for number in range(AT_ONCE)])
                assert {answer.status for answer in answers} == {200}
                assert len({answer.headers["x-atlas-stream-id"] for answer in answers}) == 1
                assert {fold(answer.body).text for answer in answers} == {plan.text()}
                replayed = [answer.headers.get("x-atlas-idempotent") for answer in answers].count("replayed")
                assert (replayed, len(it.up.requests)) == (AT_ONCE - 1, seed + 1)

    run(scenario(), 60, fast=True)
