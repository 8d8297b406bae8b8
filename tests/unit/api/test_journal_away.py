"""A journal that cannot be reached: every route says so in the caller's shape, and nothing else breaks."""

from typing import Any

import pytest

from gateway.streams.journal import JournalUnavailable
from gateway.streams.journal_memory import MemoryJournal
from tests.support.http import RawClient
from tests.support.run import run
from tests.support.server import AtlasServer, atlas_settings


async def away(*_: Any, **__: Any) -> Any:
    """What every call of such a journal does."""
    raise JournalUnavailable


METHODS = ("create", "step", "read", "known", "listing", "remember", "paused_since", "sweep")
ID = "str_" + "a" * 26


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/v1/chat/completions", {"model": "mock-fast", "messages": [{"role": "user", "content": "a"}]}, ""),
        (
            "POST",
            "/v1/messages",
            {"model": "mock-fast", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]},
            "",
        ),
        ("GET", "/v1/streams", None, ""),
        ("GET", f"/v1/streams/{ID}", None, ""),
        ("GET", f"/v1/streams/{ID}/events", None, ""),
        ("POST", f"/v1/streams/{ID}/pause", {}, "control_unavailable"),
    ],
)
def test_every_route_says_so(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: dict[str, Any] | None, code: str
) -> None:
    """503 with Retry-After, in the caller's shape; the next request is answered."""
    for name in METHODS:
        monkeypatch.setattr(MemoryJournal, name, away)

    async def scenario() -> None:
        async with AtlasServer(atlas_settings()) as atlas, RawClient.to(atlas.base_url) as client:
            answer = await client.request(method, path, json=body)
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["x-should-retry"] == "true"
            error = answer.json["error"]
            assert error["code"] == (code or "journal_unavailable")
            if path == "/v1/messages":
                assert answer.json["type"] == "error"
            assert (await client.request("GET", "/livez")).status == 200

    run(scenario())
