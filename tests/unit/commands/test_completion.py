"""Completion: what a shell offers after what was typed; asked of a real bash, of zsh and fish where they are there."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.cli import main


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The script of one shell."""
    assert main(["completion", shell], {}) == 0
    return capsys.readouterr().out


CASES = [
    ("", {"serve", "streams", "pool", "doctor", "completion", "import-litellm"}),
    ("str", {"streams"}),
    ("streams ", {"ls", "show", "tail", "pause", "resume", "cancel", "--help"}),
    ("streams ls --st", {"--state"}),
    ("streams ls --state pa", {"paused"}),
    ("pool ", {"enable", "disable", "probe", "--url"}),
    ("completion ", {"bash", "zsh", "fish"}),
    ("keys rotate --", {"--id", "--expires", "--config", "--json"}),
]


@pytest.mark.parametrize(("typed", "offered"), CASES)
def test_bash(typed: str, offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bash offers the commands, flags and values that can come next, and no others."""
    file = tmp_path / "atlas.bash"
    file.write_text(script("bash", capsys))
    words = ["atlas", *typed.split(" ")]
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f'source {file}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _atlas; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert offered <= found
    assert all(word.startswith(words[-1]) for word in found)
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_are_valid(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script of each shell names every command, and that shell, where it is installed, can read it."""
    text = script(shell, capsys)
    for word in ("streams", "tail", "import-litellm", "keys", "rotate"):
        assert word in text
    if (found := shutil.which(shell)) is not None:
        file = tmp_path / "script"
        file.write_text(text)
        assert subprocess.run([found, "-n", str(file)], check=False).returncode == 0
