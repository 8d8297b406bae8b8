"""What the chaos provider shall do with one request, and what an observer must then have seen.

**Events.** The answer's honest data frames, counted from 0, on the OpenAI wire: preamble, role chunk, reasoning, text,
tool fragments, finish, usage, `[DONE]`; the other wires say theirs in `wires`. `stall_at_event`, `error_event_at`,
`gate`, `pace_s`, `duplicates` and `Garbage.at` speak of them; comments and inserted garbage are not counted.
`answer.event_of(plan, "text", i)` finds one.

**Bytes.** `cut_at_byte` (FIN), `reset_at_byte` (RST) and `end_at_byte` (the body ends properly, too early) take effect
when exactly that many bytes went out: of the body before transfer coding, or of all that is on the wire, head included,
with `count="wire"`. A bound that is never reached does nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.support.gate import Gate
from tests.support.truth import choice_seed, reasoning_seed, truth

UsageStyle = Literal["asked", "always", "every", "finish", "never"]
Prefill = Literal["ignores", "continues", "echoes", "refuses"]
GarbageKind = Literal["json", "utf8", "oversize", "not_object", "shape", "html", "truncated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool call of the answer; `arguments` is JSON text and goes out in fragments."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """`count` malformed frames in a row before event `at`, or instead of it with `replace`.

    `json`: not JSON. `utf8`: bytes that are no UTF-8 in a JSON string. `oversize`: one line of `size` bytes.
    `not_object`: a JSON array. `shape`: an object whose `choices` is a string. `html`: a line that is no SSE field,
    then a page. `truncated`: half of a chunk's JSON.
    """

    kind: GarbageKind
    at: int = 2
    count: int = 1
    replace: bool = False
    size: int = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a request is refused, in no wire's shape; an empty `type` means what the wire says by default."""

    message: str
    type: str = ""
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One answer. The default is an honest one of eight tokens; `with_()` gives a variation.

    Content: `tokens` of visible text (of `refusal` instead, if set) after `reasoning` tokens under `reasoning_key`,
    then `tools` in fragments of `tool_fragment` characters (`tool_index_zero`: several vendors always say index 0).
    `choices` overrides the request's `n`. `finish_reason` None means `stop`, or `tool_calls`. `usage`: an extra chunk
    if `asked` for, `always` that chunk, on `every` chunk, on the `finish` chunk, or `never`. `extra_*` are merged
    into each chunk, choice and delta; `preamble` are raw chunks before all (see `AZURE_FIRST`). `cached` of the
    prompt's tokens came from a cache. What a wire cannot say is not said; see `wires`.

    A request whose last turn of the assistant begins the answer: it `ignores` that, `continues` behind it (after the
    last `repeats` characters of it once more), `echoes` it first, or `refuses`. `skip` characters of the text are left
    out; the provider sets it.

    HTTP: `body` overrides all content. `framing` None means chunked streams and counted JSON. `error` is the JSON of
    a refusal, the same on every wire; `refused` is spelled as the wire does, and a status of 400 or more has one by
    default. `framing` `close` means HTTP/1.1 without length, ended by FIN. `content_encoding` `gzip` and `deflate` are
    true unless `encoding_lies`. `idle` says what becomes of the kept-alive connection after the answer.

    Bytes: `chunking` `event` writes frame by frame, `whole` everything at once, a number that many bytes at a time;
    a gate, a pace or a stall still acts frame by frame.
    `newline`, `data_prefix` and `frame_lines` (more lines in each frame, such as `event: message`) make other SSE
    spellings; `prologue` and `epilogue` are raw bytes around the body; `comment` goes before each event.
    """

    tokens: int = 8
    seed: int = 1
    choices: int | None = None
    tokens_per_event: int = 1
    refusal: bool = False
    reasoning: int = 0
    reasoning_key: str = "reasoning_content"
    tools: tuple[Tool, ...] = ()
    tool_fragment: int = 5
    tool_index_zero: bool = False
    finish_reason: str | None = None
    finish_with_last: bool = False
    usage: UsageStyle = "asked"
    cached: int = 0
    prefill: Prefill = "ignores"
    repeats: int = 0
    skip: int = 0
    role_chunk: bool = True
    preamble: tuple[Mapping[str, Any], ...] = ()
    extra_chunk: Mapping[str, Any] = field(default_factory=dict)
    extra_choice: Mapping[str, Any] = field(default_factory=dict)
    extra_delta: Mapping[str, Any] = field(default_factory=dict)

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    encoding_lies: bool = False
    body: bytes | None = None
    error: Mapping[str, Any] | None = None
    refused: Refused | None = None
    framing: Literal["chunked", "length", "close"] | None = None
    idle: Literal["keep", "close", "reset"] = "keep"
    slow_headers_s: float = 0
    hold_headers: Gate | None = None

    chunking: Literal["event", "whole"] | int = "event"
    pace_s: float = 0
    gate: Gate | None = None
    newline: str = "\n"
    data_prefix: str = "data: "
    frame_lines: tuple[str, ...] = ()
    comment: str | None = None
    prologue: bytes = b""
    epilogue: bytes = b""

    cut_at_byte: int | None = None
    reset_at_byte: int | None = None
    end_at_byte: int | None = None
    count: Literal["body", "wire"] = "body"
    stall_at_event: int | None = None
    error_event_at: tuple[int, Mapping[str, Any] | bytes] | None = None
    garbage: Garbage | None = None
    duplicates: frozenset[int] = frozenset()
    no_done: bool = False
    no_finish: bool = False

    def with_(self, **changes: Any) -> "Plan":
        """A variation."""
        return replace(self, **changes)

    def text(self, choice: int = 0) -> str:
        """The visible text of one choice, if nothing goes wrong."""
        return truth(choice_seed(self.seed, choice), self.tokens)

    def reasoning_text(self, choice: int = 0) -> str:
        """The shown reasoning of one choice, if nothing goes wrong."""
        return truth(reasoning_seed(choice_seed(self.seed, choice)), self.reasoning)


AZURE_FIRST: Mapping[str, Any] = {
    "choices": [],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}],
}
OPENROUTER_COMMENT = " OPENROUTER PROCESSING"


def refusing(status: int, *, code: str | None = None, type_: str = "", message: str = "", **headers: str) -> Plan:
    """A plan that refuses in the shape of the wire; `headers` are written with underscores (`retry_after="2"`)."""
    refused = Refused(message=message or f"refused with {status}", type=type_, code=code)
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return Plan(status=status, refused=refused, headers=spelled)
