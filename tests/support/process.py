"""`atlas serve` as a user starts it: a process of its own, on a free port, with nothing in its environment."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.ports import free_port

_READY_S = 20
_STOP_S = 10


@contextmanager
def serving(*arguments: str, cwd: Path) -> Iterator[tuple[str, list[str]]]:
    """A running gateway: its base URL, and what it printed to standard output once it was ready."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("atlas")), "serve", "--port", str(port), *arguments]
    log = cwd / "atlas.log"
    with log.open("wb") as errors, (cwd / "atlas.out").open("wb") as output:
        process = subprocess.Popen(command, cwd=cwd, env={"PATH": "/usr/bin:/bin"}, stdout=output, stderr=errors)
    try:
        base_url = f"http://127.0.0.1:{port}"
        _await_ready(base_url, process, log)
        yield base_url, (cwd / "atlas.out").read_text().splitlines()
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(base_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"atlas ended: {log.read_text()}"
        try:
            with urllib.request.urlopen(f"{base_url}/readyz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise AssertionError(f"not ready within {_READY_S} s: {log.read_text()}")
