"""Ollama chat: one JSON object a line; the last one says `done`, why, and how much.

The events: reasoning (`thinking`), text, tool (whole, arguments as an object, without an id), done.

One choice only. `no_finish` is a last line without a reason, `no_done` no last line; `finish_with_last` puts the last
words on the last line. `usage` is on the last line unless `never`. A refusal's text is plain text, what was `cached` is
not said. `extra_chunk` is merged into each line, `extra_delta` into each message; `preamble` are whole lines. A comment
is an empty line, and what else is a matter of server-sent events does nothing.
"""

import json
from collections.abc import Mapping
from typing import Any

from tests.support.plan import Plan, Refused
from tests.support.truth import reasoning_seed
from tests.support.wires.seam import Event, Request, Wire, dump, grouped, prompt_tokens

CREATED = "2026-11-23T05:00:00.000000Z"
_DURATIONS = {"total_duration": 900, "load_duration": 100, "prompt_eval_duration": 300, "eval_duration": 500}


def tokens_of(plan: Plan) -> int:
    """Output tokens of the whole answer: a tool call is one."""
    return plan.reasoning + plan.tokens + len(plan.tools)


def usage_of(plan: Plan, request: Request) -> dict[str, Any]:
    """The counts of the last line."""
    return {"prompt_eval_count": prompt_tokens(request), "eval_count": tokens_of(plan)}


def _streams(request: Request) -> bool:
    return request.get("stream") is not False


def _events(plan: Plan, request: Request) -> list[Event]:
    said = [
        Event(kind, dump(_line(plan, request, message, is_done=False)), tokens)
        for kind, message, tokens in _messages(plan)
    ]
    found = [Event("preamble", dump({**_envelope(request), **raw})) for raw in plan.preamble] + said
    if plan.no_done:
        return found
    if plan.finish_with_last and said:
        _, message, tokens = _messages(plan)[-1]
        last = {**_line(plan, request, message, is_done=True), **_end(plan, request)}
        return [*found[:-1], Event("done", dump(last), tokens)]
    last = {**_line(plan, request, {"content": ""}, is_done=True), **_end(plan, request)}
    return [*found, Event("done", dump(last))]


def _messages(plan: Plan) -> list[tuple[str, dict[str, Any], int]]:
    thinking = grouped(plan, reasoning_seed(plan.seed), plan.reasoning)
    said: list[tuple[str, dict[str, Any], int]] = [
        ("reasoning", {"content": "", "thinking": text}, tokens) for text, tokens in thinking
    ]
    said += [("text", {"content": text}, tokens) for text, tokens in grouped(plan, plan.seed, plan.tokens)]
    return said + [("tool", {"content": "", "tool_calls": [call]}, 1) for call in _calls(plan)]


def _calls(plan: Plan) -> list[dict[str, Any]]:
    return [{"function": {"name": tool.name, "arguments": json.loads(tool.arguments)}} for tool in plan.tools]


def _envelope(request: Request) -> dict[str, Any]:
    return {"model": request.get("model") or "chaos", "created_at": CREATED}


def _line(plan: Plan, request: Request, message: Mapping[str, Any], *, is_done: bool) -> dict[str, Any]:
    spoken = {**plan.extra_delta, "role": "assistant", **message}
    return {**_envelope(request), "message": spoken, "done": is_done, **plan.extra_chunk}


def _end(plan: Plan, request: Request) -> dict[str, Any]:
    reason = {} if plan.no_finish else {"done_reason": plan.finish_reason or "stop"}
    counts = {} if plan.usage == "never" else {**_DURATIONS, **usage_of(plan, request)}
    return {**reason, **counts}


def _whole(plan: Plan, request: Request) -> Event:
    message: dict[str, Any] = {"content": plan.text()}
    if plan.reasoning:
        message["thinking"] = plan.reasoning_text()
    if plan.tools:
        message["tool_calls"] = _calls(plan)
    answer = {**_line(plan, request, message, is_done=True), **_end(plan, request)}
    return Event("json", dump(answer), tokens_of(plan))


def _frame(plan: Plan, payload: bytes, _name: str | None) -> bytes:
    return payload + plan.newline.encode()


def _comment(plan: Plan, _text: str) -> bytes:
    return plan.newline.encode()


def _refusal(_plan: Plan, refused: Refused) -> dict[str, Any]:
    return {"error": refused.message}


OLLAMA = Wire(
    name="ollama",
    path="/api/chat",
    stream_type="application/x-ndjson",
    streams=_streams,
    events=_events,
    whole=_whole,
    frame=_frame,
    comment=_comment,
    refusal=_refusal,
    malformed={
        "json": b'{"model": oops}',
        "utf8": b'{"message":{"role":"assistant","content":"\xff\xfe\xc3("},"done":false}',
        "not_object": b"[1,2,3]",
        "shape": b'{"message":"none","done":false}',
    },
)
