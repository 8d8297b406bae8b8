"""Token usage under OpenTelemetry's `gen_ai` names."""

from collections.abc import Iterable

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one answer, cumulative over its legs.

    `input_tokens` counts all of the prompt, also what was read from a cache (`cached_tokens`) or written to one
    (`cache_creation_tokens`); `output_tokens` counts reasoning too. Vendors that count otherwise are converted.
    `estimated` is true when Atlas counted because the provider did not say.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False


def total(usages: Iterable[Usage]) -> Usage:
    """The sum; estimated if any part is, and unknown details stay unknown only if no part knows them."""
    found = tuple(usages)
    if len(found) == 1:
        return found[0]
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in found),
        output_tokens=sum(usage.output_tokens for usage in found),
        cached_tokens=_sum(usage.cached_tokens for usage in found),
        cache_creation_tokens=_sum(usage.cache_creation_tokens for usage in found),
        reasoning_tokens=_sum(usage.reasoning_tokens for usage in found),
        estimated=any(usage.estimated for usage in found),
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
