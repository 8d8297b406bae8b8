"""A gateway that may open few files, and clients who open more connections than that: it lives, and serves on."""

import select
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from tests.e2e.house import CHAT, ask, run, sid_of
from tests.support.chaos import ChaosProvider, Plan
from tests.support.gateway_process import GatewayProcess
from tests.support.http import Answer, CutBodyError
from tests.support.server import atlas_config
from tests.support.signals import eventually

FILES = 192


def flood(port: int, count: int) -> list[socket.socket]:
    """So many connections on which nothing is asked."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


def refusals(held: list[socket.socket]) -> list[bytes]:
    """What those are told who found no place, and have not read it yet."""
    told: list[bytes] = []
    for one in select.select(held, (), (), 0)[0]:
        with suppress(ConnectionError):
            told.append(one.recv(4096))
    return [each for each in told if b" 503 " in each]


async def let_in(gateway: GatewayProcess, method: str, path: str) -> Answer:
    """The answer to who comes again until there is a place: soon the others have been silent for too long."""
    while True:
        with suppress(CutBodyError, ConnectionError):
            async with gateway.client() as client:
                answer = await client.request(method, path)
                if answer.status != 503:
                    return answer


def open_files(pid: int) -> int:
    """How many a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_more_connections_than_files(tmp_path: Path) -> None:
    """Connections beyond the bound get a 503 and are closed; running streams and readers go on, control is let in."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            up = await stack.enter_async_context(ChaosProvider(Plan(stall_at_event=3)))
            gateway = await stack.enter_async_context(GatewayProcess(atlas_config(up), tmp_path, files=FILES))
            reading, streaming = [await stack.enter_async_context(gateway.client()) for _ in range(2)]
            stream = await streaming.stream("POST", CHAT, json=ask())
            await stream.until_frames(2)
            sid = sid_of(stream)
            events = await reading.stream("GET", f"/v1/streams/{sid}/events")
            held, told = flood(gateway.port, 3 * FILES), list[bytes]()

            def is_told() -> bool:
                told.extend(refusals(held))
                return bool(told)

            try:
                await eventually(is_told, what="a refusal")
                assert b"connection: close" in told[0]
                assert b"too many connections" in told[0]
                assert open_files(gateway.pid) <= FILES - 8
                assert (await let_in(gateway, "GET", "/livez")).status == 200
                assert (await let_in(gateway, "POST", f"/v1/streams/{sid}/cancel")).status == 200
                assert b"stream_cancelled" in await stream.read()
                assert b"event: end" in await events.read()
            finally:
                for one in held:
                    one.close()
            await eventually(lambda: open_files(gateway.pid) < 40)
            async with gateway.client() as client:
                assert (await client.request("POST", CHAT, json=ask("mock-fast", stream=False))).status == 200

    run(scenario())


def test_more_streams_than_files(tmp_path: Path) -> None:
    """Streams are refused before files run out: each one that was begun is served, and nobody is cut off."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            up = await stack.enter_async_context(ChaosProvider(Plan(stall_at_event=3)))
            gateway = await stack.enter_async_context(GatewayProcess(atlas_config(up), tmp_path, files=FILES))

            async def status() -> int:
                client = await stack.enter_async_context(gateway.client())
                found = (await client.stream("POST", CHAT, json=ask())).status
                if found != 200:
                    client.cut()
                return found

            seen = [await status() for _ in range(100)]
            begun = seen.count(200)
            assert seen == [200] * begun + [503] * (100 - begun)
            assert 50 <= begun <= (FILES - 64) / 2
            assert len(up.requests) == begun
            assert open_files(gateway.pid) <= FILES - 8
            probe = await stack.enter_async_context(gateway.client())
            assert (await probe.request("GET", "/readyz")).status == 200

    run(scenario())
