"""The bytes of an answer as a pure function of plan and request; how and when they go out is the provider's affair.

What an honest answer looks like is the wire's; the faults of content among the honest events are put here, alike for
all wires. OpenAI's is the wire where none is named.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.plan import Garbage, Plan, Refused
from tests.support.wires.anthropic import ANTHROPIC
from tests.support.wires.ollama import OLLAMA
from tests.support.wires.openai import OPENAI, usage_of
from tests.support.wires.seam import Wire, dump

__all__ = ["ANTHROPIC", "OLLAMA", "OPENAI", "WIRES", "Piece", "body_of", "content_type_of", "event_of", "pieces_of"]
__all__ += ["streams", "usage_of", "wire_of"]

WIRES = (OPENAI, ANTHROPIC, OLLAMA)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that belong together: one frame, comment, or a whole body.

    `event` is its number if it counts as an event. `tokens` are the tokens of the answer in it, over all choices.
    """

    data: bytes
    kind: str
    event: int | None = None
    tokens: int = 0


def wire_of(path: str) -> Wire | None:
    """The wire whose chat requests go to this path."""
    return next((wire for wire in WIRES if path.endswith(wire.path)), None)


def content_type_of(plan: Plan, request: Mapping[str, Any], wire: Wire = OPENAI) -> str:
    """What the head says about the body."""
    if plan.content_type is not None:
        return plan.content_type
    is_stream = wire.streams(request) and not _refuses(plan)
    return wire.stream_type if is_stream else "application/json"


def streams(content_type: str) -> bool:
    """Whether a body of this type comes bit by bit."""
    return content_type.startswith(("text/event-stream", "application/x-ndjson"))


def body_of(plan: Plan, request: Mapping[str, Any], wire: Wire = OPENAI) -> bytes:
    """All of the body, if nothing cuts it: what `cut_at_byte` and its like count in."""
    return b"".join(piece.data for piece in pieces_of(plan, request, wire))


def event_of(plan: Plan, kind: str, nth: int = 0, request: Mapping[str, Any] | None = None, wire: Wire = OPENAI) -> int:
    """The number of the nth event of a kind: preamble, role, reasoning, text, tool, finish, usage, done.

    The other wires' kinds are named in their modules.

    Raises:
        LookupError: when there is no such event.
    """
    asked = request or {"stream": True, "stream_options": {"include_usage": True}}
    numbers = [piece.event for piece in _honest(plan, asked, wire) if piece.kind == kind]
    if nth >= len(numbers) or numbers[nth] is None:
        raise LookupError(f"{len(numbers)} events of kind {kind!r}, asked for number {nth}")
    return int(numbers[nth] or 0)


def pieces_of(plan: Plan, request: Mapping[str, Any], wire: Wire = OPENAI) -> list[Piece]:
    """The body, piece by piece, faults of content included."""
    if plan.body is not None:
        return [Piece(plan.body, "body", 0)]
    if _refuses(plan):
        refused = plan.refused or Refused(message=f"refused with {plan.status}")
        return [Piece(dump(plan.error or wire.refusal(plan, refused)), "error", 0)]
    if not wire.streams(request):
        whole = wire.whole(plan, request)
        return [Piece(whole.payload, whole.kind, 0, whole.tokens)]
    return [piece for piece in _spoilt(plan, _honest(plan, request, wire), wire) if piece.data]


def _refuses(plan: Plan) -> bool:
    return plan.status >= 400 or plan.error is not None


def _honest(plan: Plan, request: Mapping[str, Any], wire: Wire) -> list[Piece]:
    """The events of a provider that behaves."""
    return [
        Piece(wire.frame(plan, event.payload, event.name), event.kind, number, event.tokens)
        for number, event in enumerate(wire.events(plan, request))
    ]


def _spoilt(plan: Plan, honest: list[Piece], wire: Wire) -> Iterator[Piece]:
    """The honest events with everything that the plan puts among them."""
    yield Piece(plan.prologue, "prologue")
    for number, piece in enumerate(honest):
        if plan.error_event_at and plan.error_event_at[0] == number:
            yield Piece(_error_frame(plan, wire), "error", number)
            break
        garbage = plan.garbage if plan.garbage and plan.garbage.at == number else None
        if garbage:
            yield Piece(_garbage(plan, garbage, piece, wire) * garbage.count, "garbage")
        if plan.comment is not None:
            yield Piece(wire.comment(plan, plan.comment), "comment")
        if not (garbage and garbage.replace):
            yield piece
        if number in plan.duplicates:
            yield Piece(piece.data, "duplicate")
    yield Piece(plan.epilogue, "epilogue")


def _error_frame(plan: Plan, wire: Wire) -> bytes:
    assert plan.error_event_at is not None
    payload = plan.error_event_at[1]
    return payload if isinstance(payload, bytes) else wire.frame(plan, dump(payload), wire.error_name)


def _garbage(plan: Plan, garbage: Garbage, victim: Piece, wire: Wire) -> bytes:
    match garbage.kind:
        case "oversize":
            return wire.frame(plan, b'{"x":"' + b"x" * garbage.size + b'"}', None)
        case "html":
            return b"<html><body>502 Bad Gateway</body></html>" + plan.newline.encode() * 2
        case "truncated":
            payload = victim.data[victim.data.index(b"{") :] if b"{" in victim.data else b"["
            return wire.frame(plan, payload[: len(payload) // 2], None)
        case _:
            return wire.frame(plan, wire.malformed[garbage.kind], None)
