"""The states of a stream as one table with one writer. START HERE for pause, resume and cancel.

     queued -> running <-> paused      terminal: completed | incomplete | cancelled | failed

What happens when a stream is paused:

    clients     are served up to the pause entry, then heartbeats; new readers too
    provider    is read on, into the log, up to the hold bound; then it is no longer read
    log         holds the pause entry; what is produced meanwhile lies behind it; an end is kept in the record
    over by     resume (serves what lies behind), cancel (never serves it: `skip`), expiry (either, by policy)

This file decides and does nothing: `apply` is a pure function of record, tail, step and time. A journal runs it as one
atomic step and stores what it returns. On Redis the same table is a Lua script; the conformance suite holds both to it.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from gateway.core.events import TERMINAL, Claim, ControlEvent, End, Pause, Resume, State

OPERATIONS_KEPT_S = 60.0
OPERATIONS_KEPT = 64


class Op(StrEnum):
    """What may be done to a stream; nothing else changes its state."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FINISH = "finish"
    CLAIM = "claim"
    EXPIRE = "expire"


class Outcome(StrEnum):
    """What became of a step."""

    CHANGED = "changed"
    SAME = "same"
    NOT_PAUSED = "not_paused"
    TERMINAL = "terminal"
    STALE = "stale"


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The answer to one step, remembered with its operation id. `seq` is the servable seq after the step."""

    outcome: Outcome
    state: State
    gen: int
    seq: int


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One control operation.

    `op_id` makes it idempotent for a minute. `expect_gen` (If-Match) and `expect_seq` make it conditional. `end` is
    what FINISH appends; CANCEL and EXPIRE make theirs from `reason` and `usage`.
    """

    op: Op
    op_id: str
    expect_gen: int | None = None
    expect_seq: int | None = None
    reason: str | None = None
    end: End | None = None
    owner: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stream beside its log. Times are Unix seconds; `gen` grows whenever the write right moves.

    `pause_seq` is set while paused. `skip` are the pause and the cancel entry between which nothing is served, ever.
    `kept` is the end of a stream whose source finished while it was paused; `end` the one that is in the log, so that
    no record is terminal without saying why.
    """

    sid: str
    tenant: str
    route: str
    dialect: str
    model: str
    created: float
    owner: str
    gen: int
    state: State = State.RUNNING
    on_disconnect: str = "cancel"
    on_pause_expiry: Literal["cancel", "resume"] = "cancel"
    pause_seq: int | None = None
    paused_since: float | None = None
    skip: tuple[int, int] | None = None
    kept: End | None = None
    end: End | None = None
    ended: float | None = None
    operations: tuple[tuple[str, float, Answer], ...] = ()
    key_id: str | None = None

    def servable(self, tail: int) -> int:
        """The last seq that readers may be served."""
        return tail if self.pause_seq is None else self.pause_seq


Appended = list[tuple[int, ControlEvent]]
"""Entries of one event that a step appends, each with its gen."""

_FINAL = dict.fromkeys(TERMINAL, Outcome.TERMINAL)
_FINAL_SAME = dict.fromkeys(TERMINAL, Outcome.SAME)
_C, _S, _N = Outcome.CHANGED, Outcome.SAME, Outcome.NOT_PAUSED

# The whole machine: what each operation comes to in each state. Only CHANGED appends and bumps gen.
TABLE: dict[Op, dict[State, Outcome]] = {
    Op.START: {State.QUEUED: _C, State.RUNNING: _S, State.PAUSED: _S, **_FINAL},
    Op.PAUSE: {State.QUEUED: _C, State.RUNNING: _C, State.PAUSED: _S, **_FINAL},
    Op.RESUME: {State.QUEUED: _N, State.RUNNING: _S, State.PAUSED: _C, **_FINAL},
    Op.CANCEL: {State.QUEUED: _C, State.RUNNING: _C, State.PAUSED: _C, **_FINAL_SAME},
    Op.FINISH: {State.QUEUED: _C, State.RUNNING: _C, State.PAUSED: _C, **_FINAL_SAME},
    Op.CLAIM: {State.QUEUED: _C, State.RUNNING: _C, State.PAUSED: _C, **_FINAL},
    Op.EXPIRE: {State.QUEUED: _S, State.RUNNING: _S, State.PAUSED: _C, **_FINAL_SAME},
}


# A stream with a kept end lacks only its last entry: it needs no owner, and the first end stands.
_OF_OWNERS = {Op.CLAIM: Outcome.TERMINAL, Op.FINISH: Outcome.SAME}


def apply(record: Record, tail: int, step: Step, now: float) -> tuple[Record, Answer, Appended]:
    """Decide one step.

    Returns the new record, the answer, and the entries to append after `tail`, which the caller stores in one atomic
    step. A repeated operation id gets its first answer's outcome and seq again, and changes nothing.
    """
    for op_id, at, answer in record.operations:
        if op_id == step.op_id and now - at < OPERATIONS_KEPT_S:
            return record, answer, []
    if step.expect_gen not in {None, record.gen} or step.expect_seq not in {None, tail}:
        return record, Answer(Outcome.STALE, record.state, record.gen, record.servable(tail)), []
    outcome = TABLE[step.op][record.state]
    if record.kept is not None and step.op in _OF_OWNERS:
        outcome = _OF_OWNERS[step.op]
    appended: Appended = []
    if outcome is Outcome.CHANGED:
        record, appended = _change(record, tail, step, now)
    answer = Answer(outcome, record.state, record.gen, record.servable(tail + len(appended)))
    return _remember(record, step.op_id, answer, now), answer, appended


def _change(record: Record, tail: int, step: Step, now: float) -> tuple[Record, Appended]:
    """The effect of a step that changes something: one branch for each operation."""
    gen = next_gen(record.gen, now)
    match step.op:
        case Op.START:
            return msgspec.structs.replace(record, state=State.RUNNING, gen=gen), []
        case Op.PAUSE:
            paused = msgspec.structs.replace(record, state=State.PAUSED, gen=gen, pause_seq=tail + 1, paused_since=now)
            return paused, [(gen, Pause(step.reason))]
        case Op.RESUME:
            return _resume(record, gen, step.reason, now)
        case Op.CANCEL:
            return _cancel(record, tail, gen, step, now)
        case Op.EXPIRE if record.on_pause_expiry == "resume":
            return _resume(record, gen, "pause_expired", now)
        case Op.EXPIRE:
            return _cancel(record, tail, gen, step, now)
        case Op.FINISH:
            return _finish(record, gen, step, now)
        case Op.CLAIM:
            owner = step.owner or ""
            return msgspec.structs.replace(record, owner=owner, gen=gen), [(gen, Claim(owner))]


def _resume(record: Record, gen: int, reason: str | None, now: float) -> tuple[Record, Appended]:
    appended: Appended = [(gen, Resume(reason))]
    resumed = msgspec.structs.replace(record, state=State.RUNNING, gen=gen, pause_seq=None, paused_since=None)
    if record.kept is None:
        return resumed, appended
    appended.append((gen + 1, record.kept))
    return _ended(resumed, record.kept.state, record.kept, gen + 1, now), appended


def _cancel(record: Record, tail: int, gen: int, step: Step, now: float) -> tuple[Record, Appended]:
    end = step.end or End(State.CANCELLED, step.reason)
    skip = None if record.pause_seq is None else (record.pause_seq, tail + 1)
    cancelled = msgspec.structs.replace(record, pause_seq=None, paused_since=None, skip=skip)
    return _ended(cancelled, State.CANCELLED, end, gen, now), [(gen, end)]


def _finish(record: Record, gen: int, step: Step, now: float) -> tuple[Record, Appended]:
    if step.end is None:
        msg = "a FINISH step carries its end"
        raise ValueError(msg)
    if record.state is State.PAUSED:
        return msgspec.structs.replace(record, gen=gen, kept=step.end), []
    return _ended(record, step.end.state, step.end, gen, now), [(gen, step.end)]


def _ended(record: Record, state: State, end: End, gen: int, now: float) -> Record:
    return msgspec.structs.replace(record, state=state, gen=gen, kept=None, end=end, ended=now)


def end_without_log(record: Record, step: Step, now: float) -> Record:
    """What a FINISH does to a record whose log is gone: nothing can be appended, but no stream is running for ever."""
    if step.op is not Op.FINISH or step.end is None or record.state in TERMINAL or step.expect_gen != record.gen:
        return record
    bare = msgspec.structs.replace(record, pause_seq=None, paused_since=None)
    return _ended(bare, step.end.state, step.end, record.gen, now)


def _remember(record: Record, op_id: str, answer: Answer, now: float) -> Record:
    kept = [known for known in record.operations if now - known[1] < OPERATIONS_KEPT_S]
    kept.append((op_id, now, answer))
    return msgspec.structs.replace(record, operations=tuple(kept[-OPERATIONS_KEPT:]))


def next_gen(gen: int, now: float) -> int:
    """The generation after `gen`: at least the time in milliseconds, so that a re-created log never reuses one."""
    return max(gen + 1, int(now * 1000))
