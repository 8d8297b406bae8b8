"""Every route x actor x carrier, from the app's own routes; and that streams of others do not exist."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI

from config.settings import Settings
from gateway.api.auth import Access, check_declared, declared, principal_of
from gateway.app import create
from gateway.core.ids import new_sid, show_sid
from gateway.core.principal import Scope
from tests.e2e.house import CHAT, House, ask, house, run, sid_of
from tests.support.chaos import Gate, Plan
from tests.support.http import Answer, RawClient
from tests.support.keys import CARRIERS, carried, keyed, made

OPEN: tuple[str, ...] = ()
INFER, CONTROL, READ, METRICS = ("infer",), ("control",), ("infer", "control"), ("metrics",)
HELLO: Any = [{"role": "user", "content": "Hello"}]
ONE = "/v1/streams/{stream_id}"


@dataclass(frozen=True, slots=True)
class Row:
    """What a route is expected to do: the scopes of which it asks one, its status for who has it, what to send."""

    scopes: tuple[str, ...]
    ok: int = 200
    body: Any = None
    by_token: bool = False  # whether a token of the stream does instead of a key


TABLE: dict[tuple[str, str], Row] = {
    ("POST", CHAT): Row(INFER, body={"model": "mock-fast", "max_tokens": 1, "messages": HELLO}),
    ("POST", "/v1/messages"): Row(INFER, body={"model": "mock-fast", "max_tokens": 1, "messages": HELLO}),
    ("POST", "/v1/messages/count_tokens"): Row(INFER, body={"model": "mock-fast", "messages": HELLO}),
    ("GET", "/v1/models"): Row(INFER),
    ("GET", "/v1/models/{model:path}"): Row(INFER),
    ("GET", "/v1/agents"): Row(INFER),
    ("GET", "/v1/agents/{name}"): Row(INFER),
    ("POST", "/v1/agents/{name}/runs"): Row(INFER, body={"input": "Hello", "options": {"max_output_tokens": 1}}),
    ("GET", "/v1/streams"): Row(READ),
    ("GET", ONE): Row(READ, by_token=True),
    ("GET", ONE + "/events"): Row(READ, by_token=True),
    ("GET", ONE + "/text"): Row(READ, by_token=True),
    ("POST", ONE + "/token"): Row(READ),
    ("POST", ONE + "/pause"): Row(CONTROL, ok=409),  # the stream has ended: the caller is past authorization
    ("POST", ONE + "/resume"): Row(CONTROL, ok=409),
    ("POST", ONE + "/cancel"): Row(CONTROL),
    ("DELETE", ONE): Row(CONTROL, ok=204),
    ("GET", "/v1/pool"): Row(("admin",)),
    ("POST", "/v1/pool/{endpoint}/enable"): Row(("admin",), ok=404),  # nobody has this name: past authorization
    ("POST", "/v1/pool/{endpoint}/disable"): Row(("admin",), ok=404),
    ("POST", "/v1/pool/{endpoint}/probe"): Row(("admin",), ok=404),
    ("POST", "/v1/keys/{key_id}/revoke"): Row(("admin",), ok=404),
    ("GET", "/metrics"): Row(METRICS),
    **{
        (method, path): Row(OPEN)
        for method in ("GET", "HEAD")
        for path in ("/", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
    },
    **{(method, path): Row(OPEN) for method in ("GET", "HEAD") for path in ("/livez", "/readyz", "/healthz")},
}

OWN, OTHER = made("a"), made("b")
INFERS, CONTROLS = made("a", "infer"), made("a", "control")
ADMIN, SCRAPER = made("a", "admin"), made("ops", "metrics")
EXPIRED = made("a", "infer", "control", "metrics", "admin", expires="2020-01-01T00:00:00Z")
KEYS = keyed(OWN, OTHER, INFERS, CONTROLS, ADMIN, SCRAPER, EXPIRED)


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody: a credential or none, the scopes of it if it is a valid key, whether the stream is of its tenant."""

    credential: str | None
    scopes: frozenset[str] | None = None
    own: bool = True


