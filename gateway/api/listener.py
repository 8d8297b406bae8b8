"""Takes in all who have connected, each time the loop comes round.

libuv takes one connection a turn (libuv pull request 3696), and a turn is long when there is much to do: behind 4,000
connections made at once the last one's request was read after six seconds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

log = logging.getLogger("atlas.server")

PER_TURN = 32
"""What each brings may be read in the same turn, and streams that run wait for all of it."""
RETRY_S = 0.2


class Listener:
    """Accepts on one socket that listens, which is its own from now on, until it is closed."""

    def __init__(self, listening: socket.socket, connection: Callable[[], asyncio.Protocol]) -> None:
        self._socket, self._connection = listening, connection
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._is_stuck = False
        listening.settimeout(0)
        self._watch()

    def close(self) -> None:
        """Accept nobody any more; once is enough."""
        if self._retry is not None:
            self._retry.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _watch(self) -> None:
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """Somebody has connected."""
        for _ in range(PER_TURN):
            try:
                accepted, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor, or no memory: there may be some soon
                if not self._is_stuck:
                    log.warning("no connection can be accepted: %s", error)
                self._is_stuck = True
                self._loop.remove_reader(self._socket)
                self._retry = self._loop.call_later(RETRY_S, self._watch)
                return
            self._is_stuck = False
            accepted.settimeout(0)
            opening = self._loop.create_task(self._loop.connect_accepted_socket(self._connection, accepted))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
