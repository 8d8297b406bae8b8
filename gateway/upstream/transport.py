"""The way to a provider: one transport for each endpoint, the only place that knows which HTTP client is behind it.

Direct connections go over `http1`. Endpoints behind a corporate proxy go over httpx and aiohttp's transport, which know
how to talk to one; that way costs several times the CPU per chunk, and keeps aiohttp's session unlimited: its default
of 100 connections would be a silent queue. httpx's own pool is not used: it leaks connections when a request is
cancelled twice or while queued (0.28.1). Its exceptions are mapped by the aiohttp exception beneath, since the
transport's own mapping calls a closed keep-alive connection a connect timeout.

HTTP/1.1 only: closing the socket is what stops a generation.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import httpx

from gateway.core.errors import Category, ProviderError
from gateway.upstream.answer import Answer
from gateway.upstream.http1 import Client, Connection, Origin, request_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    import aiohttp
    from httpx_aiohttp import AiohttpTransport

    from gateway.upstream.contract import Timeouts

Headers = list[tuple[str, str]]
Url: TypeAlias = httpx.URL


class Trust:
    """Whom https endpoints are believed, by their `ca_file`; None stands for the machine's own authorities.

    Reading those takes 20 ms and 1 MB: they are read once for all endpoints, and only where one needs them.
    """

    def __init__(self) -> None:
        self._read: dict[str | None, ssl.SSLContext] = {}

    def of(self, ca_file: str | None) -> ssl.SSLContext:
        """The context of connections; raises OSError if the file cannot be read, or holds no certificate."""
        if ca_file not in self._read:
            self._read[ca_file] = ssl.create_default_context(cafile=ca_file)
        return self._read[ca_file]


class Transport:
    """Requests to one endpoint. `tls` is for an https one."""

    def __init__(self, timeouts: Timeouts, *, tls: ssl.SSLContext | None = None, proxy: str | None = None) -> None:
        self._timeouts, self._tls = timeouts, tls
        self._proxied = None if proxy is None else _Proxied(timeouts, tls, proxy)
        self._clients: dict[tuple[str, int], Client] = {}

    @property
    def secrets(self) -> tuple[str, ...]:
        """What goes out with every request and is nobody's business."""
        return ()

    def post(self, url: httpx.URL, headers: Headers, content: bytes) -> AbstractAsyncContextManager[Answer]:
        """Send one request; the block has its answer's head. Leaving closes an unfinished body's socket at once.

        Raises:
            ProviderError: `connect`, `stale_connection` or `protocol`, on entering, when there is no answer.
        """
        if self._proxied is not None:
            return self._proxied.send("POST", url, headers, content)
        return _Direct(self._client(url), request_bytes("POST", url.raw_path, _host(url), headers, content))

    def get(self, url: httpx.URL, headers: Headers) -> AbstractAsyncContextManager[Answer]:
        """As `post`, for a GET."""
        if self._proxied is not None:
            return self._proxied.send("GET", url, headers, b"")
        return _Direct(self._client(url), request_bytes("GET", url.raw_path, _host(url), headers, b""))

    def _client(self, url: httpx.URL) -> Client:
        port = url.port or (443 if url.scheme == "https" else 80)
        key = (url.host, port)
        if key not in self._clients:
            origin = Origin(url.host, port, self._tls if url.scheme == "https" else None)
            self._clients[key] = Client(origin, self._timeouts.connect_s)
        return self._clients[key]

    async def aclose(self) -> None:
        """Close idle connections."""
        for client in self._clients.values():
            client.close()
        if self._proxied is not None:
            await self._proxied.aclose()


