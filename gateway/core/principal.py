"""Who is asking."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """The tenant whose streams a caller may see. Without configured keys everybody on this machine is `local`."""

    tenant: str = "local"
