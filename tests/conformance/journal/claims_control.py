"""The contract of a journal's steps, one claim a function: the state table, answers, operation ids, kept ends."""

import pytest

from gateway.core.errors import Category, Failure
from gateway.core.events import Claim as ClaimEvent
from gateway.core.events import End, Pause, Resume, Start, State, Text
from gateway.core.usage import Usage
from gateway.streams.journal import Appended, ExpiredStream
from gateway.streams.lifecycle import Answer, Op, Outcome
from tests.conformance.journal.claims import Claim
from tests.conformance.journal.subject import Subject
from tests.conformance.journal.writing import COMPLETED, Writer, assert_sound

CLAIMS: dict[str, Claim] = {}

FAILED = End(State.FAILED, "stream_broken", Failure(Category.STREAM_BROKEN, "cut"), Usage(output_tokens=3), 1)
INCOMPLETE = End(State.INCOMPLETE, "length")

# How each situation comes about from a fresh stream.
_PAUSED = [(Op.PAUSE, {})]
SITUATIONS: dict[str, list[tuple[Op, dict[str, End]]]] = {
    "queued": [],
    "running": [],
    "paused": _PAUSED,
    "kept": [*_PAUSED, (Op.FINISH, {"end": COMPLETED})],
    "completed": [(Op.FINISH, {"end": COMPLETED})],
    "incomplete": [(Op.FINISH, {"end": INCOMPLETE})],
    "failed": [(Op.FINISH, {"end": FAILED})],
    "cancelled": [(Op.CANCEL, {})],
}
_ENDED = ("completed", "incomplete", "failed", "cancelled")

# streams.md section 3, written apart from the product: op -> situation -> outcome and the state after it.
EXPECTED: dict[str, dict[str, str]] = {
    "start": {"queued": "changed running", "running": "same running", "paused": "same paused", "kept": "same paused"},
    "pause": {"queued": "changed paused", "running": "changed paused", "paused": "same paused", "kept": "same paused"},
    "resume": {
        "queued": "not_paused queued",
        "running": "same running",
        "paused": "changed running",
        "kept": "changed completed",
    },
    "cancel": dict.fromkeys(("queued", "running", "paused", "kept"), "changed cancelled"),
    "finish": {
        "queued": "changed completed",
        "running": "changed completed",
        "paused": "changed paused",
        "kept": "same paused",
    },
    "claim": {
        "queued": "changed queued",
        "running": "changed running",
        "paused": "changed paused",
        "kept": "terminal paused",
    },
    "expire": {
        "queued": "same queued",
        "running": "same running",
        "paused": "changed cancelled",
        "kept": "changed cancelled",
    },
}
_TO_ENDED = {
    **dict.fromkeys(("start", "pause", "resume", "claim"), "terminal"),
    **dict.fromkeys(("cancel", "finish", "expire"), "same"),
}
# Entries that a change appends, where it is not one.
APPENDS = {"start queued": 0, "finish paused": 0, "resume kept": 2}


def _claim(judge: Claim) -> Claim:
    CLAIMS[judge.__name__] = judge
    return judge


async def _writer(subject: Subject, situation: str = "running", **changes: object) -> Writer:
    """A stream in this situation, with two events of text before it came about."""
    state = State.QUEUED if situation == "queued" else State.RUNNING
    writer = await Writer.begin(subject, await subject.open(), state=state, **changes)
    await writer.say("a", "b")
    for op, members in SITUATIONS[situation]:
        await writer.do(op, **members)
    return writer


@_claim
async def the_table_of_states_holds(subject: Subject) -> None:
    """Every operation in every state does what the specification's table says, and nothing more."""
    for op, row in EXPECTED.items():
        for situation in SITUATIONS:
            writer = await _writer(subject, situation)
            before, tail = await writer.record(), (await writer.entries())[-1].seq
            answer, entries = await writer.do(Op(op))
            after = await writer.record()
            wanted = f"{_TO_ENDED[op]} {situation}" if situation in _ENDED else row[situation]
            where = f"{op} when {situation}"
            assert f"{answer.outcome} {after.state}" == wanted, where
            assert answer.state is after.state, where
            assert answer.gen == after.gen, where
            log = await writer.entries()
            assert_sound(log)
            assert [entry.data for entry in log if entry.seq > tail] == [entry.data for entry in entries], where
            if answer.outcome is Outcome.CHANGED:
                assert len(entries) == APPENDS.get(f"{op} {situation}", 1), where
            else:
                assert (log[-1].seq, after.gen) == (tail, before.gen), where


