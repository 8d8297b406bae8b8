"""Sockets that are slow, idle or greedy on purpose, many at once, and how long a gateway lets them live.

They are a process of their own, so that callers elsewhere do not wait for them: `python -m bench.slow PORT KEY COUNT`.
"""

import asyncio
import sys
from contextlib import suppress
from time import monotonic

from bench.callers import OPEN_AT_ONCE
from bench.wire import HOST

LIVES_S = 11.0
"""Within so long all of them have to be gone."""
LIMIT_S = 60.0
"""For all of them, with the time that it takes to open them."""
TRICKLE_S = 0.5
PIECE = 65_536
"""Bytes that are sent at once."""

_HOST = b"Host: 127.0.0.1\r\n"
_GET = b"GET /livez HTTP/1.1\r\n" + _HOST
_POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + _HOST + b"Content-Type: application/json\r\n"
KINDS: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "slow head": (_GET, b"x"),
    "half a head": (_GET, b""),
    "idle": (_GET + b"\r\n", b""),
    "5 MB of headers": (_GET + (b"x: " + b"y" * 1000 + b"\r\n") * 5000, b""),
    "20,000 headers": (_GET + b"a: b\r\n" * 20_000, b""),
    "one endless header": (_GET + b"x: ", b"y" * 200),
    "slow body": (_POST + b"Authorization: Bearer %b\r\nContent-Length: 100000\r\n\r\n{", b" "),
}
"""What is sent at once, and what again and again."""


async def against(port: int, key: str, count: int) -> tuple[int, float]:
    """So many, from another process; returns how many were left in the end and seconds until the last was gone."""
    command = (sys.executable, "-m", "bench.slow", str(port), key, str(count))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(LIMIT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    left, gone_s = said.split()
    return int(left), float(gone_s)


class Sockets:
    """Many of them against one port. `left` are those that were still open in the end."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key.encode("ascii")
        self.left = 0
        self._opening = asyncio.Semaphore(OPEN_AT_ONCE)

    async def run(self, count: int) -> float:
        """Open so many, of all kinds in turn; returns seconds until the last was gone, at most `LIVES_S`."""
        kinds = list(KINDS.values())
        return max(await asyncio.gather(*(self._one(*kinds[at % len(kinds)]) for at in range(count))))

    async def _one(self, first: bytes, again: bytes) -> float:
        async with self._opening:
            reader, writer = await asyncio.open_connection(HOST, self._port)
        begun = monotonic()
        try:
            async with asyncio.timeout(LIVES_S):
                with suppress(ConnectionError):
                    await self._bother(reader, writer, first.replace(b"%b", self._key), again)
        except TimeoutError:
            self.left += 1
        finally:
            writer.transport.abort()
        return monotonic() - begun

    @staticmethod
    async def _bother(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, again: bytes) -> None:
        """Send, and trickle, until the other side closes."""
        reading = asyncio.ensure_future(reader.read(-1))
        try:
            for at in range(0, len(first), PIECE):
                writer.write(first[at : at + PIECE])
                await writer.drain()
            while not reading.done():
                await asyncio.wait([reading], timeout=TRICKLE_S)
                if again and not reading.done():
                    writer.write(again)
            await reading
        finally:
            reading.cancel()


def main() -> None:
    """Print how many were left, and how long the last one lived, in seconds."""
    port, key, count = sys.argv[1:]
    sockets = Sockets(int(port), key)
    gone_s = asyncio.run(sockets.run(int(count)))
    print(sockets.left, gone_s)


if __name__ == "__main__":
    main()
