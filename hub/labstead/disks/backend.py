"""What every kind of file system can be asked.

The one rule: a backend acts on one mounted file system, by paths on it. It knows nothing of people and groups.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from labstead.errors import LabsteadError

Kind = Literal["xfs", "ext4", "btrfs", "other"]


class DiskError(LabsteadError):
    """A file system cannot do what was asked of it: what, where, what to do."""


class NotNow(DiskError):
    """It cannot be found out now: the file system is too full for a trial, or still counts."""


@dataclass(frozen=True)
class Limit:
    """How much may be there; None is no limit."""

    bytes: int | None = None
    files: int | None = None


NO_LIMIT = Limit()

FIRST_PROJECT = 1_000_000_000
"""Projects are numbers beside uids and gids; those of spaces are above what people give out by hand."""

_GRAIN = 64 * 1024


def rounded(size: int) -> int:
    """Round bytes up to what every file system can hold as a limit: whole blocks, of 64 KiB at most."""
    return -(-size // _GRAIN) * _GRAIN


@dataclass(frozen=True)
class Use:
    """What is there, and what the file system lets be there at most."""

    bytes: int
    files: int | None
    """Files and folders; None where the file system does not count them."""
    limit: Limit = NO_LIMIT
    """The hard limit as the kernel enforces it now."""
    soft: Limit = NO_LIMIT


@dataclass(frozen=True)
class Place:
    """A space as a file system knows it."""

    path: Path
    project: int
    """Number of its project, on file systems that have them; no other space ever has it."""


@dataclass(frozen=True)
class Report:
    """All that a file system counts."""

    places: Mapping[int, Use] = field(default_factory=dict)
    """By project; a place that is missing here is not counted on its own, so no limit of its own holds it."""
    users: Mapping[int, Use] = field(default_factory=dict)
    """By uid; empty where the file system does not count by user."""


@dataclass(frozen=True)
class Soft:
    """Soft limits, for all places of a file system."""

    percent: int = 100
    """Of the hard limit; 100 is none."""
    grace_days: int = 7

    def of(self, limit: Limit) -> Limit:
        """Give the soft limit beside a hard one; none where that is none or `percent` is 100."""
        if self.percent == 100:
            return NO_LIMIT
        return Limit(
            bytes=None if limit.bytes is None else rounded(limit.bytes * self.percent // 100),
            files=None if limit.files is None else limit.files * self.percent // 100,
        )


class Backend(Protocol):
    """One mounted file system."""

    kind: Kind
    root: Path
    """Any folder on it."""
    device: int
    """st_dev of its root: two folders with the same one share a file system."""
    counts_files: bool
    """Whether it can limit files as well as bytes."""
    counts_users: bool
    """Whether it can limit what a user owns, wherever it lies."""

    def problem(self) -> str | None:
        """Say why limits would not hold here, and what to change; None where they do.

        It asks the kernel, changes nothing and takes no time.
        """

    def prove(self) -> None:
        """Fill a place of its own to its limit as an ordinary user, by bytes and by files, and remove it.

        :raises DiskError: when the limit does not hold
        :raises NotNow: when that cannot be tried at this moment
        """

    def make(self, place: Place) -> None:
        """Make an empty folder, of root and mode 0700, that is a place."""

    def is_used(self, project: int) -> bool:
        """Tell whether something is counted for a project, so that no new place may have it."""

    def adopt(self, place: Place) -> bool:
        """Make a folder that exists, with all that is in it, a place; tell whether it was not one.

        Links are not followed, and what is changed meanwhile by its owner leads nowhere else.

        :raises DiskError: where that cannot be (btrfs: a plain folder cannot become a subvolume), or where it is a
            place now and something in it is not counted there
        """

    def is_place(self, place: Place) -> bool:
        """Tell whether a folder is the place."""

    def forget(self, place: Place) -> None:
        """Take away what is left of a place whose folder is gone: its limit and its entry in the list."""

    def report(self, places: Iterable[Place]) -> Report:
        """List what the file system counts of these places, and of all users; what cannot be looked at is left out."""

    def set_limits(self, places: Mapping[Place, Limit], users: Mapping[int, Limit], soft: Soft) -> None:
        """Set limits, at once and for programs that run; what is not named is left alone."""
