"""Everything that can go wrong, and its consequences in one table.

    AtlasError
    ├── RequestError    the caller's request cannot be served as it is: says which parameter and why
    ├── StreamRefused   a control or attach call that the stream's state does not allow
    └── ProviderError   an upstream attempt failed; adapters raise this and nothing else

`Category` is closed; `CONSEQUENCES` has one row for each member and a test keeps it total. Foreign exceptions are
mapped at the edge they enter (`upstream.transport`, the adapters); nobody else catches them.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import msgspec

Whose = Literal["caller", "policy", "provider", "atlas"]
Breaker = Literal["ignores", "probe", "ratio", "counts", "opens"]


class Category(StrEnum):
    """What kind of failure it was; retry, fallback, breaker and the client's answer follow from it."""

    BAD_REQUEST = "bad_request"
    UNTRANSLATABLE = "untranslatable"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    PROVIDER_AUTH = "provider_auth"
    PROVIDER_PERMISSION = "provider_permission"
    MODEL_NOT_FOUND = "model_not_found"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    OVERLOADED = "overloaded"
    UPSTREAM_5XX = "upstream_5xx"
    CONNECT = "connect"
    STALE_CONNECTION = "stale_connection"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token"  # noqa: S105  a token of text
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    STREAM_BROKEN = "stream_broken"
    STREAM_ERROR = "stream_error"
    PROTOCOL = "protocol"
    EMPTY = "empty"
    POOL_EXHAUSTED = "pool_exhausted"
    NO_ENDPOINT = "no_endpoint"
    CANCELLED = "cancelled"
    BUDGET = "budget"
    JOURNAL = "journal"
    JOURNAL_LOST = "journal_lost"
    JOURNAL_GAP = "journal_gap"
    JOURNAL_REGRESSED = "journal_regressed"
    OWNER_LOST = "owner_lost"
    SHUTDOWN = "shutdown"
    GATEWAY_OVERLOADED = "gateway_overloaded"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from a category.

    `status`, `type`, `code`: the client's answer in OpenAI's shape; `messages`: status and type in Anthropic's, where
    the status alone does not say it (`messages_answer`). `same` and `elsewhere`: whether the same endpoint
    may be asked again and whether another one may be tried, both before the first content event only. `retry`: the
    value of `x-should-retry`, what a client's own retry may hope for. `breaker`: what the endpoint's circuit breaker
    makes of it: nothing; a failure of a probe only; a failure in the ratio; one in the ratio and in the row of
    consecutive ones; open at once, as every other request will fail alike.
    """

    status: int
    type: str
    code: str
    whose: Whose
    same: bool = False
    elsewhere: bool = True
    retry: bool = True
    messages: tuple[int, str] | None = None
    breaker: Breaker = "ignores"

    @property
    def messages_answer(self) -> tuple[int, str]:
        """Status and type of the client's answer in Anthropic's shape."""
        return self.messages or (self.status, messages_type(self.status))


def messages_type(status: int) -> str:
    """Anthropic's error type for a status (https://platform.claude.com/docs/en/api/errors, November 2026)."""
    return _MESSAGES_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


_MESSAGES_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_BILLING = (402, "billing_error")
_REQUEST, _SERVER, _RATE = "invalid_request_error", "server_error", "rate_limit_error"

