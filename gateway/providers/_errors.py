"""What a provider's error means, whichever wire it came by. Pure.

An adapter's errors module brings a `Vocabulary`: the codes and the words of its vendors. How a body is read and in what
order it is believed is here: what its details prove, its codes, its words, its status, the class of its status.

Shapes seen in recorded traffic: `{"error": {message, type, code, param}}` (OpenAI, Anthropic and most),
`{"error": "text"}` (Ollama, xAI, TGI), `{"object": "error", message, type, code}` (vLLM, Mistral), `{"message"}`
(Cohere), `{"detail": ...}` (FastAPI hosts), `[{...}]` (Gemini).

Oddities, on purpose:
1. A 401, 403 or 413 says more than most codes beside it (Groq's 413 has the code `rate_limit_exceeded`): `_BELIEVED`.
2. A code that says rate limit is refined by words: per-day limits and spent budgets come with the same code as bursts.
3. What is read for its meaning only (`Said.hint`) is never shown; what is shown comes from the members named here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.core.errors import Category, ProviderError
from gateway.upstream.classify import by_status, is_known
from gateway.upstream.retry_after import retry_after_s, retry_delay_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SEARCHED = 2048
"""Characters of a text that are searched for words: a provider must not be able to keep us busy."""

_LISTED = 16
"""Members of a list of details that are looked at."""

_SUCCESS = 200
"""The status under which an unknown error within a stream is counted, where it names none."""

_WORDY = frozenset({400, 401, 402, 403, 404, 412, 413, 422, 429})
_BELIEVED = {
    401: frozenset({Category.QUOTA}),
    403: frozenset({Category.QUOTA, Category.CONTENT_FILTER, Category.MODEL_NOT_FOUND}),
    413: frozenset({Category.CONTEXT_LENGTH}),
}
_SHARPER = frozenset({Category.QUOTA, Category.OVERLOADED})
"""What a rate limit may turn out to be. "Too many tokens" beside one is about a minute's tokens, not the prompt's."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a text means that matches `pattern`, in answers with one of these statuses (None: with any)."""

    pattern: re.Pattern[str]
    category: Category
    statuses: frozenset[int] | None = _WORDY


