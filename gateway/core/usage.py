"""Token usage under OpenTelemetry's `gen_ai` names."""

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
