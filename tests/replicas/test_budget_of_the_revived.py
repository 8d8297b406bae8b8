"""A stream that another replica goes on with is held to the budgets of its key and tenant, like any other."""

from pathlib import Path
from typing import Any

from tests.support.chaos import Gate, Plan
from tests.support.replicas import HASTY, replicas
from tests.support.run import run

RECOVERY: dict[str, Any] = {"streams": {"recovery": True}, "endpoint": {"continuation": "prefill"}}


def test_a_revived_stream_is_stopped_by_its_budget(tmp_path: Path) -> None:
    """It ends `incomplete(budget)` when the budget is used up, and what it took is charged: nobody else gets in."""

    async def scenario() -> None:
        limited = {"tenants": [{"id": "local", "budgets": [{"tokens": 200, "per": "total"}]}]}
        plan = Plan(tokens=2000, prefill="continues", usage="never")
        async with replicas(tmp_path, 2, journal=HASTY, **RECOVERY, **limited) as it:
            sid = await it.begin(it.a, seed=1, plans=(plan.with_(gate=Gate(25)), plan))
            await it.up.last.wrote(20)
            it.a.kill()
            await it.ended(it.b, sid)
            status = await it.settled(it.b, sid)
            assert (status["state"], status["reason"]) == ("incomplete", "budget")
            assert [leg["strategy"] for leg in status["legs"]] == ["priority", "prefill"]
            # What the dead owner took and had not charged: its prompt and what it wrote.
            assert 150 < status["usage"]["input_tokens"] + status["usage"]["output_tokens"] < 300
            body = {"model": "chaos/s1", "messages": [{"role": "user", "content": "Say it."}]}
            refused = await it.call(it.b, "POST", "/v1/chat/completions", json=body)
            assert (refused.status, refused.json["error"]["code"]) == (429, "budget_exceeded")

    run(scenario(), 30, fast=True)
