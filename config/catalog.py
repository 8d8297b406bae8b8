"""What is served without a file: every vendor whose usual variable is set, as `<vendor>/<any model>`."""

from collections.abc import Iterator, Mapping
from typing import Any

from config.layers import Layer
from config.presets import Preset, presets
from config.section import MISSING_WIRES


def found_vendors(environ: Mapping[str, str]) -> Iterator[tuple[str, Preset]]:
    """The rows of the presets whose variable is set and not empty."""
    for name, preset in presets().items():
        if environ.get(preset.key_env or "") or environ.get(preset.host_env or ""):
            yield name, preset


def catalog_layer(environ: Mapping[str, str]) -> Layer:
    """A wildcard endpoint and route for each vendor that was found and whose wire is built."""
    endpoints: list[dict[str, Any]] = []
    places: dict[tuple[str | int, ...], str] = {}
    for name, preset in found_vendors(environ):
        if preset.kind in MISSING_WIRES:
            continue
        places["endpoints", len(endpoints)] = str(preset.key_env)
        places["endpoints", len(endpoints), "base_url"] = preset.url_env or name
        endpoints.append(_endpoint(name, preset, environ))
    routes = [{"model": f"{endpoint['name']}/*", "endpoints": [endpoint["name"]]} for endpoint in endpoints]
    return Layer(data={"endpoints": endpoints, "routes": routes}, places=places)


def catalog_notes(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each vendor that was found and cannot be served yet."""
    for name, preset in found_vendors(environ):
        if preset.kind in MISSING_WIRES:
            variable = preset.key_env or preset.host_env
            yield f"{variable} is set, but the {name} wire is not built yet: {name}/* is not served"


def _endpoint(name: str, preset: Preset, environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "preset": name,
        "base_url": environ.get(preset.url_env or "") or preset.base_url,
        "keys": [environ[str(preset.key_env)]],
        "model": "*",
    }
