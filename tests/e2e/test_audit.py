"""Who did what, as it stands in the log."""

import json
import logging
from typing import Any

import pytest

from gateway.telemetry.audit import REFUSALS_PER_S
from gateway.telemetry.logs import JsonFormatter
from tests.e2e.house import House, house, run, sid_of
from tests.support.chaos import Gate, Plan
from tests.support.clock import ManualClock
from tests.support.keys import keyed, made

OWN, BOSS, OTHER = made("a"), made("ops", "admin"), made("b")
KEYS = keyed(OWN, BOSS, OTHER)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The audit lines as they are written."""
    formatter = JsonFormatter()
    return [json.loads(formatter.format(each)) for each in caplog.records if each.name == "atlas.audit"]


def test_acts_name_who_what_and_how_it_went(caplog: pytest.LogCaptureFixture) -> None:
    """Each act on a stream, a key or an endpoint is one line with key, tenant, request and result, refused ones too."""
    caplog.set_level(logging.INFO, "atlas.audit")

    async def scenario() -> tuple[str, str]:
        gate = Gate(2)
        async with house(Plan(gate=gate), **KEYS) as it, it.chat(OWN.headers()) as answer:
            await answer.until_frames(2)
            route = f"/v1/streams/{sid_of(answer)}"
            for op in ("token", "pause", "pause", "resume", "cancel", "pause"):
                await it.call("POST", f"{route}/{op}", OWN.headers())
            await it.call("POST", f"{route}/cancel", OTHER.headers())
            await it.call("DELETE", route, OWN.headers())
            await it.call("POST", "/v1/pool/up/disable", BOSS.headers())
            revoked = await it.call("POST", f"/v1/keys/{OTHER.row['id']}/revoke", BOSS.headers())
            return sid_of(answer), revoked.headers["x-request-id"]

    sid, request = _result(scenario())
    found = lines(caplog)
    own, boss = OWN.row["id"], BOSS.row["id"]
    assert [(line["message"], line["result"], line["key"]) for line in found] == [
        ("stream.token", "issued", own), ("stream.pause", "changed", own), ("stream.pause", "unchanged", own),
        ("stream.resume", "changed", own), ("stream.cancel", "changed", own), ("stream.pause", "stream_terminal", own),
        ("stream.cancel", "stream_not_found", OTHER.row["id"]), ("stream.delete", "deleted", own),
        ("pool.disable", "done", boss), ("key.revoke", "revoked", boss),
    ]  # fmt: skip
    assert {line["stream"] for line in found[:8]} == {sid}
    assert (found[0]["tenant"], found[8]["endpoint"], found[9]["subject"]) == ("a", "up", OTHER.row["id"])
    assert found[9]["request"] == request


def _result(scenario: Any) -> Any:
    found: list[Any] = []

    async def keep() -> None:
        found.append(await scenario)

    run(keep())
    return found[0]


def test_who_is_turned_away_is_told_of_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    """Guessing keys is seen and cannot fill the disk: a few lines a second, and how many there were not room for.

    Of a key that is known, and may not do this or not any more, the line says whose it is.
    """
    caplog.set_level(logging.INFO, "atlas.audit")

    async def scenario() -> None:
        clock = ManualClock()
        async with house(clock=clock, **KEYS) as it:
            await _turned_away(it, 3 * REFUSALS_PER_S)
            clock.advance(1)
            await _turned_away(it, 1)
            await it.call("GET", "/v1/pool", OWN.headers())
            await it.call("GET", "/v1/streams/str_x?token=ast_x")
            await it.call("POST", f"/v1/keys/{OTHER.row['id']}/revoke", BOSS.headers())
            await it.call("GET", "/v1/streams", OTHER.headers())

    run(scenario())
    found = [line for line in lines(caplog) if line["message"] == "access.refused"]
    assert [line["result"] for line in found] == [
        *["invalid_api_key"] * (REFUSALS_PER_S + 1), "missing_scope", "invalid_stream_token", "revoked_api_key",
    ]  # fmt: skip
    assert found[REFUSALS_PER_S]["unwritten"] == 2 * REFUSALS_PER_S
    assert [line.get("key") for line in found[-4:]] == [None, OWN.row["id"], None, OTHER.row["id"]]
    assert (found[0]["status"], found[0]["client"]) == (401, "127.0.0.1")


async def _turned_away(it: House, times: int) -> None:
    async with it.client() as client:
        for _ in range(times):
            assert (await client.request("GET", "/v1/streams", {"x-api-key": "nonsense"})).status == 401