@_claim
async def answers_name_the_servable_seq(subject: Subject) -> None:
    """While paused the answer's seq is the pause entry, whoever asks; else it is the tail."""
    writer = await _writer(subject)
    answer, (entry,) = await writer.do(Op.PAUSE)
    assert answer.seq == entry.seq == 3
    await writer.adopt()
    await writer.say("c", "d")
    assert (await writer.do(Op.PAUSE))[0].seq == 3
    assert (await writer.do(Op.CLAIM, owner="replica-2"))[0].seq == 3
    assert (await writer.do(Op.FINISH))[0].seq == 3
    assert (await writer.do(Op.RESUME))[0].seq == 8
    assert (await writer.do(Op.CANCEL))[0].seq == 8


@_claim
async def every_change_has_a_greater_gen(subject: Subject) -> None:
    """Gens strictly increase, also when the time stands still, and entries carry them."""
    writer = await _writer(subject, "queued")
    gens = [(await writer.record()).gen]
    for op in (Op.START, Op.PAUSE, Op.RESUME, Op.CLAIM, Op.PAUSE, Op.FINISH, Op.RESUME):
        answer, entries = await writer.do(op)
        assert answer.outcome is Outcome.CHANGED, op
        gens.append(answer.gen)
        assert not entries or entries[-1].gen == answer.gen, op
    assert gens == sorted(set(gens))
    assert gens[0] >= int(subject.now() * 1000) - 1


@_claim
async def a_gen_is_at_least_the_time(subject: Subject) -> None:
    """A gen is never below the time in milliseconds, so that no log that is made again reuses one."""
    writer = await _writer(subject)
    await subject.elapse(100)
    answer, _ = await writer.do(Op.PAUSE)
    assert answer.gen >= int(subject.now() * 1000) - 1


# Operation ids.


@_claim
async def a_repeated_operation_changes_nothing(subject: Subject) -> None:
    """The same operation id gets the same answer, appends nothing, and tells the stream nothing new."""
    for op in (Op.PAUSE, Op.CANCEL, Op.FINISH, Op.CLAIM):
        writer = await _writer(subject)
        first, appended = await writer.do(op, "once")
        assert len(appended) == 1
        before = await writer.entries()
        for _ in range(3):
            assert await writer.do(op, "once") == (first, [])
        assert len(await writer.entries()) == len(before)
        assert (await writer.record()).gen == first.gen


@_claim
async def a_late_pause_does_not_undo_a_resume(subject: Subject) -> None:
    """A pause that the network repeats after somebody's resume is a duplicate, not a second pause."""
    writer = await _writer(subject)
    paused, _ = await writer.do(Op.PAUSE, "pause-1")
    await writer.do(Op.RESUME)
    assert await writer.do(Op.PAUSE, "pause-1") == (paused, [])
    assert (await writer.record()).state is State.RUNNING
    assert (await writer.do(Op.PAUSE, "pause-2"))[0].outcome is Outcome.CHANGED


@_claim
async def refusals_are_answered_again_too(subject: Subject) -> None:
    """An operation that came to nothing gets that answer again, though it would now come to something."""
    writer = await _writer(subject)
    same, _ = await writer.do(Op.RESUME, "resume-1")
    assert same.outcome is Outcome.SAME
    await writer.do(Op.PAUSE)
    assert await writer.do(Op.RESUME, "resume-1") == (same, [])
    assert (await writer.record()).state is State.PAUSED


