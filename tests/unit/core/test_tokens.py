"""Estimates of tokens without a tokenizer."""

from gateway.core.chat import (
    ChatRequest,
    ImagePart,
    Message,
    OpaquePart,
    Part,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from gateway.core.tokens import (
    ANSWER_TOKENS,
    CALL_TOKENS,
    IMAGE_TOKENS,
    LOW_DETAIL_TOKENS,
    MESSAGE_TOKENS,
    TOOL_TOKENS,
    Counted,
    Ratio,
    estimate_input_tokens,
    estimate_output_tokens,
    utf8_length,
)

ENGLISH = "The quick brown fox jumps over the lazy dog while nobody is looking at it. "
CHINESE = "敏捷的棕色狐狸跳过了懒狗，而没有人在看它。"


def asked(*parts: Part, **members: object) -> ChatRequest:
    """A request of one turn."""
    return ChatRequest(dialect="openai_chat", model="m", messages=(Message(role="user", parts=parts),), **members)  # type: ignore[arg-type]


def prompt(*parts: Part, **members: object) -> int:
    """Its estimate without the framing of turn and answer."""
    return estimate_input_tokens(asked(*parts, **members)) - ANSWER_TOKENS - MESSAGE_TOKENS


def test_scripts_are_told_apart() -> None:
    """English takes about four characters a token, Chinese between one and two."""
    assert 3.5 < len(ENGLISH) / prompt(TextPart(text=ENGLISH)) < 5
    assert 1 < len(CHINESE) / prompt(TextPart(text=CHINESE)) < 2
    size = utf8_length(CHINESE * 20)
    assert 1 < 20 * len(CHINESE) / estimate_output_tokens(Counted(size=size, events=3)) < 2


def test_everything_of_a_prompt_counts() -> None:
    """Turns, tool calls and results, schemas of tools and of the answer, images by detail and other files."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert estimate_input_tokens(asked()) == ANSWER_TOKENS + MESSAGE_TOKENS
    assert prompt(ToolCallPart(id="1", name="n" * 21, arguments="a" * 21)) == 10
    image = ImagePart(url="https://example.com/cat.png")
    assert prompt(image) == IMAGE_TOKENS
    assert prompt(ImagePart(url="data:image/png;base64," + "A" * 100_000, detail="low")) == LOW_DETAIL_TOKENS
    assert prompt(ToolResultPart(id="1", text="x" * 42, images=(image,))) == 10 + IMAGE_TOKENS
    assert prompt(OpaquePart(kind="file", data={"data": "A" * 100_000})) == IMAGE_TOKENS
    tool = Tool(name="look", description="d" * 38, parameters=schema)
    assert prompt(tools=(tool,)) > TOOL_TOKENS + 10 + 10
    assert prompt(schema=schema) > 10


def test_what_was_learnt_is_used() -> None:
    """A model with half the bytes a token takes twice the tokens."""
    request = asked(TextPart(text="x" * 4200))
    assert estimate_input_tokens(request, 2.1) - estimate_input_tokens(request) == 1000


def test_events_as_long_as_tokens_are_tokens() -> None:
    """One token an event is believed where events are as long as tokens, not where whole sentences or letters come."""
    assert estimate_output_tokens(Counted(size=500, events=100)) == 100
    assert estimate_output_tokens(Counted(size=4200, events=10)) == 1000
    assert estimate_output_tokens(Counted(size=420, events=420)) == 100
    assert estimate_output_tokens(Counted(size=500, events=100), Ratio(events_per_token=None)) == 119


def test_little_is_something() -> None:
    """Nothing takes no tokens, anything at least one, and a call more than its letters."""
    assert estimate_output_tokens(Counted()) == 0
    assert estimate_output_tokens(Counted(size=1, events=1)) == 1
    assert estimate_output_tokens(Counted(size=42, events=1, calls=2)) == 10 + 2 * CALL_TOKENS


def test_text_that_is_no_utf8() -> None:
    """A lone surrogate, which JSON can say, is counted and no error."""
    assert utf8_length("a\ud800") == 4
