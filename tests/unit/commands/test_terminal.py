"""Tables, spans and harmless text."""

import contextlib
import io
import os
import subprocess
import sys
import termios

import pytest

from gateway.cli import main
from gateway.commands.follow import Told, events
from gateway.commands.terminal import Terminal, ago, cell, harmless, table
from gateway.commands.tree import Tree


def test_a_table() -> None:
    """Columns are as wide as their widest cell, numbers stand at the right, nothing is a dash."""
    assert table(("name", "count"), [("a", 1), ("longer", 200), ("", None)]) == [
        "NAME    COUNT",
        "a           1",
        "longer    200",
        "-           -",
    ]
    assert table(("name",), []) == ["NAME"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), ("", "-"), (True, "yes"), (0.00012345, "0.0001234"), (123456.7, "123457"), (["a", 1], "a, 1"),
     ("two\nlines", "two lines"), ([], "-"), ("\x1b[2J", "\\x1b[2J")],
)  # fmt: skip
def test_cells(value: object, shown: str) -> None:
    """A cell is one harmless line."""
    assert cell(value) == shown


def test_text_that_a_terminal_would_obey() -> None:
    """Escapes, carriage returns, C1 controls and marks that turn the direction are shown as what they are."""
    assert harmless("a\x1b]0;x\x07\rb\x9bc\u202e\td\r\ne\n") == "a\\x1b]0;x\\x07\\x0db\\x9bc\\x202e\td\ne\n"
    assert harmless("half \ud83d") == "half \\xd83d"
    assert harmless("שלום Ελλάδα 日本語 🙂") == "שלום Ελλάδα 日本語 🙂"


@pytest.mark.parametrize(("seconds", "shown"), [(-1, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (1e6, "11d")])
def test_spans(seconds: float, shown: str) -> None:
    """A span is told in its largest unit."""
    assert ago(seconds) == shown


def test_events_of_a_body() -> None:
    """Comments are skipped, the last fields count, and what is cut off is no event."""
    lines = [": ping", "", "id: 1-0", "event: text", 'data: {"text":"a: b"}', "", "id: 1-1", 'data: {"cut":1}']
    assert list(events(lines)) == [Told("1-0", "text", {"text": "a: b"})]


def test_a_tree_of_many_kinds() -> None:
    """Every kind of progress has its line, unknown ones too, indented below who began it, and none is too long."""
    err = io.StringIO()
    tree = Tree(Terminal(io.StringIO(), err, {}))
    for data in (
        {"agent": "a", "step": "run", "parent": None, "kind": "classified", "type": "code"},
        {"agent": "b", "step": "s", "parent": "run", "kind": "step_started", "goal": "g" * 300, "attempt": 2},
        {"agent": "c", "step": "t", "parent": "s", "kind": "step_failed", "why": "\x1b[31m"},
        {"agent": "b", "step": "s", "parent": "run", "kind": "text", "text": "words"},
    ):
        tree.show(Told("1-1", "progress", data))
    tree.show(Told("1-9", "end", {"state": "failed", "error": {"message": "no"}}))
    first, second, third, last = err.getvalue().splitlines()
    assert first == "└─ a run: classified: type code"
    assert second.startswith("   └─ b s: begins (attempt 2): ggg")
    assert second.endswith("g…")
    assert third == "      └─ c t: step failed: why \\x1b[31m"
    assert last == "failed, no"


def test_client_commands_start_fast() -> None:
    """A command that asks a gateway loads neither the configuration nor the web framework, and prints no traceback."""
    heavy = {"fastapi", "starlette", "uvicorn", "pydantic", "yaml", "redis", "aiohttp", "msgspec", "uvloop"}
    code = (
        "import sys; from gateway.cli import main; code = main(['streams', 'ls', '--url', 'http://127.0.0.1:1'], {});"
        f"print(code, sorted({heavy!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "3 []\n"


def test_an_answer_that_nobody_reads() -> None:
    """`atlas ... | head` ends without a traceback."""
    command = f"{sys.executable} -m gateway.cli completion zsh | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_an_answer_that_cannot_be_written() -> None:
    """A full disk gives 1 and one line, not a traceback."""
    command = f"{sys.executable} -m gateway.cli completion zsh > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "the answer cannot be written: No space left on device\n")


def all_of(master: int) -> bytes:
    """What was written to a terminal that is closed by now."""
    said = b""
    with contextlib.suppress(OSError):  # how a terminal says that nothing more comes
        while data := os.read(master, 4096):
            said += data
    return said


def test_a_narrow_terminal_shows_what_fits() -> None:
    """On a terminal a row never takes two lines; into a file it goes whole."""
    code = (
        "import sys; from gateway.commands.terminal import Terminal;"
        "Terminal(sys.stdout, sys.stderr, {}).table(('one', 'two'), [('x' * 30, 'y' * 30)])"
    )
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 40))
    subprocess.run([sys.executable, "-c", code], stdin=slave, stdout=slave, check=True, env={})
    os.close(slave)
    assert all_of(master).decode().splitlines()[-1] == "x" * 30 + "  " + "y" * 7 + "…"
    os.close(master)
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert piped.stdout.splitlines()[-1] == "x" * 30 + "  " + "y" * 30


@pytest.mark.parametrize(
    "argv",
    [["streams"], ["streams", "show"], ["streams", "ls", "--state", "asleep"], ["streams", "pause"],
     ["pool", "kick", "x"], ["agents", "run"], ["keys", "revoke"], ["completion", "csh"], ["import-litellm"]],
)  # fmt: skip
def test_wrong_command_lines(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line gives 2 and its usage."""
    with pytest.raises(SystemExit) as caught:
        main(argv, {})
    assert caught.value.code == 2
    assert "usage: atlas " in capsys.readouterr().err


def test_who_types_a_task_is_told_how() -> None:
    """On a terminal a run without a task says what it waits for."""
    master, slave = os.openpty()
    os.write(master, b"\x04")
    command = [sys.executable, "-m", "gateway.cli", "agents", "run", "team"]
    typed = subprocess.run(command, stdin=slave, capture_output=True, text=True, check=False)
    assert typed.stderr.splitlines()[0] == "Type the task, then Ctrl-D."
    assert "there is no task" in typed.stderr
    os.close(slave)
    os.close(master)
