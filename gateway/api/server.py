"""The HTTP protocol with one addition to `hardened`: the app can reach the connection itself.

ASGI has no way to reset a connection, and closing one whose client does not read waits for that client for ever. Also
its `send` is a coroutine: for every chunk that costs as much as the chunk's rendering, so `write_now` writes a part of
a chunked body at once where nothing has to be waited for.
"""

from collections.abc import Callable
from typing import Any

from gateway.api.hardened import HardenedProtocol


class Protocol(HardenedProtocol):
    """Puts itself into the scope as the extension `atlas.connection`."""

    _gone: Callable[[], None] | None = None

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {"atlas.connection": self}

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
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
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def finish(self) -> None:
        """Close after the answer that is under way; at once between two requests."""
        cycle: Any = self.cycle
        if cycle is not None and cycle.scope is self.scope:
            self.shutdown()
