"""An incremental ASGI caller: no server between test and app, every message in the test's hand.

    async with AsgiCall(app, "POST", "/v1/chat/completions", json={...}) as call:
        status, headers = await call.start()
        first = await call.chunk()
        call.disconnect()

It behaves as uvicorn does: what is sent after a disconnect is dropped without a word, only `receive` tells of it, and
`receive` tells of a disconnect, too, once the answer is complete. With `buffer=n` the app's `send` waits while n
messages are unread, as it does below a slow client.
"""

import asyncio
import json as json_
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Self
from urllib.parse import unquote

Message = MutableMapping[str, Any]
App = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
_TIMEOUT_S = 20


class AsgiCall:
    """One HTTP request while entered; on leaving the app must end within five seconds, and its error is raised.

    Without `body` and `json` the body is open: `feed` it. `state` is the lifespan's.
    """

    def __init__(
        self,
        app: App,
        method: str = "GET",
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        json: Any = None,
        state: Mapping[str, Any] | None = None,
        buffer: int = 0,
        client: tuple[str, int] = ("127.0.0.1", 50000),
    ) -> None:
        body = json_.dumps(json).encode() if json is not None else body
        if body is None and method in {"GET", "HEAD", "DELETE"}:
            body = b""
        self._app = app
        self._scope = _scope(method, path, headers or {}, body, is_json=json is not None)
        self._scope |= {"state": dict(state or {}), "client": client}
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=buffer)
        self._gone, self._over = asyncio.Event(), asyncio.Event()
        self._finished = False
        self._task: asyncio.Task[None]
        if body is not None:
            self.feed(body, more=False)

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"asgi {self._scope['path']}")
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.disconnect()
        done, _ = await asyncio.wait([self._task], timeout=_TIMEOUT_S)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_TIMEOUT_S)
        if error is None:
            assert done, "the app did not end after the disconnect"
            await self._task

    def feed(self, body: bytes, *, more: bool = True) -> None:
        """One piece of the request's body."""
        self._inbox.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def disconnect(self) -> None:
        """The client leaves; from here on nothing reaches it."""
        self._gone.set()
        self._over.set()

    @property
    def is_running(self) -> bool:
        """Whether the app has not returned yet."""
        return not self._task.done()

    async def ended(self) -> None:
        """Returns when the app did; raises its error."""
        await asyncio.wait_for(asyncio.shield(self._task), _TIMEOUT_S)

    async def message(self) -> Message | None:
        """The next message of the answer; None when the app returned and there is none."""
        return await asyncio.wait_for(self._outbox.get(), _TIMEOUT_S)

    async def start(self) -> tuple[int, dict[str, str]]:
        """The answer's status and headers, names in lower case."""
        message = await self.message()
        assert message is not None, "the app returned without an answer"
        assert message["type"] == "http.response.start", f"expected a head, got {message!r}"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        return message["status"], headers

    async def chunk(self) -> bytes | None:
        """The next piece of body, also an empty one; None after the last."""
        if self._finished:
            return None
        message = await self.message()
        assert message is not None, "the app returned before its body ended"
        assert message["type"] == "http.response.body", f"expected body, got {message!r}"
        self._finished = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def rest(self) -> bytes:
        """All of the body that is left."""
        body = b""
        while (piece := await self.chunk()) is not None:
            body += piece
        return body

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            await self._put(None)

    async def _receive(self) -> Message:
        if not self._over.is_set():
            fed = await _first(self._inbox.get(), self._over.wait())
            if isinstance(fed, dict):
                return fed
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._gone.is_set():
            await self._put(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over.set()

    async def _put(self, message: Message | None) -> None:
        await _first(self._outbox.put(message), self._gone.wait())


async def _first(one: Awaitable[Any], other: Awaitable[Any]) -> Any:
    """What `one` gives, if it is there first; otherwise True from `other`. Neither is left running."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()


def _scope(method: str, path: str, headers: Mapping[str, str], body: bytes | None, *, is_json: bool) -> dict[str, Any]:
    known = {"host": "127.0.0.1"}
    if is_json:
        known["content-type"] = "application/json"
    if body:
        known["content-length"] = str(len(body))
    known |= {name.lower(): value for name, value in headers.items()}
    bare, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(bare),
        "raw_path": bare.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in known.items()],
        "server": ("127.0.0.1", 8080),
    }
