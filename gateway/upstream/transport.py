"""The one place that imports the HTTP client: httpx's vocabulary over aiohttp's connections.

httpx's own pool leaks connections when a request is cancelled twice or while queued (0.28.1), so requests go straight
to the aiohttp transport of httpx-aiohttp, around httpx's client (cookies, redirects, hooks), with an unlimited session
of our own: bounds are the pool's business, and aiohttp's default of 100 connections would be a silent queue.

Oddities, on purpose:
1. Errors are mapped by the aiohttp exception beneath: the transport's own mapping calls a kept-alive connection that
   the server had closed a connect timeout.
2. HTTP/1.1 only: closing the socket is what stops a generation.
3. The body is read from aiohttp's stream reader, not through httpx's iterators: whatever has arrived, in one piece,
   with one await a read.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from gateway.core.errors import Category, ProviderError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from gateway.upstream.contract import Timeouts

KEEPALIVE_S = 30.0
MAX_ERROR_BODY = 65_536
ERROR_BODY_DEADLINE_S = 5.0
DRAIN_DEADLINE_S = 0.25
READ_BUFFER = 65_536


class Answer:
    """The head of an upstream answer, and its body read by read."""

    __slots__ = ("_content", "headers", "status")

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._content = _inner(response).content

    async def read(self) -> bytes:
        """What has arrived since the last read, at least one byte; empty at the clean end of the body.

        Raises:
            ProviderError: `stream_broken` when the body ended before its announced end.
        """
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _broken(error) from error

    async def error_body(self) -> bytes:
        """The body of an error answer: at most 64 KiB, within 5 s, whatever came if it breaks."""
        body = bytearray()
        try:
            async with asyncio.timeout(ERROR_BODY_DEADLINE_S):
                while len(body) < MAX_ERROR_BODY and (chunk := await self._content.readany()):
                    body += chunk
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        return bytes(body[:MAX_ERROR_BODY])

    async def drain(self) -> None:
        """After the terminal marker: wait a moment for the end of the body, so that the connection can be kept."""
        if self._content.at_eof():
            return
        try:
            async with asyncio.timeout(DRAIN_DEADLINE_S):
                while await self._content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass


class Transport:
    """One HTTP client for one endpoint, for the life of the process."""

    def __init__(self, timeouts: Timeouts, *, tls: bool, proxy: str | None = None, ca_file: str | None = None) -> None:
        self._extensions = {"timeout": {"connect": timeouts.connect_s}}
        # Reading the machine's certificates takes 20 ms and 1 MB: only where they are needed.
        self._tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if tls else False
        self._transport = AiohttpTransport(
            verify=self._tls, trust_env=False, client=self._session, proxy=None if proxy is None else httpx.Proxy(proxy)
        )

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=60)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("user-agent",),
        )

    @asynccontextmanager
    async def post(self, url: httpx.URL, headers: list[tuple[str, str]], content: bytes) -> AsyncGenerator[Answer]:
        """Send one request; the block has its answer's head. Leaving closes an unfinished body's socket at once.

        Raises:
            ProviderError: `connect`, `stale_connection` or `protocol`, when there is no answer.
        """
        request = httpx.Request("POST", url, headers=headers, content=content, extensions=self._extensions)
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as error:
            raise _no_answer(error) from error
        try:
            yield Answer(response)
        finally:
            _release(response)

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._transport.aclose()


def parse_url(url: str) -> httpx.URL:
    """A URL parsed once, for `Transport.post`."""
    return httpx.URL(url)


def _inner(response: httpx.Response) -> aiohttp.ClientResponse:
    """Aiohttp's own response beneath httpx's; see oddity 3."""
    stream: Any = response.stream
    inner: aiohttp.ClientResponse = stream._aiohttp_response  # noqa: SLF001
    return inner


def _release(response: httpx.Response) -> None:
    """Keep the connection if its body was read to the end, else close it; synchronous, so nothing can cancel it."""
    inner = _inner(response)
    if inner.content.at_eof():
        inner.release()
    else:
        inner.close()


def _cause(error: BaseException) -> BaseException:
    """The aiohttp exception beneath the transport's own mapping."""
    return error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ is not None else error


def _no_answer(error: BaseException) -> ProviderError:
    """What it means that no answer's head came."""
    cause = _cause(error)
    match cause:
        case aiohttp.ServerDisconnectedError():
            return ProviderError(Category.STALE_CONNECTION, "the provider closed the connection without an answer")
        case aiohttp.ClientConnectorDNSError():
            return ProviderError(Category.CONNECT, "the provider's host name cannot be resolved")
        case aiohttp.ClientSSLError():
            return ProviderError(Category.CONNECT, "TLS to the provider failed; its certificate may not be trusted")
        case aiohttp.ClientConnectorError():
            return ProviderError(Category.CONNECT, "the provider refused the connection")
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return ProviderError(Category.CONNECT, "connecting to the provider took too long")
        case ConnectionResetError() | BrokenPipeError():
            return ProviderError(Category.STALE_CONNECTION, "the provider reset the connection without an answer")
        case aiohttp.ClientResponseError():
            return ProviderError(Category.PROTOCOL, "the provider's answer is not valid HTTP")
        case _:
            return ProviderError(Category.CONNECT, f"no answer from the provider ({type(cause).__name__})")


def _broken(error: BaseException) -> ProviderError:
    cause: Any = error.__cause__ or error
    return ProviderError(Category.STREAM_BROKEN, f"the provider's answer was cut off ({type(cause).__name__})")
