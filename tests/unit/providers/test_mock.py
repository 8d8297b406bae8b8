"""The mock: what its names mean, that it is a function of the request, and that it counts right."""

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.chat import ChatRequest, Message, OpaquePart, TextPart, Tool, ToolCallPart, ToolResultPart
from gateway.core.errors import Category, ProviderError
from gateway.core.events import Finish, Reasoning, Refusal, SourceEvent, Text, ToolCall, UsageReport
from gateway.providers.mock import MODELS, MockProvider, serves
from gateway.upstream.classify import by_status
from tests.support.run import run

if TYPE_CHECKING:
    from gateway.upstream.contract import Batch, Provider

Kind = TypeVar("Kind")
TOOL = Tool(
    name="book_table",
    parameters={
        "type": "object",
        "properties": {"guests": {"type": "integer", "minimum": 2}, "when": {"type": "string", "format": "date"}},
        "required": ["guests", "when"],
    },
)
OTHER = Tool(name="cancel_table")


def turn(role: Any, text: str) -> Message:
    """One turn of plain text."""
    return Message(role=role, parts=(TextPart(text=text),))


def request(text: str = "How deep is the sea?", **changes: Any) -> ChatRequest:
    """One user's turn; `changes` are members of the request."""
    return ChatRequest(**{"dialect": "none", "model": "route", "messages": (turn("user", text),)} | changes)


class Call:
    """One call to its end: batches, the error, and the sleeps that it asked for."""

    def __init__(self, model: str, asked: ChatRequest | None = None) -> None:
        self.batches: list[Batch] = []
        self.slept: list[float] = []
        self.error: ProviderError | None = None
        run(self._read(model, asked or request()))

    async def _read(self, model: str, asked: ChatRequest) -> None:
        try:
            async with MockProvider(sleep=self._sleep).stream(asked, model) as batches:
                async for batch in batches:
                    self.batches.append(batch)
        except ProviderError as error:
            self.error = error

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    @property
    def events(self) -> list[SourceEvent]:
        """All events in order."""
        return [event for batch in self.batches for event in batch]

    def of(self, kind: type[Kind]) -> list[Kind]:
        """All events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def texts(self, choice: int = 0) -> list[str]:
        """The tokens of one choice."""
        return [event.text for event in self.events if isinstance(event, Text) and event.choice == choice]

    def text(self, choice: int = 0) -> str:
        """The text of one choice."""
        return "".join(self.texts(choice))

    @property
    def finishes(self) -> list[tuple[int, str]]:
        """Choice and reason of each finish."""
        return [(event.choice, event.reason) for event in self.events if isinstance(event, Finish)]

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens in and out of the one usage report, which is the last event."""
        report = self.events[-1]
        assert isinstance(report, UsageReport)
        assert sum(isinstance(event, UsageReport) for event in self.events) == 1
        return report.usage.input_tokens, report.usage.output_tokens

    @property
    def tool(self) -> tuple[str | None, str]:
        """Name and arguments of the one call."""
        fragments = [event for event in self.events if isinstance(event, ToolCall)]
        return fragments[0].name, "".join(fragment.arguments for fragment in fragments)


# Names.


@pytest.mark.parametrize("model", [*MODELS, "mock-fast-1000", "mock-slow-3", "mock-fast-cut-0", "mock-slow-tools"])
def test_serves_what_it_lists(model: str) -> None:
    """Every listed name, and every combination of pace and ending, is understood."""
    assert serves(model)


@pytest.mark.parametrize(
    "model",
    [
        *("", "mocks", "mock-", "xmock", "mock\n", "Mock", "mock-quick", "mock-200", "mock-399", "mock-600"),
        *("mock-cut", "mock-cut--1", "mock-fast-fast", "mock-429-fast", "mock-fast-1234567"),
    ],
)
def test_unknown_name_is_model_not_found(model: str) -> None:
    """A name that is not understood is answered with those that are."""
    call = Call(model)
    assert not serves(model)
    assert call.error is not None
    assert call.error.category is Category.MODEL_NOT_FOUND
    assert "-cut-<n>" in call.error.failure.message
    assert not call.slept


