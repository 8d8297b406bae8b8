"""What the server makes of clients that are ambiguous, greedy or slow, byte by byte, on real sockets."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from config.settings import Settings
from gateway.api.serving import Server, server_config
from gateway.api.signals import Signals
from gateway.app import create
from tests.e2e.house import CHAT, ask, house, run
from tests.support.chaos import ChaosProvider, Gate, Plan
from tests.support.fold import fold
from tests.support.http import CutBodyError, RawClient, RawStream
from tests.support.keys import keyed, made
from tests.support.server import atlas_settings

GET = b"GET /livez HTTP/1.1\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\n"
HOST = b"Host: localhost\r\n"
CODINGS = b"Transfer-Encoding: %b\r\n" * 2 + b"\r\n0\r\n\r\n"
CHUNKED = POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n"

AMBIGUOUS = {
    "length twice": POST + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "two lengths": POST + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "list of lengths": POST + HOST + b"Content-Length: 1, 1\r\n\r\nx",
    "length and coding": POST + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
    "signed length": POST + HOST + b"Content-Length: +1\r\n\r\nx",
    "negative length": POST + HOST + b"Content-Length: -1\r\n\r\nx",
    "hexadecimal length": POST + HOST + b"Content-Length: 0x1\r\n\r\nx",
    "length of two words": POST + HOST + b"Content-Length: 1 1\r\n\r\nxx",
    "length beyond all bounds": POST + HOST + b"Content-Length: 99999999999999999999\r\n\r\nx",
    "no length": POST + HOST + b"Content-Length: \r\n\r\n",
    "length behind a vertical tab": POST + HOST + b"Content-Length: \x0b1\r\n\r\nx",
    "unknown coding": POST + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "codings in the wrong order": POST + HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "coding twice": POST + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding identity, then chunked": POST + HOST + CODINGS % (b"identity", b"chunked"),
    "coding gzip, then chunked": POST + HOST + CODINGS % (b"gzip", b"chunked"),
    "coding that looks alike": POST + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding identity": POST + HOST + b"Transfer-Encoding: identity\r\n\r\n",
    "coding in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded line": GET + HOST + b"X: a\r\n b\r\n\r\n",
    "line folded by a tab": GET + HOST + b"X: a\r\n\tb\r\n\r\n",
    "folded first line": b"GET /livez HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: localhost\n\n",
    "one bare line feed": GET + b"Host: localhost\nX: y\r\n\r\n",
    "bare line feed at the end": GET + HOST + b"\n",
    "bare carriage return": GET + b"Host: localhost\rX: y\r\n\r\n",
    "carriage return in a value": GET + HOST + b"X: a\rb\r\n\r\n",
    "null in a value": GET + HOST + b"X: a\0b\r\n\r\n",
    "control character in a value": GET + HOST + b"X: a\x01b\r\n\r\n",
    "space before the colon": GET + b"Host : localhost\r\n\r\n",
    "no colon": GET + HOST + b"X\r\n\r\n",
    "no name": GET + HOST + b": x\r\n\r\n",
    "two hosts": GET + HOST + b"Host: elsewhere\r\n\r\n",
    "host twice": GET + HOST + HOST + b"\r\n",
    "no host": GET + b"\r\n",
    "address of another host": b"GET http://elsewhere/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "address of another scheme": b"GET ftp://localhost/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "address with a user": b"GET http://me@localhost/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "tunnel": b"CONNECT elsewhere:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /livez#x HTTP/1.1\r\n" + HOST + b"\r\n",
    "control character in the path": b"GET /li\x01vez HTTP/1.1\r\n" + HOST + b"\r\n",
    "tab in the first line": b"GET\t/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /livez\r\n" + HOST + b"\r\n",
    "version 0.9": b"GET /livez HTTP/0.9\r\n" + HOST + b"\r\n",
    "version 1.2": b"GET /livez HTTP/1.2\r\n" + HOST + b"\r\n",
    "version 2": b"GET /livez HTTP/2.0\r\n" + HOST + b"\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "small method": b"get /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "chunk ended by a line feed": CHUNKED + b"1\nx\r\n0\r\n\r\n",
    "chunk data ended by a line feed": CHUNKED + b"1\r\nx\n0\r\n\r\n",
    "chunk without an end": CHUNKED + b"1\r\nxy\r\n0\r\n\r\n",
    "chunk of no number": CHUNKED + b"zz\r\n",
    "chunk with a prefix": CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
    "negative chunk": CHUNKED + b"-1\r\nx\r\n0\r\n\r\n",
    "chunk beyond all bounds": CHUNKED + b"fffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "space behind a chunk's size": CHUNKED + b"1 \r\nx\r\n0\r\n\r\n",
    "length in the trailer": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
}

GREEDY = {
    "101 headers": GET + HOST + b"".join(b"x-%d: y\r\n" % n for n in range(100)) + b"\r\n",
    "20,000 headers": GET + HOST + b"a:b\r\n" * 20_000 + b"\r\n",
    "33 KiB in one header": GET + HOST + b"x: " + b"y" * 33 * 1024 + b"\r\n\r\n",
    "5 MB in one header": GET + HOST + b"x: " + b"y" * 5_000_000 + b"\r\n\r\n",
    "5 MB of headers without an end": GET + HOST + b"x: y\r\n" * 800_000,
    "40 KiB of path": b"GET /" + b"x" * 40 * 1024 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
}

USUAL = {
    "as it should be": GET + HOST + b"\r\n",
    "100 headers": GET + HOST + b"".join(b"x-%d: y\r\n" % n for n in range(99)) + b"\r\n",
    "31 KiB of headers": GET + HOST + b"x: " + b"y" * 31 * 1024 + b"\r\n\r\n",
    "address of this host": b"GET http://localhost/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "empty line before": b"\r\n" + GET + HOST + b"\r\n",
    "bytes beyond ASCII in a value": GET + HOST + b"x: \xff\r\n\r\n",
    "an upgrade that is not known": GET + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "chunked by another spelling": GET + HOST + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
}


async def answers(client: RawClient, raw: bytes) -> list[int]:
    """The statuses of all that is answered to these bytes until the connection is closed."""
    seen: list[int] = []
    sending = asyncio.ensure_future(client.send(raw))
    try:
        while True:
            answer: RawStream = await client.head()
            await answer.read()
            seen.append(answer.status)
    except CutBodyError:
        pass
    finally:
        sending.cancel()
        await asyncio.wait([sending])
    return seen


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_ambiguous(case: str) -> None:
    """What two readers may understand differently gets one 400, its connection is closed, and nothing comes of it."""

    async def scenario() -> None:
        async with house() as it:
            async with it.client() as client:
                await client.send(AMBIGUOUS[case] + GET + HOST + b"\r\n")
                answer = await client.head()
                assert (answer.status, answer.headers["connection"]) == (400, "close")
                body = json.loads(await answer.read())
                assert (body["type"], body["error"]["code"]) == ("error", "bad_http")
                assert answer.headers["x-should-retry"] == "false"
                assert answer.headers["x-request-id"].startswith("req_")
                assert await answers(client, b"") == []
            assert it.up.requests == []

    run(scenario())


@pytest.mark.parametrize("case", GREEDY)
def test_greedy(case: str) -> None:
    """A head beyond 32 KiB or 100 headers gets a 431, or a reset if it goes on and on; its connection is closed."""

    async def scenario() -> None:
        async with house() as it, it.client() as client:
            assert await answers(client, GREEDY[case]) in ([431], [])

    run(scenario())


@pytest.mark.parametrize("case", USUAL)
def test_usual(case: str) -> None:
    """What is unusual and clear is answered, and the connection goes on."""

    async def scenario() -> None:
        async with house() as it, it.client() as client:
            for _ in range(2):
                await client.send(USUAL[case])
                answer = await client.head()
                assert (answer.status, json.loads(await answer.read())) == (200, {"status": "ok"})

    run(scenario())


TRAILERS = {
    "host": b"Host: elsewhere",
    "key": b"X-Api-Key: another",
    "header of ours": b"Idempotency-Key: \x80",
    "length": b"X-Length: 5",
}


def chunked(body: bytes, trailer: bytes = b"") -> bytes:
    """A request for an answer, in one chunk."""
    return CHUNKED + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailer)


@pytest.mark.parametrize("case", TRAILERS)
def test_trailer(case: str) -> None:
    """What stands behind a body is no header: it neither moves the request to another host nor shows another key."""

    async def scenario() -> None:
        async with house() as it, it.client() as client:
            await client.send(chunked(json.dumps(ask(stream=False)).encode(), TRAILERS[case] + b"\r\n"))
            assert (await client.head()).status == 200

    run(scenario())


HIDDEN_FLOODS = {
    "a huge trailer": chunked(b"{}")[:-2] + b"x: " + b"y" * 300_000,
    "many trailers": chunked(b"{}")[:-2] + b"x: y\r\n" * 50_000,
    "a huge extension of a chunk": CHUNKED + b"1;" + b"x" * 300_000,
}


@pytest.mark.parametrize("case", HIDDEN_FLOODS)
def test_hidden_flood(case: str) -> None:
    """What a body does not count, extensions of chunks and trailers, is bounded like a head."""

    async def scenario() -> None:
        async with house() as it, it.client() as client:
            assert await answers(client, HIDDEN_FLOODS[case]) in ([431], [])
            assert it.up.requests == []

    run(scenario())


UPGRADES = {
    "as Java asks": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
    "shouted": b"Connection: UPGRADE\r\nUPGRADE: websocket\r\n",
    "without a space": b"connection:upgrade\r\nupgrade:h2c\r\n",
    "twice": b"Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
}
CUTS = {
    "whole": lambda raw: [raw],
    "in two": lambda raw: [raw[: raw.lower().index(b"pgrade:")], raw[raw.lower().index(b"pgrade:") :]],
    "head and body": lambda raw: [raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", raw.partition(b"\r\n\r\n")[2]],
    "byte by byte": lambda raw: [raw[at : at + 1] for at in range(len(raw))],
    "behind another request": lambda raw: [GET + HOST + b"\r\n" + raw],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("wish", UPGRADES)
def test_upgrade_is_ignored(wish: str, cut: str) -> None:
    """A client that would rather speak another protocol, as Java's does, is served its request with its whole body.

    However it arrives: a body that was taken for the other protocol would be the next request, smuggled.
    """

    async def scenario() -> None:
        async with house() as it, it.client() as client:
            body = json.dumps(ask(stream=False)).encode()
            head = POST + HOST + UPGRADES[wish] + b"Content-Length: %d\r\n\r\n" % len(body)
            for _ in range(2):
                for part in CUTS[cut](head + body + GET + HOST + b"\r\n"):
                    await client.send(part)
                    await asyncio.sleep(0)
                for _ in range(3 if cut == "behind another request" else 2):
                    answer = await client.head()
                    await answer.read()
                    assert answer.status == 200

    run(scenario())


def test_upgrade_of_a_connection_that_ends() -> None:
    """The same where the request is its connection's last."""

    async def scenario() -> None:
        async with house() as it:
            for version, connection in ((b"1.1", b"close, Upgrade"), (b"1.0", b"Upgrade")):
                async with it.client() as client:
                    head = GET.replace(b"1.1", version) + HOST + b"Connection: " + connection
                    assert await answers(client, head + b"\r\nUpgrade: h2c\r\n\r\n") == [200]

    run(scenario())


