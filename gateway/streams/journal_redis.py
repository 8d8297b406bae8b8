"""The journal that replicas share: logs, records and indexes in Redis. Nothing is kept here but connections.

Appends go through the `writer_redis`; everything else is one script or one command, asked on a lane, idempotent, and
repeated for a few seconds if Redis does not answer. What is left unanswered then is `JournalUnavailable`, never a
success. Redis' own memory is the bound (`maxmemory` with noeviction): a full one takes no new stream, and appends wait.

Oddities, on purpose:
1. Indexes (a tenant's streams, paused streams) lie in other slots than the streams they name. They are written before,
   may name what is not there, and are checked and mended by whoever reads them.
2. A stream stays in the index of pauses until it ends: taking it out with a resume could overtake the next pause.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.core.events import TERMINAL, Claim, End, Pause, Resume, Start, State
from gateway.streams import layout_redis as layout
from gateway.streams.journal import (
    Appended,
    Entry,
    ExpiredStream,
    JournalError,
    JournalFull,
    JournalUnavailable,
    Known,
    Page,
    UnknownStream,
)
from gateway.streams.lifecycle import Answer, Op, Outcome, Record, Step
from gateway.streams.scripts_redis import Scripts
from gateway.streams.writer_redis import Batching, Writer
from gateway.upstream.lane_redis import Lane
from gateway.upstream.link_redis import Link, LinkDown, LinkRefused
from gateway.upstream.resp import ErrorReply, Reply, command

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.clock import Clock
    from gateway.upstream.link_redis import Script

LISTED = 100
"""Streams that one round trip of a listing looks at."""
_INDEX_SLACK_S = 604_800.0
"""How long beyond its record's life a stream that goes on and on is still listed."""
_BIRTH_S = 60.0
"""Longer than any create lasts, between its index and its record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Seconds; a live log slides with its owner's appends and with control, the others count from the end."""

    ttl_live_s: float = 1800.0
    ttl_terminal_s: float = 900.0
    ttl_record_s: float = 86_400.0
    ttl_idempotency_s: float = 86_400.0


