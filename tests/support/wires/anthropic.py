"""Anthropic messages: named events, one block after another, usage at the start and cumulative at the end.

The events: start, then for each block of thinking, text or tools open, its deltas (reasoning and one `signature`, text,
tool) and close; a `ping` follows the first open; then finish (`message_delta`) and done (`message_stop`).

One choice only. `usage`: `never` leaves it out everywhere, `finish` says zeros at the start and all of it at the end,
as some compatible hosts do; every other style is Anthropic's own. `refusal` is text and its stop reason. `extra_chunk`
is merged into each event, `extra_choice` into each block, `extra_delta` into each delta; `preamble` are whole events.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.plan import Plan, Refused
from tests.support.truth import reasoning_seed
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

COUNT_PATH = "/messages/count_tokens"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_Said = tuple[str, Mapping[str, Any], int]


def wire_id(plan: Plan) -> str:
    """The message's id."""
    return f"msg_chaos{plan.seed}"


def signature_of(plan: Plan) -> str:
    """What signs the thinking, which nobody may change."""
    return f"c2lnbmF0dXJl/{plan.seed}+=="


def tokens_of(plan: Plan) -> int:
    """Output tokens of the whole answer."""
    return sum(tokens for _, deltas in _blocks(plan) for _, _, tokens in deltas) + len(plan.tools)


def usage_of(plan: Plan, request: Request, tokens: int | None = None) -> dict[str, Any]:
    """The usage after `tokens` of the answer, or of all: what came from a cache is not among the input tokens."""
    return {
        "input_tokens": prompt_tokens(request) - plan.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": plan.cached,
        "output_tokens": tokens_of(plan) if tokens is None else tokens,
    }


def counted(request: Request) -> bytes:
    """The answer to who asks how long a prompt is."""
    return dump({"input_tokens": prompt_tokens(request)})


def _events(plan: Plan, request: Request) -> list[Event]:
    found = [_event(plan, "preamble", raw.get("type", "preamble"), raw) for raw in plan.preamble]
    found.append(_event(plan, "start", "message_start", {"message": _started(plan, request)}))
    for index, (block, deltas) in enumerate(_blocks(plan)):
        opened = {"index": index, "content_block": {**block, **plan.extra_choice}}
        found.append(_event(plan, "open", "content_block_start", opened, 1 if block["type"] == "tool_use" else 0))
        if index == 0:
            found.append(_event(plan, "ping", "ping", {}))
        for kind, delta, tokens in deltas:
            said = {"index": index, "delta": {**plan.extra_delta, **delta}}
            found.append(_event(plan, kind, "content_block_delta", said, tokens))
        found.append(_event(plan, "close", "content_block_stop", {"index": index}))
    if not plan.no_finish:
        found.append(_event(plan, "finish", "message_delta", _finish(plan, request)))
    return found if plan.no_done else [*found, _event(plan, "done", "message_stop", {})]


def _event(plan: Plan, kind: str, type_: str, members: Mapping[str, Any], tokens: int = 0) -> Event:
    return Event(kind, dump({"type": type_, **members, **plan.extra_chunk}), tokens, type_)


def _started(plan: Plan, request: Request) -> dict[str, Any]:
    message = _message(plan, request)
    if plan.usage == "finish":
        message["usage"] = {"input_tokens": 0, "output_tokens": 0}
    elif plan.usage != "never":
        message["usage"] = usage_of(plan, request, 1)
    return message


def _message(plan: Plan, request: Request) -> dict[str, Any]:
    return {
        "id": wire_id(plan),
        "type": "message",
        "role": "assistant",
        "model": request.get("model") or "chaos",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _finish(plan: Plan, request: Request) -> dict[str, Any]:
    said: dict[str, Any] = {"delta": {"stop_reason": _reason(plan), "stop_sequence": None}}
    return said if plan.usage == "never" else {**said, "usage": usage_of(plan, request)}


def _reason(plan: Plan) -> str:
    return plan.finish_reason or ("refusal" if plan.refusal else "tool_use" if plan.tools else "end_turn")


def _blocks(plan: Plan) -> Iterator[tuple[dict[str, Any], list[_Said]]]:
    """Each block as it opens, with its deltas."""
    if plan.reasoning:
        thinking: list[_Said] = [
            ("reasoning", {"type": "thinking_delta", "thinking": text}, tokens)
            for text, tokens in grouped(plan, reasoning_seed(plan.seed), plan.reasoning)
        ]
        signature: _Said = ("signature", {"type": "signature_delta", "signature": signature_of(plan)}, 0)
        yield {"type": "thinking", "thinking": "", "signature": ""}, [*thinking, signature]
    if plan.tokens:
        texts = grouped(plan, plan.seed, plan.tokens)
        yield {"type": "text", "text": ""}, [("text", {"type": "text_delta", "text": text}, n) for text, n in texts]
    for tool in plan.tools:
        fragments = parts(plan, tool)
        block = {"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}}
        yield block, [("tool", {"type": "input_json_delta", "partial_json": part}, 1) for part in fragments]


def _whole(plan: Plan, request: Request) -> Event:
    content: list[dict[str, Any]] = []
    if plan.reasoning:
        content.append({"type": "thinking", "thinking": plan.reasoning_text(), "signature": signature_of(plan)})
    if plan.tokens:
        content.append({"type": "text", "text": plan.text()})
    content += [
        {"type": "tool_use", "id": tool.id, "name": tool.name, "input": json.loads(tool.arguments)}
        for tool in plan.tools
    ]
    blocks = [{**block, **plan.extra_choice} for block in content]
    answer = {**_message(plan, request), **plan.extra_chunk, "content": blocks}
    answer["stop_reason"] = None if plan.no_finish else _reason(plan)
    if plan.usage != "never":
        answer["usage"] = usage_of(plan, request)
    return Event("json", dump(answer), tokens_of(plan))


def _refusal(plan: Plan, refused: Refused) -> dict[str, Any]:
    error: dict[str, Any] = {"type": refused.type or _TYPES.get(plan.status, "api_error"), "message": refused.message}
    if refused.code is not None:
        error["details"] = {"error_code": refused.code}
    return {"type": "error", "error": error, "request_id": f"req_chaos{plan.seed}"}


ANTHROPIC = Wire(
    name="anthropic",
    path="/messages",
    stream_type="text/event-stream; charset=utf-8",
    streams=is_asked_to_stream,
    events=_events,
    whole=_whole,
    frame=sse_frame,
    comment=sse_comment,
    refusal=_refusal,
    malformed={
        "json": b'{"type": oops}',
        "utf8": b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\xff\xfe\xc3("}}',
        "not_object": b"[1,2,3]",
        "shape": b'{"type":"content_block_delta","index":0,"delta":"none"}',
    },
    error_name="error",
    id_header="request-id",
)
