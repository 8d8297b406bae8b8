"""The status object of a stream: record, owner's facts and channel put together. A pure function of its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.events import OUTRUN
from gateway.core.ids import show_sid

if TYPE_CHECKING:
    from gateway.core.errors import Failure
    from gateway.core.events import End, Leg
    from gateway.core.usage import Usage
    from gateway.streams.hub import Channel
    from gateway.streams.journal import Known
    from gateway.streams.tally import Tally

_NO_FACTS: dict[str, Any] = {
    "attempts": [], "selection": None, "legs": [], "usage": None, "cost_usd": None, "metrics": {},
}  # fmt: skip

REPLACED = "replaced"
"""How a leg ended that another one continued."""


def status_object(
    known: Known, *, facts: dict[str, Any], channel: Channel | None, recovering: bool = False
) -> dict[str, Any]:
    """What `GET /v1/streams/{id}` answers; times are Unix seconds, durations milliseconds."""
    record = known.record
    end = record.end
    facts = {**_NO_FACTS, **facts}
    if facts["usage"] is None and end is not None and end.usage is not None:
        facts["usage"] = usage_object(end.usage)  # its owner's facts come a moment after the end
    metrics = dict(facts["metrics"])
    if channel is not None:
        metrics["readers_max"] = max(channel.reader_peak, metrics.get("readers_max", 0))
        metrics["reattaches"] = max(channel.reattaches, metrics.get("reattaches", 0))
        metrics["replayed_events"] = max(channel.replayed_events, metrics.get("replayed_events", 0))
    return {
        "id": show_sid(record.sid),
        "object": "stream",
        "state": str(record.state),
        "recovering": recovering,
        "reason": None if end is None else end.reason,
        "gen": record.gen,
        "seq": record.servable(known.tail),
        "model": record.model,
        "dialect": record.dialect,
        "created": int(record.created),
        "expires_at": int(known.expires),
        "paused_since": record.paused_since,
        "readers": 0 if channel is None else len(channel.readers),
        "resumable": known.tail >= 0 and (channel is None or channel.durable),
        "attempts": facts["attempts"],
        "selection": facts["selection"],
        "legs": facts["legs"],
        "usage": facts["usage"],
        "cost_usd": facts["cost_usd"],
        "metrics": metrics,
        **({"run": facts["run"]} if "run" in facts else {}),
        **({} if end is None or end.failure is None else {"error": error_object(end.failure)}),
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    """Usage as status objects show it: every member, null where nobody said."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_creation_tokens": usage.cache_creation_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "estimated": usage.estimated,
    }


def left_word(leg: Leg | None) -> str:
    """How a leg ended that was not the last one."""
    return OUTRUN if leg is not None and leg.strategy == OUTRUN else REPLACED


def leg_object(tally: Tally, cost_usd: float | None, end: End | str | None) -> dict[str, Any]:
    """One leg as status objects show it; `end` is null while it runs."""
    leg = tally.leg
    return {
        "leg": 0 if leg is None else leg.leg,
        "endpoint": None if leg is None else leg.endpoint,
        "provider": None if leg is None else leg.provider,
        "strategy": None if leg is None else leg.strategy,
        "ttft_ms": tally.ttft_ms,
        "usage": usage_object(tally.usage),
        "cost_usd": cost_usd,
        "end": end if end is None or isinstance(end, str) else end_word(end),
    }


def end_word(end: End) -> str:
    """State and reason in one word: `completed`, `cancelled:disconnect`."""
    return str(end.state) if end.reason is None else f"{end.state}:{end.reason}"


def error_object(failure: Failure) -> dict[str, Any]:
    """A failure as status objects and native end events show it."""
    consequence = failure.consequence
    shown: dict[str, Any] = {
        "type": consequence.type,
        "code": consequence.code,
        "message": failure.message,
        "whose": consequence.whose,
    }
    if failure.provider_code is not None:
        shown["provider_code"] = failure.provider_code
    if failure.attempts:
        shown["attempts"] = list(failure.attempts)
    return shown