def words(pattern: str, category: Category, statuses: frozenset[int] | None = _WORDY) -> Words:
    """`Words` of a pattern in verbose form, which ignores case."""
    return Words(re.compile(pattern, re.IGNORECASE | re.VERBOSE), category, statuses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What an error body says, from the members that may be read; everything else in it is dropped.

    `message`, `param` and the first of `codes` may be shown. `statuses` are HTTP statuses that it names. `proven` is
    what its details leave no doubt about.
    """

    message: str
    codes: tuple[str, ...]
    param: str | None
    statuses: tuple[int, ...]
    hint: str
    proven: Category | None
    retry_after_s: float | None

    @property
    def anything(self) -> bool:
        """Whether this is an error at all."""
        return bool(self.message or self.codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The codes and words of one wire. `statuses`: what an answer with such a type would have, as a stream has none."""

    codes: Mapping[str, Category]
    words: tuple[Words, ...]
    statuses: Mapping[str, int]

    def from_answer(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
        """The error of an answer with an error status. `now` is Unix time, for Retry-After dates."""
        said, wait = _read(_error_member(body)), retry_after_s(headers, now)
        return self._error(said, status, f"the provider answered {status}", wait)

    def from_stream(self, error: Any) -> ProviderError:
        """The error of an in-stream error event: by what it says itself, because the status is 200 there."""
        members = cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}
        return self._in_stream(_read(members))

    def in_success(self, body: bytes) -> ProviderError | None:
        """The error that came as JSON with a status of success; None if the body is no error."""
        said = _read(_error_member(body))
        return self._in_stream(said) if said.anything else None

    def _in_stream(self, said: Said) -> ProviderError:
        of_types = (self.statuses[code.lower()] for code in said.codes if code.lower() in self.statuses)
        status = next(iter((*said.statuses, *of_types)), None)
        return self._error(said, status, "the provider reported an error in the stream")

    def _error(self, said: Said, status: int | None, otherwise: str, wait: float | None = None) -> ProviderError:
        category, unmapped = self._meaning(said, status), None
        if category is None:
            unmapped = _SUCCESS if status is None else None if is_known(status) else status
            category = Category.STREAM_ERROR if status is None else by_status(status)
        return ProviderError(
            category,
            said.message or otherwise,
            retry_after_s=said.retry_after_s if wait is None else wait,
            param=said.param,
            provider_code=next(iter(said.codes), None),
            unmapped=unmapped,
        )

    def _meaning(self, said: Said, status: int | None) -> Category | None:
        """What the body itself says, where the status lets it; None: nothing that this vocabulary knows."""
        found = said.proven or self._of_codes(said)
        if found in {None, Category.RATE_LIMITED} and said.proven is None:
            wanted = (each for each in self.words if found is None or each.category in _SHARPER)
            found = next((each.category for each in wanted if _matches(each, said, status)), found)
        believed = None if status is None else _BELIEVED.get(status)
        return found if believed is None or found in believed else None

    def _of_codes(self, said: Said) -> Category | None:
        return next((self.codes[code.lower()] for code in said.codes if code.lower() in self.codes), None)


def _matches(wanted: Words, said: Said, status: int | None) -> bool:
    if status is not None and wanted.statuses is not None and status not in wanted.statuses:
        return False
    return any(wanted.pattern.search(text, 0, _SEARCHED) is not None for text in (said.message, said.hint))


def _error_member(body: bytes) -> dict[str, Any]:
    """The object that describes the error, whatever surrounds it; {} for anything else."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(found, list) and found:
        found = found[0]
    members = _object(found)
    error: Any = members.get("error", members)
    if isinstance(error, dict):
        return cast("dict[str, Any]", error)
    return {"message": error, "code": members.get("code"), "type": members.get("error_type")}


def _read(error: dict[str, Any]) -> Said:
    details, metadata = error.get("details"), _object(error.get("metadata"))  # Google's, and OpenRouter's
    rpc = _objects(details)
    codes = (
        _object(details).get("error_code"),
        error.get("code"),
        error.get("type"),
        _object(error.get("innererror")).get("code"),
        metadata.get("error_type"),
        *(each.get("reason") for each in rpc),
    )
    return Said(
        message=_text(error.get("message")) or _text(error.get("detail")) or "",
        codes=tuple(text for code in codes if (text := _text(code))),
        param=_text(error.get("param")),
        statuses=tuple(_statuses(error)),
        hint=_text(metadata.get("raw")) or "",
        proven=_by_metadata(metadata) or _by_quota(rpc),
        retry_after_s=next((wait for each in rpc if (wait := retry_delay_s(each.get("retryDelay"))) is not None), None),
    )


def _by_metadata(metadata: dict[str, Any]) -> Category | None:
    """OpenRouter says which moderation flagged the input, or which limit was met; one of those passes by itself."""
    if "flagged_input" in metadata or metadata.get("reasons"):
        return Category.CONTENT_FILTER
    source = _text(metadata.get("limit_source"))
    if source is None:
        return None
    return Category.RATE_LIMITED if source == "openrouter_in_flight_budget" else Category.QUOTA


def _by_quota(details: list[dict[str, Any]]) -> Category | None:
    """Google names the quotas that were exceeded; those of a day are spent for long, others come back in a minute."""
    violations = [one for each in details for one in _objects(each.get("violations"))]
    ids = [found for one in violations if (found := _text(one.get("quotaId")))]
    if not ids:
        return None
    return Category.QUOTA if any("PerDay" in each for each in ids) else Category.RATE_LIMITED


def _statuses(error: dict[str, Any]) -> Iterator[int]:
    """HTTP statuses that stand in the body, as numbers or in digits."""
    for value in (error.get("code"), error.get("status_code"), error.get("status")):
        digits = value if isinstance(value, str) else str(value) if type(value) is int else ""
        if re.fullmatch(r"[45][0-9]{2}", digits):
            yield int(digits)


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    """The first members of a list of objects."""
    return [_object(each) for each in cast("list[object]", value)[:_LISTED]] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
