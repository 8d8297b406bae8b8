"""The client dialects as values: everything that HTTP needs to serve one, so that one route serves them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gateway.dialects import (
    anthropic_errors,
    anthropic_messages,
    anthropic_messages_render,
    openai_chat,
    openai_chat_render,
    openai_errors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.core.chat import ChatRequest
    from gateway.core.errors import Failure, RequestError
    from gateway.core.events import End, Event, Start


class Renderer(Protocol):
    """Events -> bytes, pure. `initial` is the progress before entry 0; equal progress and events give equal bytes."""

    initial: Any

    def render(self, progress: Any, events: list[Event], gen: int, first_seq: int) -> tuple[Any, bytes]:
        """The bytes of consecutive events of one entry, and the progress after them."""
        ...

    def broken(self, failure: Failure) -> bytes | None:
        """The in-band error of one response whose log cannot be read on; None where the format has no such thing."""
        ...

    def heartbeat(self, progress: Any) -> bytes | None:
        """What keeps a silent connection open after `progress`; None: a comment does."""
        ...


class Collector(Protocol):
    """Events -> one whole answer."""

    def add(self, events: list[Event]) -> None:
        """Take further events in."""
        ...

    def body(self, end: End) -> bytes:
        """The answer, for an end that is a success."""
        ...


class ErrorShape(Protocol):
    """Errors as the clients of one dialect read them."""

    def request_body(self, error: RequestError, /) -> dict[str, Any]:
        """The body of a request that cannot be served."""
        ...

    def failure_status(self, failure: Failure, /) -> int:
        """The status of a plain answer with this failure."""
        ...

    def failure_body(self, failure: Failure | None, /) -> dict[str, Any]:
        """The body of a failed answer, in-band or not."""
        ...

    def stream_cancelled(self, reason: str | None, /) -> dict[str, Any]:
        """The body of an answer whose stream was cancelled."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One client API.

    `headers` are those that `parse` is given, by lower-case name, where the caller sent them. A request's id stands in
    the `id_headers` of its answer, and in the member `id_member` of an error's body.
    """

    name: str
    id_prefix: str
    parse: Callable[[bytes, Mapping[str, str]], ChatRequest]
    renderer: Callable[[Start], Renderer]
    collector: Callable[[Start], Collector]
    errors: ErrorShape
    headers: tuple[str, ...] = ()
    id_headers: tuple[bytes, ...] = (b"x-request-id",)
    id_member: str | None = None

    def numbered(self, body: dict[str, Any], request_id: str) -> dict[str, Any]:
        """The body of an error with the id of its request, where this dialect has a place for it."""
        return body if self.id_member is None else {**body, self.id_member: request_id}


OPENAI_CHAT = Dialect(
    name=openai_chat.DIALECT,
    id_prefix="chatcmpl-",
    parse=openai_chat.parse,
    renderer=openai_chat_render.StreamRenderer,
    collector=openai_chat_render.Collector,
    errors=openai_errors,
)
ANTHROPIC_MESSAGES = Dialect(
    name=anthropic_messages.DIALECT,
    id_prefix="msg_",
    parse=anthropic_messages.parse,
    renderer=anthropic_messages_render.StreamRenderer,
    collector=anthropic_messages_render.Collector,
    errors=anthropic_errors,
    headers=anthropic_messages.HEADERS,
    id_headers=(b"x-request-id", b"request-id"),
    id_member="request_id",
)
DIALECTS = {dialect.name: dialect for dialect in (OPENAI_CHAT, ANTHROPIC_MESSAGES)}
