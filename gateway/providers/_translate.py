"""What every adapter does with a request that came in another dialect than its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import Category, ProviderError

if TYPE_CHECKING:
    from gateway.core.chat import ChatRequest


def untranslatable(param: str, wire: str) -> ProviderError:
    """The refusal of a member that `wire` cannot say; another endpoint may be able to."""
    return ProviderError(Category.UNTRANSLATABLE, f"{param} cannot be translated for {wire}", param=param)


def refuse_own(request: ChatRequest, wire: str) -> None:
    """Refuse members that only the caller's own dialect can say.

    Raises:
        ProviderError: `untranslatable`, naming the first of them.
    """
    if request.own:
        raise untranslatable(request.own[0], wire)
