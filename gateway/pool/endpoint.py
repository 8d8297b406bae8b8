"""An endpoint: one configured way to call one model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.upstream.contract import Timeouts

if TYPE_CHECKING:
    from gateway.upstream.contract import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`model` is the provider's name for it; `*` takes whatever the client named behind the route's prefix.

    `stops_on_close`: whether closing the socket stops the generation and the bill.
    """

    name: str
    provider: Provider
    model: str
    timeouts: Timeouts = field(default_factory=Timeouts)
    stops_on_close: bool = True

    def model_for(self, wanted: str) -> str:
        """The model to ask for, when the client named `wanted`."""
        return wanted if self.model == "*" else self.model