@_claim
async def operation_ids_are_forgotten_after_a_minute(subject: Subject) -> None:
    """An id counts for 60 s; later the same id is a new operation."""
    writer = await _writer(subject)
    paused, _ = await writer.do(Op.PAUSE, "id")
    await writer.do(Op.RESUME)
    await subject.elapse(59)
    assert (await writer.do(Op.PAUSE, "id"))[0] == paused
    await subject.elapse(2)
    again, entries = await writer.do(Op.PAUSE, "id")
    assert (again.outcome, len(entries)) == (Outcome.CHANGED, 1)


@_claim
async def operation_ids_are_bounded(subject: Subject) -> None:
    """The last 64 ids are known, and no more: a client cannot fill the journal with them."""
    writer = await _writer(subject)
    paused, _ = await writer.do(Op.PAUSE, "old")
    for number in range(63):
        await writer.do(Op.PAUSE, f"id-{number}")
    assert (await writer.do(Op.PAUSE, "old"))[0] == paused
    await writer.do(Op.PAUSE, "one-more")
    assert (await writer.do(Op.PAUSE, "old"))[0].outcome is Outcome.SAME
    assert len((await writer.record()).operations) <= 64


@_claim
async def operation_ids_are_of_one_stream(subject: Subject) -> None:
    """The same id on two streams is two operations."""
    journal = await subject.open()
    one, two = await Writer.begin(subject, journal), await Writer.begin(subject, journal)
    for writer in (one, two):
        assert (await writer.do(Op.PAUSE, "id"))[0].outcome is Outcome.CHANGED


# Conditions.


@_claim
async def a_stale_condition_changes_nothing(subject: Subject) -> None:
    """A gen or a seq that is not the log's own is answered `stale` with the gen to use, and nothing happens."""
    writer = await _writer(subject)
    gen, before = (await writer.record()).gen, await writer.entries()
    for members in ({"expect_gen": gen - 1}, {"expect_gen": gen + 1}, {"expect_seq": 1}, {"expect_seq": 3}):
        for op in (Op.PAUSE, Op.RESUME, Op.CANCEL, Op.FINISH, Op.CLAIM):
            answer, entries = await writer.do(op, **members)
            assert (answer, entries) == (Answer(Outcome.STALE, State.RUNNING, gen, 2), [])
    assert len(await writer.entries()) == len(before)
    assert (await writer.record()).gen == gen


@_claim
async def a_condition_that_holds_is_no_hindrance(subject: Subject) -> None:
    """With the log's own gen and tail an operation does what it does without."""
    writer = await _writer(subject)
    gen = (await writer.record()).gen
    answer, _ = await writer.do(Op.PAUSE, expect_gen=gen, expect_seq=2)
    assert answer.outcome is Outcome.CHANGED
    answer, _ = await writer.do(Op.RESUME, expect_gen=answer.gen)
    assert answer.outcome is Outcome.CHANGED


@_claim
async def a_repeated_conditional_operation_is_a_duplicate(subject: Subject) -> None:
    """A pause with If-Match whose answer was lost succeeds when repeated, though its gen is old by now."""
    writer = await _writer(subject)
    gen = (await writer.record()).gen
    first, _ = await writer.do(Op.PAUSE, "id", expect_gen=gen)
    assert await writer.do(Op.PAUSE, "id", expect_gen=gen) == (first, [])


@_claim
async def a_finish_cannot_overtake(subject: Subject) -> None:
    """An end that names the last seq its owner knows is refused when something else came in between."""
    writer = await _writer(subject)
    gen = (await writer.record()).gen
    await writer.say("late")
    answer, _ = await writer.do(Op.FINISH, expect_gen=gen, expect_seq=2)
    assert answer.outcome is Outcome.STALE
    answer, _ = await writer.do(Op.FINISH, expect_gen=gen, expect_seq=3)
    assert answer.outcome is Outcome.CHANGED
    assert_sound(await writer.entries())


# Kept ends, cancel while paused, claims, expiry.


