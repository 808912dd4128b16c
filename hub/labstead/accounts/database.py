"""The ledger's file: its tables, and how an older file becomes a newer one.

The one rule: whatever is written together is written in one transaction, so that a machine that loses its power has
either all of it or none.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PATH = Path("/var/lib/labstead/accounts/ledger.sqlite")

_VERSION = 3

_TABLES = """
CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('created', 'linked', 'canary')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'retired')),
    door TEXT NOT NULL CHECK (door IN ('native', 'pam', 'oidc')),
    subject TEXT,
    locked TEXT NOT NULL DEFAULT '' CHECK (locked IN ('', 'locked', 'expired')),
    expires TEXT,
    full_name TEXT NOT NULL DEFAULT '',
    email TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL,
    retired_at TEXT
);
CREATE UNIQUE INDEX account_name ON account (name) WHERE state != 'retired';
CREATE UNIQUE INDEX account_uid ON account (uid) WHERE state != 'retired';
CREATE UNIQUE INDEX account_uid_given ON account (uid) WHERE kind != 'linked';
CREATE UNIQUE INDEX account_subject ON account (subject) WHERE subject IS NOT NULL AND state != 'retired';
CREATE TABLE folder_group (
    id INTEGER PRIMARY KEY,
    gid INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('created', 'linked')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'retired')),
    created_at TEXT NOT NULL,
    retired_at TEXT
);
CREATE UNIQUE INDEX group_name ON folder_group (name) WHERE state != 'retired';
CREATE UNIQUE INDEX group_gid ON folder_group (gid) WHERE state != 'retired';
CREATE UNIQUE INDEX group_gid_given ON folder_group (gid) WHERE kind = 'created';
CREATE TABLE member (
    group_id INTEGER NOT NULL REFERENCES folder_group (id),
    name TEXT NOT NULL,
    declared INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (group_id, name)
);
CREATE TABLE manager (
    group_id INTEGER NOT NULL REFERENCES folder_group (id),
    name TEXT NOT NULL,
    PRIMARY KEY (group_id, name)
);
"""

_SPACE_TABLES = """
CREATE TABLE space (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('home', 'group', 'scratch')),
    number INTEGER NOT NULL,
    bytes INTEGER,
    files INTEGER,
    UNIQUE (kind, number)
);
CREATE TABLE member_limit (
    group_id INTEGER NOT NULL REFERENCES folder_group (id),
    kind TEXT NOT NULL CHECK (kind IN ('home', 'scratch')),
    bytes INTEGER,
    files INTEGER,
    PRIMARY KEY (group_id, kind)
);
CREATE TABLE writer (
    group_id INTEGER NOT NULL REFERENCES folder_group (id),
    uid INTEGER NOT NULL,
    PRIMARY KEY (group_id, uid)
);
"""

_FROM_VERSION_1 = """
INSERT INTO account (uid, gid, name, kind, state, door, created_at)
SELECT uid, gid, name, kind, state, 'native', created_at FROM account_1
"""

_FROM_VERSION_2 = (
    "INSERT INTO space (kind, number, bytes) SELECT 'group', gid, quota FROM folder_group"
    " WHERE quota IS NOT NULL AND state != 'retired'",
    "ALTER TABLE folder_group DROP COLUMN quota",
)


def now() -> str:
    """Give the time as the ledger writes it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat("T", "seconds")


class Database:
    """A SQLite file that several threads may use.

    :param path: the file; made when absent
    :param was_locked: says whether an account was locked while the ledger was of version 1, which did not note it
    """

    def __init__(self, path: Path = PATH, was_locked: Callable[[str], bool] = lambda _: False) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        path.chmod(0o600)
        with self.transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._make_tables()
            elif version == 1:
                self._from_version_1(was_locked)
            elif version == 2:
                self._from_version_2()
            elif version != _VERSION:
                raise RuntimeError(f"{path} was written by a newer labstead (version {version} of the ledger)")

    def _make_tables(self) -> None:
        self._execute(_TABLES + _SPACE_TABLES)
        self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def _execute(self, script: str) -> None:
        """Execute statements, as `executescript` would, but in the transaction that is open."""
        for statement in script.split(";"):
            self._db.execute(statement)

    def _from_version_2(self) -> None:
        self._execute(_SPACE_TABLES)
        for statement in _FROM_VERSION_2:
            self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def _from_version_1(self, was_locked: Callable[[str], bool]) -> None:
        self._db.execute("DROP INDEX account_name")
        self._db.execute("ALTER TABLE account RENAME TO account_1")
        self._make_tables()
        self._db.execute(_FROM_VERSION_1)
        self._db.execute("DROP TABLE account_1")
        names = self._db.execute("SELECT name FROM account WHERE kind = 'created' AND state != 'retired'").fetchall()
        for (name,) in names:
            if was_locked(name):
                self._db.execute("UPDATE account SET locked = 'locked' WHERE name = ? AND state != 'retired'", (name,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write what is written in this block together; other threads wait."""
        with self._lock:
            if self._db.in_transaction:  # part of a larger one
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Read rows."""
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """Read a row, or None."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    def write(self, sql: str, *values: Any) -> int:
        """Write.

        :return: how many rows were written
        """
        with self.transaction():
            return self._db.execute(sql, values).rowcount
