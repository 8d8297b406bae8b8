"""Codes and words that hosts of every wire use, because they pass on each other's errors. Pure data.

Codes are in lower case. Sources: the vendors' pages of error codes, and recorded traffic; see `tests/corpus/errors`.
"""

from gateway.core.errors import Category
from gateway.providers._errors import Words, words

CODES: dict[str, Category] = {
    # Anthropic's types, which compatible hosts repeat.
    "authentication_error": Category.PROVIDER_AUTH,
    "billing_error": Category.QUOTA,
    "permission_error": Category.PROVIDER_PERMISSION,
    "not_found_error": Category.MODEL_NOT_FOUND,
    "request_too_large": Category.TOO_LARGE,
    "rate_limit_error": Category.RATE_LIMITED,
    "overloaded_error": Category.OVERLOADED,
    "enforced_spend_limit_reached": Category.QUOTA,
    # OpenAI's, and those of hosts that follow it.
    "context_length_exceeded": Category.CONTEXT_LENGTH,
    "insufficient_quota": Category.QUOTA,
    "rate_limit_exceeded": Category.RATE_LIMITED,
    "slow_down": Category.OVERLOADED,
    "model_not_found": Category.MODEL_NOT_FOUND,
    "invalid_api_key": Category.PROVIDER_AUTH,
}

STATUSES: dict[str, int] = {
    "invalid_request_error": 400,
    "server_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "timeout_error": 504,
    "service_unavailable": 503,
}
"""Types that say no more than a status does, which a stream has not."""

_LONG = frozenset({400, 404, 413, 422})  # at 429 the same words are about tokens a minute

WORDS: tuple[Words, ...] = (
    words(
        r"""exceeded\ your\ current\ quota | credit\ balance | (more|any|available|purchased|out\ of)\ credits
        | insufficient\ (credits?|balance|funds|quota) | (spend|spending|usage|billing|budget)\ (hard\ )?limits?\b
        """,
        Category.QUOTA,
    ),
    words(
        r"""\bper[\ -]day\b | \bdaily\ (request\ |token\ |usage\ )?(limit|quota) | \bcalls\ /\ month\b""",
        Category.QUOTA,
        frozenset({402, 403, 429}),
    ),
    words(
        r"""maximum\ (context|prompt|model)\ length | context\ (window|length|limit|size)
        | (prompt|input)\ (is\ )?too\ long | exceeded\ model\ token\ limit
        | too\ many\ (input\ )?tokens | tokens`?\ \+\ .{0,200}must\ be\ <= | when\ context\ the\ overflows
        | input\ token\ count.{0,200}exceeds | input\ length.{0,40}exceeds\ the\ maximum
        | reduce\ the\ length\ of\ the\ (messages|prompt|input)
        """,
        Category.CONTEXT_LENGTH,
        _LONG,
    ),
    words(
        r"""(incorrect|invalid)\ (x-)?api[\ -]key | api\ key\ not\ (valid|found) | invalid\ api\ token""",
        Category.PROVIDER_AUTH,
    ),
    words(
        r"""content\ (management|filtering)\ policy | content\ violates\b | potentially\ violating\ our\ usage
        | flagged\ (as|by|for)\b
        """,
        Category.CONTENT_FILTER,
    ),
    words(
        r"""\b(invalid|unknown|no\ such)\ model\b | \bmodel\b.{0,80}\b(does\ not\ exist|not\ exist|not\ found)
        | not\ a\ valid\ model
        """,
        Category.MODEL_NOT_FOUND,
        frozenset({400, 403, 422}),
    ),
    words(
        r"""\boverloaded\b | experiencing\ high\ demand | temporarily\ unable\ to\ process | capacity\ exceeded
        | queue\ is\ full
        """,
        Category.OVERLOADED,
        frozenset({429}),
    ),
)
"""Vendors that say it in words only; the first match wins."""
