"""OpenAI chat completions: `data:` frames of chunks, `[DONE]` at the end."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.plan import Plan, Refused, Tool
from tests.support.truth import choice_seed, reasoning_seed
from tests.support.wires.seam import (
    Event,
    Request,
    Wire,
    dump,
    grouped,
    is_asked_to_stream,
    parts,
    prompt_tokens,
    sse_comment,
    sse_frame,
)

CREATED = 1_760_000_000
DONE = b"[DONE]"


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


def choices_of(plan: Plan, request: Request) -> int:
    """How many choices the answer has."""
    return plan.choices or int(request.get("n") or 1)


def usage_of(plan: Plan, request: Request, tokens: int | None = None) -> dict[str, Any]:
    """The usage that the provider reports: of all of the answer, or after `tokens` of it."""
    if tokens is None:
        tokens = sum(draft.tokens for draft in _drafts(plan, request))
    prompt = prompt_tokens(request)
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    if plan.cached:
        usage["prompt_tokens_details"] = {"cached_tokens": plan.cached}
    return usage


def _events(plan: Plan, request: Request) -> list[Event]:
    found = [Event("preamble", dump({**_envelope(plan, request), **raw})) for raw in plan.preamble]
    drafts = _drafts(plan, request)
    _settle_usage(plan, request, drafts)
    found += [Event(draft.kind, dump(_chunk(plan, request, draft)), draft.tokens) for draft in drafts]
    return found if plan.no_done else [*found, Event("done", DONE)]


def _refusal(plan: Plan, refused: Refused) -> dict[str, Any]:
    type_ = refused.type or ("invalid_request_error" if plan.status == 401 else "error")
    return {"error": {"message": refused.message, "type": type_, "param": None, "code": refused.code}}


def _envelope(plan: Plan, request: Request) -> dict[str, Any]:
    model = request.get("model") or "chaos"
    return {"id": wire_id(plan), "object": "chat.completion.chunk", "created": CREATED, "model": model}


def _asked_for_usage(request: Request) -> bool:
    return bool((request.get("stream_options") or {}).get("include_usage"))


def _chunk(plan: Plan, request: Request, draft: _Draft) -> dict[str, Any]:
    chunk = {**_envelope(plan, request), **plan.extra_chunk, "choices": draft.choices}
    if draft.usage is not None or (plan.usage == "asked" and _asked_for_usage(request)):
        chunk["usage"] = draft.usage
    return chunk


def _settle_usage(plan: Plan, request: Request, drafts: list[_Draft]) -> None:
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


def _drafts(plan: Plan, request: Request) -> list[_Draft]:
    """Role, reasoning, text and tools of all choices, interleaved, and their ends."""
    numbers = range(choices_of(plan, request))
    drafts = [_draft(plan, "role", c, {"role": "assistant", "content": ""}) for c in numbers if plan.role_chunk]
    tracks = [list(_deltas(plan, c)) for c in numbers]
    for step in range(max(map(len, tracks))):
        drafts += [track[step] for track in tracks]
    if plan.no_finish:
        return drafts
    reason = _reason(plan)
    if plan.finish_with_last and len(drafts) >= len(numbers):
        for draft in drafts[-len(numbers) :]:
            draft.choices[0]["finish_reason"] = reason
        return drafts
    return drafts + [_draft(plan, "finish", c, {}, reason=reason) for c in numbers]


def _reason(plan: Plan) -> str:
    return plan.finish_reason or ("tool_calls" if plan.tools else "stop")


def _draft(
    plan: Plan, kind: str, choice: int, delta: Mapping[str, Any], tokens: int = 0, reason: str | None = None
) -> _Draft:
    merged = {**plan.extra_delta, **delta}
    said = {**plan.extra_choice, "index": choice, "delta": merged, "finish_reason": reason}
    return _Draft(kind, [said], tokens)


def _deltas(plan: Plan, choice: int) -> Iterator[_Draft]:
    """One choice: reasoning, then text, then tools."""
    seed = choice_seed(plan.seed, choice)
    for text, tokens in grouped(plan, reasoning_seed(seed), plan.reasoning):
        yield _draft(plan, "reasoning", choice, {plan.reasoning_key: text}, tokens)
    member = "refusal" if plan.refusal else "content"
    for text, tokens in grouped(plan, seed, plan.tokens):
        yield _draft(plan, "text", choice, {member: text}, tokens)
    for index, tool in enumerate(plan.tools):
        for fragment in _fragments(plan, tool):
            said = {"index": 0 if plan.tool_index_zero else index, **fragment}
            yield _draft(plan, "tool", choice, {"tool_calls": [said]}, 1)


def _fragments(plan: Plan, tool: Tool) -> Iterator[dict[str, Any]]:
    yield {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": ""}}
    for part in parts(plan, tool):
        yield {"function": {"arguments": part}}


def _whole(plan: Plan, request: Request) -> Event:
    """The whole answer as one object."""
    answer = {
        **_envelope(plan, request),
        **plan.extra_chunk,
        "object": "chat.completion",
        "choices": [_whole_choice(plan, c) for c in range(choices_of(plan, request))],
    }
    if plan.usage != "never":
        answer["usage"] = usage_of(plan, request)
    return Event("json", dump(answer), sum(draft.tokens for draft in _drafts(plan, request)))


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
    reason = None if plan.no_finish else _reason(plan)
    return {**plan.extra_choice, "index": choice, "message": message, "finish_reason": reason}


OPENAI = Wire(
    name="openai",
    path="/chat/completions",
    stream_type="text/event-stream; charset=utf-8",
    streams=is_asked_to_stream,
    events=_events,
    whole=_whole,
    frame=sse_frame,
    comment=sse_comment,
    refusal=_refusal,
    malformed={
        "json": b'{"id": oops}',
        "utf8": b'{"choices":[{"index":0,"delta":{"content":"\xff\xfe\xc3("},"finish_reason":null}]}',
        "not_object": b"[1,2,3]",
        "shape": b'{"object":"chat.completion.chunk","choices":"none"}',
    },
)
