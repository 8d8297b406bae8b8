"""A gateway for an example: a child process on a free port, which is gone when the example ends.

    with gateway() as url:
        httpx.get(url + "/v1/models")

The environment goes to the child, so providers whose key is set (OPENAI_API_KEY, ANTHROPIC_API_KEY, ...) are there too:
`ATLAS_MODEL=openai/gpt-5.2 python examples/01_first_answer.py` asks a real one.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

MODEL = os.environ.get("ATLAS_MODEL", "mock")
"""What the examples ask, unless they are about a choice."""

TIMEOUT = httpx.Timeout(10, read=120)
_READY_S = 30.0
_ANNOUNCED = re.compile(r"serves (http://\S+)$", re.MULTILINE)


@contextmanager
def gateway(config: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The base URL of a gateway with this configuration, ready to answer.

    Raises:
        SystemExit: it did not start; says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, output = Path(folder) / "atlas.json", Path(folder) / "output"
        file.write_text(json.dumps(config or {}), encoding="utf-8")  # JSON is YAML
        command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(file), "--port", "0"]
        root = Path(__file__).parents[1]
        with output.open("wb") as log:
            child = subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield _ready(child, output)
        finally:
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _ready(child: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and child.poll() is None:
        found = _ANNOUNCED.search(output.read_text(encoding="utf-8", errors="replace"))
        if found is not None:
            return found[1]
        time.sleep(0.02)
    raise SystemExit(f"the gateway did not start:\n{output.read_text(encoding='utf-8', errors='replace')}")


def events(response: httpx.Response) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The events of Atlas's own feed, as (id, kind, data)."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if not line and "data" in fields:
            yield fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"])
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def refused(response: httpx.Response) -> str:
    """What a refusal says: every error of Atlas has a code and a message."""
    response.read()
    try:
        error = response.json()["error"]
    except (ValueError, KeyError):
        return f"{response.status_code}: {response.text[:200]}"
    return f"{response.status_code} {error.get('code')}: {error.get('message')}"
