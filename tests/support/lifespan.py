"""Starting and stopping an app without a server.

async with Lifespan(app) as state, AsgiCall(app, state=state) as call: ...
"""

import asyncio
from typing import Any

from tests.support.asgi import App, Message

_TIMEOUT_S = 20


class Lifespan:
    """Runs the app's lifespan while entered; gives the state to hand to its calls.

    Raises:
        RuntimeError: when the app does not start, or does not stop properly; the app's own error is the cause.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> dict[str, Any]:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        running = self._app(scope, self._inbox.get, self._outbox.put)
        self._task = asyncio.ensure_future(running)
        self._task.set_name("lifespan")
        await self._step("startup")
        return self._state

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await self._step("shutdown")
            await asyncio.wait_for(self._task, _TIMEOUT_S)
        except Exception:
            if error is None:
                raise

    async def _step(self, name: str) -> None:
        self._inbox.put_nowait({"type": f"lifespan.{name}"})
        answer = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait([answer, self._task], timeout=_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        said = answer.result()["type"] if answer.done() else None
        answer.cancel()
        if said != f"lifespan.{name}.complete":
            await self._fail(name)

    async def _fail(self, name: str) -> None:
        await asyncio.wait([self._task], timeout=_TIMEOUT_S)
        cause = self._task.exception() if self._task.done() else None
        self._task.cancel()
        raise RuntimeError(f"the app's {name} failed") from cause
