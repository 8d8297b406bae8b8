"""Where the client dialects live, and with that in whose shape a path's errors are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.dialects.catalog import ANTHROPIC_MESSAGES, OPENAI_CHAT

if TYPE_CHECKING:
    from gateway.dialects.catalog import Dialect

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
MODELS = "/v1/models"
ANTHROPIC_VERSION = "anthropic-version"
REQUEST_ID = "atlas.request_id"
"""Where the edge puts a request's id into its scope."""


_SERVED = frozenset({CHAT, MESSAGES, COUNT_TOKENS, MODELS})
_OTHER_APIS = {"/v1/responses": CHAT, "/v1/completions": CHAT, "/v1/complete": MESSAGES}
"""Where the vendors have more than one API for the same."""


def dialect_of(path: str, *, versioned: bool) -> Dialect:
    """The dialect of a request's path.

    Two APIs share the list of models, and only one sends the header `ANTHROPIC_VERSION` (`versioned`); by it its
    clients are known, too, where their base URL is wrong.
    """
    if path == MESSAGES or path.startswith(MESSAGES + "/"):
        return ANTHROPIC_MESSAGES
    if versioned and (path.startswith(MODELS) or "/messages" in path):
        return ANTHROPIC_MESSAGES
    return OPENAI_CHAT


def instead_of(path: str) -> str | None:
    """What to ask instead of a path that is not served: another API of the same client, or a base URL set right."""
    if path in _OTHER_APIS:
        return f"use {_OTHER_APIS[path]}"
    meant = "/v1/" + "/".join(part for part in path.strip("/").split("/") if part != "v1")
    return f"did you mean {meant}?" if meant in _SERVED and meant != path else None
