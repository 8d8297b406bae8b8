"""The routes of agents: list, look at one, run one. A run is a stream, so everything else is the routes of streams.

This file knows HTTP and nothing of the gateway: who may call, and how a run is answered, is passed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.agent import Agent
    from agents.board import Board
    from agents.catalog import Catalog

PREFIX = "agent/"
"""Before an agent's name where a model's is asked for."""
RUN_DIALECT = "native"


class Respond(Protocol):
    """Begins a run and answers: `stream` as native events, `background` at once, else when it is over."""

    async def __call__(
        self, request: Request, chat: ChatRequest, raw: bytes, *, stream: bool, background: bool
    ) -> Response:
        """The answer to one request."""
        ...


class _Turn(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: str


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None


class _RunBody(msgspec.Struct, forbid_unknown_fields=True):
    input: str | list[_Turn]
    stream: bool = False
    background: bool = False
    options: _Options = msgspec.field(default_factory=_Options)


_decode = msgspec.json.Decoder(_RunBody).decode


def router(
    catalog: Catalog, board: Board, authorize: Callable[..., Any], body: Callable[[Request], Any], respond: Respond
) -> APIRouter:
    """The routes. `authorize` is their dependency, `body(request)` reads a body with the gateway's own bounds."""
    routes = APIRouter(prefix="/v1/agents", tags=["agents"], dependencies=[Depends(authorize)])

    @routes.get("", summary="The agents that can be asked")
    async def listing() -> Response:
        return _json({"object": "list", "data": [_shown(agent) for agent in catalog]})

    @routes.get("/{name}", summary="One agent, and how it has done so far")
    async def one(name: str) -> Response:
        agent = _found(catalog, name)
        return _json({**_shown(agent), "statistics": board.shown(agent.profile.name)})

    @routes.post("/{name}/runs", summary="Begin a run: as native events, as a stream object at its end, or at once")
    async def run(request: Request, name: str) -> Response:
        agent = _found(catalog, name)
        raw = await body(request)
        asked = _asked(raw)
        return await respond(
            request, _chat(agent, asked), raw, stream=asked.stream, background=asked.background and not asked.stream
        )

    return routes


def _found(catalog: Catalog, name: str) -> Agent:
    agent = catalog.get(name)
    if agent is None:
        names = ", ".join(each.profile.name for each in catalog) or "none"
        msg = f"there is no agent {name!r:.64}; there are: {names}"
        raise RequestError(msg, status=404, code="agent_not_found", param="name")
    return agent


def _asked(raw: bytes) -> _RunBody:
    try:
        asked = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        msg = f"the body is {{input: string or turns, stream?, background?, options?}}: {error}"
        raise RequestError(msg, code="invalid_body") from error
    if not asked.input:
        msg = "input must not be empty"
        raise RequestError(msg, param="input", code="invalid_value")
    return asked


def _chat(agent: Agent, asked: _RunBody) -> ChatRequest:
    turns = [_Turn("user", asked.input)] if isinstance(asked.input, str) else asked.input
    return ChatRequest(
        dialect=RUN_DIALECT,
        model=PREFIX + agent.profile.name,
        stream=asked.stream,
        messages=tuple(Message(role=turn.role, parts=(TextPart(text=turn.content),)) for turn in turns),
        max_output_tokens=asked.options.max_output_tokens,
        temperature=asked.options.temperature,
    )


def _shown(agent: Agent) -> dict[str, Any]:
    profile = agent.profile
    return {
        "name": profile.name,
        "object": "agent",
        "model": PREFIX + profile.name,
        "description": profile.description,
        "route": profile.route,
        "task_types": list(profile.task_types),
        "needs": dict(profile.needs),
        "workers": list(profile.workers),
        "on_failure": profile.on_failure,
        "limits": {name: getattr(profile.limits, name) for name in profile.limits.__slots__},
    }


def _json(shown: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(shown), media_type="application/json")
