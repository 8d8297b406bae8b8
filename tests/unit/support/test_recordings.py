"""Recorded traffic is found, read exactly, and its absence is seen."""

import base64
import json
from pathlib import Path

import pytest

from tests.support.recordings import Recording, folder, need_recordings, recorded, recordings


def store(root: Path, name: str, *, encoding: str, body: str) -> None:
    """One recording as the collection's README.md describes it."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    exchange = {
        "provider": name.partition("/")[0],
        "streaming": True,
        "features": ["tools"],
        "request": {"method": "POST", "host": "h", "path": "/p", "headers": {"A": "1"}, "body": {"stream": True}},
        "response": {"status": 200, "headers": {"Content-Type": "x"}, "body": body, "body_encoding": encoding},
        "source": {},
    }
    path.write_text(json.dumps(exchange), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A collection of three."""
    store(tmp_path, "acme/stream/b.json", encoding="base64", body=base64.b64encode(b"\xff\x00").decode())
    store(tmp_path, "acme/stream/a.json", encoding="utf-8", body="ü\r\n")
    store(tmp_path, "documented/acme-500.json", encoding="utf-8", body="{}")
    rows = ["provider\tkind\tstatus\tfile\trepo\tlicense\tfeatures"]
    rows += [f"acme\tstream\t200\tacme/stream/{name}.json\tr\tMIT\ttools,{name}" for name in "ba"]
    (tmp_path / "index.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    monkeypatch.setenv("ATLAS_RECORDINGS", str(tmp_path))
    return tmp_path


def test_bytes_are_as_recorded(root: Path) -> None:
    """Text and base64 bodies give the recorded bytes; order and selection are stable."""
    first, second = recordings("acme", "stream")
    assert (first.name, second.name) == ("acme-stream-a", "acme-stream-b")
    assert (first.load().body, second.load().body) == ("ü\r\n".encode(), b"\xff\x00")
    exchange = first.load()
    assert (exchange.request_body, exchange.request_headers, exchange.headers) == (
        {"stream": True},
        {"a": "1"},
        {"content-type": "x"},
    )
    assert recordings("acme", None, "tools", "b") == [second]
    assert recordings("acme", "json") == []
    assert [row.status for row in recordings("documented")] == [200]


def test_absence_is_one_skipped_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without recordings there is one parameter that is skipped with a reason that names the folder."""
    monkeypatch.setenv("ATLAS_RECORDINGS", str(tmp_path / "nowhere"))
    assert recordings("groq") == recordings("documented") == []
    (parameter,) = recorded("groq", "stream")
    reasons = [mark.kwargs["reason"] for mark in parameter.marks if mark.name == "skip"]
    assert len(reasons) == 1
    assert str(tmp_path / "nowhere") in reasons[0]
    with pytest.raises(pytest.skip.Exception, match="no recorded vendor traffic"):
        need_recordings()


def test_present_recordings_are_marked(root: Path) -> None:
    """Each recording is a test of its own with the mark `recorded`."""
    assert [(p.id, [mark.name for mark in p.marks]) for p in recorded("acme", "stream")] == [
        ("acme-stream-a", ["recorded"]),
        ("acme-stream-b", ["recorded"]),
    ]
    (missing,) = recorded("acme", "error")
    assert "skip" in {mark.name for mark in missing.marks}


@pytest.mark.recorded
def test_all_that_is_listed_can_be_read() -> None:
    """The real collection is readable to the last body."""
    need_recordings()
    providers = {path.name for path in folder().iterdir() if path.is_dir()}
    found: list[Recording] = [row for provider in sorted(providers) for row in recordings(provider)]
    listed = (folder() / "index.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(found) == len(listed) + len(list((folder() / "documented").glob("*.json")))
    assert all(row.load().status == row.status for row in found)
