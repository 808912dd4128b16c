"""The ledger: which uid labstead gave to whom, for ever.

The one rule: a uid is given once. Rows are never deleted, so that the files of somebody who left never become
somebody else's, and a restored machine gives the same numbers.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from labstead.accounts.protocol import Account
from labstead.errors import AccountRefused, Refusal

PATH = Path("/var/lib/labstead/accounts/ledger.sqlite")

_SCHEMA = """
CREATE TABLE account (
    uid INTEGER PRIMARY KEY,
    gid INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('created', 'linked', 'canary')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'retired')),
    created_at TEXT NOT NULL
);
CREATE UNIQUE INDEX account_name ON account (name) WHERE state != 'retired';
PRAGMA user_version = 1;
"""

Kind = Literal["created", "linked", "canary"]
State = Literal["pending", "active", "retired"]


class Ledger:
    """The accounts of the hub, in a SQLite file.

    :param path: the file; made when absent
    """

    def __init__(self, path: Path = PATH) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._db.row_factory = sqlite3.Row
        path.chmod(0o600)
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def find(self, name: str) -> Account | None:
        """Give the account that bears this name now."""
        row = self._db.execute("SELECT * FROM account WHERE name = ? AND state != 'retired'", (name,)).fetchone()
        return Account(**row) if row else None

    def all(self) -> tuple[Account, ...]:
        """Give the accounts in use, by name."""
        rows = self._db.execute("SELECT * FROM account WHERE state != 'retired' ORDER BY name").fetchall()
        return tuple(Account(**row) for row in rows)

    def reserve(self, name: str, kind: Kind, uid_min: int, uid_max: int, taken: Callable[[int], bool]) -> Account:
        """Give a new uid (= gid) to a name, as `pending` until the account exists.

        The uid is above every one given before, as long as the range lasts; a gap below is filled only by
        numbers that were never given.

        :param uid_min: first number of the range
        :param uid_max: last one, included
        :param taken: says whether the machine already uses a number as uid or gid
        :raises AccountRefused: when the range is used up
        """
        with self._transaction():
            given = {row["uid"] for row in self._db.execute("SELECT uid FROM account")}
            top = max((uid for uid in given if uid_min <= uid <= uid_max), default=uid_min - 1)
            candidates = [*range(top + 1, uid_max + 1), *range(uid_min, top)]
            uid = next((number for number in candidates if number not in given and not taken(number)), None)
            if uid is None:
                raise AccountRefused(
                    Refusal.FAILED,
                    f"uids {uid_min} to {uid_max} have all been given out; raise accounts_uid_max and run site.yml",
                )
            return self._insert(uid, uid, name, kind, "pending")

    def link(self, name: str, uid: int, gid: int) -> Account:
        """Record an account that was there before.

        :raises AccountRefused: when the ledger knows its uid under another name
        """
        with self._transaction():
            row = self._db.execute("SELECT name FROM account WHERE uid = ?", (uid,)).fetchone()
            if row:
                raise AccountRefused(Refusal.TAKEN, f"uid {uid} of {name} was given to {row['name']} before")
            return self._insert(uid, gid, name, "linked", "active")

    def _insert(self, uid: int, gid: int, name: str, kind: Kind, state: State) -> Account:
        account = Account(
            uid=uid, gid=gid, name=name, kind=kind, state=state, created_at=datetime.now(UTC).isoformat("T", "seconds")
        )
        self._db.execute(
            "INSERT INTO account (uid, gid, name, kind, state, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (account.uid, account.gid, account.name, account.kind, account.state, account.created_at),
        )
        return account

    def set_state(self, uid: int, state: State) -> None:
        """Move an account on: `pending` → `active` → `retired`."""
        with self._transaction():
            self._db.execute("UPDATE account SET state = ? WHERE uid = ?", (state, uid))
