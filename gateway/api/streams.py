"""The stream routes: list, status, events, text, pause, resume, cancel, token, delete."""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.api.auth import CONTROL, READ, principal_of
from gateway.api.deps import IDEMPOTENCY_KEY, bad_header
from gateway.api.exchange import Exchange
from gateway.api.paths import REQUEST_ID
from gateway.api.sse import Delivery, shared
from gateway.api.stream_tokens import PARAMETER, READ_OR_TOKEN
from gateway.core.errors import RequestError, StreamRefused
from gateway.core.events import RESTART, Leg, Start, Text
from gateway.core.ids import parse_sid
from gateway.dialects.catalog import DIALECTS
from gateway.dialects.native import NativeRenderer
from gateway.dialects.strict_json import decode_object
from gateway.streams.journal import JournalError, JournalUnavailable
from gateway.streams.reader import Reader, resolve
from gateway.telemetry.audit import record

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from starlette.types import Receive, Scope, Send

    from gateway.api.deps import Services
    from gateway.core.events import Event
    from gateway.dialects.catalog import Renderer
    from gateway.streams.control import ControlAnswer
    from gateway.streams.journal import Page
    from gateway.telemetry.audit import Act

MAX_CONTROL_BODY = 4096
MAX_REASON = 200
_ETAG = re.compile(r'(?:W/)?"?([0-9]{1,18})"?')
_AT_FAULT = re.compile(r"(?:at `\$\.|unknown field `)([^`]+)`$")


class _ControlBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: str | None = None
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=10)] = 2.0


StateName = Literal["queued", "running", "paused", "completed", "incomplete", "cancelled", "failed"]


