"""Anthropic's usage object: its `input_tokens` leave out what a cache read or wrote, ours do not. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.core.events import UsageReport

DIALECT = "anthropic_messages"


def shown_usage(report: UsageReport | None) -> dict[str, Any]:
    """The provider's own object in the same dialect, else built from the canonical one; zeros if none is known."""
    if report is None:
        return {"input_tokens": 0, "output_tokens": 0}
    if report.source is not None and report.dialect == DIALECT:
        return report.source
    usage = report.usage
    cached, created = usage.cached_tokens, usage.cache_creation_tokens
    shown: dict[str, Any] = {"input_tokens": max(usage.input_tokens - (cached or 0) - (created or 0), 0)}
    if created is not None:
        shown["cache_creation_input_tokens"] = created
    if cached is not None:
        shown["cache_read_input_tokens"] = cached
    shown["output_tokens"] = usage.output_tokens
    if usage.reasoning_tokens is not None:
        shown["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return shown
