"""docs/configuration.md, made from the settings: `python -m config.reference > docs/configuration.md`.

What a member takes and its default come from the types, what it means from the comments of `config/example.yaml`, what
belongs together from the docstrings of the sections. A test holds the file to this.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from config.settings import Settings
from config.values import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo

_EXAMPLE = Path(__file__).with_name("example.yaml")
_COMMENT = re.compile(r"\s#\s(.*)$")
_GOES_ON = re.compile(r"^\s{20,}#\s(.*)$")
_APART = ("notes", "key_pepper")
_SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

_HEAD = """# Configuration

One YAML file: `atlas serve --config atlas.yaml`, or `ATLAS_CONFIG`. Every section and member may be left out, unless it
is required; unknown ones are refused with their line and a suggestion. `atlas check` validates, `atlas config
show` prints what is in force, without secrets. [config/example.yaml](../config/example.yaml) is a file to begin with.

`${NAME}` in a value is the environment variable NAME, which must be set, `${NAME:-text}` the text where it is not, and
`$${` a plain `${`. Every member can be set by the environment, which wins over the file: `ATLAS_SERVER__PORT=9000` is
`server.port`; lists are written as JSON, `ATLAS_ENDPOINTS='[{"name": ...}]'`. `--host`, `--port` and `--insecure` win
over both. `ATLAS_KEY_PEPPER` is the secret under which keys are hashed; it is never in the file. Sizes are bytes, or
words like 50MiB; times are seconds.

<!-- Made by `python -m config.reference` from the settings; do not edit. -->
"""


def document() -> str:
    """The whole file."""
    comments = _comments()
    parts = [_HEAD]
    for name, field in Settings.model_fields.items():
        if name not in _APART:
            parts += _sections(name, field, comments)
    return "\n".join(parts)


def _sections(path: str, field: FieldInfo, comments: Mapping[str, str]) -> Iterator[str]:
    """A section and those within, each as a heading, words and a table."""
    section = _section_of(field.annotation)
    if section is None:
        return
    yield f"## `{path}[]`\n" if _is_list(field.annotation) else f"## `{path}`\n"
    if section.__doc__:
        yield f"{_joined(section.__doc__)}\n"
    yield "| member | takes | default | |\n|---|---|---|---|"
    schema = section.model_json_schema()
    for name, member in section.model_fields.items():
        takes, default = _takes(schema["properties"][name], member), _default(member)
        yield f"| `{name}` | {takes} | {default} | {_cell(comments.get(f'{path}.{name}', ''))} |"
    yield ""
    for name, member in section.model_fields.items():
        yield from _sections(f"{path}.{name}", member, comments)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a member holds, one, optional or a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for found in map(_section_of, get_args(annotation)) if found is not None), None)


def _is_list(annotation: Any) -> bool:
    """Whether it is a tuple, or one or nothing."""
    parts = (annotation, *get_args(annotation))
    return any(getattr(part, "__origin__", None) is tuple for part in parts)


def _joined(docstring: str) -> str:
    """Paragraphs without their line breaks."""
    return "\n\n".join(" ".join(part.split()) for part in docstring.strip().split("\n\n"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _takes(schema: Mapping[str, Any], field: FieldInfo) -> str:
    """What may stand there, in words."""
    if _section_of(field.annotation) is not None:
        return "list, see below" if _is_list(field.annotation) else "see below"
    if any(getattr(each, "func", None) is parse_size for each in field.metadata):
        return "size"
    return _type(schema)


def _type(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"anyOf": [*choices]}:
            return " or ".join(_type(each) for each in choices)
        case {"enum": [*words]}:
            return ", ".join(f"`{word}`" for word in words)
        case {"type": "array", "items": _}:
            return f"list of: {_type(schema['items'])}"
        case {"type": "object"}:
            values = schema.get("additionalProperties", {})
            return f"words with: {_type(values)}" if values else "words with values"
        case {"type": "integer"} | {"type": "number"}:
            return ("whole number" if schema["type"] == "integer" else "number") + _range(schema)
        case {"type": "boolean"}:
            return "`true` or `false`"
        case {"type": "null"}:
            return "nothing"
        case {"format": "password"}:
            return "secret"
        case {"format": "date-time"}:
            return "date and time"
        case _:
            return "text"


def _range(schema: Mapping[str, Any]) -> str:
    least, most, above = (schema.get(name) for name in ("minimum", "maximum", "exclusiveMinimum"))
    words = [
        *([f"from {least:g}"] if least is not None else []),
        *([f"above {above:g}"] if above is not None else []),
        *([f"to {most:,.0f}"] if most is not None else []),
    ]
    return " " + " ".join(words) if words else ""


def _default(field: FieldInfo) -> str:
    """The default as it would stand in the file."""
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    if _section_of(field.annotation) is not None:
        return ""
    if field.default is PydanticUndefined:
        empty = getattr(field.default_factory, "__name__", "") == "dict"
        return "`{}`" if empty else "depends"
    value = field.default
    if any(getattr(each, "func", None) is parse_size for each in field.metadata):
        return f"`{_size(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def _size(value: int) -> str:
    return next((f"{value // unit}{word}" for unit, word in _SIZES if value % unit == 0), str(value))


def _comments() -> dict[str, str]:
    """What the example says at each member, by its dotted path; of a list's items the first that has the member."""
    text = _EXAMPLE.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^#(?= {2,}\S)|^# (?=agents:)", "", re.sub(r"(?m)^(keys|tenants): \[\]", r"\1:", text))
    found: dict[str, str] = {}
    _gather(yaml.compose(text, Loader=yaml.BaseLoader), "", text.splitlines(), found)
    return found


def _gather(node: Node | None, path: str, lines: list[str], found: dict[str, str]) -> None:
    match node:
        case SequenceNode():
            for item in node.value:
                _gather(item, path, lines, found)
        case MappingNode():
            for key, value in node.value:
                name = f"{path}.{key.value}".removeprefix(".")
                if not node.flow_style:
                    found.setdefault(name, _said(lines, key.start_mark.line))
                _gather(value, name, lines, found)
        case ScalarNode() | _:
            pass


def _said(lines: list[str], at: int) -> str:
    """The comment at the end of a line, with the lines that only go on with it."""
    first = _COMMENT.search(lines[at])
    if first is None:
        return ""
    words = [first[1]]
    for line in lines[at + 1 :]:
        more = _GOES_ON.match(line)
        if more is None:
            break
        words.append(more[1])
    return " ".join(words).strip()


if __name__ == "__main__":
    sys.stdout.write(document())
