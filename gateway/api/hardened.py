"""What uvicorn's HTTP protocol leaves open to clients that are slow, greedy or ambiguous.

The parser (llhttp) is strict already: lengths given twice or beside a chunked coding, folded or bare lines, spaces
before colons, wrong chunks. What it lets pass is refused here before the application hears of it. A request that
two readers could understand differently gets one 400, and its connection is closed.

Oddities, on purpose:
1. No timers: the server calls `look` on each connection once a second, and a connection counts the calls (`waited`),
   so a deadline comes up to one second early. uvicorn would set a timer and cancel it for every request.
2. The head's size is measured by what was read, and exactly only where a read was large.
3. A refusal in the midst of another answer cannot be said: then the connection is reset. uvicorn would write its 400
   into that answer.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, NamedTuple, cast

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.core.errors import AtlasError, RequestError
from gateway.core.ids import RequestIds
from gateway.dialects.openai_errors import request_body, retry_headers

HEAD_S, IDLE_S, BODY_S, SEND_S = 10, 10, 35, 60
"""Seconds: for a head from its first byte; between two requests; for a body, which the routes themselves bound to 30,
and after `SLOW_S` it must have come at `MIN_RATE`;
for a client that takes nothing, which readers of streams are bounded in by the housekeeper, and sooner."""

SLOW_S = 10
MIN_RATE = 500
"""Bytes a second: a client that is slower than any line, on purpose or not."""
MAX_HEAD = 32_768
MAX_HEADERS = 100
CLOSE = (b"connection", b"close")
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_NOTED = frozenset({b"expect", b"host", b"transfer-encoding"})


class _Refused(AtlasError):
    """Raised through the parser, which stops there."""


class Answer(NamedTuple):
    """A whole answer but for its status line and the server's own headers."""

    status: int
    rest: bytes