class RedisJournal:
    """Logs in Redis. `run` is its task; what is asked before it runs waits."""

    def __init__(
        self,
        link: Link,
        lifetimes: Lifetimes,
        clock: Clock,
        *,
        scripts: Scripts | None = None,
        batching: Batching | None = None,
        on_batch: Callable[[int, float], None] = lambda _events, _seconds: None,
    ) -> None:
        self._clock = clock
        self._lifetimes = lifetimes
        self._live_ms = int(lifetimes.ttl_live_s * 1000)
        self._terminal_ms = int(lifetimes.ttl_terminal_s * 1000)
        self._record_ms = int(lifetimes.ttl_record_s * 1000)
        self.scripts = scripts or Scripts()
        link.scripts.extend(self.scripts.all())
        self._control, self._reads = Lane(link), Lane(link)
        self._writer = Writer(link, clock, self._touch, batching, on_batch)

    async def run(self) -> None:
        """Serve until cancelled: the writer, and a connection each for control and for reading."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._control.run(), name="redis control")
            tasks.create_task(self._reads.run(), name="redis reads")
            tasks.create_task(self._writer.run(), name="redis writer")

    async def create(self, record: Record, start: Start) -> Entry:
        """Make a log with its entry 0."""
        entry = Entry.of_control(record.gen, 0, start)
        fields: dict[str, bytes | str] = {
            "about": layout.about(record), "state": record.state, "on_expiry": record.on_pause_expiry
        }  # fmt: skip
        pairs: list[bytes | str] = [part for pair in fields.items() for part in pair]
        _, made = await asyncio.gather(  # one lane: in this order, and mostly in one pipeline
            self._ask(self._control, *self._indexing(record)),
            self._call(
                self._control, self.scripts.create, record.sid, record.owner, record.gen, entry.data, self._live_ms,
                self._record_ms, *pairs,
            ),
        )  # fmt: skip
        if made == b"taken":
            msg = f"there is a stream {record.sid} already"
            raise JournalError(msg)
        return entry

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        """Append at the end; settled later."""
        self._writer.append(sid, entry, settled)

    async def step(self, sid: str, step: Step) -> tuple[Answer, list[Entry]]:
        """Apply one control operation."""
        event, resume = _events_of(step)
        end_state = "" if step.end is None else step.end.state
        if step.op is Op.PAUSE:
            await self._mark_paused(sid, self._clock.now(), "NX")
        reply = await self._call(
            self._control, self.scripts.step, sid, step.op, step.op_id, secrets.token_hex(6),
            _or_empty(step.expect_gen), _or_empty(step.expect_seq), step.owner or "", end_state, event, resume,
            self._live_ms, self._terminal_ms, self._record_ms,
        )  # fmt: skip
        _check(sid, reply)
        outcome, state, gen, seq, stored = reply
        answer = Answer(Outcome(outcome.decode()), State(state.decode()), gen, seq)
        if answer.state in TERMINAL:
            self._writer.forget(sid)
        return answer, [layout.entry_of(entry) for entry in stored]

    async def read(self, sid: str, after: int, max_bytes: int) -> Page:
        """Record, tail, and entries behind `after`."""
        reply = await self._call(self._reads, self.scripts.read, sid, after, max_bytes)
        _check(sid, reply)
        fields, tail, stored = reply
        return Page(layout.record_of(sid, fields), tail, [layout.entry_of(entry) for entry in stored])

    async def known(self, sid: str) -> Known:
        """Record and facts."""
        reply = await self._call(self._control, self.scripts.known, sid)  # not behind somebody's long replay
        _check(sid, reply)
        return _known(sid, reply)

    async def annotate(self, sid: str, facts: dict[str, Any]) -> None:
        """Keep what a status object shows."""
        await self._call(self._control, self.scripts.annotate, sid, layout.pack_facts(facts))

    async def delete(self, sid: str) -> None:
        """Forget a stream."""
        self._writer.forget(sid)
        about = await self._call(self._control, self.scripts.delete, sid)
        if about is not None:
            index = layout.key_of_tenant(layout.tenant_of(about))
            await self._ask(self._control, command("ZREM", index, sid), command("ZREM", layout.PAUSED, sid))

    async def listing(self, tenant: str, *, after: str | None, limit: int, state: str | None) -> list[Known]:
        """The tenant's streams, newest first."""
        index = layout.key_of_tenant(tenant)
        at = 0
        if after is not None:
            (rank,) = await self._ask(self._reads, command("ZREVRANK", index, after))
            if rank is None:
                return []
            at = rank + 1
        found: list[Known] = []
        while len(found) < limit:
            (rows,) = await self._ask(self._reads, command("ZREVRANGE", index, at, at + LISTED - 1, "WITHSCORES"))
            scores = dict(zip([sid.decode() for sid in rows[::2]], map(int, rows[1::2]), strict=True))
            looked_at = await self._look_at(list(scores))
            found += [
                known for known in looked_at.values() if known is not None and state in {None, known.record.state}
            ]
            at += len(scores) - await self._unlist(index, [sid for sid in scores if looked_at[sid] is None], scores)
            if len(scores) < LISTED:
                break
        return found[:limit]

    async def _unlist(self, index: str, gone: list[str], scores: dict[str, int]) -> int:
        """Mend an index; what has no record and is young may be about to be created."""
        old = [sid for sid in gone if scores[sid] < (self._clock.now() - _BIRTH_S) * 1000]
        if old:
            await self._ask(self._control, command("ZREM", index, *old))
        return len(old)

    async def paused_since(self, moment: float) -> list[Record]:
        """Streams that have been paused since before `moment`."""
        (sids,) = await self._ask(
            self._reads, command("ZRANGEBYSCORE", layout.PAUSED, "-inf", f"({int(moment * 1000)}")
        )
        found: list[Record] = []
        for sid, known in (await self._look_at([sid.decode() for sid in sids])).items():
            if known is None or known.tail < 0 or known.record.state in TERMINAL:
                await self._ask(self._control, command("ZREM", layout.PAUSED, sid))
            elif known.record.paused_since is None or known.record.paused_since >= moment:
                await self._mark_paused(sid, known.record.paused_since or self._clock.now())
            else:
                found.append(known.record)
        return found

    async def remember(self, key: str, sid: str, body_hash: str) -> tuple[str, str]:
        """Bind an idempotency key unless it is bound."""
        bound = msgspec.json.encode((sid, body_hash))
        lasting_ms = int(self._lifetimes.ttl_idempotency_s * 1000)
        name = layout.key_of_idempotency(key)
        (before,) = await self._ask(self._control, command("SET", name, bound, "NX", "GET", "PX", lasting_ms))
        return msgspec.json.decode(bound if before is None else before, type=tuple[str, str])

    async def forget(self, key: str) -> None:
        """Free an idempotency key."""
        await self._ask(self._control, command("DEL", layout.key_of_idempotency(key)))

    async def sweep(self) -> None:
        """Redis drops what outlived its time; the writer forgets who stopped writing."""
        self._writer.sweep(self._lifetimes.ttl_live_s)

    def _indexing(self, record: Record) -> list[bytes]:
        index, score = layout.key_of_tenant(record.tenant), int(record.created * 1000)
        kept_ms = self._live_ms + self._record_ms + int(_INDEX_SLACK_S * 1000)
        return [
            command("ZADD", index, score, record.sid),
            command("ZREMRANGEBYSCORE", index, "-inf", score - kept_ms),
            command("PEXPIRE", index, kept_ms),
        ]

    def _touch(self, sid: str) -> bytes:
        keys = layout.keys_of(sid)
        return command("EVAL", self.scripts.touch.text, len(keys), *keys, self._live_ms, self._record_ms)

    async def _mark_paused(self, sid: str, since: float, how: str = "") -> None:
        await self._run(
            self._control, self.scripts.mark, [layout.PAUSED], int(since * 1000), sid, 2 * self._live_ms, how
        )

    async def _look_at(self, sids: list[str]) -> dict[str, Known | None]:
        """What is known of each; None for those that are no more."""
        script = self.scripts.known
        calls = [self._call(self._reads, script, sid) for sid in sids]
        replies = await asyncio.gather(*calls)
        return {
            sid: None if reply[0] == b"unknown" else _known(sid, reply)
            for sid, reply in zip(sids, replies, strict=True)
        }

    async def _ask(self, lane: Lane, *commands: bytes) -> list[Reply]:
        try:
            replies = await lane.ask(*commands)
        except LinkDown as error:
            raise JournalUnavailable(str(error)) from error
        for reply in replies:
            if isinstance(reply, ErrorReply):
                raise _refused(LinkRefused(reply))
        return replies

    async def _call(self, lane: Lane, script: Script, sid: str, *arguments: bytes | str | float) -> Reply:
        return await self._run(lane, script, layout.keys_of(sid), *arguments)

    async def _run(self, lane: Lane, script: Script, keys: list[str], *arguments: bytes | str | float) -> Reply:
        try:
            return await lane.call(script, keys, *arguments)
        except LinkDown as error:
            raise JournalUnavailable(str(error)) from error
        except LinkRefused as error:
            raise _refused(error) from error


