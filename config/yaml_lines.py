"""YAML as data with line numbers.

Oddities, on purpose:
1. Every scalar is text, and the schema decides what it means: so `off` and `no` are no booleans, `3.10` stays `3.10`, a
   date is no date, and a value from `${VAR}` behaves like the same value written out.
2. A member that is null (empty, `~`, `null`) is as good as absent: its default holds. A section whose members are all
   commented out is therefore valid.
3. Tags are refused (but `!!str`), and so are keys that occur twice.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from config.problems import Loc, Problem, did_you_mean

Value: TypeAlias = Any
"""Text, None, a list of values or a dict of values by text."""

_MAX_DEPTH = 32
_TAG = "tag:yaml.org,2002:"
_QUOTING = re.compile(r"(undefined alias|duplicate anchor) .*", re.DOTALL)
_QUOTED = r"\1 (quote a value that begins with * or &; it is not shown here, as it may be a secret)"
_FLOW_HINT = '; inside [ ] and { } a variable stands in quotes, as "${NAME}"'
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(slots=True, kw_only=True)
class Reading:
    """One pass over one document: what was found, and where.

    `variables` resolve `${VAR}`; None leaves references alone. `lines` count from 1. `computed` are the places whose
    text came from a variable.
    """

    name: str
    variables: Mapping[str, str] | None
    lines: dict[Loc, int] = field(default_factory=dict[Loc, int])
    computed: set[Loc] = field(default_factory=set[Loc])
    problems: list[Problem] = field(default_factory=list[Problem])

    def read(self, text: str) -> Value:
        """The document's value; None if it is empty or cannot be parsed, which is then a problem."""
        try:
            node: Node | None = yaml.compose(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            self._unreadable(error, text)
            return None
        return None if node is None else self._value(node, ())

    def place(self, line: int) -> str:
        """How a line of this document is named."""
        return f"{self.name}:{line}"

    def _unreadable(self, error: yaml.YAMLError, text: str) -> None:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or "it holds characters that YAML does not allow"
        said = _QUOTING.sub(_QUOTED, said)
        where, hint = self.name, ""
        if mark is not None:
            where = self.place(mark.line + 1)
            hint = _FLOW_HINT if "${" in "".join(text.splitlines()[mark.line : mark.line + 1]) else ""
        self.problems.append(Problem(where=where, message=f"not valid YAML: {said}{hint}"))

    def _report(self, node: Node, loc: Loc, message: str) -> None:
        self.problems.append(Problem(where=self.place(_line(node)), loc=loc, message=message))

    def _value(self, node: Node, loc: Loc) -> Value:
        self.lines.setdefault(loc, _line(node))
        if len(loc) > _MAX_DEPTH:
            self._report(node, (), f"nested deeper than {_MAX_DEPTH} levels")
            return None
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return dict(self._members(node, loc))
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self._value(item, (*loc, at)) for at, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag == _TAG + "str":
            return self._scalar(node, loc)
        self._report(node, loc, "tags are not supported")
        return None

    def _members(self, node: MappingNode, loc: Loc) -> Iterator[tuple[str, Value]]:
        seen: dict[str, int] = {}
        for key, item in node.value:
            if not isinstance(key, ScalarNode):
                self._report(key, loc, "a key must be a word")
                continue
            inner = (*loc, key.value)
            if key.value in seen:
                self._report(key, inner, f"given twice; the first is on line {seen[key.value]}")
                continue
            seen[key.value] = self.lines[inner] = _line(key)
            value = self._value(item, inner)
            if value is not None:
                yield key.value, value

    def _scalar(self, node: ScalarNode, loc: Loc) -> str | None:
        text: str = node.value
        if self.variables is not None and "${" in text:
            self.computed.add(loc)
            text = _REFERENCE.sub(lambda match: self._resolve(match, node, loc), text)
        return None if node.style is None and text in {"", "~", "null"} else text

    def _resolve(self, match: re.Match[str], node: Node, loc: Loc) -> str:
        if match[0] == "$${":
            return "${"
        variable = _VARIABLE.fullmatch(match[1])
        if variable is None or not match[0].endswith("}"):
            self._report(node, loc, "a variable is written ${NAME} or ${NAME:-default}, and a plain ${ as $${")
            return ""
        return self._variable(variable[1], variable[2], node, loc)

    def _variable(self, name: str, default: str | None, node: Node, loc: Loc) -> str:
        variables = self.variables or {}
        if default is not None:
            return variables.get(name) or default
        if name not in variables:
            near = did_you_mean(name, variables)
            self._report(node, loc, f"the environment variable {name} is not set{near}")
        return variables.get(name, "")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
