"""The provider that needs no account: it answers at once, at any pace, and fails on request.

The model's name says what happens; `GRAMMAR` lists the grammar. Everything is a function of the request alone: the text
of model and last user message, the arguments of a tool's schema, the usage of the words on both sides. There is no
socket: the sleep before each batch, the first one on entering, stands for the network.

Deliberate oddities:
1. `mock-429` is a status, `mock-fast-429` is 429 tokens: a number is a status unless a pace stands before it.
2. A fault after n tokens needs n tokens: an answer that is complete before (a limit, a stop string) ends well.
3. Tools are called by `mock-tools`, and by every other model if the request forces a call; after a tool's result the
   answer is text, or agents would never end.
4. Tokens of all choices share one pace and one count.
"""

import asyncio
import hashlib
import json
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, NoReturn, TypeAlias

from gateway.core.chat import ChatRequest, OpaquePart, Tool, ToolResultPart
from gateway.core.errors import Category, ProviderError
from gateway.core.events import SEMANTIC, Finish, Reasoning, Refusal, SourceEvent, Text, ToolCall, UsageReport
from gateway.core.usage import Usage
from gateway.providers._mock_schema import smallest
from gateway.providers._mock_text import Spoken, prose, tokens
from gateway.providers._mock_values import SchemaError
from gateway.providers._translate import refuse_absent_tools
from gateway.upstream.classify import by_status
from gateway.upstream.contract import Batch

MODELS = (
    "mock",
    "mock-fast",
    "mock-slow",
    "mock-tools",
    "mock-thinks",
    "mock-refuses",
    "mock-cut-40",
    "mock-stall-20",
    "mock-error-20",
    "mock-empty",
    "mock-no-end",
    "mock-garbage",
    "mock-429",
    "mock-503",
)
"""What `GET /v1/models` lists."""

GRAMMAR = (
    "mock, mock-fast, mock-slow, each also with -tools, -thinks, -refuses, -cut-<n>, -stall-<n>, -error-<n>, -empty, "
    "-no-end or -garbage; "
    "mock-fast-<n> and mock-slow-<n> (n tokens); mock-<status> from 400 to 599"
)

_NAME = re.compile(
    r"mock(?:-(?P<pace>fast|slow))?"
    r"(?:-(?:(?P<number>\d{1,6})|(?P<fault>cut|stall|error)-(?P<after>\d{1,6})"
    r"|(?P<other>tools|thinks|refuses|empty|no-end|garbage)))?"
)
_RATES = {None: 50.0, "slow": 5.0, "fast": None}
_TOKENS = 200
_BATCH = 32
_THOUGHTS = 20
_REFUSAL = ("I", " am", " sorry,", " but", " I", " cannot", " help", " with", " that.")
_STALL_S = 86_400.0
_PARIS = Tool(
    name="get_weather",
    parameters={"type": "object", "properties": {"city": {"const": "Paris"}}, "required": ["city"]},
)

Fault: TypeAlias = Literal["cut", "stall", "error", "no-end", "garbage"]
Manner: TypeAlias = Literal["tools", "thinks", "refuses", "empty"]
Events: TypeAlias = Iterator[SourceEvent]


def serves(model: str) -> bool:
    """Whether `model` is a name that the mock understands."""
    return _parsed(model) is not None


