"""The files of deploy, started with real processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from examples.topology import MissingProgramError, nginx_conf, program

ROOT = Path(__file__).parents[2]


def require(name: str) -> str:
    """A program's path. Without it the test is skipped, visibly; under CI a missing redis-server fails."""
    try:
        return program(name)
    except MissingProgramError as error:
        if os.environ.get("CI") and name != "nginx":
            pytest.fail(str(error))
        pytest.skip(str(error))


def ran(*command: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A command of the repository, ended, in this environment and PATH."""
    environ = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    """deploy/nginx/nginx.conf is right, but for the services' names, which only compose knows."""
    file = tmp_path / "nginx.conf"
    file.write_text(nginx_conf(tmp_path, 18080, [18081, 18082]))
    done = ran(require("nginx"), "-t", "-c", str(file), "-e", "stderr")
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr, done.stderr


def test_nothing_of_compose_is_left_in_the_rendered_file(tmp_path: Path) -> None:
    """The rendered copy writes into its folder only and names no service of compose."""
    text = nginx_conf(tmp_path, 18080, [18081, 18082])
    assert "server gateway-" not in text
    assert "127.0.0.1:18081" in text
    assert "127.0.0.1:18082" in text
    assert text.replace(str(tmp_path), "").count("/tmp/") == 0


def test_demo(tmp_path: Path) -> None:
    """`make demo` keeps every promise that it walks through, and leaves no file behind."""
    for name in ("redis-server", "nginx"):
        require(name)
    done = ran(sys.executable, "-m", "examples.demo", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_demo_says_what_is_missing(tmp_path: Path) -> None:
    """Without redis-server the demo says what to install, and exits with 2."""
    if shutil.which("redis-server", path="/usr/sbin:/usr/local/sbin"):
        pytest.skip("redis-server stands where it is always found")
    done = ran(sys.executable, "-m", "examples.demo", PATH=str(tmp_path))
    assert done.returncode == 2
    assert "apt-get install redis-server" in done.stderr
