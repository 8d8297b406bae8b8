"""A real Prometheus of the test, with the project's own configuration but for targets and rhythm; and promtool.

Both come with the distribution's package `prometheus`. Without them a test is skipped, visibly; under CI it fails.
"""

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from examples.ports import free_port
from tests.support.http import RawClient

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
SCRAPE, HASTY_SCRAPE = "250ms", "200ms"
_READY_S = 20.0
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def require(program: str) -> str:
    """The path of `prometheus` or `promtool`."""
    path = shutil.which(program)
    if path is None:
        missing = f"{program} is not installed: apt-get install prometheus"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


def promtool(*arguments: str) -> None:
    """Run promtool; fails with what it said."""
    done = subprocess.run([require("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def hastened(rules: str, haste: int) -> str:
    """Alert rules in which every duration is so many times shorter."""

    def shorter(match: re.Match[str]) -> str:
        return f"{match[1]}{int(match[2]) * _UNITS_MS[match[3]] // haste}ms"

    return re.sub(r"(\[|for: |offset )(\d+)([smhd])\b", shorter, rules)


def configuration(folder: Path, *targets: str, haste: int = 1) -> Path:
    """deploy/prometheus/prometheus.yml, scraping these targets a few times a second; the alerts lie beside it."""
    config = yaml.safe_load(CONFIG.read_text())
    beat = SCRAPE if haste == 1 else HASTY_SCRAPE
    config["global"] = {"scrape_interval": beat, "scrape_timeout": beat, "evaluation_interval": beat}
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] == "atlas"]
    config["scrape_configs"][0]["static_configs"] = [{"targets": list(targets)}]
    for name in config["rule_files"]:
        (folder / name).write_text(hastened((CONFIG.parent / name).read_text(), haste))
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    return file


class Prometheus:
    """One process on a free loopback port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    @classmethod
    @contextmanager
    def started(cls, folder: Path, *targets: str, haste: int = 1) -> Iterator["Prometheus"]:
        """Running, with its data in `folder`; it may not answer yet."""
        it = cls(folder, free_port())
        command = [
            require("prometheus"), f"--config.file={configuration(folder, *targets, haste=haste)}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{it.port}",
        ]  # fmt: skip
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield it
        finally:
            process.terminate()
            try:
                process.wait(_READY_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    async def query(self, expr: str) -> list[float]:
        """The values of an instant query now, in no order."""
        async with RawClient("127.0.0.1", self.port) as client:
            answer = await client.request("GET", "/api/v1/query?" + urlencode({"query": expr}))
        assert answer.status == 200, f"{expr}: {answer.body.decode()}"
        found: dict[str, Any] = answer.json["data"]
        assert found["resultType"] == "vector", expr
        return [float(sample["value"][1]) for sample in found["result"]]

    async def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        async with RawClient("127.0.0.1", self.port) as client:
            answer = await client.request("GET", "/api/v1/alerts")
        found = answer.json["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}

    async def until(self, wanted: Callable[[set[str]], bool], within_s: float) -> set[str]:
        """The alerts that fire, once they are as wanted."""
        deadline = time.monotonic() + within_s
        while not wanted(firing := await self.firing()):
            assert time.monotonic() < deadline, f"after {within_s:g} s these fire: {sorted(firing)}"
            await asyncio.sleep(0.1)
        return firing

    async def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            async with RawClient("127.0.0.1", self.port) as client:
                return (await client.request("GET", "/-/ready")).status == 200
        except OSError:
            return False

    async def scrapes(self) -> float:
        """How often every target was scraped with success; the least of them."""
        if not await self.is_ready():
            return 0
        return min(await self.query("sum_over_time(up[5m])"), default=0)

    @property
    def log(self) -> str:
        """What it wrote, for messages."""
        return (self.folder / "prometheus.log").read_text()[-3000:]
