"""Who is asking, and what they may do. Which route needs which scope stands at the routes, see `gateway.api.auth`."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a key may be used for."""

    INFER = "infer"  # ask models, list them, read own streams
    CONTROL = "control"  # read, pause, resume, cancel and delete own streams
    ADMIN = "admin"  # routes for administrators; no power over anybody's streams
    METRICS = "metrics"  # the metrics


@dataclass(frozen=True, slots=True)
class Principal:
    """The tenant whose streams a caller may see, and the scopes that it has.

    `key_id` is the operator's name of the key, for log lines and settlement; None without keys, when everybody on this
    machine is `local`.
    """

    tenant: str = "local"
    key_id: str | None = None
    scopes: frozenset[Scope] = frozenset(Scope)
