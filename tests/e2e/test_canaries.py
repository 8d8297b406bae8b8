"""Secrets are planted everywhere, and everything that can go wrong is made to: not one of them may come out anywhere.

Secrets of the operator (provider keys, headers, proxy, pepper, Redis) and of clients may be seen by nobody; what people
ask and are told may be seen by themselves, and not by whoever reads logs, metrics, traces or command lines.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from examples.ports import free_port
from gateway.cli import main
from gateway.core.keys import digest, new_key, show_digest
from tests.support.collector import Collector
from tests.support.echo_provider import EchoProvider
from tests.support.gateway_process import GatewayProcess
from tests.support.keys import carried
from tests.support.redis_server import RedisServer
from tests.support.run import run

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
PEPPER = "canary-pepper-0123456789"
REDIS_PASSWORD = "canary-redis-0123456789"
PROVIDER_KEY = "sk-canary-provider-0123456789"
HEADER = "canary-header-0123456789"
PROXY_PASSWORD = "canary-proxy-0123456789"
QUERY = "canary-query-0123456789"
CLIENT_HEADER = "canary-client-header-0123456789"
STRANGE_KEY = "sk-canary-stranger-0123456789"
COLLECTOR_KEY = "canary-collector-0123456789"
PROMPT = "canary-prompt-0123456789"
CRASHING = '''
class Crashing:
    """An agent with a bug that quotes what it was asked."""

    def __init__(self, profile):
        self.profile = profile

    async def run(self, request, desk):
        raise KeyError(str(request.messages))
        yield []
'''


@dataclass(slots=True)
class Outlets:
    """Everything that came out, by where; what callers were told apart from what is for operators."""

    gateway: GatewayProcess
    told: dict[str, bytes] = field(default_factory=dict[str, bytes])
    shown: dict[str, bytes] = field(default_factory=dict[str, bytes])
    tokens: list[str] = field(default_factory=list[str])

    def leaks(self, secrets: Mapping[str, str], private: Mapping[str, str]) -> list[str]:
        """Which canary was found where."""
        everything = [(where, said, secrets) for where, said in (*self.told.items(), *self.shown.items())]
        everything += [(where, said, private) for where, said in self.shown.items()]
        return sorted(
            f"{name} in {where}" for where, said, canaries in everything
            for name, canary in canaries.items() if canary.encode() in said
        )  # fmt: skip

    async def ask(self, request: str, headers: Mapping[str, str], body: Any = None, *, shown: bool = False) -> bytes:
        """One request, `METHOD /path`; all that comes back is kept, and is for its caller alone unless `shown`."""
        method, path = request.split(" ", 1)
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        async with self.gateway.client() as client:
            answer = await client.stream(method, path, {"content-type": "application/json", **headers}, raw)
            said = await answer.read_cut()
        kept = self.shown if shown else self.told
        kept[f"{request.partition('?')[0]} #{len(kept)}"] = json.dumps(answer.headers).encode() + said
        return said

    def command(self, capsys: pytest.CaptureFixture[str], environ: Mapping[str, str], *words: str) -> None:
        """What a command prints, on both outputs."""
        with suppress(SystemExit):
            main(list(words), environ)
        printed = capsys.readouterr()
        self.shown[f"atlas {words[0]} #{len(self.shown)}"] = (printed.out + printed.err).encode()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server that wants a password."""
    with RedisServer.started("--requirepass", REDIS_PASSWORD, tcp=True) as server:
        yield server