@_claim
async def an_end_is_kept_while_paused(subject: Subject) -> None:
    """A finish during a pause is not in the log until the resume, which appends both at once."""
    writer = await _writer(subject, "paused")
    answer, entries = await writer.do(Op.FINISH, end=FAILED)
    assert (answer.outcome, answer.state, entries) == (Outcome.CHANGED, State.PAUSED, [])
    record = await writer.record()
    assert (record.kept, record.ended) == (FAILED, None)
    assert not any(isinstance(event, End) for event in await writer.events())
    answer, entries = await writer.do(Op.RESUME)
    assert [event for entry in entries for event in entry.events] == [Resume(), FAILED]
    assert (answer.state, answer.seq) == (State.FAILED, entries[-1].seq)
    record = await writer.record()
    assert (record.state, record.kept, record.pause_seq, record.paused_since) == (State.FAILED, None, None, None)
    assert record.ended is not None
    assert_sound(await writer.entries())


@_claim
async def the_first_kept_end_stands(subject: Subject) -> None:
    """Another end for a stream whose end is kept changes nothing: neither the end nor the gen."""
    writer = await _writer(subject, "kept")
    gen = (await writer.record()).gen
    answer, entries = await writer.do(Op.FINISH, end=FAILED)
    assert (answer.outcome, answer.gen, entries) == (Outcome.SAME, gen, [])
    await writer.do(Op.RESUME)
    assert (await writer.events())[-1] == COMPLETED


@_claim
async def a_kept_end_needs_no_owner(subject: Subject) -> None:
    """A stream whose end is kept cannot be claimed."""
    writer = await _writer(subject, "kept")
    answer, entries = await writer.do(Op.CLAIM, owner="replica-2")
    assert (answer.outcome, entries) == (Outcome.TERMINAL, [])
    assert (await writer.record()).owner == "replica-1"


@_claim
async def cancel_drops_what_a_pause_held(subject: Subject) -> None:
    """A cancel while paused marks what lies behind the pause as never to be served, and drops a kept end."""
    for keeps in (False, True):
        writer = await _writer(subject, "paused")
        await writer.adopt()
        await writer.say("held", "back")
        if keeps:
            await writer.do(Op.FINISH, end=COMPLETED)
        answer, (entry,) = await writer.do(Op.CANCEL, end=End(State.CANCELLED, "control"))
        record = await writer.record()
        assert record.skip == (3, 6) == (3, entry.seq)
        assert (record.kept, record.pause_seq, record.paused_since) == (None, None, None)
        assert (answer.state, answer.seq) == (State.CANCELLED, 6)
        assert (await writer.events())[-1] == End(State.CANCELLED, "control")
        assert_sound(await writer.entries())


@_claim
async def no_record_is_terminal_without_its_end(subject: Subject) -> None:
    """The step that ends a stream, whichever it is, also says in the record how: what the log's last entry says."""
    for situation, op, end in (
        ("running", Op.FINISH, FAILED), ("running", Op.CANCEL, None), ("paused", Op.CANCEL, None),
        ("paused", Op.EXPIRE, End(State.CANCELLED, "pause_expired")), ("kept", Op.RESUME, None),
        ("kept", Op.CANCEL, None),
    ):  # fmt: skip
        writer = await _writer(subject, situation)
        assert (await writer.record()).end is None
        await writer.do(op, end=end)
        assert (await writer.record()).end == (await writer.events())[-1]


@_claim
async def a_record_without_log_takes_an_end(subject: Subject) -> None:
    """What became of a stream whose log is gone is kept in its record, once, by a FINISH that knows the gen."""
    for situation in ("running", "paused"):
        writer = await _writer(subject, situation)
        gen = (await writer.record()).gen
        await subject.elapse(1_860)
        for expected, end in ((gen - 1, COMPLETED), (gen, FAILED), (gen, COMPLETED)):
            with pytest.raises(ExpiredStream):
                await writer.do(Op.FINISH, end=end, expect_gen=expected)
        record = (await writer.journal.known(writer.sid)).record
        assert (record.state, record.end, record.pause_seq) == (State.FAILED, FAILED, None)


@_claim
async def a_cancel_while_running_skips_nothing(subject: Subject) -> None:
    """What was served before the cancel stays served, also after an earlier pause."""
    writer = await _writer(subject, "paused")
    await writer.do(Op.RESUME)
    await writer.do(Op.CANCEL, reason="enough")
    assert (await writer.record()).skip is None
    assert (await writer.events())[-1] == End(State.CANCELLED, "enough")


