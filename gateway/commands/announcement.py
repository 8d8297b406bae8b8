"""What an operator reads of settings: when the gateway answers, and when they were only checked."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from gateway import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from config.settings import Settings

_NEWEST = """python3 -c 'import sys,json; print(json.load(sys.stdin)["data"][0]["id"])'"""


def startup_text(settings: Settings, url: str) -> str:
    """What the operator reads once the gateway answers at `url`: what is served, what to know, what to try."""
    facts = [
        ("journal", settings.journal.kind),
        ("models", ", ".join(_models(settings)) or "none: name some under routes"),
        ("agents", ", ".join(f"agent/{agent.name}" for agent in settings.effective_agents) or "none"),
        ("docs", f"{url}/docs"),
        ("metrics", f"{url}/metrics"),
        ("keys", f"{len(settings.keys)}" if settings.keys else "none: whoever reaches this address is served"),
        *(("note", note) for note in settings.notes),
    ]
    lines = [f"Atlas {__version__} serves {url}", "", *_table(facts), "", *_commands(settings, url)]
    return "\n".join(lines)


def summary_text(settings: Settings, exposure: str | None = None) -> str:
    """What `atlas check` says of settings that are valid; `exposure` is why they are not served as they are."""
    facts = [
        ("server", f"{settings.server.host}:{settings.server.port}"),
        ("journal", settings.journal.kind),
        ("mock", "enabled" if settings.mock.enabled else "disabled"),
        *(("endpoint", f"{each.name}: {each.kind}, model {each.model}") for each in settings.endpoints),
        *(("route", f"{route.model}: {', '.join(route.endpoints)}") for route in settings.routes),
        *(("agent", f"{each.name}: {each.kind}, asks {each.route}") for each in settings.effective_agents),
        *(("key", f"{key.id}: tenant {key.tenant}, {', '.join(key.scopes)}") for key in settings.keys),
        *(("note", note) for note in (*settings.notes, *filter(None, [exposure]))),
    ]
    return "\n".join(["The configuration is valid.", *_table(facts)])


def _table(facts: Sequence[tuple[str, str]]) -> Iterator[str]:
    return (f"  {name:<10}{fact}" for name, fact in facts)


def _models(settings: Settings) -> Iterator[str]:
    if settings.mock.enabled:
        yield from ("mock", "mock-fast", "mock-slow")
    yield from (route.model for route in settings.routes)


def _commands(settings: Settings, url: str) -> Iterator[str]:
    """Three commands to paste into a second terminal, one after the other; none if no model has a full name."""
    model = next((model for model in _models(settings) if not model.endswith("*")), None)
    if model is None:
        return
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    data = shlex.quote(json.dumps(body, separators=(",", ":")))
    yield "Try it in a second terminal: start a stream, then pause it while it runs, then resume it."
    curl = "curl"
    if settings.keys:
        yield "\n  export ATLAS_KEY=atl_...   # one of your keys"
        curl = 'curl -H "x-api-key: $ATLAS_KEY"'
    yield f"\n  {curl} -N {url}/v1/chat/completions -H 'content-type: application/json' -d {data} &"
    for operation in ("pause", "resume"):
        newest = f"$({curl} -s '{url}/v1/streams?limit=1' | {_NEWEST})"
        yield f"\n  {curl} -s -X POST {url}/v1/streams/{newest}/{operation}"
