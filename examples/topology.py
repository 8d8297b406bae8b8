"""The services of docker-compose.yml as processes of this machine, on free loopback ports, in a temporary directory.

    with Topology.started() as it:
        httpx.get(it.url + "/readyz")         # through nginx; it.gateways[0].url is the first gateway itself

The same files are used: deploy/atlas.yaml, deploy/nginx/nginx.conf, deploy/redis/redis.conf. What differs are
addresses, and times that are made short (`QUICK`), so that one can watch what otherwise takes six seconds.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from examples.dashboard import prometheus_yml
from examples.ports import free_port

ROOT = Path(__file__).parents[1]
READY_S = 30.0
STOP_S = 10.0
QUICK = {"ATLAS_JOURNAL__LEASE_S": "2", "ATLAS_JOURNAL__POLL_S": "0.5", "ATLAS_JOURNAL__SWEEP_S": "0.5"}
PROGRAMS = {"redis-server": "redis-server", "nginx": "nginx-light"}
"""What is started, and the distribution's package that has it."""
PROMETHEUS = "prometheus"
"""It is started where it is installed."""


class MissingProgramError(Exception):
    """A program is not installed; the message says what to do."""


def program(name: str) -> str:
    """Its path; raises MissingProgramError."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise MissingProgramError(f"{name} is not installed: apt-get install {PROGRAMS.get(name, name)}")
    return path


def nginx_conf(folder: Path, port: int, gateways: Sequence[int]) -> str:
    """deploy/nginx/nginx.conf with the services' names resolved to these ports of loopback, writing below `folder`."""
    text = (ROOT / "deploy/nginx/nginx.conf").read_text(encoding="utf-8")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};").replace("/tmp/", f"{folder}/")
    text = text.replace("/dev/stdout", f"{folder}/access.log").replace("worker_processes auto;", "worker_processes 1;")
    return re.sub(r"gateway-(\d+):8080", lambda found: f"127.0.0.1:{gateways[int(found[1]) - 1]}", text)


@dataclass(slots=True)
class Service:
    """One process; `name` is that of the service in docker-compose.yml."""

    name: str
    command: list[str]
    folder: Path
    url: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again after it ended."""
        environ = {"PATH": "/usr/bin:/bin", **self.environ}
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def await_ready(self, is_ready: Callable[[], bool]) -> None:
        """Return when it answers; raises RuntimeError with its log if it does not."""
        deadline = time.monotonic() + READY_S
        while not is_ready():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not answer: {self.log[-3000:]}")
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid if self.process is not None else 0

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """SIGKILL, as when the machine dies."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As Ctrl-C does, and SIGKILL if that is not enough."""
        self._end(signal.SIGINT)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(slots=True)
class Topology:
    """All services but Grafana, running; `url` is nginx's. `prometheus` is None where it is not installed."""

    redis: Service
    gateways: list[Service]
    nginx: Service
    prometheus: Service | None

    @property
    def url(self) -> str:
        """What clients are given."""
        return self.nginx.url

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["Topology"]:
        """Everything up and ready, and everything gone afterwards; raises MissingProgramError, RuntimeError."""
        found = {name: program(name) for name in PROGRAMS}
        folder = Path(tempfile.mkdtemp(prefix="atlas-topology-"))
        folder.chmod(0o755)  # started by root, nginx works as another user
        it = _planned(folder, found)
        try:
            it.start()
            yield it
        finally:
            for service in filter(None, (it.prometheus, it.nginx, *it.gateways, it.redis)):
                service.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def start(self) -> None:
        """In the order of docker-compose.yml's depends_on."""
        self.redis.start()
        self.redis.await_ready(lambda: "Ready to accept connections" in self.redis.log)
        for gateway in self.gateways:
            gateway.start()
        for gateway in self.gateways:
            gateway.await_ready(lambda url=gateway.url: answers(url))  # type: ignore[misc]
        self.nginx.start()
        self.nginx.await_ready(lambda: answers(self.url))
        if self.prometheus is not None:
            self.prometheus.start()


def _planned(folder: Path, found: dict[str, str]) -> Topology:
    redis_port, port, prometheus_port, *ports = (free_port() for _ in range(5))
    conf = str(ROOT / "deploy/redis/redis.conf")
    where = ["--bind", "127.0.0.1", "--port", str(redis_port), "--dir", str(folder)]
    redis = Service("redis", [found["redis-server"], conf, *where], folder)
    environ = {"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0", "ATLAS_SERVER__DRAIN_S": "5", **QUICK}
    gateways = [_gateway(f"gateway-{n}", at, folder, environ) for n, at in enumerate(ports, start=1)]
    (folder / "nginx.conf").write_text(nginx_conf(folder, port, ports), encoding="utf-8")
    command = [found["nginx"], "-c", str(folder / "nginx.conf"), "-e", "stderr", "-g", "daemon off;"]
    nginx = Service("nginx", command, folder, f"http://127.0.0.1:{port}")
    return Topology(redis, gateways, nginx, _prometheus(prometheus_port, ports, folder))


def _prometheus(port: int, gateways: list[int], folder: Path) -> Service | None:
    try:
        found = program(PROMETHEUS)
    except MissingProgramError:
        return None
    config, data = prometheus_yml(folder, port, gateways), folder / "prometheus"
    command = [
        found,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    return Service("prometheus", command, folder, f"http://127.0.0.1:{port}")


def _gateway(name: str, port: int, folder: Path, environ: dict[str, str]) -> Service:
    atlas, config = str(Path(sys.executable).with_name("atlas")), str(ROOT / "deploy/atlas.yaml")
    command = [atlas, "serve", "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    return Service(name, command, folder, f"http://127.0.0.1:{port}", environ)


def answers(url: str) -> bool:
    """Whether it is ready for requests."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
