"""What Redis is like at start: whether it can hold a journal, and what its operator should know."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.upstream.link_redis import LinkDown
from gateway.upstream.resp import ErrorReply, Reply, command
from gateway.upstream.slots_redis import ranges_of

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
    """Look at version, eviction and persistence, on a connection of its own; in a cluster at every master's.

    Raises:
        LinkDown: not reached, or it did not let us in.
    """
    if not link.is_cluster:
        return await _look_at(link)
    try:
        found = await _masters_of(link)
    except ValueError as error:
        return Report(version="unknown", role="none", refusals=(f"this is no cluster: {error}",))
    reports = [await _look_at(link.at(*master, lambda _up: None)) for master in sorted(found)]
    return replace(
        reports[0], refusals=tuple(dict.fromkeys(word for report in reports for word in report.refusals)),
        warnings=tuple(dict.fromkeys(word for report in reports for word in report.warnings)),
    )  # fmt: skip


async def _masters_of(link: Link) -> set[tuple[str, int]]:
    """Where the masters are, as the first seed says that answers.

    Raises:
        LinkDown: none did.
        ValueError: it knows of no cluster.
    """
    for _ in range(link.seeds - 1):
        with suppress(LinkDown):
            wire = await link.connect(plain=True)
            break
    else:
        wire = await link.connect(plain=True)
    try:
        (reply,) = await wire.exchange(command("CLUSTER", "SLOTS"), 1, link.timing.reply_s)
    finally:
        wire.abort()
    return {(found.host, found.port) for found in ranges_of(reply, link.seed[0])}


async def _look_at(link: Link) -> Report:
    wire = await link.connect(plain=True)
    try:
        asked = command("INFO") + command("CONFIG", "GET", "save")
        info, save = await wire.exchange(asked, 2, link.timing.reply_s)
    finally:
        wire.abort()
    if isinstance(info, ErrorReply):
        return Report(version="unknown", warnings=(f"Redis does not say what it is: {info.text}",))
    about = dict(re.findall(r"(?m)^(\w+):(.*?)\r?$", info.decode()))
    report = _judge(about, save)
    if about.get("cluster_enabled") == "1" and not link.is_of_cluster:
        why = "this is a node of a cluster: its URL begins with redis+cluster:// or rediss+cluster://"
        return replace(report, refusals=(*report.refusals, why))
    return report


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
