"""Many streams of one tenant over three replicas, as real processes: its budget holds, bills are the providers' own."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.replicas.figures import figure
from tests.support.chaos import Plan
from tests.support.fold import fold
from tests.support.replicas import CHAT, Replicas, replicas
from tests.support.run import run
from tests.support.signals import eventually

WHOLE, STREAMS = 6, figure(40, 200)
LIMIT = 60 * (WHOLE + STREAMS)


async def _served(it: Replicas, at: int) -> tuple[str, str | None] | None:
    """The text and finish reason of one stream, whole or stopped; None if it was not let in."""
    async with it.gateways[at % 3].client() as client:
        body = {"model": "chaos/m", "stream": True, "messages": [{"role": "user", "content": "Say it."}]}
        answer = await client.stream("POST", CHAT, {}, json=body)
        data = await answer.read()
        if answer.status != 200:
            assert (answer.status, json.loads(data)["error"]["code"]) == (429, "budget_exceeded")
            return None
        folded = fold(data)
        return folded.text, folded.finish


def _bills(it: Replicas) -> list[dict[str, Any]]:
    lines = [line for gateway in it.gateways for line in gateway.log.splitlines()]
    return [json.loads(line) for line in lines if "leg settled" in line and line.startswith("{")]


def test_many_streams_on_three_replicas_stop_at_the_budget(tmp_path: Path) -> None:
    """All together are served what the budget has, short of it by less than a block each, and at most a delta more.

    What is settled of whole answers is what their provider reported, to the token.
    """

    async def scenario() -> None:
        limited = {"tenants": [{"id": "local", "budgets": [{"tokens": LIMIT, "per": "total"}]}]}
        async with replicas(tmp_path, 3, **limited) as it:
            it.up.default = whole = Plan(tokens=37)
            found = await asyncio.gather(*(_served(it, at) for at in range(WHOLE)))
            assert set(found) == {(whole.text(), "stop")}
            await eventually(lambda: len(_bills(it)) == WHOLE)
            assert {bill["output_tokens"] for bill in _bills(it)} == {37}
            it.up.default = Plan(tokens=2000, usage="never", pace_s=0.001)
            found = await asyncio.gather(*(_served(it, at) for at in range(STREAMS)))
            stopped = [each for each in found if each is not None]
            assert {each[1] for each in stopped} == {"length"}
            await eventually(lambda: len(_bills(it)) == WHOLE + len(stopped))
            spent = sum(bill["input_tokens"] + bill["output_tokens"] for bill in _bills(it))
            assert LIMIT - 512 * 3 <= spent <= LIMIT + len(stopped)
            assert await _served(it, 0) is None

    run(scenario(), 60, fast=True)