class HardenedProtocol(HttpToolsProtocol):
    """One connection. `waited` counts seconds in which a client owed something."""

    waited = 0
    _head = -1  # bytes of a head that is arriving; -1: none is
    _read = 0
    _unsent = 0
    _body = 0
    _idle_bytes = 0  # of chunks' extensions and trailers, since the last byte of a body
    _hosts = 0
    _coding = b""
    _host = b""
    _refusal: RequestError | None = None

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        self._read = len(data)
        cycle: Any = self.cycle
        begun, body = self.scope, self._body
        self._parse(data)
        if self.scope is not begun or self._body != body:
            self._idle_bytes = 0
        elif self._head >= 0:
            self._head += len(data)
        elif cycle is not None and cycle.more_body:
            self._idle_bytes += len(data)
        if max(self._head, self._idle_bytes) > MAX_HEAD and not self.transport.is_closing():
            self._refusal = _too_large()
            self.send_400_response("")

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
            except HttpParserUpgrade as wish:
                rest, head = rest[wish.args[0] :], self._without_upgrade()
                self.parser = HttpRequestParser(self)  # the old one may take the message for the connection's last
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self._parse(head)
            except HttpParserError:
                self.send_400_response("")
                return
            else:
                return

    def _should_upgrade(self) -> bool:
        """A head that wishes for another protocol is not a request yet: the parser takes it for one without a body."""
        return True

    def _without_upgrade(self) -> bytes:
        """The same head without that wish, which a server may ignore (RFC 9110, 7.8).

        Java's client asks for HTTP/2 so in every first request.
        """
        parser: Any = self.parser
        line = b"%b %b HTTP/%b\r\n" % (parser.get_method(), self.url, parser.get_http_version().encode("ascii"))
        return line + b"".join(b"%b: %b\r\n" % each for each in self.headers if each[0] != b"upgrade") + b"\r\n"

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.waited = self._head = self._hosts = self._body = 0
        self._coding = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is whole; what comes behind the body is a trailer, which must not pass for one (RFC 9110, 6.5.1)."""
        if self._head < 0:
            return
        name = name.lower()
        if name in _NOTED:
            self._note(name, value)
        self.headers.append((name, value))
        if len(self.headers) > MAX_HEADERS:  # one read can hold ten thousand more
            self._refusal = _too_large()
            raise _Refused

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
            self._host = value
        elif name == b"transfer-encoding":
            self._coding = self._coding + b"," + value if self._coding else value
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """A head is whole: refuse it, or begin to answer."""
        parser: Any = self.parser
        version = parser.get_http_version()
        if (
            self._hosts != 1
            or self._coding
            or self.url[:1] != b"/"
            or b"#" in self.url
            or len(self.headers) > MAX_HEADERS
            or self._head + self._read > MAX_HEAD
            or version != "1.1"
        ):
            self._refusal = self._judge(parser.get_method(), version)
            if self._refusal is not None:
                raise _Refused
            if version == "1.0":
                self.expect_100_continue = False  # RFC 9110, 10.1.1
        self.waited, self._head = 0, -1
        super().on_headers_complete()

    def _judge(self, method: bytes, version: str) -> RequestError | None:
        """A head that is not the usual one: why it is refused, if it is."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > MAX_HEADERS or size > MAX_HEAD:
            return _too_large()
        if version not in {"1.0", "1.1"}:
            return _bad(f"HTTP/{version} is not spoken here, HTTP/1.1 is")
        if self._hosts != 1 and not (version == "1.0" and self._hosts == 0):
            return _bad(f"a request has one Host header, got {self._hosts}")
        if self._coding and (version == "1.0" or self._coding.strip().lower() != b"chunked"):
            return _bad("a transfer-encoding is chunked and nothing else, and needs HTTP/1.1")
        if method == b"CONNECT" or self._is_odd_target():
            return _bad("the request's target is not understood")
        return None

    def _is_odd_target(self) -> bool:
        """Neither a path, nor an address whose host is the Host header's, nor `*` (RFC 9112, 3.2)."""
        if b"#" in self.url:
            return True
        scheme, found, rest = self.url.partition(b"://")
        if self.url[:1] == b"/" or self.url == b"*":
            return False
        authority = rest.partition(b"/")[0].partition(b"?")[0]
        return not found or scheme.lower() not in {b"http", b"https"} or authority.lower() != self._host.lower()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._body += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """An answer is whole; as uvicorn's, without its timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.waited = 0
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  ours says more
        """Refuse what was read, with what `_refusal` says, if it says something, and close."""
        error = self._refusal or _bad("this is not HTTP/1.1 as RFC 9112 has it")
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            is_behind = bool(self.pipeline)  # an answer to an earlier request is under way
            if is_behind or cycle.response_started or not cycle.more_body or cycle.scope is not self.scope:
                self.abort()
                return
            cycle.disconnected = True  # its task finds nobody to answer
            cycle.message_event.set()
        self._say(error)

    def _say(self, error: RequestError) -> None:
        # whose client this is may be unknown as yet: OpenAI's reads `error`, Anthropic's `type` beside it
        body = msgspec.json.encode({"type": "error", **request_body(error)})
        fields = [
            (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode("ascii")),
            (b"x-request-id", RequestIds().new().encode("ascii")), *retry_headers(retry=error.status == 408),
        ]  # fmt: skip
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.say(Answer(error.status, head + b"\r\n" + body))

    def say(self, answer: Answer) -> None:
        """Write a whole answer that no application gave, and close the connection behind it."""
        self.transport.write(self.worded(answer, last=True))
        self.transport.close()

    def worded(self, answer: Answer, *, last: bool) -> bytes:
        """The whole answer, with the server's own headers; `last`: the connection is closed behind it."""
        own = [b"%b: %b\r\n" % field for field in self.server_state.default_headers if field != CLOSE]
        if last:
            own.append(b"connection: close\r\n")
        return b"".join([STATUS_LINE[answer.status], *own, answer.rest])

    @property
    def idle_s(self) -> int:
        """Seconds that the connection may be idle."""
        return IDLE_S

    def look(self) -> None:
        """Called once a second: part from a client that owes something for too long."""
        transport, cycle = self.transport, cast("Any", self.cycle)
        unsent, is_closing = transport.get_write_buffer_size(), transport.is_closing()
        if cycle is not None and not cycle.response_complete and cycle.scope is self.scope and not is_closing:
            self._look_at_answer(unsent if self.flow.write_paused else 0, owes_body=cycle.more_body)
            return
        self.waited += 1
        if unsent or is_closing:
            if self.waited >= SEND_S:
                self.abort()
        elif self._head >= 0:
            if self.waited >= HEAD_S:
                self.part()
        elif self.waited >= self.idle_s:
            self.part()

    def part(self) -> None:
        """Close a connection whose client owes a request, and say so if it has begun one."""
        if self._head < 0:
            self.transport.close()
            return
        self._refusal = RequestError("the request's head was not whole in time", status=408, code="timeout")
        self.send_400_response("")

    def _look_at_answer(self, unsent: int, *, owes_body: bool) -> None:
        """An answer is under way: its body must come, and what was sent of it must be taken."""
        is_stuck = owes_body or (unsent and unsent == self._unsent)
        self.waited = self.waited + 1 if is_stuck else 0
        self._unsent = unsent
        if owes_body and self.waited >= SLOW_S and self._body < self.waited * MIN_RATE:
            msg = f"the body came at less than {MIN_RATE} bytes a second"
            self._refusal = RequestError(msg, status=408, code="request_timeout")
            self.send_400_response("")
        elif self.waited >= (BODY_S if owes_body else SEND_S):
            self.abort()

    def abort(self) -> None:
        """Reset the connection: by default the kernel would go on offering what it has queued, then close with FIN."""
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None:
            cycle.disconnected = True  # `connection_lost` is still to come: no answer is no error


def _bad(message: str) -> RequestError:
    return RequestError(message, code="bad_http")


def _too_large() -> RequestError:
    message = f"a request's head has at most {MAX_HEADERS} headers and {MAX_HEAD} bytes"
    return RequestError(message, status=431, code="head_too_large")
