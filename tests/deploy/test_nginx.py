"""What deploy/nginx/nginx.conf does with streams: a real nginx in front of two providers that play the gateways."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from examples.ports import free_port
from examples.topology import MissingProgramError, Service, nginx_conf, program
from tests.support.chaos import ChaosProvider, Gate, Plan
from tests.support.http import RawClient
from tests.support.run import run

CHAT = "/v1/chat/completions"
BODY = {"model": "any", "stream": True, "messages": []}


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@asynccontextmanager
async def proxied(folder: Path, plan: Plan) -> AsyncIterator[tuple[str, list[ChaosProvider]]]:
    """The URL of nginx, and the two behind it."""
    try:
        binary = program("nginx")
    except MissingProgramError as error:
        pytest.skip(str(error))
    ups = [ChaosProvider(plan), ChaosProvider(plan)]
    for up in ups:
        await up.__aenter__()
    port, file = free_port(), folder / "nginx.conf"
    file.write_text(nginx_conf(folder, port, [up.port for up in ups]))
    nginx = Service("nginx", [binary, "-c", str(file), "-e", "stderr", "-g", "daemon off;"], folder)
    try:
        nginx.start()
        nginx.await_ready(lambda: listens(port))
        yield f"http://127.0.0.1:{port}", ups
    finally:
        nginx.stop()
        for up in ups:
            await up.__aexit__(None, None, None)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_nothing_is_held_back(tmp_path: Path, framing: Any) -> None:
    """An event that the gateway sends is with the client before the next one exists, however the body is framed."""

    async def scenario() -> None:
        gate = Gate()
        async with (
            proxied(tmp_path, Plan(tokens=4, gate=gate, framing=framing)) as (url, ups),
            RawClient.to(url) as client,
        ):
            gate.allow(2)
            answer = await client.stream("POST", CHAT, json=BODY)
            assert len(await answer.until_frames(2)) == 2
            await gate.release()
            assert len(await answer.until_frames(3)) == 3
            gate.open()
            assert (await answer.read()).endswith(b"data: [DONE]\n\n")
            assert sum(len(up.requests) for up in ups) == 1

    run(scenario())


def test_hanging_up_reaches_the_gateway(tmp_path: Path) -> None:
    """A client that hangs up is hung up on at the gateway at once, which stops the generation."""

    async def scenario() -> None:
        async with proxied(tmp_path, Plan(gate=Gate(2))) as (url, ups):
            async with RawClient.to(url) as client:
                await (await client.stream("POST", CHAT, json=BODY)).until_frames(1)
                (asked,) = [up.last for up in ups if up.requests]
            await asked.gone()
            assert asked.outcome == "left"

    run(scenario())


@pytest.mark.parametrize("at", [0, 20], ids=["before the head", "within the head"])
def test_a_post_is_never_sent_twice(tmp_path: Path, at: int) -> None:
    """When a gateway dies with a request that it was sent, the client hears of it, and no second stream begins."""

    async def scenario() -> None:
        plan = Plan(reset_at_byte=at, count="wire")
        async with proxied(tmp_path, plan) as (url, ups), RawClient.to(url) as client:
            assert (await client.request("POST", CHAT, json=BODY)).status == 502
            assert sum(len(up.requests) for up in ups) == 1

    run(scenario())


def test_a_gateway_that_is_down_is_passed_over(tmp_path: Path) -> None:
    """While one gateway refuses connections the other one answers, POSTs too, and a cut answer is not completed."""

    async def scenario() -> None:
        async with proxied(tmp_path, Plan()) as (url, ups):
            ups[0].refuse()
            async with RawClient.to(url) as client:
                for _ in range(6):
                    assert (await client.request("POST", CHAT, json=BODY)).status == 200
            assert len(ups[1].requests) == 6
            ups[1].default = Plan(reset_at_byte=300)
            async with RawClient.to(url) as client:
                answer = await client.stream("POST", CHAT, json=BODY)
                await answer.read_cut()
                assert answer.ended in {"eof", "reset"}

    run(scenario())


def test_metrics_are_not_those_of_one_gateway_at_random(tmp_path: Path) -> None:
    """The proxy serves no metrics, and says where they are, in the shape of every other error."""

    async def scenario() -> None:
        async with proxied(tmp_path, Plan()) as (url, _), RawClient.to(url) as client:
            answer = await client.request("GET", "/metrics")
            assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
            assert answer.json["error"]["code"] == "not_found"

    run(scenario())
