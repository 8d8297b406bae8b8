"""Journal, lifecycle, hub and readers against a small model, over random histories of one stream.

The model is a list of marks and a few rules in the specification's words (streams.md sections 2, 3 and 7). What readers
applied, across pauses, reconnects by cursor and a ring that is too short, is held against what the model serves.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.core.errors import StreamRefused
from gateway.core.events import Claim, End, Event, Pause, Resume, Start, State, Text
from gateway.streams.hub import Hub
from gateway.streams.journal import Appended, Entry, Page
from gateway.streams.journal_memory import Bounds, MemoryJournal
from gateway.streams.lifecycle import Op, Record, Step
from gateway.streams.reader import Reader, resolve
from tests.support.clock import ManualClock

T = TypeVar("T")
SID = "a" * 26
MARKS = {Pause: "pause", Resume: "resume", Claim: "claim", End: "end", Start: "start"}
PRUNED_S = 60


@dataclass
class Model:
    """What a stream is. `log` has one mark an event: `start pause resume claim end`, or the text itself."""

    policy: str = "cancel"
    state: str = "running"
    log: list[str] = field(default_factory=lambda: ["start"])
    hold: int | None = None
    kept: str | None = None
    skip: range = range(0)
    moves: int = 0
    answers: dict[str, tuple[float, tuple[str, str, int]]] = field(default_factory=dict)

    def servable(self) -> int:
        return len(self.log) - 1 if self.hold is None else self.hold

    def served(self) -> list[int]:
        return [seq for seq in range(self.servable() + 1) if seq not in self.skip]

    def step(self, op: str, op_id: str, now: float, fits: bool = True) -> tuple[str, str, int]:
        if op_id in self.answers and now - self.answers[op_id][0] < PRUNED_S:
            return self.answers[op_id][1]
        if not fits:
            return ("stale", self.state, self.servable())
        outcome = self._outcome(op)
        if outcome == "changed":
            self.moves += 1
            self._change(self.policy if op == "expire" else op)
        answer = (outcome, self.state, self.servable())
        self.answers[op_id] = (now, answer)
        return answer

    def _outcome(self, op: str) -> str:
        if self.state not in {"running", "paused"}:
            return "same" if op in {"cancel", "finish", "expire"} else "terminal"
        if self.kept is not None and op in {"claim", "finish"}:
            return "terminal" if op == "claim" else "same"
        idle = {"running": {"resume", "expire"}, "paused": {"pause"}}
        return "same" if op in idle[self.state] else "changed"

    def _change(self, op: str) -> None:
        if op == "finish" and self.state == "paused":
            self.kept = "completed"
            return
        marks = {"cancel": ["end"], "finish": ["end"], "resume": ["resume", "end"] if self.kept else ["resume"]}
        if op == "cancel" and self.hold is not None:
            self.skip = range(self.hold + 1, len(self.log))
        self.log += marks.get(op, [op])
        if op == "pause":
            self.hold, self.state = len(self.log) - 1, "paused"
        elif op != "claim":
            ends = {"cancel": "cancelled", "finish": "completed", "resume": self.kept or "running"}
            self.hold, self.kept, self.state = None, None, ends[op]


@dataclass
class Client:
    """One client across reconnects: what it applied, each with its id, and where it began."""

    reader: Reader
    after: int
    applied: list[tuple[int, int, Event]] = field(default_factory=list)

    def take(self, served: list[tuple[Entry, int, list[Event]]]) -> None:
        for entry, first, events in served:
            self.applied += [(entry.gen, seq, event) for seq, event in enumerate(events, start=first)]

    @property
    def cursor(self) -> str | None:
        """The id of the last event that it has."""
        if self.applied:
            return "{}-{}".format(*self.applied[-1][:2])
        return None if self.after < 0 else str(self.after)


class Lifecycle(RuleBasedStateMachine):
    """Control by anybody with ids that repeat, an owner, a zombie, and clients that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock, self.hub, self.model = ManualClock(), Hub(), Model()
        self.journal = MemoryJournal(Bounds(ttl_live_s=1e9, ttl_terminal_s=1e9), self.clock)
        self.clients: list[Client] = []
        self.number = 0

    def go(self, coro: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coro)

    @initialize(policy=st.sampled_from(["cancel", "resume"]), watched=st.booleans())
    def begin(self, policy: Any, watched: bool) -> None:
        now = self.clock.now()
        self.record = Record(
            sid=SID, tenant="t", route="r", dialect="d", model="m", created=now, owner="one", gen=int(now * 1000),
            on_pause_expiry=policy,
        )  # fmt: skip
        self.model.policy = policy
        self.go(self.journal.create(self.record, Start(SID, "w", int(now), "m", "d")))
        self.gen, self.seq = self.record.gen, 0
        if watched:
            self.attach(None, 0)

    def page(self) -> Page:
        return self.go(self.journal.read(SID, -1, 10**9))

    def publish(self, entries: list[Entry]) -> None:
        if (channel := self.hub.find(SID)) is not None:
            for entry in entries:
                channel.publish(entry)

    # What happens to the log.

    @rule(
        op=st.sampled_from(["pause", "resume", "pause", "resume", "claim", "expire"]),
        op_id=st.sampled_from("abcdef"),
        fits=st.sampled_from([None, None, True, False]),
    )
    def control(self, op: str, op_id: str, fits: bool | None) -> None:
        """Somebody controls the stream, perhaps with an id that was used before, perhaps with If-Match."""
        expect = None if fits is None else self.page().record.gen - (not fits)
        step = Step(op=Op(op), op_id=op_id, expect_gen=expect, owner="two")
        answer, entries = self.go(self.journal.step(SID, step))
        wanted = self.model.step(op, op_id, self.clock.now(), fits is not False)
        assert (answer.outcome, answer.state, answer.seq) == wanted
        self.publish(entries)

    @rule(op=st.sampled_from(["cancel", "finish"]), op_id=st.sampled_from("gh"), really=st.integers(0, 5))
    def end(self, op: str, op_id: str, really: int) -> None:
        """The stream is ended, seldom enough for long histories."""
        if really == 0:
            self.ended(op, op_id)

    def ended(self, op: str, op_id: str) -> None:
        end = End(State.CANCELLED if op == "cancel" else State.COMPLETED)
        answer, entries = self.go(self.journal.step(SID, Step(op=Op(op), op_id=op_id, end=end)))
        assert (answer.outcome, answer.state, answer.seq) == self.model.step(op, op_id, self.clock.now())
        self.publish(entries)

    @rule(count=st.integers(1, 4), size=st.sampled_from([1, 1, 30, 90_000]), adopts=st.booleans())
    def append(self, count: int, size: int, adopts: bool) -> None:
        """The owner appends one entry; only under the log's own gen and tail is it taken. It never adopts an end."""
        page = self.page()
        is_over = self.model.state not in {"running", "paused"}
        if adopts and not is_over:
            self.gen, self.seq = page.record.gen, page.tail
        texts = [f"{self.number + at}." + "x" * size for at in range(count)]
        entry = Entry.of(self.gen, self.seq + count, [Text(0, text) for text in texts])
        outcomes: list[Appended] = []
        self.journal.append(SID, entry, outcomes.append)
        is_current = (self.gen, self.seq) == (page.record.gen, page.tail) and not is_over
        assert outcomes == [Appended.ACKED if is_current else Appended.FENCED]
        if is_current:
            self.seq, self.number = entry.seq, self.number + count
            self.model.log += texts
            self.publish([entry])

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0, 61.0]))
    def elapse(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    # What readers do.

    @precondition(lambda self: len(self.clients) < 4)
    @rule(form=st.sampled_from([None, None, "now", "seq", "id"]), share=st.floats(0, 1))
    def attach(self, form: str | None, share: float) -> None:
        """A client begins at the start, now, or at some event that was served."""
        page, served = self.page(), self.model.served()
        seq = served[int(share * (len(served) - 1))]
        gen = next(entry.gen for entry in page.entries if entry.first <= seq <= entry.seq)
        cursor = {"now": "now", "seq": str(seq), "id": f"{gen}-{seq}"}.get(form or "")
        after = {"now": self.model.servable(), "seq": seq, "id": seq}.get(form or "", -1)
        self.clients.append(Client(self.go(self._reader(cursor)), after))

    async def _reader(self, cursor: str | None) -> Reader:
        page = await self.journal.read(SID, -1, 1)
        return Reader(self.hub.join(page), self.hub, self.journal, await resolve(cursor, page, self.journal))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 3), paged=st.booleans())
    def read(self, which: int, paged: bool) -> None:
        """A client takes what can be had, once, from wherever it is."""
        client = self.clients[which % len(self.clients)]
        assert client.reader.behind == bool(self._missing(client))
        if client.reader.behind:
            client.take(self.go(client.reader.page() if paged else client.reader.next()))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 3))
    def reconnect(self, which: int) -> None:
        """A client loses its connection and comes back with the last id that it has."""
        client = self.clients[which % len(self.clients)]
        client.reader.detach()
        client.reader = self.go(self._reader(client.cursor))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 3))
    def leave(self, which: int) -> None:
        """A client goes for good."""
        self.clients.pop(which % len(self.clients)).reader.detach()

    @rule(ahead=st.integers(1, 3))
    def ask_ahead(self, ahead: int) -> None:
        """A cursor beyond the served part is refused with the last common seq."""
        with pytest.raises(StreamRefused) as refused:
            self.go(self._reader(str(self.model.servable() + ahead)))
        assert refused.value.extra == {"last_seq": self.model.servable()}

    def _missing(self, client: Client) -> list[int]:
        """What the model serves and the client has not."""
        last = client.applied[-1][1] if client.applied else client.after
        return [seq for seq in self.model.served() if seq > last]

    # What always holds.

    @invariant()
    def log_is_the_models(self) -> None:
        """Seqs are dense, ids increase, an end is last, and the events are those of the model."""
        page = self.page()
        log = [(entry.gen, seq, event) for entry in page.entries for seq, event in enumerate(entry.events, entry.first)]
        assert [seq for _, seq, _ in log] == list(range(len(log)))
        assert [gen for gen, _, _ in log] == sorted(gen for gen, _, _ in log)
        assert [e.text if isinstance(e, Text) else MARKS[type(e)] for _, _, e in log] == self.model.log
        assert "end" not in self.model.log[:-1]
        assert (page.record.state, page.record.servable(page.tail)) == (self.model.state, self.model.servable())
        assert page.record.gen >= self.record.gen + self.model.moves
        self.clients_have_a_prefix(log)

    def clients_have_a_prefix(self, log: list[tuple[int, int, Event]]) -> None:
        """What a client applied is a prefix of what is served behind its start, under the log's own ids."""
        served = self.model.served()
        for client in self.clients:
            wanted = [log[seq] for seq in served if seq > client.after]
            assert client.applied == wanted[: len(client.applied)]

    def teardown(self) -> None:
        """Nothing is left of the loop."""
        try:
            self.in_the_end()
        finally:
            self.loop.close()

    def in_the_end(self) -> None:
        """Every client has all of it, and the text is what was said and not skipped."""
        if self.model.state == "paused":
            self.control("resume", "z", None)
        self.ended("cancel", "zz")
        for client in self.clients:
            while self._missing(client):
                client.take(self.go(client.reader.next()))
            assert client.reader.done
            assert not client.reader.behind
        self.log_is_the_models()
        whole = Client(self.go(self._reader(None)), -1)
        while not whole.reader.done:
            whole.take(self.go(whole.reader.next()))
        said = [text for seq, text in enumerate(self.model.log) if "." in text and seq not in self.model.skip]
        assert "".join(e.text for _, _, e in whole.applied if isinstance(e, Text)) == "".join(said)
        for client in (*self.clients, whole):
            client.reader.detach()
        assert self.hub.channels == {}


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=max(settings.default.max_examples, 250))
