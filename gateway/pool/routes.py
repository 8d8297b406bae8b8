"""The route table: which group answers a model name that a client gave."""

from gateway.core.errors import RequestError
from gateway.pool.group import ProviderGroup

NAMES_SHOWN = 20


class RouteTable:
    """Exact names first, then the longest wildcard prefix."""

    def __init__(self, groups: list[ProviderGroup]) -> None:
        self.groups = groups
        self._exact = {group.model: group for group in groups if not group.wildcard}
        self._prefixes = sorted(
            ((group.model[:-1], group) for group in groups if group.wildcard), key=lambda pair: -len(pair[0])
        )

    def find(self, model: str) -> ProviderGroup:
        """The group that serves `model`.

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
