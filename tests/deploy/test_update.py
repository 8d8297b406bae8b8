"""Gateways behind nginx are updated one after the other, and stock clients do not notice."""

import asyncio
from pathlib import Path

from openai import AsyncOpenAI

from examples.topology import Service, free_port, nginx_conf
from tests.deploy.test_nginx import listens
from tests.deploy.test_topology import require
from tests.support.gateway_process import GatewayProcess
from tests.support.run import run

CONFIG = {"journal": {"kind": "memory"}, "server": {"drain_s": 10}}
CLIENTS = 4


async def asking(client: AsyncOpenAI, over: asyncio.Event) -> int:
    """One client that asks again and again; how many answers it had, each of them whole."""
    answers = 0
    while not over.is_set():
        stream = await client.chat.completions.create(
            model="mock-fast", stream=True, messages=[{"role": "user", "content": "Hello"}]
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "stop"
        answers += 1
        await asyncio.sleep(0.02)
    return answers


def test_two_gateways_are_restarted_under_stock_clients(tmp_path: Path) -> None:
    """While both gateways restart in turn, no call of an SDK fails that heeds Retry-After and repeats four times."""
    binary, port, ports = require("nginx"), free_port(), [free_port(), free_port()]
    file = tmp_path / "nginx.conf"
    file.write_text(nginx_conf(tmp_path, port, ports))
    nginx = Service("nginx", [binary, "-c", str(file), "-e", "stderr", "-g", "daemon off;"], tmp_path)

    async def scenario() -> None:
        async with (
            GatewayProcess(CONFIG, tmp_path, name="one", port=ports[0]) as one,
            GatewayProcess(CONFIG, tmp_path, name="two", port=ports[1]) as two,
            AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=4) as client,
        ):
            nginx.start()
            nginx.await_ready(lambda: listens(port))
            over = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                clients = [tasks.create_task(asking(client, over)) for _ in range(CLIENTS)]
                for gateway in (one, two):
                    assert await gateway.stop() == 0, gateway.log
                    await gateway.start()
                over.set()
            assert sum(task.result() for task in clients) >= 2 * CLIENTS

    try:
        run(scenario(), 60, fast=True)
    finally:
        nginx.stop()
