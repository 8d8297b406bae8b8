"""Keys that are revoked: refused everywhere within a second, and what runs in their names is cancelled."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from typing import Any

import pytest

from gateway.api.auth import Keyring
from tests.e2e.house import CHAT, House, ask, house, over_redis, run, sid_of
from tests.support.chaos import Gate, Plan
from tests.support.http import Answer
from tests.support.keys import keyed, made

LOST, KEPT, ADMIN = made("a"), made("a"), made("ops", "admin")
KEYS = keyed(LOST, KEPT, ADMIN)
KEY_ID = LOST.row["id"]
WITHIN_S = 10.0
"""A second is what is promised, of a machine that does not stand still; who is never told does not know after ten."""


async def _revoke(it: House, key_id: str = KEY_ID) -> Answer:
    return await it.call("POST", f"/v1/keys/{key_id}/revoke", ADMIN.headers())


async def _is_refused(it: House, by: float) -> None:
    """Until the key is refused, which must be so by then."""
    while (answer := await it.call("GET", "/v1/streams", LOST.headers())).status != 401:
        assert time.monotonic() < by, answer
        await asyncio.sleep(0.01)
    assert answer.json["error"]["code"] == "revoked_api_key"


async def _ended(it: House, sid: str) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S):
        while True:
            answer = await it.call("GET", f"/v1/streams/{sid}", KEPT.headers())
            if answer.json["state"] == "cancelled":
                return dict(answer.json)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_revoked_key(replicas: int) -> None:
    """On every replica it is refused within a second, its streams are cancelled, and other keys do not notice."""

    async def scenario() -> None:
        gate = Gate(2)
        async with AsyncExitStack() as stack:
            its = [
                await stack.enter_async_context(house(Plan(gate=Gate(2)), checked=at == 0, **KEYS))
                for at in range(replicas)
            ]
            its[-1].up.plans["other"] = Plan(gate=gate)
            answers = [await stack.enter_async_context(it.chat(LOST.headers())) for it in its]
            other = await stack.enter_async_context(its[-1].chat(KEPT.headers(), model="chaos/other"))
            for answer in (*answers, other):
                await answer.until_frames(2)
            revoked = await _revoke(its[0])
            assert (revoked.status, revoked.json["revoked"], revoked.json["durable"]) == (200, True, replicas > 1)
            by = time.monotonic() + WITHIN_S
            for it, answer in zip(its, answers, strict=True):
                await _is_refused(it, by)
                assert b"stream_cancelled" in await answer.read()
                status = await _ended(its[0] if replicas == 1 else its[-1], sid_of(answer))
                assert (status["state"], status["reason"]) == ("cancelled", "key_revoked")
            gate.open()
            assert (await other.read()).endswith(b"data: [DONE]\n\n")
            assert (await _revoke(its[-1])).status == 200, "again is no harm"
            assert (await _revoke(its[-1], "nobody")).json["error"]["code"] == "key_not_found"

    with _journal(replicas):
        run(scenario())


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("way", ["native", "wire", "token", "same request"])
def test_who_reads_with_a_revoked_key(way: str, replicas: int) -> None:
    """Whoever reads the stream of the tenant's other key is cut off, told so where it can be; the stream lives on."""

    async def scenario() -> None:
        gate = Gate(2)
        async with AsyncExitStack() as stack:
            houses = [house(Plan(gate=gate), checked=at == 0, **KEYS) for at in range(replicas)]
            its = [await stack.enter_async_context(each) for each in houses]
            same = {"idempotency-key": "same"}
            answer = await stack.enter_async_context(its[0].chat(KEPT.headers() | same))
            await answer.until_frames(2)
            path, headers = f"/v1/streams/{sid_of(answer)}/events", LOST.headers()
            match way:
                case "wire":
                    path += "?format=wire"
                case "token":
                    token = await its[-1].call("POST", path.replace("events", "token"), LOST.headers())
                    path, headers = token.json["url"], {}
                case _:
                    pass
            reader = await stack.enter_async_context(
                its[-1].chat(LOST.headers() | same) if way == "same request" else its[-1].read(path, headers)
            )
            await reader.until_frames(2)
            assert (await _revoke(its[0])).status == 200
            async with asyncio.timeout(WITHIN_S):
                said = await reader.read_cut()
            assert b"was revoked" in said if way in {"wire", "same request"} else reader.ended == "reset"
            gate.open()
            assert (await answer.read()).endswith(b"data: [DONE]\n\n")

    with _journal(replicas):
        run(scenario())


def _journal(replicas: int) -> AbstractContextManager[None]:
    return nullcontext() if replicas == 1 else over_redis()


@contextmanager
def _revoked_once_admitted(it: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The key is revoked just behind the door, whoever is let in."""
    admitted = Keyring.principal

    def principal(keyring: Keyring, headers: Any) -> Any:
        who = admitted(keyring, headers)
        it.app.services.keyring.revoke(frozenset({KEY_ID}))
        return who

    with monkeypatch.context() as patch:
        patch.setattr(Keyring, "principal", principal)
        yield


def test_a_key_that_is_revoked_while_its_repeated_request_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who repeats the request of the tenant's other key, let in just before the revocation, does not read along."""

    async def scenario() -> None:
        gate, same = Gate(2), {"idempotency-key": "same"}
        async with house(Plan(gate=gate), **KEYS) as it, it.chat(KEPT.headers() | same) as answer:
            await answer.until_frames(2)
            with _revoked_once_admitted(it, monkeypatch):
                async with asyncio.timeout(WITHIN_S), it.chat(LOST.headers() | same) as reader:
                    assert b"was revoked" in await reader.read_cut()
            gate.open()
            assert (await answer.read()).endswith(b"data: [DONE]\n\n")

    run(scenario())


def test_a_key_that_is_revoked_while_its_request_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that was let in just before the revocation gets no stream that goes on."""

    async def scenario() -> None:
        async with house(Plan(gate=Gate(2)), **KEYS) as it:
            with _revoked_once_admitted(it, monkeypatch):
                answer = await it.call("POST", CHAT, LOST.headers(), json=ask())
            assert b"[DONE]" not in answer.body
            assert answer.json["error"]["code"] == "stream_cancelled"

    run(scenario())
