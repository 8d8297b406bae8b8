"""What counts as content."""

import pytest

from gateway.core.events import End, Event, Extra, Finish, Reasoning, Refusal, State, Text, ToolCall, is_content


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (Text(0, "a"), True),
        (Reasoning(0, "a"), True),
        (Refusal(0, "a"), True),
        (ToolCall(0, 0, "", "id", "f"), True),
        (Extra("d", {"delta": {"audio": {"data": "AAA="}}}, 0, content=True), True),
        (Extra("d", {"delta": {"role": "assistant", "content": ""}}, 0), False),
        (Extra("d", {"content_filter_results": {}}, 0), False),
        (Extra("d", {"prompt_filter_results": []}), False),
        (Finish(0, "stop"), False),
        (End(State.COMPLETED), False),
    ],
)
def test_commit_point(event: Event, counts: bool) -> None:
    """The answer has begun with the first thing that a client would miss, in whatever form a vendor sends it."""
    assert is_content(event) is counts
