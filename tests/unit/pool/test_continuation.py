"""What an endpoint is asked that shall go on with a partial answer, and what is not gone on with."""

from typing import Any

import pytest

from gateway.core.chat import ChatRequest, Message, TextPart, Tool, decode_request, encode_request
from gateway.core.errors import Category, ProviderError
from gateway.core.events import (
    RESTART,
    Event,
    Extra,
    Finish,
    Leg,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    UsageReport,
)
from gateway.core.usage import Usage
from gateway.dialects import anthropic_messages, openai_chat
from gateway.pool.attempts import Attempts
from gateway.pool.continuation import Fallback, Level, plan
from gateway.pool.delivered import MAX_KEPT, Delivered
from gateway.pool.endpoint import Continuation, Endpoint
from gateway.pool.splice import Replayed
from gateway.pool.whole import Whole
from gateway.providers import _anthropic_request as anthropic
from gateway.providers import _openai_request as openai
from gateway.providers import ollama
from tests.support.run import run
from tests.unit.pool.test_group import C, House, Scripted

ASKED = ChatRequest(
    dialect="none", model="route", messages=(Message(role="user", parts=(TextPart(text="Say it."),)),), stream=True
)
LEG = Leg(1, "e1", "scripted", "priority", "first in order")
SAID: list[Event] = [LEG, Text(0, "one two "), Text(0, "three")]


def delivered(*events: Event) -> Delivered:
    """A log's answer so far."""
    found = Delivered()
    found.add(events)
    return found


def planned(strategy: str, *events: Event, level: Level = Level.CONTINUE, **changes: Any) -> Any:
    """What an endpoint with this strategy would be asked."""
    endpoint = Endpoint(name="x", provider=Scripted([]), model="m", continuation=Continuation(strategy))
    request = ChatRequest(**{**{name: getattr(ASKED, name) for name in ASKED.__struct_fields__}, **changes})
    return plan(request, delivered(*events), endpoint, level=level, replay_max_chars=100)


def test_prefill_leaves_the_turn_open() -> None:
    """The partial answer goes out as the last turn, without white space at its end, and less room is left."""
    found = planned("prefill", LEG, Text(0, "one two three "), max_output_tokens=50)
    assert [(turn.role, turn.text) for turn in found.request.tail] == [("assistant", "one two three")]
    assert 40 < found.request.max_output_tokens < 50
    assert planned("prefill", *SAID, max_output_tokens=1).request.max_output_tokens == 1


def test_instruct_quotes_the_end() -> None:
    """The model is told where its answer ended."""
    (partial, asking) = planned("instruct", *SAID).request.tail
    assert (partial.role, partial.text, asking.role) == ("assistant", "one two three", "user")
    assert "one two three" in asking.text


def test_replay_sends_the_request_as_it_was() -> None:
    """A replay is the same request, as long as the answer so far is not too long."""
    assert planned("replay", *SAID).request == ASKED
    assert planned("replay", LEG, Text(0, "x" * 101)) is None


TOOLS = (Tool(name="look"),)
DISQUALIFIED: dict[str, tuple[list[Event], dict[str, Any]]] = {
    "several choices": (SAID, {"n": 2}),
    "structured": (SAID, {"schema": {}}),
    "a forced tool": (SAID, {"tools": TOOLS, "tool_choice": "look"}),
    "log-probabilities": (SAID, {"own": ("logprobs",)}),
    "audio": (SAID, {"own": ("modalities", "audio")}),
    "a tool call": ([*SAID, ToolCall(0, 0, "{", "id", "look")], {}),
    "a refusal": ([*SAID, Refusal(0, "no")], {}),
    "an end": ([*SAID, Finish(0, "content_filter")], {}),
    "another choice": ([*SAID, Text(1, "x")], {}),
    "what only its dialect can say": ([*SAID, Extra("d", {"audio": 1}, 0, content=True)], {}),
    "too much": ([LEG, Text(0, "x" * (MAX_KEPT + 1))], {}),
}


@pytest.mark.parametrize("strategy", ["prefill", "replay", "instruct"])
@pytest.mark.parametrize("name", DISQUALIFIED)
def test_disqualified(name: str, strategy: str) -> None:
    """What cannot be taken up again is not gone on with, by no strategy."""
    events, changes = DISQUALIFIED[name]
    assert planned(strategy, *events, **changes) is None


