"""Whether a limit holds, tried: somebody without rights fills a folder.

The one rule: whatever happens, the folder and its limit are gone afterwards; what a killed run left, the next one
removes.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labstead.disks.backend import Backend, DiskError, Limit, NotNow, Place

PROOF_UID = 2**31 - 2
"""Nobody's: the last uid but one that all programs can write down."""
PROOF_LIMIT = Limit(bytes=8 * 2**20, files=32)
_PROJECT = 999_999_999
"""Below those of all spaces."""
_ROOM = 32 * 2**20
"""Bytes that have to be free, so that it is the limit that is hit."""
_CHUNK = 2**16
_LOCK = "/run/labstead-proof.lock"
_FULL = (errno.EDQUOT, errno.ENOSPC)


@contextmanager
def proof_place(backend: Backend) -> Iterator[Place]:
    """Make a place for a proof, and remove it."""
    place = Place(backend.root / ".labstead-proof", _PROJECT)
    with _alone():
        status = os.statvfs(backend.root)
        if status.f_bavail * status.f_frsize < _ROOM:
            raise NotNow(f"{backend.root}: too full to try whether limits hold; make {_ROOM >> 20} MB of room")
        _remove(backend, place)
        try:
            backend.make(place)
            os.chown(place.path, PROOF_UID, PROOF_UID)
            yield place
        except OSError as error:
            # Full after all: of files, or since we looked.
            kind = NotNow if error.errno in _FULL else DiskError
            raise kind(f"{backend.root}: cannot try whether limits hold: {error.strerror}") from None
        finally:
            _remove(backend, place)


@contextmanager
def _alone() -> Iterator[None]:
    # A file of root's own: anybody could hold a lock on a folder that they may read.
    handle = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotNow("somebody else tries at this moment whether limits hold; try again") from None
        yield
    finally:
        os.close(handle)


def _remove(backend: Backend, place: Place) -> None:
    if place.path.exists():
        shutil.rmtree(place.path)
        backend.forget(place)


def require_held(backend: Backend, place: Place, what: str) -> None:
    """Fill a place by bytes, then by files where they are counted.

    :param what: which limit it is, for the message
    :raises DiskError: when more than `PROOF_LIMIT` fits, or nothing at all
    """
    amounts = {"bytes": PROOF_LIMIT.bytes or 0}
    if backend.counts_files:
        amounts["files"] = PROOF_LIMIT.files or 0
    for unit, limit in amounts.items():
        written, reason = _as_nobody(place.path, unit, 2 * limit)
        if reason not in _FULL:
            said = f"stopped by {os.strerror(reason)}" if reason else "not stopped"
            raise DiskError(f"{backend.root}: the {what} by {unit} does not hold: {said} after {written} of {limit}")
        if not 0 < written <= limit:
            raise DiskError(f"{backend.root}: the {what} by {unit} does not hold: {written} of {limit} went in")


def _as_nobody(folder: Path, unit: str, amount: int) -> tuple[int, int]:
    """Write as an ordinary user until something stops it.

    :return: how much went in, and the number of the error; 0 when nothing stopped it
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(PROOF_UID, PROOF_UID, PROOF_UID)
            os.setresuid(PROOF_UID, PROOF_UID, PROOF_UID)
            fill = _fill_bytes if unit == "bytes" else _fill_files
            os.write(writer, "{} {}".format(*fill(handle, amount)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.close(handle)
    with os.fdopen(reader) as answer:
        words = answer.read().split()
    os.waitpid(child, 0)
    if len(words) != 2:
        raise DiskError(f"{folder.parent}: cannot try whether limits hold: the trial ended early")
    return int(words[0]), int(words[1])


def _fill_bytes(folder: int, amount: int) -> tuple[int, int]:
    written = 0
    handle = os.open("bytes", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        while written < amount:
            # Nothing that a file system could make smaller.
            written += os.write(handle, os.urandom(_CHUNK))
        os.fsync(handle)
    except OSError as error:
        return written, error.errno or 0
    finally:
        os.close(handle)
        os.unlink("bytes", dir_fd=folder)
    return written, 0


def _fill_files(folder: int, amount: int) -> tuple[int, int]:
    for number in range(amount):
        try:
            os.close(os.open(str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder))
        except OSError as error:
            return number, error.errno or 0
    return amount, 0
