"""The chaos provider: an upstream that does exactly what the test plans, legal or not, on the wire it is asked on.

    async with ChaosProvider() as up:
        up.plans["flaky"] = Plan(tokens=20, reset_at_byte=700)
        ...  # ask up.base_url + "/chat/completions" for the model "flaky"
        request = await up.received()
        await request.gone()                      # the provider saw the socket close
        assert tokens_seen(1, text) <= request.tokens

It speaks OpenAI (`base_url` + `/chat/completions`), Anthropic (`root_url` + `/v1/messages`) and Ollama (`root_url` +
`/api/chat`): the path decides. Each chat request takes the first plan of `script` if there is one, else `plans[model]`
(of a list: the next one, the last one for ever), else `default`. What is asked for other paths lands in `others`;
token counts among them are answered as `counting` says.
"""

import asyncio
import itertools
import json
import socket
from collections.abc import Mapping
from typing import Any, Self

from tests.support.answer import ANTHROPIC, OLLAMA, OPENAI, body_of, event_of, usage_of, wire_of
from tests.support.gate import Gate
from tests.support.plan import AZURE_FIRST, OPENROUTER_COMMENT, Garbage, Plan, Tool, refusing
from tests.support.provider_connection import ProviderConnection
from tests.support.received import Received
from tests.support.signals import PATIENCE_S, Signal
from tests.support.truth import tokens_seen, truth, truth_token
from tests.support.wires.anthropic import COUNT_PATH, counted

__all__ = [
    "ANTHROPIC",
    "AZURE_FIRST",
    "OLLAMA",
    "OPENAI",
    "OPENROUTER_COMMENT",
    "ChaosProvider",
    "Garbage",
    "Gate",
    "Plan",
    "Received",
    "Tool",
    "body_of",
    "event_of",
    "refusing",
    "tokens_seen",
    "truth",
    "truth_token",
    "usage_of",
]


