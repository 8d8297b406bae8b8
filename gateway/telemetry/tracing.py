"""Traces: one span a request, and within it one for each attempt, under OpenTelemetry's `gen_ai` names.

The only module that imports opentelemetry, and only in functions: it is an extra. Nobody is asked for anything while
tracing is off, and nothing here is called for a chunk: what a stream took is known at its end. A request's span lasts
as long as what it began: its answer, and its stream, if that goes on without it.

Names: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (`gen_ai.system` is the older name of
`gen_ai.provider.name`, which many back ends still look for). What is Atlas's own begins with `atlas.`.
No prompt, no answer, no credential and no query string is in any span.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.core.events import OUTRUN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span
    from opentelemetry.trace import Tracer as OtelTracer

Value: TypeAlias = str | int | float | bool | Sequence[str] | None
Attributes: TypeAlias = Mapping[str, Value]

INSTALL = "tracing needs OpenTelemetry: `make otel`, or pip install -r requirements-otel.lock"
EXPORT_S = 5.0
"""How long one batch may take to be sent."""
FLUSH_S = 3.0
"""How long the last batches may take at the end of the process."""
MOST_SPANS = 4096
"""Spans that wait to be sent; more are dropped, and a log line says so."""
MOST_ATTEMPTS = 256
"""Attempts of one trace that are told of: a run of an agent may make many."""
TRACES_PATH = "/v1/traces"
CHAT = "chat"
_PROVIDERS = {"openai_chat": "openai"}
"""The conventions' names of wires; the others are called alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingOptions:
    """`url` takes OTLP over HTTP, with `headers`; `ratio` of the traces are kept where callers do not say."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    ratio: float = 1.0
    service: str = "atlas"


def is_installed() -> bool:
    """Whether the extra is there."""
    return all(
        importlib.util.find_spec(name) is not None
        for name in ("opentelemetry", "opentelemetry.exporter.otlp.proto.http")
    )


class Attempt:
    """One call of an endpoint. It is told of once its trace is over: only then it is known what the call took."""

    __slots__ = ("_ended_ns", "answered", "endpoint", "error", "is_settled", "span", "was_outrun")

    def __init__(self, span: Span, endpoint: str) -> None:
        self.span, self.endpoint = span, endpoint
        self.answered = self.is_settled = self.was_outrun = False
        self.error: str | None = None
        self._ended_ns: int | None = None

    def headers(self) -> list[tuple[str, str]]:
        """What tells the provider's own traces whose they are a part of (W3C Trace Context)."""
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self.span))
        return list(carrier.items())

    @property
    def is_waiting(self) -> bool:
        """Whether it may still come to its first content."""
        return not self.answered and self._ended_ns is None

    def content(self) -> None:
        """It came to its first content."""
        self.answered = True
        self.span.add_event("gen_ai.first_content")

    def left(self, error: str | None) -> None:
        """Nothing more will be read; `error` is the category of a failure."""
        self._ended_ns, self.error = time.time_ns(), error  # by the clock that OpenTelemetry begins spans with

    def tell(self) -> None:
        """End the span, when the call ended; that another one was faster is no failure."""
        if self.error is not None and not self.was_outrun:
            _fail(self.span, self.error)
        self.span.end(self._ended_ns)


