"""A house with agents: `team`, a controller with the workers `ada` and `bob`, and `sage`, which is task-aware.

Each asks the chaos provider for a model of its own name: `chaos/boss`, `chaos/ada`, `chaos/bob`, `chaos/sage`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.e2e.house import House
from tests.support.chaos import ChaosProvider, Plan
from tests.support.sse import data_frames

ANSWER = Plan(tokens=12, seed=7)
"""The synthesis."""


def team(*, sage: Mapping[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """The section of settings; `members` are those of the controller."""
    boss = {"name": "team", "kind": "controller", "route": "chaos/boss", "workers": ["ada", "bob"], **members}
    hands = [{"name": name, "kind": "worker", "route": f"chaos/{name}"} for name in ("ada", "bob")]
    aware = {"name": "sage", "kind": "task_aware", "route": "chaos/sage", **(sage or {})}
    return {"agents": [boss, *hands, aware]}


def steps(*rows: tuple[str, str, tuple[str, ...]]) -> str:
    """A plan in a model's words, of (id, worker, after)."""
    return json.dumps({"steps": [{"id": id_, "goal": f"Do {id_}.", "worker": worker, "after": list(after)}
                                 for id_, worker, after in rows]})  # fmt: skip


def says(text: str) -> Plan:
    """An answer with this text, in one chunk."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return Plan(body=body.encode(), content_type="text/event-stream")


BOTH = steps(("hull", "ada", ()), ("sail", "bob", ()))
IN_ROW = steps(("hull", "ada", ()), ("sail", "bob", ("hull",)))


def plan(it: House, text: str, *answers: Plan, up: ChaosProvider | None = None) -> None:
    """Let the boss plan so, and answer with `answers` after that."""
    (up or it.up).plans["boss"] = [says(text), *(answers or (ANSWER,))]


async def begin(it: House, name: str = "team", **body: Any) -> str:
    """The id of a run in the background."""
    answer = await it.call("POST", f"/v1/agents/{name}/runs", json={"input": "Build it.", "background": True, **body})
    assert answer.status == 202, answer
    assert answer.json["id"] == answer.headers["x-atlas-stream-id"]
    return str(answer.json["id"])


def progress(raw: bytes, kind: str) -> list[dict[str, Any]]:
    """What a native feed tells of this kind of progress."""
    return [frame.json for frame in data_frames(raw) if frame.event == "progress" and frame.json["kind"] == kind]


def asked(up: ChaosProvider) -> Sequence[str]:
    """The models that were asked for, in order."""
    return [request.json["model"] for request in up.requests]