def test_only_a_replay_thinks_again() -> None:
    """Thoughts that nobody signed, and a caller's own open turn, disqualify what adds a turn, not a replay."""
    thought = [LEG, Reasoning(0, "hm"), Text(0, "one")]
    own_turn = {"messages": (*ASKED.messages, Message(role="assistant", parts=(TextPart(text="So"),)))}
    for strategy, may in (("prefill", False), ("instruct", False), ("replay", True)):
        assert (planned(strategy, *thought) is not None) == may
        assert (planned(strategy, *SAID, **own_turn) is not None) == may


@pytest.mark.parametrize(
    ("level", "strategy", "allowed"),
    [("off", "prefill", False), ("safe", "prefill", True), ("safe", "instruct", False), ("continue", "instruct", True),
     ("continue", "none", False)],
)  # fmt: skip
def test_levels(level: str, strategy: str, allowed: bool) -> None:
    """`safe` allows what is exact, `continue` also what is told in words."""
    assert (planned(strategy, *SAID, level=Level(level)) is not None) == allowed


def test_a_caller_lowers_and_never_raises() -> None:
    """The lower of both levels holds."""
    assert Level.SAFE.at_most(Level.CONTINUE) is Level.SAFE
    assert Level.SAFE.at_most(Level.OFF) is Level.OFF
    assert Level.OFF.at_most(Level.CONTINUE) is Level.OFF


def test_an_answer_begun_anew_forgets_the_old_one() -> None:
    """Only what came since the last beginning is the answer; the legs are all there."""
    again = Leg(2, "e2", "scripted", RESTART, "e2 after e1")
    found = delivered(*SAID, ToolCall(0, 0, "{"), UsageReport(Usage(output_tokens=9)), again, Text(0, "new"))
    assert (found.text, found.calls, found.usage, len(found.legs)) == ("new", 0, None, 2)


# --- what vendors are sent

PARTIAL = (Message(role="assistant", parts=(TextPart(text="one two"),)),)
BODY = b'{"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Say it."}]}'


def going_on(request: ChatRequest) -> ChatRequest:
    """The request with an open turn and less room."""
    return decode_request(encode_request(request)).__class__(
        **{
            **{name: getattr(request, name) for name in request.__struct_fields__},
            "tail": PARTIAL,
            "max_output_tokens": 40,
        }
    )


def test_openai_compatible_hosts_have_their_own_ways() -> None:
    """Members of the open turn and of the body are the host's; the caller's body and its limit stay one request."""
    request = going_on(openai_chat.parse(BODY))
    quirks = openai.Quirks(open_turn={"prefix": True}, open_body={"continue_final_message": True})
    body = openai.request_body(request, "m", quirks)
    assert body["messages"][-1] == {"role": "assistant", "content": "one two", "prefix": True}
    assert (len(body["messages"]), body["max_tokens"], body["continue_final_message"]) == (2, 40, True)
    assert openai.request_body(openai_chat.parse(BODY), "m", quirks)["max_tokens"] == 50
    translated = openai.request_body(going_on(anthropic_messages.parse(BODY)), "m", quirks)
    assert translated["messages"][-1]["prefix"] is True


