"""What is measured: nginx as the yardstick and Atlas, each started on the gateway's core and stopped again.

`direct` is the upstream itself without a gateway: the floor of the rig, and what added time is counted from.
Every child is a process group of its own, so that stopping it takes its descendants along, and its output goes to a
file whose last lines are shown when it does not start.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.proc import pinned, tree
from bench.wire import HOST
from examples.ports import free_port

NAMES = ("nginx", "atlas", "atlas-redis")
_READY_WITHIN_S = 30.0
_STOP_WITHIN_S = 8.0
_POLL_S = 0.002
_LAST_LINES = 5

_NGINX_CONF = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
    client_body_buffer_size 64k;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    upstream canned {{ server {host}:{upstream}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen {host}:{port} backlog=4096;
        location = /readyz {{ return 200; }}
        location / {{
            proxy_pass http://canned;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 300s;
        }}
    }}
}}
"""

_ATLAS_YAML = """\
server: {{host: {host}, port: {port}}}
journal: {journal}
endpoints:
  - {{name: up, kind: openai_chat, base_url: "http://{host}:{upstream}/v1", keys: [bench], model: "*"}}
  - {{name: claude, kind: anthropic, base_url: "http://{host}:{upstream}", keys: [bench], model: "*"}}
routes:
  - {{model: "bench/*", endpoints: [up]}}
  - {{model: "claude/*", endpoints: [claude]}}
"""


