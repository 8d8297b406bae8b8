"""Recorded vendor traffic, which is never part of the project: from `ATLAS_RECORDINGS`, or beside the checkout.

    @pytest.mark.parametrize("recording", recorded("groq", "stream"))
    def test_replay(recording: Recording) -> None: ...

Where the recordings are not present such a test is skipped once, with the reason; it does not vanish.
"""

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

Kind = Literal["stream", "json", "error"]
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and its answer. `request_body` is JSON or None; header names are in lower case."""

    method: str
    host: str
    path: str
    request_headers: dict[str, str]
    request_body: Any
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recorded exchange; `load` reads it. `features` are words such as `tools`, `usage`, `truncated`, `unicode`."""

    provider: str
    kind: str
    status: int
    features: frozenset[str]
    path: Path

    @property
    def name(self) -> str:
        """Unique, and stable from run to run."""
        return f"{self.provider}-{self.kind}-{self.path.stem}"

    def load(self) -> Exchange:
        """The exchange, body bytes as recorded."""
        stored = json.loads(self.path.read_text(encoding="utf-8"))
        request, response = stored["request"], stored["response"]
        is_base64 = response["body_encoding"] == "base64"
        return Exchange(
            method=request["method"],
            host=request["host"],
            path=request["path"],
            request_headers=_lower(request["headers"]),
            request_body=request["body"],
            status=response["status"],
            headers=_lower(response["headers"]),
            body=base64.b64decode(response["body"]) if is_base64 else response["body"].encode(),
        )


def folder() -> Path:
    """Where the recordings are, or would be."""
    named = os.environ.get("ATLAS_RECORDINGS")
    return Path(named).resolve() if named else _ROOT.parent / "shared" / "recordings"


def recordings(provider: str, kind: Kind | None = None, *features: str) -> list[Recording]:
    """The recordings of a provider (`documented` too), of one kind or all, that have all these features; sorted.

    Empty where the recordings are not present.
    """
    if provider == "documented":
        found = [_documented(path) for path in sorted((folder() / "documented").glob("*.json"))]
    else:
        found = [row for row in _indexed() if row.provider == provider]
    wanted = set(features)
    return [row for row in found if kind in {None, row.kind} and wanted <= row.features]


def recorded(provider: str, kind: Kind | None = None, *features: str) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`: one a recording, or one that is skipped and says why."""
    found = recordings(provider, kind, *features)
    if found:
        return [pytest.param(row, id=row.name, marks=pytest.mark.recorded) for row in found]
    return [
        pytest.param(None, id="no-recordings", marks=(pytest.mark.recorded, pytest.mark.skip(reason=_why(provider))))
    ]


def need_recordings() -> None:
    """Skips the test that calls it where the recordings are not present."""
    if not folder().is_dir():
        pytest.skip(_why("any provider"))


def _why(provider: str) -> str:
    if not folder().is_dir():
        return f"no recorded vendor traffic at {folder()}; set ATLAS_RECORDINGS"
    return f"no such recording of {provider!r} at {folder()}"


def _indexed() -> list[Recording]:
    """All that the index lists: tab-separated, the first line names the columns."""
    index = folder() / "index.tsv"
    if not index.is_file():
        return []
    names, *lines = index.read_text(encoding="utf-8").splitlines()
    rows = (dict(zip(names.split("\t"), line.split("\t"), strict=True)) for line in lines)
    found = [
        Recording(
            provider=row["provider"],
            kind=row["kind"],
            status=int(row["status"]),
            features=frozenset(row["features"].split(",")) - {""},
            path=folder() / row["file"],
        )
        for row in rows
    ]
    return sorted(found, key=lambda recording: recording.name)


def _documented(path: Path) -> Recording:
    stored = json.loads(path.read_text(encoding="utf-8"))
    status = stored["response"]["status"]
    features = frozenset(stored["features"])
    return Recording(provider=stored["provider"], kind="error", status=status, features=features, path=path)


def _lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
