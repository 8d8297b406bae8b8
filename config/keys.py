"""The keys that clients show, as rows of the file: hashes under the pepper, never the keys themselves. And tenants.

To rotate a key, add a second row with the same tenant, and remove the first once nobody uses it. Budgets of the tenant
are shared by all of its keys, and outlive each of them.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints, model_validator

from config.problems import Loc, did_you_mean
from config.section import Section
from config.values import Name

PEPPER_VARIABLE = "ATLAS_KEY_PEPPER"
MIN_PEPPER_BYTES = 16

LOCAL = "local"
"""The tenant of everybody on this machine, where there are no keys."""

Window: TypeAlias = Literal["request", "minute", "hour", "day", "month", "total"]
ScopeName: TypeAlias = Literal["infer", "control", "admin", "metrics"]
_SPAN = re.compile(r"([0-9]{1,5})([hdw])")
_SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
DEFAULT_SCOPES: tuple[ScopeName, ...] = ("infer", "control")


def moment(value: object) -> datetime:
    """A point in time from ISO 8601; one without a time zone is in UTC.

    Raises ValueError for anything else.
    """
    try:
        found = (
            value if isinstance(value, datetime) else datetime.fromisoformat(value if isinstance(value, str) else "")
        )
    except ValueError:
        raise ValueError("must be a date and time like 2027-01-31T12:00:00Z, or null") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def expiry(text: str, now: float) -> datetime:
    """When a key expires that is made at `now` (Unix seconds): after `12h`, `90d`, `52w`, or at a date and time.

    Raises ValueError for anything else, and for what is over already.
    """
    span = _SPAN.fullmatch(text)
    try:
        found = datetime.fromtimestamp(now, UTC) + int(span[1]) * _SPANS[span[2]] if span else moment(text)
    except ValueError:
        raise ValueError("must be like 90d, 12h, 52w or 2027-01-31T12:00:00Z") from None
    if found.timestamp() <= now:
        raise ValueError("lies in the past")
    return found.replace(microsecond=0)


def check_pepper(value: SecretStr) -> SecretStr:
    """The pepper, if it is long enough; raises ValueError."""
    if len(value.get_secret_value().encode()) < MIN_PEPPER_BYTES:
        raise ValueError(f"must be at least {MIN_PEPPER_BYTES} bytes of randomness; `openssl rand -hex 32` makes some")
    return value


Moment: TypeAlias = Annotated[datetime, BeforeValidator(moment)]
Pepper: TypeAlias = Annotated[SecretStr, AfterValidator(check_pepper)]
Hash: TypeAlias = Annotated[str, StringConstraints(pattern=r"^hmac-sha256:[0-9a-f]{64}$")]


class Budget(Section):
    """What may be spent: tokens of prompts and answers together, or USD, or both, in each window.

    Windows are those of the calendar in UTC; `total` is never renewed, and `request` is for each request alone.
    """

    tokens: Annotated[int | None, Field(ge=1, le=10**15)] = None
    usd: Annotated[float | None, Field(gt=0, le=1_000_000, allow_inf_nan=False)] = None
    per: Window

    @model_validator(mode="after")
    def _limits_something(self) -> "Budget":
        if self.tokens is None and self.usd is None:
            raise ValueError("needs tokens or usd")
        return self


class RateLimits(Section):
    """Who is let in: requests and tokens a minute, and streams that run at the same time."""

    rpm: Annotated[int | None, Field(ge=1)] = None
    tpm: Annotated[int | None, Field(ge=1)] = None
    max_concurrent_streams: Annotated[int | None, Field(ge=1)] = None


class Key(Section):
    """One key; `atlas keys create` makes the row.

    `id` is the operator's name of it, shown in log lines; without a wish it is the id that stands in the key itself.
    `tenant` is whose streams it sees.
    """

    id: Name
    hash: Annotated[Hash, Field(repr=False)]
    tenant: Name
    scopes: Annotated[tuple[ScopeName, ...], Field(min_length=1)] = DEFAULT_SCOPES
    expires: Moment | None = None
    budgets: tuple[Budget, ...] = ()
    limits: RateLimits = RateLimits()


class Tenant(Section):
    """What all keys of one tenant share. Without keys everybody is the tenant `local`."""

    id: Name
    budgets: tuple[Budget, ...] = ()
    limits: RateLimits = RateLimits()


def tenant_contradictions(tenants: Sequence[Tenant], keys: Sequence[Key]) -> Iterator[tuple[Loc, str]]:
    """What is wrong with budgets and limits that are right each by itself."""
    known = sorted({key.tenant for key in keys}) or [LOCAL]
    ids: dict[str, int] = {}
    for at, tenant in enumerate(tenants):
        if (first := ids.setdefault(tenant.id, at)) < at:
            yield ("tenants", at, "id"), f"{tenant.id!r} is taken by tenants[{first}]"
        elif tenant.id not in known:
            yield ("tenants", at, "id"), f"there is no key of tenant {tenant.id!r}{did_you_mean(tenant.id, known)}"
        yield from _repeated(("tenants", at), tenant.budgets)
    for at, key in enumerate(keys):
        yield from _repeated(("keys", at), key.budgets)


def _repeated(where: Loc, budgets: Sequence[Budget]) -> Iterator[tuple[Loc, str]]:
    seen: dict[tuple[str, str], int] = {}
    for at, budget in enumerate(budgets):
        for unit in ("tokens", "usd"):
            if getattr(budget, unit) is not None and (first := seen.setdefault((unit, budget.per), at)) < at:
                yield (*where, "budgets", at), f"says {unit} per {budget.per} once more; budgets[{first}] does"


def key_contradictions(keys: Sequence[Key], pepper: SecretStr | None) -> Iterator[tuple[Loc, str]]:
    """What is wrong with keys that are right each by itself."""
    if keys and pepper is None:
        yield (
            ("keys",),
            (
                f"need the pepper under which they were hashed, in the environment variable {PEPPER_VARIABLE}; "
                "`atlas keys create` makes one with the first key"
            ),
        )
    ids: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for at, key in enumerate(keys):
        if (first := ids.setdefault(key.id, at)) < at:
            yield ("keys", at, "id"), f"{key.id!r} is taken by keys[{first}]"
        if (first := hashes.setdefault(key.hash, at)) < at:
            yield ("keys", at, "hash"), f"is the same as in keys[{first}]; a key has one row"
