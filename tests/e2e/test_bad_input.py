"""Requests that are wrong: each is refused in OpenAI's shape, names what is at fault, and leaves nothing behind."""

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.house import CHAT, MESSAGES, MODEL, House, ask, house, run
from tests.support.baseline import open_sockets
from tests.support.chaos import Plan
from tests.support.http import Answer
from tests.support.signals import eventually

JSON = {"content-type": "application/json"}
TYPES = {"invalid_request_error", "server_error", "rate_limit_error"}


def check(answer: Answer, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The answer is an error of this status in OpenAI's shape, with all that its readers rely on; returns it."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-should-retry"] == ("true" if status in {408, 429, 503} else "false")
    error = answer.json["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["type"] in TYPES
    assert error["message"]
    assert code is None or error["code"] == code, error
    assert param is None or error["param"] == param, error
    return dict(error)


def body(**members: Any) -> bytes:
    """A good body with some members that are not."""
    return json.dumps({"model": MODEL, "messages": MESSAGES, **members}).encode()


GOOD = body()
DEEP = b'{"model":"m","messages":' + b"[" * 40 + b"]" * 40 + b"}"
BAD_JSON: dict[str, bytes] = {
    "nothing": b"",
    "a word": b"hello",
    "half": GOOD[:-1],
    "more": GOOD + b"}",
    "two": GOOD + GOOD,
    "an array": b"[]",
    "null": b"null",
    "a number": b"7",
    "single quotes": b"{'model': 'm'}",
    "a trailing comma": GOOD[:-1] + b",}",
    "a comment": b"/* hi */" + GOOD,
    "NaN": GOOD[:-1] + b',"temperature":NaN}',
    "Infinity": GOOD[:-1] + b',"temperature":Infinity}',
    "a number without bounds": GOOD[:-1] + b',"temperature":1e999}',
    "an endless integer": GOOD[:-1] + b',"seed":' + b"9" * 6000 + b"}",
    "twice the model": GOOD[:-1] + b',"model":"other"}',
    "twice, deep inside": GOOD[:-1] + b',"metadata":{"a":[{"b":1,"b":2}]}}',
    "twice, by an escape": GOOD[:-1] + b',"mod\\u0065l":"other"}',
    "twice, with an endless integer": GOOD[:-1] + b',"a":1,"a":' + b"9" * 6000 + b"}",
    "forty levels": DEEP,
    "a hundred thousand levels": b'{"a":' * 100_000,
    "not utf-8": b'{"model":"\xff\xfe"}',
    "utf-16": GOOD.decode().encode("utf-16"),
    "half a surrogate": GOOD[:-1] + b',"user":"\\ud800"}',
    "a control character": GOOD[:-1] + b',"user":"\x00"}',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bodies_that_are_no_json_object(name: str) -> None:
    """A body that is not one JSON object with one meaning is a 400 that says so, and reaches no provider."""

    async def scenario() -> None:
        async with house() as it:
            check(await it.call("POST", CHAT, JSON, BAD_JSON[name]), 400, "invalid_json")
            assert not it.up.requests

    run(scenario())


def test_nesting_as_deep_as_real_schemas_is_fine() -> None:
    """Bodies nested as deep as JSON schemas of tools are go through."""

    async def scenario() -> None:
        schema: dict[str, Any] = {"type": "object"}
        for _ in range(10):
            schema = {"type": "object", "properties": {"a": schema}}
        async with house() as it:
            tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
            assert (await it.ask(tools=tools)).status == 200
            assert it.up.last.json["tools"] == tools

    run(scenario())


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m" * 300}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "hi"}]}, "messages[0].role"),
        ({"messages": [*MESSAGES, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": 1}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"n": 0}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": []}, "top_p"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", 5]}, "stop"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools[0].function"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    ],
)
def test_members_of_the_wrong_type(members: dict[str, Any], param: str) -> None:
    """A member of the wrong type or range is a 400 that names it, as a path."""

    async def scenario() -> None:
        async with house() as it:
            error = check(await it.call("POST", CHAT, JSON, body(**members)), 400, "invalid_value")
            assert error["param"] == param, error
            assert not it.up.requests

    run(scenario())


@pytest.mark.parametrize(
    ("headers", "status", "code", "param"),
    [
        ({"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type", None),
        ({"content-type": "text/plain"}, 415, "unsupported_media_type", None),
        ({"content-type": ""}, 415, "unsupported_media_type", None),
        ({**JSON, "content-encoding": "gzip"}, 415, "unsupported_media_type", None),
        ({**JSON, "host": "evil.example"}, 400, "invalid_host", "Host"),
        ({**JSON, "host": ""}, 400, "invalid_host", "Host"),
        ({**JSON, "host": "localhost.evil.example:80"}, 400, "invalid_host", "Host"),
        ({**JSON, "host": "localhost:80@evil.example"}, 400, "invalid_host", "Host"),
        ({**JSON, "host": "localhost:\xb2"}, 400, "invalid_host", "Host"),
        ({**JSON, "host": "[::1]evil.example"}, 400, "invalid_host", "Host"),
        ({**JSON, "host": "[::1"}, 400, "invalid_host", "Host"),
        ({**JSON, "host": "localhost."}, 400, "invalid_host", "Host"),
        ({**JSON, "idempotency-key": ""}, 400, "invalid_header", "Idempotency-Key"),
        ({**JSON, "idempotency-key": "k" * 256}, 400, "invalid_header", "Idempotency-Key"),
        ({**JSON, "idempotency-key": "a b"}, 400, "invalid_header", "Idempotency-Key"),
        ({**JSON, "idempotency-key": "\xfc"}, 400, "invalid_header", "Idempotency-Key"),
        ({**JSON, "x-atlas-on-disconnect": "stay"}, 400, "invalid_header", "x-atlas-on-disconnect"),
        ({**JSON, "x-atlas-on-disconnect": "grace"}, 400, "invalid_header", "x-atlas-on-disconnect"),
        ({**JSON, "x-atlas-on-disconnect": "grace=-1"}, 400, "invalid_header", "x-atlas-on-disconnect"),
        ({**JSON, "x-atlas-on-disconnect": "grace=99999"}, 400, "invalid_header", "x-atlas-on-disconnect"),
        ({**JSON, "x-atlas-on-cancel": "shrug"}, 400, "invalid_header", "x-atlas-on-cancel"),
        ({**JSON, "x-atlas-fallback": "on"}, 400, "invalid_header", "x-atlas-fallback"),
    ],
)
def test_headers_that_are_wrong(headers: dict[str, str], status: int, code: str, param: str | None) -> None:
    """A header that cannot be obeyed is refused with its name; nothing is guessed."""

    async def scenario() -> None:
        async with house() as it:
            check(await it.call("POST", CHAT, headers, GOOD), status, code, param)
            assert not it.up.requests

    run(scenario())


def test_hosts_that_are_served() -> None:
    """Loopback names with any port are served; with `*` all names are."""

    async def scenario() -> None:
        async with house() as it:
            for host in ("localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]", "[::1]:8080"):
                assert (await it.call("GET", "/livez", {"host": host})).status == 200, host
            for host in ("[::2]:1", "example.org", "127.0.0.1.example.org"):
                check(await it.call("GET", "/livez", {"host": host}), 400, "invalid_host", "Host")
        async with house(server={"allowed_hosts": ["*"]}) as it:
            assert (await it.call("GET", "/livez", {"host": "example.org"})).status == 200

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("PUT", CHAT, 405),
        ("DELETE", CHAT, 405),
        ("OPTIONS", CHAT, 405),
        ("POST", "/v1/models", 405),
        ("POST", "/v1/streams", 405),
        ("PUT", "/v1/streams/str_x", 405),
        ("GET", "/v1/streams/str_x/pause", 405),
        ("POST", "/metrics", 405),
        ("GET", "/v1", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/streams/a/b/c", 404),
        ("GET", "/.env", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/v1/models/gpt-none", 404),
    ],
)
def test_wrong_methods_and_routes(method: str, path: str, status: int) -> None:
    """A wrong method is a 405 that says what is allowed, an unknown path a 404, both in OpenAI's shape."""

    async def scenario() -> None:
        async with house() as it:
            answer = await it.call(method, path)
            check(answer, status)
            assert (answer.headers.get("allow") is not None) == (status == 405)

    run(scenario())


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/v1/streams/str_x", "DELETE, GET"), ("/v1/streams", "GET"), ("/livez", "GET, HEAD"), (CHAT, "POST")],
)
def test_all_methods_of_a_path_are_named(path: str, methods: str) -> None:
    """A 405 names every method that the path has."""

    async def scenario() -> None:
        async with house() as it:
            answer = await it.call("PATCH", path)
            assert (answer.status, answer.headers["allow"]) == (405, methods)
            assert f"allowed: {methods}" in answer.json["error"]["message"]

    run(scenario())


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_probes_may_ask_for_the_head_alone(path: str) -> None:
    """Monitors that send HEAD learn what GET would say."""

    async def scenario() -> None:
        async with house() as it:
            answer = await it.call("HEAD", path)
            assert (answer.status, answer.body) == (200, b"")

    run(scenario())


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/responses", "; use /v1/chat/completions"),
        ("/v1/complete", "; use /v1/messages"),
        ("/chat/completions", "; did you mean /v1/chat/completions?"),
        ("/v1/v1/messages", "; did you mean /v1/messages?"),
        ("/v1/chat/completions/", "; did you mean /v1/chat/completions?"),
        ("/v1/embeddings", ""),
    ],
)
def test_what_to_ask_instead(path: str, hint: str) -> None:
    """Who asks another API of the vendor, or has set the base URL wrong, is told what is served, in its own shape."""

    async def scenario() -> None:
        async with house() as it:
            message = f"POST {path} is not served here{hint}"
            assert check(await it.call("POST", path, json={}), 404, "not_found")["message"] == message
            if "messages" in path:
                answer = await it.call("POST", path, {"anthropic-version": "2023-06-01"}, json={})
                assert answer.json["type"] == "error"
                assert answer.json["error"] == {"type": "not_found_error", "message": message, "code": "not_found"}

    run(scenario())


def test_unknown_models_list_what_exists() -> None:
    """A model that does not exist is a 404 that says which ones do."""

    async def scenario() -> None:
        async with house() as it:
            for model in ("gpt-none", "chaos", "chaos/", "mock-", "Mock"):
                error = check(await it.ask(model=model), 404, "model_not_found", "model")
                assert "chaos/*" in error["message"]
                assert "mock-fast" in error["message"]
            assert not it.up.requests

    run(scenario())


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("http://localhost:3000", 403),
        ("null", 403),  # a page in a frame without rights
        ("https://mine.example", 200),
        ("vscode-file://vscode-app", 200),
        (None, 200),
    ],
)
def test_pages_cannot_act_on_a_machine_without_keys(origin: str | None, status: int) -> None:
    """What a browser sends unasked for any page that is looked at changes nothing where no keys are asked for."""

    async def scenario() -> None:
        async with house(server={"cors_origins": ["https://mine.example"]}) as it:
            path, headers = "/v1/pool/mock/enable", {} if origin is None else {"origin": origin}
            answer = await it.call("POST", path, headers)
            assert answer.status == status
            assert (await it.call("GET", "/v1/pool", headers)).status == 200
            assert (await it.call("POST", path, {"origin": "http://localhost", "host": "localhost"})).status == 200
            if status == 403:
                check(answer, 403, "invalid_origin", "Origin")

    run(scenario())


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_too_large(chunked: bool) -> None:
    """A body over the bound is a 413, by its announced length at once, in chunks as soon as it is over."""

    async def scenario() -> None:
        async with house(server={"max_body": 4096}) as it, it.client() as client:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            if chunked:
                await client.send(f"{head}transfer-encoding: chunked\r\n\r\n1400\r\n".encode() + b"x" * 0x1400)
            else:
                await client.send(f"{head}content-length: 4097\r\n\r\n".encode())
            stream = await client.head()
            check(Answer(stream.status, stream.headers, await stream.read()), 413, "request_too_large")
            exact = body(pad="").replace(b'"pad": ""', b'"pad": "' + b"x" * (4096 - len(body(pad=""))) + b'"')
            assert len(exact) == 4096
            assert (await it.call("POST", CHAT, JSON, exact)).status == 200
            big = await it.call("POST", "/v1/streams/str_x/pause", JSON, b" " * 5000)
            check(big, 413, "request_too_large")

    run(scenario())


