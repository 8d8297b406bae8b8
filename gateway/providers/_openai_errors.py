"""What OpenAI's and compatible hosts' error bodies mean. Pure."""

from gateway.core.errors import Category
from gateway.providers._errors import Vocabulary
from gateway.providers._vocabulary import CODES, STATUSES, WORDS

FAILED_ENDS = frozenset({
    "error", "abort", "cancelled", "model_error", "network_error", "timeout", "insufficient_system_resource",
})  # fmt: skip
"""Finish reasons by which hosts say that an answer is none: vLLM, SGLang, Zhipu, DeepSeek, OpenRouter. `[DONE]` follows
most of them, as if it were whole."""

_CODES: dict[str, Category] = CODES | {
    "string_above_max_length": Category.CONTEXT_LENGTH,
    "exceed_context_size_error": Category.CONTEXT_LENGTH,
    "content_filter": Category.CONTENT_FILTER,
    "content_policy_violation": Category.CONTENT_FILTER,
    "responsibleaipolicyviolation": Category.CONTENT_FILTER,
    "invalid_prompt": Category.CONTENT_FILTER,
    "data_inspection_failed": Category.CONTENT_FILTER,
    "billing_hard_limit_reached": Category.QUOTA,
    "billing_not_active": Category.QUOTA,
    "credit_balance_too_low": Category.QUOTA,
    "credit_balance_exhausted": Category.QUOTA,
    "organization_spend_limit_exceeded": Category.QUOTA,
    "project_spend_limit_exceeded": Category.QUOTA,
    "organization_usage_limit_exceeded": Category.QUOTA,
    "spend_limit_reached": Category.QUOTA,
    "payment_required": Category.QUOTA,
    "quota_exceeded": Category.QUOTA,
    "budget_exceeded": Category.QUOTA,
    "blocked_api_access": Category.QUOTA,
    "exceeded_current_quota_error": Category.QUOTA,
    "arrearage": Category.QUOTA,
    "engine_overloaded_error": Category.OVERLOADED,
    "overloaded": Category.OVERLOADED,
    "insufficient_system_resource": Category.OVERLOADED,
    "capacity_exceeded": Category.OVERLOADED,
    "nocapacity": Category.OVERLOADED,
    "deploymentnotfound": Category.MODEL_NOT_FOUND,
    "invalid_model": Category.MODEL_NOT_FOUND,
    "api_key_invalid": Category.PROVIDER_AUTH,
    "organization_restricted": Category.PROVIDER_PERMISSION,
}
_VOCABULARY = Vocabulary(codes=_CODES, words=WORDS, statuses=STATUSES)

from_answer = _VOCABULARY.from_answer
from_stream = _VOCABULARY.from_stream
in_success = _VOCABULARY.in_success