def test_no_canary_comes_out(tmp_path: Path, redis: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    """No log line, metric, trace, error, status or command shows a planted secret, whatever fails."""
    key = new_key()

    async def scenario() -> None:
        (tmp_path / "crashing.py").write_text(CRASHING)
        environ = {"PATH": "/usr/bin:/bin", "ATLAS_KEY_PEPPER": PEPPER, "PYTHONPATH": str(tmp_path)}
        async with EchoProvider() as up, Collector() as collector:
            config = _config(up, redis, key, collector.url)
            async with GatewayProcess(config, tmp_path, environ=environ) as gateway:
                out = Outlets(gateway)
                await _ask_everything(out, key)
                await _reload(out, tmp_path, partial(out.command, capsys, environ))
                redis.kill()
                for request in (f"POST {CHAT}", "GET /v1/streams", "GET /metrics"):
                    await out.ask(request, carried(key, "x-api-key"), _asking("up/fine"))
                await gateway.stop()
            out.shown["log"], out.shown["stdout"] = gateway.log.encode(), gateway.output.encode()
            out.shown["traces"] = collector.bodies
            assert collector.authorized == {f"Bearer {COLLECTOR_KEY}"}, "this one is for the collector"
            assert {span.attributes.get("error.type") for span in collector.spans} >= {
                "connect",
                "stream_broken",
                "500",
            }
            await asyncio.to_thread(_command_lines, tmp_path, environ, partial(out.command, capsys, environ))
            for words in (["serve", "--port", "0"], ["doctor"]):
                out.shown[words[0]] = await asyncio.to_thread(_process, tmp_path, environ, *words)
        secrets = {
            "pepper": PEPPER, "Redis password": REDIS_PASSWORD, "provider key": PROVIDER_KEY, "header": HEADER,
            "proxy password": PROXY_PASSWORD, "query": QUERY, "client header": CLIENT_HEADER, "client key": key,
            "secret of the key": key[-32:], "a stranger's key": STRANGE_KEY, "collector's key": COLLECTOR_KEY,
        }  # fmt: skip
        leaks = out.leaks(secrets, {"prompt": PROMPT, **{f"token {at}": token for at, token in enumerate(out.tokens)}})
        assert out.tokens
        assert leaks == [], "\n".join(leaks)
        assert "stream failed by a bug" in gateway.log
        assert all(json.loads(line)["level"] for line in gateway.log.splitlines())
        asked = b"".join(up.asked).decode()
        assert [canary for canary in (PROVIDER_KEY, HEADER, PROMPT) if canary not in asked] == []

    run(scenario(), timeout=100)


def _config(up: EchoProvider, redis: RedisServer, key: str, traces: str) -> dict[str, Any]:
    common = {"kind": "openai_chat", "keys": [PROVIDER_KEY], "model": "*", "breaker": {"enabled": False}}
    proxy = f"http://user:{PROXY_PASSWORD}@127.0.0.1:{free_port()}"
    endpoints = [
        {"name": "up", "base_url": up.base_url, "headers": {"x-team-token": HEADER}, **common},
        {"name": "proxied", "base_url": f"{up.base_url}?api-version={QUERY}", "proxy": proxy, **common},
        {"name": "away", "base_url": f"http://127.0.0.1:{free_port()}/v1?key={QUERY}", **common},
        {"name": "unknown", "base_url": f"http://user:{QUERY}@no.such.host.invalid/v1", **common},
    ]
    row = {"id": "owner", "tenant": "a", "hash": show_digest(digest(key.encode(), PEPPER.encode()))}
    return {
        "journal": {"kind": "redis", "url": redis.url.replace("redis://", f"redis://:{REDIS_PASSWORD}@")},
        "endpoints": endpoints,
        "routes": [{"model": f"{each['name']}/*", "endpoints": [each["name"]]} for each in endpoints],
        "keys": [{**row, "scopes": ["infer", "control", "admin", "metrics"]}],
        "telemetry": {"tracing": {"endpoint": traces, "headers": {"authorization": f"Bearer {COLLECTOR_KEY}"}}},
        "agents": [{"name": "crashing", "kind": "crashing.Crashing", "route": "mock-fast"}],
    }


MODELS = [
    "up/fine", "up/status-400", "up/status-401", "up/status-403", "up/status-404", "up/status-429", "up/status-500",
    "up/status-302", "up/in-stream", "up/broken", "up/html", "up/cut", "proxied/x", "away/x", "unknown/x",
    "agent/crashing", "mock-cut-3", "mock-garbage", "no-such-model",
]  # fmt: skip


def _asking(model: str, *, stream: bool = False) -> dict[str, Any]:
    return {"model": model, "stream": stream, "max_tokens": 9, "messages": [{"role": "user", "content": PROMPT}]}


async def _ask_everything(out: Outlets, key: str) -> None:
    """Successes and failures of every kind, over both dialects, streamed and not, good keys and bad ones."""
    mine = carried(key, "authorization") | {"x-secret": CLIENT_HEADER, "cookie": f"session={CLIENT_HEADER}"}
    for model in MODELS:
        await out.ask(f"POST {CHAT}", mine, _asking(model))
        await out.ask(f"POST {CHAT}", mine, _asking(model, stream=True))
        await out.ask(f"POST {MESSAGES}", mine, _asking(model, stream=True))
    strange = carried(STRANGE_KEY, "x-api-key") | {"x-secret": CLIENT_HEADER}
    for headers in (strange, mine | strange, {"authorization": f"Basic {STRANGE_KEY}"}, {"authorization": STRANGE_KEY}):
        await out.ask(f"POST {CHAT}", headers, _asking("up/fine"), shown=True)
    for raw in (f'{{"model": "{PROMPT}', f'{{"{PROMPT}": NaN}}', f'["{PROMPT}"]', f'{{"model": 1, "{PROMPT}": 2}}'):
        await out.ask(f"POST {CHAT}", mine, raw.encode())
    await out.ask(f"GET /v1/streams?api_key={key}", {}, shown=True)
    listed = json.loads(await out.ask("GET /v1/streams?limit=100", mine))
    for stream in listed["data"][::9]:
        route = f"/v1/streams/{stream['id']}"
        issued = json.loads(await out.ask(f"POST {route}/token", mine))
        out.tokens.append(token := issued["token"])
        for path in (route, f"{route}/text", f"{route}/events"):
            await out.ask(f"GET {path}?token={token}", {})
            await out.ask(f"GET {path}?token={token}x", {}, shown=True)
    for path in ("/metrics", "/v1/pool", "/openapi.json", "/v1/models", "/v1/agents"):
        await out.ask(f"GET {path}", mine, shown=True)


async def _reload(out: Outlets, folder: Path, command: Callable[..., None]) -> None:
    """SIGHUP with files that cannot be used, each with its secrets in the wrong place; what commands say of them."""
    file = folder / f"{out.gateway.name}.json"
    whole = file.read_text()
    for at, wrong in enumerate(_wrong_files(out.gateway.config), 1):
        file.write_text(wrong)
        await asyncio.to_thread(command, "check", "--config", str(file))
        out.gateway.signal(signal.SIGHUP)
        await out.gateway.logged("was not reloaded", times=at)
    file.write_text(whole)
    out.gateway.signal(signal.SIGHUP)
    await out.gateway.logged("configuration reloaded")


def _wrong_files(config: dict[str, Any]) -> Iterator[str]:
    endpoint, key = config["endpoints"][0], config["keys"][0]
    for members in (
        {"endpoints": [{**endpoint, "keys": {"secret": PROVIDER_KEY}}]},
        {"endpoints": [{**endpoint, "keys": [PROVIDER_KEY + "\n"]}]},
        {"endpoints": [{**endpoint, "headers": {"x y": HEADER}}]},
        {"endpoints": [{**endpoint, "headers": [HEADER]}]},
        {"endpoints": [{**endpoint, "base_url": f"ftp://user:{QUERY}@host"}]},
        {"endpoints": [{**endpoint, "proxy": f"nonsense://user:{PROXY_PASSWORD}@host:port"}]},
        {"keys": [{**key, "hash": PEPPER}]},
        {"journal": {"kind": "redis", "url": f"http://:{REDIS_PASSWORD}@host"}},
        {"jornal": {"url": f"redis://:{REDIS_PASSWORD}@host"}},
        {"agents": [{"name": "x", "route": "mock", "kind": "canary.Nobody"}]},
    ):
        yield json.dumps({**config, **members})
    yield json.dumps(config)[:-30] + PROVIDER_KEY
    yield f"endpoints: {{{PROVIDER_KEY}: [*{HEADER}"


def _command_lines(folder: Path, environ: dict[str, str], command: Callable[..., None]) -> None:
    """What commands print of the same configuration when nothing is there any more."""
    config = ["--config", str(folder / "atlas.json")]
    for words in (["check"], ["config", "show"], ["keys", "list"]):
        command(*words, *config)
    environ["ATLAS_KEY"] = STRANGE_KEY
    for words in (["streams", "ls"], ["pool"], ["streams", "show", STRANGE_KEY]):
        command(*words)


def _process(folder: Path, environ: dict[str, str], *words: str) -> bytes:
    """What a command prints that finds something wrong; as a process, for what libraries say on their own account."""
    command = [str(Path(sys.executable).with_name("atlas")), *words, "--config", str(folder / "atlas.json")]
    ran = subprocess.run(command, cwd=folder, env=environ, capture_output=True, timeout=60, check=False)
    assert ran.returncode != 0
    return ran.stdout + ran.stderr
