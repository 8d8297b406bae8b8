"""Tokens of a stream, as a page uses them: no header but what EventSource sends, over real sockets."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from gateway.core.stream_token import LIFETIME_S, PREFIX
from tests.e2e.house import House, house, over_redis, run, sid_of
from tests.support.chaos import Gate, Plan
from tests.support.clock import ManualClock
from tests.support.keys import carried, keyed, made
from tests.support.replicas import replicas
from tests.support.sse import data_frames

OWN, READER, OTHER, BOSS = made("a"), made("a", "infer"), made("b"), made("a", "admin")
KEYS = keyed(OWN, READER, OTHER, BOSS)
ORIGIN = "https://chat.example.com"
LIKE_A_PAGE = {"accept": "text/event-stream", "origin": ORIGIN, "cache-control": "no-cache"}


async def issued(it: House, sid: str, key: Any = OWN) -> dict[str, Any]:
    """What the route answers."""
    answer = await it.call("POST", f"/v1/streams/{sid}/token", {} if key is None else key.headers())
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store"), answer
    return dict(answer.json)


async def ended(it: House, key: Any = OWN) -> str:
    """An ended stream of a key."""
    return sid_of(await it.ask({} if key is None else key.headers(), model="mock-fast", max_tokens=3))


async def code_of(it: House, path: str, headers: dict[str, str] | None = None) -> tuple[int, str | None]:
    """Status and error code of a GET."""
    answer = await it.call("GET", path, headers)
    return answer.status, None if answer.status == 200 else answer.json["error"]["code"]


def test_a_page_follows_a_stream_with_nothing_but_its_url() -> None:
    """The URL that the route answers is all that EventSource needs: live events, and a cursor to come back with."""

    async def scenario() -> None:
        gate = Gate(3)
        async with house(Plan(tokens=8, gate=gate), **KEYS) as it, it.chat(OWN.headers()) as answer:
            await answer.until_frames(3)
            token = await issued(it, sid_of(answer), READER)
            assert token["token"].startswith(PREFIX)
            async with it.read(token["url"], LIKE_A_PAGE) as page:
                assert (page.status, page.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
                first = data_frames(await page.until(b"event: text"))
            gate.open()
            await answer.read()
            async with it.read(token["url"], LIKE_A_PAGE | {"last-event-id": str(first[-1].id)}) as page:
                rest = data_frames(await page.read())
            shown = "".join(frame.json["text"] for frame in [*first, *rest] if frame.event == "text")
            assert shown == (await it.call("GET", _text(token))).json["text"]
            assert rest[-1].event == "end"

    run(scenario())


def _text(token: dict[str, Any]) -> str:
    return token["url"].replace("/events", "/text")


def test_a_token_ends_after_a_minute_and_what_it_opened_does_not() -> None:
    """A token is refused from its 60th second on, and says so; a page that follows meanwhile goes on following."""

    async def scenario() -> None:
        clock, gate = ManualClock(), Gate(2)
        async with house(Plan(tokens=4, gate=gate), clock=clock, **KEYS) as it, it.chat(OWN.headers()) as answer:
            await answer.until_frames(2)
            token = await issued(it, sid_of(answer))
            assert token["expires_at"] == int(clock.now()) + LIFETIME_S
            async with it.read(token["url"]) as page:
                clock.advance(LIFETIME_S)
                assert await code_of(it, token["url"]) == (401, "expired_stream_token")
                gate.open()
                assert b"event: end" in await page.read()

    run(scenario())


def test_only_this_stream_and_only_this_token() -> None:
    """Of another stream, changed in any character, cut or empty: 401, the same whether or not the stream exists."""

    async def scenario() -> None:
        async with house(**KEYS) as it:
            sid, foreign = await ended(it), await ended(it, OTHER)
            token = (await issued(it, sid))["token"]
            seen = {await code_of(it, f"/v1/streams/{other}/events?token={token}") for other in (foreign, "str_x")}
            for at in range(len(token)):
                changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
                seen.add(await code_of(it, f"/v1/streams/{sid}?token={changed}"))
            for junk in (token[:-1], PREFIX, "", "%00", "%F0%9F%98%80", "a" * 3000, OWN.secret):
                seen.add(await code_of(it, f"/v1/streams/{sid}/text?token={junk}"))
            assert seen == {(401, "invalid_stream_token")}
            assert await code_of(it, f"/v1/streams/{sid}?token={token}") == (200, None)

    run(scenario())


def test_a_key_and_a_token_at_once() -> None:
    """Two credentials are refused like two keys, also two tokens: which one counts is never a guess."""

    async def scenario() -> None:
        async with house(**KEYS) as it:
            token = await issued(it, await ended(it))
            for path, headers in (
                (token["url"], OWN.headers()),
                (token["url"], carried("nonsense", "x-api-key")),
                (f"{token['url']}&token={token['token']}", {}),
            ):
                assert await code_of(it, path, headers) == (400, "conflicting_credentials")

    run(scenario())


def test_a_token_speaks_for_its_key_no_longer_than_that_lives() -> None:
    """With the key that asked for it a token is revoked at once; tokens of the tenant's other keys are not."""

    async def scenario() -> None:
        async with house(**KEYS) as it:
            sid = await ended(it)
            mine, readers = await issued(it, sid), await issued(it, sid, READER)
            revoked = await it.call("POST", f"/v1/keys/{READER.row['id']}/revoke", BOSS.headers())
            assert revoked.status == 200
            assert await code_of(it, readers["url"]) == (401, "invalid_stream_token")
            assert await code_of(it, mine["url"]) == (200, None)

    run(scenario())


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
def test_without_keys_tokens_work_alike(*, shared: bool) -> None:
    """What a page is written against on a machine without keys works in production: the same answers to bad tokens."""

    async def scenario() -> None:
        async with house() as it:
            sid, another = await ended(it, None), await ended(it, None)
            token = await issued(it, sid, None)
            assert await code_of(it, token["url"]) == (200, None)
            assert await code_of(it, token["url"], {"authorization": "Bearer any"}) == (200, None)
            assert await code_of(it, token["url"].replace(sid, another)) == (401, "invalid_stream_token")
            assert (await it.call("GET", f"/v1/streams/{sid}/events")).status == 200

    with over_redis() if shared else nullcontext():
        run(scenario())


