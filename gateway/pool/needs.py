"""What a request needs of a model: stated by its header `x-atlas-needs`, inferred from the request for the rest.

    x-atlas-needs: strengths=coding+math,context=128000,output=8000,tools,images

Items stand between commas, blanks around them are free, each item once:
- a feature that must be there: `tools`, `images`, `schema`, `audio`, `files`, `reasoning`;
- `strengths=<word>[+<word>...]`: each must be declared in the endpoint's profile; words are letters, digits, `_`, `-`;
- `context=<tokens>`, the window, prompt and answer together; `output=<tokens>`, the longest answer.

Inferred are tools, images and a schema from the request's members, output from its limit, context from an estimate of
its prompt. An estimate may be a third too high, so that much less of it is asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.core.chat import ImagePart, ToolResultPart
from gateway.core.errors import RequestError
from gateway.core.tokens import estimate_input_tokens
from gateway.pool.capability import FEATURES, IMAGES, NOTHING, SCHEMA, TOOLS, Capability, Needs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.chat import ChatRequest, Part

HEADER = "x-atlas-needs"
MAX_HEADER = 1024
SURE_SHARE = 0.7
"""Of an estimated prompt that counts against a window."""

LONG_CONTEXT_TOKENS = 32_000
_ITEM = re.compile(r"([a-z]+)(?:=([A-Za-z0-9_+-]{1,256}))?")
_TOKENS = re.compile(r"[0-9]{1,9}")
_EXPECTED = "items like tools, strengths=coding+math, context=128000 between commas"


def parse_needs(text: str) -> Needs:
    """The needs that a header states.

    Raises:
        RequestError: 400, naming the item that cannot be read.
    """
    if len(text) > MAX_HEADER:
        raise _refused(f"at most {MAX_HEADER} characters", text)
    given: dict[str, str | None] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        found = _ITEM.fullmatch(item)
        if found is None or found[1] in given:
            raise _refused(_EXPECTED, item)
        given[found[1]] = found[2]
    return Needs(
        context_tokens=_tokens(given.pop("context", "0"), "context"),
        output_tokens=_tokens(given.pop("output", "0"), "output"),
        strengths=_words(given.pop("strengths", "")),
        features=_features(given),
    )


def needs_of(request: ChatRequest, stated: Needs = NOTHING, *, sized: bool = True) -> Needs:
    """What `request` needs, with what was stated for it. Without `sized` its prompt is not measured: 0 tokens."""
    features = stated.features
    if request.tools and request.tool_choice != "none":
        features |= TOOLS
    if request.schema is not None:
        features |= SCHEMA
    if any(_is_image(part) for message in request.messages for part in message.parts):
        features |= IMAGES
    measured = estimate_input_tokens(request) if sized else 0
    output = max(stated.output_tokens, request.max_output_tokens or 0)
    return Needs(
        features=features,
        strengths=stated.strengths,
        leanings=_leanings(request, features, measured) | stated.leanings,
        context_tokens=max(stated.context_tokens, int(measured * SURE_SHARE)),
        input_tokens=measured,
        output_tokens=output,
    )


def refuse_unmet(needs: Needs, profiles: Iterable[Capability], route: str) -> RequestError:
    """The refusal of needs that no endpoint of `route` meets: 400, naming what is missing, by the nearest endpoint."""
    lists = [needs.unmet_by(has) for has in profiles]
    missing = min(lists, key=len) if lists else []
    shown = ", ".join(missing) or "any endpoint"
    msg = f"no endpoint of {route!r} meets what the request needs; missing: {shown}"
    return RequestError(msg, code="unmet_needs", param=HEADER)


def _leanings(request: ChatRequest, features: int, measured: int) -> frozenset[str]:
    """Strengths that would help, by the words that profiles are likely to use."""
    found = {word for feature, word in _HELPS.items() if feature & features}
    if request.effort in {"high", "xhigh", "max"} or request.thinking_tokens:
        found.add("reasoning")
    if measured >= LONG_CONTEXT_TOKENS:
        found.add("long_context")
    return frozenset(found)


_HELPS = {TOOLS: "tools", IMAGES: "vision", SCHEMA: "structured"}


def _is_image(part: Part) -> bool:
    return isinstance(part, ImagePart) or (isinstance(part, ToolResultPart) and bool(part.images))


def _features(given: dict[str, str | None]) -> int:
    features = 0
    for name, value in given.items():
        if name not in FEATURES or value is not None:
            raise _refused(_EXPECTED, name if value is None else f"{name}={value}")
        features |= FEATURES[name]
    return features


def _tokens(text: str | None, name: str) -> int:
    if text is None or not _TOKENS.fullmatch(text):
        raise _refused(f"{name}=<tokens>", f"{name}={text or ''}")
    return int(text)


def _words(text: str | None) -> frozenset[str]:
    if text is None or (text and not all(text.split("+"))):
        raise _refused("strengths=<word>+<word>", f"strengths={text or ''}")
    return frozenset(text.lower().split("+")) if text else frozenset()


def _refused(expected: str, got: str) -> RequestError:
    return RequestError(f"{HEADER} must be {expected}, got {got!r:.64}", param=HEADER, code="invalid_header")