def test_fits_the_protocol() -> None:
    """The mock can stand wherever a provider is wanted."""
    provider: Provider = MockProvider()
    assert provider.kind == "mock"
    run(provider.aclose())


# Pace.


@pytest.mark.parametrize(("model", "pause_s"), [("mock", 0.02), ("mock-slow", 0.2)])
def test_paced_models_send_token_by_token(model: str, pause_s: float) -> None:
    """200 tokens, one a batch, each after one pause; finish and usage follow at once."""
    call = Call(model)
    assert len(call.texts()) == 200
    assert all(len(batch) == 1 for batch in call.batches)
    assert call.slept == [0, *[pytest.approx(pause_s)] * 200, 0, 0]


def test_unpaced_model_lets_others_run() -> None:
    """A thousand tokens as fast as possible come in small batches with a turn for others before each."""
    call = Call("mock-fast-1000")
    assert len(call.texts()) == 1000
    assert max(map(len, call.batches)) == 32
    assert call.slept == [0] * (1 + len(call.batches))


def test_default_sleep_is_the_loop_s() -> None:
    """Without an injected sleep the mock really waits, and the loop goes on meanwhile."""

    async def count_turns() -> int:
        turns = 0
        async with MockProvider().stream(request(), "mock-fast-64") as batches:
            reading = asyncio.ensure_future(_drain(batches))
            while not reading.done():
                turns += 1
                await asyncio.sleep(0)
        return turns

    assert run(count_turns()) >= 3


async def _drain(batches: Any) -> None:
    async for _ in batches:
        pass


# Text.


@given(st.text(max_size=60), st.integers(0, 90))
def test_text_depends_on_the_model_and_the_last_user_message_alone(text: str, total: int) -> None:
    """History, names, sampling and other members change nothing; the same question has the same answer for ever."""
    model = f"mock-fast-{total}"
    plain = Call(model, request(text))
    history = (turn("system", "Be brief."), turn("user", "Hello"), turn("assistant", "Hi"), turn("user", text))
    other = Call(model, request(messages=history, temperature=0.3, dialect="x", model="y", stream=True))
    assert plain.texts() == other.texts()
    assert len(plain.texts()) == total


def test_text_is_the_same_on_every_machine() -> None:
    """The answer is fixed to the letter: no hash seed, clock or counter has a part in it."""
    assert Call("mock-fast-40").text() == (
        'You asked: "How deep is the sea?". Write it down once, plainly, and half of the difficulty'
        " is gone. There is a small library behind the station where the clocks agree. With that "
        "the kettle boils and the day begins."
    )


@given(st.integers(0, 300), st.text(max_size=40))
def test_tokens_are_words_with_their_leading_space(total: int, text: str) -> None:
    """Joined and split again the answer has one word for each token."""
    call = Call(f"mock-fast-{total}", request(text))
    assert call.text().split() == [token.strip() for token in call.texts()]
    assert all(token[0] == " " for token in call.texts()[1:])
    assert not call.text().startswith(" ")


@pytest.mark.parametrize("total", [*range(20, 60), 200])
def test_answer_ends_with_a_whole_sentence(total: int) -> None:
    """Whatever the number of tokens, the last word ends a sentence."""
    assert Call(f"mock-fast-{total}").text()[-1] == "."


def test_answer_quotes_the_question() -> None:
    """The answer begins with the first words of what was asked, and long ones are cut."""
    assert Call("mock", request("Why is\nthe sky blue?")).text().startswith('You asked: "Why is the sky blue?".')
    assert Call("mock", request("a b c d e f g h i j")).text().startswith('You asked: "a b c d e f g h...".')
    assert Call("mock", request("<step>\nPlan it.\n</step>")).text().startswith('You asked: "Plan it.".')
    assert Call("mock", request("x" * 10_000)).text().startswith(f'You asked: "{"x" * 24}".')
    assert Call("mock", request("")).text().startswith('You asked: "nothing".')