@_claim
async def a_pause_says_since_when(subject: Subject) -> None:
    """A paused record tells the pause's seq and time; a resume takes both away; the reasons are in the log."""
    writer = await _writer(subject)
    await subject.elapse(5)
    await writer.do(Op.PAUSE, reason="lunch")
    record = await writer.record()
    assert record.pause_seq == 3
    assert record.paused_since is not None
    assert abs(record.paused_since - subject.now()) <= 1
    await subject.elapse(5)
    assert (await writer.do(Op.PAUSE))[0].outcome is Outcome.SAME
    assert (await writer.record()).paused_since == record.paused_since
    await writer.do(Op.RESUME, reason="back")
    record = await writer.record()
    assert (record.pause_seq, record.paused_since) == (None, None)
    assert (await writer.events())[-2:] == [Pause("lunch"), Resume("back")]


@_claim
async def a_claim_moves_the_write_right(subject: Subject) -> None:
    """After a claim the record names the claimant, the log says so, and the pause still holds."""
    writer = await _writer(subject, "paused")
    await writer.do(Op.CLAIM, owner="replica-2")
    record = await writer.record()
    assert (record.owner, record.state, record.pause_seq) == ("replica-2", State.PAUSED, 3)
    assert (await writer.events())[-1] == ClaimEvent("replica-2")
    assert await writer.say("zombie") is Appended.FENCED


@_claim
async def a_claim_is_won_once(subject: Subject) -> None:
    """Of two claims that expect the same gen one wins."""
    writer = await _writer(subject)
    gen = (await writer.record()).gen
    first, _ = await writer.do(Op.CLAIM, owner="replica-2", expect_gen=gen)
    second, _ = await writer.do(Op.CLAIM, owner="replica-3", expect_gen=gen)
    assert (first.outcome, second.outcome) == (Outcome.CHANGED, Outcome.STALE)
    assert (await writer.record()).owner == "replica-2"


@_claim
async def a_pause_expires_by_the_records_policy(subject: Subject) -> None:
    """Expiry cancels, or resumes with a kept end if there is one, as the stream was created to."""
    writer = await _writer(subject, "paused")
    answer, _ = await writer.do(Op.EXPIRE, end=End(State.CANCELLED, "pause_expired"))
    assert answer.state is State.CANCELLED
    assert (await writer.events())[-1] == End(State.CANCELLED, "pause_expired")

    writer = await _writer(subject, "paused", on_pause_expiry="resume")
    answer, entries = await writer.do(Op.EXPIRE)
    assert (answer.state, [entry.control for entry in entries]) == (State.RUNNING, [Resume("pause_expired")])

    writer = await _writer(subject, "kept", on_pause_expiry="resume")
    answer, entries = await writer.do(Op.EXPIRE)
    assert (answer.state, [entry.control for entry in entries]) == (
        State.COMPLETED,
        [Resume("pause_expired"), COMPLETED],
    )


@_claim
async def an_expiry_is_of_one_pause(subject: Subject) -> None:
    """An expiry that was decided for one pause does not end the next, and whoever issues it twice ends it once."""
    writer = await _writer(subject, "paused")
    gen = (await writer.record()).gen
    await writer.do(Op.RESUME)
    await writer.do(Op.PAUSE)
    answer, _ = await writer.do(Op.EXPIRE, f"expire:{gen}", expect_gen=gen)
    assert (answer.outcome, answer.state) == (Outcome.STALE, State.PAUSED)
    gen = (await writer.record()).gen
    for appended in (1, 0):
        answer, entries = await writer.do(Op.EXPIRE, f"expire:{gen}", expect_gen=gen)
        assert (answer.outcome, answer.state, len(entries)) == (Outcome.CHANGED, State.CANCELLED, appended)


@_claim
async def a_finish_carries_its_end(subject: Subject) -> None:
    """A finish without an end is a caller's bug, refused before anything changes."""
    writer = await _writer(subject)
    with pytest.raises(ValueError, match="end"):
        await writer.do(Op.FINISH, end=None)
    assert (await writer.record()).state is State.RUNNING
    assert [type(event) for event in await writer.events()] == [Start, Text, Text]
