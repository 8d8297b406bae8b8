"""Every example runs as it is written, without any account, and shows what it is about."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 60

SHOWS = {
    "01_first_answer.py": ("40 tokens", "first token after"),
    "02_sdk_clients.py": ("stopped by: max_tokens", "refused, as asked for: rate_limit_exceeded"),
    "03_reconnect.py": ("[hung up at", "the pieces are the whole: True"),
    "04_provider_group.py": ("answered by healthy after 3 attempts", "overloaded: overloaded", "where nobody can: 503"),
    "05_task_aware_providers.py": ("this is code", "asked coder", "this is extraction", "asked reader", "100% whole"),
    "06_budgets.py": (
        "completed (whole)",
        "incomplete (length)",
        "finish_reason length",
        "budget_exceeded",
        "400 invalid_header",
    ),
    "07_enhanced_streaming.py": ("paused behind event", "leg 2 by steady", "the provider's socket is closed"),
    "08_multi_agent_providers.py": ("-- paused: paused", "asks library", "asks typewriter", "completed, 5 calls"),
}
"""What each of them prints, among other things."""


@pytest.mark.parametrize("name", SHOWS)
def test_an_example_runs(name: str) -> None:
    """An example ends well, and prints what its reader came for."""
    command = [sys.executable, str(EXAMPLES / name)]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    missing = [words for words in SHOWS[name] if words not in done.stdout]
    assert not missing, done.stdout


def test_no_example_is_forgotten() -> None:
    """Each numbered example is run here and stands in the table of the README."""
    found = {path.name for path in EXAMPLES.glob("[0-9]*.py")}
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert found == set(SHOWS)
    assert all(f"[{name}]({name})" in table for name in found)