class MockProvider:
    """Implements `Provider` without an upstream; `sleep` takes the seconds between two batches."""

    kind: str = "mock"

    def __init__(self, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep

    @asynccontextmanager
    async def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[AsyncIterator[Batch]]:
        """Ask for one answer of `model`, one of `GRAMMAR`."""
        plan = _plan(model)
        _check(request)
        events = _answer(request, model, plan)
        await self._sleep(0)
        if plan.status:
            raise _refusal(plan.status)
        async with aclosing(self._batches(events, plan)) as batches:
            yield batches

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _batches(self, events: Events, plan: "_Plan") -> AsyncGenerator[Batch]:
        complete = False
        for batch in _grouped(events, 1 if plan.pause_s else _BATCH):
            await self._sleep(plan.pause_s if isinstance(batch[0], SEMANTIC) else 0)
            yield batch
            # A whole answer's last event is its usage; what lacks it was broken off.
            complete = isinstance(batch[-1], UsageReport)
        if not complete:
            await self._break_off(plan)

    async def _break_off(self, plan: "_Plan") -> NoReturn:
        if plan.fault == "stall":
            await self._sleep(_STALL_S)
        if plan.fault == "error":
            raise ProviderError(Category.OVERLOADED, "overloaded in the middle of the answer, as the model's name asks")
        if plan.fault == "garbage":
            raise ProviderError(Category.PROTOCOL, "three malformed events in a row, as the model's name asks")
        raise ProviderError(
            Category.STREAM_BROKEN, "the stream ended before its terminal marker, as the model's name asks"
        )


# What a name asks for.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A model's name, read: `status` 0 means an answer; `after` counts the tokens before a fault."""

    pause_s: float
    total: int = _TOKENS
    fault: Fault | None = None
    after: int = 0
    status: int = 0
    manner: Manner | None = None


def _plan(model: str) -> _Plan:
    plan = _parsed(model)
    if plan is None:
        raise ProviderError(Category.MODEL_NOT_FOUND, f"no model {model[:64]!r}; there are: {GRAMMAR}", param="model")
    return plan


def _parsed(model: str) -> _Plan | None:
    match = _NAME.fullmatch(model)
    if not match:
        return None
    rate = _RATES[match["pace"]]
    pause_s = 1 / rate if rate else 0.0
    if match["number"] and not match["pace"]:
        status = int(match["number"])
        return _Plan(pause_s=pause_s, status=status) if 400 <= status <= 599 else None
    after = int(match["after"] or 0)
    total = int(match["number"]) if match["number"] else max(_TOKENS, after)
    return _Plan(pause_s=pause_s, total=total, fault=_fault(match), after=after, manner=_manner(match))


def _fault(match: re.Match[str]) -> Fault | None:
    match match["fault"] or match["other"]:
        case "cut" | "stall" | "error" | "no-end" | "garbage" as fault:
            return fault
        case _:
            return None


def _manner(match: re.Match[str]) -> Manner | None:
    match match["other"]:
        case "tools" | "thinks" | "refuses" | "empty" as manner:
            return manner
        case _:
            return None


def _refusal(status: int) -> ProviderError:
    category = Category.TIMEOUT_FIRST_TOKEN if status == 504 else by_status(status)
    return ProviderError(
        category,
        f"the mock answers {status}, as the model's name asks",
        retry_after_s=1 if status == 429 else None,
        provider_code=str(status),
    )


# The events of an answer.


def _answer(request: ChatRequest, model: str, plan: _Plan) -> Events:
    """All events that reach the reader, as far as the plan lets them."""
    choices = [_choice(request, model, plan, number) for number in range(request.n)]
    words_in = sum(len(message.text.split()) for message in request.messages)
    whole = _with_usage(_interleaved(choices), words_in)
    match plan.fault:
        case "cut" | "stall" | "error":
            return _first(whole, plan.after)
        case "no-end":
            return (event for event in whole if isinstance(event, SEMANTIC))
        case "garbage":
            return iter(())
        case None:
            return whole


def _choice(request: ChatRequest, model: str, plan: _Plan, choice: int) -> Events:
    tool = _tool(request, plan)
    if tool:
        return _calling(choice, tool, _call_id(model, request, choice), request.max_output_tokens)
    if plan.manner == "empty":
        return iter((Finish(choice, "stop"),))
    if plan.manner == "refuses":
        return chain((Refusal(choice, word) for word in _REFUSAL), (Finish(choice, "refusal"),))
    if request.schema is not None:
        words = tokens(_instance(request.schema, "the answer's schema"))
    else:
        words = prose(model, _question(request), choice, plan.total)
    limit = request.max_output_tokens
    if plan.manner != "thinks":
        return _saying(choice, Spoken(words, limit, request.stop))
    count = _THOUGHTS if limit is None else min(_THOUGHTS, limit // 2)
    thoughts = islice(prose(f"{model} thinks", _question(request), choice, _THOUGHTS), count)
    said = _saying(choice, Spoken(words, None if limit is None else limit - count, request.stop))
    return chain((Reasoning(choice, thought) for thought in thoughts), said)


def _saying(choice: int, spoken: Spoken) -> Events:
    for token in spoken:
        yield Text(choice, token)
    yield Finish(choice, spoken.ending)


def _calling(choice: int, tool: Tool, call_id: str, limit: int | None) -> Events:
    """One call: first its name, then its arguments in fragments; each of them counts as a token."""
    arguments = _instance(tool.parameters or {}, f"the parameters of tool {tool.name!r}")
    return _fragments(choice, tool.name, call_id, Spoken(chain([""], tokens(arguments)), limit))


def _fragments(choice: int, name: str, call_id: str, spoken: Spoken) -> Events:
    for number, fragment in enumerate(spoken):
        yield ToolCall(choice, 0, fragment) if number else ToolCall(choice, 0, fragment, call_id, name)
    yield Finish(choice, "length" if spoken.ending == "length" else "tool_calls")


def _interleaved(choices: list[Events]) -> Events:
    """One event of each choice in turn, until all are done."""
    waiting = deque(choices)
    while waiting:
        choice = waiting.popleft()
        for event in choice:
            yield event
            waiting.append(choice)
            break


def _with_usage(events: Events, input_tokens: int) -> Events:
    output_tokens = thoughts = 0
    for event in events:
        output_tokens += isinstance(event, SEMANTIC)
        thoughts += isinstance(event, Reasoning)
        yield event
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, reasoning_tokens=thoughts or None)
    yield UsageReport(usage)


def _first(events: Events, content: int) -> Events:
    """Events up to and with the given number of content events."""
    left = content
    while left > 0:
        for event in events:
            left -= isinstance(event, SEMANTIC)
            yield event
            break
        else:
            return


def _grouped(events: Events, size: int) -> Iterator[Batch]:
    batch: Batch = []
    for event in events:
        batch.append(event)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


# What the request asks for.


def _check(request: ChatRequest) -> None:
    for number, message in enumerate(request.messages):
        for part in message.parts:
            if isinstance(part, OpaquePart):
                raise ProviderError(
                    Category.UNTRANSLATABLE,
                    f"the mock reads text, images and tools, not {part.kind[:64]!r}",
                    param=f"messages[{number}].content",
                )


def _question(request: ChatRequest) -> str:
    """The last user message; without one the last message."""
    asked = [message for message in request.messages if message.role == "user"] or request.messages
    return asked[-1].text if asked else ""


def _tool(request: ChatRequest, plan: _Plan) -> Tool | None:
    """The tool that the answer calls, if it calls one."""
    wanted = request.tool_choice
    if wanted == "none" or _has_result(request) or not (plan.manner == "tools" or wanted != "auto"):
        return None
    refuse_absent_tools(request)
    if wanted in ("auto", "required"):
        return request.tools[0] if request.tools else _PARIS
    for tool in request.tools:
        if tool.name == wanted:
            return tool
    raise ProviderError(
        Category.BAD_REQUEST, f"tool_choice names {wanted[:64]!r}, which is not in tools", param="tool_choice"
    )


def _has_result(request: ChatRequest) -> bool:
    """Whether the last message is what a tool answered."""
    last = request.messages[-1] if request.messages else None
    return last is not None and (last.role == "tool" or any(isinstance(part, ToolResultPart) for part in last.parts))


def _call_id(model: str, request: ChatRequest, choice: int) -> str:
    seed = f"{model}\0{choice}\0{_question(request)}".encode("utf-8", "replace")
    return "call_" + hashlib.sha256(seed).hexdigest()[:24]


def _instance(schema: dict[str, Any], what: str) -> str:
    try:
        return json.dumps(smallest(schema), ensure_ascii=False)
    except SchemaError as error:
        raise ProviderError(Category.BAD_REQUEST, f"the mock finds no instance of {what}: {error}") from error
