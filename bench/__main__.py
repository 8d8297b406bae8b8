"""`python -m bench`: runs the rounds and prints the tables; `--write` also appends them to bench/RESULTS.md.

Within a round every measure visits the targets one after another, in an order that turns by one each round; each round
has fresh processes. Exit status 1 if something could not be measured, whatever the figures are.
"""

import argparse
import os
import platform
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from bench import proc, report
from bench.measures import MEASURES, QUICK, MeasureError, Scale, Session, p400
from bench.targets import NAMES, StartError, Target, direct, nginx_path, rig, start

_RESULTS = Path(__file__).parent / "RESULTS.md"
_TITLE = "# Results of `make bench`, newest last\n\nEach section is one run, appended by `--write`.\n"
_FILES = 20_000
_FEWEST_FILES = 2_600
_MAX_ROUNDS = 25
_USUAL_TARGETS = ("nginx", "atlas", "atlas-redis")
_REDIS_CHANGES = ("p400", "control", "elsewhere", "redis_memory")  # measured of atlas-redis unless `--only` is given


def main() -> int:
    """Run; returns the exit status."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    begin = monotonic()
    run = Run(options)
    try:
        run.all_rounds()
    except KeyboardInterrupt:
        _say("interrupted; everything is stopped")
        return 130
    text = _text(run, monotonic() - begin)
    print(text)
    if options.write:
        _append(text)
    return 1 if run.notes else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Atlas beside nginx in the same run.")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help="rounds, of which the median is taken (default 3, quick 1)")
    parser.add_argument("--only", type=_names(tuple(MEASURES)), help=f"measures, of {','.join(MEASURES)}")
    parser.add_argument(
        "--targets", type=_names(NAMES), help=f"targets, of {','.join(NAMES)}; default {','.join(_USUAL_TARGETS)}"
    )
    parser.add_argument("--write", action="store_true", help="append the tables to bench/RESULTS.md")
    options = parser.parse_args()
    options.rounds = max(1, min(options.rounds or (1 if options.quick else 3), _MAX_ROUNDS))
    options.targets = options.targets or _USUAL_TARGETS
    return options


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return parse


class Run:
    """All rounds of one call: its options, what was measured, what went wrong."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.samples: report.Samples = {name: {} for name in options.targets}
        self.notes: list[str] = []
        self._scale = QUICK if options.quick else Scale()

    def all_rounds(self) -> None:
        """Measure. Raises SystemExit where the machine cannot carry it, with what to do."""
        load_core, gateway_core = proc.cores()
        files = _raise_files()
        if "nginx" in self.options.targets:
            nginx_path()
        os.sched_setaffinity(0, {load_core})
        with rig(load_core, gateway_core) as where:
            if self._wanted("p400", "direct") and not self.options.quick:
                brief = Session(rig=where, scale=replace(self._scale, p400_s=2.0))
                self._measure(brief, "p400", p400, direct(where))
            for number in range(self.options.rounds):
                session = Session(rig=where, scale=self._scale)
                self._round(session, number, files)
                self.notes += [f"round {number + 1}: {note}" for note in session.notes]

    def _round(self, session: Session, number: int, files: int) -> None:
        with ExitStack() as stack:
            targets: list[Target] = []
            for name in self.options.targets:
                _say(f"round {number + 1} of {self.options.rounds}: starting {name}")
                try:
                    targets.append(stack.enter_context(start(name, session.rig, files)))
                except StartError as error:
                    session.notes.append(f"{name}: {error}")
                    _say(f"{name}: {error}")
            turn = number % max(1, len(targets))
            for what, measure in MEASURES.items():
                for target in targets[turn:] + targets[:turn]:
                    if self._wanted(what, target.name):
                        self._measure(session, what, measure, target)

    def _wanted(self, what: str, target: str) -> bool:
        if self.options.only:
            return what in self.options.only
        return target != "atlas-redis" or what in _REDIS_CHANGES

    def _measure(
        self, session: Session, what: str, measure: Callable[[Session, Target], dict[str, float]], target: Target
    ) -> None:
        begin = monotonic()
        try:
            figures = measure(session, target)
        except MeasureError as error:
            session.notes.append(f"{target.name}: {what}: {error}")
            figures = {}
        known = self.samples.setdefault(target.name, {})
        for key, value in figures.items():
            known.setdefault(key, []).append(value)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        _say(f"  {what:9} {target.name:11} {monotonic() - begin:5.1f} s  {shown or 'nothing'}")


def _raise_files() -> int:
    """Raise the limit of open files as far as allowed and useful; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = max(soft, _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard))
    if files < _FEWEST_FILES:
        raise SystemExit(f"bench: needs {_FEWEST_FILES} open files a process, allowed are {files}: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return files


def _text(run: Run, took_s: float) -> str:
    """The whole section in Markdown."""
    options = run.options
    rounds = f"{options.rounds} round{'s' if options.rounds > 1 else ''}{', quick' if options.quick else ''}"
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    yardstick = _nginx_version() if "nginx" in options.targets else "without nginx"
    machine = f"{proc.cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    lines = [
        f"## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {rounds}\n",
        f"`{command}`, {took_s:.0f} s; {machine}, Python {platform.python_version()}, {yardstick}.\n",
        *(f"{table}\n" for table in report.tables(run.samples)),
        *report.rig_lines(run.samples),
    ]
    if run.notes:
        lines += ["\nNot in order:\n", *(f"- {note}" for note in run.notes)]
    return "\n".join(lines)


def _nginx_version() -> str:
    answer = subprocess.run([nginx_path(), "-v"], capture_output=True, text=True, check=False, timeout=10)
    return answer.stderr.strip().rpartition(": ")[2]


def _append(text: str) -> None:
    before = _RESULTS.read_text() if _RESULTS.exists() else _TITLE
    _RESULTS.write_text(f"{before.rstrip()}\n\n{text.rstrip()}\n")
    _say("appended to bench/RESULTS.md")


def _interrupt(*_: object) -> None:
    """Stop once: a second signal must not cut the stopping of the children short, which is bounded in time."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
