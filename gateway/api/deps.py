"""What the routes share: the app's services, and the checks that every request passes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.api.auth import principal_of
from gateway.core.errors import RequestError
from gateway.streams.journal import ReaderRevoked

if TYPE_CHECKING:
    import asyncio

    from gateway.api.auth import Keyring
    from gateway.api.bodies import Bodies
    from gateway.api.exchange import Exchange
    from gateway.api.rates import Rate
    from gateway.api.sse import Pace
    from gateway.api.stream_tokens import StreamTokens
    from gateway.core.clock import Clock
    from gateway.core.principal import Principal
    from gateway.pipeline import Pipeline
    from gateway.pool.routes import RouteTable
    from gateway.streams.control import StreamControl
    from gateway.streams.reader import Reader
    from gateway.telemetry.metrics import Metrics

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?:\[([^]]*)\]|([^:]*))(?::[0-9]*)?")
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Readers of a stream, the host names that requests may be addressed to, and whose pages may call (`*`: any)."""

    max_readers: int = 256
    cors_origins: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that the routes use; built once by `gateway.app`."""

    pipeline: Pipeline
    control: StreamControl
    routes: RouteTable
    keyring: Keyring
    tokens: StreamTokens
    metrics: Metrics
    clock: Clock
    pace: Pace
    limits: Limits
    bodies: Bodies
    requests: Rate
    controls: Rate

    @property
    def tasks(self) -> asyncio.TaskGroup:
        """The app's own task group, open for the life of the app."""
        if self.pipeline.tasks is None:
            raise RequestError("the gateway is starting", status=503, code="starting", type_="server_error")
        return self.pipeline.tasks

    def guard(self, exchange: Exchange) -> None:
        """Refuse what a browser was tricked into sending: to a name that is not ours, or by a page of somebody else's.

        Without keys, being on this machine is all that it takes to act, and every page that is looked at here is.
        Browsers ask before they send JSON for a page, but not before a POST without a body.

        Raises:
            RequestError: 400 the host, 403 the page.
        """
        origin = exchange.header("origin")
        if origin is not None and exchange.scope["method"] not in _SAFE and not self.keyring.asks:
            self._guard_from(origin, exchange.header("host") or "")
        allowed = self.limits.allowed_hosts
        if "*" in allowed:
            return
        host = (exchange.header("host") or "").lower()
        found = _HOST.fullmatch(host)
        if found is None or (found[1] or found[2]) not in allowed:
            msg = f"the host {host!r:.128} is not served here; add it to server.allowed_hosts"
            raise RequestError(msg, code="invalid_host", param="Host")

    def _guard_from(self, origin: str, host: str) -> None:
        scheme, _, home = origin.lower().partition("://")
        is_page = scheme in {
            "http",
            "https",
            "null",
        }  # others are programs: desktop applications, extensions
        if is_page and home != host.lower() and not self.limits.cors_origins & {origin, "*"}:
            msg = f"pages of {origin!r:.128} may not call; add it to server.cors_origins, or configure keys"
            raise RequestError(msg, status=403, code="invalid_origin", param="Origin")

    def reads(self, reader: Reader, who: Principal) -> None:
        """Another key's stream may be read until one's own is revoked, which it may be since it was let in."""
        reader.key_id = who.key_id
        if self.keyring.is_revoked(who.key_id):
            reader.fail(ReaderRevoked())

    def principal(self, exchange: Exchange) -> Principal:
        """Who is asking: whom the edge admitted to this route."""
        return principal_of(exchange.scope)


def bad_header(name: str, expected: str, got: str) -> RequestError:
    """The refusal of a header's value."""
    return RequestError(f"{name} must be {expected}, got {got!r:.64}", param=name, code="invalid_header")
