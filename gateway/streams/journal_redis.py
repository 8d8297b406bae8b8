"""The journal that replicas share: logs, records and indexes in Redis. Nothing is kept here but connections.

Appends go through the `writer_redis`; everything else is one script or one command, asked on a lane, idempotent, and
repeated for a few seconds if Redis does not answer. What is left unanswered then is `JournalUnavailable`, never a
success. Redis' own memory is the bound (`maxmemory` with noeviction): a full one takes no new stream, and appends wait.

Oddities, on purpose:
1. Indexes (a tenant's streams, paused streams) lie in other slots than the streams they name. They are written before,
   may name what is not there, and are checked and mended by whoever reads them.
2. A stream stays in the index of pauses until it ends: taking it out with a resume could overtake the next pause.
3. A claim names its stream in its replica's set before the step, and after it once more: the word of an earlier owner
   of the same replica may have taken it out in between.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.core.events import TERMINAL, Claim, End, Pause, Resume, Start, State
from gateway.streams import layout_redis as layout
from gateway.streams.asking_redis import Asking
from gateway.streams.fleet import rid_of
from gateway.streams.journal import (
    Appended,
    Entry,
    ExpiredStream,
    JournalError,
    JournalUnavailable,
    Known,
    Page,
    StreamTaken,
    UnknownStream,
)
from gateway.streams.lifecycle import Answer, Op, Outcome, Record, Step
from gateway.streams.scripts_redis import Scripts
from gateway.streams.writer_redis import Batching, Writer
from gateway.streams.writers_redis import Writers
from gateway.upstream.lanes_redis import Lanes
from gateway.upstream.link_redis import LinkDown
from gateway.upstream.nodes_redis import Nodes
from gateway.upstream.resp import ErrorReply, Reply, command

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from gateway.core.clock import Clock
    from gateway.upstream.link_redis import Link

LISTED = 100
"""Streams that one round trip of a listing looks at."""
_INDEX_SLACK_S = 604_800.0
"""How long beyond its record's life a stream that goes on and on is still listed."""
_BIRTH_S = 60.0
"""Longer than any create lasts, between its index and its record."""
_LATE_S = 15.0
"""Longer than any call is repeated: a copy of it that comes later than this does not exist."""
TAILED = 128
TAILED_BYTES = 262_144
"""Entries, and about bytes, that one look takes of one growing log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Seconds; a live log slides with its owner's appends and with control, the others count from the end."""

    ttl_live_s: float = 1800.0
    ttl_terminal_s: float = 900.0
    ttl_record_s: float = 86_400.0
    ttl_idempotency_s: float = 86_400.0