class Trace:
    """A request, and the stream that it began, if any. `status` is what was answered."""

    def __init__(self, span: Span, tracer: Tracer, method: str) -> None:
        self.span, self._tracer, self._method = span, tracer, method
        self.status = 0
        self.attempts: list[Attempt] = []
        self._streams: set[str] = set()
        self._is_answered = False

    def attempt(self, endpoint: str, kind: str, model: str) -> Attempt | None:
        """An endpoint is asked for the provider's own `model`; None where there were too many."""
        if len(self.attempts) >= MOST_ATTEMPTS:
            return None
        found = Attempt(self._tracer.child(self.span, f"{CHAT} {model}"), endpoint)
        provider = _PROVIDERS.get(kind, kind)
        _set(found.span, {
            "gen_ai.operation.name": CHAT, "gen_ai.provider.name": provider, "gen_ai.system": provider,
            "gen_ai.request.model": model, "atlas.endpoint": endpoint,
        })  # fmt: skip
        self.attempts.append(found)
        return found

    def content(self, endpoint: str) -> None:
        """A call of this endpoint came to its first content: the one of this task, or else the newest that is open."""
        waiting = [each for each in self.attempts if each.endpoint == endpoint and each.is_waiting]
        found = asked if (asked := ASKED.get()) in waiting else waiting[-1] if waiting else None
        if found is not None:
            found.content()

    def settled(self, endpoint: str, attributes: Attributes) -> None:
        """What a call of this endpoint took; told in the order in which they were begun."""
        ours = [each for each in self.attempts if each.endpoint == endpoint and not each.is_settled]
        found = next((each for each in ours if each.answered), ours[-1] if ours else None)
        if found is not None:
            found.is_settled, found.was_outrun = True, attributes.get("atlas.end") == OUTRUN
            _set(found.span, attributes)

    def event(self, name: str, attributes: Attributes) -> None:
        """Something happened to it."""
        self.span.add_event(name, _known(attributes))

    def began(self, stream: str, attributes: Attributes) -> None:
        """The request began a stream: the trace lasts until `ended`."""
        self._streams.add(stream)
        self._tracer.streams[stream] = self
        _set(self.span, {"atlas.stream": stream, **attributes})

    def ended(self, stream: str, attributes: Attributes, error: str | None) -> None:
        """The stream is over; `error` is why it failed."""
        self._tracer.streams.pop(stream, None)
        self._streams.discard(stream)
        _set(self.span, attributes)
        if error is not None:
            _fail(self.span, error)
        self._close()

    def answered(self, route: str | None) -> None:
        """The answer is over, whole or not."""
        self._is_answered = True
        self.span.update_name(f"{self._method} {route}" if route else self._method)
        _set(self.span, {"http.route": route, "http.response.status_code": self.status or None})
        if self.status >= 500:
            _fail(self.span, str(self.status))
        self._close()

    def _close(self) -> None:
        if self._is_answered and not self._streams:
            for attempt in self.attempts:
                attempt.tell()
            self.span.end()


CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The trace of the request that is answered, and of the stream that it began."""
ASKED: ContextVar[Attempt | None] = ContextVar("attempt", default=None)
"""The call that is under way in this task."""


class Tracer:
    """Makes traces from `start` until `stop`; `streams` are those that are open, by the id that clients see."""

    def __init__(self, options: TracingOptions, version: str) -> None:
        self._options, self._version = options, version
        self.streams: dict[str, Trace] = {}
        self._provider: TracerProvider
        self._spans: OtelTracer

    def start(self) -> None:
        """Begin; a thread sends batches from now on.

        Raises:
            ModuleNotFoundError: the extra is not installed.
        """
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

        options = self._options
        exporter = OTLPSpanExporter(endpoint=options.url, headers=dict(options.headers), timeout=EXPORT_S)
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(options.ratio),
            resource=Resource({"service.name": options.service, "service.version": self._version}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=MOST_SPANS))
        self._spans = self._provider.get_tracer("atlas", self._version)

    async def stop(self) -> None:
        """Send what is left, for `FLUSH_S` at most: a collector that does not answer holds up nobody's shutdown."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=flush, name="traces", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await done.wait()

    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> Trace:
        """A request arrived; its caller's `traceparent`, if it sent one, says of what it is a part."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in _CONTEXT}
        parent = TraceContextTextMapPropagator().extract(given)
        span = self._spans.start_span(method, parent, SpanKind.SERVER, {"http.request.method": method})
        return Trace(span, self, method)

    def child(self, parent: Span, name: str) -> Span:
        """A call that is made for a request."""
        from opentelemetry.trace import SpanKind, set_span_in_context  # noqa: PLC0415

        return self._spans.start_span(name, set_span_in_context(parent), SpanKind.CLIENT)


_CONTEXT = frozenset({b"traceparent", b"tracestate"})


def _known(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _set(span: Span, attributes: Attributes) -> None:
    span.set_attributes(_known(attributes))


def _fail(span: Span, error: str) -> None:
    from opentelemetry.trace import StatusCode  # noqa: PLC0415

    span.set_attribute("error.type", error)
    span.set_status(StatusCode.ERROR)
