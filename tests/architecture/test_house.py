"""The house rules that a tool does not check."""

import ast
from collections.abc import Iterator
from pathlib import Path

from gateway.telemetry.logs import FIELDS

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "agents", "config")
BROAD_EXCEPT = {
    "agents/catalog.py", "gateway/api/edge.py", "gateway/streams/reader.py", "gateway/streams/session.py",
}  # fmt: skip
ONLY_IN = {
    "httpx": {"gateway/upstream/transport.py", "gateway/commands/client.py"},
    "httptools": {"gateway/upstream/http1.py", "gateway/api/hardened.py"},
    "aiohttp": {"gateway/upstream/transport.py"},
    "prometheus_client": {"gateway/telemetry/metrics.py"},
    "sse_starlette": {"gateway/api/sse.py"},
    "redis": {"gateway/upstream/link_redis.py"},
    "genai_prices": {"gateway/pool/prices.py"},
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every product file, parsed."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def test_exception_is_caught_in_four_places_only() -> None:
    """Bugs are met by a session's supervisor, the API's handler, where one pushes into the other, in foreign code."""
    broad = set[str]()
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and (
                node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "Exception")
            ):
                broad.add(name)
    assert broad == BROAD_EXCEPT


def test_each_foreign_library_stays_behind_its_door() -> None:
    """The HTTP client, the metrics library and the others are imported where architecture says, and nowhere else."""
    for name, tree in sources():
        for node in ast.walk(tree):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for module in modules:
                allowed = ONLY_IN.get(module.partition(".")[0])
                assert allowed is None or name in allowed, f"{name} imports {module}"


def test_what_is_logged_beside_a_message_is_written() -> None:
    """Every field that somebody gives to a log line is one of those that lines show: none is dropped in silence."""
    unknown = [
        (name, node.lineno, key.value)
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if isinstance(key, ast.Constant) and key.value not in FIELDS
    ]
    assert unknown == []


def test_files_are_short() -> None:
    """No file has grown beyond 400 lines."""
    assert [name for name, _ in sources() if len((ROOT / name).read_text().splitlines()) > 400] == []
