"""Gateways behind nginx are updated one after the other, and stock clients do not notice."""

import asyncio
from pathlib import Path

from openai import AsyncOpenAI

from examples.ports import free_port
from examples.topology import Service, nginx_conf
from tests.deploy.test_nginx import listens
from tests.deploy.test_topology import require
from tests.support.gateway_process import GatewayProcess
from tests.support.redis_server import shared_redis
from tests.support.run import run

MODELS = ("mock-fast", "mock-fast", "mock-fast-1000", "mock")


async def asking(client: AsyncOpenAI, model: str, over: asyncio.Event) -> int:
    """One client that asks again and again; how many answers it had, each of them whole."""
    answers = 0
    while not over.is_set():
        stream = await client.chat.completions.create(
            model=model, stream=True, messages=[{"role": "user", "content": "Hello"}]
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "stop"
        answers += 1
        await asyncio.sleep(0.02)
    return answers


def test_two_gateways_are_restarted_under_stock_clients(tmp_path: Path) -> None:
    """While both gateways restart in turn over one Redis, no call of an SDK fails, which repeats twice by itself."""
    redis = shared_redis()
    redis.flush()
    config = {"journal": {"kind": "redis", "url": redis.url}, "server": {"drain_s": 10}}
    binary, port, ports = require("nginx"), free_port(), [free_port(), free_port()]
    file = tmp_path / "nginx.conf"
    file.write_text(nginx_conf(tmp_path, port, ports))
    nginx = Service("nginx", [binary, "-c", str(file), "-e", "stderr", "-g", "daemon off;"], tmp_path)

    async def scenario() -> None:
        async with (
            GatewayProcess(config, tmp_path, name="one", port=ports[0]) as one,
            GatewayProcess(config, tmp_path, name="two", port=ports[1]) as two,
            AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any") as client,
        ):
            nginx.start()
            nginx.await_ready(lambda: listens(port))
            over = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                clients = [tasks.create_task(asking(client, model, over)) for model in MODELS]
                for gateway in (one, two):
                    assert await gateway.stop() == 0, gateway.log
                    await gateway.start()
                over.set()
            assert sum(task.result() for task in clients) >= 2 * len(MODELS)

    try:
        run(scenario(), 60, fast=True)
    finally:
        nginx.stop()
