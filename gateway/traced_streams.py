"""What is told of streams to the traces of the requests that began them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.events import State
from gateway.core.ids import show_sid
from gateway.telemetry.tracing import CURRENT, Tracer

if TYPE_CHECKING:
    from gateway.core.events import End
    from gateway.core.usage import Usage
    from gateway.pool.settlement import Settlement
    from gateway.streams.lifecycle import Record
    from gateway.streams.session import Session
    from gateway.telemetry.tracing import Value


class TracedStreams:
    """The observers of pool and streams, for `tracer`. What was taken over from another replica has no trace."""

    def __init__(self, tracer: Tracer) -> None:
        self._open = tracer.streams

    def owned(self, record: Record) -> None:
        """A stream begins here; told where its request is answered."""
        if (trace := CURRENT.get()) is not None:
            about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": record.model}
            ours = {"atlas.route": record.route, "atlas.tenant": record.tenant, "atlas.key": record.key_id}
            trace.began(show_sid(record.sid), {**about, **ours, "atlas.dialect": record.dialect})

    def controlled(self, sid: str, op: str, reason: str | None) -> None:
        """The owner was told of somebody's pause, resume or cancel."""
        if (trace := self._open.get(show_sid(sid))) is not None:
            trace.event(f"atlas.stream.{op}", {"atlas.reason": reason})

    def attempted(self, endpoint: str, outcome: str, _seconds: float) -> None:
        """A call came to its first content, or failed before."""
        if outcome == "ok" and (trace := CURRENT.get()) is not None:
            trace.content(endpoint)

    def fell_back(self, before: str, to: str, phase: str, result: str) -> None:
        """Another endpoint was asked."""
        if (trace := CURRENT.get()) is not None:
            moved = {"atlas.from": before, "atlas.to": to, "atlas.phase": phase, "atlas.result": result}
            trace.event("atlas.fallback", moved)

    def settled(self, settlement: Settlement) -> None:
        """What one leg took is known."""
        if (trace := self._open.get(settlement.stream)) is not None:
            trace.settled(settlement.endpoint, {
                "gen_ai.response.model": settlement.model, "atlas.leg": settlement.leg, "atlas.end": settlement.end,
                "atlas.cost_usd": settlement.cost_usd, **_usage(settlement.usage),
            })  # fmt: skip

    def ended(self, session: Session, end: End) -> None:
        """A stream is over."""
        stream = show_sid(session.sid)
        if (trace := self._open.get(stream)) is not None:
            ttft = session.stats.first_content
            shown: dict[str, Value] = {
                "atlas.state": end.state, "atlas.reason": end.reason,
                "gen_ai.response.id": stream,
                "gen_ai.response.finish_reasons": [finish.reason for finish in session.stats.finishes] or None,
                "atlas.time_to_first_token_s": None if ttft is None else round(ttft - session.stats.created, 6),
                **_usage(session.usage()[0]),
            }  # fmt: skip
            trace.ended(stream, shown, (end.reason or end.state) if end.state is State.FAILED else None)


def _usage(usage: Usage) -> dict[str, Value]:
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "atlas.usage.estimated": usage.estimated,
    }
