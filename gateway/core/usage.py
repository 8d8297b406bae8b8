"""Token usage under OpenTelemetry's `gen_ai` names."""

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one answer, cumulative over its legs.

    `estimated` is true when Atlas counted because the provider did not say.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False