def _refused(error: LinkRefused) -> JournalError:
    if error.code == "OOM":
        return JournalFull("Redis is out of memory")
    return JournalUnavailable(str(error))


def _check(sid: str, reply: Reply) -> None:
    if reply[0] == b"unknown":
        raise UnknownStream(sid)
    if reply[0] == b"expired":
        raise ExpiredStream(sid)


def _known(sid: str, reply: Reply) -> Known:
    fields, tail, expires_ms, facts = reply
    return Known(layout.record_of(sid, fields), layout.unpack_facts(facts), tail, expires_ms / 1000)


def _or_empty(number: int | None) -> int | str:
    return "" if number is None else number


def _events_of(step: Step) -> tuple[bytes, bytes]:
    """What this step may append: its own event, and a resume; as stored."""
    match step.op:
        case Op.PAUSE:
            return layout.payload(Pause(step.reason)), b""
        case Op.RESUME:
            return b"", layout.payload(Resume(step.reason))
        case Op.CLAIM:
            return layout.payload(Claim(step.owner or "")), b""
        case Op.FINISH:
            if step.end is None:
                msg = "a FINISH step carries its end"
                raise ValueError(msg)
            return layout.payload(step.end), b""
        case Op.CANCEL | Op.EXPIRE:
            end = step.end or End(State.CANCELLED, step.reason)
            return layout.payload(end), layout.payload(Resume("pause_expired"))
        case Op.START:
            return b"", b""
