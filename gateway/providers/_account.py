"""How an adapter speaks for its account: the URL below the configured one, and who gets to see the key."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gateway import __version__
from gateway.core.errors import MAX_MESSAGE, ProviderError
from gateway.upstream.transport import Url, parse_url

if TYPE_CHECKING:
    from collections.abc import Generator

    from gateway.upstream.transport import Transport

CREDENTIALS = {
    "bearer": ("authorization", "Bearer "),
    "api-key": ("api-key", ""),
    "x-api-key": ("x-api-key", ""),
}
"""The kinds of `auth`: the header's name, and what stands before the key."""


def url_below(base_url: str, path: str) -> Url:
    """The URL of `path` below `base_url`, whose query stays (Azure's `api-version`)."""
    base = parse_url(base_url)
    below, _, query = base.raw_path.partition(b"?")
    return base.copy_with(raw_path=below.rstrip(b"/") + path.encode() + (b"?" + query if query else b""))


def request_headers(accept: str, key: str | None, auth: str = "bearer") -> list[tuple[str, str]]:
    """What every request carries: an uncompressed stream is asked for, and no key means no header.

    Raises:
        KeyError: `auth` is none of `CREDENTIALS`.
    """
    name, prefix = CREDENTIALS[auth]
    headers = [
        ("content-type", "application/json"),
        ("accept", accept),
        ("accept-encoding", "identity"),
        ("user-agent", f"atlas/{__version__}"),
    ]
    return [*headers, (name, prefix + key)] if key else headers


def secrets_of(key: str | None, transport: Transport) -> tuple[str, ...]:
    """What is sent to a provider and must not come back: the key, and headers that go out with every request."""
    return (*([key] if key else ()), *transport.secrets)


@contextmanager
def hiding(secrets: tuple[str, ...]) -> Generator[None]:
    """No provider's failure that is raised within repeats one of these."""
    try:
        yield
    except ProviderError as error:
        shown = without_secrets(error, secrets)
        if shown is error:
            raise
        raise shown from None  # the original's words would stand in every traceback


def without_secrets(error: ProviderError, secrets: tuple[str, ...]) -> ProviderError:
    """Some hosts repeat the key that they refuse; their words are shown to clients who must not learn it."""
    old = error.failure
    message, param, code = (_without(text, secrets) for text in (old.message, old.param, old.provider_code))
    if (message, param, code) == (old.message, old.param, old.provider_code):
        return error
    return ProviderError(
        old.category,
        message or "",
        retry_after_s=old.retry_after_s,
        param=param,
        provider_code=code,
        unmapped=error.unmapped,
    )


def _without(text: str | None, secrets: tuple[str, ...]) -> str | None:
    for secret in secrets if text else ():
        text = text and _hidden(text, secret)
    return text


_HIDDEN = "[key]"
_BLANKED = re.compile(r"([\w/+~-]*)(?:\*{3,}|\.{3,}|\u2026)([\w/+=~-]*)")
"""A key as many hosts repeat it: its beginning and its end, and stars or dots between them."""

_TELLING = 4
"""So many characters of a key tell whose it is."""


def _hidden(text: str, key: str) -> str:
    """The text without the key, its ends, and the part of it that is left where the text was cut."""

    def blanked(found: re.Match[str]) -> str:
        first, last = found[1], found[2]
        ours = key.startswith(first) and key.endswith(last) and len(first) + len(last) >= _TELLING
        return _HIDDEN if ours else found[0]

    text = _BLANKED.sub(blanked, text.replace(key, _HIDDEN))
    if len(text) < MAX_MESSAGE - len(key):
        return text
    cut = next((n for n in range(len(key) - 1, 0, -1) if text.endswith(key[:n])), 0)
    return text[: len(text) - cut]
