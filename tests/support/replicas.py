"""Several gateways over one Redis, as an operator runs them: real processes, a real redis-server, a chaos provider.

    async with replicas(tmp_path) as it:                    # three: it.a, it.b, it.c
        sid = await it.begin(it.a, seed=7, plan=Plan(tokens=50, gate=gate))
        assert (await it.control(it.b, sid, "pause")).status == 200

Poll and sweep are short. The lease is not, or a process that stands still for a second would lose its streams: where an
owner dies, `journal=HASTY` has it taken over soon. The gateways are told nothing of one another.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.chaos import ChaosProvider, Plan
from tests.support.gateway_process import GatewayProcess
from tests.support.http import Answer, RawStream
from tests.support.redis_server import RedisServer
from tests.support.server import atlas_config
from tests.support.signals import PATIENCE_S

CHAT = "/v1/chat/completions"
PATIENT_LEASE_S, LEASE_S, POLL_S, SWEEP_S = 30.0, 1.0, 0.2, 0.2
HASTY = {"lease_s": LEASE_S}
TAKEN_OVER_S = LEASE_S + 10
"""So long after its owner's death a stream of a `HASTY` one has ended, or goes on elsewhere (streams.md, section 6)."""

TERMINAL = {"completed", "incomplete", "cancelled", "failed"}


@dataclass(slots=True, kw_only=True)
class Replicas:
    """What a test of several gateways talks to."""

    gateways: list[GatewayProcess]
    redis: RedisServer
    up: ChaosProvider
    _attached: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def a(self) -> GatewayProcess:
        """The first; tests let it own."""
        return self.gateways[0]

    @property
    def b(self) -> GatewayProcess:
        """The second."""
        return self.gateways[1]

    @property
    def c(self) -> GatewayProcess:
        """The third."""
        return self.gateways[2]

    async def attach(
        self, gateway: GatewayProcess, *, seed: int, plans: Plan | Sequence[Plan] = (), on_disconnect: str = "continue"
    ) -> RawStream:
        """Start a stream of the truth `seed`; its answer, whose head is here. It goes on when its client hangs up.

        `plans` are the provider's for this stream: of several the next one for each time that it is asked.
        """
        model = f"s{seed}"
        chosen = [plans] if isinstance(plans, Plan) else list(plans)
        self.up.plans[model] = [plan.with_(seed=seed) for plan in chosen or [Plan()]]
        client = await self._attached.enter_async_context(gateway.client())
        body = {"model": f"chaos/{model}", "stream": True, "messages": [{"role": "user", "content": "Say it."}]}
        answer = await client.stream("POST", CHAT, {"x-atlas-on-disconnect": on_disconnect}, json=body)
        assert answer.status == 200, (answer.status, await answer.read_cut())
        return answer

    async def begin(self, gateway: GatewayProcess, *, seed: int, plans: Plan | Sequence[Plan] = ()) -> str:
        """Start a stream, and its id."""
        return (await self.attach(gateway, seed=seed, plans=plans)).headers["x-atlas-stream-id"]

    async def call(
        self, gateway: GatewayProcess, method: str, path: str, headers: Mapping[str, str] | None = None,
        *, json: Any = None,
    ) -> Answer:  # fmt: skip
        """One request on a connection of its own."""
        async with gateway.client() as client:
            return await client.request(method, path, headers, json=json)

    async def control(self, gateway: GatewayProcess, sid: str, op: str, **body: Any) -> Answer:
        """Pause, resume or cancel."""
        return await self.call(gateway, "POST", f"/v1/streams/{sid}/{op}", json=body or None)

    async def status(self, gateway: GatewayProcess, sid: str) -> dict[str, Any]:
        """The status object."""
        answer = await self.call(gateway, "GET", f"/v1/streams/{sid}")
        assert answer.status == 200, answer
        return dict(answer.json)

    async def ended(self, gateway: GatewayProcess, sid: str) -> dict[str, Any]:
        """The status object, once it says that the stream has ended; 503s meanwhile do not count."""
        return await self._once(gateway, sid, lambda status: status["state"] in TERMINAL)

    async def settled(self, gateway: GatewayProcess, sid: str) -> dict[str, Any]:
        """The status object, once it says what the stream took: a moment after its end."""
        return await self._once(gateway, sid, lambda status: bool(status["legs"]))

    async def _once(self, gateway: GatewayProcess, sid: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(TAKEN_OVER_S + PATIENCE_S):
            while True:
                answer = await self.call(gateway, "GET", f"/v1/streams/{sid}")
                assert answer.status in {200, 503}, answer
                if answer.status == 200 and is_so(answer.json):
                    return dict(answer.json)
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def reading(
        self, gateway: GatewayProcess, sid: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[RawStream]:
        """The stream's events, natively; leaving hangs up."""
        async with gateway.client() as client:
            yield await client.stream("GET", f"/v1/streams/{sid}/events", headers)

    async def hang_up(self) -> None:
        """The clients that started streams go."""
        await self._attached.aclose()


@asynccontextmanager
async def replicas(
    folder: Path,
    n: int = 3,
    *,
    redis: Sequence[str] = (),
    endpoint: Mapping[str, Any] | None = None,
    journal: Mapping[str, Any] | None = None,
    **sections: Any,
) -> AsyncIterator[Replicas]:
    """So many gateways, named a, b, c and so on, all ready; `redis` are redis-server's options."""
    with RedisServer.started(*redis) as server:
        async with ChaosProvider() as up, AsyncExitStack() as stack:
            config = atlas_config(
                up,
                endpoint=endpoint,
                journal={
                    "kind": "redis", "url": server.url, "lease_s": PATIENT_LEASE_S,
                    "poll_s": POLL_S, "sweep_s": SWEEP_S, **(journal or {}),
                },
                **sections,
            )  # fmt: skip
            gateways = [GatewayProcess(config, folder, name=chr(ord("a") + at)) for at in range(n)]
            for gateway in gateways:
                stack.callback(gateway.kill)
            await asyncio.gather(*(gateway.start() for gateway in gateways))
            it = Replicas(gateways=gateways, redis=server, up=up)
            stack.push_async_callback(it.hang_up)
            yield it
