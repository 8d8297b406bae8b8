"""An endpoint: one configured way to call one model."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway.pool.candidate import Candidate
from gateway.upstream.contract import Timeouts

if TYPE_CHECKING:
    from gateway.pool.usage_drain import UsageDrain
    from gateway.upstream.contract import Provider


class Continuation(StrEnum):
    """What an endpoint can do with a partial answer."""

    NONE = "none"
    PREFILL = "prefill"
    REPLAY = "replay"
    INSTRUCT = "instruct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`model` is the provider's name for it; `*` takes whatever the client named behind the route's prefix.

    `stops_on_close`: whether closing the socket stops the generation and the bill; `usage_drain` reads on where it does
    not, None: nobody does. `continuation`: how it goes on with an answer that broke off elsewhere; `echoes`: whether it
    then says again what it was given. `keyed`: an adapter for each key, over one transport, of which `provider` is the
    first. `candidate` is what selection knows of it.
    """

    name: str
    provider: Provider
    model: str
    timeouts: Timeouts = field(default_factory=Timeouts)
    stops_on_close: bool = True
    usage_drain: UsageDrain | None = None
    continuation: Continuation = Continuation.NONE
    echoes: bool = False
    keyed: tuple[Provider, ...] = ()
    candidate: Candidate = field(default_factory=lambda: Candidate("", random.Random()))

    def __post_init__(self) -> None:
        self.candidate.name = self.name

    def using(self, key: int) -> Provider:
        """The adapter that speaks with the key of this number."""
        return self.keyed[key] if self.keyed else self.provider

    def model_for(self, wanted: str) -> str:
        """The model to ask for, when the client named `wanted`."""
        return wanted if self.model == "*" else self.model
