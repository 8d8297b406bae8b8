"""Events -> the bytes of OpenAI's chat completions, streamed and whole. Pure: no clock, no randomness.

The same log gives the same bytes, live or replayed, on every replica. State is an immutable value that changes rarely,
so that readers at the same place can share what was rendered.

Oddities, on purpose:
1. Nothing is rendered before the first semantic delta: role chunks and the like are held back, so that everything that
   fails before it stays invisible and can be answered with a plain HTTP error.
2. No `id:`, no `retry:`, no event names: they crash or confuse the stock SDKs.
3. A usage chunk of its own is shown only if the client asked; usage on a provider's other chunks stays there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.core.events import (
    BEGUN_ANEW,
    RESTART,
    End,
    Event,
    Extra,
    Finish,
    Leg,
    Reasoning,
    Refusal,
    Start,
    State,
    Text,
    ToolCall,
    UsageReport,
    is_content,
)
from gateway.dialects.openai_errors import failure_body, stream_cancelled
from gateway.dialects.openai_merge import accumulate, merge
from gateway.dialects.openai_usage import shown_usage

if TYPE_CHECKING:
    from gateway.core.errors import Failure

DIALECT = "openai_chat"
DONE = b"data: [DONE]\n\n"

_REASONS = {"stop_sequence": "stop", "refusal": "content_filter", "pause_turn": "stop"}
_REASONING = {"thinking": "reasoning_content"}
_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Progress(msgspec.Struct, frozen=True):
    """What was rendered so far.

    `held` waits for the first semantic delta; `top` is the JSON object of what belongs to every chunk's envelope.
    `calling` are the choices with tool calls. `usage` is the last report, `said` whether the last composed chunk had
    it. `void`: the answer was begun anew, nothing more comes.
    """

    started: bool = False
    held: tuple[tuple[Event, ...], ...] = ()
    top: bytes = b"{}"
    roles: frozenset[int] = frozenset()
    finished: frozenset[int] = frozenset()
    calling: frozenset[int] = frozenset()
    usage: UsageReport | None = None
    said: bool = True
    void: bool = False


class StreamRenderer:
    """Renders one stream from its entry 0 on; see `streams.reader` for how it is fed."""

    initial = Progress()

    def __init__(self, start: Start) -> None:
        self._asked_usage = bool(start.flags.get("include_usage"))
        self._finish_on_cancel = start.flags.get("on_cancel") == "finish"
        self._envelope: dict[str, Any] = {
            "id": start.wire_id,
            "object": "chat.completion.chunk",
            "created": start.created,
            "model": start.model,
        }
        self._frames: dict[int, tuple[bytes, bytes]] = {}
        self._before = self._after = self._top = b""

    def render(self, progress: Progress, events: list[Event], gen: int, first_seq: int) -> tuple[Progress, bytes]:
        """The bytes of consecutive events that come after `progress`, and the progress after them."""
        del gen, first_seq  # the wire has no ids
        if progress.void:
            return progress, b""
        out: list[bytes] = []
        chunk: list[Event] = []
        for event in events:
            if type(event) is Text and not chunk and not event.more and event.choice in progress.roles:
                # The usual case: a chunk of nothing but text.
                frame = self._frames.get(event.choice) if progress.top is self._top else None
                before, after = frame or self._frame(progress, event.choice)
                out += before, _encode(event.text), after
            elif isinstance(event, End):
                progress, data = self._end(progress, event)
                out.append(data)
            elif isinstance(event, _RENDERED):
                chunk.append(event)
                if not event.more:
                    progress, data = self._one(progress, tuple(chunk))
                    out.append(data)
                    chunk.clear()
            elif type(event) is Leg and event.strategy == RESTART:
                if progress.started:
                    return Progress(void=True), b"".join((*out, self.broken(BEGUN_ANEW)))
                progress = Progress()
        return progress, b"".join(out)

    def broken(self, failure: Failure) -> bytes:
        """The in-band error of one response whose log cannot be read on."""
        return _frame_bytes(failure_body(failure))

    def heartbeat(self, progress: Progress) -> None:
        """Comments only: a chunk without choices, or an event with a name, breaks clients."""

    def _frame(self, progress: Progress, choice: int) -> tuple[bytes, bytes]:
        """What stands around the text of a chunk of this choice; built once for each envelope."""
        marker = "\x00text"
        before, _, after = self._chunk(progress, [_choice(choice, {"content": marker})]).rpartition(_encode(marker))
        self._frames[choice] = frame = (before, after)
        return frame

    def _chunk(self, progress: Progress, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        """The frame of a chunk. What stands around its choices is encoded once for each envelope."""
        if progress.top is not self._top:
            marker = "\x00choices"
            self._before, _, self._after = self._whole(progress, marker, None).rpartition(_encode(marker))
            self._top, self._frames = progress.top, {}
        if usage is None:
            return b"%b%b%b" % (self._before, _encode(choices), self._after)
        return self._whole(progress, choices, usage)

    def _whole(self, progress: Progress, choices: Any, usage: dict[str, Any] | None) -> bytes:
        body = {**self._envelope, **_decode(progress.top), "choices": choices}
        return _frame_bytes(body | {"usage": usage} if usage is not None or self._asked_usage else body)

    def _one(self, progress: Progress, chunk: tuple[Event, ...]) -> tuple[Progress, bytes]:
        """One chunk of 1..k events; before the first semantic delta it is held back."""
        if not progress.started:
            if not any(map(is_content, chunk)):
                return msgspec.structs.replace(progress, held=(*progress.held, chunk)), b""
            return self._release(progress, chunk)
        first = chunk[0]
        if isinstance(first, Extra) and first.choice is None:
            progress = msgspec.structs.replace(progress, top=_encode(first.patch if _ours(first) else {}))
            chunk = chunk[1:]
            if not chunk:
                return progress, self._chunk(progress, [])
        if len(chunk) == 1 and type(chunk[0]) is UsageReport and not self._asked_usage:
            return progress, b""
        return self._compose(progress, chunk)

    def _release(self, progress: Progress, chunk: tuple[Event, ...]) -> tuple[Progress, bytes]:
        held = progress.held
        progress = msgspec.structs.replace(progress, started=True, held=())
        out: list[bytes] = []
        for part in (*held, chunk):
            progress, data = self._one(progress, part)
            out.append(data)
        return progress, b"".join(out)

    def _compose(self, progress: Progress, chunk: tuple[Event, ...]) -> tuple[Progress, bytes]:
        """The bytes of a chunk in its general form, after the role chunks that are due."""
        choices: dict[int, dict[str, Any]] = {}
        usage: UsageReport | None = None
        foreign = _foreign(chunk[0])
        for event in chunk:
            if not isinstance(event, UsageReport):
                _add(choices, event, foreign=foreign)
            elif event.dialect == DIALECT:
                usage = event
            else:  # where it stands is another dialect's manner: here it comes last, if the client asked
                progress = msgspec.structs.replace(progress, usage=event, said=False)
        if not choices and usage is None:
            return progress, b""  # another dialect's extras and usage
        progress, roles = self._roles(progress, choices)
        data = self._chunk(progress, list(choices.values()), None if usage is None else shown_usage(usage))
        if usage is not None:
            progress = msgspec.structs.replace(progress, usage=usage, said=True)
        elif progress.usage is not None and progress.said:
            progress = msgspec.structs.replace(progress, said=False)
        calling = [index for index, choice in choices.items() if "tool_calls" in choice["delta"]]
        if not progress.calling.issuperset(calling):
            progress = msgspec.structs.replace(progress, calling=progress.calling.union(calling))
        finished = [index for index, choice in choices.items() if choice["finish_reason"] is not None]
        if finished:
            progress = msgspec.structs.replace(progress, finished=progress.finished.union(finished))
        return progress, roles + data

    def _roles(self, progress: Progress, choices: dict[int, dict[str, Any]]) -> tuple[Progress, bytes]:
        """A role chunk for each choice that begins without the provider's own."""
        new = [index for index in choices if index not in progress.roles]
        if not new:
            return progress, b""
        due = [index for index in new if "role" not in choices[index]["delta"]]
        progress = msgspec.structs.replace(progress, roles=progress.roles.union(new))
        frames = [self._chunk(progress, [_choice(index, _opening(choices[index]["delta"]))]) for index in due]
        return progress, b"".join(frames)

    def _end(self, progress: Progress, end: End) -> tuple[Progress, bytes]:
        """The terminal of every kind of end; an error frame is never followed by `[DONE]`."""
        match end.state:
            case State.COMPLETED:
                return self._success(progress, end, "stop")
            case State.INCOMPLETE:
                return self._success(progress, end, "length")
            case State.CANCELLED if self._finish_on_cancel:
                return self._success(progress, end, "stop")
            case State.CANCELLED:
                return progress, _frame_bytes(stream_cancelled(end.reason))
            case _:
                return progress, _frame_bytes(failure_body(end.failure))

    def _success(self, progress: Progress, end: End, reason: str) -> tuple[Progress, bytes]:
        """What is still due before `[DONE]`: finishes, and usage, which the SDKs take from the last chunk they see."""
        progress, data = self._flush(progress)
        closing = self._close(progress, reason)
        report = progress.usage or (UsageReport(end.usage) if end.usage else None)
        if self._asked_usage and report is not None and (closing or not progress.said or progress.usage is None):
            closing += self._chunk(progress, [], shown_usage(report))
        return progress, data + closing + DONE

    def _flush(self, progress: Progress) -> tuple[Progress, bytes]:
        """What was held back by an answer that had no content at all."""
        if progress.started:
            return progress, b""
        held = progress.held
        progress = msgspec.structs.replace(progress, started=True, held=())
        out: list[bytes] = []
        for part in held:
            progress, data = self._one(progress, part)
            out.append(data)
        return progress, b"".join(out)

    def _close(self, progress: Progress, reason: str) -> bytes:
        """Finish chunks for the choices that have none."""
        open_choices = sorted((progress.roles or {0}) - progress.finished)
        choices = [_choice(index, {}, _closing(reason, calls=index in progress.calling)) for index in open_choices]
        return b"".join(self._chunk(progress, [choice]) for choice in choices)


