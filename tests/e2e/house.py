"""A house for end-to-end tests: chaos providers, Atlas in front of them on real sockets, clients at the door.

    async with house(Plan(tokens=20)) as it:
        async with it.chat() as answer:               # streamed, of the model chaos/any
            await answer.read()

Leaving asserts that no task and no socket is left. Whatever a test needs to be slow is made short by settings.
"""

from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI

from gateway.app import Atlas, create
from gateway.core.clock import Clock
from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider, Plan, Received
from tests.support.http import Answer, RawClient, RawStream
from tests.support.redis_server import shared_redis
from tests.support.run import run as run_in_a_loop
from tests.support.server import AtlasServer, atlas_settings

CHAT = "/v1/chat/completions"
MODEL = "chaos/any"
MESSAGES: Any = [{"role": "user", "content": "Say it."}]


def run(scenario: Coroutine[Any, Any, None], timeout: float = 60) -> None:
    """Runs a scenario on the event loop that the gateway is served with."""
    run_in_a_loop(scenario, timeout, fast=True)


def sdk(base_url: str, **options: Any) -> AsyncOpenAI:
    """The official client, which does not retry by itself; enter it, or its sockets are left."""
    return AsyncOpenAI(**{"base_url": base_url, "api_key": "sk-caller", "max_retries": 0, **options})


def ask(model: str = MODEL, *, stream: bool = True, **body: Any) -> dict[str, Any]:
    """A chat completions body."""
    return {"model": model, "messages": MESSAGES, "stream": stream, **body}


@dataclass(frozen=True, slots=True)
class House:
    """All that a test talks to; `up` is the first provider."""

    app: Atlas
    atlas: AtlasServer
    ups: list[ChaosProvider]

    @property
    def up(self) -> ChaosProvider:
        """The provider that is asked first."""
        return self.ups[0]

    @property
    def url(self) -> str:
        """What an OpenAI client takes for its base."""
        return self.atlas.base_url + "/v1"

    def sdk(self, **options: Any) -> AsyncOpenAI:
        """The official client, before Atlas."""
        return sdk(self.url, **options)

    def client(self, *, receive_buffer: int | None = None) -> RawClient:
        """A connection; enter it."""
        return RawClient.to(self.atlas.base_url, receive_buffer=receive_buffer)

    async def call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        json: Any = None,
    ) -> Answer:
        """One request on a connection of its own."""
        async with self.client() as client:
            return await client.request(method, path, headers, body, json=json)

    async def ask(self, headers: Mapping[str, str] | None = None, /, **body: Any) -> Answer:
        """One chat request, not streamed unless asked, answered in full."""
        return await self.call("POST", CHAT, headers, json=ask(**{"stream": False, **body}))

    @asynccontextmanager
    async def chat(self, headers: Mapping[str, str] | None = None, /, **body: Any) -> AsyncIterator[RawStream]:
        """A chat stream whose head is here; leaving hangs up."""
        async with self.client() as client:
            yield await client.stream("POST", CHAT, headers, json=ask(**body))

    @asynccontextmanager
    async def read(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[RawStream]:
        """A GET whose head is here; leaving hangs up."""
        async with self.client() as client:
            yield await client.stream("GET", path, headers)

    async def control(self, sid: str, op: str, headers: Mapping[str, str] | None = None, **body: Any) -> Answer:
        """Pause, resume or cancel."""
        return await self.call("POST", f"/v1/streams/{sid}/{op}", headers, json=body or None)

    async def status(self, sid: str) -> dict[str, Any]:
        """The status object."""
        answer = await self.call("GET", f"/v1/streams/{sid}")
        assert answer.status == 200, answer
        return dict(answer.json)

    async def native(self, sid: str, query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """All events of an ended stream, in Atlas's own format."""
        return await self.call("GET", f"/v1/streams/{sid}/events{query}", headers)

    @property
    def channels(self) -> int:
        """Streams that somebody in this process owns or reads."""
        return len(self.app.services.pipeline.hub.channels)


_journal: ContextVar[dict[str, Any] | None] = ContextVar("journal", default=None)


@contextmanager
def over_redis() -> Iterator[None]:
    """Houses that are built meanwhile keep their streams in the shared redis-server, which is empty before."""
    server = shared_redis()
    server.flush()
    token = _journal.set({"kind": "redis", "url": server.url})
    try:
        yield
    finally:
        _journal.reset(token)


@asynccontextmanager
async def house(
    *plans: Plan,
    clock: Clock | None = None,
    endpoint: Mapping[str, Any] | None = None,
    api_key: str | None = None,
    checked: bool = True,
    **sections: Any,
) -> AsyncIterator[House]:
    """A provider for each plan, behind one route in this order, and Atlas with these sections of settings.

    A house within another is not `checked` for what it leaves: the other one lives meanwhile. Within `over_redis` the
    journal is in Redis, unless the sections say otherwise.
    """
    sections = {"journal": _journal.get(), **sections} if _journal.get() is not None else sections
    async with baseline() if checked else nullcontext():
        ups = [ChaosProvider(plan, api_key=api_key) for plan in plans or (Plan(),)]
        for up in ups:
            await up.__aenter__()
        try:
            app = create(atlas_settings(*ups, endpoint=endpoint, **sections), clock=clock)
            async with AtlasServer(app) as atlas:
                yield House(app, atlas, ups)
        finally:
            for up in ups:
                await up.__aexit__(None, None, None)


def sid_of(answer: RawStream | Answer) -> str:
    """The stream's id, from the head of its answer."""
    return answer.headers["x-atlas-stream-id"]


__all__ = ["CHAT", "MESSAGES", "MODEL", "House", "Received", "ask", "house", "run", "sdk", "sid_of"]
