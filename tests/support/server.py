"""Atlas under a real uvicorn, in the event loop of the test.

    async with ChaosProvider() as up, AtlasServer(atlas_settings(up)) as atlas:
        client = AsyncOpenAI(base_url=atlas.base_url + "/v1", api_key="x", max_retries=0)
        await client.chat.completions.create(model="chaos/any", messages=[...])

Oddities, on purpose:
1. uvicorn's signal handlers stay out: they belong to the test runner.
2. Its main loop looks every 0.1 s whether it should exit; here it is told.
3. A lifespan that fails makes uvicorn raise SystemExit, which would end the test run; here it is an error with its
cause.
4. Its shutdown always sleeps 0.1 s, and looks every 0.1 s whether connections are gone; here it looks a hundred times a
second, which halves the time of a run.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import uvicorn

from config.settings import Settings
from tests.support.chaos import ChaosProvider

App = Callable[[Any, Any, Any], Awaitable[None]]
_LINGER_0 = struct.pack("ii", 1, 0)
_END_S = 30


class AtlasServer:
    """Serves while entered; takes settings, or any ASGI app.

    On leaving, running requests have `grace_s` seconds to end. `options` are uvicorn's, beside what is set here.

    Raises:
        RuntimeError: when the app's lifespan fails; the app's own error is the cause.
        AssertionError: on leaving, when requests outlived the grace, or the server did not end.
    """

    def __init__(self, served: Settings | App, *, grace_s: float = 10, **options: Any) -> None:
        self.app: App = _app(served)
        self._lifespan_errors: list[BaseException] = []
        self.server = _Server(
            uvicorn.Config(
                self._guarded,
                host="127.0.0.1",
                port=0,
                http="gateway.api.server:Protocol",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                interface="asgi3",
                timeout_graceful_shutdown=grace_s,  # type: ignore[arg-type]  # seconds, of which it takes fractions
                **options,
            )
        )
        self._task: asyncio.Task[None]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server.servers[0].sockets[0].getsockname()[1])

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a path."""
        return self._base_url

    @property
    def connections(self) -> int:
        """Client connections now."""
        return len(self.server.server_state.connections)

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self.server.serve(), name="uvicorn")
        started = asyncio.ensure_future(self.server.up.wait())
        await asyncio.wait([self._task, started], return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            await self._raise_failure("start")
        self._base_url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await self.stop()
        except (AssertionError, RuntimeError):
            if error is None:
                raise

    async def stop(self) -> None:
        """What leaving does: no new connections, requests end, lifespan ends. Again is no harm."""
        self.server.stop()
        done, _ = await asyncio.wait([self._task], timeout=_END_S)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_END_S)
        assert done, f"uvicorn did not end within {_END_S} s"
        if self._task.exception() is not None or self._lifespan_errors:
            await self._raise_failure("stop")
        assert self.server.drained, "requests were still running when the grace was over"

    def reset_connections(self) -> None:
        """Every client's connection dies with RST, as when the replica does."""
        for connection in list(self.server.server_state.connections):
            transport: Any = connection.transport
            sock: socket.socket = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            transport.abort()

    async def _guarded(self, scope: Any, receive: Any, send: Any) -> None:
        """The app; remembers why its lifespan failed."""
        try:
            await self.app(scope, receive, send)
        except BaseException as error:
            if scope["type"] == "lifespan":
                self._lifespan_errors.append(error)
            raise

    async def _raise_failure(self, what: str) -> None:
        await asyncio.wait([self._task])
        own = None if self._task.cancelled() else self._task.exception()
        raise RuntimeError(f"the app did not {what}") from (self._lifespan_errors[0] if self._lifespan_errors else own)


class _Server(uvicorn.Server):
    """uvicorn without signals, told to stop, never leaving the process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self.drained = False
        self._told = asyncio.Event()

    def stop(self) -> None:
        """Ends the main loop."""
        self.should_exit = True
        self._told.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Opens the port, after the lifespan's start."""
        try:
            await super().startup(sockets)
        except SystemExit as error:
            raise RuntimeError(f"uvicorn wanted to exit with {error.code}") from error
        self.up.set()

    async def main_loop(self) -> None:
        """Ticks as uvicorn does, but wakes when told."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 0.1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes as uvicorn does: the port, idle connections, busy ones when they are done, then the lifespan."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(0.01)
                self.drained = True
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel(msg="Task cancelled, timeout graceful shutdown exceeded")
        await self.lifespan.shutdown()


def _app(served: Settings | App) -> App:
    if not isinstance(served, Settings):
        return served
    from gateway.app import create

    app: App = create(served)
    return app


@dataclass(frozen=True, slots=True)
class _Way:
    """How one wire of a chaos provider is configured: `stem` begins its endpoints' names, `model` is its route."""

    stem: str
    model: str
    base_url: Callable[[ChaosProvider], str]


_WAYS = {
    "openai_chat": _Way("up", "chaos/*", lambda up: up.base_url),
    "anthropic": _Way("claude", "claude/*", lambda up: up.root_url),
    "ollama": _Way("llama", "llama/*", lambda up: up.root_url),
}


_PATIENT = {"queue_s": 60, "max_loop_s": 5}


def atlas_settings(*ups: ChaosProvider, **sections: Any) -> Settings:
    """The settings of `atlas_config`, with the same arguments."""
    return Settings(**atlas_config(*ups, **sections))


def atlas_config(
    *ups: ChaosProvider,
    kinds: Sequence[str] = ("openai_chat",),
    endpoint: Mapping[str, Any] | None = None,
    route: Mapping[str, Any] | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """A configuration: the route `chaos/*` to one endpoint a provider (`up`, `up2` ... in this order), and `mock`.

    `kinds` are the wires on which the providers are asked: `anthropic` makes the route `claude/*` to the endpoints
    `claude`, `claude2` ..., `ollama` the route `llama/*` to `llama`, `llama2` .... `endpoint` and `route` change
    members of those (`endpoint={"timeouts": {"idle_s": 0.2}}`); `sections` are the other sections of the file
    (`streams={"status_wait_s": 0.1}`). A client asks for `chaos/NAME`, the provider for `NAME`. A machine that is held
    up is not taken for overload, unless `server` says so.
    """
    endpoints = [_endpoint(kind, at, up) | dict(endpoint or {}) for kind in kinds for at, up in enumerate(ups, 1)]
    routes = [
        {"model": _WAYS[kind].model, "endpoints": [_name(kind, at) for at in range(1, len(ups) + 1)], **(route or {})}
        for kind in kinds
        if ups
    ]
    shape = {"mock": {"enabled": True}, **sections, "server": {**_PATIENT, **sections.get("server", {})}}
    shape["endpoints"] = [*endpoints, *sections.get("endpoints", ())]
    shape["routes"] = [*routes, *sections.get("routes", ())]
    return shape


def _name(kind: str, at: int) -> str:
    stem = _WAYS[kind].stem
    return stem if at == 1 else f"{stem}{at}"


def _endpoint(kind: str, at: int, up: ChaosProvider) -> dict[str, Any]:
    return {
        "name": _name(kind, at),
        "kind": kind,
        "base_url": _WAYS[kind].base_url(up),
        "keys": [up.api_key or "sk-chaos"],
        "model": "*",
    }
