"""The ledger's part about spaces: what was said of their limits, and the numbers that disks know them by.

The one rule: a number is given once. It stays with its space until nothing on a disk bears it any more, and then
nobody else gets it.
"""

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from labstead.accounts.database import Database
from labstead.accounts.group_ledger import GroupRow
from labstead.disks.backend import FIRST_PROJECT
from labstead.settings import Limit, SpaceKind

MemberKind = Literal["home", "scratch"]


@dataclass(frozen=True)
class SpaceRow:
    """A space as the ledger knows it."""

    id: int
    kind: SpaceKind
    number: int
    """uid, or gid of a group's folder."""
    said: Limit
    """What was said of this very space."""

    @property
    def project(self) -> int:
        """Give the number of its project."""
        return FIRST_PROJECT + self.id


def _limit(row: sqlite3.Row) -> Limit:
    return Limit(bytes=row["bytes"], files=row["files"])


def _space(row: sqlite3.Row) -> SpaceRow:
    return SpaceRow(id=row["id"], kind=row["kind"], number=row["number"], said=_limit(row))


class SpaceLedger:
    """Spaces and their limits.

    :param db: the ledger's file
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def all(self) -> dict[tuple[SpaceKind, int], SpaceRow]:
        """Give all spaces, by kind and number."""
        rows = map(_space, self._db.rows("SELECT * FROM space"))
        return {(row.kind, row.number): row for row in rows}

    def ensure(self, kind: SpaceKind, number: int) -> SpaceRow:
        """Give a space, which gets its project here if it has none."""
        with self._db.transaction():
            if (row := self.find(kind, number)) is None:
                self._db.write("INSERT INTO space (kind, number) VALUES (?, ?)", kind, number)
                row = self.find(kind, number)
        assert row is not None  # noqa: S101 - it was written a moment ago
        return row

    def renumber(self, row: SpaceRow, step: int) -> SpaceRow:
        """Give a space another project, so many above all that were ever given."""
        with self._db.transaction():
            last = self._db.row("SELECT seq FROM sqlite_sequence WHERE name = 'space'")
            assert last is not None  # noqa: S101 - the space itself was written
            self.remove(row)
            self._db.write(
                "INSERT INTO space (id, kind, number, bytes, files) VALUES (?, ?, ?, ?, ?)",
                *(last["seq"] + step, row.kind, row.number, row.said.bytes, row.said.files),
            )
            return self.ensure(row.kind, row.number)

    def find(self, kind: SpaceKind, number: int) -> SpaceRow | None:
        """Give a space; None where it has no number yet."""
        row = self._db.row("SELECT * FROM space WHERE kind = ? AND number = ?", kind, number)
        return _space(row) if row is not None else None

    def said(self, kind: SpaceKind, number: int) -> Limit:
        """Give what was said of a space."""
        row = self.find(kind, number)
        return row.said if row is not None else Limit()

    def set_limit(self, kind: SpaceKind, number: int, limit: Limit) -> None:
        """Say how much a space may hold."""
        with self._db.transaction():
            row = self.ensure(kind, number)
            self._db.write("UPDATE space SET bytes = ?, files = ? WHERE id = ?", limit.bytes, limit.files, row.id)

    def forget_limits(self, number: int, *kinds: SpaceKind) -> None:
        """Take back what was said of somebody's or a group's spaces."""
        for kind in kinds:
            self._db.write("UPDATE space SET bytes = NULL, files = NULL WHERE kind = ? AND number = ?", kind, number)

    def remove(self, row: SpaceRow) -> None:
        """Remove a space that nothing on a disk belongs to any more; its project is never given again."""
        self._db.write("DELETE FROM space WHERE id = ?", row.id)

    # --- what groups say of their members' spaces

    def member_limits(self) -> dict[int, dict[MemberKind, Limit]]:
        """Give what is said of members' spaces, by the group's id and by kind."""
        found: dict[int, dict[MemberKind, Limit]] = {}
        for row in self._db.rows("SELECT * FROM member_limit ORDER BY group_id, kind"):
            found.setdefault(row["group_id"], {})[row["kind"]] = _limit(row)
        return found

    def set_member_limit(self, group: GroupRow, kind: MemberKind, limit: Limit) -> None:
        """Say how much each member's home or scratch may hold."""
        if limit == Limit():
            self._db.write("DELETE FROM member_limit WHERE group_id = ? AND kind = ?", group.id, kind)
        else:
            self._db.write(
                "INSERT OR REPLACE INTO member_limit (group_id, kind, bytes, files) VALUES (?, ?, ?, ?)",
                *(group.id, kind, limit.bytes, limit.files),
            )

    # --- who may have files in groups' folders

    def writers(self) -> dict[int, set[int]]:
        """Give the ids of the groups that people are or were in, by uid."""
        found: dict[int, set[int]] = {}
        for row in self._db.rows("SELECT uid, group_id FROM writer"):
            found.setdefault(row["uid"], set()).add(row["group_id"])
        return found

    def writers_of_retired(self) -> dict[int, set[int]]:
        """Give the uids of those who may have files in what is left of removed groups' folders, by gid."""
        found: dict[int, set[int]] = {}
        sql = "SELECT gid, uid FROM writer JOIN folder_group ON folder_group.id = group_id WHERE state = 'retired'"
        for row in self._db.rows(sql):
            found.setdefault(row["gid"], set()).add(row["uid"])
        return found

    def forget_writers(self, gid: int) -> None:
        """Forget who may have files in what was left of a removed group's folder."""
        self._db.write(
            "DELETE FROM writer WHERE group_id IN (SELECT id FROM folder_group WHERE gid = ? AND state = 'retired')",
            gid,
        )

    def note_writers(self, groups: Mapping[int, Collection[int]]) -> None:
        """Note that people are in groups; what they write there stays theirs when they leave.

        :param groups: ids of groups, by uid
        """
        with self._db.transaction():
            for uid, ids in groups.items():
                for group_id in ids:
                    self._db.write("INSERT OR IGNORE INTO writer (group_id, uid) VALUES (?, ?)", group_id, uid)
