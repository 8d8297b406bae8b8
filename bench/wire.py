"""What upstream and load generator agree on: model names, request and answer bytes.

The model name of a request is its script:

    bench-one           role chunk, one content chunk, the end, in one write
    bench-idle          role chunk, one content chunk, then silence until the client leaves
    bench-p<rate>-<n>   n content chunks, <rate> a second; the first one goes out at once
    bench-p<rate>-<n>w  the same on OpenAI's wire with a word as long as tokens are, and the time in a comment before it
    bench-u-<n>         n content chunks as fast as the socket takes them

Every paced content chunk carries its send time, CLOCK_MONOTONIC in nanoseconds: `t` and 16 digits. Chunks have the
length and the members of the vendor's, one HTTP chunk each. There are two wires, told apart by the request's path:
OpenAI's answer of n content chunks has n + 4 `data: ` frames (role, content, finish, usage, `[DONE]`), Anthropic's has
n + 5 or, with its ping, n + 6.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic_ns
from typing import Literal, TypeAlias

HOST = "127.0.0.1"
FRAME = b"data: "
EXTRA_FRAMES = 4
DONE = b"data: [DONE]"
STOP = b"event: message_stop"
LONGEST_END = 64  # bytes, within which either of them stands at the end of an answer
STAMP = re.compile(rb"t(\d{16})")
LAST_CHUNK = b"0\r\n\r\n"

Wire: TypeAlias = Literal["openai", "anthropic"]
PATHS: dict[Wire, str] = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
ENDS: dict[Wire, bytes] = {"openai": DONE, "anthropic": STOP}

_MODEL = re.compile(
    r"bench-(?:(?P<one>one)|(?P<idle>idle)|p(?P<rate>\d{1,4})-(?P<paced>\d{1,6})w?|u-(?P<unpaced>\d{1,6}))"
)
_BATCH = 32  # chunks per write of an unpaced stream, about 8 KiB

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
_CHUNK = (
    '{"id":"chatcmpl-CfEWgBDuZ2HvX1kQbV5nYtR0aJm3s","object":"chat.completion.chunk","created":1767225600,'
    '"model":"%s","system_fingerprint":"fp_50cad350e4","choices":%s%s}'
)
_CHOICE = '[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]'
_START = (
    '{"type":"message_start","message":{"model":"%s","id":"msg_015ZdAGWSyZwVr5WxHaN3vaf","type":"message",'
    '"role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":24,'
    '"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1,"service_tier":"standard"}}}'
)
_DELTA = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"t%s "}}'
_STOPPED = (
    '{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":%d}}'
)
_USAGE = ',"usage":{"prompt_tokens":24,"completion_tokens":%d,"total_tokens":%d}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the upstream does with a request.

    `opening` is the response head and the role chunk. Content chunks are `before`, 16 digits, `after`. `batch` is a
    write of up to 32 content chunks with a stamp of zeros. `ending` is all that follows the last content chunk.
    `rate` is chunks per second, 0 for unpaced.
    """

    opening: bytes
    before: bytes
    after: bytes
    ending: bytes
    chunks: int
    rate: int
    ends: bool

    def content(self) -> bytes:
        """One content chunk stamped with the present time."""
        return b"%b%016d%b" % (self.before, monotonic_ns(), self.after)

    def unstamped(self, chunks: int) -> bytes:
        """`chunks` content chunks with a stamp of zeros."""
        return (self.before + b"0" * 16 + self.after) * chunks

    def writes(self) -> list[bytes]:
        """All content chunks, grouped as an unpaced stream writes them."""
        whole, rest = divmod(self.chunks, _BATCH)
        batch = self.unstamped(_BATCH)
        return [batch] * whole + ([self.unstamped(rest)] if rest else [])


def _chunked(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _named(name: str, payload: str) -> bytes:
    return _chunked(f"event: {name}\ndata: {payload}\n\n".encode())


def _event(model: str, choices: str, usage: str = "") -> bytes:
    return _chunked(b"data: " + (_CHUNK % (model, choices, usage)).encode() + b"\n\n")


@lru_cache(maxsize=256)
def script(model: str, wire: Wire = "openai") -> Script | None:
    """The script of a model name on a wire; None where the name is not one of ours."""
    match = _MODEL.fullmatch(model)
    if match is None:
        return None
    chunks = int(match["paced"] or match["unpaced"] or 1)
    opening, content, ending = (_anthropic if wire == "anthropic" else _openai)(model, chunks)
    before, after = content.split(b"0" * 16)
    return Script(
        opening=_HEAD + opening,
        before=before,
        after=after,
        ending=ending + LAST_CHUNK,
        chunks=chunks,
        rate=int(match["rate"] or 0),
        ends=match["idle"] is None,
    )


def _openai(model: str, chunks: int) -> tuple[bytes, bytes, bytes]:
    """What precedes the content, a content chunk with a stamp of zeros, what follows."""
    role = _event(model, _CHOICE % ('{"role":"assistant","content":"","refusal":null}', "null"))
    content = _event(model, _CHOICE % ('{"content":"t%s "}' % ("0" * 16), "null"))
    if model.endswith("w"):
        word = _CHUNK % (model, _CHOICE % ('{"content":" word"}', "null"), "")
        content = _chunked(f": t{'0' * 16}\ndata: {word}\n\n".encode())
    finish = _event(model, _CHOICE % ("{}", '"stop"'))
    usage = _event(model, "[]", _USAGE % (chunks, chunks + 24))
    return role, content, finish + usage + _chunked(DONE + b"\n\n")


def _anthropic(model: str, chunks: int) -> tuple[bytes, bytes, bytes]:
    """What precedes the content, a content chunk with a stamp of zeros, what follows."""
    block = '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
    start = _named("message_start", _START % model) + _named("content_block_start", block)
    content = _named("content_block_delta", _DELTA % ("0" * 16))
    stop = _named("content_block_stop", '{"type":"content_block_stop","index":0}')
    ending = stop + _named("message_delta", _STOPPED % chunks) + _named("message_stop", '{"type":"message_stop"}')
    return start + _named("ping", '{"type":"ping"}'), content, ending


def request(port: int, model: str, *, user: str = "bench", wire: Wire = "openai") -> bytes:
    """A whole HTTP request for one streamed answer; the upstream logs an early close under `user`."""
    system = "You are a terse assistant. Answer in plain words and never apologise."
    messages = [
        {"role": "user", "content": "Explain in three sentences why a relay should never buffer what it relays."},
    ]
    body: dict[str, object] = {"model": model, "temperature": 0.7, "max_tokens": 4096, "stream": True}
    if wire == "anthropic":
        body |= {"system": system, "messages": messages}
    else:
        asked = [{"role": "system", "content": system}, *messages]
        body |= {"messages": asked, "stream_options": {"include_usage": True}, "user": user}
    return post(port, PATHS[wire], json.dumps(body, separators=(",", ":")).encode())


def post(port: int, path: str, body: bytes = b"") -> bytes:
    """A whole POST request with a JSON body."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}:{port}\r\nauthorization: Bearer bench\r\naccept: */*\r\n"
        f"user-agent: atlas-bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
