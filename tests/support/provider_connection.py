"""One connection of the chaos provider: reads requests, writes answers byte by byte as planned, dies as planned.

The reading of HTTP is minimal and trusts its peer; the writing may break every rule.
"""

import asyncio
import fcntl
import json
import socket
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from tests.support.answer import OPENAI, Piece, content_type_of, pieces_of, streams, wire_of
from tests.support.plan import Plan
from tests.support.received import Outcome, Received
from tests.support.signals import Signal

if TYPE_CHECKING:
    from tests.support.chaos import ChaosProvider

_SIOCOUTQNSD = 0x894B  # bytes that the kernel has not sent yet (tcp(7) names its sibling SIOCOUTQ)
_LINGER_0 = struct.pack("ii", 1, 0)
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


class _CutError(Exception):
    """The planned number of bytes is out."""


class ProviderConnection(asyncio.Protocol):
    """Serves requests one after another until either side closes."""

    def __init__(self, provider: "ChaosProvider") -> None:
        self.provider = provider
        self.number = 0
        self.busy = False
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._signal = Signal()
        self._writable = True
        self._served: list[Received] = []
        self._closing = False
        self.task: asyncio.Task[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer came."""
        self._transport = cast("asyncio.Transport", transport)
        if self.provider.send_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.provider.send_buffer)
            self._transport.set_write_buffer_limits(high=0)
        self.task = asyncio.get_running_loop().create_task(self._serve(), name="chaos connection")
        self.number = self.provider.connection_opened(self)
        if self.provider.leaves:
            self.abort()  # it was taken from the listener just before

    @property
    def socket(self) -> socket.socket:
        """The socket below."""
        return cast("socket.socket", self._transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """The peer said something."""
        self._buffer += data
        self._signal.ring()

    def eof_received(self) -> None:
        """The peer closed; no HTTP client half-closes."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever wanted it."""
        for received in self._served:
            received.closed_by = "provider" if self._closing else "peer"
            received.closed_at = asyncio.get_running_loop().time()
            received.closed.set()
        self.task.cancel()
        self.provider.connection_closed(self)

    def pause_writing(self) -> None:
        """The peer does not read."""
        self._set_writable(writable=False)

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._set_writable(writable=True)

    def _set_writable(self, *, writable: bool) -> None:
        self._writable = writable
        if self._served:
            self._served[-1].paused_writing = not writable
        self._signal.ring()
        self.provider.signal.ring()

    def finish(self) -> None:
        """Closes with FIN after what is buffered."""
        self._closing = True
        self._transport.close()

    async def reset(self) -> None:
        """Closes with RST, after the kernel has sent all that was written."""
        self._closing = True
        for attempt in range(2000):
            if self._transport.get_write_buffer_size() == 0 and self._unsent() == 0:
                break
            await asyncio.sleep(0 if attempt < 100 else 0.001)
        self.abort()

    def abort(self) -> None:
        """Closes with RST at once."""
        self._closing = True
        if not self._transport.is_closing():
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._transport.abort()

    def _unsent(self) -> int:
        if self._transport.is_closing():
            return 0
        return int(struct.unpack("i", fcntl.ioctl(self.socket.fileno(), _SIOCOUTQNSD, b"\0" * 4))[0])

    async def _serve(self) -> None:
        try:
            while await self._serve_one():
                pass
        except asyncio.CancelledError:
            self._settle("stopped" if self._closing else "left")
            raise

    async def _serve_one(self) -> bool:
        received = await self._read_request()
        self.busy = True
        self._served.append(received)
        received.plan = self.provider.accept(received)
        try:
            await _Answer(self, received).send()
        except _CutError:
            return await self._end_as_cut(received)
        self._settle("complete")
        self.busy = False
        if received.plan.idle == "reset":
            await self.reset()
        elif self._is_last(received):
            self.finish()
        return not self._closing

    def _is_last(self, received: Received) -> bool:
        closes = received.plan.idle == "close" or received.plan.framing == "close"
        return closes or self.provider.leaves or received.headers.get("connection", "").lower() == "close"

    async def _end_as_cut(self, received: Received) -> bool:
        plan = received.plan
        if plan.reset_at_byte is not None:
            self._settle("reset")
            await self.reset()
        elif plan.cut_at_byte is not None:
            self._settle("cut")
            self.finish()
        else:
            self._settle("ended")
            self.busy = False
            if plan.framing == "close":
                self.finish()
        return not self._closing

    def _settle(self, outcome: Outcome) -> None:
        if self._served and self._served[-1].outcome == "open":
            self._served[-1].outcome = outcome
        self.provider.signal.ring()

    async def write(self, data: bytes) -> None:
        """Writes, and waits while the peer does not read."""
        self._transport.write(data)
        if not self._writable:
            await self._signal.until(lambda: self._writable, None)

    async def _take(self, n: int) -> bytes:
        await self._signal.until(lambda: len(self._buffer) >= n, None)
        taken = bytes(self._buffer[:n])
        del self._buffer[:n]
        return taken

    async def _take_line(self, end: bytes = b"\r\n") -> bytes:
        await self._signal.until(lambda: end in self._buffer, None)
        return await self._take(self._buffer.index(end) + len(end))

    async def _read_request(self) -> Received:
        head = await self._take_line(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        method, path, _ = first.decode("latin-1").split(" ", 2)
        raw = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
        body = await self._read_body(headers)
        return Received(
            number=self.provider.next_number(),
            method=method,
            path=path.partition("?")[0],
            query=path.partition("?")[2],
            headers=headers,
            raw_headers=raw,
            body=body,
            json=_parsed(body),
            connection=self.number,
            reused=bool(self._served),
            signal=self.provider.signal,
        )

    async def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return await self._take(int(headers.get("content-length") or 0))
        body = b""
        while size := int((await self._take_line()).split(b";")[0], 16):
            body += (await self._take(size + 2))[:-2]
        await self._take_line()
        return body


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


class _Answer:
    """Sends one answer: pace, gate, framing, and the byte at which it all ends."""

    def __init__(self, connection: ProviderConnection, received: Received) -> None:
        self._connection, self._received, self._plan = connection, received, received.plan
        self._asked: Mapping[str, Any] = received.json if isinstance(received.json, dict) else {}
        self._language = wire_of(received.path) or OPENAI
        self._content_type = content_type_of(self._plan, self._asked, self._language)
        self._framing = self._plan.framing or ("chunked" if streams(self._content_type) else "length")
        bounds = (self._plan.cut_at_byte, self._plan.reset_at_byte, self._plan.end_at_byte)
        self._bound = next((bound for bound in bounds if bound is not None), None)

    async def send(self) -> None:
        """Head and body; raises _CutError at the planned byte."""
        pieces = _encoded(self._plan, _merged(self._plan, pieces_of(self._plan, self._asked, self._language)))
        if self._plan.slow_headers_s:
            await asyncio.sleep(self._plan.slow_headers_s)
        if self._plan.hold_headers is not None:
            await self._plan.hold_headers.enter()
            self._plan.hold_headers.leave()
        await self._wire(self._head(sum(len(piece.data) for piece in pieces)))
        for piece in pieces:
            await self._piece(piece)
        if self._framing == "chunked":
            await self._wire(b"0\r\n\r\n")

    def _head(self, length: int) -> bytes:
        plan = self._plan
        headers = {
            "date": "Sun, 23 Nov 2026 05:00:00 GMT",
            "content-type": self._content_type,
            self._language.id_header: f"req_chaos_{self._received.number}",
        }
        if plan.content_encoding is not None:
            headers["content-encoding"] = plan.content_encoding
        if self._framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        elif self._framing == "length":
            headers["content-length"] = str(length if plan.end_at_byte is None else min(length, plan.end_at_byte))
        if self._framing == "close":
            headers["connection"] = "close"
        headers |= {name.lower(): value for name, value in plan.headers.items()}
        lines = [f"HTTP/1.1 {plan.status} {_reason(plan.status)}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _piece(self, piece: Piece) -> None:
        if piece.event is None:
            await self._slices(piece.data)
            return
        if self._plan.stall_at_event is not None and piece.event >= self._plan.stall_at_event:
            await asyncio.Event().wait()
        if self._plan.pace_s and piece.event:
            await asyncio.sleep(self._plan.pace_s)
        gate = self._plan.gate
        if gate is not None:
            await gate.enter()
        try:
            await self._slices(piece.data)
            self._received.events += 1
            self._received.tokens += piece.tokens
            self._received.signal.ring()
        finally:
            if gate is not None:
                gate.leave()

    async def _slices(self, data: bytes) -> None:
        size = self._plan.chunking if isinstance(self._plan.chunking, int) else len(data)
        for at in range(0, len(data), size or 1):
            await self._body(data[at : at + size])
            await asyncio.sleep(0)

    async def _body(self, data: bytes) -> None:
        """One piece of body, framed; a cut leaves its chunk unfinished, an early end does not."""
        room = len(data) + 1
        if self._plan.count == "body" and self._bound is not None:
            room = self._bound - len(self._received.body_sent)
        is_last, part = room <= len(data), data[:room]
        wire = part
        if self._framing == "chunked" and part:
            is_open = is_last and self._plan.end_at_byte is None
            size, end = (len(data), b"") if is_open else (len(part), b"\r\n")
            wire = f"{size:x}\r\n".encode() + part + end
        self._received.body_sent += part
        await self._wire(wire)
        if is_last:
            if self._plan.end_at_byte is not None and self._framing == "chunked":
                await self._wire(b"0\r\n\r\n")
            raise _CutError

    async def _wire(self, data: bytes) -> None:
        room = len(data) + 1
        if self._plan.count == "wire" and self._bound is not None:
            room = self._bound - self._received.wire_sent
        part = data[:room]
        self._received.wire_sent += len(part)
        if part:
            await self._connection.write(part)
        if room <= len(data):
            raise _CutError


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _merged(plan: Plan, pieces: list[Piece]) -> list[Piece]:
    """Pieces as they are written: one by one, or as one where nothing happens between them."""
    has_pauses = plan.gate is not None or bool(plan.pace_s) or plan.stall_at_event is not None
    if plan.chunking == "event" or has_pauses:
        return pieces
    data = b"".join(piece.data for piece in pieces)
    return [Piece(data, "whole", 0, sum(piece.tokens for piece in pieces))]


def _encoded(plan: Plan, pieces: list[Piece]) -> list[Piece]:
    """The pieces compressed, each so that it can be read without the next."""
    bits = _WINDOW_BITS.get(plan.content_encoding or "")
    if bits is None or plan.encoding_lies or not pieces:
        return pieces
    engine = zlib.compressobj(wbits=bits)
    packed = [replace(piece, data=engine.compress(piece.data) + engine.flush(zlib.Z_SYNC_FLUSH)) for piece in pieces]
    return [*packed[:-1], replace(packed[-1], data=packed[-1].data + engine.flush())]
