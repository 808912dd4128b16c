"""What homes, group folders and scratch held, as `labstead tidy` noted it each day.

The one rule: it is what was measured, with the day; nothing here is a limit. One process writes, everybody else reads
a file that may be missing.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from labstead.accounts.protocol import Space
from labstead.settings import SpaceKind

FILE = Path("/var/lib/labstead/usage.sqlite")

KEPT_DAYS = 400
"""A year, and the same season of the year before."""

_PATIENCE_SECONDS = 5.0

_TABLE = """
CREATE TABLE IF NOT EXISTS sample (
    day TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    files INTEGER,
    limit_bytes INTEGER,
    limit_files INTEGER,
    PRIMARY KEY (kind, name, day)
) WITHOUT ROWID
"""


class Sample(BaseModel):
    """What one space held on a day."""

    model_config = ConfigDict(frozen=True)

    day: date
    kind: SpaceKind
    name: str
    """Of the person, or of the group."""
    bytes: int
    files: int | None = None
    """Files and folders; None: not counted."""
    limit_bytes: int | None = None
    """None: there was none."""
    limit_files: int | None = None
    """None: there was none."""


class Total(NamedTuple):
    """What all spaces of a kind held on a day."""

    day: date
    kind: SpaceKind
    bytes: int


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_SECONDS)) as db:
        db.row_factory = sqlite3.Row
        yield db


def _rows(path: Path | None, sql: str, *values: Any) -> list[sqlite3.Row]:
    """Read rows; none where there is no such file, or it cannot be read."""
    try:
        with _reading(path or FILE) as db:
            return db.execute(sql, values).fetchall()
    except sqlite3.Error:
        return []


def _since(days: int) -> str:
    return (date.today() - timedelta(days=days)).isoformat()


# --- reading


def history(
    days: int = 90, kind: SpaceKind | None = None, name: str | None = None, path: Path | None = None
) -> list[Sample]:
    """Give the samples of the last days, by day, kind and name; all of them, or those of one kind or name.

    Nothing where nothing was measured, or the file cannot be read.
    """
    rows = _rows(
        path,
        "SELECT * FROM sample WHERE day > ? AND coalesce(kind = ?, TRUE) AND coalesce(name = ?, TRUE)"
        " ORDER BY day, kind, name",
        *(_since(days), kind, name),
    )
    return [Sample.model_validate(dict(row)) for row in rows]


def totals(days: int = 90, path: Path | None = None) -> list[Total]:
    """Give what all spaces of each kind held on each of the last days, by day and kind."""
    sql = "SELECT day, kind, sum(bytes) AS bytes FROM sample WHERE day > ? GROUP BY day, kind ORDER BY day, kind"
    return [Total(date.fromisoformat(row["day"]), row["kind"], row["bytes"]) for row in _rows(path, sql, _since(days))]


def latest(path: Path | None = None) -> dict[tuple[SpaceKind, str], Sample]:
    """Give the newest sample of each space, by kind and name, as far as it was there on the last day measured."""
    rows = _rows(path, "SELECT * FROM sample WHERE day = (SELECT max(day) FROM sample)")
    return {(row["kind"], row["name"]): Sample.model_validate(dict(row)) for row in rows}


def with_measured(spaces: Iterable[Space], path: Path | None = None) -> list[Space]:
    """Add to spaces what was noted last where their file system does not count."""
    given = list(spaces)
    noted = latest(path) if any(space.used_bytes is None for space in given) else {}
    found = []
    for space in given:
        sample = noted.get((space.kind, space.name)) if space.used_bytes is None else None
        found.append(space if sample is None else space.model_copy(update={"used_bytes": sample.bytes}))
    return found


# --- writing


def add(samples: Iterable[Sample], group: int, path: Path | None = None) -> None:
    """Note what was measured, in place of what was noted on the same day, and drop what is older than `KEPT_DAYS`.

    :param group: gid that may read the file
    """
    file = path or FILE
    # Before SQLite makes it: nobody else ever sees an open one.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, 0o640)
    finally:
        os.close(descriptor)
    with closing(sqlite3.connect(file, timeout=_PATIENCE_SECONDS)) as db, db:
        db.execute(_TABLE)
        db.executemany(
            "INSERT OR REPLACE INTO sample (day, kind, name, bytes, files, limit_bytes, limit_files)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(s.day.isoformat(), s.kind, s.name, s.bytes, s.files, s.limit_bytes, s.limit_files) for s in samples],
        )
        db.execute("DELETE FROM sample WHERE day <= ?", (_since(KEPT_DAYS),))
