"""The canonical chat request: what every client dialect parses into and every provider is asked with.

A dialect fills the canonical fields and keeps the caller's body whole in `body`. A provider of the same dialect sends
`body` on (with its own model name and stream options), so that unknown members survive; any other provider builds its
request from the canonical fields, and refuses what they do not say (`own`) with an error that names it.
"""

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable, by keyword."""


class TextPart(_Value, frozen=True, tag="text"):
    """Plain text."""

    text: str


class ImagePart(_Value, frozen=True, tag="image"):
    """An image by URL (also `data:`); Atlas never fetches it."""

    url: str
    detail: str | None = None


class ToolCallPart(_Value, frozen=True, tag="tool_call"):
    """A call that the assistant made earlier; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class ToolResultPart(_Value, frozen=True, tag="tool_result"):
    """What a tool answered: text, and images where it gave any."""

    id: str
    text: str
    images: tuple[ImagePart, ...] = ()
    is_error: bool = False


class ReasoningPart(_Value, frozen=True, tag="reasoning"):
    """What the assistant thought in an earlier turn.

    Only its own vendor can check `signature`. Vendors ignore the thoughts of finished turns, so a provider of another
    dialect may leave this part out: that changes no answer.
    """

    text: str
    signature: str | None = None


class OpaquePart(_Value, frozen=True, tag="opaque"):
    """A part that only its own dialect understands (audio, files, vendors' own)."""

    kind: str
    data: dict[str, Any]


Part: TypeAlias = TextPart | ImagePart | ToolCallPart | ToolResultPart | ReasoningPart | OpaquePart


def joined(parts: Iterable[Part], role: Role = "user") -> str:
    """The text of a turn's parts, for a wire that takes one string.

    Parts are apart where the caller wrote them, so each begins a line; those of an answer are pieces of one text.
    """
    between = "" if role == "assistant" else "\n"
    return between.join(part.text for part in parts if isinstance(part, TextPart) and part.text)


class Message(_Value, frozen=True):
    """One turn."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None

    @property
    def text(self) -> str:
        """All text of the turn; see `joined`."""
        return joined(self.parts, self.role)


class Tool(_Value, frozen=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


CHOICES = frozenset({"auto", "none", "required"})
"""The words of `ChatRequest.tool_choice`: a tool that is called so cannot be chosen by its name."""


class ChatRequest(_Value, frozen=True):
    """One request for one answer (or `n` of them).

    `model` is what the client named. `tool_choice` is `auto`, `none`, `required` or a tool's name. `schema` is the JSON
    schema of a structured answer, `{}` for any JSON object. `effort` is how hard to think, `thinking_tokens` the most
    tokens to think for. `flags` go into the log's first entry for rendering. `own` are the paths of members of `body`
    that would change the answer and that the canonical fields do not say: only a provider of the same dialect may be
    asked with them. Members that change no answer (cache marks, tracing, accounting) are not among them. `headers` are
    those of the dialect that go on to a provider of the same dialect, by lower-case name. `tail` are turns that Atlas
    puts behind the caller's own to have an answer continued that broke off; they are not in `body`. A last one of the
    assistant is left open: the provider goes on with it.
    """

    dialect: str
    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    n: int = 1
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    effort: Effort | None = None
    thinking_tokens: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool | None = None
    schema: dict[str, Any] | None = None
    own: tuple[str, ...] = ()
    flags: dict[str, Any] = {}
    body: dict[str, Any] = {}
    headers: dict[str, str] = {}
    tail: tuple[Message, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ChatRequest)


def encode_request(request: ChatRequest) -> bytes:
    """The request as it is stored beside a log, for whoever takes the stream over.

    Raises:
        OverflowError: a number in it does not fit into 64 bits.
    """
    return _encoder.encode(request)


def decode_request(data: bytes) -> ChatRequest:
    """The request that `encode_request` stored.

    Raises:
        msgspec.MsgspecError: when `data` is not what it made.
    """
    return _decoder.decode(data)
