"""What is served without a file: every vendor whose usual variable is set, as `<vendor>/<any model>`."""

from collections.abc import Iterator, Mapping
from typing import Any

from config.layers import Layer
from config.presets import Preset, presets
from config.section import MISSING_WIRES


def found_vendors(environ: Mapping[str, str]) -> Iterator[tuple[str, Preset]]:
    """The rows of the presets that the environment names."""
    for name, preset in presets().items():
        if preset.is_wanted(environ):
            yield name, preset


def catalog_layer(environ: Mapping[str, str]) -> Layer:
    """A wildcard endpoint and route for each vendor that was found, whose wire is built and whose address is known."""
    endpoints: list[dict[str, Any]] = []
    places: dict[tuple[str | int, ...], str] = {}
    for name, preset in found_vendors(environ):
        address = preset.address(environ)
        if preset.kind in MISSING_WIRES or address is None:
            continue
        places["endpoints", len(endpoints)] = places["endpoints", len(endpoints), "keys"] = _variable(preset)
        places["endpoints", len(endpoints), "base_url"] = preset.host_env or preset.url_env or name
        endpoints.append(_endpoint(name, address, environ.get(preset.key_env or "")))
    routes = [{"model": f"{endpoint['name']}/*", "endpoints": [endpoint["name"]]} for endpoint in endpoints]
    return Layer(data={"endpoints": endpoints, "routes": routes}, places=places)


def catalog_notes(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each vendor that was found and cannot be served."""
    for name, preset in found_vendors(environ):
        if preset.kind in MISSING_WIRES:
            yield f"{_variable(preset)} is set, but the {name} wire is not built yet: {name}/* is not served"
        elif preset.address(environ) is None:
            yield f"{_variable(preset)} is set, but {preset.url_env} is not: {name}/* is not served"


def _variable(preset: Preset) -> str:
    return str(preset.host_env or preset.key_env)


def _endpoint(name: str, address: str, key: str | None) -> dict[str, Any]:
    return {"name": name, "preset": name, "base_url": address, "keys": [key] if key else [], "model": "*"}
