"""Reconnect: hang up in the middle of an answer, come back with the last event's id, and miss not one character."""

import httpx
from local_gateway import MODEL, TIMEOUT, events, gateway, refused

HEADERS = {"x-atlas-on-disconnect": "continue"}  # by default an answer that nobody reads any more is cancelled


def begin(client: httpx.Client) -> str:
    """The id of a stream, whose creating response is left at once."""
    body = {"model": MODEL, "stream": True, "max_tokens": 60, "messages": [{"role": "user", "content": "Tell me."}]}
    with client.stream("POST", "/v1/chat/completions", json=body, headers=HEADERS) as answer:
        if answer.status_code != 200:
            raise SystemExit(refused(answer))
        return str(answer.headers["x-atlas-stream-id"])


def read(client: httpx.Client, stream: str, after: str | None, most: int | None = None) -> tuple[str, str | None]:
    """The text behind a cursor and the new cursor; of at most so many events, then it hangs up."""
    headers = {} if after is None else {"last-event-id": after}
    text, count = "", 0
    with client.stream("GET", f"/v1/streams/{stream}/events", headers=headers) as feed:
        if feed.status_code != 200:
            raise SystemExit(refused(feed))
        for id_, kind, data in events(feed):
            after, count = id_, count + 1
            if kind == "text":
                text += data["text"]
                print(data["text"], end="", flush=True)
            elif kind == "end" and data["state"] == "failed":
                raise SystemExit(f"\nthe answer failed: {data['error']['message']}")
            if count == most:
                break
    return text, after


def main() -> None:
    """In three pieces, and once more as a whole."""
    with gateway() as url, httpx.Client(base_url=url, timeout=TIMEOUT) as client:
        stream, cursor, text = begin(client), None, ""
        for most in (10, 20, None):
            piece, cursor = read(client, stream, cursor, most)
            text += piece
            print(f" [hung up at {cursor}] " if most else "\n", end="")
        whole = client.get(f"/v1/streams/{stream}/text").raise_for_status().json()["text"]
        print("the pieces are the whole:", text == whole)


if __name__ == "__main__":
    try:
        main()
    except httpx.HTTPError as error:
        raise SystemExit(f"the gateway did not answer: {error!r}") from error