class RedisJournal:
    """Logs in Redis. `run` is its task; what is asked before it runs waits.

    `on_grown` is told which logs this process made longer: once a pipeline of appends, and behind a control step.
    """

    def __init__(
        self,
        link: Link,
        lifetimes: Lifetimes,
        clock: Clock,
        *,
        scripts: Scripts | None = None,
        batching: Batching | None = None,
        on_grown: Callable[[Iterable[str]], None] = lambda _sids: None,
    ) -> None:
        self._clock = clock
        self._lifetimes = lifetimes
        self._live_ms = int(lifetimes.ttl_live_s * 1000)
        self._terminal_ms = int(lifetimes.ttl_terminal_s * 1000)
        self._record_ms = int(lifetimes.ttl_record_s * 1000)
        self.scripts = scripts or Scripts()
        link.scripts.extend(self.scripts.all())
        self.nodes = Nodes(link)
        self.control_lane = Lanes(self.nodes)
        self._tails = Lanes(self.nodes, "tail")
        self._control, self._reads = Asking(self.control_lane), Asking(Lanes(self.nodes, "read"))
        self._writer: Writer | Writers
        if self.nodes.is_cluster:
            self._writer = Writers(self.nodes, clock, self._touch, batching or Batching(), on_grown)
        else:
            self._writer = Writer(link, clock, self._touch, batching, on_grown)
        self._on_grown = on_grown
        self._writer_id, self._numbers = secrets.token_hex(6), count()

    async def run(self) -> None:
        """Serve until cancelled: to each node a writer, and a connection each for control, pages and growing logs."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.nodes.run(), name="redis nodes")
            tasks.create_task(self.control_lane.run(), name="redis control")
            tasks.create_task(self._reads.lanes.run(), name="redis reads")
            tasks.create_task(self._tails.run(), name="redis tails")
            tasks.create_task(self._writer.run(), name="redis writer")

    async def create(self, record: Record, start: Start, request: bytes | None = None) -> Entry:
        """Make a log with its entry 0."""
        entry = Entry.of_control(record.gen, 0, start)
        fields: dict[str, bytes | str] = {
            "about": layout.about(record), "state": record.state, "on_expiry": record.on_pause_expiry
        }  # fmt: skip
        pairs: list[bytes | str] = [part for pair in fields.items() for part in pair]
        made = await self._behind(
            [self._control.ask(layout.key_of_tenant(record.tenant), *self._indexing(record)),
             self._own(record.owner, record.sid)],
            self._control.call(
                self.scripts.create, record.sid, record.owner, record.gen, entry.data, self._live_ms, self._record_ms,
                request or b"", *pairs,
            ),
        )  # fmt: skip
        if made == b"taken":
            raise StreamTaken(record.sid)
        return entry

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        """Append at the end; settled later."""
        self._writer.append(sid, entry, settled)

    async def step(self, sid: str, step: Step) -> tuple[Answer, list[Entry]]:
        """Apply one control operation."""
        event, resume = _events_of(step)
        end_state = "" if step.end is None else step.end.state
        before: list[Awaitable[Any]] = []
        if step.op is Op.PAUSE:
            before.append(self._mark_paused(sid, self._clock.now(), "NX"))
        elif step.op is Op.CLAIM:
            before.append(self._own(step.owner or "", sid))
        reply = await self._behind(before, self._control.call(
            self.scripts.step, sid, step.op, step.op_id, secrets.token_hex(6), _or_empty(step.expect_gen),
            _or_empty(step.expect_seq), step.owner or "", end_state, event, resume, self._live_ms, self._terminal_ms,
            self._record_ms,
        ))  # fmt: skip
        _check(sid, reply)
        outcome, state, gen, seq, stored = reply
        answer = Answer(Outcome(outcome.decode()), State(state.decode()), gen, seq)
        if answer.state in TERMINAL:
            self._writer.forget(sid)
        if step.op is Op.CLAIM and answer.outcome is Outcome.CHANGED:
            await self._own(step.owner or "", sid)
        if stored:
            self._on_grown([sid])
        return answer, [layout.entry_of(entry) for entry in stored]

    async def read(self, sid: str, after: int, max_bytes: int) -> Page:
        """Record, tail, and entries behind `after`."""
        reply = await self._reads.call(self.scripts.read, sid, after, max_bytes)
        _check(sid, reply)
        fields, tail, stored = reply
        return Page(layout.record_of(sid, fields), tail, [layout.entry_of(entry) for entry in stored])

    async def known(self, sid: str) -> Known:
        """Record and facts."""
        reply = await self._control.call(self.scripts.known, sid)  # not behind somebody's long replay
        _check(sid, reply)
        return _known(sid, reply)

    async def tail(self, wanted: Sequence[tuple[str, int, int]]) -> list[list[Entry] | JournalError]:
        """For each (sid, gen, seq) the entries behind the one with this id: none, some or an error of that stream.

        A look takes about `TAILED` entries or `TAILED_BYTES` of a log; whoever got so many looks again.
        """
        asked = [(layout.key_of_log(sid), _behind(layout.key_of_log(sid), gen, seq)) for sid, gen, seq in wanted]
        found = [_entries_or_error(reply) for reply in await self._tails.ask_each(asked)]
        silent = [number for number, entries in enumerate(found) if entries == []]
        if silent:
            second = await self._look_again([wanted[number] for number in silent])
            for number, entries in zip(silent, second, strict=True):
                found[number] = entries
        return found

    async def _look_again(self, wanted: list[tuple[str, int, int]]) -> list[list[Entry] | JournalError]:
        """Of logs with nothing new: are they still there, or were they deleted while somebody was reading?"""
        asked: list[tuple[str, bytes]] = []
        for sid, gen, seq in wanted:
            live, deleted = layout.key_of_log(sid), layout.key_of_deleted_log(sid)
            asked += [(live, command("EXISTS", live, deleted)), (live, _behind(deleted, gen, seq))]
        replies = await self._tails.ask_each(asked)
        return [
            ExpiredStream(sid) if there == 0 else _entries_or_error(rest)
            for (sid, _, _), there, rest in zip(wanted, replies[::2], replies[1::2], strict=True)
        ]

    async def moved(self, wanted: Sequence[tuple[str, int]]) -> list[bool]:
        """For each (sid, gen) whether the record has another gen by now, or is gone; False if nobody can say."""
        keys = [(layout.key_of_record(sid), gen) for sid, gen in wanted]
        replies = await self._tails.ask_each([(key, command("HGET", key, "gen")) for key, _ in keys])
        return [
            not isinstance(reply, ErrorReply | LinkDown) and (reply is None or int(reply) != gen)
            for reply, (_, gen) in zip(replies, keys, strict=True)
        ]

    async def request(self, sid: str) -> bytes | None:
        """What is kept for a recovery."""
        key = layout.key_of_request(sid)
        (stored,) = await self._control.ask(key, command("GET", key))
        return cast("bytes | None", stored)

    async def annotate(self, sid: str, facts: dict[str, Any], *, closed_by: str | None = None) -> None:
        """Keep what a status object shows."""
        owner = await self._control.call(
            self.scripts.annotate, sid, layout.pack_facts(facts), self._writer_id, next(self._numbers), closed_by or ""
        )
        if closed_by is not None and (owner or b"").decode() in {closed_by, ""}:
            key = layout.key_of_owned(rid_of(closed_by))
            await self._control.ask(key, command("SREM", key, sid))

    async def delete(self, sid: str, *, after_s: float = 0.0) -> None:
        """Forget a stream; its log stays a little for its readers."""
        self._writer.forget(sid)
        about = await self._control.call(self.scripts.delete, sid, int(after_s * 1000), int(_LATE_S * 1000))
        if about is not None:
            index = layout.key_of_tenant(layout.tenant_of(about))
            await self._control.ask(index, command("ZREM", index, sid))
            await self._control.ask(layout.PAUSED, command("ZREM", layout.PAUSED, sid))

    async def listing(self, tenant: str, *, after: str | None, limit: int, state: str | None) -> list[Known]:
        """The tenant's streams, newest first."""
        index = layout.key_of_tenant(tenant)
        at = 0
        if after is not None:
            (rank,) = await self._reads.ask(index, command("ZREVRANK", index, after))
            if rank is None:
                return []
            at = rank + 1
        found: list[Known] = []
        while len(found) < limit:
            (rows,) = await self._reads.ask(index, command("ZREVRANGE", index, at, at + LISTED - 1, "WITHSCORES"))
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
            await self._control.ask(index, command("ZREM", index, *old))
        return len(old)

    async def paused_since(self, moment: float) -> list[Record]:
        """Streams that have been paused since before `moment`."""
        due = command("ZRANGEBYSCORE", layout.PAUSED, "-inf", f"({int(moment * 1000)}")
        (sids,) = await self._reads.ask(layout.PAUSED, due)
        found: list[Record] = []
        for sid, known in (await self._look_at([sid.decode() for sid in sids])).items():
            if known is None or known.record.state in TERMINAL or (known.tail < 0 and not known.record.paused_since):
                await self._control.ask(layout.PAUSED, command("ZREM", layout.PAUSED, sid))
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
        (before,) = await self._control.ask(name, command("SET", name, bound, "NX", "GET", "PX", lasting_ms))
        return msgspec.json.decode(bound if before is None else before, type=tuple[str, str])

    async def forget(self, key: str) -> None:
        """Free an idempotency key."""
        name = layout.key_of_idempotency(key)
        await self._control.ask(name, command("DEL", name))

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
        await self._control.run(self.scripts.mark, [layout.PAUSED], int(since * 1000), sid, 2 * self._live_ms, how)

    async def _own(self, owner: str, sid: str) -> None:
        """Name a stream in its replica's set, which outlives what it names."""
        key = layout.key_of_owned(rid_of(owner))
        await self._control.run(self.scripts.own, [key], sid, self._live_ms + self._record_ms)

    async def _behind(self, before: Sequence[Awaitable[Any]], then: Coroutine[Any, Any, Reply]) -> Reply:
        """`then` in no case before the others: on one lane mostly in one pipeline, else when they are answered."""
        if not self.nodes.is_cluster:
            return (await asyncio.gather(*before, then))[-1]
        try:
            await asyncio.gather(*before)
        except JournalError:
            then.close()
            raise
        return await then

    async def _look_at(self, sids: list[str]) -> dict[str, Known | None]:
        """What is known of each; None for those that are no more."""
        script = self.scripts.known
        calls = [self._reads.call(script, sid) for sid in sids]
        replies = await asyncio.gather(*calls)
        return {
            sid: None if reply[0] == b"unknown" else _known(sid, reply)
            for sid, reply in zip(sids, replies, strict=True)
        }


def _check(sid: str, reply: Reply) -> None:
    if reply[0] == b"unknown":
        raise UnknownStream(sid)
    if reply[0] == b"expired":
        raise ExpiredStream(sid)


def _known(sid: str, reply: Reply) -> Known:
    fields, tail, expires_ms, facts, closed_by = reply
    record = layout.record_of(sid, fields)
    return Known(record, layout.unpack_facts(facts), tail, expires_ms / 1000, closed_by and closed_by.decode())


def _behind(key: str, gen: int, seq: int) -> bytes:
    return command("XRANGE", key, f"({gen}-{seq}", "+", "COUNT", TAILED)


def _entries_or_error(reply: Reply) -> list[Entry] | JournalError:
    if isinstance(reply, ErrorReply | LinkDown):
        return JournalUnavailable(reply.text if isinstance(reply, ErrorReply) else str(reply))
    found: list[Entry] = []
    size = 0
    for stored in reply:
        found.append(layout.entry_of(stored))
        size += len(found[-1].data)
        if size >= TAILED_BYTES:
            break
    return found


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
