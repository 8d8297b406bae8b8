"""Layers of configuration, as flags over environment over file: pydantic-settings merges them member by member.

A layer knows where each of its values was written, so that a problem can name the place. Lists are replaced whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from config.problems import ConfigError, Loc, Problem, did_you_mean
from config.settings import Settings

_CONSEQUENCES = frozenset({"default_factory_not_called"})  # of another error in the same section
_PLAIN = {
    "missing": "is required", "too_short": "must not be empty", "tuple_type": "must be a list",
    "model_type": "must be a section, with members of its own", "int_parsing": "must be a whole number",
    "float_parsing": "must be a number", "bool_parsing": "must be true or false",
}  # fmt: skip
"""What is wrong by pydantic's name of it, where its own words are not an operator's."""
_SECRETIVE = frozenset({"keys", "key_pepper", "headers", "base_url", "proxy", "url", "agents"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Values of one origin.

    `places` says where members were written; `computed` holds the members whose text came from a variable and must not
    be repeated in a message. `problems` are those found before validation.
    """

    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    places: Mapping[Loc, str] = field(default_factory=dict[Loc, str])
    computed: frozenset[Loc] = frozenset()
    problems: tuple[Problem, ...] = ()

    def reach(self, loc: Loc) -> Loc:
        """The longest beginning of `loc` whose place is known."""
        return next((loc[:end] for end in range(len(loc), 0, -1) if loc[:end] in self.places), ())


class _Source(PydanticBaseSettingsSource):
    """A layer as pydantic-settings takes it."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - theirs
        return self._layer.data.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._layer.data)


def settings_from(layers: Sequence[Layer]) -> Settings:
    """The settings that these layers give, the first one winning; raises ConfigError with the problems of all."""
    problems = [problem for layer in layers for problem in layer.problems]
    try:
        settings = _layered(layers)
    except ValidationError as error:
        known = {problem.loc for problem in problems}
        details = [found for found in error.errors(include_url=False) if found["type"] not in _CONSEQUENCES]
        found = [_problem(each, layers) for each in details]
        raise ConfigError(problems + [problem for problem in found if problem.loc not in known]) from None
    if problems:
        raise ConfigError(problems)
    return settings


def _layered(layers: Sequence[Layer]) -> Settings:
    class Layered(Settings):  # pydantic-settings takes its sources from the class, and these belong to one call
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_args: object, **_named: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_Source(settings_cls, layer) for layer in layers)

    return Layered()


def _problem(details: ErrorDetails, layers: Sequence[Layer]) -> Problem:
    loc: Loc = tuple(details["loc"])
    layer = max(layers, key=lambda layer: len(layer.reach(loc)), default=Layer())
    where = layer.places.get(layer.reach(loc), "settings")
    return Problem(where=where, loc=loc, message=_message(details, loc) + _came(details, loc, layer))


def _message(details: ErrorDetails, loc: Loc) -> str:
    if details["type"] == "extra_forbidden":
        return f"unknown key{did_you_mean(str(loc[-1]), members_at(loc[:-1]))}"
    if (plain := _PLAIN.get(details["type"])) is not None:
        return plain
    return (
        details["msg"]
        .removeprefix("Value error, ")
        .replace("Input should ", "must ")
        .replace("String should ", "must ")
    )


def _came(details: ErrorDetails, loc: Loc, layer: Layer) -> str:
    """What was written instead, where it can neither be a secret nor be long."""
    own_words = details["type"] in {"extra_forbidden", "missing", "value_error", "contradiction"}
    hidden = loc in layer.computed or any(part in _SECRETIVE for part in loc)
    came = details["input"]
    if own_words or hidden or not isinstance(came, str | int | float) or len(str(came)) > 64:
        return ""
    return f"; got {came!r}"


def members_at(loc: Loc) -> list[str]:
    """The names that the section at this place has; none where there is no section."""
    model: type[BaseModel] | None = Settings
    for part in loc:
        if isinstance(part, str) and model is not None:
            found = model.model_fields.get(part)
            model = _section_in(found.annotation) if found else None
    return list(model.model_fields) if model is not None else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