class _Direct:
    """One exchange over a connection of our own, as the context manager that `post` returns."""

    __slots__ = ("_client", "_connection", "_request")

    def __init__(self, client: Client, request: bytes) -> None:
        self._client, self._request = client, request
        self._connection: Connection | None = None

    async def __aenter__(self) -> Answer:
        connection = await self._client.acquire()
        try:
            await connection.exchange(self._request)
        except ProviderError:
            self._client.close()  # what was kept beside a stale connection is as old: the repeat gets a new one
            connection.abort()
            raise
        except BaseException:
            connection.abort()
            raise
        self._connection = connection
        return connection

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            self._client.release(self._connection)


class _Proxied:
    """Requests through an HTTP proxy, over httpx's vocabulary and aiohttp's connections."""

    def __init__(self, timeouts: Timeouts, tls: ssl.SSLContext | None, proxy: str) -> None:
        self._extensions = {"timeout": {"connect": timeouts.connect_s}}
        self._tls, self._proxy = tls, proxy
        self._transport: AiohttpTransport | None = None

    @asynccontextmanager
    async def send(self, method: str, url: httpx.URL, headers: Headers, content: bytes) -> AsyncGenerator[Answer]:
        """Send one request; see `Transport.post`."""
        import aiohttp  # noqa: PLC0415  only who has a proxy pays for loading it

        if self._transport is None:
            self._transport = _aiohttp_transport(self._tls, self._proxy)
        request = httpx.Request(method, url, headers=headers, content=content, extensions=self._extensions)
        try:
            response = await self._transport.handle_async_request(request)
        except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as error:
            raise _no_answer(error) from error
        answer = _ProxiedAnswer(response)
        try:
            yield answer
        finally:
            answer.release()

    async def aclose(self) -> None:
        """Close idle connections."""
        if self._transport is not None:
            await self._transport.aclose()


class _ProxiedAnswer(Answer):
    """An answer of aiohttp, read from its own stream reader: whatever has arrived, with one await a read."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        stream: object = response.stream
        self._inner: aiohttp.ClientResponse = stream._aiohttp_response  # type: ignore[attr-defined]  # noqa: SLF001

    async def read(self) -> bytes:
        """What has arrived since the last read."""
        import aiohttp  # noqa: PLC0415  loaded by `_Proxied` before

        try:
            return await self._inner.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderError(Category.STREAM_BROKEN, "the provider's answer was cut off") from error

    def release(self) -> None:
        """Keep the connection if its body was read to the end, else close it; synchronous: nothing can cancel it."""
        if self._inner.content.at_eof():
            self._inner.release()
        else:
            self._inner.close()


def _aiohttp_transport(tls: ssl.SSLContext | None, proxy: str) -> AiohttpTransport:
    import aiohttp  # noqa: PLC0415  see `_Proxied.send`
    from httpx_aiohttp import AiohttpTransport  # noqa: PLC0415

    def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    return AiohttpTransport(verify=tls or False, trust_env=False, client=session, proxy=httpx.Proxy(proxy))


def _no_answer(error: BaseException) -> ProviderError:
    """What it means that no answer's head came through the proxy: by aiohttp's exception, beneath httpx's."""
    cause = error.__cause__ if isinstance(error, httpx.HTTPError) and error.__cause__ is not None else error
    match type(cause).__name__:
        case "ServerDisconnectedError" | "ConnectionResetError" | "ClientConnectionResetError":
            return ProviderError(Category.STALE_CONNECTION, "the connection was closed without an answer")
        case "ClientHttpProxyError" | "ClientProxyConnectionError":
            return ProviderError(Category.CONNECT, "the proxy refused the connection or cannot be reached")
        case "ClientResponseError":
            return ProviderError(Category.PROTOCOL, "the provider's answer is not valid HTTP")
        case name:
            return ProviderError(Category.CONNECT, f"no answer from the provider ({name})")


def parse_url(url: str) -> httpx.URL:
    """A URL parsed once, for `Transport.post`."""
    return httpx.URL(url)


def _host(url: httpx.URL) -> str:
    """The Host header: IPv6 in brackets, the port unless it is the scheme's own."""
    return url.netloc.decode("ascii")
