"""Putting a message together from its event objects, as the official SDK does, unknown members included. Pure."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from gateway.dialects.openai_merge import accumulate

Members = dict[str, Any]

_decode = msgspec.json.Decoder().decode


class Message:
    """A message that grows. Event objects are shared and never change: what is taken over is copied."""

    def __init__(self) -> None:
        self._message: Members = {}
        self._blocks: dict[int, Members] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}

    def add(self, event: Members) -> None:
        """Take an event object in."""
        match event:
            case {"type": "message_start", "message": dict(message)}:
                self._message = {"content": [], **cast("Members", message)}
                self._message["usage"] = dict(self._message.get("usage") or {})
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                self._blocks[index] = dict(cast("Members", block))
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)} if index in self._blocks:
                self._delta(index, cast("Members", delta))
            case {"type": "message_delta"}:
                self._message_delta(event)
            case _:
                pass

    def whole(self) -> Members:
        """The message."""
        for (index, member), pieces in self._pieces.items():
            block, text = self._blocks[index], "".join(pieces)
            if member == "input":
                block[member] = _arguments(text)
            else:
                block[member] = (block.get(member) or "") + text
        self._pieces.clear()
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        return {**self._message, "content": blocks or self._message.get("content") or []}

    def _delta(self, index: int, delta: Members) -> None:
        block, rest = self._blocks[index], dict(delta)
        match rest.pop("type", None):
            case "text_delta":
                self._piece(index, "text", rest.pop("text", ""))
            case "thinking_delta":
                self._piece(index, "thinking", rest.pop("thinking", ""))
            case "input_json_delta":
                self._piece(index, "input", rest.pop("partial_json", ""))
            case "signature_delta":
                block["signature"] = rest.pop("signature", None)
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or []), rest.pop("citation", None)]
            case _:
                pass
        if rest:
            accumulate(block, rest)

    def _piece(self, index: int, member: str, text: Any) -> None:
        if text and isinstance(text, str):
            self._pieces.setdefault((index, member), []).append(text)

    def _message_delta(self, event: Members) -> None:
        rest = {name: value for name, value in event.items() if name not in {"type", "delta", "usage"}}
        usage, delta = event.get("usage"), event.get("delta")
        self._message.update(rest)
        if isinstance(delta, dict):
            self._message.update(cast("Members", delta))
        if isinstance(usage, dict):
            news = {name: value for name, value in cast("Members", usage).items() if value is not None}
            self._message.setdefault("usage", {}).update(news)


def _arguments(text: str) -> Any:
    """The input of a tool. What is no object goes as Anthropic's guide of fine-grained tool streaming says to wrap it.

    An empty input in its place would be a call that nobody meant.
    """
    try:
        found = _decode(text)
    except (msgspec.MsgspecError, RecursionError):
        found = text
    return found if isinstance(found, dict) else {} if found is None else {"INVALID_JSON": text}
