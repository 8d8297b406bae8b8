"""What kind of task a request is."""

import time

import pytest

from agents.task import NEEDS, TaskType, classify
from gateway.core.chat import ChatRequest, Message, TextPart


def request(text: str, **members: object) -> ChatRequest:
    """A request of one turn."""
    return ChatRequest(
        dialect="agent", model="agent/a", messages=(Message(role="user", parts=(TextPart(text=text),)),), **members
    )


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("Implement a binary search in Python with unit tests", "code"),
        ("```python\ndef f(): pass\n```\nwhy does this fail?", "code"),
        ("Debug this stack trace from my Java service", "code"),
        ("Prove that the square root of two is irrational", "reasoning"),
        ("If 3x = 12, what is x? Solve it step by step.", "reasoning"),
        ("Extract all names and dates from the following letter: ...", "extraction"),
        ("Find all amounts in this invoice", "extraction"),
        ("Summarize this article in three bullets", "summarising"),
        ("tl;dr please", "summarising"),
        ("Write an email to my landlord about the heating", "writing"),
        ("Compose a haiku about rain", "writing"),
        ("Return only JSON with the fields a and b", "structured"),
        ("Hello, how are you?", "conversation"),
        ("Mein Hund ist braun.", "conversation"),
    ],
)
def test_types(text: str, type_: str) -> None:
    """A plain request of each kind is recognised as what it is, with a reason."""
    task = classify(request(text))
    assert task.type == type_
    assert task.why


def test_a_schema_makes_it_structured() -> None:
    """Whoever gives a schema wants structure, whatever the words are."""
    assert classify(request("Say hello", schema={"type": "object"})).type == TaskType.STRUCTURED


def test_only_the_last_turn_counts() -> None:
    """What was talked about before does not decide what is asked now."""
    asked = ChatRequest(
        dialect="agent",
        model="m",
        messages=(
            Message(role="user", parts=(TextPart(text="Implement quicksort in Rust"),)),
            Message(role="assistant", parts=(TextPart(text="fn quicksort..."),)),
            Message(role="user", parts=(TextPart(text="Now summarize what you said, key points only"),)),
        ),
    )
    assert classify(asked).type == TaskType.SUMMARISING


def test_the_ends_of_a_long_text_count() -> None:
    """An instruction behind a long document is seen, and the time does not grow with the document."""
    assert classify(request("lorem " * 200_000 + "\nExtract all e-mail addresses from the text.")).type == "extraction"


def test_doubt_is_known() -> None:
    """Rules that are close to one another say so."""
    assert not classify(request("Compare these styles")).is_sure
    assert classify(request("Implement and debug a Python function")).is_sure


def test_every_type_has_needs() -> None:
    """No type is forgotten in the table of needs, and strengths are words that the pool knows."""
    assert set(NEEDS) == set(TaskType)
    assert {strength for needs in NEEDS.values() for strength in needs.values()} <= {"weak", "fair", "strong"}


@pytest.mark.parametrize("piece", ["\n", " ", "name ", "write ", "1 ", "```", "x = "])
def test_hostile_texts_take_no_time(piece: str) -> None:
    """No text, however odd, holds the loop up while it is classified."""
    begun = time.process_time()
    classify(request(piece * 8_000))
    assert time.process_time() - begun < 0.1
