"""The server: uvicorn with an end of Atlas's own.

uvicorn tells the application that the process ends only once every connection is closed, which a stream of minutes
does not do in time. Here the first signal begins the drain:

1. Readiness says 503 at once, and new streams are refused with 503 and Retry-After. All else is served on: whoever has
   a stream here may read, pause, resume and cancel it.
2. Every answer closes its connection, idle ones are closed. Connections on which nothing was asked yet may have a
   request under way, so they stay until the end.
3. The listener accepts for `LINGER_S` more: load balancers ask for readiness every few seconds, and until they know,
   what they send should get an answer that can be retried, not a refused connection, which they make a 502 of. Ctrl-C
   comes from a person, and skips that. Where other replicas can do all that this one can, the listener closes then;
   a journal in memory leaves nowhere else to control the streams, so there it stays open as long as they.
4. The streams finish within `drain_s`, or are handed over or ended (`api.drain`).
5. Their readers have `FLUSH_S` to take what was said to them; what is open then is reset. The application's lifespan
   ends, the process exits with 0.

A second signal skips all waiting. `HARD_LIMIT_S` after the streams' time a thread ends the process, whatever hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

import uvicorn

from gateway.api.hardened import CLOSE
from gateway.api.listener import Listener

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Generator, Iterable
    from types import FrameType

    from gateway.api.drain import Drain
    from gateway.api.signals import Signals

log = logging.getLogger("atlas.server")

LINGER_S = 2.0
FLUSH_S = 2.0
HARD_LIMIT_S = 10.0
BEAT_S = 1.0
LOOK_S, LONGEST_LOOK_S = 0.002, 0.05
"""Seconds in a row that connections are looked at, at least and at most."""


def server_config(app: Any) -> uvicorn.Config:
    """How uvicorn serves Atlas; its own time-out of shutting down is not used."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="gateway.api.server:Protocol",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=False,  # nothing that Atlas decides depends on a client's address
    )