class ChaosProvider:
    """Listens on a free loopback port while entered.

    `requests`: chat requests in order of arrival. `open`, `ever`: connections now and so far. `api_key`: refuse others
    with 401. `send_buffer`: bytes of kernel buffer per connection, small ones make a slow peer felt soon. A bug in the
    provider itself is raised on leaving.
    """

    def __init__(self, default: Plan | None = None, *, api_key: str | None = None, send_buffer: int | None = None):
        self.default = default or Plan()
        self.plans: dict[str, Plan | list[Plan]] = {}
        self.script: list[Plan] = []
        self.counting = Plan()
        self.api_key, self.send_buffer = api_key, send_buffer
        self.requests: list[Received] = []
        self.others: list[Received] = []
        self.ever = 0
        self.port = 0
        self.signal = Signal()
        self._connections: set[ProviderConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._place: socket.socket | None = None
        self.leaves = False

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes for its base, `/v1` included."""
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        """What clients of Anthropic and Ollama take for their base."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections now."""
        return len(self._connections)

    @property
    def last(self) -> Received:
        """The newest chat request."""
        return self.requests[-1]

    async def received(self, n: int = 1, timeout: float = PATIENCE_S) -> Received:
        """The nth chat request, counted from 1, once it is there."""
        await self.signal.until(lambda: len(self.requests) >= n, timeout, f"chat request {n}")
        return self.requests[n - 1]

    async def all_closed(self, timeout: float = PATIENCE_S) -> None:
        """Returns when no connection is open."""
        await self.signal.until(lambda: not self._connections, timeout, f"{self.open} connections to close")

    async def __aenter__(self) -> Self:
        """The port is this provider's from here on, also while it refuses: nobody else gets it meanwhile."""
        self._place = place = socket.socket()
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        self.port = place.getsockname()[1]
        await self.listen()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.refuse()
        if self._place is not None:
            self._place.close()
        for connection in list(self._connections):
            connection.abort()
        await self.all_closed()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._errors and error is None:
            raise self._errors[0]

    async def listen(self) -> None:
        """Accepts connections, on the same port as before."""
        loop = asyncio.get_running_loop()
        self.leaves = False
        self._server = await loop.create_server(lambda: ProviderConnection(self), "127.0.0.1", self.port)

    def refuse(self) -> None:
        """New connections are refused, until `listen`; open ones live on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def leave(self) -> None:
        """Nobody is served any more, until `listen`: refuses, and closes each connection once its answer is out."""
        self.refuse()
        self.leaves = True
        self.close_idle()

    def close_idle(self) -> None:
        """Closes kept-alive connections that wait for a request, as vendors do without notice."""
        for connection in list(self._connections):
            if not connection.busy:
                connection.finish()

    def reset_all(self) -> None:
        """Every connection dies with RST, as when the machine does."""
        for connection in list(self._connections):
            connection.abort()

    def connection_opened(self, connection: ProviderConnection) -> int:
        """Keeps the books; returns the connection's number."""
        self._connections.add(connection)
        self._tasks.add(connection.task)
        connection.task.add_done_callback(self._ended)
        self.ever += 1
        self.signal.ring()
        return self.ever

    def connection_closed(self, connection: ProviderConnection) -> None:
        """Keeps the books."""
        self._connections.discard(connection)
        self.signal.ring()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)
            self.reset_all()

    def next_number(self) -> int:
        """The next request's number."""
        return next(self._numbers)

    def accept(self, received: Received) -> Plan:
        """Records a request and decides what becomes of it."""
        is_chat = received.method == "POST" and wire_of(received.path) is not None
        (self.requests if is_chat else self.others).append(received)
        self.signal.ring()
        if not self._knows(received):
            return refusing(401, code="invalid_api_key")
        if is_chat:
            return self._plan_for(received)
        return self._other(received)

    def _knows(self, received: Received) -> bool:
        """Whether the key is right, where one is wanted: as a bearer, or as Anthropic's own header."""
        said = (received.headers.get("authorization"), received.headers.get("x-api-key"))
        return self.api_key is None or f"Bearer {self.api_key}" == said[0] or self.api_key == said[1]

    def _other(self, received: Received) -> Plan:
        if received.method == "POST" and received.path.endswith(COUNT_PATH) and isinstance(received.json, dict):
            plan = self.counting
            return plan if plan.status >= 400 or plan.body else plan.with_(body=counted(received.json))
        if received.method == "GET" and received.path.endswith("/models"):
            return Plan(body=self._models())
        return refusing(404, code="not_found", type_="invalid_request_error")

    def _plan_for(self, received: Received) -> Plan:
        if not isinstance(received.json, dict):
            return refusing(400, code="bad_json", type_="invalid_request_error")
        return _going_on(self._planned(received), received.json)

    def _planned(self, received: Received) -> Plan:
        if self.script:
            return self.script.pop(0)
        planned = self.plans.get(received.json.get("model", ""), self.default)
        if isinstance(planned, Plan):
            return planned
        return planned.pop(0) if len(planned) > 1 else planned[0]

    def _models(self) -> bytes:
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "chaos"} for name in self.plans]
        return json.dumps({"object": "list", "data": rows}).encode()


def _going_on(plan: Plan, request: Mapping[str, Any]) -> Plan:
    """The plan for a request that may hold the beginning of the answer."""
    given = _given(request)
    if given is None or plan.prefill == "ignores":
        return plan
    if plan.prefill == "refuses":
        return refusing(400, type_="invalid_request_error", message="the conversation must end with a user message")
    if plan.prefill == "echoes" or not plan.text().startswith(given):
        return plan
    return plan.with_(skip=max(0, len(given) - plan.repeats))


def _given(request: Mapping[str, Any]) -> str | None:
    """The text of the assistant's last turn, if nothing or one turn of the user follows it."""
    turns = [turn for turn in list(request.get("messages") or ())[-2:] if turn.get("role") == "assistant"]
    if not turns:
        return None
    content = turns[-1].get("content")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())
