"""Usage, as OpenAI's chat completions show it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.core.events import UsageReport
    from gateway.core.usage import Usage

DIALECT = "openai_chat"


def shown_usage(report: UsageReport) -> dict[str, Any]:
    """OpenAI's usage object: the provider's own in the same dialect, else built from the canonical one."""
    if report.source is not None and report.dialect == DIALECT:
        return report.source
    usage: Usage = report.usage
    shown: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_tokens is not None:
        shown["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        shown["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return shown