def test_braces_and_lone_surrogates_are_harmless() -> None:
    """A question is never taken for a template, nor does it make text that cannot be encoded."""
    assert "{topic}" in Call("mock", request("{topic} {0} {")).text()
    assert Call("mock", request("broken \ud800 half")).text().encode()


# Limits, stops, choices, usage.


@given(st.integers(0, 40))
def test_limit_is_obeyed(limit: int) -> None:
    """The first `limit` tokens are those of the full answer, and the finish says whether there was more."""
    full = Call("mock-fast-30")
    call = Call("mock-fast-30", request(max_output_tokens=limit))
    assert call.texts() == full.texts()[:limit]
    assert call.finishes == [(0, "length" if limit < 30 else "stop")]
    assert call.counts == (5, min(limit, 30))


@given(st.data())
def test_stop_string_is_obeyed(data: st.DataObject) -> None:
    """The answer ends before the first occurrence of any stop string, wherever the tokens' borders lie."""
    full = Call("mock-fast-60").text()
    start = data.draw(st.integers(0, len(full) - 1))
    stop = full[start : start + data.draw(st.integers(1, 30))]
    call = Call("mock-fast-60", request(stop=("", "\0never", stop)))
    assert call.text() == full[: full.index(stop)]
    assert call.finishes == [(0, "stop")]
    assert call.counts[1] == len(call.texts())
    assert "" not in call.texts()


@given(st.text("ab ", max_size=6), st.text("ab ", max_size=6))
def test_stop_string_that_never_comes_changes_nothing(first: str, second: str) -> None:
    """Text held back because a stop string might begin in it is delivered after all, as the same tokens."""
    stops = tuple(f"{stop}\0" for stop in (first, second))
    assert Call("mock-fast-40", request(stop=stops)).events == Call("mock-fast-40").events


def test_limit_inside_a_stop_string_is_a_limit() -> None:
    """A stop string that the limit cuts was never said: its first half is delivered and the reason is `length`."""
    full = Call("mock-fast-30").texts()
    call = Call("mock-fast-30", request(max_output_tokens=10, stop=("".join(full[8:12]),)))
    assert call.texts() == full[:10]
    assert call.finishes == [(0, "length")]


def test_choices_are_interleaved_and_differ() -> None:
    """Three choices come token by token in turn, each with its own text and finish; usage counts them all."""
    call = Call("mock-fast-20", request(n=3))
    assert [event.choice for event in call.events if isinstance(event, Text)] == [0, 1, 2] * 20
    assert len({call.text(choice) for choice in range(3)}) == 3
    assert call.finishes == [(0, "stop"), (1, "stop"), (2, "stop")]
    assert call.counts == (5, 60)


def test_input_tokens_are_the_words_of_all_turns() -> None:
    """Input is counted over the whole conversation."""
    turns = (turn("system", "Be very brief."), turn("user", "One  two\nthree"), turn("assistant", "four"))
    assert Call("mock-fast-1", request(messages=turns)).counts == (7, 1)
    assert Call("mock-fast-1", request(messages=())).counts == (0, 1)


# Faults.


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 40, 200, 500])
@pytest.mark.parametrize("pace", ["mock", "mock-fast"])
def test_cut_comes_after_exactly_n_tokens(pace: str, n: int) -> None:
    """`mock-cut-<n>` delivers n tokens, no finish, no usage, and breaks."""
    call = Call(f"{pace}-cut-{n}")
    assert len(call.texts()) == len(call.events) == n
    assert call.error is not None
    assert call.error.category is Category.STREAM_BROKEN


def test_answer_that_is_whole_before_the_cut_ends_well() -> None:
    """A cut after n tokens needs n tokens."""
    assert Call("mock-cut-40", request(max_output_tokens=39)).error is None
    assert Call("mock-cut-40", request(max_output_tokens=40)).error is not None


