"""deploy/systemd/atlas.service: systemd understands it, and its times fit the gateway's."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import Server
from gateway.cli import _parser

UNIT = Path(__file__).parents[2] / "deploy/systemd/atlas.service"


def test_systemd_understands_it(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, once the command it starts is one that is there."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    command = Path(sys.executable).with_name("atlas")
    copy = tmp_path / "atlas.service"
    copy.write_text(UNIT.read_text().replace("/opt/atlas/bin/atlas", str(command)))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_commands_are_ones_that_exist() -> None:
    """What it starts, also before a reload, is a command line that Atlas accepts."""
    lines = re.findall(r"^Exec(?:Start|StartPre|Reload)=/opt/atlas/bin/atlas (.*)$", UNIT.read_text(), re.MULTILINE)
    assert [_parser().parse_args(line.split()).command for line in lines] == ["check", "serve", "check"]


def test_streams_may_end_before_it_is_killed() -> None:
    """The time to stop is longer than the drain, and the process itself gets the signal."""
    text = UNIT.read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) >= Server().drain_s + 10
    assert "KillMode=mixed" in text
    assert "User=root" not in text
    assert "DynamicUser=yes" in text
