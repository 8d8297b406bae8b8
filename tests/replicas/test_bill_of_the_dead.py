"""What a replica took from a provider before it died is billed, once, by whoever ends its stream."""

import json
from pathlib import Path
from typing import Any

from tests.support.chaos import Gate, Plan
from tests.support.replicas import HASTY, replicas
from tests.support.run import run


def _settled(log: str, sid: str) -> list[dict[str, Any]]:
    """The settlement rows of a stream in a replica's log."""
    rows = [json.loads(line) for line in log.splitlines() if "leg settled" in line and line.startswith("{")]
    return [row for row in rows if row["stream"] == sid]


def test_a_dead_owners_leg_is_settled(tmp_path: Path) -> None:
    """A stream that nobody can go on with has its settlement row all the same, and its status says what it took."""

    async def scenario() -> None:
        async with replicas(tmp_path, 3, journal=HASTY) as it:
            sid = await it.begin(it.a, seed=1, plans=Plan(tokens=40, gate=Gate(25)))
            await it.up.last.wrote(20)
            it.a.kill()
            await it.ended(it.b, sid)
            status = await it.settled(it.b, sid)
            assert (status["state"], status["reason"]) == ("failed", "owner_lost")
            assert status["error"]["code"] == "owner_lost"
            rows = [row for gateway in it.gateways[1:] for row in _settled(gateway.log, sid)]
            assert len(rows) == 1
            assert rows[0]["endpoint"] == "up"
            assert rows[0]["end"] == "failed:owner_lost"
            assert rows[0]["estimated"] is True
            assert rows[0]["output_tokens"] > 5
            assert status["usage"]["output_tokens"] == rows[0]["output_tokens"]
            assert [leg["endpoint"] for leg in status["legs"]] == ["up"]

    run(scenario(), 30, fast=True)
