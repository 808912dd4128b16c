"""What no backend knows, or what has its quotas off: NFS, Lustre, a disk without limits.

The one rule: a place is a plain folder, and no limit is promised that nothing holds.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from labstead.disks.backend import NO_LIMIT, DiskError, Kind, Limit, Place, Report, Soft


class Other:
    """A file system that only holds files.

    :param problem: why limits do not hold, and what to change
    """

    kind: Kind = "other"
    counts_files = False
    counts_users = False

    def __init__(self, root: Path, device: int, problem: str) -> None:
        self.root = root
        self.device = device
        self._problem = problem

    def problem(self) -> str | None:
        """Say why limits would not hold."""
        return self._problem

    def prove(self) -> None:
        """Fail: there is nothing to prove."""
        raise DiskError(self._problem)

    def make(self, place: Place) -> None:
        """Make a folder."""
        place.path.mkdir(mode=0o700)

    def is_used(self, project: int) -> bool:  # noqa: ARG002
        """Tell that none is: there are none."""
        return False

    def adopt(self, place: Place) -> bool:  # noqa: ARG002
        """Leave the folder as it is."""
        return False

    def is_place(self, place: Place) -> bool:
        """Tell whether there is such a folder."""
        return place.path.is_dir()

    def forget(self, place: Place) -> None:
        """Do nothing: nothing is left."""

    def report(self, places: Iterable[Place]) -> Report:  # noqa: ARG002
        """Tell nothing: nothing is counted."""
        return Report()

    def set_limits(self, places: Mapping[Place, Limit], users: Mapping[int, Limit], soft: Soft) -> None:  # noqa: ARG002
        """Refuse any limit."""
        if any(limit != NO_LIMIT for limit in (*places.values(), *users.values())):
            raise DiskError(self._problem)
