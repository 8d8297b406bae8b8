"""A task-aware agent: it looks what kind of task it is given, and asks for a provider that is good at that.

Two endpoints say what they are good at; the agent says what a task needs; the route brings both together.
"""

import httpx
from local_gateway import TIMEOUT, events, gateway, refused

CONFIG = {
    "endpoints": [
        {"name": "coder", "kind": "mock", "model": "mock-fast", "profile": {"strengths": {"coding": 0.9}}},
        {"name": "reader", "kind": "mock", "model": "mock-fast", "profile": {"strengths": {"extraction": 0.9}}},
    ],
    "routes": [{"model": "any-of-them", "endpoints": ["coder", "reader"], "strategy": "task_aware"}],
    "agents": [
        {
            "name": "assistant", "kind": "task_aware", "route": "any-of-them", "instructions": "Be brief.",
            "options": {"max_output_tokens": 25},
        },
    ],
}  # fmt: skip

TASKS = (
    "Write a Python function that reverses a linked list.",
    "Extract all dates from the following text: signed on 3 May, paid on 9 June.",
)


def run(client: httpx.Client, task: str) -> None:
    """One run, with what it tells about itself."""
    print(f"\n> {task}")
    with client.stream("POST", "/v1/agents/assistant/runs", json={"input": task, "stream": True}) as feed:
        if feed.status_code != 200:
            raise SystemExit(refused(feed))
        for _, kind, data in events(feed):
            if kind == "progress" and data["kind"] == "task":
                print(f"  this is {data['type']} ({data['why']}), which needs {data['needs']}")
            elif kind == "progress" and data["kind"] == "selected":
                others = ", ".join(name for name in data["considered"] if name != data["endpoint"])
                print(f"  asked {data['endpoint']} before {others}, by {data['strategy']}: {data['why']}\n  ", end="")
            elif kind == "text":
                print(data["text"], end="", flush=True)
            elif kind == "end" and data["state"] == "failed":
                raise SystemExit(f"the run failed: {data['error']['message']}")
    print()


def main() -> None:
    """Two tasks, and how it went."""
    with gateway(CONFIG) as url, httpx.Client(base_url=url, timeout=TIMEOUT) as client:
        for task in TASKS:
            run(client, task)
        print("\nhow it has done so far:")
        for row in client.get("/v1/agents/assistant").raise_for_status().json()["statistics"]:
            print(f"  {row['task']:12} {row['endpoint']:8} {row['calls']} calls, {row['success']:.0%} whole,",
                  f"first token after {row['first_token_ms']} ms")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except httpx.HTTPError as error:
        raise SystemExit(f"the gateway did not answer: {error!r}") from error
