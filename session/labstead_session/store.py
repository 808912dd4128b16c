"""What somebody shares, kept in their home: ~/.local/share/labstead/shares.json.

The one rule: it is written before rights are given and after they are taken, so that whatever was interrupted can be
done again or taken back. One program at a time works with it.

Beside the shares it holds a record of each file whose rights cannot be told afterwards from how they are: those that it
had before (`was`) and those that it was given (`is`).
"""

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

from labstead_session.acl import Acl
from labstead_session.errors import Hindered
from labstead_session.people import Who

_VERSION = 1
_LOCK_SECONDS = 60
_LARGEST = 64 * 2**20
"""Bytes; some 300,000 records."""


@dataclass(frozen=True)
class Share:
    """One path that somebody may read."""

    path: Path
    id: str
    """See `files.id_of`: by it the file is found when it was renamed."""
    who: Who
    until: date | None
    """Last day."""
    since: str
    """UTC, ISO 8601."""

    def is_over(self, today: date) -> bool:
        """Tell whether its last day has gone."""
        return self.until is not None and today > self.until


@dataclass(frozen=True)
class Rights:
    """Access list and default list of a file."""

    access: Acl
    default: Acl | None


@dataclass(frozen=True)
class Record:
    """What share changed of a file."""

    path: Path
    before: Rights
    after: Rights


@dataclass(frozen=True)
class State:
    """All of somebody's shares."""

    shares: tuple[Share, ...] = ()
    records: dict[str, Record] = field(default_factory=dict)
    """By `files.id_of`."""

    def with_shares(self, shares: tuple[Share, ...]) -> "State":
        """Give the same with other shares."""
        return replace(self, shares=shares)


def _pack(rights: Rights) -> list[str | None]:
    return [str(rights.access), None if rights.default is None else str(rights.default)]


def _unpack(value: list[str | None]) -> Rights:
    access, default = value
    return Rights(Acl.parse(access or ""), None if default is None else Acl.parse(default))


def _dump(state: State) -> str:
    shares = [
        {**asdict(share), "path": os.fspath(share.path), "until": share.until.isoformat() if share.until else None}
        for share in state.shares
    ]
    records = {
        ident: {"path": os.fspath(record.path), "was": _pack(record.before), "is": _pack(record.after)}
        for ident, record in state.records.items()
    }
    # Names of files may be no proper text.
    return json.dumps({"version": _VERSION, "shares": shares, "records": records}, indent=1, ensure_ascii=True) + "\n"


def _path(name: str) -> Path:
    path = Path(name)
    if not path.is_absolute() or "\0" in name:
        raise ValueError("a path that is none")
    return path


def _load(text: str) -> State:
    data = json.loads(text)
    if data["version"] != _VERSION:
        raise ValueError("another version")
    shares = tuple(
        Share(
            _path(item["path"]),
            item["id"],
            Who(**item["who"]),
            date.fromisoformat(item["until"]) if item["until"] else None,
            item["since"],
        )
        for item in data["shares"]
    )
    records = {
        ident: Record(_path(item["path"]), _unpack(item["was"]), _unpack(item["is"]))
        for ident, item in data["records"].items()
    }
    return State(shares, records)


class Store:
    """The file, while nobody else works with it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> State:
        """Read all; :raises Hindered: when the file is broken."""
        try:
            return _load(self._text())
        except FileNotFoundError:
            return State()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Hindered(f"{self._file} is broken ({error}); restore it from a backup, or remove it") from None

    def _text(self) -> str:
        # Each night this is read without any limit of a session's: it must be a file, and not a huge one.
        fd = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, encoding="utf-8") as stream:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                raise ValueError("it is no file, or too large")
            return stream.read(_LARGEST)

    def write(self, state: State) -> None:
        """Write all, whole or not at all; :raises Hindered: when it is too much."""
        text = _dump(state)
        if len(text) > _LARGEST:
            raise Hindered(
                "the rights of too many files differ; share a smaller folder, or make their modes alike first"
            )
        new = self._file.with_suffix(".new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(fd)
        new.replace(self._file)


def default_file() -> Path:
    """Give the file's place in the caller's home."""
    return Path.home() / ".local" / "share" / "labstead" / "shares.json"


@contextmanager
def opened(file: Path) -> Iterator[Store]:
    """Wait for one's turn and give the store.

    :raises Hindered: when it cannot be written, or another program holds it for a minute
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Hindered(f"{file.parent} cannot be written ({error.strerror}); is your home full?") from None
    try:
        _wait_for(fd, file)
        yield Store(file)
    finally:
        os.close(fd)


def _wait_for(fd: int, file: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Hindered(f"another `share` has worked with {file} for a minute; try again later") from None
            time.sleep(0.1)
        else:
            return
