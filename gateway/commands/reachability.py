"""What the doctor finds on the network: Redis, and every provider, without a call that costs anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.commands.finding import Finding, note, ok, wrong
from gateway.core.clock import SystemClock
from gateway.core.errors import ProviderError
from gateway.pool_from_settings import reach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config.settings import Endpoint, Settings
    from gateway.upstream.link_redis import Link

PROVIDER_S = 10.0
REDIS_S = 10.0
SKEW_S = 1.0


def look_around(settings: Settings, *, ask_providers: bool = True) -> list[Finding]:
    """Redis and the providers, all at once."""
    return asyncio.run(_look_around(settings, ask_providers=ask_providers))


async def _look_around(settings: Settings, *, ask_providers: bool) -> list[Finding]:
    asked = [each for each in settings.endpoints if ask_providers and each.base_url is not None]
    async with asyncio.TaskGroup() as tasks:
        redis = tasks.create_task(_journal(settings))
        providers = [tasks.create_task(_provider(each)) for each in asked]
    return [*redis.result(), *(each for task in providers for each in task.result())]


async def _journal(settings: Settings) -> list[Finding]:
    journal = settings.journal
    if journal.kind == "memory" or journal.url is None:
        return [note("journal", "in memory: streams end with the process, and there can be one gateway only",
                     "journal.kind redis keeps them")]  # fmt: skip
    from gateway.upstream.link_redis import Link, LinkDown  # noqa: PLC0415  most gateways have no Redis

    try:
        link = Link(journal.url, SystemClock())
    except ValueError as error:
        return [wrong("redis", str(error))]
    try:
        async with asyncio.timeout(REDIS_S):
            return await _redis(link)
    except LinkDown as error:
        why = str(error).rstrip(".")
        return [wrong("redis", f"{link.shown} cannot be reached ({why})", "start it, or set journal.degrade")]
    except TimeoutError:
        return [wrong("redis", f"{link.shown} did not answer within {REDIS_S:g} s")]


async def _redis(link: Link) -> list[Finding]:
    from gateway.upstream.check_redis import check  # noqa: PLC0415

    report = await check(link)
    found = [wrong("redis", f"{link.shown}: {refusal}") for refusal in report.refusals]
    found += [note("redis", f"{link.shown}: {warning}") for warning in report.warnings]
    if not report.refusals:
        found.append(ok("redis", f"{link.shown} is {report.version}, {report.maxmemory_policy}, {report.persistence}"))
    return [*found, *await _clock(link)]


async def _clock(link: Link) -> list[Finding]:
    """How far this machine's clock is from that of Redis, give or take half of the round trip."""
    from gateway.upstream.resp import ErrorReply, command  # noqa: PLC0415

    wire = await link.connect(plain=True)
    try:
        before = SystemClock.now()
        (reply,) = await wire.exchange(command("TIME"), 1, link.timing.reply_s)
        after = SystemClock.now()
    finally:
        wire.abort()
    if isinstance(reply, ErrorReply):
        return [note("clock", f"Redis does not tell its time: {reply.text}")]
    return list(skew(int(reply[0]) + int(reply[1]) / 1e6, before, after))


def skew(theirs: float, before: float, after: float) -> Iterator[Finding]:
    """What follows from Redis's time, asked between two moments of this machine's clock; all in Unix seconds."""
    off = theirs - (before + after) / 2
    if abs(off) - (after - before) / 2 > SKEW_S:
        side = "behind" if off > 0 else "ahead of"
        yield wrong("clock", f"this machine is {abs(off):.1f} s {side} Redis: expiry and order of streams are off",
                    "keep both in time, with NTP")  # fmt: skip
    else:
        yield ok("clock", f"within {max(abs(off), after - before):.3f} s of Redis")


async def _provider(found: Endpoint) -> list[Finding]:
    """One endpoint, with each of its keys."""
    subject = f"endpoint {found.name}"
    try:
        async with asyncio.timeout(PROVIDER_S):
            statuses = await reach(found)
    except TimeoutError:
        return [wrong(subject, f"no answer within {PROVIDER_S:g} s")]
    except (ProviderError, OSError) as error:
        return [wrong(subject, str(error), "see base_url, proxy and ca_file")]
    return [_judged(subject, status, number, len(found.keys)) for number, status in enumerate(statuses)]


def _judged(subject: str, status: int, number: int, keys: int) -> Finding:
    """What a status says; `number` is the key's place."""
    key = f"key {number + 1} of {keys}" if keys > 1 else "its key"
    match status:
        case 401 | 403 if keys:
            return wrong(subject, f"{key} is refused (status {status})", "see keys and auth of this endpoint")
        case 401 | 403:
            return wrong(subject, f"it wants a key and has none (status {status})", "see keys of this endpoint")
        case 404 | 405:
            return note(subject, f"answers, but has no list of models there (status {status})", "see base_url")
        case 429:
            return note(subject, f"{key} is over its limit at the moment")
        case _ if status >= 500:
            return wrong(subject, f"answers with status {status}")
        case _ if status >= 400:
            return note(subject, f"answers with status {status} when asked for its models")
        case _:
            return ok(subject, f"answers, and takes {key}" if keys else "answers")
