"""A real `redis-server` of the test run: one a process, started when first asked for, flushed for each test.

`shared_redis()` skips where none is installed, and fails under CI; `RedisServer.started(...)` is one of a test's own,
with whatever options redis-server has.
"""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest
import redis

from examples.ports import free_port

_READY_S = 30.0
ELAPSE = """
local naked = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left == -1 then naked[#naked + 1] = key
  elseif left <= tonumber(ARGV[1]) then redis.call('DEL', key)
  else redis.call('PEXPIRE', key, left - tonumber(ARGV[1])) end
end
return naked
"""
"""Lets so many milliseconds pass for every key, and returns the keys that have no time to live."""
MISSING = "redis-server is not installed: apt-get install redis-server (7.0 or newer)"


def require_redis() -> str:
    """The path of `redis-server`. Without one the test is skipped, visibly; under CI it fails."""
    path = shutil.which("redis-server")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    return path


class RedisServer:
    """One process in a directory of its own, on a unix socket; with `port` on TCP as well."""

    def __init__(self, *options: str, port: int = 0) -> None:
        self._options, self.port = options, port
        self.folder = Path(tempfile.mkdtemp(prefix="atlas-redis-"))
        self.socket = self.folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._password: str | None = None
        if "--requirepass" in options:
            self._password = options[options.index("--requirepass") + 1]

    @classmethod
    @contextmanager
    def started(cls, *options: str, tcp: bool = False) -> Iterator["RedisServer"]:
        """A server of one test, with redis-server's own options."""
        server = cls(*options, port=free_port(bus="--cluster-enabled" in options) if tcp else 0)
        try:
            server.start()
            yield server
        finally:
            server.close()

    @property
    def url(self) -> str:
        """How Atlas reaches it."""
        if self.port:
            return f"redis://127.0.0.1:{self.port}"
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, again after `kill` or `stop`: the directory, and so what was persisted, is the same."""
        base = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--dir",
                str(self.folder), "--repl-diskless-sync-delay", "0"]  # fmt: skip
        if "--appendonly" not in self._options and "--save" not in self._options:
            base += ["--save", "", "--appendonly", "no"]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([require_redis(), *base, *self._options], stdout=log, stderr=log)
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"redis-server ended: {self.log}"
            with suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            time.sleep(0.01)
        raise AssertionError(f"redis-server was not ready within {_READY_S:g} s: {self.log}")

    @property
    def log(self) -> str:
        """What it wrote, for messages."""
        return (self.folder / "redis.log").read_text()[-2000:]

    @contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        """A plain blocking client, for looking from outside."""
        client = redis.Redis(unix_socket_path=str(self.socket), password=self._password, protocol=2)
        try:
            yield client
        finally:
            client.close()

    def flush(self) -> None:
        """Nothing is left of the test before: keys, scripts."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def names(self, pattern: str = "*") -> list[str]:
        """The names of its keys, sorted."""
        with self.client() as client:
            return sorted(key.decode() for key in client.scan_iter(pattern, count=1000))

    def clients(self) -> int:
        """Open connections but the one that asks."""
        with self.client() as client:
            return len(client.client_list()) - 1

    def pause(self) -> None:
        """It stands still, its sockets open: SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: nothing is written any more."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and remove its directory."""
        if self._process is not None:
            self.go_on()
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)


@cache
def shared_redis() -> RedisServer:
    """The server of this test process; each xdist worker has its own."""
    server = RedisServer()
    server.start()
    atexit.register(server.close)
    return server


@contextmanager
def replica_of(master: RedisServer) -> Iterator[RedisServer]:
    """A replica that has caught up with `master`, which must listen on TCP."""
    with RedisServer.started("--replicaof", f"127.0.0.1 {master.port}", tcp=True) as replica:
        deadline = time.monotonic() + _READY_S
        with replica.client() as client:
            while client.info("replication")["master_link_status"] != "up":
                assert time.monotonic() < deadline, f"the replica did not catch up: {replica.log}"
                time.sleep(0.02)
        yield replica


@contextmanager
def sentinel_of(master: RedisServer, service: str = "atlas") -> Iterator[int]:
    """A sentinel that makes a replica of `master` the master when it dies; its port. One has the say alone.

    It is slow to believe that, so that a master that only stood still is not taken for dead: see `kill_watched`.
    """
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="atlas-sentinel-"))
    conf = folder / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {service} 127.0.0.1 {master.port} 1\n"
        f"sentinel down-after-milliseconds {service} 20000\nsentinel failover-timeout {service} 1000\n"
    )
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([require_redis(), str(conf), "--sentinel"], stdout=log, stderr=log)
    try:
        _await_sentinel(port, service)
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def kill_watched(master: RedisServer, sentinel: int, service: str = "atlas") -> None:
    """A master dies, and its sentinel believes that soon."""
    master.kill()
    with redis.Redis(port=sentinel, protocol=2) as client:
        client.execute_command("SENTINEL", "SET", service, "down-after-milliseconds", 200)


def _await_sentinel(port: int, service: str) -> None:
    """Until it knows the master's replica."""
    deadline = time.monotonic() + _READY_S
    with redis.Redis(port=port, protocol=2) as client:
        while time.monotonic() < deadline:
            with suppress(redis.RedisError):
                if client.sentinel_slaves(service):
                    return
            time.sleep(0.02)
    raise AssertionError(f"the sentinel found no replica within {_READY_S:g} s")


@contextmanager
def cluster(masters: int = 3) -> Iterator[list[RedisServer]]:
    """A Redis Cluster of so many masters without replicas; every slot is served when this returns."""
    servers = [RedisServer("--cluster-enabled", "yes", port=free_port(bus=True)) for _ in range(masters)]
    try:
        for server in servers:
            server.start()
        _join(servers)
        yield servers
    finally:
        for server in servers:
            server.close()


def _join(servers: list[RedisServer]) -> None:
    share = 16_384 // len(servers)
    for number, server in enumerate(servers):
        last = 16_383 if server is servers[-1] else (number + 1) * share - 1
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for server in servers:  # not before all have their epochs, which only a node that knows no other takes
        with server.client() as client:
            for other in servers:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
    deadline = time.monotonic() + _READY_S
    for server in servers:
        with server.client() as client:
            while not _is_whole(client, len(servers)):
                assert time.monotonic() < deadline, f"the cluster did not come together: {server.log}"
                time.sleep(0.05)


def _is_whole(client: "redis.Redis", masters: int) -> bool:
    raw = client.execute_command("CLUSTER", "INFO")
    info = raw if isinstance(raw, dict) else dict(line.split(":", 1) for line in raw.decode().splitlines() if line)
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == masters
