"""Headers that every request to an endpoint carries, whatever its adapter says: for gateways in front of the vendor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.upstream.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from gateway.upstream.answer import Answer
    from gateway.upstream.contract import Timeouts
    from gateway.upstream.transport import Headers, Url


class FixedHeaders(Transport):
    """A transport that puts `headers`, by lower-case name, in place of the adapter's; `options` are those of any."""

    def __init__(self, timeouts: Timeouts, headers: Mapping[str, str], **options: Any) -> None:
        super().__init__(timeouts, **options)
        self._fixed = dict(headers)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of the headers."""
        return tuple(self._fixed.values())

    def post(self, url: Url, headers: Headers, content: bytes) -> AbstractAsyncContextManager[Answer]:
        """Send one request; see `Transport.post`."""
        return super().post(url, self._with_fixed(headers), content)

    def get(self, url: Url, headers: Headers) -> AbstractAsyncContextManager[Answer]:
        """As `post`, for a GET."""
        return super().get(url, self._with_fixed(headers))

    def _with_fixed(self, headers: Headers) -> Headers:
        own = [(name, value) for name, value in headers if name not in self._fixed]
        return [*own, *self._fixed.items()]
