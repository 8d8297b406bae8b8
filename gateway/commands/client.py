"""The gateway as commands talk to it: its HTTP API, under `--url` with `--key`.

Whatever can go wrong becomes one of the exceptions in `errors`. The environment's
proxies are ignored, redirects are not followed: a key goes to the gateway that was named and to nobody else.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from gateway import __version__
from gateway.commands.errors import Broken, Garbage, Refused, Unreachable, WrongUse
from gateway.commands.terminal import one_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Iterator, Mapping

    import httpx

    from gateway.commands.terminal import Terminal

DEFAULT_URL = "http://127.0.0.1:8080"
URL_VARIABLE, KEY_VARIABLE = "ATLAS_URL", "ATLAS_KEY"
CONNECT_S, ANSWER_S, SILENCE_S = 5.0, 30.0, 45.0
"""The longest waits for a connection, for an answer, and for the next byte of a stream (it has heartbeats)."""
AWAY = frozenset({502, 503, 504})
"""What a proxy says while there is nobody behind it."""
EVENTS = "text/event-stream"
MAX_BODY = 64 * 2**20
MAX_LINE = 8 * 2**20


class Client:
    """One gateway, which has `answer_s` for each answer. Enter it. An address as SDKs take it, with `/v1`, will do."""

    def __init__(self, url: str, key: str | None, *, answer_s: float = ANSWER_S) -> None:
        import httpx  # noqa: PLC0415  commands that ask nobody do not pay for it

        self._httpx, self.url, self.shows_key = httpx, url.rstrip("/").removesuffix("/v1"), bool(key)
        headers = {"user-agent": f"atlas-cli/{__version__}", "accept-encoding": "identity"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        timeout = httpx.Timeout(answer_s, connect=min(answer_s, CONNECT_S))
        try:
            self._client = httpx.Client(
                base_url=_checked(httpx.URL(self.url)), headers=headers, timeout=timeout, trust_env=False
            )
        except (httpx.InvalidURL, UnicodeError):
            msg = f"the gateway's address must be like {DEFAULT_URL}, got {url!r:.200}; see --url and {URL_VARIABLE}"
            if key and not key.isascii():
                msg = f"a key has ASCII characters only; see --key and {KEY_VARIABLE}"
            raise WrongUse(msg) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, *members: str, **query: Any) -> dict[str, Any]:
        """The JSON object at `path`, which has these members; what is None of `query` is left out.

        Raises:
            Refused: the gateway says no. Unreachable: there is none.
        """
        given = {name: value for name, value in query.items() if value is not None}
        return self._asked("GET", path, members, params=given)

    def post(self, path: str, *members: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that answers a POST, as `get`."""
        return self._asked("POST", path, members, json=body)

    @contextmanager
    def lines(
        self, method: str, path: str, *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Generator[tuple[int, Mapping[str, str], Iterator[str]]]:
        """Status, headers and the body's lines as they arrive.

        Raises:
            Unreachable: no answer. Broken: it ended early, raised by the iterator. Refused: as `get`.
        """
        timeout = self._httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        with (
            self._mapped(),
            self._client.stream(method, path, json=body, headers=headers, timeout=timeout) as answer,
        ):
            if answer.status_code >= 300:
                raise _refusal(answer.status_code, answer.read(), self.url)
            if answer.status_code == 200 and not answer.headers.get("content-type", "").startswith(EVENTS):
                raise Garbage(f"what answers at {self.url} is no Atlas: events were asked for, and are not there")
            yield answer.status_code, answer.headers, self._lines_of(answer)

    def _lines_of(self, answer: httpx.Response) -> Iterator[str]:
        rest = b""
        try:
            for chunk in answer.iter_raw():
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > MAX_LINE:
                    raise Garbage(f"the answer of {self.url} has a line of more than {MAX_LINE} bytes")
                yield from (line.decode(errors="replace").removesuffix("\r") for line in lines)
        except self._httpx.HTTPError as error:
            raise Broken(f"the connection to {self.url} broke: {_why(error)}") from error

    def _asked(self, method: str, path: str, members: tuple[str, ...], **options: Any) -> dict[str, Any]:
        with self._mapped(), self._client.stream(method, path, **options) as answer:
            raw = b""
            for chunk in answer.iter_raw():
                raw += chunk
                if len(raw) > MAX_BODY:
                    raise Garbage(f"the answer of {self.url} is larger than {MAX_BODY} bytes")
        if answer.status_code >= 300:
            raise _refusal(answer.status_code, raw, self.url)
        found = _object(raw)
        if found is None or not found.keys() >= set(members):
            raise Garbage(f"what answers at {self.url} is no Atlas: {_excerpt(raw)}")
        return found

    @contextmanager
    def _mapped(self) -> Generator[None]:
        """Turn what the HTTP client raises into `Unreachable`."""
        try:
            yield
        except self._httpx.TimeoutException as error:
            raise Unreachable(f"no answer from {self.url} in time ({type(error).__name__})") from error
        except (self._httpx.HTTPError, self._httpx.InvalidURL) as error:
            raise Unreachable(f"no gateway was reached at {self.url}: {_why(error)}") from error


def connect(arguments: argparse.Namespace, terminal: Terminal) -> Client:
    """The gateway that the flags, or else the environment, name.

    Raises:
        WrongUse: its address is none.
    """
    environ = terminal.environ
    url = arguments.url or environ.get(URL_VARIABLE) or DEFAULT_URL
    return Client(url, arguments.key or environ.get(KEY_VARIABLE) or None)


def below(*parts: str) -> str:
    """A path of these parts, each of which is one segment."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _checked(url: httpx.URL) -> httpx.URL:
    """The address, if it is one of HTTP."""
    if url.scheme not in {"http", "https"} or not url.host or url.query or not 0 < (url.port or 1) < 65_536:
        raise UnicodeError
    return url


def _refusal(status: int, raw: bytes, url: str) -> Exception:
    """What an answer of 300 and above means."""
    found = _object(raw)
    error = found.get("error") if found else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        kind = Unreachable if status in AWAY else Garbage
        return kind(f"what answers at {url} is no Atlas: status {status}, {_excerpt(raw)}")
    hint = ""
    if status == 401:
        hint = f"; give a key with --key or {KEY_VARIABLE}"
    return Refused(status, one_line(error["message"]) + hint)


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _excerpt(raw: bytes) -> str:
    text = one_line(raw[:200].decode(errors="replace"))
    return repr(text[:80]) if text else "an empty body"


def _why(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__