ACTORS = {
    "no key": Actor(None),
    "garbage": Actor("sk-garbage"),
    "unknown id": Actor("atl_00000000" + OWN.secret[12:]),
    "wrong secret": Actor(OWN.secret[:13] + "0" * 32),
    "truncated": Actor(OWN.secret[:-1]),
    "the hash": Actor(OWN.row["hash"]),
    "expired": Actor(EXPIRED.secret),
    "other tenant": Actor(OTHER.secret, frozenset({"infer", "control"}), own=False),
    "infer only": Actor(INFERS.secret, frozenset({"infer"})),
    "control only": Actor(CONTROLS.secret, frozenset({"control"})),
    "own": Actor(OWN.secret, frozenset({"infer", "control"})),
    "admin": Actor(ADMIN.secret, frozenset({"admin"})),
    "metrics": Actor(SCRAPER.secret, frozenset({"metrics"}), own=False),
}


def served(app: Any) -> Iterator[tuple[str, str]]:
    """Method and path of all that an app serves: the framework's routes and the hot ones."""
    yield from declared(app.routes)
    yield from app.edge.hot


def expected(route: tuple[str, str], actor: Actor) -> int:
    """The status, by the table."""
    row = TABLE[route]
    if not row.scopes:
        return row.ok
    if actor.scopes is None:
        return 401
    if actor.scopes.isdisjoint(row.scopes):
        return 403
    return row.ok if actor.own or "{stream_id}" not in route[1] else 404


@asynccontextmanager
async def keyed_house(**sections: Any) -> AsyncIterator[House]:
    """A house with all the keys."""
    async with house(**KEYS, **sections) as it:
        yield it


async def stream_of(it: House, secret: str) -> str:
    """An ended stream."""
    answer = await it.ask(carried(secret, "x-api-key"), model="mock-fast", max_tokens=1)
    assert answer.status == 200, answer
    return sid_of(answer)


def test_the_matrix_has_a_row_for_every_route() -> None:
    """No route is served that this matrix does not know, and the app declares for each what the matrix expects."""
    app = create(Settings())
    assert set(served(app)) <= TABLE.keys()
    accesses = {**declared(app.routes), **{route: hot.access for route, hot in app.edge.hot.items()}}
    for route, access in accesses.items():
        assert access is not None, route
        assert access.scopes == frozenset(map(Scope, TABLE[route].scopes)), route


def test_the_matrix() -> None:
    """Each route answers each actor on each carrier as the table says.

    That is 401 without a valid key, 403 without the scope, 404 for streams of others, and else what it is there for.
    """

    async def scenario() -> None:
        async with keyed_house() as it, it.client() as client:
            routes = sorted(set(served(it.app)))
            sid = await stream_of(it, OWN.secret)
            wrong: list[tuple[str, str, str, int, int]] = []
            asked = 0
            for route in routes:
                for name, actor in ACTORS.items():
                    for carrier in CARRIERS[: 1 if actor.credential is None else None]:
                        wanted = expected(route, actor)
                        target = await stream_of(it, OWN.secret) if (route[0], wanted) == ("DELETE", 204) else sid
                        headers = {} if actor.credential is None else carried(actor.credential, carrier)
                        answer = await _ask(client, route, target, headers)
                        asked += 1
                        if answer.status != wanted:
                            wrong.append((" ".join(route), name, carrier, answer.status, wanted))
                        if answer.status in {401, 403}:
                            assert answer.headers["www-authenticate"].startswith('Bearer realm="atlas"')
                            assert answer.headers["x-should-retry"] == "false"
                            assert actor.credential is None or actor.credential not in str(answer)
            assert wrong == []
            assert asked == len(routes) * (1 + (len(ACTORS) - 1) * len(CARRIERS))

    run(scenario())


def test_the_matrix_of_tokens() -> None:
    """A token of a stream opens the GET routes of that very stream, and no other route of any kind."""

    async def scenario() -> None:
        async with keyed_house() as it, it.client() as client:
            sid, another = await stream_of(it, OWN.secret), await stream_of(it, OWN.secret)
            token, others = await token_of(it, sid), await token_of(it, another)
            wrong: list[tuple[str, str, int, int]] = []
            for route in sorted(set(served(it.app))):
                row = TABLE[route]
                for name, shown in {"own": token, "another": others, "a key": OWN.secret, "empty": ""}.items():
                    valid = not row.scopes or (row.by_token and name == "own")
                    answer = await _ask(client, route, sid, {}, f"?token={shown}")
                    if answer.status != (wanted := row.ok if valid else 401):
                        wrong.append((" ".join(route), name, answer.status, wanted))
                    assert not shown or shown not in str(answer)
            assert wrong == []

    run(scenario())


