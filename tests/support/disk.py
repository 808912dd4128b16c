"""A disk that stands in for one that holds limits; the real ones are tried on a host and in a guest."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from labstead import disks
from labstead.disks.backend import NO_LIMIT, DiskError, Kind, Limit, Place, Report, Soft, Use


class Disk:
    """A file system that counts what tests say is there.

    :param kind: what it says it is; btrfs counts neither files nor users
    """

    def __init__(self, root: Path, kind: Kind = "xfs") -> None:
        self.root = root
        self.kind: Kind = kind
        self.device = 1
        self.counts_files = self.counts_users = kind != "btrfs"
        self.broken: str | None = None
        """Why it holds no limits."""
        self.stubborn: set[str] = set()
        """Names of folders that cannot be taken in."""
        self.limits: dict[int, Limit] = {}
        self.user_limits: dict[int, Limit] = {}
        self.soft: dict[int, Limit] = {}
        self.grace_days = 0
        self.owned: dict[int, int] = {}
        """Bytes that people own, by uid."""
        self.taken: set[int] = set()
        """Projects that count something which no test has made."""
        self.forgotten: list[int] = []
        self.calls: list[str] = []
        self._held: dict[Path, tuple[int, int]] = {}
        self._projects: dict[int, int] = {}

    # --- what tests say and ask

    def fill(self, path: Path, size: int, files: int = 1) -> None:
        """Say what a folder holds, all of which is its owner's."""
        self._held[path] = (size, files)
        self.owned[path.stat().st_uid] = size

    def limit(self, path: Path) -> Limit:
        """Give the limit that holds a folder."""
        project = self._projects.get(os.lstat(path).st_ino)
        return NO_LIMIT if project is None else self.limits.get(project, NO_LIMIT)

    # --- labstead.disks.backend.Backend

    def problem(self) -> str | None:
        return self.broken

    def prove(self) -> None:
        raise NotImplementedError

    def make(self, place: Place) -> None:
        place.path.mkdir(mode=0o700)
        self._projects[os.lstat(place.path).st_ino] = place.project

    def is_used(self, project: int) -> bool:
        return project in self.taken

    def adopt(self, place: Place) -> bool:
        if self.is_place(place):
            return False
        if place.path.name in self.stubborn:
            raise DiskError(f"{place.path}: cannot be taken in")
        self._projects[os.lstat(place.path).st_ino] = place.project
        return True

    def is_place(self, place: Place) -> bool:
        return place.path.exists() and self._projects.get(os.lstat(place.path).st_ino) == place.project

    def forget(self, place: Place) -> None:
        assert not place.path.exists()
        self.limits.pop(place.project, None)
        self.forgotten.append(place.project)

    def report(self, places: Iterable[Place]) -> Report:
        self.calls.append("report")
        if self.broken:
            raise DiskError(self.broken)
        there = [place for place in places if self.is_place(place)]
        users = {
            uid: Use(self.owned.get(uid, 0), 0, self.user_limits.get(uid, NO_LIMIT), self.soft.get(uid, NO_LIMIT))
            for uid in self.user_limits.keys() | self.owned.keys()
        }
        return Report({place.project: self._use(place) for place in there}, users)

    def _use(self, place: Place) -> Use:
        size, files = self._held.get(place.path, (0, 1))
        limit, soft = self.limits.get(place.project, NO_LIMIT), self.soft.get(place.project, NO_LIMIT)
        return Use(size, files if self.counts_files else None, limit, soft)

    def set_limits(self, places: Mapping[Place, Limit], users: Mapping[int, Limit], soft: Soft) -> None:
        if places or users:
            self.calls.append("set")
        for place, limit in places.items():
            self.limits[place.project] = limit
            self.soft[place.project] = soft.of(limit)
        for uid, limit in users.items():
            assert self.counts_users
            self.user_limits[uid] = limit
            self.soft[uid] = soft.of(limit)
        self.grace_days = soft.grace_days

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of whatever a folder lies on."""
        monkeypatch.setattr(disks, "find", lambda _folder: self)
