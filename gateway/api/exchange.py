"""One HTTP exchange: a request read within bounds, an answer written once, in plain ASGI.

The hot routes use this directly, around the web framework's own request and response machinery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import msgspec

from gateway.api.bodies import SMALL, Bodies
from gateway.api.paths import ANTHROPIC_VERSION, dialect_of
from gateway.core.errors import Category, Failure, RequestError
from gateway.dialects.openai_errors import retry_headers

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

BODY_DEADLINE_S = 30.0
_VERSION = ANTHROPIC_VERSION.encode("ascii")
JSON_TYPE = (b"content-type", b"application/json")


class Connection(Protocol):
    """What the server lets the app do beside ASGI; see `api.server`."""

    def whole_body(self, scope: Any) -> bytes | None:
        """The request's body, if all of it has arrived."""
        ...

    def write_now(self, scope: Any, data: bytes) -> bool:
        """Write a part of a chunked body in this turn of the loop; False where something has to be waited for."""
        ...

    def flush(self) -> None:
        """Write what `write_now` holds back."""
        ...

    def owns(self, send: Send) -> bool:
        """Whether `send` is the server's own."""
        ...

    def answer(self, scope: Any, status: int, headers: Headers, data: bytes, *, more: bool, chunked: bool) -> bool:
        """Write a head and the first part of its body; False where it cannot be done at once."""
        ...

    def watch(self, gone: Callable[[], None] | None) -> None:
        """Call `gone` when the client hangs up; None: no more."""
        ...

    def abort(self) -> None:
        """Reset the connection."""
        ...


class ClientGone(Exception):
    """The client hung up before its request was whole."""


