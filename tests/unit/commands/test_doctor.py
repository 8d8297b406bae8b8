"""The doctor: each finding provoked for real, and a healthy gateway given a clean bill."""

import asyncio
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from examples.ports import free_port
from gateway.cli import main
from gateway.commands.reachability import skew
from tests.support.chaos import ChaosProvider
from tests.support.keys import PEPPER, made
from tests.support.redis_server import RedisServer, replica_of, shared_redis
from tests.support.run import run
from tests.support.server import AtlasServer, atlas_settings


class Examined:
    """What the doctor said of a configuration."""

    def __init__(self, code: int, found: list[dict[str, str]]) -> None:
        self.code, self.found = code, found

    def said(self, level: str, subject: str) -> str:
        """All that it said of one subject at one level."""
        return "\n".join(each["said"] for each in self.found if (each["level"], each["subject"]) == (level, subject))


@pytest.fixture
def examine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Write a configuration, with a port that is free unless it says another, and ask the doctor."""

    def examine(*options: str, mode: int = 0o600, environ: dict[str, str] | None = None, **sections: Any) -> Examined:
        sections["server"] = {"port": free_port(), **sections.get("server", {})}
        file = tmp_path / "atlas.yaml"
        file.write_text(json.dumps(sections))
        file.chmod(mode)
        code = main(["doctor", "--json", "--config", str(file), *options], environ or {})
        return Examined(code, json.loads(capsys.readouterr().out))

    return examine


def endpoint(base_url: str, *keys: str, **members: Any) -> dict[str, Any]:
    """Sections with one endpoint and its route."""
    row = {"name": "up", "base_url": base_url, "keys": list(keys), "model": "m", **members}
    return {"endpoints": [row], "routes": [{"model": "m", "endpoints": ["up"]}]}


def test_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration without faults gives 0 and lines that can be read."""
    file = tmp_path / "atlas.yaml"
    file.write_text(f"server: {{port: {free_port()}}}\n")
    assert main(["doctor", "--config", str(file)], {}) == 0
    out = capsys.readouterr().out
    assert f"ok      configuration: valid, from {file}\n" in out
    assert "note    journal: in memory" in out
    assert out.splitlines()[-1].startswith("nothing wrong, ")


def test_a_wrong_configuration_is_explained(examine: Any) -> None:
    """Every problem of the file is a finding, with its line, and so are keys without their pepper."""
    found = examine(sever={}, keys=[made("a").row])
    assert found.code == 1
    assert "sever: unknown key; did you mean 'server'?" in found.said("wrong", "configuration")
    found = examine(keys=[made("a").row])
    assert "ATLAS_KEY_PEPPER" in found.said("wrong", "configuration")
    found = examine(keys=[made("a").row], environ={"ATLAS_KEY_PEPPER": "short"})
    assert "at least 16 bytes" in found.said("wrong", "configuration")


def test_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is one finding."""
    assert main(["doctor", "--config", "/nowhere/atlas.yaml"], {}) == 1
    assert "WRONG   configuration: /nowhere/atlas.yaml: cannot be read" in capsys.readouterr().out


def test_a_port_that_is_taken(examine: Any) -> None:
    """A port that somebody else has is wrong; one at which an Atlas serves already is only told."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        found = examine(server={"port": port})
        assert found.said("wrong", "port") == f"port {port} on 127.0.0.1 is in use"

    async def another() -> None:
        async with AtlasServer(atlas_settings()) as atlas:
            found = await asyncio.to_thread(examine, server={"port": atlas.port})
            assert found.code == 0
            assert "an Atlas (0." in found.said("note", "port")

    run(another())


def test_a_host_that_is_none_of_ours(examine: Any) -> None:
    """An address of another machine, and one that others reach without keys, are both found."""
    found = examine(server={"host": "192.0.2.1"})
    assert "192.0.2.1 is not an address of this machine" in found.said("wrong", "port")
    assert "atlas keys create" in found.said("wrong", "access")


@pytest.mark.parametrize(
    ("mode", "key", "level", "said"),
    [
        (0o644, "sk-canary", "wrong", "can be read by others (mode 644)"),
        (0o666, "${KEY}", "wrong", "can be written by others (mode 666)"),
        (0o600, "sk-canary", "note", "holds a secret (endpoints[0].keys[0])"),
        (0o644, "${KEY}", "ok", "holds no secrets"),
    ],
)
def test_who_may_read_the_file(mode: int, key: str, level: str, said: str, examine: Any) -> None:
    """A file with secrets is for its owner only, and nobody else may write any."""
    found = examine("--offline", mode=mode, environ={"KEY": "sk-canary"}, **endpoint("http://127.0.0.1:1", key))
    assert said in found.said(level, "file")
    assert "sk-canary" not in str(found.found)


