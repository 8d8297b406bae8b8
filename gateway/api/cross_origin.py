"""Pages of other origins that may call: what browsers ask for before they let a page do so (the Fetch standard, CORS).

Keys and tokens come in headers or in the query, never in cookies, so credentials in the sense of that standard are not
allowed. Without configured origins nothing of this is in the way of a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import ASGIApp

READABLE = (
    "x-atlas-stream-id", "location", "x-atlas-endpoint", "x-atlas-attempts", "x-atlas-idempotent", "x-request-id",
    "request-id", "x-should-retry", "retry-after", "etag", "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
)  # fmt: skip
"""Headers of answers that a page may read."""
PREFLIGHT_S = 600


def for_browsers(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The app for pages of these origins, too; `*` is any."""
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=("GET", "POST", "DELETE"), allow_headers=("*",),
        expose_headers=READABLE, max_age=PREFLIGHT_S,
    )  # fmt: skip


def readable_by(origins: Sequence[str], headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The header lines by which a page may read an answer that the app did not give; none for other origins."""
    origin = next((value for name, value in headers if name == b"origin"), None)
    if origin is None or not ("*" in origins or origin.decode("latin-1") in origins):
        return b""
    readable = ", ".join(READABLE).encode("ascii")
    return (
        b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\nvary: Origin\r\n"
        % (origin, readable)
    )  # fmt: skip
