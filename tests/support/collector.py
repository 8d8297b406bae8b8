"""An OpenTelemetry collector: takes traces over OTLP/HTTP, and shows the spans as plain values."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span as it was sent; ids in hexadecimal."""

    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    events: list[str]
    failed: bool
    begun_ns: int
    ended_ns: int


@dataclass(slots=True)
class Collector:
    """Listens while entered. `silent`: takes what it is sent and never answers."""

    silent: bool = False
    spans: list[Span] = field(default_factory=list[Span])
    bodies: bytes = b""
    authorized: set[str] = field(default_factory=set[str])
    _server: asyncio.Server | None = None
    _quiet: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """What goes into the configuration."""
        assert self._server is not None, "it was not entered"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None, "it was not entered"
        self._server.close()
        for task in self._quiet:
            task.cancel()
        await asyncio.gather(*self._quiet, return_exceptions=True)

    def named(self, name: str) -> list[Span]:
        """The spans of this name, as they began."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.begun_ns)

    def of(self, trace: str, name: str) -> list[Span]:
        """Those of them that belong to one trace."""
        return [span for span in self.named(name) if span.trace == trace]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._quiet.add(task)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._take(head, reader)
                if self.silent:
                    await asyncio.Event().wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._quiet.discard(task)
            writer.close()

    async def _take(self, head: bytes, reader: asyncio.StreamReader) -> None:
        assert head.startswith(b"POST /v1/traces "), head
        lines = head.decode("latin-1").lower().split("\r\n")
        self.authorized |= {
            line[15:] for line in head.decode().split("\r\n") if line.lower().startswith("authorization: ")
        }
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        body = await reader.readexactly(length)
        self.bodies += body
        request = ExportTraceServiceRequest.FromString(body)
        self.spans += [
            _span(span) for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
        ]


def _span(span: Any) -> Span:
    return Span(
        name=span.name, trace=span.trace_id.hex(), id=span.span_id.hex(), parent=span.parent_span_id.hex(),
        attributes={each.key: _value(each.value) for each in span.attributes},
        events=[event.name for event in span.events], failed=span.status.code == 2,
        begun_ns=span.start_time_unix_nano, ended_ns=span.end_time_unix_nano,
    )  # fmt: skip


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
