"""How many tokens a text probably is: pure estimates, for when no provider says it.

The unit is UTF-8 bytes per token, because one figure then serves most scripts: what takes more bytes a character (two
in Cyrillic, three in Chinese) takes more tokens too, by about as much. Characters per token would differ threefold.
What a model really needs is learnt from finished streams, see `gateway/pool/tokens.py`.

Many vendors send one token an event. Where an event is about as long as a token, events are the better count.
Reasoning that is billed but not shown, and what server-side tools do, cannot be seen and is in no estimate.

Framing, tools and images follow OpenAI's published arithmetic: 3 tokens a message and 3 to prime the answer (cookbook,
"How to count tokens with tiktoken"); an image of 1024 x 1024 in high detail takes 765 tokens, in low detail 85 (vision
guide). Anthropic's figure for the same image is about 1,400. Sizes cannot be known: Atlas never fetches an image.
"""

import math

import msgspec

from gateway.core.chat import (
    ChatRequest,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)

BYTES_PER_TOKEN = 4.2
"""UTF-8 bytes of one token where nothing was learnt: the median of 23 recorded answers of seven vendors."""

JSON_BYTES_PER_TOKEN = 3.4
"""The same for a structured answer, which has more punctuation."""

CALL_TOKENS = 13.0
"""What a tool call takes beside its name and arguments, where nothing was learnt: so it is with OpenAI's models."""

MESSAGE_TOKENS = 3
ANSWER_TOKENS = 3
TOOL_TOKENS = 8
IMAGE_TOKENS = 765
LOW_DETAIL_TOKENS = 85


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What went by of one answer.

    `size` is UTF-8 bytes of text, reasoning, refusals, tool names and arguments; `events` those that had any of it;
    `calls` tool calls; `reasoning` the bytes of `size` that were reasoning; `opaque` parts that only their dialect
    understands.
    """

    size: int = 0
    events: int = 0
    calls: int = 0
    reasoning: int = 0
    opaque: int = 0


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How a model's tokens relate to what can be counted.

    An event is taken for `1 / events_per_token` tokens if it has between `event_bytes[0]` and `event_bytes[1]` bytes
    on average; `events_per_token` None: never.
    """

    bytes_per_token: float = BYTES_PER_TOKEN
    events_per_token: float | None = 1.0
    event_bytes: tuple[float, float] = (2.5, 6.5)
    call_tokens: float = CALL_TOKENS


UNKNOWN = Ratio()


def estimate_output_tokens(counted: Counted, ratio: Ratio = UNKNOWN) -> int:
    """Tokens of an answer, or of the part of it that came; at least one if anything came."""
    if not counted.events:
        return 0
    tokens = counted.size / ratio.bytes_per_token
    low, high = ratio.event_bytes
    if ratio.events_per_token is not None and low <= counted.size / counted.events <= high:
        tokens = counted.events / ratio.events_per_token
    return max(1, round(tokens + ratio.call_tokens * counted.calls))


def estimate_input_tokens(request: ChatRequest, bytes_per_token: float = BYTES_PER_TOKEN) -> int:
    """Tokens of the whole prompt: turns, tool schemas, images and other files at a flat figure each.

    `bytes_per_token` is what was learnt of the model, if anything.
    """
    size = sum(map(_message_bytes, request.messages)) + sum(map(_tool_bytes, request.tools))
    flat = ANSWER_TOKENS + MESSAGE_TOKENS * len(request.messages) + TOOL_TOKENS * len(request.tools)
    flat += sum(_flat_tokens(part) for message in request.messages for part in message.parts)
    if request.schema is not None:
        size += _json_bytes(request.schema)
    return flat + math.ceil(size / bytes_per_token)


def utf8_length(text: str) -> int:
    """Bytes of `text` in UTF-8; lone surrogates count three bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _message_bytes(message: Message) -> int:
    return sum(map(_part_bytes, message.parts)) + utf8_length(message.name or "")


def _part_bytes(part: Part) -> int:
    match part:
        case TextPart(text=text) | ReasoningPart(text=text) | ToolResultPart(text=text):
            return utf8_length(text)
        case ToolCallPart(name=name, arguments=arguments):
            return utf8_length(name) + utf8_length(arguments)
        case ImagePart() | OpaquePart():
            return 0


def _flat_tokens(part: Part) -> int:
    match part:
        case ImagePart(detail=detail):
            return LOW_DETAIL_TOKENS if detail == "low" else IMAGE_TOKENS
        case ToolResultPart(images=images):
            return sum(map(_flat_tokens, images))
        case OpaquePart():
            return IMAGE_TOKENS
        case _:
            return 0


def _tool_bytes(tool: Tool) -> int:
    described = utf8_length(tool.name) + utf8_length(tool.description or "")
    return described + (_json_bytes(tool.parameters) if tool.parameters else 0)


def _json_bytes(value: object) -> int:
    return len(msgspec.json.encode(value))
