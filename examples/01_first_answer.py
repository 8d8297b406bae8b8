"""A first answer: ask over plain HTTP, print it as it comes, and look at the stream that it left behind."""

import json

import httpx
from local_gateway import MODEL, TIMEOUT, gateway, refused


def main() -> None:
    """Ask once."""
    body = {"model": MODEL, "stream": True, "max_tokens": 40, "messages": [{"role": "user", "content": "Hello!"}]}
    with gateway() as url, httpx.Client(base_url=url, timeout=TIMEOUT) as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                raise SystemExit(refused(answer))
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise SystemExit(f"the answer broke off: {chunk['error']['message']}")
                    for choice in chunk["choices"]:
                        print(choice["delta"].get("content") or "", end="", flush=True)
            stream = answer.headers["x-atlas-stream-id"]
        shown = client.get(f"/v1/streams/{stream}").raise_for_status().json()
        cost = "no price known" if shown["cost_usd"] is None else f"${shown['cost_usd']:g}"
        print(f"\n\n{stream}: {shown['state']}, {shown['usage']['output_tokens']} tokens, {cost}")
        print("first token after", shown["metrics"]["ttft_ms"], "ms, by", shown["legs"][0]["endpoint"])


if __name__ == "__main__":
    try:
        main()
    except httpx.HTTPError as error:
        raise SystemExit(f"the gateway did not answer: {error!r}") from error
