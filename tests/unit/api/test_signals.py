"""Who owns SIGTERM and SIGINT: Atlas, whatever its libraries do to the server."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from sse_starlette.sse import AppStatus

from gateway.api.drain import Drain
from gateway.api.serving import Server, server_config
from gateway.api.signals import HANDLED, Signals
from gateway.core.clock import SystemClock
from gateway.streams.hub import Hub


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Signals are the test runner's again afterwards."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class App:
    """An application that serves nothing, and looks at the signals' handlers while it runs."""

    draining = False

    def __init__(self) -> None:
        self.drain = Drain(Hub(), self, SystemClock(), 0)
        self.handlers: list[Any] = []
        self.seen: list[bool] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.handlers += map(signal.getsignal, HANDLED)
        self.seen.append(AppStatus.should_exit)
        await send({"type": "lifespan.shutdown.complete"})


def serve(app: App) -> tuple[Server, Signals, int]:
    """Serve until SIGTERM, which comes once it is announced."""
    with Signals() as signals, socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(
            server_config(app), app.drain, signals, lambda: asyncio.get_running_loop().call_soon(_terminate)
        )
        return server, signals, server.run([listener])


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_drain_is_the_only_one_who_is_told() -> None:
    """A signal reaches the drain; neither uvicorn's flag nor that of sse-starlette, which cuts streams, is ever set."""
    app = App()
    server, signals, code = serve(app)
    assert (code, app.draining) == (0, True)
    assert app.handlers == [signals._arrived] * len(HANDLED)
    assert (server.should_exit, app.seen, AppStatus.should_exit) == (False, [False], False)


def test_handlers_of_libraries_are_never_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library hangs into uvicorn's own handling of signals is not called."""
    reached: list[int] = []
    monkeypatch.setattr(uvicorn.Server, "handle_exit", lambda _self, number, _frame: reached.append(number))
    assert serve(App())[2] == 0
    assert reached == []


def test_late_signals_are_ignored() -> None:
    """A signal that comes when all is over does not spoil the exit code."""
    serve(App())
    for number in HANDLED:
        signal.raise_signal(number)


def test_signal_before_there_is_a_server() -> None:
    """A signal that comes while the application is being built ends the process with 0."""
    with pytest.raises(SystemExit) as caught, Signals():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 0


def test_shutdown_that_hangs() -> None:
    """A process whose loop hangs in its last moments is gone when the limit is over, with 1 and a line that says so."""
    code = """
        import os, signal, socket, time
        from gateway.api import serving
        from gateway.telemetry.logs import configure
        from tests.unit.api.test_signals import App, serve

        class Hanging(App):
            async def __call__(self, scope, receive, send):
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                time.sleep(60)

        serving.HARD_LIMIT_S = 0.5
        configure("info")
        serve(Hanging())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "the shutdown took too long" in done.stderr
    assert "Traceback" not in done.stderr
