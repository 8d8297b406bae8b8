"""`atlas serve --config FILE` as an operator starts it, driven from a test's event loop; several at once are replicas.

    async with ChaosProvider() as up, GatewayProcess(atlas_config(up), tmp_path) as gateway:
        client = RawClient.to(gateway.base_url)
        ...
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        assert "draining" in gateway.log

The configuration is a dict of the file's shape. Nothing of the test's environment reaches the process.
"""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.support.http import RawClient

_READY_S = 30.0
_POLL_S = 0.01
_ANNOUNCED = re.compile(r"serves (http://\S+):(\d+)$", re.MULTILINE)


class GatewayProcess:
    """One gateway; entered it is ready, left it is gone.

    `folder` takes its files, which `name` begins. `port` 0 takes any free one, anew with every start. `environ` is all
    of its environment beside PATH. `files` bounds how many it may open.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path,
        *,
        name: str = "atlas",
        port: int = 0,
        environ: Mapping[str, str] | None = None,
        files: int | None = None,
    ) -> None:
        self._files = files
        self.config, self.name = dict(config), name
        self._folder, self._port, self._environ = folder, port, {"PATH": "/usr/bin:/bin", **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.base_url = ""

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    async def start(self) -> None:
        """Start it, again after it ended, and wait until it answers.

        Raises:
            AssertionError: it ended instead, or was not ready in time; holds its log.
        """
        self.spawn()
        found = await self._until(lambda: _ANNOUNCED.search(self.output), _READY_S, "ready")
        self.base_url = f"{found[1]}:{found[2]}"

    def spawn(self) -> None:
        """Start it without waiting for anything."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        file = self._folder / f"{self.name}.json"  # JSON is YAML
        file.write_text(json.dumps(self.config))
        command = [str(Path(sys.executable).with_name("atlas")), "serve", "--config", str(file)]
        if self._files is not None:
            command = ["prlimit", f"--nofile={self._files}", *command]
        with self._file("log").open("wb") as errors, self._file("out").open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--port", str(self._port)],
                cwd=self._folder, env=self._environ, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
            )  # fmt: skip

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.base_url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    @property
    def output(self) -> str:
        """What it wrote to standard output since its start."""
        return self._file("out").read_text()

    @property
    def log(self) -> str:
        """What it wrote to standard error since its start."""
        return self._file("log").read_text()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def client(self) -> RawClient:
        """A connection; enter it."""
        return RawClient.to(self.base_url)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    async def logged(self, words: str, timeout: float = 30, *, times: int = 1) -> None:
        """Wait until standard error holds `words`, so many times."""
        await self._until(lambda: self.log.count(words) >= times, timeout, f"log of {words!r}")

    async def ended(self, timeout: float = 20) -> int:
        """Wait until the process has ended, and return its exit code; minus the signal's number if one killed it.

        Raises:
            AssertionError: it lives on; holds its log.
        """
        deadline = time.monotonic() + timeout
        while self.running:
            assert time.monotonic() < deadline, f"{self.name} did not end within {timeout:g} s: {self.log[-4000:]}"
            await asyncio.sleep(_POLL_S)
        assert self._process is not None, "it was not started"
        return self._process.wait()

    async def stop(self, timeout: float = 20) -> int:
        """SIGTERM, and the exit code once it has ended."""
        self.signal(signal.SIGTERM)
        return await self.ended(timeout)

    def kill(self) -> None:
        """SIGKILL, also to one that stands still; no harm if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _until(self, found: Callable[[], Any], timeout: float, what: str) -> Any:
        deadline = time.monotonic() + timeout
        while not (value := found()):
            assert self.running, f"{self.name} ended before {what}: {self.log[-4000:]}"
            assert time.monotonic() < deadline, f"{self.name}: no {what} within {timeout:g} s: {self.log[-4000:]}"
            await asyncio.sleep(_POLL_S)
        return value

    def _file(self, suffix: str) -> Path:
        return self._folder / f"{self.name}.{suffix}"
