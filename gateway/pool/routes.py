"""The route table: which group answers a model name that a client gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from gateway.core.errors import RequestError
from gateway.pool.capability import NOTHING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.chat import ChatRequest
    from gateway.core.errors import ProviderError
    from gateway.pool.capability import Needs
    from gateway.pool.continuation import Level
    from gateway.pool.delivered import Delivered
    from gateway.pool.endpoint import Endpoint

NAMES_SHOWN = 20


class Answering(Protocol):
    """What a model name leads to: a provider group, or an agent. A source is a `streams.source.Source`."""

    @property
    def model(self) -> str:
        """The name, or a prefix with `*`."""
        ...

    @property
    def wildcard(self) -> bool:
        """Whether it serves a whole prefix."""
        ...

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Who may answer, at least one."""
        ...

    def wanted(self, named: str) -> str:
        """The part of the client's model name that wildcard endpoints are asked for."""
        ...

    def attempt(self, request: ChatRequest, *, level: Level, needs: Needs = NOTHING) -> Any:
        """A source that answers `request`; `needs` is what was stated for it."""
        ...

    def continue_from(self, request: ChatRequest, delivered: Delivered, lost: ProviderError, *, level: Level) -> Any:
        """A source for the rest of an answer whose owner was lost; None if nobody can continue it."""
        ...


class RouteTable:
    """Exact names first, then the longest wildcard prefix."""

    def __init__(self, groups: Sequence[Answering]) -> None:
        self.replace(groups)

    def replace(self, groups: Sequence[Answering]) -> None:
        """Have these routes instead, for whoever asks from now on."""
        self.groups = groups
        self._exact = {group.model: group for group in groups if not group.wildcard}
        self._prefixes = sorted(
            ((group.model[:-1], group) for group in groups if group.wildcard), key=lambda pair: -len(pair[0])
        )

    def find(self, model: str) -> Answering:
        """Who serves `model`.

        Raises:
            RequestError: 404 that lists what exists.
        """
        group = self._exact.get(model)
        if group is not None:
            return group
        for prefix, wildcard in self._prefixes:
            if model.startswith(prefix) and len(model) > len(prefix):
                return wildcard
        names = self.names()
        shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
        msg = f"the model {model!r} does not exist here; there are: {shown or 'none'}"
        raise RequestError(msg, status=404, code="model_not_found", param="model")

    def names(self) -> list[str]:
        """Every name, wildcards as they are written."""
        return [group.model for group in self.groups]
