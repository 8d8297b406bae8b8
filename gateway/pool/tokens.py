"""What was learnt of models' tokens: finished streams, whose usage the provider told, calibrate the others.

One object an app, in memory, bounded: the models that were learnt of longest ago are forgotten. What is learnt is a
moving average that begins at the documented default and that one odd stream cannot move far. Only answers whose every
token could be seen teach: none with parts that only their dialect understands; none with shown reasoning, which may be
a summary of what is billed, unless its events show that it is whole.
"""

from __future__ import annotations

import msgspec

from gateway.core.tokens import BYTES_PER_TOKEN, CALL_TOKENS, JSON_BYTES_PER_TOKEN, Counted, Ratio

MODELS = 256
FIRST_WEIGHT, WEIGHT = 0.5, 0.3
"""Of the first stream against the default, and of the newest one in the average."""

LEAST_TOKENS = 32
"""Shorter answers say more of their framing than of their words."""

FAMILY_CALL_TOKENS = {"claude": 45.0}
"""What a tool call takes by a word in the model's name, where it is not `CALL_TOKENS`; from recordings: 35 to 62."""

_BYTES = (0.5, 16.0)  # bytes a token that are believed
_CALLS = (0.0, 200.0)  # tokens a call that are believed
_STEP = 1.5  # the factor by which one stream may differ from the average
_ONE_EACH = (0.8, 1.2)  # events a token that count as one token an event
_EVENT_BYTES = Ratio().event_bytes  # only such events may be tokens, so only they teach
_WIDER = (1.5, 9.0)  # ... once it is known that they are


class Kind(msgspec.Struct, frozen=True):
    """Whose tokens: an endpoint's name, the provider's name of the model, and whether the answers are structured."""

    endpoint: str
    model: str
    structured: bool = False


class _Learnt(msgspec.Struct, frozen=True):
    """Averages of one kind; None: nothing seen."""

    bytes_per_token: float | None = None
    events_per_token: float | None = None
    call_tokens: float | None = None


_NOTHING = _Learnt()


class TokenRatios:
    """Ratios by kind."""

    def __init__(self) -> None:
        self._learnt: dict[Kind, _Learnt] = {}

    def of(self, kind: Kind) -> Ratio:
        """What is known; the documented defaults for what is not."""
        learnt, default = self._learnt.get(kind, _NOTHING), _default(kind)
        ratio = msgspec.structs.replace(
            default,
            bytes_per_token=learnt.bytes_per_token or default.bytes_per_token,
            call_tokens=default.call_tokens if learnt.call_tokens is None else learnt.call_tokens,
        )
        events = learnt.events_per_token
        if events is None:
            return ratio
        if not _ONE_EACH[0] <= events <= _ONE_EACH[1]:
            return msgspec.structs.replace(ratio, events_per_token=None)
        return msgspec.structs.replace(ratio, events_per_token=events, event_bytes=_WIDER)

    def learn(self, kind: Kind, counted: Counted, tokens: int) -> None:
        """A finished answer took `tokens` that could be seen, by the provider's word."""
        if tokens < LEAST_TOKENS or not counted.size or counted.opaque:
            return
        before = self._learnt.get(kind, _NOTHING)
        learn = _with_calls if counted.calls else _with_text
        after = learn(before, counted, tokens, self.of(kind).bytes_per_token)
        if after is not before:
            self._learnt.pop(kind, None)
            self._learnt[kind] = after
        while len(self._learnt) > MODELS:
            del self._learnt[next(iter(self._learnt))]


def _default(kind: Kind) -> Ratio:
    name = kind.model.lower()
    return Ratio(
        bytes_per_token=JSON_BYTES_PER_TOKEN if kind.structured else BYTES_PER_TOKEN,
        call_tokens=next((tokens for word, tokens in FAMILY_CALL_TOKENS.items() if word in name), CALL_TOKENS),
    )


def _with_text(before: _Learnt, counted: Counted, tokens: int, bytes_per_token: float) -> _Learnt:
    size, events = counted.size / tokens, counted.events / tokens
    after = before
    if _EVENT_BYTES[0] <= counted.size / counted.events <= _EVENT_BYTES[1] and (
        not counted.reasoning or _ONE_EACH[0] <= events <= _ONE_EACH[1]
    ):
        moved = _moved(before.events_per_token, events, events)
        after = msgspec.structs.replace(after, events_per_token=moved)
    if not counted.reasoning and _BYTES[0] <= size <= _BYTES[1]:
        moved = _moved(before.bytes_per_token, size, bytes_per_token)
        after = msgspec.structs.replace(after, bytes_per_token=moved)
    return after


def _with_calls(before: _Learnt, counted: Counted, tokens: int, bytes_per_token: float) -> _Learnt:
    """Names and arguments count as any text; what is left is the calls' framing."""
    framing = (tokens - counted.size / bytes_per_token) / counted.calls
    if counted.reasoning or not _CALLS[0] <= framing <= _CALLS[1]:
        return before
    return msgspec.structs.replace(before, call_tokens=_moved(before.call_tokens, framing, framing))


def _moved(average: float | None, seen: float, default: float) -> float:
    if average is None:
        return default + FIRST_WEIGHT * (seen - default)
    near = min(max(seen, average / _STEP), average * _STEP)
    return average + WEIGHT * (near - average)
