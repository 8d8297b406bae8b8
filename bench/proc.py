"""CPU time and memory of processes as Linux counts them, and the cores that the benchmark may use."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third on (proc(5)); the second may hold spaces and brackets."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """The process `root` and all that descend from it and live."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User plus system seconds that these processes have used; resolution 10 ms; one that is gone counts nothing."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def machine_cpu_s(used: Iterable[int]) -> float:
    """Seconds that these cores were busy since boot, with anything (proc(5), `stat`)."""
    names = {f"cpu{core}" for core in used}
    lines = [line.split() for line in (_PROC / "stat").read_text().splitlines()]
    # user, nice, system, then irq, softirq, steal; idle and iowait lie between.
    return sum(int(line[at]) for line in lines if line[0] in names for at in (1, 2, 3, 6, 7, 8)) / _TICKS_PER_S


def memory_kib(pids: Iterable[int]) -> int:
    """Proportional set size (PSS) of these processes together: pages shared among them count once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def cores() -> tuple[int, int]:
    """(core for load, upstream and Redis; core for the gateway). Raises SystemExit where there are not two."""
    if not hasattr(os, "sched_setaffinity") or not _PROC.is_dir():
        raise SystemExit("bench: needs Linux: it pins processes to cores and reads /proc")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("bench: needs two cores, one for the gateway and one for load generator and upstream; got one")
    return allowed[0], allowed[1]


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run on one core; processes started meanwhile inherit it and stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_model() -> str:
    """The processor's name."""
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"