def test_upgrade_behind_a_body_that_nobody_wanted() -> None:
    """The same on a connection whose last request was refused before its body had come."""

    async def scenario() -> None:
        key = made("a")
        async with house(**keyed(key)) as it, it.client() as client:
            refused = POST + HOST + b"Content-Length: 4\r\n\r\n"
            await client.send(refused)
            answer = await client.head()
            await answer.read()
            assert answer.status == 401
            await client.send(b"late")
            await asyncio.sleep(0.05)  # another read
            body = json.dumps(ask(stream=False)).encode()
            head = POST + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nAuthorization: Bearer " + key.secret.encode()
            await client.send(head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = await client.head()
            await answer.read()
            assert answer.status == 200

    run(scenario())


def test_expectation_of_an_old_version() -> None:
    """HTTP/1.0 knows no answers before the answer: a 100 would be taken for it (RFC 9110, 10.1.1)."""

    async def scenario() -> None:
        async with house() as it, it.client() as client:
            body = json.dumps(ask(stream=False)).encode()
            head = POST.replace(b"1.1", b"1.0") + HOST + b"Expect: 100-continue\r\n"
            await client.send(head + b"Content-Length: %d\r\n\r\n" % len(body))
            await asyncio.sleep(0.05)
            assert await answers(client, body) == [200]

    run(scenario())


def test_old_version() -> None:
    """HTTP/1.0 is served, also without a Host header where hosts are not checked."""

    async def scenario() -> None:
        async with house(server={"allowed_hosts": ["*"]}) as it, it.client() as client:
            assert await answers(client, b"GET /livez HTTP/1.0\r\n\r\n") == [200]

    run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_old_version_knows_no_chunks(stream: bool) -> None:
    """An answer of unknown length to HTTP/1.0 is bare and ends with the connection (RFC 9112, 6.1)."""

    async def scenario() -> None:
        async with house() as it, it.client() as client:
            body = json.dumps(ask(stream=stream)).encode()
            head = POST.replace(b"1.1", b"1.0") + HOST + b"Content-Length: %d\r\n\r\n" % len(body)
            await client.send(head + body)
            answer = await client.head()
            assert "transfer-encoding" not in answer.headers
            assert answer.headers["connection"] == "close"
            data = await answer.read()
            assert data.startswith(b"data: {" if stream else b"{")
            assert data.endswith(b"data: [DONE]\n\n" if stream else b"}")

    run(scenario())


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param(b"\x00rubbish\r\n\r\n", id="no request"),
        pytest.param(CHUNKED + b"zz\r\n", id="body"),
    ],
)
def test_rubbish_behind_a_request(rubbish: bytes) -> None:
    """What is refused while an earlier request is answered never gets into that answer: it is cut by a reset."""

    async def scenario() -> None:
        async with house(Plan(gate=Gate(2))) as it, it.client() as client:
            answer = await client.stream("POST", CHAT, json=ask())
            await answer.until_frames(2)
            await client.send(rubbish)
            assert b"400" not in await answer.read_cut()
            assert answer.ended in {"eof", "reset"}

    run(scenario())


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[str]:
    """The server of `atlas serve`, in the test's loop, with a beat a hundred times as quick; its URL."""
    app = create(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = Server(server_config(app), app.drain, Signals())
        task = asyncio.ensure_future(server.serve([listener]))
        try:
            yield url
        finally:
            server.handle_exit(signal.SIGINT, None)
            await task
            server.calm()


def test_slow_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without a request, with half a head, and idle ones are gone after ten beats; a stream lives on."""
    monkeypatch.setattr("gateway.api.serving.BEAT_S", 0.01)

    async def scenario() -> None:
        gate = Gate(2)
        async with ChaosProvider(Plan(gate=gate)) as up, served(atlas_settings(up)) as url, AsyncExitStack() as clients:
            live, *slow = [RawClient.to(url) for _ in range(301)]
            await clients.enter_async_context(live)
            stream = await live.stream("POST", CHAT, json=ask())
            for at, client in enumerate(slow):
                await clients.enter_async_context(client)
                await client.send([b"", GET, GET + HOST + b"\r\n"][at % 3])
            assert await asyncio.gather(*(answers(client, b"") for client in slow)) == [[], [408], [200]] * 100
            gate.open()
            assert fold(await stream.read()).done

    run(scenario())


@pytest.mark.parametrize("again", [b"", b" "])
def test_slow_body(monkeypatch: pytest.MonkeyPatch, again: bytes) -> None:
    """A body that stands still or trickles is not waited for, whatever the route does about it: 408 after ten beats."""
    monkeypatch.setattr("gateway.api.serving.BEAT_S", 0.01)

    async def scenario() -> None:
        async with served(atlas_settings()) as url, RawClient.to(url) as client:
            await client.send(POST + HOST + b"Content-Length: 100000\r\n\r\n{")
            trickling = asyncio.ensure_future(_trickle(client, again))
            answer = await client.head()
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert json.loads(await answer.read())["error"]["code"] == "request_timeout"
            trickling.cancel()

    run(scenario())


async def _trickle(client: RawClient, data: bytes) -> None:
    while data:
        await client.send(data)
        await asyncio.sleep(0.005)


def test_body_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that comes in pieces for longer than ten beats, at a rate that a bad line has, is read to its end."""
    monkeypatch.setattr("gateway.api.serving.BEAT_S", 0.01)

    async def scenario() -> None:
        body = json.dumps(ask("mock-fast", stream=False)).encode().ljust(60_000)
        async with served(atlas_settings()) as url, RawClient.to(url) as client:
            await client.send(POST + HOST + b"Content-Length: 60000\r\n\r\n")
            for at in range(0, len(body), 2000):
                await client.send(body[at : at + 2000])
                await asyncio.sleep(0.008)
            assert (await client.head()).status == 200

    run(scenario())


def test_client_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks and asks, and takes no answer, is parted from."""
    monkeypatch.setattr("gateway.api.serving.BEAT_S", 0.01)

    async def scenario() -> None:
        async with served(atlas_settings()) as url, RawClient.to(url, receive_buffer=4096) as client:
            await client.send((b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 500)
            await asyncio.sleep(3)  # it takes nothing, for more than sixty beats even of a busy machine
            assert len(await answers(client, b"")) < 400

    run(scenario())


def test_many_requests_at_once() -> None:
    """Requests that are sent without waiting for answers are answered in order, however many a read holds."""

    async def scenario() -> None:
        async with house() as it, it.client() as client:
            assert await answers(client, (GET + HOST + b"\r\n") * 3000 + b"GET / HTTP/1.0\r\n\r\n") == [200] * 3000 + [
                400
            ]

    run(scenario())
