"""A server that writes the bytes it is given, for answers that are no HTTP, and for more than one answer."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

RESET = b"<RST>"


@asynccontextmanager
async def raw_server(*answers: bytes) -> AsyncIterator[str]:
    """Serves one connection after another: answer n to the nth request, then FIN, or RST where an answer ends so.

    An empty answer closes at once. Yields the URL.
    """
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                answer = left.pop(0)
                writer.write(answer.removesuffix(RESET))
                await writer.drain()
                if answer.endswith(RESET):
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
                    break
                if b"content-length" not in answer.lower():
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    finally:
        server.close()
        await server.wait_closed()
