"""Enhanced streaming: several providers behind one answer that can be paused, resumed, cancelled and read again.

The first provider breaks off in the middle of its answer; the second one goes on with it. Meanwhile the stream is
paused and resumed by its id, as anybody who has that could, and another one is cancelled.
"""

import asyncio
import json

import httpx
from local_gateway import TIMEOUT, gateway, refused

CONFIG = {
    "endpoints": [
        {"name": "fragile", "kind": "mock", "model": "mock-cut-40", "continuation": "instruct"},
        {"name": "steady", "kind": "mock", "model": "mock", "continuation": "instruct"},
    ],
    "routes": [{"model": "smart", "endpoints": ["fragile", "steady"], "fallback": {"mid_stream": "continue"}}],
}


class Answer:
    """One streamed answer: its id, and what its reader has of it so far."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client, self.id, self.text = client, "", ""
        self.grown = asyncio.Event()

    async def read(self, **members: object) -> str:
        """Ask, and read to the end; returns why it ended."""
        body = {"model": "smart", "stream": True, "messages": [{"role": "user", "content": "Go on."}], **members}
        async with self.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
                raise SystemExit(refused(answer))
            self.id = answer.headers["x-atlas-stream-id"]
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    return str(chunk["error"]["code"])
                for choice in chunk["choices"]:
                    self.text += choice["delta"].get("content") or ""
                    self.grown.set()
        return "whole"

    async def until(self, characters: int) -> None:
        """Return once the reader has so many characters."""
        while len(self.text) < characters:
            self.grown.clear()
            await self.grown.wait()

    async def control(self, step: str) -> dict[str, object]:
        """Pause, resume or cancel; a step that was not possible says why."""
        done = await self.client.post(f"/v1/streams/{self.id}/{step}", json={"reason": "an example"})
        if done.status_code not in {200, 202}:
            raise SystemExit(refused(done))
        return dict(done.json())


async def main(url: str) -> None:
    """One answer paused and healed, another one cancelled."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT) as client, asyncio.TaskGroup() as tasks:
        first, second = Answer(client), Answer(client)
        reading = tasks.create_task(first.read(max_tokens=160))
        await first.until(60)
        seq = (await first.control("pause"))["seq"]
        await asyncio.sleep(0.3)
        before = len(first.text)
        print(f"paused behind event {seq}; the reader has {before} characters")
        await asyncio.sleep(1)
        print(f"a second later it has {len(first.text)}, while the provider was read on into the log")
        await first.control("resume")
        print(f"resumed; the answer ended: {await reading}\n\n{first.text}\n")
        for leg in (await client.get(f"/v1/streams/{first.id}")).raise_for_status().json()["legs"]:
            print(f"leg {leg['leg']} by {leg['endpoint']} ({leg['strategy']}): {leg['end']}")

        reading = tasks.create_task(second.read())
        await second.until(30)
        cancelled = await second.control("cancel")
        print(f"\ncancelled: the provider's socket is {cancelled['upstream']}; its reader was told {await reading}")


if __name__ == "__main__":
    with gateway(CONFIG) as base_url:
        try:
            asyncio.run(main(base_url))
        except* httpx.HTTPError as group:
            raise SystemExit(f"the gateway did not answer: {group.exceptions[0]!r}") from group