class StartError(Exception):
    """A child was not ready in time; the message ends with its last lines of output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running gateway; `prefix` goes before the upstream's model name, only Atlas' streams can be controlled.

    `redis_port` is that of the Redis that keeps its journal, 0 without one.
    """

    name: str
    port: int
    prefix: str = ""
    is_atlas: bool = False
    start_s: float = 0.0
    processes: dict[str, int] = field(default_factory=dict)
    redis_port: int = 0

    def watched(self) -> dict[str, list[int]]:
        """Groups of processes to be counted: `target`, and `redis` where there is one."""
        return {name: tree(pid) for name, pid in self.processes.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """Where things run: the cores, the upstream's port and process, a directory for files."""

    load_core: int
    gateway_core: int
    upstream_port: int
    upstream_pid: int
    directory: Path

    @property
    def cores(self) -> tuple[int, int]:
        """Both cores, the load's first."""
        return self.load_core, self.gateway_core


@contextmanager
def child(command: Sequence[str], core: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process on one core, stopped by SIGTERM and, if that does not help, SIGKILL to its group."""
    with log.open("wb") as output, pinned(core):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and its group; returns when the process is gone."""
    if process.stdin:
        process.stdin.close()
    for sent, wait_s in ((signal.SIGTERM, _STOP_WITHIN_S), (signal.SIGKILL, _STOP_WITHIN_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def await_ready(process: subprocess.Popen[bytes], port: int, begin: float, log: Path) -> float:
    """Seconds from `begin` until GET /readyz answers 200."""
    while time.monotonic() - begin < _READY_WITHIN_S and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(HOST, port, timeout=1)
            connection.request("GET", "/readyz")
            ready = connection.getresponse().status == 200
            connection.close()
            if ready:
                return time.monotonic() - begin
        time.sleep(_POLL_S)
    state = "did not get ready" if process.poll() is None else f"exited with {process.returncode}"
    raise StartError(f"{state}: " + " | ".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:]))


@contextmanager
def rig(load_core: int, gateway_core: int) -> Iterator[Rig]:
    """The upstream on the load's core and a directory for the run's files."""
    with tempfile.TemporaryDirectory(prefix="atlas-bench-") as name:
        log = Path(name) / "upstream.log"
        with child([sys.executable, "-m", "bench.upstream"], load_core, log) as process:
            for _ in range(2000):
                if log.read_text().endswith("\n") or process.poll() is not None:
                    break
                time.sleep(0.005)
            first = log.read_text().partition("\n")[0]
            if not first.isdigit():
                raise StartError(f"upstream: {log.read_text()!r}")
            yield Rig(
                load_core=load_core,
                gateway_core=gateway_core,
                upstream_port=int(first),
                upstream_pid=process.pid,
                directory=Path(name),
            )


def direct(where: Rig) -> Target:
    """The upstream itself."""
    return Target(name="direct", port=where.upstream_port)


@contextmanager
def start(name: str, where: Rig, files: int) -> Iterator[Target]:
    """A target by name, ready. Raises StartError."""
    if name == "nginx":
        with _nginx(where, files) as target:
            yield target
    elif name == "atlas":
        with _atlas(name, where, "{kind: memory}") as target:
            yield target
    else:
        with _redis(where) as (port, pid), _atlas(name, where, _over(port)) as target:
            target.processes["redis"] = pid
            yield replace(target, redis_port=port)


@contextmanager
def another(target: Target, where: Rig) -> Iterator[Target]:
    """Another replica over the same Redis, on the same core. Raises StartError."""
    with _atlas(f"{target.name}-2", where, _over(target.redis_port)) as other:
        yield other


def _over(redis_port: int) -> str:
    return f'{{kind: redis, url: "redis://{HOST}:{redis_port}/0"}}'


@contextmanager
def _nginx(where: Rig, files: int) -> Iterator[Target]:
    port, directory = free_port(), where.directory
    conf = directory / "nginx.conf"
    conf.write_text(
        _NGINX_CONF.format(
            files=files,
            connections=min(files, 4096),
            dir=directory,
            host=HOST,
            upstream=where.upstream_port,
            port=port,
        )
    )
    command = [nginx_path(), "-e", "stderr", "-p", str(directory), "-c", str(conf)]
    log, begin = directory / "nginx.log", time.monotonic()
    with child(command, where.gateway_core, log) as process:
        start_s = await_ready(process, port, begin, log)
        yield Target(name="nginx", port=port, start_s=start_s, processes={"target": process.pid})


def atlas_command(config: Path) -> list[str]:
    """How Atlas is started with this file. Raises StartError where it is not installed."""
    command = [str(Path(sys.executable).parent / "atlas"), "serve", "--config", str(config)]
    if not Path(command[0]).exists():
        raise StartError("the command atlas is not installed beside this Python: run `make setup`")
    return command


@contextmanager
def _atlas(name: str, where: Rig, journal: str) -> Iterator[Target]:
    port = free_port()
    config = where.directory / f"{name}.yaml"
    config.write_text(_ATLAS_YAML.format(host=HOST, port=port, upstream=where.upstream_port, journal=journal))
    log, begin = where.directory / f"{name}.log", time.monotonic()
    with child(atlas_command(config), where.gateway_core, log) as process:
        start_s = await_ready(process, port, begin, log)
        yield Target(
            name=name, port=port, prefix="bench/", is_atlas=True, start_s=start_s, processes={"target": process.pid}
        )


@contextmanager
def _redis(where: Rig) -> Iterator[tuple[int, int]]:
    path = shutil.which("redis-server")
    if path is None:
        raise StartError("redis-server is not installed: `apt-get install redis-server`, or leave atlas-redis out")
    port, log = free_port(), where.directory / "redis.log"
    options = {"port": port, "bind": HOST, "save": "", "appendonly": "no", "dir": where.directory}
    command = [path, *(word for key, value in options.items() for word in (f"--{key}", str(value)))]
    with child(command, where.load_core, log) as process:
        for _ in range(1000):
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                break
            time.sleep(0.005)
        else:
            raise StartError(f"redis: {log.read_text()[-500:]}")
        yield port, process.pid


def nginx_path() -> str:
    """Where nginx is; installs it where that is possible without asking. Raises SystemExit with what to type."""
    found = shutil.which("nginx", path=f"{os.defpath}:/usr/sbin:/usr/local/sbin:{os.environ.get('PATH', '')}")
    return found or _install_nginx()


def _install_nginx() -> str:
    apt = shutil.which("apt-get")
    advice = "bench: nginx, the yardstick, is not installed. Debian, Ubuntu: sudo apt-get install -y nginx-light"
    if apt is None or os.geteuid() != 0:
        raise SystemExit(f"{advice}; or measure without it: python -m bench --targets atlas")
    print("installing nginx-light (apt-get), the yardstick ...", file=sys.stderr)
    # RUNLEVEL=1 keeps the package from starting its own nginx on port 80.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", "nginx-light"]):
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([apt, "-qq", *arguments], env=environment, stdout=sys.stderr, check=False, timeout=300)
    found = shutil.which("nginx", path=f"{os.defpath}:/usr/sbin")
    if found is None:
        raise SystemExit(f"{advice} (apt-get could not)")
    return found
