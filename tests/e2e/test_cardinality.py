"""Callers cannot make the metrics grow: whatever they name, no label takes it."""

import asyncio

from tests.e2e.house import CHAT, House, ask, house, run
from tests.support.chaos import Plan

METHODS = ("GET", "POST", "DELETE", "PROPFIND", "TRACE")


def test_names_of_callers_make_no_series() -> None:
    """After one round of models, paths, agents, ids and methods that callers made up, another one adds no series."""

    async def scenario() -> None:
        async with house(Plan(tokens=1)) as it:
            await _series(it)  # which is a request, too
            await _made_up(it, "a")
            before = await _series(it)
            await _made_up(it, "b")
            assert await _series(it) == before
            assert not [name for name in before if "made-up" in name or "mock-fast-" in name]

    run(scenario())


async def _made_up(it: House, mark: str) -> None:
    for at, number in enumerate("123"):
        name = f"made-up-{mark}{number}"
        models = (name, f"chaos/{name}", f"agent/{name}", f'chaos/{name}"}}\n', f"mock-fast-{ord(mark)}{number}")
        await asyncio.gather(*(it.call("POST", CHAT, json=ask(model, stream=at == 1)) for model in models))
        paths = (f"/{name}", f"/v1/{name}", f"/v1/streams/{name}/events?{name}", f"/v1/models/{name}/{name}",
                 f"/v1/agents/{name}/runs", f"/v1/pool/{name}/probe", f"/%7B{name}%7D", f"/v1/../{name}")  # fmt: skip
        for method in METHODS:
            await asyncio.gather(*(it.call(method, path) for path in paths))
        await it.call("POST", CHAT, {"x-atlas-on-disconnect": name, "idempotency-key": name}, json=ask())


async def _series(it: House) -> set[str]:
    """Every series by its name and labels."""
    lines = (await it.call("GET", "/metrics")).body.decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}
