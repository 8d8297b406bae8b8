"""How the journal asks Redis: on lanes, by key, with the journal's own errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.streams import layout_redis as layout
from gateway.streams.journal import JournalError, JournalFull, JournalUnavailable
from gateway.upstream.link_redis import LinkDown, LinkRefused
from gateway.upstream.resp import ErrorReply, Reply

if TYPE_CHECKING:
    from gateway.upstream.lanes_redis import Lanes
    from gateway.upstream.link_redis import Script


class Asking:
    """Questions on `lanes`. All of them raise `JournalUnavailable` if Redis says nothing, or not what was asked."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes

    async def ask(self, key: str, *commands: bytes) -> list[Reply]:
        """The replies to idempotent commands of one key."""
        try:
            replies = await self.lanes.ask(key, *commands)
        except LinkDown as error:
            raise JournalUnavailable(str(error)) from error
        for reply in replies:
            if isinstance(reply, ErrorReply):
                raise _refused(LinkRefused(reply))
        return replies

    async def call(self, script: Script, sid: str, *arguments: bytes | str | float) -> Reply:
        """What a script makes of a stream."""
        return await self.run(script, layout.keys_of(sid), *arguments)

    async def run(self, script: Script, keys: list[str], *arguments: bytes | str | float) -> Reply:
        """What a script makes of these keys."""
        try:
            return await self.lanes.call(script, keys, *arguments)
        except LinkDown as error:
            raise JournalUnavailable(str(error)) from error
        except LinkRefused as error:
            raise _refused(error) from error


def _refused(error: LinkRefused) -> JournalError:
    if error.code == "OOM":
        return JournalFull("Redis is out of memory")
    return JournalUnavailable(str(error))
