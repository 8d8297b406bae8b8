"""Claims about whole messages: what a tool is given, whatever its arguments were."""

from typing import Any

import pytest

from gateway.dialects.anthropic_merge import Message


@pytest.mark.parametrize(
    ("said", "given"),
    [
        (['{"city": ', '"Oslo"}'], {"city": "Oslo"}),
        (["{}"], {}),
        ([], {}),
        (["null"], {}),
        (['{"city": "Os'], {"INVALID_JSON": '{"city": "Os'}),
        (["[1]"], {"INVALID_JSON": "[1]"}),
        (["[" * 100_000], {"INVALID_JSON": "[" * 100_000}),
    ],
)
def test_input(said: list[str], given: dict[str, Any]) -> None:
    """A tool's input is what the arguments say; arguments that are no object are shown, not taken for an empty one."""
    message = Message()
    message.add({"type": "message_start", "message": {"role": "assistant", "content": []}})
    block = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    message.add({"type": "content_block_start", "index": 0, "content_block": block})
    for piece in said:
        delta = {"type": "input_json_delta", "partial_json": piece}
        message.add({"type": "content_block_delta", "index": 0, "delta": delta})
    assert message.whole()["content"] == [{**block, "input": given}]
