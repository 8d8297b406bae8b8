"""Says at the end of a run what recorded traffic was replayed, vendor by vendor, and what was left out and why."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.recorded.replay import VENDORS, left_out
from tests.support.recordings import folder, recordings

REPLAYED = "replayed"
REFUSED = "refused"
ERRORS = "errors"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line a vendor; nothing where nothing was replayed."""
    classified = [line for name, line in _properties(terminalreporter.stats.get("passed", ())) if name == ERRORS]
    if classified:
        terminalreporter.section("recorded errors by vendor")
        terminalreporter.write("".join(f"{line}\n" for line in classified))
    equal, broken, refused = Counter[str](), Counter[str](), Counter[str]()
    for outcome, tally in (("passed", equal), ("failed", broken)):
        for name, value in _properties(terminalreporter.stats.get(outcome, ())):
            if name != ERRORS:
                (tally if name == REPLAYED else refused)[value] += 1
    if not equal and not broken:
        return
    terminalreporter.section("recorded traffic through Atlas")
    for what in sorted({*equal, *broken}):
        different = f", {broken[what]} DIFFERENT" if broken[what] else ""
        terminalreporter.write_line(f"{what}: {equal[what] + broken[what]} replayed, {equal[what]} equal{different}")
    for vendor, why in _left_out():
        terminalreporter.write_line(f"left out: {vendor}: {why}")
    for what, count in sorted(refused.items()):
        terminalreporter.write_line(f"request not translatable: {what} ({count})")


def _properties(reports: Any) -> Iterator[tuple[str, str]]:
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name in {REPLAYED, REFUSED, ERRORS} and getattr(report, "when", "") == "call":
                yield name, str(value)


def _left_out() -> Iterator[tuple[str, str]]:
    if folder().is_dir():
        for vendor in VENDORS:
            reasons = Counter(why for each in recordings(vendor) if (why := left_out(each)) is not None)
            yield from ((vendor, f"{count} {why}") for why, count in reasons.items())
