"""The status object of a stream: record, owner's facts and channel put together. A pure function of its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.events import TERMINAL
from gateway.core.ids import show_sid

if TYPE_CHECKING:
    from gateway.core.errors import Failure
    from gateway.core.events import End
    from gateway.streams.hub import Channel
    from gateway.streams.journal import Known

_NO_FACTS: dict[str, Any] = {"attempts": [], "legs": [], "usage": None, "metrics": {}}


def status_object(known: Known, *, facts: dict[str, Any], channel: Channel | None) -> dict[str, Any]:
    """What `GET /v1/streams/{id}` answers; times are Unix seconds, durations milliseconds."""
    record = known.record
    has_ended = record.state in TERMINAL  # facts may tell of an end that is kept
    facts = {**_NO_FACTS, **facts}
    metrics = dict(facts["metrics"])
    if channel is not None:
        metrics["readers_max"] = max(channel.reader_peak, metrics.get("readers_max", 0))
        metrics["reattaches"] = max(channel.reattaches, metrics.get("reattaches", 0))
    return {
        "id": show_sid(record.sid),
        "object": "stream",
        "state": str(record.state),
        "recovering": False,
        "reason": facts.get("reason") if has_ended else None,
        "gen": record.gen,
        "seq": record.servable(known.tail),
        "model": record.model,
        "dialect": record.dialect,
        "created": int(record.created),
        "expires_at": int(known.expires),
        "paused_since": record.paused_since,
        "readers": 0 if channel is None else len(channel.readers),
        "resumable": known.tail >= 0,
        "attempts": facts["attempts"],
        "legs": facts["legs"],
        "usage": facts["usage"],
        "cost_usd": None,
        "metrics": metrics,
        **({"error": facts["error"]} if facts.get("error") and has_ended else {}),
    }


def end_facts(end: End) -> dict[str, Any]:
    """What a status object shows of how the stream ended."""
    return {"reason": end.reason, "error": None if end.failure is None else error_object(end.failure)}


def error_object(failure: Failure) -> dict[str, Any]:
    """A failure as status objects and native end events show it."""
    consequence = failure.consequence
    shown: dict[str, Any] = {
        "type": consequence.type,
        "code": consequence.code,
        "message": failure.message,
        "whose": consequence.whose,
    }
    if failure.attempts:
        shown["attempts"] = list(failure.attempts)
    return shown
