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


def dialect_of(path: str, *, versioned: bool) -> Dialect:
    """The dialect of a request's path.

    Two APIs share the list of models, and only one sends
    the header `ANTHROPIC_VERSION` (`versioned`).
    """
    if path == MESSAGES or path.startswith(MESSAGES + "/"):
        return ANTHROPIC_MESSAGES
    if versioned and path.startswith(MODELS):
        return ANTHROPIC_MESSAGES
    return OPENAI_CHAT
