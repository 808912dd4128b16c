"""The ledger's part about groups: who is in them, and who says so.

The one rule: a member is in a group because the inventory declares it, because somebody added them, or both; each
reason comes and goes without the other.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

from labstead.accounts.database import Database, now

Kind = Literal["created", "linked"]
State = Literal["pending", "active"]


@dataclass(frozen=True)
class GroupRow:
    """A group as the ledger knows it."""

    id: int
    gid: int
    name: str
    kind: Kind
    state: State
    created_at: str


def _group(row: sqlite3.Row) -> GroupRow:
    return GroupRow(**{field.name: row[field.name] for field in fields(GroupRow)})


class GroupLedger:
    """The groups with folders.

    :param db: the ledger's file
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, name: str) -> GroupRow | None:
        """Give the group that bears this name now."""
        row = self._db.row("SELECT * FROM folder_group WHERE name = ? AND state != 'retired'", name)
        return _group(row) if row else None

    def all(self) -> tuple[GroupRow, ...]:
        """Give the groups in use, by name."""
        rows = self._db.rows("SELECT * FROM folder_group WHERE state != 'retired' ORDER BY name")
        return tuple(_group(row) for row in rows)

    def of_member(self, name: str) -> tuple[GroupRow, ...]:
        """Give the groups that somebody is in or manages, by name."""
        rows = self._db.rows(
            "SELECT * FROM folder_group WHERE state != 'retired' AND id IN"
            " (SELECT group_id FROM member WHERE name = ? UNION SELECT group_id FROM manager WHERE name = ?)"
            " ORDER BY name",
            name,
            name,
        )
        return tuple(_group(row) for row in rows)

    def numbers(self) -> set[int]:
        """Give all gids that a group ever had."""
        return {int(row["gid"]) for row in self._db.rows("SELECT gid FROM folder_group")}

    def insert(self, gid: int, name: str, kind: Kind, state: State) -> None:
        """Record a group."""
        self._db.write(
            "INSERT INTO folder_group (gid, name, kind, state, created_at) VALUES (?, ?, ?, ?, ?)",
            *(gid, name, kind, state, now()),
        )

    def activate(self, group: GroupRow) -> None:
        """Note that a group and its folder exist."""
        self._db.write("UPDATE folder_group SET state = 'active' WHERE id = ?", group.id)

    def retire(self, group: GroupRow) -> None:
        """End a group: its number stays given, who was in it and what it said of limits is forgotten.

        Who may have files in its folder is known until that is gone; see `SpaceLedger.writers_of_retired`.
        """
        with self._db.transaction():
            for table in ("member", "manager", "member_limit"):
                self._db.write(f"DELETE FROM {table} WHERE group_id = ?", group.id)  # noqa: S608 - our own words
            self._db.write("UPDATE space SET bytes = NULL, files = NULL WHERE kind = 'group' AND number = ?", group.gid)
            self._db.write("UPDATE folder_group SET state = 'retired', retired_at = ? WHERE id = ?", now(), group.id)

    # --- people

    def memberships(self) -> dict[str, set[int]]:
        """Give the ids of the groups that people are in, by name."""
        found: dict[str, set[int]] = {}
        for row in self._db.rows("SELECT name, group_id FROM member"):
            found.setdefault(row["name"], set()).add(row["group_id"])
        return found

    def members(self, group: GroupRow) -> tuple[str, ...]:
        """Give who is in it, by name."""
        rows = self._db.rows("SELECT name FROM member WHERE group_id = ? ORDER BY name", group.id)
        return tuple(row["name"] for row in rows)

    def declared(self, group: GroupRow) -> tuple[str, ...]:
        """Give those members whom the inventory names, by name."""
        rows = self._db.rows("SELECT name FROM member WHERE group_id = ? AND declared ORDER BY name", group.id)
        return tuple(row["name"] for row in rows)

    def managers(self, group: GroupRow) -> tuple[str, ...]:
        """Give who manages it, by name."""
        rows = self._db.rows("SELECT name FROM manager WHERE group_id = ? ORDER BY name", group.id)
        return tuple(row["name"] for row in rows)

    def declare(self, group: GroupRow, names: Iterable[str]) -> None:
        """Replace those whom the inventory names; who was added beside it stays."""
        with self._db.transaction():
            self._db.write("UPDATE member SET declared = 0 WHERE group_id = ?", group.id)
            for name in names:
                self._db.write(
                    "INSERT INTO member (group_id, name, declared) VALUES (?, ?, 1)"
                    " ON CONFLICT (group_id, name) DO UPDATE SET declared = 1",
                    *(group.id, name),
                )
            self._db.write("DELETE FROM member WHERE group_id = ? AND NOT declared AND NOT added", group.id)

    def change(self, group: GroupRow, add: Iterable[str], remove: Iterable[str]) -> None:
        """Add and remove people whom the inventory does not name."""
        with self._db.transaction():
            for name in add:
                self._db.write(
                    "INSERT INTO member (group_id, name, added) VALUES (?, ?, 1)"
                    " ON CONFLICT (group_id, name) DO UPDATE SET added = 1",
                    *(group.id, name),
                )
            for name in remove:
                self._db.write("DELETE FROM member WHERE group_id = ? AND name = ?", group.id, name)

    def set_managers(self, group: GroupRow, names: Iterable[str]) -> None:
        """Replace who manages it."""
        with self._db.transaction():
            self._db.write("DELETE FROM manager WHERE group_id = ?", group.id)
            for name in names:
                self._db.write("INSERT OR IGNORE INTO manager (group_id, name) VALUES (?, ?)", group.id, name)

    def forget_person(self, name: str) -> None:
        """Take somebody out of all groups."""
        with self._db.transaction():
            self._db.write("DELETE FROM member WHERE name = ?", name)
            self._db.write("DELETE FROM manager WHERE name = ?", name)
