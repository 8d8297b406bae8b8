"""What every section of the settings has in common, and the table of what is specified but not built yet.

A value in `NOT_BUILT` is refused where it stands, rather than accepted and ignored. Whoever builds the feature removes
its row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


@dataclass(frozen=True, slots=True, kw_only=True)
class NotBuilt:
    """Which values of a member are refused, and what to do instead."""

    refuses: Callable[[Any], bool]
    instead: str

    def check(self, value: object) -> None:
        """Raise ValueError if this value needs what is not there."""
        if self.refuses(value):
            shown = f"{value} " if isinstance(value, str) else ""
            raise ValueError(f"{shown}is not built yet; {self.instead}")


def _one_of(*missing: object, instead: str) -> NotBuilt:
    return NotBuilt(refuses=lambda value: value in missing, instead=instead)


MISSING_WIRES = ("gemini",)
"""Kinds of endpoint that the presets name and no provider module speaks yet."""

NOT_BUILT: dict[str, NotBuilt] = {
    "Endpoint.kind": _one_of(*MISSING_WIRES, instead="use the preset gemini-openai"),
    "Endpoint.continuation": _one_of("resume", instead="it needs the Responses API; use prefill or replay"),
}


def check_built(owner: type[BaseModel], value: object, info: ValidationInfo) -> None:
    """Raise ValueError if `NOT_BUILT` refuses this member's value."""
    row = NOT_BUILT.get(f"{owner.__name__}.{info.field_name}")
    if row is not None:
        row.check(value)


class Section(BaseModel):
    """A part of the settings: immutable, no unknown keys, and its errors never quote what was given."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _is_built(cls, value: object, info: ValidationInfo) -> object:
        check_built(cls, value, info)
        return value