def test_any_replica_knows_the_tokens_of_the_others(tmp_path: Path) -> None:
    """Without a pepper, too, a token that one replica issued is good at the next one that the balancer picks."""

    async def scenario() -> None:
        async with replicas(tmp_path, 2) as it:
            answer = await it.attach(it.a, seed=1, plans=Plan(tokens=3))
            await answer.read()
            sid = answer.headers["x-atlas-stream-id"]
            for issuer, reader in ((it.a, it.b), (it.b, it.a)):
                token = await it.call(issuer, "POST", f"/v1/streams/{sid}/token")
                assert token.status == 200, token
                read = await it.call(reader, "GET", token.json["url"])
                assert (read.status, b"event: end" in read.body) == (200, True), read

    run(scenario())


def test_pages_of_configured_origins_may_call() -> None:
    """A page of a configured origin may ask, read the stream's id, follow by token, and read refusals; no other may."""

    async def scenario() -> None:
        async with house(**KEYS, server={"cors_origins": [ORIGIN]}) as it:
            asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
            asked = await it.call("OPTIONS", "/v1/chat/completions", {"origin": ORIGIN, **asks})
            assert (asked.status, asked.headers["access-control-allow-origin"]) == (200, ORIGIN)
            assert "authorization" in asked.headers["access-control-allow-headers"]
            answer = await it.ask(OWN.headers() | {"origin": ORIGIN}, model="mock-fast", stream=True)
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert "x-atlas-stream-id" in answer.headers["access-control-expose-headers"]
            token = await issued(it, sid_of(answer))
            page = await it.call("GET", token["url"], LIKE_A_PAGE)
            assert (page.status, page.headers["access-control-allow-origin"]) == (200, ORIGIN)
            refused = await it.call("GET", token["url"] + "x", LIKE_A_PAGE)
            assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
            stranger = await it.call("GET", token["url"], {"origin": "https://evil.example"})
            assert "access-control-allow-origin" not in stranger.headers

    run(scenario())


def test_without_origins_nothing_is_said_to_pages() -> None:
    """Where no origins are configured no answer allows any page anything, and OPTIONS is no method of ours."""

    async def scenario() -> None:
        async with house() as it:
            answer = await it.call("GET", "/v1/models", {"origin": ORIGIN})
            assert [name for name in answer.headers if name.startswith("access-control")] == []
            assert (await it.call("OPTIONS", "/v1/models", {"origin": ORIGIN})).status == 405

    run(scenario())
