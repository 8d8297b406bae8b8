"""What a wire is to the chaos provider, and what every wire says alike: the words of a plan and how they are counted.

A wire decides how an honest answer looks; where faults strike and how bytes go out is decided elsewhere, once for all.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.plan import Plan, Refused, Tool
from tests.support.truth import truth_token

Request = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One honest event: `payload` is its JSON, `name` its name where the wire names events.

    `tokens` are the tokens of the answer in it, over all choices.
    """

    kind: str
    payload: bytes
    tokens: int = 0
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """One language. `path` is how the path of its chat requests ends, `stream_type` the content type of a stream.

    `malformed` holds what takes a frame's place, by kind of garbage; `error_name` names an error's frame,
    `id_header` is where a request's id is told.
    """

    name: str
    path: str
    stream_type: str
    streams: Callable[[Request], bool]
    events: Callable[[Plan, Request], list[Event]]
    whole: Callable[[Plan, Request], Event]
    frame: Callable[[Plan, bytes, str | None], bytes]
    comment: Callable[[Plan, str], bytes]
    refusal: Callable[[Plan, Refused], dict[str, Any]]
    malformed: Mapping[str, bytes]
    error_name: str | None = None
    id_header: str = "x-request-id"


def dump(value: Any) -> bytes:
    """JSON without blanks, not escaped beyond need."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def sse_frame(plan: Plan, payload: bytes, name: str | None) -> bytes:
    """A server-sent event in the plan's spelling."""
    end = plan.newline.encode()
    named = [f"event: {name}".encode()] if name else []
    lines = [*named, *(line.encode() for line in plan.frame_lines), plan.data_prefix.encode() + payload]
    return end.join(lines) + end * 2


def sse_comment(plan: Plan, text: str) -> bytes:
    """A comment, which every reader skips."""
    return f":{text}{plan.newline * 2}".encode()


def is_asked_to_stream(request: Request) -> bool:
    """Streams are answered to who asks for them."""
    return bool(request.get("stream"))


def prompt_tokens(request: Request) -> int:
    """Ten tokens a message."""
    return 10 * len(request.get("messages") or ())


def grouped(plan: Plan, seed: int, n: int) -> Iterator[tuple[str, int]]:
    """The first `n` tokens, as many in one text as the plan says; each text with its tokens. What is skipped is not."""
    skip = plan.skip if seed == plan.seed else 0
    for first in range(0, n, plan.tokens_per_event):
        group = range(first, min(first + plan.tokens_per_event, n))
        text = "".join(truth_token(seed, i) for i in group)
        skip, skipped = max(0, skip - len(text)), min(skip, len(text))
        if skipped < len(text):
            yield text[skipped:], len(group)


def parts(plan: Plan, tool: Tool) -> list[str]:
    """A tool's arguments in fragments."""
    size = plan.tool_fragment
    return [tool.arguments[at : at + size] for at in range(0, len(tool.arguments), size)]