class Exchange:
    """A request and its one answer. `status` is what was answered, 0 before; `whole` that all of it was sent.

    `dialect` is what the caller speaks: errors are in its shape.
    """

    __slots__ = (
        "_bodies", "_connection", "_receive", "_send", "_taken", "dialect", "headers", "request_id", "scope", "status",
        "whole",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str = "") -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._connection: Connection | None = scope.get("extensions", {}).get("atlas.connection")
        self.dialect = dialect_of(scope["path"], versioned=_VERSION in self.headers)
        self.request_id = request_id
        self.status = 0
        self.whole = False
        self._bodies: Bodies | None = None
        self._taken = 0

    def header(self, name: str) -> str | None:
        """A request header by its lower-case name."""
        value = self.headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1").strip()

    def given(self, names: tuple[str, ...]) -> dict[str, str]:
        """Those of the named request headers that were sent."""
        found = ((name, self.header(name)) for name in names)
        return {name: value for name, value in found if value is not None}

    async def json_body(self, bodies: Bodies) -> bytes:
        """The whole body of a JSON request; whoever asks for it calls `forget_body` when it is held no more.

        Raises:
            RequestError: 415 other content type, 413 too long, 408 not whole in time.
            Declined: there is no room for it.
            ClientGone: the client hung up.
        """
        content_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type != b"application/json" and not content_type.endswith(b"+json"):
            shown = content_type.decode("latin-1") or "none"
            msg = f"send the body as JSON with 'content-type: application/json', got {shown!r:.64}"
            raise RequestError(msg, status=415, code="unsupported_media_type")
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            msg = "send the body without a content-encoding"
            raise RequestError(msg, status=415, code="unsupported_media_type")
        self._bodies = bodies
        return await self.body(bodies.each)

    def forget_body(self) -> None:
        """The body is held no more, or its stream answers for it; safe to call twice."""
        if self._bodies is not None and self._taken:
            self._bodies.give_back(self._taken)
            self._taken = 0

    def _take(self, size: int) -> None:
        """So much of the body has arrived."""
        if self._bodies is not None and size - self._taken > SMALL:
            self._bodies.take(size - self._taken)
            self._taken = size

    async def body(self, limit: int) -> bytes:
        """The whole body, at most `limit` bytes."""
        length = self.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            raise self._too_large(limit)
        if self._connection is not None and (body := self._connection.whole_body(self.scope)) is not None:
            if len(body) > limit:
                raise self._too_large(limit)
            self._take(len(body))
            return body
        try:
            async with asyncio.timeout(BODY_DEADLINE_S):
                return await self._whole_body(limit)
        except TimeoutError:
            msg = f"the body was not whole within {BODY_DEADLINE_S:g} s"
            raise RequestError(msg, status=408, code="request_timeout") from None

    async def _whole_body(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise self._too_large(limit)
            self._take(size)
            if not message.get("more_body"):
                return b"".join(parts)

    @staticmethod
    def _too_large(limit: int) -> RequestError:
        msg = f"the body is larger than {limit} bytes"
        return RequestError(msg, status=413, code="request_too_large")

    @contextmanager
    def watched(self, gone: Callable[[], None], tasks: asyncio.TaskGroup) -> Generator[None]:
        """Within the block, `gone` is called when the client hangs up. Plain ASGI needs a task for that, of `tasks`."""
        if self._connection is not None:
            self._connection.watch(gone)
            try:
                yield
            finally:
                self._connection.watch(None)
            return
        watcher = tasks.create_task(self._disconnected(gone))
        try:
            yield
        finally:
            watcher.cancel()

    async def _disconnected(self, gone: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        gone()

    def id_headers(self) -> Headers:
        """The request's id, under the names that the caller's dialect has for it."""
        value = self.request_id.encode("ascii")
        return [(name, value) for name in self.dialect.id_headers]

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        self.status = status
        headers += self.id_headers()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def begin(self, status: int, headers: Headers, data: bytes, *, more: bool) -> None:
        """Send the head of a chunked answer together with the first part of its body."""
        await self._begin(status, headers, data, more=more, chunked=True)

    async def _begin(self, status: int, headers: Headers, data: bytes, *, more: bool, chunked: bool) -> None:
        connection = self._connection
        if connection is not None and connection.owns(self._send):
            numbered = headers + self.id_headers()
            if connection.answer(self.scope, status, numbered, data, more=more, chunked=chunked):
                self.status, self.whole = status, not more
                return
        await self.start(status, headers)
        await self.write(data, more=more)

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of the body; waits while more than the transport's high-water mark is queued."""
        self.whole = not more
        if self._connection is not None:
            self._connection.flush()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    @property
    def write_now(self) -> Callable[[Scope, bytes], bool]:
        """Sends a part of the body of this `scope`'s answer soon; False where `write` has to wait for something."""
        return _cannot if self._connection is None else self._connection.write_now

    async def answer_json(self, status: int, value: dict[str, Any], headers: Headers | None = None) -> None:
        """Send an object as a whole JSON answer."""
        await self.answer_body(status, msgspec.json.encode(value), headers or [])

    async def answer_body(self, status: int, body: bytes, headers: Headers) -> None:
        """Send encoded JSON as a whole answer."""
        length = (b"content-length", str(len(body)).encode("ascii"))
        await self._begin(status, [JSON_TYPE, length, *headers], body, more=False, chunked=False)

    async def answer_error(self, status: int, body: dict[str, Any], headers: Headers) -> None:
        """Send an error in the caller's shape."""
        await self.answer_json(status, self.dialect.numbered(body, self.request_id), headers)

    async def refuse(self, error: RequestError, headers: Headers | None = None) -> None:
        """Answer a request that cannot be served."""
        given = [(name.encode(), value.encode()) for name, value in error.headers.items()]
        retry = retry_headers(retry=error.status in {408, 429, 503})
        body = self.dialect.errors.request_body(error)
        await self.answer_error(error.status, body, [*retry, *given, *(headers or [])])

    async def fail(
        self, failure: Failure | None, headers: Headers | None = None, beside: dict[str, Any] | None = None
    ) -> None:
        """Answer with the failure of a stream, by the table of categories; `beside` are members beside the error."""
        failure = failure or Failure(Category.INTERNAL, "the stream failed")
        status, row = self.dialect.errors.failure_status(failure), failure.consequence
        retry_after = failure.retry_after_s
        if retry_after is None and status in {429, 503, 529} and row.retry:
            retry_after = 1.0
        retry = retry_headers(retry=row.retry, retry_after_s=retry_after)
        body = {**self.dialect.errors.failure_body(failure), **(beside or {})}
        await self.answer_error(status, body, [*retry, *(headers or [])])

    def abort(self) -> None:
        """Reset the connection: for a client that does not read, or a body that must not look whole."""
        if self._connection is not None:
            self._connection.abort()


def _cannot(_scope: Scope, _data: bytes) -> bool:
    """Plain ASGI can only wait."""
    return False
