"""Renders deploy/helm/atlas as Helm would, as far as its templates go; there is no Helm where the tests run.

They keep to this: `{{ .Values.a.b | function }}` with the functions below, and `{{- if [not] .Values.a }}` with
`{{- end }}`, each on a line of its own and not nested. Anything else is an error here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy/helm/atlas"
_ACTION = re.compile(r"\{\{(.*?)\}\}")
_BLOCK = re.compile(r"(?ms)^\{\{- if (?P<negated>not )?(?P<path>\.[\w.]+) \}\}\n(?P<body>.*?)^\{\{- end \}\}\n")


def _nindent(value: Any, width: str) -> str:
    return "\n" + "\n".join(" " * int(width) + line for line in str(value).split("\n"))


_FUNCTIONS: Mapping[str, Callable[..., str]] = {
    "quote": json.dumps,
    "toJson": json.dumps,
    "sha256sum": lambda value: hashlib.sha256(value.encode()).hexdigest(),
    "nindent": _nindent,
}


def values() -> dict[str, Any]:
    """values.yaml."""
    return dict(yaml.safe_load((CHART / "values.yaml").read_text()))


def render(template: str, scope: Mapping[str, Any]) -> str:
    """One template; `scope` has Values, Release and Chart."""

    def look_up(path: str) -> Any:
        found: Any = scope
        for name in path.removeprefix(".").split("."):
            found = found[name]
        return found

    def block(match: re.Match[str]) -> str:
        return match["body"] if bool(look_up(match["path"])) != bool(match["negated"]) else ""

    def action(match: re.Match[str]) -> str:
        path, *functions = (part.strip() for part in match[1].split("|"))
        value = look_up(path)
        for function in functions:
            name, *arguments = function.split()
            value = _FUNCTIONS[name](value, *arguments)
        return str(value)

    return _ACTION.sub(action, _BLOCK.sub(block, template))


def rendered(release: str = "atlas", **changes: Any) -> list[dict[str, Any]]:
    """The chart's resources by the order of their files; `changes` are values."""
    scope = {
        "Values": {**values(), **changes},
        "Release": {"Name": release},
        "Chart": {"AppVersion": yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]},
    }
    found: list[dict[str, Any]] = []
    for path in sorted((CHART / "templates").glob("*.yaml")):
        found += [each for each in yaml.safe_load_all(render(path.read_text(), scope)) if each is not None]
    return found