def test_stall_delivers_n_tokens_and_then_nothing() -> None:
    """`mock-stall-<n>` asks for a day of sleep after n tokens; should that pass, the stream is broken, not done."""
    call = Call("mock-stall-3")
    assert len(call.texts()) == 3
    assert call.slept[-1] == 86_400
    assert call.error is not None
    assert call.error.category is Category.STREAM_BROKEN


def test_no_end_delivers_all_and_is_broken() -> None:
    """`mock-no-end` says everything but the end."""
    call = Call("mock-no-end", request(n=2, max_output_tokens=7))
    assert len(call.events) == 14
    assert all(isinstance(event, Text) for event in call.events)
    assert call.error is not None
    assert call.error.category is Category.STREAM_BROKEN


def test_garbage_is_protocol_before_content() -> None:
    """`mock-garbage` never says a word."""
    call = Call("mock-garbage")
    assert call.events == []
    assert call.error is not None
    assert call.error.category is Category.PROTOCOL


def test_error_in_mid_stream() -> None:
    """`mock-error-<n>` is a provider that says after n tokens that it has too much to do."""
    call = Call("mock-fast-error-7")
    assert len(call.of(Text)) == 7
    assert call.error is not None
    assert call.error.category is Category.OVERLOADED


def test_empty() -> None:
    """`mock-empty` ends well and says nothing."""
    call = Call("mock-empty")
    assert call.error is None
    assert [type(event) for event in call.events] == [Finish, UsageReport]


def test_refuses() -> None:
    """`mock-refuses` says so and finishes as a refusal."""
    call = Call("mock-fast-refuses")
    assert "".join(event.text for event in call.of(Refusal)) == "I am sorry, but I cannot help with that."
    assert [finish.reason for finish in call.of(Finish)] == ["refusal"]


@pytest.mark.parametrize(("limit", "thoughts", "words"), [(None, 20, 200), (10, 5, 5), (1, 0, 1)])
def test_thinks(limit: int | None, thoughts: int, words: int) -> None:
    """`mock-thinks` thinks before it answers, within the limit, and counts its thoughts."""
    call = Call("mock-fast-thinks", request(max_output_tokens=limit))
    assert (len(call.of(Reasoning)), len(call.of(Text))) == (thoughts, words)
    (report,) = call.of(UsageReport)
    assert (report.usage.output_tokens, report.usage.reasoning_tokens) == (thoughts + words, thoughts or None)


@pytest.mark.parametrize("status", range(400, 600))
def test_status_has_the_category_of_the_table(status: int) -> None:
    """Every status is an error of the category that a provider's has; 429 says when to come back."""
    call = Call(f"mock-{status}")
    assert call.error is not None
    assert call.error.category is (Category.TIMEOUT_FIRST_TOKEN if status == 504 else by_status(status))
    assert call.error.failure.retry_after_s == (1 if status == 429 else None)
    assert not call.batches


def test_unknown_part_is_refused_by_name() -> None:
    """Content that the mock cannot read is a `bad_request` that names it, before anything is awaited."""
    part = OpaquePart(kind="hologram", data={})
    call = Call("mock", request(messages=(turn("user", "Look"), Message(role="user", parts=(part,)))))
    assert call.error is not None
    assert call.error.category is Category.UNTRANSLATABLE
    assert call.error.failure.param == "messages[1].content"
    assert "hologram" in call.error.failure.message
    assert not call.slept


# Structure and tools.


def test_schema_is_answered_with_an_instance() -> None:
    """A structured answer is JSON of the schema's shape, in several tokens."""
    call = Call("mock-fast", request(schema=TOOL.parameters))
    assert json.loads(call.text()) == {"guests": 2, "when": "2000-01-01"}
    assert len(call.texts()) == 4
    assert call.finishes == [(0, "stop")]


def test_any_object_is_an_object() -> None:
    """`{}` as a schema asks for any JSON object."""
    assert json.loads(Call("mock", request(schema={})).text()) == {}


