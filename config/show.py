"""The effective settings as YAML that may be shown to anybody: secrets are `***`, also those inside URLs.

What is shown is a valid file again (its secrets apart).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, urlsplit

import yaml
from pydantic import SecretStr

from config.settings import Settings

HIDDEN = "***"
_SECRET_NAMES = frozenset({"hash", "secret", "password", "token", "api_key"})


def redacted_yaml(settings: Settings) -> str:
    """The settings, every default filled in, in the shape of the file; the notes stand first as comments."""
    notes = "".join(f"# note: {note}\n" for note in settings.notes)
    shown = redacted(settings.model_dump())
    return notes + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120)


def redacted(value: Any) -> Any:
    """A copy of plain data in which nothing secret is left."""
    match value:
        case SecretStr():
            return HIDDEN
        case str():
            return redacted_url(value) if "://" in value else value
        case Mapping():
            members = cast("Mapping[str, Any]", value)
            return {name: HIDDEN if name in _SECRET_NAMES else redacted(inner) for name, inner in members.items()}
        case Sequence():
            return [redacted(inner) for inner in cast("Iterable[Any]", value)]
        case _:
            return value


def redacted_url(url: str) -> str:
    """The URL with `***` for user and password and for every value of its query; `***` alone if it cannot be parsed."""
    try:
        parts = urlsplit(url)
        if not parts.netloc:
            return HIDDEN
        return parts._replace(netloc=_address(parts), query=_query(parts), fragment="").geturl()
    except ValueError:
        return HIDDEN


def _address(parts: SplitResult) -> str:
    _, at, address = parts.netloc.rpartition("@")
    return f"{HIDDEN}@{address}" if at else parts.netloc


def _query(parts: SplitResult) -> str:
    return "&".join(f"{name}={HIDDEN}" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