async def token_of(it: House, sid: str) -> str:
    """A token of one of OWN's streams."""
    answer = await it.call("POST", f"/v1/streams/{sid}/token", OWN.headers())
    assert answer.status == 200, answer
    return str(answer.json["token"])


async def _ask(client: RawClient, route: tuple[str, str], sid: str, headers: dict[str, str], query: str = "") -> Answer:
    method, path = route
    path += query
    path = path.replace("{stream_id}", sid).replace("{model:path}", "mock").replace("{name}", "assistant")
    return await client.request(method, path, headers, json=TABLE[route].body)


def test_a_refusal_names_the_scope_that_is_missing() -> None:
    """A key without the scope is told which one it needs, and nothing of what it lacks elsewhere."""

    async def scenario() -> None:
        async with keyed_house() as it:
            answer = await it.call("POST", "/v1/streams/str_x/pause", INFERS.headers())
            assert answer.json["error"]["code"] == "missing_scope"
            assert answer.json["error"]["message"] == "this key may not do that: it needs the scope control"
            assert 'scope="control"' in answer.headers["www-authenticate"]
            answer = await it.call("GET", "/v1/streams", SCRAPER.headers())
            assert "infer or control" in answer.json["error"]["message"]

    run(scenario())


def _bare(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
    return answer.status, headers, answer.body


ASKED: list[tuple[str, str, dict[str, str], bytes | None]] = [
    ("GET", "", {}, None),
    ("GET", "/events", {}, None),
    ("GET", "/events?after=1", {}, None),
    ("GET", "/events?after=nonsense", {}, None),
    ("GET", "/events?format=wire", {}, None),
    ("GET", "/events?format=wire&skip_events=3", {}, None),
    ("GET", "/events", {"last-event-id": "1-1"}, None),
    ("GET", "/text", {}, None),
    ("GET", "/text?choice=1", {}, None),
    ("POST", "/token", {}, None),
    ("POST", "/pause", {}, None),
    ("POST", "/pause", {"if-match": '"1"', "idempotency-key": "k"}, b'{"reason": "x"}'),
    ("POST", "/resume", {}, None),
    ("POST", "/cancel", {}, b'{"wait_s": 0}'),
    ("DELETE", "", {}, None),
    ("DELETE", "?force=1", {}, None),
]


def test_foreign_streams_are_unknown_byte_for_byte() -> None:
    """Whatever is asked of it, a stream of another tenant, running or ended, answers exactly as one that never was."""

    async def scenario() -> None:
        gate = Gate(2)
        async with keyed_house() as it, it.client() as client:
            ended = await stream_of(it, OWN.secret)
            it.up.default = Plan(gate=gate)
            async with it.chat(OWN.headers()) as running:
                await running.until_frames(2)
                for method, rest, headers, body in ASKED:
                    for carrier in CARRIERS:
                        known: set[str] = set()
                        for sid in (ended, sid_of(running), show_sid(new_sid()), "str_nonsense", "nonsense"):
                            path = f"/v1/streams/{sid}{rest}"
                            answer = await client.request(method, path, headers | OTHER.headers(carrier), body)
                            assert answer.status == 404
                            known.add(repr(_bare(answer)))
                        assert len(known) == 1, (method, rest, known)
                status = await it.call("GET", f"/v1/streams/{sid_of(running)}", OWN.headers())
                assert status.json["state"] == "running"
                gate.open()
                await running.read()

    run(scenario())


def test_foreign_streams_are_in_no_list() -> None:
    """Lists hold the streams of the caller's tenant alone, of whichever of its keys, and a foreign id is no cursor."""

    async def scenario() -> None:
        async with keyed_house() as it:
            mine = [await stream_of(it, secret) for secret in (OWN.secret, INFERS.secret)]
            theirs = await stream_of(it, OTHER.secret)

            async def listed(key: Any, query: str = "") -> list[str]:
                answer = await it.call("GET", f"/v1/streams{query}", key.headers())
                return [stream["id"] for stream in answer.json["data"]]

            assert await listed(CONTROLS) == mine[::-1]
            assert await listed(OTHER) == [theirs]
            assert await listed(OTHER, f"?after={mine[1]}") == await listed(OTHER, f"?after={show_sid(new_sid())}")

    run(scenario())


def test_idempotency_keys_belong_to_a_tenant() -> None:
    """Two tenants who use the same idempotency key get a stream each, and learn nothing of one another."""

    async def scenario() -> None:
        async with keyed_house() as it:
            same = {"idempotency-key": "same"}
            mine = await it.ask(OWN.headers() | same, model="mock-fast")
            again = await it.ask(INFERS.headers() | same, model="mock-fast")
            theirs = await it.ask(OTHER.headers() | same, model="mock-fast", max_tokens=3)
            assert (theirs.status, "x-atlas-idempotent" in theirs.headers) == (200, False)
            assert sid_of(mine) == sid_of(again) != sid_of(theirs)

    run(scenario())


@pytest.mark.parametrize(
    "path",
    [
        "/v1/streams?api_key={key}", "/v1/streams?key={key}", "/v1/streams?access_token={key}",
        "//v1/streams", "/v1/%73treams", "/livez/../v1/streams", "/v1/streams%0A", "/v1/streams;/livez", "/V1/STREAMS",
        "/metrics?x=/livez", "/metrics%2F", "http://localhost/metrics", "/v1/streams#/livez",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_gets_around_the_check(path: str) -> None:
    """Without a key in a header nothing but open routes answers, however the target is written."""

    async def scenario() -> None:
        async with keyed_house(server={"allowed_hosts": ["*"]}) as it, it.client() as client:
            for host in ("localhost", "localhost/livez?", "livez"):
                answer = await client.request("GET", path.format(key=OWN.secret), {"host": host})
                assert answer.status in {400, 401, 404}, answer
                assert OWN.secret not in str(answer)
                if answer.status == 400:  # the parser's own word, and the end of the connection
                    return

    run(scenario())


def test_a_hot_route_with_a_line_break_is_no_route() -> None:
    """A path that only almost is a hot route's is not served: 404 with a key, 401 without one."""

    async def scenario() -> None:
        async with keyed_house() as it:
            for path in (CHAT, "/v1/messages", "/v1/messages/count_tokens"):
                assert (await it.call("POST", path + "%0A", OWN.headers(), json={})).status == 404
                assert (await it.call("POST", path + "%0A", json={})).status == 401

    run(scenario())


@pytest.mark.parametrize("credential", [None, "sk-garbage", SCRAPER.secret], ids=["none", "garbage", "wrong scope"])
def test_refused_before_the_body_is_read(credential: str | None) -> None:
    """Who may not ask is told so at once: no byte of the body is waited for, and nothing in it is judged."""

    async def scenario() -> None:
        async with keyed_house() as it:
            headers = {} if credential is None else carried(credential, "x-api-key")
            for path in (CHAT, "/v1/streams/str_x/pause"):
                async with it.client() as client:
                    promised = {"content-length": "40000000", "content-type": "text/nonsense"}
                    answer = await asyncio.wait_for(client.stream("POST", path, headers | promised), 10)
                    assert answer.status == (403 if credential == SCRAPER.secret else 401)

    run(scenario())


def test_an_app_with_an_undeclared_route_is_not_built() -> None:
    """A route whose access nobody declared stops the start, by name, and has no principal either."""
    app = FastAPI()

    @app.get("/secrets")
    async def secrets() -> None: ...

    with pytest.raises(TypeError, match="GET /secrets"):
        check_declared(app.routes)
    with pytest.raises(KeyError):
        principal_of({"type": "http"})
    assert Access().scopes == frozenset()


def test_without_keys_nothing_is_asked() -> None:
    """Without configured keys every credential is accepted and ignored, also two that differ and one that is none."""

    async def scenario() -> None:
        async with house() as it:
            for headers in (
                {},
                {"authorization": "Bearer x", "x-api-key": "y"},
                {"authorization": "nonsense"},
                {"api-key": OWN.secret},
            ):
                assert (await it.call("GET", "/v1/streams", headers)).status == 200
                assert (await it.call("GET", "/metrics", headers)).status == 200
                assert (await it.call("POST", CHAT, headers, json=ask(stream=False))).status == 200

    run(scenario())
