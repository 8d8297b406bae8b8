"""What Anthropic's error bodies mean: `{"type": "error", "error": {type, message, details}, "request_id"}`. Pure.

`invalid_request_error` covers a spent balance and a prompt that is too long as well; only the words tell them apart.
Bodies from the network before the API (413, 5xx) are HTML.
"""

from gateway.core.errors import Category
from gateway.providers._errors import Vocabulary
from gateway.providers._vocabulary import CODES, STATUSES, WORDS

# `error.details.error_code`, as the vendor's SDK lists them: 400s that are about the account, not the request.
_CODES: dict[str, Category] = CODES | {
    "ramp_limit_exceeded": Category.RATE_LIMITED,
    "organization_on_hold": Category.PROVIDER_PERMISSION,
    "organization_type_not_supported": Category.PROVIDER_PERMISSION,
    "claude_code_key_creator_not_member": Category.PROVIDER_PERMISSION,
    "cmek_key_disabled": Category.PROVIDER_PERMISSION,
    "cmek_key_network_blocked": Category.PROVIDER_PERMISSION,
}
_VOCABULARY = Vocabulary(codes=_CODES, words=WORDS, statuses=STATUSES)

from_answer = _VOCABULARY.from_answer
from_stream = _VOCABULARY.from_stream
in_success = _VOCABULARY.in_success
