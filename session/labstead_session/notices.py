"""How full a space on disk is, in numbers and words: sizes, levels, and what its owner is told.

The one rule: the session and the hub's pages say the same, so it is all here alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

NOTICE = 80
"""Percent of a limit from which on a notice is shown."""
WARNING = 95
"""Percent from which on it is a warning."""
_LEFT_BYTES = 2**20
"""A space at 95 % with less than this left is full: file systems, btrfs above all, set aside more than a file needs."""

Kind = Literal["home", "group", "scratch"]
Level = Literal["", "notice", "warning", "full"]


def size(count: int | None) -> str:
    """Write a number of bytes for people; nothing where there is no number."""
    if count is None:
        return ""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    number = f"{value:.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0")
    return f"{number} {unit}"


def percent(used: int | None, limit: int | None) -> int | None:
    """Say how full something is, rounded down; None where there is no limit, or nothing is known."""
    return 100 * used // limit if used is not None and limit else None


@dataclass(frozen=True)
class Amount:
    """How much of something is used, and how much may be."""

    what: Literal["bytes", "files"]
    used: int
    limit: int | None
    low: ClassVar[int] = NOTICE - 1
    high: ClassVar[int] = WARNING - 1
    """A meter has other colours above these, in percent."""

    @property
    def percent(self) -> int | None:
        """Give the use in percent of the limit; None without a limit."""
        return percent(self.used, self.limit)

    @property
    def level(self) -> Level:
        """Tell how urgent it is."""
        if self.limit is None or self.percent is None or self.percent < NOTICE:
            return ""
        if self.percent < WARNING:
            return "notice"
        return "full" if self.limit - self.used < (_LEFT_BYTES if self.what == "bytes" else 1) else "warning"

    @property
    def words(self) -> str:
        """Write it for people."""
        if self.what == "files":
            limit = f" of {self.limit:,}" if self.limit else ""
            return f"{self.used:,}{limit} files and folders"
        used = size(self.used)
        if not self.limit:
            return used
        # The unit once where it is the same.
        number, unit = used.split()
        most = size(self.limit)
        return f"{number if most.endswith(f' {unit}') else used} of {most}"


def amounts(
    used_bytes: int | None, limit_bytes: int | None, used_files: int | None, limit_files: int | None
) -> list[Amount]:
    """Give what there is to say of a space: bytes, and files where they are limited."""
    found = []
    if used_bytes is not None:
        found.append(Amount("bytes", used_bytes, limit_bytes))
    if used_files is not None and limit_files:
        found.append(Amount("files", used_files, limit_files))
    return found


def fullest(found: Iterable[Amount]) -> Amount | None:
    """Give what is nearest to its limit; None without a limit."""
    limited = [amount for amount in found if amount.percent is not None]
    return max(limited, key=lambda amount: amount.used / (amount.limit or 1), default=None)


def title(kind: Kind, name: str) -> str:
    """Give what its owner calls a space."""
    titles: dict[Kind, str] = {"home": "Home", "group": f"Group {name}", "scratch": "Scratch"}
    return titles[kind]


def subject(kind: Kind, name: str) -> str:
    """Give what a sentence about a space speaks of, not at its beginning."""
    subjects: dict[Kind, str] = {
        "home": "your home",
        "group": f"the folder of the group {name}",
        "scratch": "your scratch",
    }
    return subjects[kind]


def begin(sentence: str) -> str:
    """Write the beginning of a sentence large."""
    return sentence[:1].upper() + sentence[1:]


def notice(what: str, amount: Amount | None, level: Level) -> str:
    """Tell the owner of a space that it fills up; nothing while there is room.

    :param what: what the sentence begins with, small or large
    """
    if amount is None or not level:
        return ""
    if level == "notice":
        return begin(f"{what} is {amount.percent} % full: {amount.words}.")
    if level == "warning":
        return begin(f"{what} is almost full: {amount.words}. Please delete what is no longer needed.")
    return begin(f"{what} is full: {amount.words}. Nothing more can be saved there.")