# pool.md section 2 of the specification is the source of every row.
CONSEQUENCES: dict[Category, Consequence] = {
    Category.BAD_REQUEST: Consequence(400, _REQUEST, "bad_request", "caller", elsewhere=False, retry=False),
    Category.UNTRANSLATABLE: Consequence(400, _REQUEST, "unsupported_parameter", "caller", retry=False),
    Category.CONTEXT_LENGTH: Consequence(
        400, _REQUEST, "context_length_exceeded", "caller", elsewhere=False, retry=False
    ),
    Category.CONTENT_FILTER: Consequence(400, _REQUEST, "content_filter", "policy", elsewhere=False, retry=False),
    Category.PROVIDER_AUTH: Consequence(502, _SERVER, "provider_auth", "provider", retry=False),
    Category.PROVIDER_PERMISSION: Consequence(502, _SERVER, "provider_permission", "provider", retry=False),
    Category.MODEL_NOT_FOUND: Consequence(502, _SERVER, "model_not_found", "provider", retry=False, breaker="opens"),
    Category.TOO_LARGE: Consequence(413, _REQUEST, "request_too_large", "caller", elsewhere=False, retry=False),
    Category.RATE_LIMITED: Consequence(429, _RATE, "rate_limit_exceeded", "provider", breaker="ratio"),
    Category.QUOTA: Consequence(
        429, "insufficient_quota", "insufficient_quota", "provider", retry=False, messages=_BILLING, breaker="probe"
    ),
    Category.OVERLOADED: Consequence(
        503, _SERVER, "overloaded", "provider", same=True, messages=(529, "overloaded_error"), breaker="counts"
    ),
    Category.UPSTREAM_5XX: Consequence(502, _SERVER, "upstream_error", "provider", same=True, breaker="counts"),
    Category.CONNECT: Consequence(502, _SERVER, "connect", "provider", same=True, breaker="counts"),
    Category.STALE_CONNECTION: Consequence(502, _SERVER, "stale_connection", "provider", same=True),
    Category.TIMEOUT_FIRST_TOKEN: Consequence(504, _SERVER, "timeout_first_token", "provider", breaker="counts"),
    Category.TIMEOUT_IDLE: Consequence(504, _SERVER, "timeout_idle", "provider", same=True, breaker="counts"),
    Category.TIMEOUT_TOTAL: Consequence(504, _SERVER, "timeout_total", "policy", elsewhere=False),
    Category.STREAM_BROKEN: Consequence(502, _SERVER, "stream_broken", "provider", same=True, breaker="counts"),
    Category.STREAM_ERROR: Consequence(502, _SERVER, "stream_error", "provider", same=True, breaker="counts"),
    Category.PROTOCOL: Consequence(502, _SERVER, "protocol", "provider", breaker="counts"),
    Category.EMPTY: Consequence(502, _SERVER, "empty", "provider", same=True, breaker="ratio"),
    Category.POOL_EXHAUSTED: Consequence(503, _SERVER, "pool_exhausted", "atlas"),
    Category.NO_ENDPOINT: Consequence(503, _SERVER, "no_endpoint", "provider", elsewhere=False),
    Category.CANCELLED: Consequence(409, _REQUEST, "stream_cancelled", "caller", elsewhere=False, retry=False),
    Category.BUDGET: Consequence(
        429, "insufficient_quota", "budget_exceeded", "policy", elsewhere=False, retry=False, messages=_BILLING
    ),
    Category.JOURNAL: Consequence(503, _SERVER, "journal_unavailable", "atlas", elsewhere=False),
    Category.SHUTDOWN: Consequence(503, _SERVER, "shutting_down", "atlas", elsewhere=False),
    Category.GATEWAY_OVERLOADED: Consequence(
        503, _SERVER, "gateway_overloaded", "atlas", elsewhere=False, messages=(529, "overloaded_error")
    ),
    Category.JOURNAL_LOST: Consequence(503, _SERVER, "journal_lost", "atlas", elsewhere=False),
    Category.JOURNAL_GAP: Consequence(503, _SERVER, "journal_gap", "atlas", elsewhere=False),
    Category.JOURNAL_REGRESSED: Consequence(503, _SERVER, "journal_regressed", "atlas", elsewhere=False),
    Category.OWNER_LOST: Consequence(503, _SERVER, "owner_lost", "atlas", elsewhere=False),
    Category.INTERNAL: Consequence(500, _SERVER, "internal_error", "atlas", elsewhere=False),
}


class Failure(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A failure as it stands in the log: enough to answer in any dialect, at any later time.

    `message` is safe to show: at most 512 characters, no control characters, no secret. `attempts` lists one line per
    upstream attempt. `retry_after_s` is what the provider asked for. `status` overrides the table's, for what the
    caller named.
    """

    category: Category
    message: str
    retry_after_s: float | None = None
    param: str | None = None
    attempts: tuple[str, ...] = ()
    provider_code: str | None = None
    status: int | None = None

    @property
    def consequence(self) -> Consequence:
        """The row of the table that says what follows."""
        row = CONSEQUENCES[self.category]
        return row if self.status is None else replace(row, status=self.status, type=_REQUEST, whose="caller")


class AtlasError(Exception):
    """The root of every error that Atlas raises on purpose."""


class RequestError(AtlasError):
    """The caller's request cannot be served as it is.

    `status` 4xx; `code` a stable word; `param` the member at fault, as a path like `messages[0].role`; `type` OpenAI's
    error type. `headers` are added to the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        type_: str = _REQUEST,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.param, self.type = message, status, code, param, type_
        self.headers: dict[str, str] = headers or {}


class Declined(RequestError):
    """A request that is refused with the consequences of a category, in any dialect; nothing was begun."""

    def __init__(self, failure: Failure) -> None:
        self.failure, row = failure, failure.consequence
        headers = {"x-should-retry": "true" if row.retry else "false"}
        if failure.retry_after_s is not None:
            headers["retry-after"] = f"{failure.retry_after_s:.0f}"
        super().__init__(failure.message, status=row.status, code=row.code, type_=row.type, headers=headers)


class StreamRefused(RequestError):
    """A call that the stream's state does not allow; `stream` is its status object, if it is the caller's."""

    def __init__(
        self, message: str, *, status: int, code: str, stream: dict[str, Any] | None = None, **extra: Any
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.stream, self.extra = stream, extra


class ProviderError(AtlasError):
    """An upstream attempt failed. Adapters and the transport raise this and nothing else.

    `unmapped` is the answer's status where nothing but its class told the category: worth counting, so that the tables
    can learn it.
    """

    def __init__(
        self,
        category: Category,
        message: str,
        *,
        retry_after_s: float | None = None,
        param: str | None = None,
        provider_code: str | None = None,
        unmapped: int | None = None,
    ) -> None:
        super().__init__(f"{category}: {message}")
        self.unmapped = unmapped
        self.failure = Failure(
            category,
            clean(message),
            retry_after_s,
            param and clean(param),
            provider_code=provider_code and clean(provider_code),
        )

    @property
    def category(self) -> Category:
        """What kind of failure it was."""
        return self.failure.category


MAX_MESSAGE = 512
_CONTROL = dict.fromkeys((*range(32), 127, *range(128, 160), 0x2028, 0x2029), " ")


def clean(message: str) -> str:
    """A provider's words made safe to show: no control characters, at most 512 characters."""
    return message[: MAX_MESSAGE * 2].translate(_CONTROL)[:MAX_MESSAGE]
