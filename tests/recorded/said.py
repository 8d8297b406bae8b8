"""What a stream said, in no vendor's shape, so that two vendors' clients can be compared: never a word of the product.

Compared are the first choice's text, shown reasoning, tool calls (name, arguments as JSON), why it ended, and usage.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.recorded.accumulate import accumulated

Members = dict[str, Any]
_FROM_ANTHROPIC = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause_turn": "stop",
}
_OLD = {"function_call": "tool_calls"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens: all of the prompt, those of it that came from a cache, and the answer's."""

    prompt: int
    cached: int
    answer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The answer. `finish` is OpenAI's word; `usage` is None where the vendor said none."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    finish: str | None = None
    usage: Usage | None = None


def of_openai(chunks: list[Members]) -> Said:
    """What chunks of chat completions said."""
    whole = accumulated(chunks)
    choice = whole["choices"].get(0, {"delta": {}, "calls": []})
    delta, finish = choice["delta"], choice.get("finish_reason")
    if delta.get("refusal"):
        finish = "content_filter"  # a model that refuses says so in a member of its own, and ends with a plain stop
    return Said(
        text=(delta.get("content") or "") + (delta.get("refusal") or ""),
        reasoning=delta.get("reasoning_content") or delta.get("reasoning") or _thoughts(chunks),
        calls=[(call.get("name", ""), _arguments(call["arguments"])) for call in choice["calls"]],
        finish=_OLD.get(finish, finish),
        usage=_openai_usage(whole.get("usage")),
    )


def _thoughts(chunks: list[Members]) -> str:
    """What Mistral's lists of parts say: the SDK knows none, and replaces them by the text that follows."""
    contents = [choice.get("delta", {}).get("content") for chunk in chunks for choice in chunk["choices"]]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return "".join(piece["text"] for part in parts if part["type"] == "thinking" for piece in part["thinking"])


def of_openai_whole(completion: Members) -> Said:
    """What a completion in one piece said."""
    choices = [{**choice, "delta": choice["message"]} for choice in completion["choices"]]
    return of_openai([{**completion, "choices": choices}])


def _openai_usage(usage: Members | None) -> Usage | None:
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or 0
    prompt = max(usage["prompt_tokens"], cached)  # one recorded host tells of more cached tokens than there were
    return Usage(prompt=prompt, cached=cached, answer=usage["completion_tokens"])


def of_anthropic(message: Members) -> Said:
    """What a message said; what a server's own tools did is no call."""
    blocks = message["content"]
    usage = message["usage"]
    cached = usage.get("cache_read_input_tokens") or 0
    prompt = (usage.get("input_tokens") or 0) + cached + (usage.get("cache_creation_input_tokens") or 0)
    return Said(
        text="".join(block["text"] for block in blocks if block["type"] == "text"),
        reasoning="".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        calls=[(block["name"], block["input"] or {}) for block in blocks if block["type"] == "tool_use"],
        finish=_FROM_ANTHROPIC.get(message["stop_reason"], message["stop_reason"]),
        usage=Usage(prompt=prompt, cached=cached, answer=usage["output_tokens"]),
    )


def of_ollama(lines: list[Members]) -> Said:
    """What the lines of a chat said; a stop after tool calls is theirs, as other vendors have it."""
    messages = [line["message"] for line in lines]
    calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    last = lines[-1]
    reason = "tool_calls" if calls and last["done_reason"] == "stop" else last["done_reason"]
    counts = (last.get("prompt_eval_count"), last.get("eval_count"))
    known = Usage(prompt=counts[0] or 0, cached=0, answer=counts[1]) if counts[1] is not None else None
    return Said(
        text="".join(message.get("content") or "" for message in messages),
        reasoning="".join(message.get("thinking") or "" for message in messages),
        calls=[(call["name"], dict(call["arguments"])) for call in calls],
        finish=reason,
        usage=known,
    )


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text
