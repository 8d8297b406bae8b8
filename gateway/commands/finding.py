"""One thing that the doctor looked at, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    subject: str
    said: str
    remedy: str = ""

    def shown(self) -> dict[str, str]:
        """For scripts."""
        return {"level": self.level.lower(), "subject": self.subject, "said": self.said, "remedy": self.remedy}


def ok(subject: str, said: str) -> Finding:
    """All is well."""
    return Finding(level=Level.OK, subject=subject, said=said)


def note(subject: str, said: str, remedy: str = "") -> Finding:
    """It works, and may not be what is wanted."""
    return Finding(level=Level.NOTE, subject=subject, said=said, remedy=remedy)


def wrong(subject: str, said: str, remedy: str = "") -> Finding:
    """It does not work."""
    return Finding(level=Level.WRONG, subject=subject, said=said, remedy=remedy)