@pytest.mark.parametrize(
    ("model", "takes"),
    [("claude-sonnet-4-5", True), ("claude-3-5-haiku-latest", True), ("claude-sonnet-4-6", False),
     ("claude-opus-4-7", False), ("claude-new-9", False)],
)  # fmt: skip
@pytest.mark.parametrize("parse", [openai_chat.parse, anthropic_messages.parse])
def test_claude_takes_open_turns_up_to_4_5(parse: Any, model: str, takes: bool) -> None:
    """Models that answer an open turn with a 400 are not asked."""
    request = going_on(parse(BODY))
    if takes:
        body = anthropic.request_body(request, model)
        assert body["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "one two"}]}
        assert body["max_tokens"] == 40
    else:
        with pytest.raises(ProviderError) as caught:
            anthropic.request_body(request, model)
        assert caught.value.category is Category.UNTRANSLATABLE


def test_ollama_goes_on_with_a_last_turn() -> None:
    """Ollama needs no more than the turn."""
    body = ollama.request_body(going_on(openai_chat.parse(BODY)), "m")
    assert body["messages"][-1] == {"role": "assistant", "content": "one two"}
    assert body["options"]["num_predict"] == 40


@pytest.mark.parametrize("parse", [openai_chat.parse, anthropic_messages.parse])
def test_a_request_is_stored_and_read_back(parse: Any) -> None:
    """The request that is kept beside a log is the same when another replica reads it."""
    request = parse(BODY)
    assert decode_request(encode_request(request)) == request


# --- legs

WAYS = {"continuation": Continuation.PREFILL}


def test_one_text_of_two_legs() -> None:
    """The log of an answer that went on elsewhere: what was said, the leg, the rest, one finish."""
    house = House(
        Scripted([[Text(0, "one ")], C.STREAM_BROKEN]), Scripted([[Text(0, "two")], [Finish(0, "stop")]]), **WAYS
    )
    events, attempts = house.ask()
    assert [event.text for event in events if isinstance(event, Text)] == ["one ", "two"]
    assert [event.strategy for event in events if isinstance(event, Leg)] == ["priority", "prefill"]
    assert events[-1] == Finish(0, "stop")
    assert attempts.attempts == ["e1: ok, then stream_broken", "e2: ok"]


def test_what_only_its_dialect_can_say_is_not_joined() -> None:
    """A second beginning is left out; a part of the answer that cannot be joined ends it with the original error."""
    role = Extra("d", {"delta": {"role": "assistant"}}, 0, more=True)
    second = Scripted([[role, Text(0, "two")], [Extra("d", {"audio": 1}, 0, content=True)], [Finish(0, "stop")]])
    house = House(Scripted([[Text(0, "one ")], C.STREAM_BROKEN]), second, **WAYS)
    assert house.fail().category is C.STREAM_BROKEN


def test_a_filter_is_not_gone_around() -> None:
    """An answer that was filtered is not continued by somebody who would not have."""
    house = House(Scripted([[Text(0, "one ")], C.CONTENT_FILTER]), Scripted([[Text(0, "two")]]), **WAYS)
    assert house.fail().category is C.CONTENT_FILTER
    assert not house.providers[1].models


def test_a_continuation_may_find_that_all_was_said() -> None:
    """An answer cut before its finish only is finished by an endpoint that has nothing to add."""
    house = House(Scripted([[Text(0, "one. ")], C.STREAM_BROKEN]), Scripted([[Finish(0, "stop")]]), **WAYS)
    assert house.ask()[0][-1] == Finish(0, "stop")


def test_an_answer_with_its_finish_is_whole() -> None:
    """What breaks behind the finish takes nothing from the answer: nobody is asked for more, and it ends well."""
    house = House(Scripted([[Text(0, "one. ")], [Finish(0, "stop")], C.STREAM_BROKEN]), Scripted([]), **WAYS)
    events, attempts = house.ask()
    assert (events[-1], attempts.attempts) == (Finish(0, "stop"), ["e1: ok"])


def test_the_same_endpoint_is_asked_last() -> None:
    """An endpoint alone goes on with its own answer."""
    house = House(Scripted([[Text(0, "one ")], C.STREAM_BROKEN], [[Text(0, "two")], [Finish(0, "stop")]]), **WAYS)
    assert house.ask()[1].attempts == ["e1: ok, then stream_broken", "e1: ok"]


def test_usage_of_the_whole_and_of_the_leg() -> None:
    """What clients are told is the first prompt and all that was said; the leg's own usage stands beside it."""
    first = [[UsageReport(Usage(input_tokens=10, output_tokens=1)), Text(0, "one ")], C.STREAM_BROKEN]
    own = Usage(input_tokens=14, output_tokens=5)
    second = [[Text(0, "two")], [UsageReport(own, "d", {"x": 1})], [Finish(0, "stop")]]
    events, _ = House(Scripted(first), Scripted(second), **WAYS).ask()
    report = next(event for event in reversed(events) if isinstance(event, UsageReport))
    assert (report.usage.input_tokens, report.usage.output_tokens, report.billed, report.source) == (10, 6, own, None)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ([Text(0, "one two three four")], False),
        ([Text(0, "one "), Text(0, "two three"), Finish(0, "stop")], False),
        ([Text(0, "one twO")], True),
        ([Text(0, "one"), Finish(0, "stop")], True),
        ([Reasoning(0, "hm"), Text(0, "one two three")], True),
        ([Text(0, "one"), ToolCall(0, 0, "", "id", "look")], True),
    ],
)
def test_a_replay_shows_what_is_new(said: Any, fault: bool) -> None:
    """Nothing that was delivered is shown again, and a difference is seen where it comes."""
    replayed = Replayed(delivered(*SAID))
    shown = "".join(event.text for event in replayed.feed(said) if isinstance(event, Text))
    assert (replayed.fault is not None) == fault
    assert shown == (" four" if said[0] == Text(0, "one two three four") else "")


