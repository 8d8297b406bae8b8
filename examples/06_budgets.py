"""Budgets: an answer stops at the token where its budget ends, and says so; a prompt that does not fit is refused."""

import httpx
from local_gateway import MODEL, TIMEOUT, gateway, refused


def ask(client: httpx.Client, budget: str, text: str) -> httpx.Response:
    """One question with a budget of its own. Keys and tenants have lasting ones: see `budgets` in the configuration."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return client.post("/v1/chat/completions", json=body, headers={"x-atlas-budget": budget})


def main() -> None:
    """Enough, too little, nothing at all."""
    with gateway() as url, httpx.Client(base_url=url, timeout=TIMEOUT) as client:
        for budget in ("tokens=1000", "tokens=40"):
            answer = ask(client, budget, "Tell me about budgets.")
            if answer.status_code != 200:
                raise SystemExit(refused(answer))
            choice = answer.json()["choices"][0]
            shown = client.get(f"/v1/streams/{answer.headers['x-atlas-stream-id']}").raise_for_status().json()
            print(f"{budget}: {shown['state']} ({shown['reason'] or 'whole'}),",
                  f"finish_reason {choice['finish_reason']}, {shown['usage']['output_tokens']} tokens")  # fmt: skip
            print("  ", choice["message"]["content"][-60:], "\n")
        print("tokens=10:", refused(ask(client, "tokens=10", "A prompt that is longer than that. " * 10)))
        print("tokens=many:", refused(ask(client, "tokens=many", "Hello")))


if __name__ == "__main__":
    try:
        main()
    except httpx.HTTPError as error:
        raise SystemExit(f"the gateway did not answer: {error!r}") from error
