"""Streams of an OpenAI-compatible vendor as hypothesis makes them up: plausible, odd, and hostile."""

import json
from typing import Any

from hypothesis import strategies as st

SPECIAL = (
    "",
    '"content":',
    '"content":"x"',
    '"},"finish_reason":null}]}',
    '\\"}}]}',
    "\\",
    "\x00sentinel",
    "data: x\n\n",
    "[DONE]",
    "日本語🙂",
    "\u2028\x7f",
)
TEXTS = st.sampled_from(SPECIAL) | st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
INDEXES = st.sampled_from([0, 0, 0, 1, 2])
_UNKNOWN = st.dictionaries(
    st.sampled_from(["system_fingerprint", "service_tier", "obfuscation", "content", "x_vendor", "p"]),
    st.sampled_from([None, "fp_1", "fp_2", '"content":', 0, {"content": "x"}, [{"content": None}]]),
    max_size=2,
)
_USAGE = st.sampled_from(
    [
        None,
        {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        {"prompt_tokens": 3, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1}},
        {},
    ]
)
_ROLE = st.sampled_from([{}, {}, {"role": "assistant"}, {"role": None}])
_CALLS = st.lists(
    st.fixed_dictionaries(
        {"index": INDEXES, "function": st.fixed_dictionaries({"arguments": TEXTS}, optional={"name": st.just("f")})},
        optional={"id": st.sampled_from(["", "call_a", "call_b", None]), "type": st.just("function"), "x": st.just(1)},
    ),
    max_size=2,
)


@st.composite
def _spelling(draw: st.DrawFn) -> Any:
    """How one vendor writes JSON: order of keys, spaces, escapes."""
    backwards, spaced, ascii_only = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())

    def write(value: Any) -> bytes:
        separators = (", ", " : ") if spaced else (",", ":")
        text = json.dumps(_turned(value) if backwards else value, ensure_ascii=ascii_only, separators=separators)
        return text.encode()

    return write


def _turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _turned(value[name]) for name in reversed(value)}
    return [_turned(item) for item in value] if isinstance(value, list) else value


def _chunk(top: dict[str, Any], choices: list[dict[str, Any]], usage: Any) -> dict[str, Any]:
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **top}
    return {**envelope, "choices": choices, **({} if usage is None else {"usage": usage})}


@st.composite
def _shape(draw: st.DrawFn) -> tuple[Any, ...]:
    """What the chunks of one kind have around their text."""
    return draw(_UNKNOWN), draw(_UNKNOWN), draw(_UNKNOWN), draw(_ROLE), draw(INDEXES), draw(_USAGE)


@st.composite
def _said(draw: st.DrawFn, shape: tuple[Any, ...]) -> dict[str, Any]:
    top, at_choice, in_delta, role, index, usage = shape
    kind = draw(st.sampled_from(["content"] * 6 + ["refusal", "reasoning", "reasoning_content", "calls", "finish"]))
    delta: dict[str, Any] = {**role, **{name: value for name, value in in_delta.items() if name != "content"}}
    reason = None
    if kind == "calls":
        delta["tool_calls"] = draw(_CALLS)
    elif kind == "finish":
        reason = draw(st.sampled_from(["stop", "length", "tool_calls", "eos", "odd"]))
    else:
        delta[kind] = draw(TEXTS)
    choice = {**at_choice, "index": index, "delta": delta, "finish_reason": reason}
    return _chunk(top, [choice], usage)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The payloads of one stream: chunks of a few shapes, some with two choices, some spoilt."""
    write = draw(_spelling())
    shapes = draw(st.lists(_shape(), min_size=1, max_size=3))
    payloads: list[bytes] = []
    for _ in range(draw(st.integers(0, 12))):
        chunk = draw(_said(draw(st.sampled_from(shapes))))
        if draw(st.integers(0, 9)) == 0:
            chunk["choices"] += [{**choice, "index": 1} for choice in chunk["choices"]]
        payload: bytes = write(chunk)
        spoilt = [payload, payload, payload, payload, payload[:-3], payload.replace(b'":', b'" :', 1), b"{}"]
        spoilt += [payload.replace(b"x", b"\xff"), payload.replace(b"null", b'"content":"y"', 1)]
        payloads.append(draw(st.sampled_from(spoilt)))
    return payloads


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """A payload that is a chunk but for one member, which is anything."""
    chunk = draw(_said(draw(_shape())))
    places: list[Any] = [chunk, chunk["choices"][0], chunk["choices"][0]["delta"]]
    for fragment in chunk["choices"][0]["delta"].get("tool_calls") or ():
        places += [fragment, fragment["function"]]
    place = draw(st.sampled_from(places))
    names = [*place, "error", "usage", "object", "index", "tool_calls", "function_call", "logprobs"]
    place[draw(st.sampled_from(names))] = draw(JSON | st.just({"prompt_tokens": True, "prompt_tokens_details": []}))
    return json.dumps(chunk).encode()
