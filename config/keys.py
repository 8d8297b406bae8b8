"""The keys that clients show, as rows of the file: hashes under the pepper, never the keys themselves.

To rotate a key, add a second row with the same tenant, and remove the first once nobody uses it.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints

from config.problems import Loc
from config.section import Section
from config.values import Name

PEPPER_VARIABLE = "ATLAS_KEY_PEPPER"
MIN_PEPPER_BYTES = 16

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
    budgets: tuple[dict[str, Any], ...] = ()


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
