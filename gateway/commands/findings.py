"""What the doctor finds on this machine: configuration, files, port, keys. The network is `reachability`'s."""

from __future__ import annotations

import resource
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from config.load import file_layer, load
from config.problems import ConfigError
from gateway.commands.binding import base_url, exposure, listen
from gateway.commands.building import build
from gateway.commands.errors import BindError, Refused, Unreachable
from gateway.commands.finding import Finding, note, ok, wrong
from gateway.commands.reachability import look_around
from gateway.core.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from config.layers import Layer
    from config.settings import Settings

SOON_S = 7 * 86_400
FEW_DESCRIPTORS = 4096
OTHER_S = 1.0
"""How long whatever has the port may take to say what it is."""


def examine(path: Path | None, environ: Mapping[str, str], *, ask_providers: bool = True) -> list[Finding]:
    """Everything, the machine first; without a valid configuration nothing beyond its file."""
    path = path or (Path(environ["ATLAS_CONFIG"]) if environ.get("ATLAS_CONFIG") else None)
    found = list(_file(path, environ))
    try:
        settings = load(path, environ)
        build(settings)
    except ConfigError as error:
        said = (str(problem).removeprefix("configuration: ") for problem in error.problems)
        return [*found, *(wrong("configuration", each) for each in said)]
    named = "the defaults and the environment" if path is None else str(path)
    found.append(ok("configuration", f"valid, from {named}"))
    found += [note("configuration", line) for line in settings.notes]
    for look in (_port, _exposure, _keys, _models, _descriptors):
        found += look(settings)
    return [*found, *look_around(settings, ask_providers=ask_providers)]


def _file(path: Path | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Who may read and write the file."""
    if path is None:
        return
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        layer = file_layer(path, environ)
    except (OSError, ConfigError):
        return  # the configuration's own findings say so
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield wrong("file", f"{path} can be written by others (mode {mode:o}): they decide where keys are sent",
                    f"chmod go-w {path}")  # fmt: skip
    secret = next(_literal_secrets(layer), None)
    if secret is not None and mode & (stat.S_IRGRP | stat.S_IROTH):
        yield wrong("file", f"{path} holds a secret ({secret}) and can be read by others (mode {mode:o})",
                    f'chmod 600 {path}, or take it from the environment, as "${{NAME}}"')  # fmt: skip
    elif secret is not None:
        yield note("file", f"{path} holds a secret ({secret})", 'better take it from the environment, as "${NAME}"')
    else:
        yield ok("file", f"{path} holds no secrets (mode {mode:o})")


def _literal_secrets(layer: Layer) -> Iterator[str]:
    """The places of secrets that are written out."""
    endpoints: Any = layer.data.get("endpoints")
    rows: list[Any] = endpoints if isinstance(endpoints, list) else []
    for at, row in enumerate(rows):
        keys: Any = row.get("keys") if isinstance(row, dict) else None
        for number, key in enumerate(keys if isinstance(keys, list) else ()):
            if key and ("endpoints", at, "keys", number) not in layer.computed:
                yield f"endpoints[{at}].keys[{number}]"
    journal: Any = layer.data.get("journal")
    url = journal.get("url") if isinstance(journal, dict) else None
    if isinstance(url, str) and ("journal", "url") not in layer.computed and _has_password(url):
        yield "journal.url"


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:
        return False


def _port(settings: Settings) -> Iterator[Finding]:
    server = settings.server
    try:
        listen(server.host, server.port).close()
    except BindError as error:
        said = str(error).partition(";")[0]
        if "in use" in said and (version := _atlas_at(base_url(server.host, server.port))) is not None:
            yield note("port", f"an Atlas ({version}) serves {server.host}:{server.port} already")
        else:
            yield wrong("port", said, "choose another with server.host and server.port")
    else:
        yield ok("port", f"{server.host}:{server.port} is free")


def _atlas_at(url: str) -> str | None:
    """The version of the Atlas there; None if it is none."""
    from gateway.commands.client import Client  # noqa: PLC0415  it is asked where the port is taken only

    try:
        with Client(url, None, answer_s=OTHER_S) as client:
            found = client.get("/openapi.json", "info")
    except (Unreachable, Refused):
        return None
    about: Any = found["info"]
    return str(about.get("version")) if isinstance(about, dict) and about.get("title") == "Atlas" else None


def _exposure(settings: Settings) -> Iterator[Finding]:
    if (message := exposure(settings)) is not None:
        yield wrong("access", message)
        return
    if settings.server.insecure and not settings.keys:
        yield note("access", "everybody who reaches this address is served, without a key", "see `atlas keys create`")


def _keys(settings: Settings) -> Iterator[Finding]:
    now = SystemClock.now()
    for key in settings.keys:
        if key.expires is None:
            continue
        left_s = key.expires.timestamp() - now
        if left_s <= 0:
            yield note("keys", f"{key.id} has expired", "remove its row, or see `atlas keys rotate`")
        elif left_s < SOON_S:
            yield note("keys", f"{key.id} expires at {key.expires:%Y-%m-%d %H:%M}Z", "see `atlas keys rotate`")
    if settings.keys:
        yield ok("keys", f"{len(settings.keys)} configured, with their pepper")
        if not any("admin" in key.scopes for key in settings.keys):
            yield note("keys", "none has the scope admin: `atlas pool` and `atlas keys revoke` need one")
    else:
        yield note("keys", "none: whoever reaches this address is served")


def _models(settings: Settings) -> Iterator[Finding]:
    if not settings.routes and not settings.mock.enabled:
        yield wrong("models", "there are none: no routes, and the mock is off", "name some under routes")


def _descriptors(_: Settings) -> Iterator[Finding]:
    """Every stream takes two sockets: its reader's and its provider's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FEW_DESCRIPTORS:
        yield note("files", f"this shell allows {soft} open files, for about {soft // 2} streams",
                   f"ulimit -n {hard if hard > 0 else 65536}, or LimitNOFILE= in the unit")  # fmt: skip
    else:
        yield ok("files", f"{soft} may be open at once")
