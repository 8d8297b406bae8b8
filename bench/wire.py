"""What upstream and load generator agree on: model names, request and answer bytes.

The model name of a request is its script:

    bench-one           role chunk, one content chunk, the end, in one write
    bench-idle          role chunk, one content chunk, then silence until the client leaves
    bench-p<rate>-<n>   n content chunks, <rate> a second; the first one goes out at once
    bench-u-<n>         n content chunks as fast as the socket takes them

Every paced content chunk carries its send time, CLOCK_MONOTONIC in nanoseconds: `t` and 16 digits. Chunks have the
length and the members of OpenAI's, one HTTP chunk each. An answer of n content chunks has n + 4 `data: ` frames: role,
content, finish, usage, `[DONE]`.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic_ns

HOST = "127.0.0.1"
FRAME = b"data: "
EXTRA_FRAMES = 4
DONE = b"data: [DONE]"
STAMP = re.compile(rb"t(\d{16})")
LAST_CHUNK = b"0\r\n\r\n"

_MODEL = re.compile(
    r"bench-(?:(?P<one>one)|(?P<idle>idle)|p(?P<rate>\d{1,4})-(?P<paced>\d{1,6})|u-(?P<unpaced>\d{1,6}))"
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


def _event(model: str, choices: str, usage: str = "") -> bytes:
    return _chunked(b"data: " + (_CHUNK % (model, choices, usage)).encode() + b"\n\n")


@lru_cache(maxsize=256)
def script(model: str) -> Script | None:
    """The script of a model name; None where the name is not one of ours."""
    match = _MODEL.fullmatch(model)
    if match is None:
        return None
    chunks = int(match["paced"] or match["unpaced"] or 1)
    content = _event(model, _CHOICE % ('{"content":"t%s "}' % ("0" * 16), "null"))
    before, after = content.split(b"0" * 16)
    role = _event(model, _CHOICE % ('{"role":"assistant","content":"","refusal":null}', "null"))
    finish = _event(model, _CHOICE % ("{}", '"stop"'))
    usage = _event(model, "[]", _USAGE % (chunks, chunks + 24))
    return Script(
        opening=_HEAD + role,
        before=before,
        after=after,
        ending=finish + usage + _chunked(DONE + b"\n\n") + LAST_CHUNK,
        chunks=chunks,
        rate=int(match["rate"] or 0),
        ends=match["idle"] is None,
    )


def request(port: int, model: str, *, user: str = "bench") -> bytes:
    """A whole HTTP request for one streamed chat completion; the upstream logs an early close under `user`."""
    messages = [
        {"role": "system", "content": "You are a terse assistant. Answer in plain words and never apologise."},
        {"role": "user", "content": "Explain in three sentences why a relay should never buffer what it relays."},
    ]
    body = {
        "model": model,
        "messages": messages,
        "temperature": 0.7,
        "max_tokens": 4096,
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": user,
    }
    return post(port, "/v1/chat/completions", json.dumps(body, separators=(",", ":")).encode())


def post(port: int, path: str, body: bytes = b"") -> bytes:
    """A whole POST request with a JSON body."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}:{port}\r\nauthorization: Bearer bench\r\naccept: */*\r\n"
        f"user-agent: atlas-bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
