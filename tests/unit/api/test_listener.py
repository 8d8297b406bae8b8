"""Claims about the listener: everybody who waits is taken in at once, also after a lack of file descriptors."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from gateway.api import listener as module
from gateway.api.listener import PER_TURN, Listener
from tests.support.signals import eventually

FEW_TURNS = 12


class Visitor(asyncio.Protocol):
    """Counts who was taken in."""

    def __init__(self, seen: list["Visitor"]) -> None:
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One more."""
        self.transport: Any = transport
        self._seen.append(self)


class Poor(socket.socket):
    """A listening socket whose process has no file descriptor left, so many times."""

    lacking = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """As a socket's."""
        if self.lacking:
            self.lacking -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@contextmanager
def callers(count: int) -> Iterator[Poor]:
    """A listening socket to which so many have connected."""
    with Poor() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1000)
        held = [socket.create_connection(listening.getsockname()) for _ in range(count)]
        try:
            yield listening
        finally:
            for one in held:
                one.close()


def test_all_at_once() -> None:
    """Those who connected while the loop was busy are taken in within a few turns, not one a turn."""

    async def scenario() -> None:
        with callers(3 * PER_TURN) as listening:
            seen: list[Visitor] = []
            taking = Listener(listening, lambda: Visitor(seen))
            for _ in range(FEW_TURNS):
                await asyncio.sleep(0)
            assert len(seen) == 3 * PER_TURN
            taking.close()
            taking.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(seen[0].transport.get_extra_info("sockname"))
            for visitor in seen:
                visitor.transport.abort()

    uvloop.run(scenario())


def test_no_descriptor_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without a file descriptor it says so, once, and tries again later; closed meanwhile, it does not."""
    monkeypatch.setattr(module, "RETRY_S", 0.01)

    async def scenario() -> None:
        with callers(2) as listening:
            seen: list[Visitor] = []
            listening.lacking = 2
            taking = Listener(listening, lambda: Visitor(seen))
            await eventually(lambda: len(seen) == 2)
            assert [each.getMessage()[:33] for each in caplog.records] == ["no connection can be accepted: [E"]
            listening.lacking = 1
            with socket.create_connection(listening.getsockname()):
                await eventually(lambda: not listening.lacking)
                taking.close()
                await asyncio.sleep(0.03)
            assert (len(seen), len(caplog.records)) == (2, 2)
            for visitor in seen:
                visitor.transport.abort()

    uvloop.run(scenario())
