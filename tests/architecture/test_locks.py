"""The lock files: complete, hashed, and without any address."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-otel.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def entries(name: str) -> dict[str, tuple[Requirement, str]]:
    """The pinned requirements of a lock file, each with its own lines."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / name).read_text())
    found: dict[str, tuple[Requirement, str]] = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        requirement = Requirement(entry.partition(" \\\n")[0])
        found[canonicalize_name(requirement.name)] = (requirement, entry)
    return found


def pinned(requirement: Requirement) -> Version:
    """The one version of an entry."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_is_pinned_and_hashed(lock: str) -> None:
    """Nobody can serve another file under a name that we install."""
    for name, (requirement, entry) in entries(lock).items():
        assert pinned(requirement), name
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), name


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address(lock: str) -> None:
    """A lock file works with whatever index a machine uses."""
    text = (ROOT / lock).read_text()
    assert re.findall(r"://|--(?:extra-)?index-url|--find-links|--trusted-host|^-[ifr]\b", text, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"]),
        ("requirements-dev.lock", PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]),
        ("requirements-dev.lock", PROJECT["project"]["optional-dependencies"]["otel"]),
        (
            "requirements-otel.lock",
            PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["otel"],
        ),
    ],
)
def test_a_lock_satisfies_the_project(lock: str, wanted: list[str]) -> None:
    """What pyproject.toml asks for is in the lock, in a version that it accepts."""
    locked = entries(lock)
    for text in wanted:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is not in {lock}: run make lock"
        assert requirement.specifier.contains(pinned(locked[name][0])), f"{lock} has another {name}: run make lock"


def test_the_locks_agree() -> None:
    """Tests run with the very versions that are served."""
    runtime = entries("requirements.lock")
    for lock in ("requirements-dev.lock", "requirements-otel.lock"):
        other = entries(lock)
        both = runtime.keys() & other.keys()
        assert len(both) >= len(runtime) - 1  # setuptools builds, it is not tested with
        assert {name for name in both if pinned(runtime[name][0]) != pinned(other[name][0])} == set()
