"""Logs of a whole process, as they are written."""

import json
import subprocess
import sys
from typing import Any

import pytest

HOSTILE = "one\\ntwo\\r\\x1b[31m\\x00\\u2028"


def logged(level: str, code: str) -> list[dict[str, Any]]:
    """The lines on standard error of a process that logs as the gateway does, each of which must be JSON."""
    given = f"import logging, threading, warnings\nfrom gateway.telemetry.logs import configure\nconfigure({level!r})\n"
    ran = subprocess.run([sys.executable, "-c", given + code], capture_output=True, check=True, timeout=60)
    assert all(byte >= 0x20 or byte == 0x0A for byte in ran.stderr), ran.stderr
    return [json.loads(line) for line in ran.stderr.splitlines()]


@pytest.mark.parametrize(
    ("code", "logger"),
    [
        (f"logging.getLogger('atlas.x').warning('%s', '{HOSTILE}')", "atlas.x"),
        (f"logging.getLogger('uvicorn.error').error('{HOSTILE}')", "uvicorn.error"),
        (f"logging.getLogger('asyncio').error('{HOSTILE}')", "asyncio"),
        (f"logging.getLogger('some.library').warning('{HOSTILE}')", "some.library"),
        (f"warnings.warn('{HOSTILE}')", "py.warnings"),
        (f"t = threading.Thread(target=lambda: [].index('{HOSTILE}')); t.start(); t.join()", "atlas.server"),
    ],
)
def test_whoever_says_it_it_is_one_line_of_json(code: str, logger: str) -> None:
    """Line ends and control characters of anybody's words stay within one line of JSON, libraries' and warnings too."""
    (line,) = logged("info", code)
    assert line["logger"] == logger
    assert line.keys() >= {"time", "level", "message"}


def test_levels() -> None:
    """`log_level` is of Atlas's own logs; libraries say what is wrong, and nothing else."""
    say = "for say in ('debug', 'info', 'error'): getattr(logging.getLogger(name), say)(say)"
    code = f"for name in ('atlas.x', 'library'):\n  {say}"
    assert [line["message"] for line in logged("info", code)] == ["info", "error", "error"]
    assert [line["message"] for line in logged("error", code)] == ["error", "error"]


def test_what_a_foreign_error_says_is_for_debugging() -> None:
    """The words of an error that may quote a prompt are logged at level debug only; where it came from always."""
    code = "try: {}['a prompt']\nexcept KeyError: logging.getLogger('atlas.x').exception('a bug')"
    (line,) = logged("info", code)
    assert "KeyError" in line["exception"]
    assert 'File "<string>"' in line["exception"]
    assert "a prompt" not in line["exception"]
    assert "a prompt" in logged("debug", code)[0]["exception"]
