"""POST /v1/messages/count_tokens: by the provider where it can count, else by estimate; the answer says which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gateway.api.auth import INFER, Access
from gateway.core.errors import Category, ProviderError
from gateway.core.tokens import estimate_input_tokens
from gateway.dialects.anthropic_messages import HEADERS, parse_counting
from gateway.upstream.contract import CountsTokens

if TYPE_CHECKING:
    from gateway.api.deps import Services
    from gateway.api.exchange import Exchange
    from gateway.core.chat import ChatRequest

ESTIMATED = (b"x-atlas-estimated", b"true")


@dataclass(frozen=True, slots=True)
class CountTokens:
    """The route."""

    services: Services
    access: ClassVar[Access] = INFER

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        raw = await exchange.json_body(self.services.bodies)
        request = parse_counting(raw, exchange.given(HEADERS))
        try:
            counted = await self._counted(request)
        except ProviderError as error:
            await exchange.fail(error.failure)
            return
        tokens = estimate_input_tokens(request) if counted is None else counted
        await exchange.answer_json(200, {"input_tokens": tokens}, [ESTIMATED] if counted is None else [])

    async def _counted(self, request: ChatRequest) -> int | None:
        """What the route's first endpoint counts; None if it cannot: by kind, or because its host has no such route.

        Raises:
            RequestError: 404 unknown model.
            ProviderError: it did not count.
        """
        group = self.services.routes.find(request.model)
        endpoint = group.endpoints[0]
        if not isinstance(endpoint.provider, CountsTokens):
            return None
        try:
            return await endpoint.provider.count_tokens(request, endpoint.model_for(group.wanted(request.model)))
        except ProviderError as error:
            if error.category is Category.MODEL_NOT_FOUND:
                return None
            raise
