"""The HTTP protocol with two additions to `hardened`: the app can reach the connection itself, and it has a gate.

ASGI has no way to reset a connection, and closing one whose client does not read waits for that client for ever. Also
its `send` is a coroutine: for every chunk that costs as much as the chunk's rendering. So `write_now` writes a part of
a chunked body where nothing has to be waited for, at the end of this turn of the loop: see `outbox`. `answer` does the
same at once for a head with what comes first behind it: one packet, and none of uvicorn's two regular expressions for
every header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.api.hardened import CLOSE, IDLE_S, HardenedProtocol
from gateway.api.outbox import Outbox
from gateway.api.overload import Why

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.api.gate import Gate
    from gateway.api.hardened import Answer

GATE = "atlas.gate"
"""The gate's name in the state of an app's lifespan."""
CRAMMED_IDLE_S = 1
MAX_HELD = 16_384
"""What one turn may give a connection before it is written at once, bytes."""
NOTHING_ASKED: Any = {"path": "", "headers": ()}


class _UntilClosed(int):
    """A length that any body has: HTTP/1.0 knows no chunks (RFC 9112, 6.1), there a body ends with the connection."""

    def __lt__(self, _: object) -> bool:
        return False

    def __sub__(self, _: object) -> _UntilClosed:
        return self

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = int.__hash__


UNTIL_CLOSED = _UntilClosed()


class Protocol(HardenedProtocol):
    """Puts itself into the scope as the extension `atlas.connection`."""

    _gone: Callable[[], None] | None = None
    _held = b""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gate: Gate | None = self.app_state.get(GATE)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Begin to answer a request, unless the gate has it wait or turns it away."""
        gate = self._gate
        if cycle.scope["http_version"] == "1.0":
            cycle.chunked_encoding, cycle.expected_content_length = False, UNTIL_CLOSED
        if gate is not None:
            gate.silent.pop(self, None)
        if gate is None or cycle.scope["path"] not in gate.paths or gate.lets_in() or cycle.scope["method"] != "POST":
            super()._start_asgi_task(cycle, app)
        else:
            gate.meet(_Guest(self, cycle, app))

    def begin(self, cycle: Any, app: Any) -> None:
        """It was the request's turn."""
        super()._start_asgi_task(cycle, app)

    def turn_away(self, cycle: Any, answer: Answer) -> None:
        """Answer a request without the application. What was sent behind it unasked is not answered any more."""
        cycle.response_started = cycle.response_complete = True
        last = not cycle.keep_alive or cycle.waiting_for_100_continue or self.pipeline or CLOSE in cycle.default_headers
        if last:
            self.say(answer)
        else:
            self._hold(self.worded(answer, last=False))
        self.on_response_complete()

    def say(self, answer: Answer) -> None:
        """Write a whole answer that no application gave, and close the connection behind it."""
        self.flush()
        super().say(answer)

    def _hold(self, data: bytes) -> None:
        """Have a whole answer written at the end of this turn: under overload there are many."""
        is_first, self._held = not self._held, self._held + data
        if is_first:
            self._outbox.add(self)
        elif len(self._held) >= MAX_HELD:
            self.flush()

    @property
    def idle_s(self) -> int:
        """Seconds that a connection may be idle: fewer while others need its place."""
        return CRAMMED_IDLE_S if self._gate is not None and self._gate.is_crammed else IDLE_S

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        shared = vars(self.server_state)  # what all connections of a server share
        self._outbox: Outbox = shared.get("outbox") or shared.setdefault("outbox", Outbox(self.loop))
        gate = self._gate
        if gate is not None:
            gate.connections += 1
            now = self.loop.time()
            if gate.is_crammed and not gate.make_room(now) and gate.is_shut:
                self.say(gate.refusal(NOTHING_ASKED, Why.CONNECTIONS))
            else:
                gate.silent[self] = now

    def on_response_complete(self) -> None:
        """An answer is whole."""
        if self._gate is not None and not self.transport.is_closing():
            self._gate.silent[self] = self.loop.time()
        super().on_response_complete()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {"atlas.connection": self}

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        if self._gate is not None:
            self._gate.connections -= 1
            self._gate.silent.pop(self, None)
        if self._gone is not None:
            self._gone()

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call `gone` when the client hangs up, at once if it has; None: no more. Reads on, or nobody would notice."""
        self._gone = gone
        self.flow.resume_reading()
        if gone is not None and self.transport.is_closing():
            self.cycle.disconnected = True  # `connection_lost` is still to come: no answer is no error
            gone()

    def whole_body(self, scope: Any) -> bytes | None:
        """The body of the request `scope`, if all of it has arrived; None where `receive` has to do it."""
        cycle = self.cycle
        if cycle.scope is not scope or cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = cycle.body, bytearray()
        return bytes(body)

    def write_now(self, scope: Any, data: bytes) -> bool:
        """Write a part of the body of the answer to the request `scope`; False where `send` has to do it."""
        cycle = self.cycle
        if cycle.disconnected or self.flow.write_paused or not cycle.chunked_encoding or cycle.scope is not scope:
            return False
        if not self._held:
            self._held = b"%x\r\n%b\r\n" % (len(data), data)
            self._outbox.add(self)
        elif len(self._held) < MAX_HELD:
            self._held += b"%x\r\n%b\r\n" % (len(data), data)
        else:
            self.flush()
            return self.write_now(scope, data)
        return True

    def flush(self) -> None:
        """Write what `write_now` holds back; whoever writes to this connection by another way does this first."""
        held, self._held = self._held, b""
        if held and not self.transport.is_closing():
            self.transport.write(held)

    def owns(self, send: Any) -> bool:
        """Whether `send` is this connection's own: nothing is around it that wants to see or change a head."""
        return getattr(send, "__self__", None) is self.cycle

    def answer(
        self, scope: Any, status: int, headers: Sequence[tuple[bytes, bytes]], data: bytes, *, more: bool, chunked: bool
    ) -> bool:
        """Write a head and the first part of its body, the only one without `more`; False where `send` has to do it.

        Raises:
            ValueError: a header holds a line end or a NUL.
        """
        cycle: Any = self.cycle
        if (
            cycle.scope is not scope
            or cycle.disconnected
            or cycle.response_started
            or not cycle.keep_alive
            or self.flow.write_paused
            or scope["method"] == "HEAD"
            or CLOSE in cycle.default_headers
        ):
            return False
        fields = [b"%b: %b\r\n" % field for field in (*cycle.default_headers, *headers)]
        head = b"".join(fields)
        if head.count(b"\n") != len(fields) or head.count(b"\r") != len(fields) or b"\0" in head:
            msg = "a header holds a control character"
            raise ValueError(msg)
        cycle.response_started, cycle.waiting_for_100_continue, cycle.chunked_encoding = True, False, chunked
        if chunked:
            last = b"" if more else b"0\r\n\r\n"
            head += b"transfer-encoding: chunked\r\n"
            data = b"%x\r\n%b\r\n%b" % (len(data), data, last) if data else last
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], head, data))
        if not more:
            cycle.response_complete = True
            cycle.message_event.set()
            cycle.on_response()
        return True

    def shutdown(self) -> None:
        """Close after the answer that is under way; at once if there is none."""
        self.flush()
        super().shutdown()

    def finish(self) -> None:
        """As `shutdown`, but for connections on which nothing was asked yet."""
        cycle: Any = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            self.shutdown()


class _Guest:
    """A request that stands before the gate."""

    __slots__ = ("_app", "_cycle", "_protocol", "scope")

    def __init__(self, protocol: Protocol, cycle: Any, app: Any) -> None:
        self._protocol, self._cycle, self._app = protocol, cycle, app
        self.scope = cycle.scope

    @property
    def is_gone(self) -> bool:
        """Whether its client has hung up."""
        return bool(self._cycle.disconnected) or self._protocol.transport.is_closing()

    def begin(self) -> None:
        """Start to answer it."""
        self._protocol.begin(self._cycle, self._app)

    def turn_away(self, answer: Answer) -> None:
        """Answer it here."""
        self._protocol.turn_away(self._cycle, answer)