def test_keys_are_looked_at(examine: Any) -> None:
    """Keys that have expired, or will soon, and the lack of one for administrators, are told."""
    keys = [made("a", expires="2020-01-01").row, made("b").row]
    found = examine(keys=keys, environ={"ATLAS_KEY_PEPPER": PEPPER})
    assert f"{keys[0]['id']} has expired" in found.said("note", "keys")
    assert "none has the scope admin" in found.said("note", "keys")
    assert found.code == 0


def test_nothing_to_serve(examine: Any) -> None:
    """Without routes and mock there is nothing to serve; endpoints that no route names are told."""
    sections = endpoint("http://127.0.0.1:1") | {"routes": [], "mock": {"enabled": False}}
    found = examine("--offline", **sections)
    assert found.said("wrong", "models").startswith("there are none")
    assert found.said("note", "configuration") == "no route names these endpoints: up"


def test_providers_are_asked_without_cost(examine: Any) -> None:
    """A provider is asked for its models and never to chat; one that is not there is wrong."""

    async def scenario() -> None:
        async with ChaosProvider(api_key="sk-right") as up:
            found = await asyncio.to_thread(examine, **endpoint(up.base_url, "sk-right", "sk-canary"))
            assert not up.requests
            assert {request.path for request in up.others} == {"/v1/models"}
            assert "sk-canary" not in str(found.found)
        gone = await asyncio.to_thread(examine, **endpoint(f"http://127.0.0.1:{up.port}", "k"))
        assert gone.code == 1
        assert gone.said("wrong", "endpoint up")

    run(scenario())


@pytest.mark.parametrize(
    ("status", "keys", "level", "said"),
    [
        (200, ["k"], "ok", "answers, and takes its key"),
        (401, ["k", "l"], "wrong", "key 2 of 2 is refused (status 401)"),
        (403, [], "wrong", "it wants a key and has none"),
        (404, ["k"], "note", "has no list of models there"),
        (429, ["k"], "note", "over its limit"),
        (500, ["k"], "wrong", "answers with status 500"),
    ],
)
def test_what_a_provider_answers(status: int, keys: list[str], level: str, said: str, examine: Any) -> None:
    """Each status of the list of models has its meaning."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            found = await asyncio.to_thread(examine, **endpoint(f"http://127.0.0.1:{port}", *keys))
            assert said in found.said(level, "endpoint up"), found.found
            assert found.code == (level == "wrong")

    run(scenario())


def redis(url: str) -> dict[str, Any]:
    """The section of a journal in Redis."""
    return {"journal": {"kind": "redis", "url": url}}


def test_redis_is_examined(examine: Any) -> None:
    """A Redis that fits is told with its version; a lack of persistence is noted, and its clock compared."""
    server = shared_redis()
    found = examine(**redis(server.url))
    assert found.code == 0
    assert " is 7." in found.said("ok", "redis") or " is 8." in found.said("ok", "redis")
    assert "nothing is persisted" in found.said("note", "redis")
    assert "of Redis" in found.said("ok", "clock")


def test_a_redis_that_does_not_fit(examine: Any) -> None:
    """Eviction, a replica in place of the master, a wrong password and nobody at all are each named."""
    with RedisServer.started("--maxmemory-policy", "allkeys-lru", tcp=True) as server:
        found = examine(**redis(server.url))
        assert found.code == 1
        assert "allkeys-lru drops logs" in found.said("wrong", "redis")
        with replica_of(server) as replica:
            assert "this is a replica: name the master" in examine(**redis(replica.url)).said("wrong", "redis")
    with RedisServer.started("--requirepass", "right", tcp=True) as server:
        found = examine(**redis(f"redis://:canary-wrong@127.0.0.1:{server.port}"))
        assert "cannot be reached" in found.said("wrong", "redis")
        assert "canary-wrong" not in str(found.found)
        assert "journal.url" in found.said("note", "file")
    found = examine(**redis(f"redis://127.0.0.1:{free_port()}"))
    assert "cannot be reached" in found.said("wrong", "redis")


@pytest.mark.parametrize(
    ("theirs", "level", "said"),
    [
        (1000.01, "ok", "within"),
        (1000.9, "ok", "within"),
        (1005.0, "wrong", "5.0 s behind Redis"),
        (990.0, "wrong", "10.0 s ahead of Redis"),
    ],
)
def test_clock_skew(theirs: float, level: str, said: str) -> None:
    """A clock that is off by more than a second is wrong, and the side is named."""
    (found,) = skew(theirs, 999.99, 1000.01)
    assert (found.level.lower(), said in found.said) == (level, True)


def test_slow_answers_are_not_skew() -> None:
    """Half of the round trip is the benefit of the doubt."""
    (found,) = skew(1002.0, 998.0, 1002.0)
    assert found.level == "ok"