class StreamRoutes:
    """The routes, bound to one app's services."""

    def __init__(self, services: Services) -> None:
        self._services, self._control = services, services.control

    def router(self) -> APIRouter:
        """All of them."""
        routes = APIRouter(prefix="/v1/streams", tags=["streams"])
        one = "/{stream_id}"
        reads, controls, pages = [Depends(READ)], [Depends(CONTROL)], [Depends(READ_OR_TOKEN)]
        routes.get("", summary="Own streams, newest first", dependencies=reads)(self.listing)
        routes.get(one, summary="The status object of a stream", dependencies=pages)(self.status)
        routes.get(one + "/events", summary="The events of a stream as SSE, from any cursor", dependencies=pages)(
            self.events
        )
        routes.get(one + "/text", summary="The text so far, as far as it may be served", dependencies=pages)(self.text)
        routes.post(one + "/token", summary="A token to read this stream without a key", dependencies=reads)(self.token)
        routes.post(one + "/pause", summary="Serve nothing further until a resume", dependencies=controls)(self.pause)
        routes.post(one + "/resume", summary="Serve what was held back, and go on", dependencies=controls)(self.resume)
        routes.post(one + "/cancel", summary="End the stream and close its upstream", dependencies=controls)(
            self.cancel
        )
        routes.delete(one, summary="Forget an ended stream", status_code=204, dependencies=controls)(self.delete)
        return routes

    async def listing(
        self,
        request: Request,
        state: StateName | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: str | None = None,
    ) -> Response:
        """Own streams, newest first."""
        _only(request, {"state", "limit", "after"})
        tenant = _tenant(request)
        last = None if after is None else parse_sid(after)
        if after is not None and last is None:
            msg = f"after must be a stream id, got {after!r:.64}"
            raise RequestError(msg, param="after", code="bad_cursor")
        found = await self._services.pipeline.journal.listing(tenant, after=last, limit=limit + 1, state=state)
        data = await self._control.describe(found[:limit])
        return _json({"object": "list", "data": data, "has_more": len(found) > limit})

    async def status(self, request: Request, stream_id: str) -> Response:
        """The status object."""
        _only(request, {PARAMETER})
        shown = await self._control.status(stream_id, _tenant(request))
        return _json(shown, headers={"etag": f'"{shown["gen"]}"'})

    async def events(
        self,
        request: Request,
        stream_id: str,
        after: str | None = None,
        format: Literal["native", "wire"] = "native",  # noqa: A002  the route's own word
        skip_events: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """The log as SSE, from any cursor, natively or in its own dialect."""
        _only(request, {"after", "format", "skip_events", PARAMETER})
        tenant = _tenant(request)
        cursor = request.headers.get("last-event-id") or after
        page = await self._control.page(stream_id, tenant, max_bytes=1)
        self._check_readers(page)
        if format == "wire":
            if cursor is not None:
                msg = "format=wire has no ids: use ?skip_events=<data frames that you have>"
                raise RequestError(msg, param="after", code="bad_cursor")
            return _Events(self._services, page.record.sid, -1, partial(_wire, page), skip_events)
        if skip_events:
            msg = "skip_events goes with format=wire; use ?after=<id>"
            raise RequestError(msg, param="skip_events", code="bad_cursor")
        try:
            position = await resolve(cursor, page, self._services.pipeline.journal)
        except StreamRefused as refused:
            refused.stream = await self._control.status(stream_id, tenant)
            raise
        if page.record.ended is not None and position >= page.tail:
            return Response(status_code=204)
        return _Events(self._services, page.record.sid, position, NativeRenderer, 0)

    async def text(self, request: Request, stream_id: str, choice: Annotated[int, Query(ge=0)] = 0) -> Response:
        """The text of one choice, as far as it may be served."""
        _only(request, {"choice", PARAMETER})
        tenant = _tenant(request)
        page = await self._control.page(stream_id, tenant, max_bytes=1)
        pipeline = self._services.pipeline
        reader = Reader(pipeline.hub.as_of(page), pipeline.hub, pipeline.journal)
        parts: list[str] = []
        try:
            while reader.behind:
                for _, _, served in await reader.next():
                    _add_text(parts, served, choice)
        finally:
            reader.detach()
        return _json(
            {"id": stream_id, "object": "stream.text", "choice": choice, "text": "".join(parts), "seq": reader.position}
        )

    async def token(self, request: Request, stream_id: str) -> Response:
        """What a browser's EventSource shows instead of a key; see `gateway.api.stream_tokens`."""
        _only(request, set())
        who = principal_of(request.scope)
        sid = (await self._control.page(stream_id, who.tenant, max_bytes=1)).record.sid
        token, expires_at = await self._services.tokens.issue(sid, who)
        record("stream.token", "issued", who, stream=stream_id, request=request.scope.get(REQUEST_ID))
        answer = {
            "object": "stream.token", "stream": stream_id, "token": token, "expires_at": expires_at,
            "url": f"/v1/streams/{stream_id}/events?{PARAMETER}={token}",
        }  # fmt: skip
        return _json(answer, headers={"cache-control": "no-store"})

    async def pause(self, request: Request, stream_id: str) -> Response:
        """Serve nothing further until a resume."""
        asked = await self._asked(request)
        tenant = _tenant(request)
        return await _controlled(
            self._services, request, "stream.pause",
            self._control.pause(stream_id, tenant, op_id=asked.op_id, expect_gen=asked.gen, reason=asked.body.reason),
        )  # fmt: skip

    async def resume(self, request: Request, stream_id: str) -> Response:
        """Serve what was held back, and go on."""
        asked = await self._asked(request)
        tenant = _tenant(request)
        return await _controlled(
            self._services, request, "stream.resume",
            self._control.resume(stream_id, tenant, op_id=asked.op_id, expect_gen=asked.gen, reason=asked.body.reason),
        )  # fmt: skip

    async def cancel(self, request: Request, stream_id: str) -> Response:
        """End the stream and close its upstream."""
        asked = await self._asked(request)
        tenant = _tenant(request)
        return await _controlled(
            self._services, request, "stream.cancel",
            self._control.cancel(
                stream_id, tenant, op_id=asked.op_id, expect_gen=asked.gen, reason=asked.body.reason,
                wait_s=asked.body.wait_s,
            ),
        )  # fmt: skip

    async def delete(self, request: Request, stream_id: str, force: Annotated[int, Query(ge=0, le=1)] = 0) -> Response:
        """Forget an ended stream."""
        _only(request, {"force"})
        self._services.controls.take(principal_of(request.scope))
        with _audited(request, "stream.delete"):
            await self._control.delete(stream_id, _tenant(request), force=bool(force))
        _record(request, "stream.delete", "deleted")
        return Response(status_code=204)

    async def _asked(self, request: Request) -> _Asked:
        """What a control operation asks for, of a caller who does not ask too often."""
        self._services.controls.take(principal_of(request.scope))
        return await _asked(request)

    def _check_readers(self, page: Page) -> None:
        """Refuse a reader that is one too many for this process, with 429."""
        channel, most = self._services.pipeline.hub.find(page.record.sid), self._services.limits.max_readers
        if channel is not None and len(channel.readers) > most:
            msg = f"a stream has at most {most} readers here beside who asked for it; try again when one has left"
            headers = {"retry-after": "1"}
            raise RequestError(msg, status=429, code="too_many_readers", type_="rate_limit_error", headers=headers)


class _Asked(msgspec.Struct):
    """What a control request carries beside its path."""

    body: _ControlBody
    gen: int | None
    op_id: str | None


async def _asked(request: Request) -> _Asked:
    """Body, If-Match and Idempotency-Key of a control request; no body is fine.

    Raises:
        RequestError: 400, naming what is wrong.
    """
    _only(request, set())
    raw = await _exchange(request).body(MAX_CONTROL_BODY)
    try:
        body = msgspec.convert(decode_object(raw), _ControlBody) if raw.strip() else _ControlBody()
    except msgspec.ValidationError as error:
        msg = f"the body is {{reason?: string, wait_s?: 0..10}}: {error}"
        at_fault = _AT_FAULT.search(msg)
        raise RequestError(msg, code="invalid_body", param=at_fault and at_fault[1]) from error
    if body.reason is not None and len(body.reason) > MAX_REASON:
        msg = f"reason is at most {MAX_REASON} characters, got {len(body.reason)}"
        raise RequestError(msg, param="reason", code="invalid_value")
    key = request.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise bad_header("Idempotency-Key", "1 to 255 visible ASCII characters", key)
    match = request.headers.get("if-match")
    etag = None if match in {None, "*"} else _ETAG.fullmatch(match or "")
    if match not in {None, "*"} and etag is None:
        raise bad_header("If-Match", '"<gen>"', match or "")
    return _Asked(body, None if etag is None else int(etag[1]), key)


@contextmanager
def _audited(request: Request, act: Act) -> Generator[None]:
    """What is refused within stands in the audit log, with the reason that the caller is told."""
    try:
        yield
    except RequestError as error:
        _record(request, act, error.code or "refused")
        raise
    except JournalUnavailable:
        _record(request, act, "unavailable")
        raise


def _record(request: Request, act: Act, result: str) -> None:
    scope = request.scope
    record(act, result, principal_of(scope), stream=request.path_params["stream_id"], request=scope.get(REQUEST_ID))


async def _controlled(services: Services, request: Request, act: Act, call: Any) -> Response:
    """Run a control operation and answer with what it did and the stream's status."""
    stream_id, tenant = request.path_params["stream_id"], _tenant(request)
    try:
        with _audited(request, act):
            answer: ControlAnswer = await call
    except StreamRefused as refused:
        if refused.status in {409, 412}:
            refused.stream = await services.control.status(stream_id, tenant)
        raise
    except JournalUnavailable:
        msg = "the journal cannot be reached: what you asked for has happened, or has not; repeat it"
        headers = {"retry-after": "1"}
        raise RequestError(msg, status=503, code="control_unavailable", type_="server_error", headers=headers) from None
    _record(request, act, "changed" if answer.changed else "unchanged")
    body: dict[str, Any] = {"changed": answer.changed, "seq": answer.seq}
    if answer.upstream is not None:
        body["upstream"] = answer.upstream
    body["stream"] = await services.control.status(stream_id, tenant)
    return _json(body, 202 if answer.upstream == "closing" else 200, {"etag": f'"{answer.gen}"'})


class _Events(Response):
    """A delivery as a framework response: attached when it begins, detached in every case."""

    def __init__(
        self, services: Services, sid: str, position: int, make: Callable[[], Renderer], skip_frames: int
    ) -> None:
        super().__init__()
        self._services, self._sid, self._position = services, sid, position
        self._make, self._skip_frames = make, skip_frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        hub, journal = services.pipeline.hub, services.pipeline.journal
        channel = hub.join(await journal.read(self._sid, -1, 1))  # as it is now, not as it was when the route began
        channel.reattaches += 1
        channel.replayed_events += max(0, channel.limit - self._position)
        services.metrics.reattaches.inc()
        reader = Reader(channel, hub, journal, self._position)
        services.reads(reader, principal_of(scope))
        renderer = shared(reader, "native" if self._make is NativeRenderer else "wire", self._make)
        delivery = Delivery(Exchange(scope, receive, send), reader, renderer, services.clock, services.pace)
        try:
            await delivery.run(list, services.tasks, eager=True, skip_frames=self._skip_frames)
        finally:
            reader.detach()


def _add_text(parts: list[str], events: list[Event], choice: int) -> None:
    """Put the text of further events to what came before; an answer that was begun anew has only its own."""
    for event in events:
        if isinstance(event, Text) and event.choice == choice:
            parts.append(event.text)
        elif isinstance(event, Leg) and event.strategy == RESTART:
            parts.clear()


def _wire(page: Page) -> Renderer:
    start = page.entries[0].events[0] if page.entries else None
    if not isinstance(start, Start):
        msg = "the log has no entry 0"
        raise JournalError(msg)
    dialect = DIALECTS.get(start.dialect)
    return NativeRenderer() if dialect is None else dialect.renderer(start)  # a run of an agent has no wire of its own


def _tenant(request: Request) -> str:
    return principal_of(request.scope).tenant


def _exchange(request: Request) -> Exchange:
    return Exchange(request.scope, request.receive, request._send)  # noqa: SLF001  it answers nothing, it only reads


def _only(request: Request, known: set[str]) -> None:
    """Refuse query parameters that this route does not know, and one that is given twice: which one would count?"""
    given = [name for name, _ in request.query_params.multi_items()]
    unknown = sorted(set(given) - known)
    if unknown:
        msg = f"unknown query parameter {unknown[0]!r}; known: {', '.join(sorted(known)) or 'none'}"
        raise RequestError(msg, param=unknown[0], code="unknown_parameter")
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        msg = f"the query parameter {twice!r} is given more than once"
        raise RequestError(msg, param=twice, code="repeated_parameter")


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
