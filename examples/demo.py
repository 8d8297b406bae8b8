"""Two gateways behind nginx over one Redis, on this machine: `make demo`.

It starts what docker-compose.yml starts, walks through what several replicas promise while other clients ask on, prints
what it does and sees, reads the dashboard's numbers, and exits with 1 if anything was not as promised.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from examples.dashboard import Dashboard
from examples.load import Load
from examples.topology import MissingProgramError, Service, Topology

TAKEN_OVER_S = 12.0
"""The lease of the demo (2 s) and ten seconds."""
JOIN_S = 15.0
TERMINAL = ("completed", "incomplete", "cancelled", "failed")
PROMPT = [{"role": "user", "content": "Tell me about rivers."}]


class WalkEndedError(Exception):
    """A promise was not kept without which the rest of this walk makes no sense."""


@dataclass
class Reader:
    """A client that reads a stream's events in the background; `events` are (id, kind, data)."""

    url: str
    after: str | None = None
    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    how: str = "open"

    @property
    def text(self) -> str:
        """What it has of the text."""
        return "".join(data["text"] for _, kind, data in self.events if kind == "text")

    @property
    def kinds(self) -> list[str]:
        """The kinds of its events."""
        return [kind for _, kind, _ in self.events]

    @contextmanager
    def reading(self) -> Iterator["Reader"]:
        """Reads while entered; leaving waits for the body's end, at most `JOIN_S`."""
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        yield self
        thread.join(JOIN_S)

    def _read(self) -> None:
        headers = {} if self.after is None else {"last-event-id": self.after}
        try:
            with httpx.stream("GET", self.url, headers=headers, timeout=30, trust_env=False) as answer:
                if answer.status_code != 200:
                    self.how = f"was answered {answer.status_code}"
                    return
                lines: dict[str, str] = {}
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if line:
                        lines[name] = value
                    elif "data" in lines:
                        self.events.append((lines["id"], lines["event"], json.loads(lines["data"])))
                        lines = {}
            self.how = "ended"
        except httpx.TransportError as error:
            self.how = f"broke off ({type(error).__name__})"


