"""Atlas's own feed: every event of the log with its id, for EventSource and any SSE client. Pure and stateless.

id: <gen>-<seq>
event: <kind>
data: <one JSON object>
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from gateway.core.events import (
    Claim,
    End,
    Event,
    Extra,
    Finish,
    Leg,
    Pause,
    Progress,
    Reasoning,
    Refusal,
    Resume,
    Start,
    Text,
    ToolCall,
    UsageReport,
)
from gateway.core.ids import show_sid

if TYPE_CHECKING:
    from gateway.core.errors import Failure
    from gateway.core.usage import Usage

_encode = msgspec.json.encode


class NativeRenderer:
    """Renders any part of a log, from any cursor on."""

    initial = None

    def broken(self, failure: Failure) -> None:
        """Errors of one response are not events: the connection is reset, and the client comes back by its cursor."""

    def heartbeat(self, progress: None) -> None:
        """Comments have no id, so they move no cursor."""

    def render(self, progress: None, events: list[Event], gen: int, first_seq: int) -> tuple[None, bytes]:
        """The bytes of consecutive events of one entry, the first of which has `first_seq`."""
        frames: list[bytes] = []
        for seq, event in enumerate(events, start=first_seq):
            kind, data = _shown(event)
            frames.append(b"id: %d-%d\nevent: %s\ndata: %s\n\n" % (gen, seq, kind, _encode(data)))
        return progress, b"".join(frames)


def _shown(event: Event) -> tuple[bytes, dict[str, Any]]:  # noqa: PLR0911, C901, PLR0912  one row an event kind
    match event:
        case Text():
            return b"text", {"choice": event.choice, "text": event.text}
        case Start():
            data = {"id": show_sid(event.sid), "model": event.model, "dialect": event.dialect, "created": event.created}
            return b"start", data
        case Reasoning():
            return b"reasoning", {"choice": event.choice, "text": event.text}
        case Refusal():
            return b"refusal", {"choice": event.choice, "text": event.text}
        case ToolCall():
            named = {"id": event.id, "name": event.name}
            call = {name: value for name, value in named.items() if value is not None}
            return b"tool_call", {"choice": event.choice, "index": event.index, **call, "arguments": event.arguments}
        case Finish():
            return b"finish", {"choice": event.choice, "reason": event.reason}
        case Extra():
            choice = {} if event.choice is None else {"choice": event.choice}
            return b"extra", {**choice, "dialect": event.dialect, "patch": event.patch}
        case UsageReport():
            return b"usage", _usage(event.usage)
        case Leg():
            data = {"leg": event.leg, "endpoint": event.endpoint, "provider": event.provider}
            return b"leg", {**data, "strategy": event.strategy, "why": event.why}
        case Progress():
            data = {"agent": event.agent, "step": event.step, "parent": event.parent, "kind": event.kind}
            return b"progress", {**event.data, **data}
        case Pause():
            return b"pause", _reason(event.reason)
        case Resume():
            return b"resume", _reason(event.reason)
        case Claim():
            return b"claim", {}
        case End():
            return b"end", _end(event)
        case _:
            assert_never(event)


def _end(end: End) -> dict[str, Any]:
    usage = None if end.usage is None else _usage(end.usage)
    shown: dict[str, Any] = {"state": end.state, "reason": end.reason, "usage": usage, "legs": end.legs}
    if end.failure is not None:
        shown["error"] = _error(end.failure)
    return shown


def _error(failure: Failure) -> dict[str, Any]:
    row = failure.consequence
    return {"type": row.type, "code": row.code, "message": failure.message, "whose": row.whose}


def _usage(usage: Usage) -> dict[str, Any]:
    known = msgspec.structs.asdict(usage)
    return {name: value for name, value in known.items() if value is not None}


def _reason(reason: str | None) -> dict[str, Any]:
    return {} if reason is None else {"reason": reason}
