"""What a client of the chat dialect ends up with: a stream's frames folded, written apart from the product."""

from dataclasses import dataclass, field
from typing import Any

from tests.support.sse import data_frames


@dataclass(slots=True)
class Call:
    """One tool call, put together."""

    id: str | None = None
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Choice:
    """One choice, put together."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tools: dict[int, Call] = field(default_factory=dict)
    finish: str | None = None


@dataclass(slots=True)
class Folded:
    """All that the stream said: `done` that `[DONE]` came, `error` the in-stream error, `ids` those of its chunks."""

    choices: dict[int, Choice] = field(default_factory=dict)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    done: bool = False

    @property
    def text(self) -> str:
        """Choice 0's text."""
        return self.choices[0].text if 0 in self.choices else ""

    @property
    def finish(self) -> str | None:
        """Choice 0's finish reason."""
        return self.choices[0].finish if 0 in self.choices else None

    @property
    def ids(self) -> set[str]:
        """The wire ids, one for an honest stream."""
        return {chunk["id"] for chunk in self.chunks}


def fold(raw: bytes) -> Folded:
    """Folds a chat completion stream.

    Raises:
        AssertionError: when something follows `[DONE]` or an error.
        ValueError: for data that is not JSON.
    """
    folded = Folded()
    for frame in data_frames(raw):
        assert not folded.done, f"after [DONE]: {frame!r}"
        assert folded.error is None, f"after the error: {frame!r}"
        if frame.data == "[DONE]":
            folded.done = True
        elif "error" in frame.json:
            folded.error = frame.json["error"]
        else:
            _chunk(folded, frame.json)
    return folded


def _chunk(folded: Folded, chunk: dict[str, Any]) -> None:
    folded.chunks.append(chunk)
    folded.usage = chunk.get("usage") or folded.usage
    for said in chunk["choices"]:
        choice = folded.choices.setdefault(said["index"], Choice())
        delta = said.get("delta") or {}
        choice.text += delta.get("content") or ""
        choice.refusal += delta.get("refusal") or ""
        choice.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
        choice.finish = said.get("finish_reason") or choice.finish
        for fragment in delta.get("tool_calls") or ():
            _tool(choice.tools.setdefault(fragment["index"], Call()), fragment)


def _tool(call: Call, fragment: dict[str, Any]) -> None:
    function = fragment.get("function") or {}
    call.id = call.id or fragment.get("id")
    call.name += function.get("name") or ""
    call.arguments += function.get("arguments") or ""
