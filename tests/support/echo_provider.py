"""A provider that tells everybody everything: whatever it is asked, its errors repeat the whole request, key included.

The model's name says how it fails: `status-<n>`, `in-stream` (after some content), `broken` (an event that is no JSON),
`html`, `cut`; anything else is answered.
"""

import asyncio
import json
from typing import Any, Self


class EchoProvider:
    """Listens on a free loopback port while entered; `asked` holds every request as it came."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes for its base."""
        assert self._server is not None, "it was not entered"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None, "it was not entered"
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").lower().split("\r\n")
            lengths = [int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")]
            body = await reader.readexactly(lengths[0] if lengths else 0)
            self.asked.append(head + body)
            writer.write(_answer(head + body, json.loads(body)["model"] if body else "status-401"))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _answer(request: bytes, model: str) -> bytes:
    """A whole answer, framed by the connection's end."""
    everything = request.decode("latin-1")
    said = {"message": f"I was asked {everything}", "code": "invalid_api_key", "param": everything, "type": everything}
    if model.startswith("status-"):
        return _http(int(model.removeprefix("status-")), "application/json", json.dumps({"error": said}))
    if model == "html":
        return _http(200, "text/html", f"<html>{everything}</html>")
    events = [_chunk({"content": "Some "})]
    if model == "in-stream":
        events.append(f"data: {json.dumps({'error': said})}\n\n")
    elif model == "broken":
        events += [f"data: {everything!r}\n\n", _chunk({"content": "text."}), _chunk({}, "stop"), "data: [DONE]\n\n"]
    elif model != "cut":
        events += [_chunk({"content": "text."}), _chunk({}, "stop"), "data: [DONE]\n\n"]
    return _http(200, "text/event-stream", "".join(events))


def _chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


def _http(status: int, content_type: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n"
    return head.encode() + body.encode("latin-1", "replace")
