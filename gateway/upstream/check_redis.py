"""What Redis is like at start: whether it can hold a journal, and what its operator should know."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.upstream.resp import ErrorReply, Reply, command

if TYPE_CHECKING:
    from gateway.upstream.link_redis import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What Redis is, at start. `refusals` are reasons not to start, `warnings` are to be said."""

    version: str
    maxmemory_policy: str = "unknown"
    persistence: str = "unknown"
    role: str = "unknown"
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


async def check(link: Link) -> Report:
    """Look at version, eviction and persistence, on a connection of its own.

    Raises:
        LinkDown: not reached, or it did not let us in.
    """
    wire = await link.connect(plain=True)
    try:
        asked = command("INFO") + command("CONFIG", "GET", "save")
        info, save = await wire.exchange(asked, 2, link.timing.reply_s)
    finally:
        wire.abort()
    if isinstance(info, ErrorReply):
        return Report(version="unknown", warnings=(f"Redis does not say what it is: {info.text}",))
    return _judge(dict(re.findall(r"(?m)^(\w+):(.*?)\r?$", info.decode())), save)


def _judge(info: dict[str, str], save: Reply) -> Report:
    version, policy = info.get("redis_version", "0"), info.get("maxmemory_policy", "unknown")
    role = info.get("role", "unknown")
    refusals: list[str] = []
    warnings: list[str] = []
    with suppress(ValueError):
        if int(version.partition(".")[0]) < 7:
            refusals.append(f"Redis 7.0 or newer is needed, this is {version}")
    if policy.startswith("volatile-"):
        warnings.append(f"maxmemory-policy {policy} may evict logs: noeviction is the safe one")
    elif policy != "noeviction":
        refusals.append(f"maxmemory-policy {policy} drops logs without a word: set noeviction")
    if role == "slave":
        refusals.append("this is a replica: name the master")
    persistence = "aof" if info.get("aof_enabled") == "1" else "unknown" if isinstance(save, ErrorReply) else "rdb"
    if persistence == "rdb" and save[1:] in ([], [b""]):
        persistence = "none"
        warnings.append("nothing is persisted: a restart of Redis loses all streams (appendonly yes)")
    return Report(
        version=version, maxmemory_policy=policy, persistence=persistence, role=role, refusals=tuple(refusals),
        warnings=tuple(warnings),
    )  # fmt: skip
