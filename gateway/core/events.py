"""The events of a stream: one tagged union for every provider, dialect, journal and agent.

Deltas are stored, not rendered chunks. As MessagePack arrays a five-letter text delta takes 11 bytes. There is no
`error` event (EventSource owns that name): a failure is `End` with state `failed`.

Oddities, on purpose:
1. One upstream chunk gives 1..k events. All but the last have `more` set, so that the same dialect renders one chunk
   back. A chunk's events are always appended together.
2. `Extra` holds what the canonical events cannot say. Without a choice its patch belongs to the envelope of *every*
   chunk from here on, until the next such extra: vendors repeat these members (fingerprint, service tier) on each
   chunk, the log need not. With a choice it belongs to the one chunk that it precedes.
3. An `Extra` without `more` is a chunk of its own that says nothing canonical (a role chunk, Azure's first chunk).
"""

from enum import StrEnum
from typing import Any, Literal, TypeAlias

import msgspec

from gateway.core.errors import Category, Failure
from gateway.core.usage import Usage

FORMAT_VERSION = 1


class State(StrEnum):
    """States of a stream; `TERMINAL` ones are final."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"
    FAILED = "failed"


TERMINAL = frozenset({State.COMPLETED, State.INCOMPLETE, State.CANCELLED, State.FAILED})

FinishReason: TypeAlias = Literal[
    "stop", "length", "tool_calls", "content_filter", "stop_sequence", "refusal", "pause_turn"
]


class _Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all events share: positional, immutable, cheap."""


class Start(_Event, frozen=True, tag=0):
    """Seq 0: everything that rendering needs. `flags` are the dialect's own (for example `include_usage`)."""

    sid: str
    wire_id: str
    created: int
    model: str
    dialect: str
    flags: dict[str, Any] = {}
    version: int = FORMAT_VERSION


class Text(_Event, frozen=True, tag=1):
    """A piece of the visible answer of one choice."""

    choice: int
    text: str
    more: bool = False


class Reasoning(_Event, frozen=True, tag=2):
    """A piece of shown reasoning; `key` is the member that the source used for it."""

    choice: int
    text: str
    key: str = "reasoning_content"
    more: bool = False


class Refusal(_Event, frozen=True, tag=3):
    """A piece of a refusal."""

    choice: int
    text: str
    more: bool = False


class ToolCall(_Event, frozen=True, tag=4):
    """A fragment of one tool call: `index` is dense per choice, `id` and `name` come on the first fragment only."""

    choice: int
    index: int
    arguments: str
    id: str | None = None
    name: str | None = None
    more: bool = False


class Finish(_Event, frozen=True, tag=5):
    """One choice is done. `source` is the provider's own word where it has no canonical one."""

    choice: int
    reason: FinishReason
    source: str | None = None
    more: bool = False


class Extra(_Event, frozen=True, tag=6):
    """What the canonical events do not say, in the source dialect; see oddities 2 and 3.

    `content` is set by the adapter when this is a part of the answer (audio, lists of parts, citations).
    """

    dialect: str
    patch: dict[str, Any]
    choice: int | None = None
    more: bool = False
    content: bool = False


class UsageReport(_Event, frozen=True, tag=7):
    """Cumulative usage, the last one wins; `source` is the provider's own object, for the same dialect.

    `billed` is what the leg itself took, where it continued an answer and clients are told of the whole: `usage`.
    """

    usage: Usage
    dialect: str = ""
    source: dict[str, Any] | None = None
    more: bool = False
    billed: Usage | None = None


RESTART = "restart"
"""The strategy of a leg that begins the answer anew: what earlier legs said is no part of it."""

OUTRUN = "outrun"
"""The strategy of a leg that gave no content, because another one, asked beside it, was faster: it is only billed."""

BEGUN_ANEW = Failure(Category.STREAM_ERROR, "the answer was begun anew on another endpoint; read it again at its end")
"""What a live reader gets that was shown an earlier leg in a dialect that cannot take it back."""


class Leg(_Event, frozen=True, tag=8):
    """An upstream attempt that begins to produce output."""

    leg: int
    endpoint: str
    provider: str
    strategy: str
    why: str
    more: bool = False


class Progress(_Event, frozen=True, tag=9):
    """A step of an agent run."""

    agent: str
    step: str
    kind: str
    parent: str | None = None
    data: dict[str, Any] = {}
    more: bool = False


class Pause(_Event, frozen=True, tag=10):
    """Readers wait here until a resume or a terminal event exists."""

    reason: str | None = None


class Resume(_Event, frozen=True, tag=11):
    """Readers may go on."""

    reason: str | None = None


class Claim(_Event, frozen=True, tag=12):
    """Another owner took the log's write right over."""

    owner: str


class End(_Event, frozen=True, tag=13):
    """The one terminal event, always last. `state` is terminal; `reason` says why, in one word."""

    state: State
    reason: str | None = None
    failure: Failure | None = None
    usage: Usage | None = None
    legs: int = 0


# What a source may yield; everything else is appended by control steps.
SourceEvent: TypeAlias = Text | Reasoning | Refusal | ToolCall | Finish | Extra | UsageReport | Leg | Progress
ControlEvent: TypeAlias = Start | Pause | Resume | Claim | End
Event: TypeAlias = SourceEvent | ControlEvent

# The first of these, appended, is the commit point: before it every failure can be hidden from the client.
SEMANTIC = (Text, Reasoning, Refusal, ToolCall)


def is_content(event: Event) -> bool:
    """Whether `event` is such a delta, in canonical form or in its dialect's own."""
    return event.content if isinstance(event, Extra) else isinstance(event, SEMANTIC)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Event])


encode = _encoder.encode
"""Consecutive events -> their stored form."""


def decode(data: bytes) -> list[Event]:
    """The events of a stored entry.

    Raises:
        msgspec.MsgspecError: when `data` is not what `encode` made.
    """
    return _decoder.decode(data)
