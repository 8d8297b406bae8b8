"""A group of providers: one route, three endpoints; who fails is passed over, and the answer says who was asked."""

import httpx
from local_gateway import TIMEOUT, gateway, refused

CONFIG = {
    "endpoints": [
        {"name": "overloaded", "kind": "mock", "model": "mock-503"},
        {"name": "limited", "kind": "mock", "model": "mock-429"},
        {"name": "healthy", "kind": "mock", "model": "mock-fast"},
    ],
    "routes": [
        {"model": "smart", "endpoints": ["overloaded", "limited", "healthy"]},
        {"model": "hopeless", "endpoints": ["overloaded", "limited"]},
    ],
}
"""With accounts: {"name": "gpt", "preset": "openai", "keys": ["${OPENAI_API_KEY}"], "model": "gpt-5.2"} and so on."""


def ask(client: httpx.Client, model: str) -> httpx.Response:
    """One question."""
    body = {"model": model, "max_tokens": 15, "messages": [{"role": "user", "content": "Who answers?"}]}
    return client.post("/v1/chat/completions", json=body)


def main() -> None:
    """A route that can be saved, and one that cannot."""
    with gateway(CONFIG) as url, httpx.Client(base_url=url, timeout=TIMEOUT) as client:
        answer = ask(client, "smart")
        if answer.status_code != 200:
            raise SystemExit(refused(answer))
        print(answer.json()["choices"][0]["message"]["content"])
        head = answer.headers
        print("answered by", head["x-atlas-endpoint"], "after", head["x-atlas-attempts"], "attempts:")
        for attempt in client.get(f"/v1/streams/{head['x-atlas-stream-id']}").raise_for_status().json()["attempts"]:
            print("  ", attempt)
        print("\nand where nobody can:", refused(ask(client, "hopeless")))


if __name__ == "__main__":
    try:
        main()
    except httpx.HTTPError as error:
        raise SystemExit(f"the gateway did not answer: {error!r}") from error
