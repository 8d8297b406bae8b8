"""README's commands run as written."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import serving

README = (Path(__file__).parents[2] / "README.md").read_text()
PRINTED = "http://127.0.0.1:8080"
MARK = "\x1e"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str], Path]]:
    """A gateway as README starts it, what it printed, and an empty folder."""
    folder = tmp_path_factory.mktemp("readme")
    with serving(cwd=folder) as (base_url, printed):
        yield base_url, printed, folder


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def transcript() -> list[tuple[str, str]]:
    """Commands with what README says they print."""
    steps: list[tuple[str, str]] = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        else:
            command, printed = steps[-1]
            steps[-1] = (command, printed + line + "\n")
    return steps


def in_bash(script: str, folder: Path) -> str:
    """What a script prints."""
    ran = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return ran.stdout


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is `pattern`, where `...` stands for anything on one line."""
    expression = ".*".join(re.escape(part) for part in pattern.strip().split("..."))
    return re.fullmatch(expression, text.strip()) is not None


def test_the_transcript_runs_as_written(gateway: tuple[str, list[str], Path]) -> None:
    """A new user who pastes README's curl commands in order sees what README shows."""
    base_url, _, folder = gateway
    steps = transcript()
    assert len(steps) >= 8
    script = "".join(f"{command.replace(PRINTED, base_url)}\nprintf '{MARK}'\n" for command, _ in steps)
    outputs = in_bash(script, folder).split(MARK)
    for (command, expected), printed in zip(steps, outputs, strict=False):
        assert matches(expected, printed), f"$ {command}\nexpected: {expected}\nprinted:  {printed}"


def test_the_sdk_snippets_run_as_written(gateway: tuple[str, list[str], Path]) -> None:
    """A new user who pastes README's Python gets an answer."""
    base_url, _, folder = gateway
    snippets = blocks("python")
    assert snippets
    for snippet in snippets:
        ran = subprocess.run(
            [sys.executable, "-c", snippet.replace(PRINTED, base_url)],
            cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert "str_" in ran.stdout
        assert 'You asked: "Hello"' in ran.stdout


def test_the_printed_commands_run_as_printed(gateway: tuple[str, list[str], Path]) -> None:
    """The three curl commands that `make serve` prints stream, pause and resume when pasted one after the other."""
    base_url, printed, folder = gateway
    commands = [line.strip() for line in printed if line.strip().startswith("curl ")]
    assert len(commands) == 3
    assert all(base_url in command for command in commands)
    started, paused, resumed = (command.removesuffix("&").strip() for command in commands)
    wait_for_one = f"until curl -s '{base_url}/v1/streams?state=running' | grep -q str_; do sleep 0.05; done"
    script = f"{started} > stream.txt &\n{wait_for_one}\n{paused}\nprintf '{MARK}'\n{resumed}\nprintf '{MARK}'\nwait\n"
    first, second, _ = in_bash(script, folder).split(MARK)
    assert '"changed":true' in first
    assert '"state":"paused"' in first
    assert '"state":"running"' in second
    assert (folder / "stream.txt").read_text().endswith("data: [DONE]\n\n")


def test_every_linked_file_exists() -> None:
    """README links to no file that is not there."""
    root = Path(__file__).parents[2]
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (root / link).exists()] == []