@dataclass
class Walk:
    """The walk through the promises; `broken` are those that were not kept."""

    it: Topology
    broken: list[str] = field(default_factory=list)
    kept: int = 0

    def say(self, text: str) -> None:
        """One line of what happens."""
        print(text, flush=True)

    def promise(self, what: str, is_kept: bool, saw: object = "", *, needed: bool = False) -> None:
        """Judge one promise, and say so; raises WalkEndedError if a `needed` one is broken."""
        if is_kept:
            self.kept += 1
        else:
            self.broken.append(f"{what} (saw: {saw})")
        self.say(f"  {'ok   ' if is_kept else 'WRONG'} {what}" + ("" if is_kept else f": {saw}"))
        if needed and not is_kept:
            raise WalkEndedError

    def until(self, is_so: Any, within_s: float) -> bool:
        """Whether it becomes so in time."""
        deadline = time.monotonic() + within_s
        while not is_so():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def begin(self, url: str, model: str) -> str:
        """Start a stream that goes on without its client; its id."""
        body = {"model": model, "stream": True, "messages": PROMPT}
        headers = {"x-atlas-on-disconnect": "continue"}
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30, trust_env=False
        ) as answer:
            answer.raise_for_status()
            return answer.headers["x-atlas-stream-id"]

    def control(self, gateway: Service, sid: str, op: str) -> dict[str, Any]:
        """Pause, resume or cancel at one gateway; says what was answered."""
        answer = httpx.post(f"{gateway.url}/v1/streams/{sid}/{op}", timeout=30, trust_env=False)
        said: dict[str, Any] = answer.json()
        shown = {name: said.get(name) for name in ("changed", "seq", "upstream") if name in said}
        self.say(f"  {op} at {gateway.name}: {answer.status_code} {json.dumps(shown)}")
        return said | {"status": answer.status_code}

    def status(self, gateway: Service, sid: str) -> dict[str, Any]:
        """The status object, as one gateway tells it."""
        said: dict[str, Any] = httpx.get(f"{gateway.url}/v1/streams/{sid}", timeout=30, trust_env=False).json()
        return said

    def pause_and_resume(self) -> None:
        """Pause on one replica, resume on the other, read it again by cursor."""
        one, two = self.it.gateways
        self.say("\n1. A stream through nginx; paused at one gateway, resumed at the other")
        sid = self.begin(self.it.url, "mock")
        self.say(f"  POST {self.it.url}/v1/chat/completions: {sid}")
        with Reader(f"{self.it.url}/v1/streams/{sid}/events").reading() as reader:
            got = self.until(lambda: len(reader.events) > 10, 10)
            self.promise("a reader through nginx gets events", got, reader.how, needed=True)
            paused = self.control(one, sid, "pause")
            self.promise(
                f"{one.name} pauses it", paused["status"] == 200 and paused["stream"]["state"] == "paused", paused
            )
            self.until(lambda: "pause" in reader.kinds, 5)
            time.sleep(1.0)  # what is shown is that nothing comes: the provider writes some fifty tokens meanwhile
            last = int(reader.events[-1][0].partition("-")[2])
            self.promise(f"nothing beyond event {paused['seq']} comes for a second", last == paused["seq"], last)
            at = reader.events[-1][0]
            resumed = self.control(two, sid, "resume")
            self.promise(f"{two.name} resumes it", resumed["status"] == 200, resumed)
        self.promise("all of it came, in order", reader.kinds[-1:] == ["end"] and dense(reader), reader.how)
        state = self.status(two, sid)["state"]
        self.promise("it completed", state == "completed", state)
        with Reader(f"{two.url}/v1/streams/{sid}/events", after=at).reading() as again:
            pass
        whole = [event for event in reader.events if number(event[0]) > number(at)]
        self.promise(f"read again at {two.name} after cursor {at}: the same {len(whole)} events", again.events == whole)

    def cancel(self) -> None:
        """Cancel at the gateway that does not own the stream."""
        one, two = self.it.gateways
        self.say(f"\n2. A stream of {one.name}, cancelled at {two.name}")
        sid = self.begin(one.url, "mock-slow")
        with Reader(f"{two.url}/v1/streams/{sid}/events").reading() as reader:
            got = self.until(lambda: len(reader.events) > 3, 10)
            self.promise(f"a reader at {two.name} gets events", got, reader.how, needed=True)
            said = self.control(two, sid, "cancel")
            self.promise("200, and the provider's socket is closed",
                         (said["status"], said.get("upstream")) == (200, "closed"), said)  # fmt: skip
        self.promise("its reader got the end", reader.kinds[-1:] == ["end"], reader.how)
        state = self.status(one, sid)["state"]
        self.promise(f"{one.name} says cancelled, too", state == "cancelled", state)

    def kill(self) -> None:
        """Kill the owner of a stream."""
        one, two = self.it.gateways
        self.say(f"\n3. A stream of {one.name}, which is killed (kill -9 {one.pid})")
        sid = self.begin(one.url, "mock-slow")
        with Reader(f"{one.url}/v1/streams/{sid}/events").reading() as reader:
            got = self.until(lambda: len(reader.events) > 5, 10)
            self.promise(f"a reader at {one.name} gets events", got, reader.how, needed=True)
            one.kill()
            killed = time.monotonic()
        self.promise("its reader's connection broke off, nothing looked complete",
                     reader.how.startswith("broke") and "end" not in reader.kinds, reader.how)  # fmt: skip
        at = reader.events[-1][0]
        self.say(f"  the reader comes back at nginx, with the cursor {at}")
        with Reader(f"{self.it.url}/v1/streams/{sid}/events", after=at).reading() as again:
            ended = self.until(lambda: self.status(two, sid)["state"] in TERMINAL, TAKEN_OVER_S)
        took = time.monotonic() - killed
        self.promise(f"it has an end within {TAKEN_OVER_S:g} s", ended, self.status(two, sid))
        end = again.events[-1][2] if again.events else {}
        self.say(f"  {took:.1f} s after the kill: {end.get('state')} ({end.get('reason')})")
        reader.events += again.events
        self.promise("the reader has all of the log, once, in order", reader.kinds[-1:] == ["end"] and dense(reader))
        text = httpx.get(f"{two.url}/v1/streams/{sid}/text", trust_env=False).json()["text"]
        self.promise("what was generated can be read on", bool(text) and text == reader.text, text)
        self.promise("nginx answers, with one gateway left",
                     self.status_of(f"{self.it.url}/v1/streams/{sid}") == 200)  # fmt: skip
        one.start()
        back = self.until(lambda: self.status_of(f"{one.url}/readyz") == 200, 20)
        self.promise(f"{one.name} is back, and serves the stream that it lost",
                     back and self.status(one, sid)["state"] == self.status(two, sid)["state"])  # fmt: skip

    def judge(self, load: Load) -> None:
        """What the clients saw that asked on all the while."""
        self.say(f"\n4. Meanwhile {load.clients} clients asked through nginx, one answer after the other")
        self.say("  " + ", ".join(f"{times} {how}" for how, times in load.seen.most_common()))
        self.promise("most answers were whole", load.seen["whole"] > load.seen.total() / 2, dict(load.seen))
        self.promise("whatever looked whole was whole, and the same", len(load.texts) == 1, len(load.texts))

    def look(self) -> None:
        """The dashboard, as Prometheus has it."""
        self.say("\n5. The dashboard's numbers (deploy/grafana), as Prometheus has scraped them in the last seconds")
        if self.it.prometheus is None:
            self.say("  left out: prometheus is not installed (apt-get install prometheus)")
            return
        names = {each.url.removeprefix("http://"): each.name for each in self.it.gateways}
        dashboard, row = Dashboard(self.it.prometheus.url, names), ""
        scraped = self.until(lambda: dashboard.value('sum(up{job="atlas"})') == len(names), 10)
        self.promise("both gateways are scraped", scraped)
        panels = list(dashboard.panels())
        for panel in panels:
            if any(value for _, value in panel.series):
                self.say((f"  {panel.row}\n" if panel.row != row else "") + f"    {panel}")
                row = panel.row
        empty = [panel.title for panel in panels if panel.row == "Overview" and not panel.series]
        self.promise("no panel of the overview is empty", not empty, empty)

    def status_of(self, url: str) -> int:
        """The HTTP status of a GET; 0 if nobody answers."""
        try:
            return httpx.get(url, timeout=5, trust_env=False).status_code
        except httpx.TransportError:
            return 0


