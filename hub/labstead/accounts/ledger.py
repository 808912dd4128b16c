"""The ledger: which uid labstead gave to whom, for ever, and through which door they come in.

The one rule: a number is given once, as the uid of an account or as the gid of a group. Rows are never deleted, so
that the files of somebody who left never become somebody else's, and a restored machine gives the same numbers.
"""

import sqlite3
from collections.abc import Callable
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Literal

from labstead.accounts.database import PATH, Database, now
from labstead.accounts.group_ledger import GroupLedger
from labstead.accounts.protocol import Account
from labstead.accounts.space_ledger import SpaceLedger
from labstead.errors import AccountRefused, Refusal
from labstead.settings import Door

Kind = Literal["created", "linked", "canary"]
State = Literal["pending", "active"]
Locked = Literal["", "locked", "expired"]

_HIDDEN = ("id", "subject", "retired_at")
"""Columns that are the ledger's own business."""


def _account(row: sqlite3.Row) -> Account:
    return Account(**{column: row[column] for column in row.keys() if column not in _HIDDEN})  # noqa: SIM118


class Ledger:
    """The accounts and groups of the hub, in a SQLite file.

    :param path: the file; made when absent
    :param was_locked: see `Database`
    """

    def __init__(self, path: Path = PATH, was_locked: Callable[[str], bool] = lambda _: False) -> None:
        self._db = Database(path, was_locked)
        self.groups = GroupLedger(self._db)
        """Its part about groups."""
        self.spaces = SpaceLedger(self._db)
        """Its part about spaces and their limits."""

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- looking up

    def find(self, name: str) -> Account | None:
        """Give the account that bears this name now."""
        row = self._db.row("SELECT * FROM account WHERE name = ? AND state != 'retired'", name)
        return _account(row) if row else None

    def find_subject(self, subject: str) -> Account | None:
        """Give the account that is bound to this subject of the OpenID Connect provider now."""
        row = self._db.row("SELECT * FROM account WHERE subject = ? AND state != 'retired'", subject)
        return _account(row) if row else None

    def subject(self, name: str) -> str | None:
        """Give the subject that an account is bound to, or None."""
        row = self._db.row("SELECT subject FROM account WHERE name = ? AND state != 'retired'", name)
        return row["subject"] if row else None

    def all(self) -> tuple[Account, ...]:
        """Give the accounts in use, by name."""
        rows = self._db.rows("SELECT * FROM account WHERE state != 'retired' ORDER BY name")
        return tuple(_account(row) for row in rows)

    def retired(self, name: str | None = None) -> tuple[Account, ...]:
        """Give the accounts that were removed, or those of this name, by name and in the order of their removal."""
        rows = self._db.rows(
            "SELECT * FROM account WHERE state = 'retired' AND coalesce(name = ?, TRUE) ORDER BY name, id", name
        )
        return tuple(_account(row) for row in rows)

    def was_removed(self, name: str, uid: int) -> bool:
        """Tell whether an account of this name and uid was removed."""
        sql = "SELECT 1 FROM account WHERE name = ? AND uid = ? AND state = 'retired'"
        return self._db.row(sql, name, uid) is not None

    def subject_was_removed(self, subject: str) -> bool:
        """Tell whether an account that was bound to this subject was removed."""
        return self._db.row("SELECT 1 FROM account WHERE subject = ? AND state = 'retired'", subject) is not None

    def was_given(self, gid: int) -> bool:
        """Tell whether labstead ever gave this number to somebody's private group or to a group."""
        sql = "SELECT 1 FROM account WHERE gid = ? AND kind != 'linked'"
        created = "SELECT 1 FROM folder_group WHERE gid = ? AND kind = 'created'"
        return self._db.row(sql, gid) is not None or self._db.row(created, gid) is not None

    # --- giving numbers

    def _next_number(self, first: int, last: int, taken: Callable[[int], bool]) -> int:
        """Give a number that was never given.

        It is above every one given before, as long as the range lasts; a gap below is filled only by numbers that
        were never given.
        """
        given = {int(row["uid"]) for row in self._db.rows("SELECT uid FROM account")} | self.groups.numbers()
        top = max((number for number in given if first <= number <= last), default=first - 1)
        for number in chain(range(top + 1, last + 1), range(first, top)):
            if number not in given and not taken(number):
                return number
        raise AccountRefused(
            Refusal.FAILED,
            f"uids {first} to {last} have all been given out; raise accounts_uid_max and run site.yml",
        )

    def reserve(
        self,
        name: str,
        kind: Kind,
        uid_min: int,
        uid_max: int,
        taken: Callable[[int], bool],
        door: Door = "native",
        subject: str | None = None,
    ) -> Account:
        """Give a new uid (= gid) to a name, as `pending` until the account exists.

        :param uid_min: first number of the range
        :param uid_max: last one, included
        :param taken: says whether the machine already uses a number as uid or gid
        :param subject: whom the provider's log-in must be for, or None
        :raises AccountRefused: when the range is used up
        """
        with self._db.transaction():
            uid = self._next_number(uid_min, uid_max, taken)
            # Groups may still name somebody of that name who was the machine's and is gone.
            self.groups.forget_person(name)
            return self._insert(uid, uid, name, kind, "pending", door, subject)

    def reserve_group(self, name: str, first: int, last: int, taken: Callable[[int], bool]) -> None:
        """Give a new gid to a group, as `pending` until it exists; the parameters are those of `reserve`.

        :raises AccountRefused: when the range is used up
        """
        with self._db.transaction():
            self.groups.insert(self._next_number(first, last, taken), name, "created", "pending")

    def link(self, name: str, uid: int, gid: int, door: Door = "native", subject: str | None = None) -> Account:
        """Record an account that was there before.

        :raises AccountRefused: when the ledger gave its uid or gid to somebody else
        """
        with self._db.transaction():
            row = self._db.row(
                "SELECT name FROM account WHERE uid = ? AND (kind != 'linked' OR state != 'retired')", uid
            )
            if row:
                raise AccountRefused(Refusal.TAKEN, f"uid {uid} of {name} was given to {row['name']} before")
            if self.was_given(gid):
                raise AccountRefused(Refusal.TAKEN, f"gid {gid} of {name} was given to another group before")
            return self._insert(uid, gid, name, "linked", "active", door, subject)

    def _insert(
        self, uid: int, gid: int, name: str, kind: Kind, state: State, door: Door, subject: str | None
    ) -> Account:
        account = Account(uid=uid, gid=gid, name=name, kind=kind, state=state, door=door, created_at=now())
        self._db.write(
            "INSERT INTO account (uid, gid, name, kind, state, door, subject, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(uid, gid, name, kind, state, door, subject, account.created_at),
        )
        return account

    # --- moving accounts on

    def set_state(self, name: str, state: State) -> None:
        """Say whether an account exists as the ledger has it."""
        self._db.write("UPDATE account SET state = ? WHERE name = ? AND state != 'retired'", state, name)

    def set_locked(self, name: str, locked: Locked) -> None:
        """Close or open an account."""
        self._db.write("UPDATE account SET locked = ? WHERE name = ? AND state != 'retired'", locked, name)

    def set_expiry(self, name: str, day: date | None, locked: Locked) -> None:
        """Set the first day on which an account is closed, and whether it is closed now."""
        self._db.write(
            "UPDATE account SET expires = ?, locked = ? WHERE name = ? AND state != 'retired'",
            *(day.isoformat() if day else None, locked, name),
        )

    def set_details(self, name: str, full_name: str, email: str) -> None:
        """Note what somebody is called and where mail goes."""
        self._db.write(
            "UPDATE account SET full_name = ?, email = ? WHERE name = ? AND state != 'retired'",
            *(full_name, email, name),
        )

    def bind(self, name: str, subject: str) -> None:
        """Bind an account to a subject of the OpenID Connect provider."""
        self._db.write("UPDATE account SET subject = ? WHERE name = ? AND state != 'retired'", subject, name)

    def set_door(self, name: str, door: Door) -> None:
        """Let an account come in through another door; whom a provider's log-in was for is forgotten."""
        self._db.write(
            "UPDATE account SET door = ?, subject = NULL WHERE name = ? AND state != 'retired'", *(door, name)
        )

    def retire(self, name: str) -> None:
        """End an account: its number stays given; memberships, limits, name in full and address are forgotten."""
        with self._db.transaction():
            self.groups.forget_person(name)
            if account := self.find(name):
                self.spaces.forget_limits(account.uid, "home", "scratch")
            self._db.write(
                "UPDATE account SET state = 'retired', retired_at = ?, full_name = '', email = ''"
                " WHERE name = ? AND state != 'retired'",
                *(now(), name),
            )