def test_white_space_in_a_schema_s_values_is_kept() -> None:
    """An instance is delivered to the letter, however it is cut into tokens."""
    value = "two  spaces,\ta tab and \u3000 one more "
    assert json.loads(Call("mock-fast", request(schema={"const": value})).text()) == value


def test_impossible_schema_is_a_bad_request() -> None:
    """A schema without an instance is refused with the reason, before anything is awaited."""
    for asked in (
        request(schema={"type": "string", "pattern": "^x$"}),
        request(tools=(Tool(name="t", parameters={"type": "string", "pattern": "^x$"}),), tool_choice="required"),
    ):
        call = Call("mock", asked)
        assert call.error is not None
        assert call.error.category is Category.BAD_REQUEST
        assert "pattern" in call.error.failure.message
        assert not call.slept


@pytest.mark.parametrize(
    ("model", "choice", "name"),
    [
        ("mock-tools", "auto", "book_table"),
        ("mock-tools", "required", "book_table"),
        ("mock-tools", "cancel_table", "cancel_table"),
        ("mock-fast", "required", "book_table"),
        ("mock-fast", "cancel_table", "cancel_table"),
    ],
)
def test_tool_is_called(model: str, choice: str, name: str) -> None:
    """`mock-tools` calls the first tool or the named one; any other model does so only if it must."""
    call = Call(model, request(tools=(TOOL, OTHER), tool_choice=choice))
    called, arguments = call.tool
    assert called == name
    assert json.loads(arguments) == ({"guests": 2, "when": "2000-01-01"} if name == "book_table" else {})
    assert call.finishes == [(0, "tool_calls")]
    assert call.counts[1] == sum(isinstance(event, ToolCall) for event in call.events)


@pytest.mark.parametrize(("model", "choice"), [("mock-tools", "none"), ("mock-fast", "auto"), ("mock-fast", "none")])
def test_tool_is_not_called(model: str, choice: str) -> None:
    """Without need or against the request's word nothing is called."""
    call = Call(model, request(tools=(TOOL,), tool_choice=choice))
    assert call.text()
    assert call.finishes == [(0, "stop")]


def test_without_tools_the_weather_is_asked_for() -> None:
    """`mock-tools` shows a call even to a client that brought no tools, in several fragments."""
    call = Call("mock-tools")
    assert call.tool == ("get_weather", '{"city": "Paris"}')
    assert sum(isinstance(event, ToolCall) for event in call.events) >= 3


@pytest.mark.parametrize("choice", ["auto", "required", "book_table"])
def test_tool_result_is_answered_with_text(choice: str) -> None:
    """After a tool's result the turn ends, also if the client forces tools every time."""
    turns = (
        turn("user", "Book a table"),
        Message(role="assistant", parts=(ToolCallPart(id="1", name="book_table", arguments="{}"),)),
        Message(role="tool", parts=(ToolResultPart(id="1", text="booked"),)),
    )
    call = Call("mock-tools", request(messages=turns, tools=(TOOL,), tool_choice=choice))
    assert "Book a table" in call.text()
    assert call.finishes == [(0, "stop")]


def test_missing_tool_is_a_bad_request() -> None:
    """A forced tool that was not brought along is the caller's mistake."""
    call = Call("mock-tools", request(tools=(TOOL,), tool_choice="other"))
    assert call.error is not None
    assert call.error.category is Category.BAD_REQUEST
    assert call.error.failure.param == "tool_choice"


def test_call_ids_are_fixed_and_differ_by_choice() -> None:
    """Ids are repeatable, and no two calls of an answer share one."""
    first, second = (
        [event.id for event in Call("mock-tools", request(n=2)).events if isinstance(event, ToolCall) and event.id]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 2


def test_limit_cuts_a_call() -> None:
    """A limit inside the arguments ends the choice with `length`, so that nobody runs half a call."""
    call = Call("mock-tools", request(max_output_tokens=2))
    assert call.tool == ("get_weather", '{"city":')
    assert call.finishes == [(0, "length")]