def number(cursor: str) -> int:
    """The place in the log."""
    return int(cursor.partition("-")[2])


def dense(reader: Reader) -> bool:
    """Whether it has every event from the first one on, once, in order."""
    return [number(cursor) for cursor, _, _ in reader.events] == list(range(len(reader.events)))


def main() -> int:
    """Walk; 0 if every promise was kept, 1 if not, 2 if it could not begin."""
    try:
        with Topology.started() as it:
            names = ", ".join(f"{each.name} {each.url}" for each in it.gateways)
            print(f"nginx {it.url}; {names}; one Redis (docker-compose.yml, with real processes)")
            walk = Walk(it)
            with Load(it.url).running() as load:
                for part in (walk.pause_and_resume, walk.cancel, walk.kill):
                    _walked(walk, part)
            for part in (lambda: walk.judge(load), walk.look):
                _walked(walk, part)
    except (MissingProgramError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"\n{walk.kept} promises kept, {len(walk.broken)} broken." + "".join(f"\n  {each}" for each in walk.broken))
    return 1 if walk.broken else 0


def _walked(walk: Walk, part: Callable[[], None]) -> None:
    try:
        part()
    except WalkEndedError:
        walk.say("  (the rest of this part makes no sense then)")
    except (httpx.HTTPError, LookupError, ValueError) as error:
        walk.promise("every answer is as documented", False, repr(error))  # noqa: FBT003 - the fact itself


if __name__ == "__main__":
    sys.exit(main())