class Server(uvicorn.Server):
    """Serves until a signal, then drains. `announce` is called once it answers, `reload` awaited after each SIGHUP."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        signals: Signals,
        announce: Callable[[], None] = lambda: None,
        reload: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(config)
        self._drain, self._signals, self._announce, self._reload = drain, signals, announce, reload
        self._hung_up = asyncio.Event()
        self._told = asyncio.Event()
        self._linger_s = 0.0
        self._listeners: list[Listener] = []
        self._task: asyncio.Task[None] | None = None
        self._watchdog: threading.Timer | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> int:  # type: ignore[override]
        """Serve, and return the exit code: 0 after a signal, at whatever time it came."""
        with contextlib.suppress(asyncio.CancelledError):  # a signal before it was up
            super().run(sockets)
        self.calm()
        failed = self.lifespan.should_exit or (self.started and self.lifespan.error_occurred)
        return 0 if self._told.is_set() and not failed else 1

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """While it serves, signals come here; uvicorn would install handlers of its own and repeat them at the end."""
        loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._signals.receiver = lambda number: _post(loop, self.handle_exit, number)
        self._signals.reloader = lambda: _wake(loop, self._hung_up)
        try:
            yield
        finally:
            self._signals.receiver, self._signals.reloader = lambda _number: None, lambda: None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  the signature is uvicorn's
        """A signal has come: drain, or leave at once if it is the second one, or if nothing is served yet."""
        if self._told.is_set():
            log.info("a second signal: ending at once")
            self._drain.hurry()
            self._limit(HARD_LIMIT_S)
            return
        self._told.set()
        self._drain.begin()
        self._linger_s = min(LINGER_S, self._drain.drain_s) if sig == signal.SIGTERM else 0.0
        self._limit(self._drain.drain_s + HARD_LIMIT_S)
        if not self.started and self._task is not None:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it reports the cancellation as an error
            self._task.cancel()

    def _limit(self, seconds: float) -> None:
        """From now on the process has so long to end."""
        self.calm()
        self._watchdog = threading.Timer(seconds, _give_up)
        self._watchdog.daemon = True
        self._watchdog.start()

    def calm(self) -> None:
        """It has ended: nothing need be forced."""
        if self._watchdog is not None:
            self._watchdog.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup([])  # it would accept one connection a turn, see `listener`
        self._listeners = [Listener(each, self._connection) for each in sockets or ()]
        if self.started:
            self._announce()

    def _connection(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def main_loop(self) -> None:
        """Serve until a signal has come and the streams had their time."""
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(self._beat(), name="server")
            reloading = tasks.create_task(self._reload_when_told(), name="reload")
            falling = tasks.create_task(self._fall_with_the_app(), name="application")
            await self._told.wait()
            reloading.cancel()
            await self._wind_down(tasks)
            falling.cancel()
            beat.cancel()

    async def _beat(self) -> None:
        """What is due every second, also while it drains: the Date header, and clients that owe something."""
        while True:
            begun = monotonic()
            await self.on_tick(0)
            await look_at_all(self._connections())
            await asyncio.sleep(max(0.0, begun + BEAT_S - monotonic()))

    async def _reload_when_told(self) -> None:
        """One reload after the other; signals that come during one are one more."""
        while self._reload is not None:
            await self._hung_up.wait()
            self._hung_up.clear()
            await self._reload()

    async def _fall_with_the_app(self) -> None:
        """Without the application's own tasks nothing can be served: whoever runs the process starts another one."""
        await self.lifespan.shutdown_event.wait()
        log.critical("the application has failed: ending at once")
        self._told.set()
        self._drain.hurry()
        self._limit(HARD_LIMIT_S)

    async def _wind_down(self, tasks: asyncio.TaskGroup) -> None:
        """Steps 1 to 4: everything but the end of the streams that are left."""
        self._drain.begin()
        self.config.encoded_headers.append(CLOSE)
        await self.on_tick(0)
        for connection in self._connections():
            connection.finish()
        lingering = tasks.create_task(self._linger(), name="linger")
        await self._drain.wait(self.server_state.tasks.__len__)
        await lingering

    async def _linger(self) -> None:
        await self._drain.pause(self._linger_s)
        if self._drain.shared:
            self._close_listeners()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  uvicorn's
        """Step 5, after the streams that are left have ended."""
        self._close_listeners()
        for connection in self._connections():
            connection.shutdown()
        await self._drain.end()
        await self._flushed(FLUSH_S)
        for connection in self._connections():
            connection.abort()
        await self._flushed(FLUSH_S)
        for task in tuple(self.server_state.tasks):
            task.cancel()
        await self.lifespan.shutdown()

    async def _flushed(self, seconds: float) -> None:
        """Until every request is answered and every connection closed, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.server_state.tasks or self.server_state.connections:  # noqa: ASYNC110  uvicorn has no event
                    await asyncio.sleep(0.01)

    def _connections(self) -> list[Any]:
        """Those that are open, each a `server.Protocol`."""
        return list(self.server_state.connections)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()


async def look_at_all(connections: Iterable[Any], now: Callable[[], float] = monotonic) -> None:
    """Look at each connection. All others have two thirds of the time: to part from a thousand at once takes a while.

    `now` is in seconds.
    """
    begun, share_s = now(), LOOK_S
    for connection in connections:
        connection.look()
        stopped = now()
        if stopped - begun >= share_s:
            await asyncio.sleep(0)
            begun = now()
            share_s = min(max(LOOK_S, (begun - stopped) / 2), LONGEST_LOOK_S)


def _post(loop: asyncio.AbstractEventLoop, act: Callable[[int, None], None], number: int) -> None:
    """Act in the loop: a signal's handler runs in the middle of whatever the loop was doing."""
    loop.call_soon_threadsafe(act, number, None)


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """As `_post`, for an event."""
    loop.call_soon_threadsafe(event.set)


def _give_up() -> None:
    """Something hangs: leave all the same; for the watchdog's thread."""
    log.error("the shutdown took too long: leaving as it is")
    os._exit(1)