# --- another owner


def taken_over(house: House, *events: Event, request: ChatRequest = ASKED) -> Any:
    """What another replica reads for the rest of this log."""
    lost = ProviderError(Category.INTERNAL, "owner lost")
    return house.group.continue_from(request, delivered(*events), lost)


async def _read(source: Any) -> list[Any]:
    async with source.open() as batches:
        return [event async for batch in batches for event in batch]


def test_another_replica_goes_on() -> None:
    """The rest of an answer whose owner died is a leg behind those of the log, and no more than the rest."""
    house = House(Scripted([[Text(0, " four")], [Finish(0, "stop")]]), **WAYS)
    events = run(_read(taken_over(house, *SAID)))
    assert events[0] == Leg(2, "e1", "scripted", "prefill", "e1 after internal")
    assert "".join(event.text for event in events[1:-1]) == " four"
    assert events[-1] == Finish(0, "stop")


def test_what_nobody_can_go_on_with_is_not_taken_over() -> None:
    """No endpoint that continues, or an answer that disqualifies, or three legs already: there is no source."""
    assert taken_over(House(Scripted([])), *SAID) is None
    assert taken_over(House(Scripted([]), **WAYS), *SAID, ToolCall(0, 0, "{", "id", "look")) is None
    legs = [Leg(number, "e1", "scripted", "prefill", "") for number in (2, 3)]
    assert taken_over(House(Scripted([]), **WAYS), *SAID, *legs) is None


def test_a_refused_takeover_is_what_it_was() -> None:
    """If the endpoint refuses, the stream ends because its owner was lost."""
    source = taken_over(House(Scripted(C.BAD_REQUEST), **WAYS), *SAID)
    with pytest.raises(ProviderError) as caught:
        run(_read(source))
    assert caught.value.failure.message == "owner lost"


def test_nothing_said_yet_is_asked_anew() -> None:
    """A stream whose owner died before any content is attempted as if it had just come."""
    source = taken_over(House(Scripted([[Text(0, "hi")], [Finish(0, "stop")]])))
    assert isinstance(source, Attempts)
    assert run(_read(source))[0].strategy == "priority"


def test_not_streamed_is_asked_anew() -> None:
    """What was asked for whole is begun anew, whatever had been said."""
    whole = ChatRequest(dialect="none", model="route", messages=ASKED.messages)
    events = run(_read(taken_over(House(Scripted([[Text(0, "hi")], [Finish(0, "stop")]])), *SAID, request=whole)))
    assert (events[0].leg, events[0].strategy) == (2, RESTART)


def test_an_answer_that_lacks_only_its_end() -> None:
    """Where the finish is in the log, nobody is asked anything."""
    source = taken_over(House(Scripted([])), *SAID, Finish(0, "stop"))
    assert isinstance(source, Whole)
    assert run(_read(source)) == []


def test_nothing_is_folded_where_nothing_can_be_continued() -> None:
    """A route without an endpoint that goes on hands its provider's batches on as they are."""
    batch = [Text(0, "half")]
    house = House(Scripted([batch, [Finish(0, "stop")]]))
    attempts = house.group.attempt(ASKED, level=Level.CONTINUE)

    async def read() -> str:
        async with attempts.open() as batches:
            return type(batches).__name__

    assert run(read()) == "Answering"
    assert house.group.fallback == Fallback()
