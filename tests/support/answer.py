"""The bytes of an answer as a pure function of plan and request; how and when they go out is the provider's affair."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.plan import Garbage, Plan, Tool
from tests.support.truth import choice_seed, reasoning_seed, truth_token

CREATED = 1_760_000_000
DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that belong together: one frame, comment, or a whole body.

    `event` is its number if it counts as an event. `tokens` are the tokens of the answer in it, over all choices.
    """

    data: bytes
    kind: str
    event: int | None = None
    tokens: int = 0


@dataclass(slots=True)
class _Draft:
    """One chunk before its usage and its spelling are settled."""

    kind: str
    choices: list[dict[str, Any]]
    tokens: int = 0
    usage: Mapping[str, Any] | None = None


def wire_id(plan: Plan) -> str:
    """The answer's id, the same on every chunk."""
    return f"chatcmpl-chaos{plan.seed}"


def choices_of(plan: Plan, request: Mapping[str, Any]) -> int:
    """How many choices the answer has."""
    return plan.choices or int(request.get("n") or 1)


def usage_of(plan: Plan, request: Mapping[str, Any], tokens: int | None = None) -> dict[str, Any]:
    """The usage that the provider reports: of all of the answer, or after `tokens` of it."""
    if tokens is None:
        tokens = sum(draft.tokens for draft in _drafts(plan, request))
    prompt = 10 * len(request.get("messages") or ())
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def content_type_of(plan: Plan, request: Mapping[str, Any]) -> str:
    """What the head says about the body."""
    if plan.content_type is not None:
        return plan.content_type
    is_stream = bool(request.get("stream")) and plan.status < 400 and plan.error is None
    return "text/event-stream; charset=utf-8" if is_stream else "application/json"


def body_of(plan: Plan, request: Mapping[str, Any]) -> bytes:
    """All of the body, if nothing cuts it: what `cut_at_byte` and its like count in."""
    return b"".join(piece.data for piece in pieces_of(plan, request))


def event_of(plan: Plan, kind: str, nth: int = 0, request: Mapping[str, Any] | None = None) -> int:
    """The number of the nth event of a kind: preamble, role, reasoning, text, tool, finish, usage, done.

    Raises:
        LookupError: when there is no such event.
    """
    asked = request or {"stream": True, "stream_options": {"include_usage": True}}
    numbers = [piece.event for piece in _honest(plan, asked) if piece.kind == kind]
    if nth >= len(numbers) or numbers[nth] is None:
        raise LookupError(f"{len(numbers)} events of kind {kind!r}, asked for number {nth}")
    return int(numbers[nth] or 0)


def pieces_of(plan: Plan, request: Mapping[str, Any]) -> list[Piece]:
    """The body, piece by piece, faults of content included."""
    if plan.body is not None:
        return [Piece(plan.body, "body", 0)]
    if plan.error is not None or plan.status >= 400:
        return [Piece(_dump(plan.error or _default_error(plan.status)), "error", 0)]
    if not request.get("stream"):
        return [_completion(plan, request)]
    return [piece for piece in _spoilt(plan, _honest(plan, request)) if piece.data]


def _default_error(status: int) -> dict[str, Any]:
    return {"error": {"message": f"refused with {status}", "type": "error", "param": None, "code": None}}


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _spoilt(plan: Plan, honest: list[Piece]) -> Iterator[Piece]:
    """The honest events with everything that the plan puts among them."""
    yield Piece(plan.prologue, "prologue")
    for number, piece in enumerate(honest):
        if plan.error_event_at and plan.error_event_at[0] == number:
            yield Piece(_error_frame(plan), "error", number)
            break
        garbage = plan.garbage if plan.garbage and plan.garbage.at == number else None
        if garbage:
            yield Piece(_garbage(plan, garbage, piece) * garbage.count, "garbage")
        if plan.comment is not None:
            yield Piece(f":{plan.comment}{plan.newline * 2}".encode(), "comment")
        if not (garbage and garbage.replace):
            yield piece
        if number in plan.duplicates:
            yield Piece(piece.data, "duplicate")
    yield Piece(plan.epilogue, "epilogue")


def _error_frame(plan: Plan) -> bytes:
    assert plan.error_event_at is not None
    payload = plan.error_event_at[1]
    return payload if isinstance(payload, bytes) else _frame(plan, _dump(payload))


def _frame(plan: Plan, payload: bytes) -> bytes:
    end = plan.newline.encode()
    lines = [*(line.encode() for line in plan.frame_lines), plan.data_prefix.encode() + payload]
    return end.join(lines) + end * 2


