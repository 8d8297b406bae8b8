"""What is overload and whom it hits: claims about the decisions alone, by a clock that is turned by hand."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.overload import FILES_KEPT, Bounds, Lines, Overload, Strain, Why, bounds

BOUNDS = Bounds(max_streams=100, shared=90, max_connections=200, plain=180)


@pytest.mark.parametrize("files", [64, 100, 256, 1024, 4096, 1 << 20, 1 << 30])
def test_files_are_enough(files: int) -> None:
    """Streams, connections and everything else together never need more files than there are, but for tiny limits."""
    found = bounds(files, max_streams=None, max_connections=None, several=True, queue_s=1, loop_s=0.05)
    assert 1 <= found.shared <= found.max_streams <= 10_000
    assert 1 <= found.plain <= found.max_connections
    assert found.max_streams + found.max_connections + FILES_KEPT <= max(files, FILES_KEPT + 2)


def test_alone_takes_all() -> None:
    """Where there is one tenant only, nothing is kept for others."""
    found = bounds(1000, max_streams=50, max_connections=70, several=False, queue_s=1, loop_s=0.05)
    assert (found.shared, found.max_streams, found.max_connections) == (50, 50, 70)


def test_burst_is_no_strain() -> None:
    """A slow loop is overload only once every look for a second found it slow; one quick look ends that."""
    strain = Strain(BOUNDS)
    seen: list[bool] = []
    for at, took_s in [(0.0, 0.3), (0.5, 0.2), (0.9, 0.1), (1.0, 0.06), (1.5, 0.05), (1.6, 0.3), (2.5, 0.3)]:
        strain.felt(at, took_s, took_s)
        seen.append(strain.standing)
    assert seen == [False, False, False, True, False, False, False]


def test_slow_for_others() -> None:
    """A loop that waits for a processor which others use is overload only at ten times the bound."""
    strain = Strain(BOUNDS)
    for at, took_s, standing in [(0, 0.4, False), (2, 0.4, False), (3, 0.6, False), (4, 0.6, True)]:
        strain.felt(at, took_s, 0.01)
        assert strain.standing is standing


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_lines(steps: list[tuple[str, bool]]) -> None:
    """Nobody is lost or passed by their own tenant; between two turns of one every other tenant that waits has one."""
    lines: Lines[tuple[str, int]] = Lines()
    joined: Counter[str] = Counter()
    left: Counter[str] = Counter()
    owed: dict[str, set[str]] = {}
    for tenant, joins in steps:
        if joins:
            lines.join(tenant, (tenant, joined[tenant]), 0.0)
            joined[tenant] += 1
        elif (item := lines.next()) is not None:
            who, number = item
            assert number == left[who]
            left[who] += 1
            assert not owed.pop(who, set())
            for others in owed.values():
                others.discard(who)
            if joined[who] > left[who]:
                owed[who] = {other for other in joined if joined[other] > left[other] and other != who}
        assert lines.waiting == (joined - left).total()


def test_full() -> None:
    """At the bound all are refused; from nine tenths on those who hold their fair share, so others find a place."""
    overload: Overload[int] = Overload(BOUNDS)
    overload.counted({"noisy": 85, "quiet": 5})
    assert overload.refusal("noisy", 89) is None
    assert overload.refusal("noisy", 90) is Why.STREAMS
    assert overload.refusal("quiet", 90) is None
    assert overload.refusal("new", 99) is None
    assert overload.refusal("new", 100) is Why.STREAMS
    for _ in range(50):
        overload.taken("new")
    assert overload.refusal("new", 95) is Why.STREAMS


def test_strained() -> None:
    """While the loop is too slow those who hold their fair share are refused, and who is alone."""
    overload: Overload[int] = Overload(BOUNDS)
    for at in range(3):
        overload.strain.felt(at, 0.2, 0.2)
    assert overload.refusal("alone", 0) is Why.LOOP
    overload.counted({"noisy": 20, "quiet": 5})
    assert overload.refusal("noisy", 25) is Why.LOOP
    assert overload.refusal("quiet", 25) is None


def test_connections() -> None:
    """Nothing begins on the last connections: they are for control."""
    overload: Overload[int] = Overload(BOUNDS)
    assert overload.refusal("any", 0, 180) is None
    assert overload.refusal("any", 0, 181) is Why.CONNECTIONS


class Simulation:
    """A process that can begin `capacity` requests a second, in steps of 10 ms; every tenant sends at its own rate."""

    def __init__(self, capacity: int) -> None:
        self.overload: Overload[tuple[str, float]] = Overload(BOUNDS)
        self.now, self._per_step = 0.0, capacity // 100
        self.sent: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.longest: Counter[str] = Counter()
        self._due: dict[str, float] = {}

    def run(self, seconds: float, rates: dict[str, int]) -> None:
        """So long."""
        for step in range(round(seconds * 100)):
            self.now += 0.01
            for tenant, rate in rates.items():
                self._due[tenant] = self._due.get(tenant, 0.0) + rate / 100
                while self._due[tenant] >= 1:
                    self._due[tenant] -= 1
                    self._arrives(tenant)
            for _ in range(self._per_step):
                if (item := self.overload.lines.next()) is not None:
                    tenant, since = item
                    self.begun[tenant] += 1
                    self.longest[tenant] = max(self.longest[tenant], self.now - since)  # type: ignore[assignment]
            if step % 5 == 0:
                self.overload.lines.measure(self.now)

    def _arrives(self, tenant: str) -> None:
        self.sent[tenant] += 1
        if self.overload.refusal(tenant, 0) is None:
            self.overload.lines.join(tenant, (tenant, self.now), self.now)
        else:
            self.refused[tenant] += 1


@pytest.mark.parametrize("times", [2, 5])
def test_goodput(times: int) -> None:
    """At twice and five times what it can do it does all it can, and nobody waits much longer than a second to begin.

    Once the overload is over nobody is refused, and after three seconds nobody waits.
    """
    it = Simulation(1000)
    it.run(10, {"all": times * 1000})
    assert it.begun["all"] >= 9_900
    assert it.longest["all"] <= 1.2
    refused = it.refused.copy()
    it.run(3, {"all": 500})
    it.longest.clear()
    it.run(5, {"all": 900})
    assert it.refused == refused
    assert it.longest["all"] <= 0.02


def test_looks_at_bad_moments() -> None:
    """A look just after somebody began to wait, when nobody has begun yet, does not make the process seem slow."""
    lines: Lines[int] = Lines()
    now = 0.0
    for _ in range(1000):
        for n in range(64):
            lines.join("all", n, now)
        lines.measure(now + 0.001)
        while lines.next() is not None:
            now += 0.001
        now += 0.001
    lines.join("all", 0, now)
    assert lines.wait_s("all") < 0.1


def test_a_bad_moment_is_forgotten() -> None:
    """What was slow once is no reason to refuse a burst an hour later."""
    lines: Lines[int] = Lines()
    for n in range(40):
        lines.join("all", n, 0.0)
    for _ in range(16):
        lines.next()
    lines.measure(3.0)
    assert lines.wait_s("all") > 1
    while lines.next() is not None:
        pass
    lines.measure(3.05)
    for n in range(100):
        lines.join("all", n, 3600.0)
    assert lines.wait_s("all") == 0


def test_noisy() -> None:
    """A tenant that sends five times what there is room for costs the others nothing of what they send."""
    it = Simulation(1000)
    quiet = {f"quiet{n}": 100 for n in range(4)}
    it.run(10, {"noisy": 5000, **quiet})
    assert it.refused.total() == it.refused["noisy"]
    assert all(it.begun[name] >= it.sent[name] - 2 and it.longest[name] < 0.1 for name in quiet)
    assert it.begun.total() >= 9_900


def test_burst_is_served() -> None:
    """Two thousand requests at the same moment all begin, however long that takes."""
    it = Simulation(1000)
    for _ in range(2000):
        it._arrives("all")
    it.run(3, {})
    assert (it.begun["all"], it.refused["all"]) == (2000, 0)