@pytest.mark.parametrize("sent", [b"", b'{"model"'])
def test_bodies_that_never_come(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that announces a body and does not send it is answered 408 in the end; it holds nothing for ever."""
    monkeypatch.setattr("gateway.api.exchange.BODY_DEADLINE_S", 0.05)

    async def scenario() -> None:
        async with house() as it, it.client() as client:
            head = (
                f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n"
            )
            await client.send(head.encode() + b"\r\n" + sent)
            stream = await client.head()
            check(Answer(stream.status, stream.headers, await stream.read()), 408, "request_timeout")

    run(scenario())


def test_clients_that_leave_in_the_middle_of_their_body() -> None:
    """A client that hangs up while it sends its request leaves nothing behind."""

    async def scenario() -> None:
        async with house() as it:
            for path in (CHAT, "/v1/streams/str_x/cancel"):
                async with it.client() as client:
                    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                    await client.send(f'{head}content-length: 99\r\n\r\n{{"model"'.encode())
                    await eventually(lambda: it.atlas.connections == 1)
            await eventually(lambda: it.atlas.connections == 0)
            assert (await it.call("GET", "/livez")).status == 200

    run(scenario())


def test_what_is_no_http() -> None:
    """Bytes that are no HTTP are answered 400 and closed; the next client is served."""

    async def scenario() -> None:
        async with house() as it:
            for raw in (b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
                async with it.client() as client:
                    await client.send(raw)
                    assert (await client.head()).status == 400
            assert (await it.call("GET", "/livez")).status == 200

    run(scenario())


def test_a_bug_is_a_500_in_the_same_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in any route is a 500 in OpenAI's shape, is logged once, and the process goes on serving."""

    async def scenario() -> None:
        async with house() as it:

            def broken(*_: object, **__: object) -> None:
                raise ZeroDivisionError

            with monkeypatch.context() as patched:
                patched.setattr(it.app.services.routes, "names", broken)
                patched.setattr(it.app.services.pipeline, "open", broken)
                for answer in (await it.call("GET", "/v1/models"), await it.ask(), await it.ask(stream=True)):
                    assert answer.status == 500
                    assert (answer.json["error"]["code"], answer.json["error"]["type"]) == (
                        "internal_error",
                        "server_error",
                    )
                    assert answer.headers["x-request-id"].startswith("req_")
                    assert "x-should-retry" in answer.headers
                    assert "ZeroDivision" not in answer.body.decode()
            assert (await it.call("GET", "/v1/models")).status == 200

    run(scenario())


def test_a_hundred_bad_requests_leave_nothing() -> None:
    """After a hundred bad requests of every kind the process has the sockets, tasks and streams that it had before."""

    async def scenario() -> None:
        async with house(Plan(), server={"max_body": 100_000}) as it:
            assert (await it.ask()).status == 200
            before, tasks = len(open_sockets()), len(asyncio.all_tasks())
            await asyncio.gather(*(_bad(it, n) for n in range(100)))
            await eventually(lambda: it.atlas.connections == 0)
            await eventually(lambda: len(open_sockets()) <= before and len(asyncio.all_tasks()) <= tasks)
            assert it.channels == 0
            assert (await it.ask()).status == 200

    run(scenario())


async def _bad(it: House, n: int) -> None:
    bodies = list(BAD_JSON.values())
    match n % 5:
        case 0:
            assert (await it.call("POST", CHAT, JSON, bodies[n % len(bodies)])).status in {400, 413}
        case 1:
            assert (await it.call("PATCH", CHAT)).status == 405
        case 2:
            assert (await it.call("GET", f"/nowhere/{n}")).status == 404
        case 3:
            assert (await it.call("POST", CHAT, JSON, json.dumps(ask(model=f"none-{n}")).encode())).status == 404
        case _:
            async with it.client() as client:
                await client.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n12".encode())
                client.reset()