def _garbage(plan: Plan, garbage: Garbage, victim: Piece) -> bytes:
    match garbage.kind:
        case "json":
            return _frame(plan, b'{"id": oops}')
        case "utf8":
            return _frame(plan, b'{"choices":[{"index":0,"delta":{"content":"\xff\xfe\xc3("},"finish_reason":null}]}')
        case "oversize":
            return _frame(plan, b'{"x":"' + b"x" * garbage.size + b'"}')
        case "not_object":
            return _frame(plan, b"[1,2,3]")
        case "shape":
            return _frame(plan, b'{"object":"chat.completion.chunk","choices":"none"}')
        case "html":
            return b"<html><body>502 Bad Gateway</body></html>" + plan.newline.encode() * 2
        case "truncated":
            payload = victim.data.partition(plan.data_prefix.encode())[2]
            return _frame(plan, payload[: len(payload) // 2])


def _honest(plan: Plan, request: Mapping[str, Any]) -> list[Piece]:
    """The events of a provider that behaves."""
    payloads: list[tuple[str, bytes, int]] = [
        ("preamble", _dump({**_envelope(plan, request), **raw}), 0) for raw in plan.preamble
    ]
    drafts = _drafts(plan, request)
    _settle_usage(plan, request, drafts)
    payloads += [(draft.kind, _dump(_chunk(plan, request, draft)), draft.tokens) for draft in drafts]
    if not plan.no_done:
        payloads.append(("done", DONE.encode(), 0))
    return [
        Piece(_frame(plan, payload), kind, number, tokens) for number, (kind, payload, tokens) in enumerate(payloads)
    ]


def _envelope(plan: Plan, request: Mapping[str, Any]) -> dict[str, Any]:
    model = request.get("model") or "chaos"
    return {"id": wire_id(plan), "object": "chat.completion.chunk", "created": CREATED, "model": model}


def _asked_for_usage(request: Mapping[str, Any]) -> bool:
    return bool((request.get("stream_options") or {}).get("include_usage"))


def _chunk(plan: Plan, request: Mapping[str, Any], draft: _Draft) -> dict[str, Any]:
    chunk = {**_envelope(plan, request), **plan.extra_chunk, "choices": draft.choices}
    if draft.usage is not None or (plan.usage == "asked" and _asked_for_usage(request)):
        chunk["usage"] = draft.usage
    return chunk


def _settle_usage(plan: Plan, request: Mapping[str, Any], drafts: list[_Draft]) -> None:
    """Puts usage where this vendor puts it."""
    so_far = 0
    for draft in drafts:
        so_far += draft.tokens
        if plan.usage == "every":
            draft.usage = usage_of(plan, request, so_far)
    if plan.usage == "finish" and drafts:
        drafts[-1].usage = usage_of(plan, request, so_far)
    if plan.usage == "always" or (plan.usage == "asked" and _asked_for_usage(request)):
        drafts.append(_Draft("usage", [], usage=usage_of(plan, request, so_far)))


def _drafts(plan: Plan, request: Mapping[str, Any]) -> list[_Draft]:
    """Role, reasoning, text and tools of all choices, interleaved, and their ends."""
    numbers = range(choices_of(plan, request))
    drafts = [_draft(plan, "role", c, {"role": "assistant", "content": ""}) for c in numbers if plan.role_chunk]
    tracks = [list(_deltas(plan, c)) for c in numbers]
    for step in range(max(map(len, tracks))):
        drafts += [track[step] for track in tracks]
    if plan.no_finish:
        return drafts
    reason = plan.finish_reason or ("tool_calls" if plan.tools else "stop")
    if plan.finish_with_last and len(drafts) >= len(numbers):
        for draft in drafts[-len(numbers) :]:
            draft.choices[0]["finish_reason"] = reason
        return drafts
    return drafts + [_draft(plan, "finish", c, {}, reason=reason) for c in numbers]


def _draft(
    plan: Plan, kind: str, choice: int, delta: Mapping[str, Any], tokens: int = 0, reason: str | None = None
) -> _Draft:
    merged = {**plan.extra_delta, **delta}
    said = {**plan.extra_choice, "index": choice, "delta": merged, "finish_reason": reason}
    return _Draft(kind, [said], tokens)


def _deltas(plan: Plan, choice: int) -> Iterator[_Draft]:
    """One choice: reasoning, then text, then tools."""
    seed = choice_seed(plan.seed, choice)
    for text, tokens in _grouped(plan, reasoning_seed(seed), plan.reasoning):
        yield _draft(plan, "reasoning", choice, {plan.reasoning_key: text}, tokens)
    member = "refusal" if plan.refusal else "content"
    for text, tokens in _grouped(plan, seed, plan.tokens):
        yield _draft(plan, "text", choice, {member: text}, tokens)
    for index, tool in enumerate(plan.tools):
        for fragment in _fragments(tool, plan.tool_fragment):
            said = {"index": 0 if plan.tool_index_zero else index, **fragment}
            yield _draft(plan, "tool", choice, {"tool_calls": [said]}, 1)


def _grouped(plan: Plan, seed: int, n: int) -> Iterator[tuple[str, int]]:
    for first in range(0, n, plan.tokens_per_event):
        group = range(first, min(first + plan.tokens_per_event, n))
        yield "".join(truth_token(seed, i) for i in group), len(group)


def _fragments(tool: Tool, size: int) -> Iterator[dict[str, Any]]:
    yield {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": ""}}
    for at in range(0, len(tool.arguments), size):
        yield {"function": {"arguments": tool.arguments[at : at + size]}}


def _completion(plan: Plan, request: Mapping[str, Any]) -> Piece:
    """The whole answer as one object."""
    answer = {
        **_envelope(plan, request),
        **plan.extra_chunk,
        "object": "chat.completion",
        "choices": [_whole_choice(plan, c) for c in range(choices_of(plan, request))],
    }
    if plan.usage != "never":
        answer["usage"] = usage_of(plan, request)
    return Piece(_dump(answer), "json", 0, sum(draft.tokens for draft in _drafts(plan, request)))


def _whole_choice(plan: Plan, choice: int) -> dict[str, Any]:
    text = plan.text(choice)
    message: dict[str, Any] = {**plan.extra_delta, "role": "assistant", "content": text or None}
    if plan.refusal:
        message |= {"content": None, "refusal": text}
    if plan.reasoning:
        message[plan.reasoning_key] = plan.reasoning_text(choice)
    if plan.tools:
        message["tool_calls"] = [
            {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": tool.arguments}}
            for tool in plan.tools
        ]
    reason = None if plan.no_finish else plan.finish_reason or ("tool_calls" if plan.tools else "stop")
    return {**plan.extra_choice, "index": choice, "message": message, "finish_reason": reason}
