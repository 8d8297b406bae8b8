"""From a file, an environment and flags to `Settings`, or to every reason why not.

Flags win over the environment, the environment over the file, the file over the defaults. Without a file the vendors
that the environment names are served; with one they are not.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from config.catalog import catalog_layer, catalog_notes
from config.environment import environment_layer
from config.layers import Layer, settings_from
from config.problems import ConfigError, Loc, Problem
from config.settings import Settings
from config.telemetry import from_usual_variables
from config.yaml_lines import Reading


def load(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    host: str | None = None,
    port: int | None = None,
    insecure: bool | None = None,
) -> Settings:
    """The effective settings.

    `path` is the file; without it `ATLAS_CONFIG` of `environ` names one; without that there is none. The others
    are the flags' values. Raises ConfigError.
    """
    path = path or (Path(environ["ATLAS_CONFIG"]) if environ.get("ATLAS_CONFIG") else None)
    above = [flags_layer(host=host, port=port, insecure=insecure), environment_layer(environ)]
    chosen = path is not None or _names_endpoints(above[1])
    below = file_layer(path, environ) if path else Layer() if chosen else catalog_layer(environ)
    settings = settings_from([*above, below, _redis_layer(environ, [*above, below]), _tracing_layer(environ)])
    if not chosen:
        settings.note(*catalog_notes(environ))
    settings.note(*_warnings(settings))
    return settings


def flags_layer(**flags: str | int | None) -> Layer:
    """What the command line sets: members of `server`."""
    given = {name: value for name, value in flags.items() if value is not None}
    places: dict[Loc, str] = {("server", name): f"--{name}" for name in given}
    return Layer(data={"server": given} if given else {}, places=places)


def file_layer(path: Path, environ: Mapping[str, str]) -> Layer:
    """What a file sets, with variables resolved; raises ConfigError if it cannot be read at all."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(where=str(path), message=f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError:
        raise ConfigError([Problem(where=str(path), message="is not UTF-8 text")]) from None
    reading = Reading(name=str(path), variables=environ)
    data: Any = reading.read(text) or {}
    if not isinstance(data, dict):
        raise ConfigError([*reading.problems, Problem(where=reading.place(1), message="must be a mapping of sections")])
    return Layer(
        data=cast("dict[str, Any]", data),
        places={loc: reading.place(line) for loc, line in reading.lines.items()},
        computed=frozenset(reading.computed),
        problems=tuple(reading.problems),
    )


def _names_endpoints(layer: Layer) -> bool:
    return bool(layer.data.keys() & {"endpoints", "routes"})


def _redis_layer(environ: Mapping[str, str], layers: list[Layer]) -> Layer:
    """What `REDIS_URL` sets: the journal's address, and its kind where nothing else says one."""
    url = environ.get("REDIS_URL")
    kinds = [layer.data["journal"].get("kind") for layer in layers if isinstance(layer.data.get("journal"), dict)]
    chosen = next((kind for kind in kinds if kind is not None), "redis")
    if not url or chosen != "redis":
        return Layer()
    loc = ("journal", "url")
    return Layer(data={"journal": {"kind": "redis", "url": url}}, places={loc: "REDIS_URL"}, computed=frozenset({loc}))


def _tracing_layer(environ: Mapping[str, str]) -> Layer:
    """What OpenTelemetry's own variables set."""
    found = from_usual_variables(environ)
    loc = ("telemetry", "tracing")
    places: dict[Loc, str] = {(*loc, name): "OTEL_EXPORTER_OTLP_*" for name in found}
    return Layer(data={"telemetry": {"tracing": found}} if found else {}, places=places, computed=frozenset(places))


def _warnings(settings: Settings) -> Iterator[str]:
    """What the operator should know of, though it is allowed."""
    if "*" in settings.server.allowed_hosts:
        yield "server.allowed_hosts is *: requests are answered under any Host name"
    used = {name for route in settings.routes for name in route.endpoints}
    if idle := [endpoint.name for endpoint in settings.endpoints if endpoint.name not in used]:
        yield f"no route names these endpoints: {', '.join(idle)}"
