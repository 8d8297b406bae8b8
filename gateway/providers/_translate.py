"""What every adapter does with a request that came in another dialect than its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.core.errors import Category, ProviderError

if TYPE_CHECKING:
    from gateway.core.chat import ChatRequest, ToolCallPart


def untranslatable(param: str, wire: str) -> ProviderError:
    """The refusal of a member that `wire` cannot say; another endpoint may be able to."""
    return ProviderError(Category.UNTRANSLATABLE, f"{param} cannot be translated for {wire}", param=param)


def arguments_object(part: ToolCallPart, param: str, wire: str) -> msgspec.Raw:
    """The arguments of an earlier call for a wire that wants an object; they stay the JSON that they are.

    Raises:
        ProviderError: `untranslatable`, naming `param`, when they are no JSON object.
    """
    arguments = part.arguments.strip() or "{}"
    try:
        is_object = isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        is_object = False
    if not is_object:
        raise untranslatable(param, wire)
    return msgspec.Raw(arguments.encode())


def refuse_own(request: ChatRequest, wire: str) -> None:
    """Refuse members that only the caller's own dialect can say, and a tool that is asked for where there is none.

    Raises:
        ProviderError: `untranslatable`, naming the first of them; `bad_request`.
    """
    if request.own:
        raise untranslatable(request.own[0], wire)
    refuse_absent_tools(request)


def refuse_absent_tools(request: ChatRequest) -> None:
    """Refuse a choice of tools where there are none, as the vendors do.

    Raises:
        ProviderError: `bad_request`.
    """
    if not request.tools and request.tool_choice not in {"auto", "none"}:
        msg = "tool_choice asks for a call of a tool, but the request has no tools"
        raise ProviderError(Category.BAD_REQUEST, msg, param="tool_choice")
