"""Several agents over several providers: a controller plans, workers do the steps side by side, the tree is live.

Every agent has a provider of its own. The run is paused in the middle: while it is, no further step begins.
"""

import httpx
from local_gateway import TIMEOUT, events, gateway, refused

CONFIG = {
    "endpoints": [
        {"name": "planner", "kind": "mock", "model": "mock-fast"},
        {"name": "library", "kind": "mock", "model": "mock"},
        {"name": "typewriter", "kind": "mock", "model": "mock"},
    ],
    "routes": [
        {"model": "plans", "endpoints": ["planner"]},
        {"model": "facts", "endpoints": ["library", "planner"]},
        {"model": "texts", "endpoints": ["typewriter", "planner"]},
    ],
    "agents": [
        {
            "name": "editor", "kind": "controller", "route": "plans", "workers": ["researcher", "writer"],
            "on_failure": "report", "limits": {"max_steps": 5, "max_workers": 2, "step_s": 30, "usd": 0.50},
        },
        {
            "name": "researcher", "kind": "worker", "route": "facts", "description": "finds facts",
            "task_types": ["extraction"], "options": {"max_output_tokens": 30},
        },
        {
            "name": "writer", "kind": "worker", "route": "texts", "description": "writes clear text",
            "task_types": ["writing"], "options": {"max_output_tokens": 30},
        },
    ],
}  # fmt: skip

TASK = "Write a short text about lighthouses, with facts."


def show(kind: str, data: dict[str, object], said: dict[object, str]) -> None:
    """One line of the tree."""
    step, place = data.get("step"), f"  {data.get('agent', '')!s:10} {data.get('step', '')!s:8}"
    match kind, data.get("kind"):
        case "progress", "plan":
            for row in data["steps"]:  # type: ignore[attr-defined]
                print(f"  plan       {row['id']:8} {row['worker']}: {row['goal']} after {row['after'] or 'nothing'}")
        case "progress", "text":
            said[step] = said.get(step, "") + str(data["text"])
        case "progress", "selected":
            print(f"{place} asks {data['endpoint']}")
        case "progress", "step_started":
            print(f"{place} begins")
        case "progress", "step_done":
            print(f"{place} is done: {said.get(step, '')[:60]!r}...")
        case "progress", "step_failed":
            print(f"{place} FAILED: {data['error']}")
        case "text", _:
            print(data["text"], end="", flush=True)
        case _:
            pass


def main() -> None:
    """One run, watched, paused and resumed."""
    with gateway(CONFIG) as url, httpx.Client(base_url=url, timeout=TIMEOUT) as client:
        begun = client.post("/v1/agents/editor/runs", json={"input": TASK, "background": True})
        if begun.status_code != 202:
            raise SystemExit(refused(begun))
        run, said, paused = begun.json()["id"], dict[object, str](), False
        with client.stream("GET", f"/v1/streams/{run}/events") as feed:
            for _, kind, data in events(feed):
                show(kind, data, said)
                if data.get("kind") == "step_started" and not paused:
                    paused = True
                    print("  -- paused:", client.post(f"/v1/streams/{run}/pause").json()["stream"]["state"])
                    print("  -- resumed:", client.post(f"/v1/streams/{run}/resume").json()["stream"]["state"])
        shown = client.get(f"/v1/streams/{run}").raise_for_status().json()
        print(f"\n\n{run}: {shown['state']}, {len(shown['run']['calls'])} calls,",
              f"{shown['usage']['output_tokens']} tokens, ${shown['cost_usd'] or 0:g}")  # fmt: skip
        if shown["state"] == "failed":
            raise SystemExit(shown["error"]["message"])


if __name__ == "__main__":
    try:
        main()
    except httpx.HTTPError as error:
        raise SystemExit(f"the gateway did not answer: {error!r}") from error
