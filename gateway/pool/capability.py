"""What an endpoint's model can do, as far as anybody said, and what a request needs of it.

One rule for what nobody said: an unknown size or feature is no obstacle, a strength that is not declared is absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNBOUNDED = float("inf")


TOOLS, IMAGES, SCHEMA, AUDIO, FILES, REASONING = (1 << bit for bit in range(6))
"""Features, which a model either has or lacks, as bits: an `IntFlag` takes 20 times as long to test."""

FEATURES: Mapping[str, int] = MappingProxyType(
    {"tools": TOOLS, "images": IMAGES, "schema": SCHEMA, "audio": AUDIO, "files": FILES, "reasoning": REASONING}
)
"""By the names of configuration and header."""


def feature_names(features: int) -> list[str]:
    """Their names, in the order of the table."""
    return [name for name, bit in FEATURES.items() if bit & features]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """A model's profile.

    `strengths`: 0 to 1 by free words such as `coding`. `context_tokens`: the window, prompt and answer together;
    `output_tokens`: the longest answer; `inf` where unknown. `lacks`: what it is known not to do. `availability`: the
    share of requests that the operator expects to be answered, 0 to 1.
    """

    strengths: Mapping[str, float] = field(default_factory=dict[str, float])
    context_tokens: float = UNBOUNDED
    output_tokens: float = UNBOUNDED
    lacks: int = 0
    availability: float = 1.0


UNKNOWN = Capability()


def strictest(profiles: Iterable[Capability]) -> Capability:
    """What all of these can do, strengths aside: who is content with it need not look at each."""
    found = list(profiles)
    lacks = 0
    for each in found:
        lacks |= each.lacks
    return Capability(
        context_tokens=min((each.context_tokens for each in found), default=UNBOUNDED),
        output_tokens=min((each.output_tokens for each in found), default=UNBOUNDED),
        lacks=lacks,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one request asks of a model.

    `strengths` were stated and must be there; `leanings` were inferred and count in `task_aware` only.
    `context_tokens` is prompt and answer together, `input_tokens` the prompt's part of it, estimated.
    """

    features: int = 0
    strengths: frozenset[str] = frozenset()
    leanings: frozenset[str] = frozenset()
    context_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def words(self) -> frozenset[str]:
        """All strengths that count: those that were stated, and the inferred ones."""
        return self.strengths | self.leanings if self.leanings else self.strengths

    def are_met_by(self, has: Capability) -> bool:
        """Whether a model of this profile can serve the request, for all that is known."""
        return (
            not self.features & has.lacks
            and self.context_tokens <= has.context_tokens
            and self.output_tokens <= has.output_tokens
            and (not self.strengths or all(has.strengths.get(each, 0.0) > 0.0 for each in self.strengths))
        )

    def unmet_by(self, has: Capability) -> list[str]:
        """What this profile lacks, in the words of the header `x-atlas-needs`."""
        found = feature_names(self.features & has.lacks)
        if self.context_tokens > has.context_tokens:
            found.append(f"context={self.context_tokens} (of {has.context_tokens:g})")
        if self.output_tokens > has.output_tokens:
            found.append(f"output={self.output_tokens} (of {has.output_tokens:g})")
        return [*found, *(f"strengths={each}" for each in sorted(self.strengths) if not has.strengths.get(each))]


NOTHING = Needs()