class Collector:
    """The same events as one `chat.completion` object, for `stream: false`."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._choices: dict[int, dict[str, Any]] = {}
        self._top: dict[str, Any] = {}
        self._usage: UsageReport | None = None
        self._foreign = False

    def add(self, events: list[Event]) -> None:
        """Take further events in."""
        for event in events:
            match event:
                case Leg(strategy=strategy) if strategy == RESTART:
                    self._choices, self._top, self._usage = {}, {}, None
                case Extra(choice=None):
                    self._top.update(event.patch if _ours(event) else {})
                case UsageReport():
                    self._usage = event
                case Text() | Reasoning() | Refusal() | ToolCall() | Finish() | Extra():
                    self._foreign = self._foreign or _foreign(event)
                    self._fold(event)
                case _:
                    continue
            self._foreign = self._foreign and event.more

    def body(self, end: End) -> bytes:
        """The answer, for an end that is a success."""
        reason = "length" if end.state is State.INCOMPLETE else "stop"
        if not self._choices:
            self._fold(Finish(0, "length" if reason == "length" else "stop"))
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            closing = _closing(reason, calls="tool_calls" in choice["message"])
            choice["finish_reason"] = choice["finish_reason"] or closing
            for call in choice["message"].get("tool_calls") or ():
                del call["index"]  # streaming's own member
        body = {
            "id": self._start.wire_id,
            "object": "chat.completion",
            "created": self._start.created,
            "model": self._start.model,
            **self._top,
            "choices": choices,
        }
        report = self._usage or (UsageReport(end.usage) if end.usage else None)
        if report is not None:
            body["usage"] = shown_usage(report)
        return _encode(body)

    def _fold(self, event: Event) -> None:
        delta: dict[int, dict[str, Any]] = {}
        _add(delta, event, foreign=self._foreign)
        for index, part in delta.items():
            choice = self._choices.setdefault(
                index,
                {
                    "index": index,
                    "message": {"role": "assistant", "content": None},
                    "finish_reason": None,
                    "logprobs": None,
                },
            )
            said = part.pop("delta")
            if isinstance(event, Extra) and event.more and isinstance(said.get("content"), list):
                del said["content"]  # as text, it comes behind
            accumulate(choice["message"], said)
            choice["finish_reason"] = part.pop("finish_reason") or choice["finish_reason"]
            del part["index"]
            accumulate(choice, part)


_RENDERED = (Text, Reasoning, Refusal, ToolCall, Finish, Extra, UsageReport)


def _ours(extra: Extra) -> bool:
    return extra.dialect == DIALECT


def _foreign(first: Event) -> bool:
    """Whether a chunk that begins with this event is one of another dialect, kept beside what it says to this one."""
    return isinstance(first, Extra) and first.dialect != DIALECT


def _choice(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": reason}


def _closing(reason: str, *, calls: bool) -> str:
    """The finish of a choice whose provider forgot it: what agents look at to run the tools."""
    return "tool_calls" if calls and reason == "stop" else reason


def _opening(delta: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None if "tool_calls" in delta else ""}


def _add(choices: dict[int, dict[str, Any]], event: Event, *, foreign: bool) -> None:
    """Put one event into the choices of a chunk, which may be a `foreign` one: then no word of the source is shown."""
    match event:
        case Text(choice=index, text=text) if not _has_parts(choices, index):
            _delta(choices, index)["content"] = text
        case Reasoning(choice=index, text=text, key=key) if not _has_parts(choices, index):
            _delta(choices, index)[_REASONING.get(key, key)] = text
        case Refusal(choice=index, text=text):
            _delta(choices, index)["refusal"] = text
        case ToolCall(choice=index):
            calls = cast("list[Any]", _delta(choices, index).setdefault("tool_calls", []))
            merge({"tool_calls": calls}, {"tool_calls": [_call(event)]})
        case Finish(choice=index, reason=reason, source=source):
            _delta(choices, index)
            known = _REASONS.get(reason, reason)
            choices[index]["finish_reason"] = known if foreign else source or known
        case Extra(choice=int(index), patch=patch) if _ours(event):
            _delta(choices, index)
            merge(choices[index], patch)
        case _:
            pass


def _has_parts(choices: dict[int, dict[str, Any]], index: int) -> bool:
    """Whether the source's own list of parts stands in the chunk, which says all that is behind it."""
    return index in choices and isinstance(choices[index]["delta"].get("content"), list)


def _delta(choices: dict[int, dict[str, Any]], index: int) -> dict[str, Any]:
    return cast("dict[str, Any]", choices.setdefault(index, _choice(index, {}))["delta"])


def _call(event: ToolCall) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": event.arguments}
    if event.name is not None:
        function = {"name": event.name, **function}
    call: dict[str, Any] = {"index": event.index}
    if event.id is not None or event.name is not None:
        call.update(id=event.id, type="function")
    return {**call, "function": function}


def _frame_bytes(body: dict[str, Any]) -> bytes:
    return b"data: " + _encode(body) + b"\n\n"
