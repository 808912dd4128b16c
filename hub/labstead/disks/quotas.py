"""XFS and ext4: quotas of projects and of users.

The one rule: a project's quota is what `df` shows and what holds a group's folder; somebody who can clear the project
of a file (an owner can, outside of a session) is held by the quota of users.

The kernel is asked through quotactl_fd(2), which needs no device node, and the generic commands, which XFS and ext4
both answer. XFS says ENOSPC, not EDQUOT, where a project is full.
"""

import ctypes
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from labstead.disks import probe
from labstead.disks.backend import FIRST_PROJECT, NO_LIMIT, DiskError, Kind, Limit, Place, Report, Soft, Use
from labstead.disks.proof import PROOF_LIMIT, PROOF_UID, proof_place, require_held

_Q_SETINFO, _Q_GETQUOTA, _Q_SETQUOTA, _Q_GETNEXTQUOTA = 0x800006, 0x800007, 0x800008, 0x800009
_QIF_BLIMITS, _QIF_ILIMITS = 1 << 0, 1 << 2
_IIF_BGRACE, _IIF_IGRACE = 1, 2
_BLOCK = 1024
"""Limits of bytes are counted in these; QIF_DQBLKSIZE."""

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_PROJINHERIT = 0x200
"""What is made in the folder is of its project; include/uapi/linux/fs.h."""
_FSXATTR = struct.Struct("=IIIII8x")
"""struct fsxattr: flags, extent size, extents, project, copy-on-write extent size."""

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
"""What was a file or folder a moment ago is none any more."""
_NOT_OURS = (*_GONE, errno.EACCES, errno.ENOTCONN)
"""Or it is somebody's own FUSE mount, which root may not enter."""

_LEASE_SECONDS = 120.0
"""How long to wait, in all, for files that are leased; the kernel ends a lease after 45 s, or what
/proc/sys/fs/lease-break-time says."""
_WALKS = 3
"""How often to walk through a folder in which folders are being moved."""


class _Quota(ctypes.Structure):
    """struct if_nextdqblk; struct if_dqblk is its beginning."""

    _fields_ = (
        ("bytes_hard", ctypes.c_uint64),
        ("bytes_soft", ctypes.c_uint64),
        ("bytes_used", ctypes.c_uint64),
        ("files_hard", ctypes.c_uint64),
        ("files_soft", ctypes.c_uint64),
        ("files_used", ctypes.c_uint64),
        ("bytes_time", ctypes.c_uint64),
        ("files_time", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
        ("number", ctypes.c_uint32),
    )


class _Grace(ctypes.Structure):
    """struct if_dqinfo."""

    _fields_ = (
        ("bytes", ctypes.c_uint64),
        ("files", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("valid", ctypes.c_uint32),
    )


def _use(quota: _Quota) -> Use:
    def limit(blocks: int, files: int) -> Limit:
        return Limit(blocks * _BLOCK or None, files or None)

    return Use(
        bytes=quota.bytes_used,
        files=quota.files_used,
        limit=limit(quota.bytes_hard, quota.files_hard),
        soft=limit(quota.bytes_soft, quota.files_soft),
    )


def _quota(limit: Limit, soft: Soft) -> _Quota:
    def blocks(amount: int | None) -> int:
        return -(-(amount or 0) // _BLOCK)

    return _Quota(
        bytes_hard=blocks(limit.bytes),
        bytes_soft=blocks(soft.of(limit).bytes),
        files_hard=limit.files or 0,
        files_soft=soft.of(limit).files or 0,
        valid=_QIF_BLIMITS | _QIF_ILIMITS,
    )


@contextmanager
def _opened(name: str | Path, flags: int, folder: int | None = None) -> Iterator[int]:
    handle = os.open(name, flags, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


# --- projects of files and folders


def _project(handle: int) -> tuple[int, bool]:
    """Give the project of an open file or folder, and whether what is made in it gets it too."""
    answer = fcntl.ioctl(handle, _FSGETXATTR, bytes(_FSXATTR.size))
    flags, _, _, project, _ = _FSXATTR.unpack(answer)
    return project, bool(flags & _PROJINHERIT)


def _set_project(handle: int, project: int, inherit: bool) -> bool:
    """Give an open file or folder to a project; tell whether it was not its."""
    if _project(handle) == (project, inherit):
        return False
    flags, size, extents, _, copies = _FSXATTR.unpack(fcntl.ioctl(handle, _FSGETXATTR, bytes(_FSXATTR.size)))
    flags = flags | _PROJINHERIT if inherit else flags & ~_PROJINHERIT
    fcntl.ioctl(handle, _FSSETXATTR, _FSXATTR.pack(flags, size, extents, project, copies))
    return True


class _MovedError(DiskError):
    """Folders were moved during a walk."""


class _Leases:
    """Files on which somebody holds a lease: opening them ends it, which takes time (fcntl(2), F_SETLEASE).

    :param patience: how long to wait for all of them, in seconds
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.left: set[int] = set()
        """Inodes of files that were not waited for."""

    def open(self, name: str, folder: int, device: int) -> int | None:
        """Open a file when its lease has ended; None where that would take too long in all."""
        with _opened(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, folder) as found:
            status = os.fstat(found)
            # Without O_NONBLOCK, opening anything but a plain file of this very disk might take for ever.
            if not stat.S_ISREG(status.st_mode) or status.st_dev != device:
                return None
            if self._patience <= 0:
                self.left.add(status.st_ino)
                return None
            begin = time.monotonic()
            handle = os.open(f"/proc/self/fd/{found}", (_OPEN | os.O_NOATIME) & ~(os.O_NONBLOCK | os.O_NOFOLLOW))
            self._patience -= time.monotonic() - begin
            self.left.discard(status.st_ino)
            return handle


def _children(folder: int, device: int, leases: _Leases) -> Iterator[tuple[str, bool, int]]:
    """Open the files and folders in a folder, one after the other: name, whether it is a folder, descriptor.

    Links, pipes and sockets cannot be given to a project. What lies on another device is somebody else's.
    """
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
        ]
    for name in names:
        if (handle := _open_child(name, folder, device, leases)) is None:
            continue
        try:
            status = os.fstat(handle)
            is_folder = stat.S_ISDIR(status.st_mode)
            if status.st_dev == device and (is_folder or stat.S_ISREG(status.st_mode)):
                yield name, is_folder, handle
        finally:
            os.close(handle)


def _open_child(name: str, folder: int, device: int, leases: _Leases) -> int | None:
    """Open a file or folder; None where it is not ours, or not there."""
    try:
        try:
            return os.open(name, _OPEN | os.O_NOATIME, dir_fd=folder)
        except BlockingIOError:
            return leases.open(name, folder, device)
    except OSError as error:
        if error.errno in _NOT_OURS:
            return None
        raise


def _go_up(folder: int, above: tuple[int, int]) -> int:
    """Open the folder above, which has to be the one that we came from: its owner may have moved it meanwhile."""
    upper = os.open("..", _OPEN | os.O_DIRECTORY, dir_fd=folder)
    status = os.fstat(upper)
    if (status.st_dev, status.st_ino) != above:
        os.close(upper)
        raise _MovedError
    return upper


def _marked_below(top: int, project: int, known: Callable[[int], bool], leases: _Leases) -> bool:
    """Give all that is below an open folder to a project; tell whether that came to an end.

    Its owner can move folders as long as they like, but keep nobody here by that.
    """
    for _ in range(_WALKS):
        with suppress(_MovedError):
            _mark_below(top, project, known, leases)
            return True
    return False


def _mark_below(top: int, project: int, known: Callable[[int], bool], leases: _Leases) -> None:
    """Give all that is below an open folder to a project, however deep it lies.

    Only one folder is open at a time, so neither depth nor long paths are in the way.

    :param known: tells by its descriptor of a folder that nothing has to be done there
    """
    status = os.fstat(top)
    device = status.st_dev
    here = os.dup(top)
    # The way down to here: which folder it was, and which of its folders are still to be seen.
    way: list[tuple[tuple[int, int], list[str]]] = []
    try:
        while True:
            waiting = []
            for name, is_folder, handle in _children(here, device, leases):
                if is_folder and known(handle):
                    continue
                _set_project(handle, project, inherit=is_folder)
                if is_folder:
                    waiting.append(name)
            status = os.fstat(here)
            way.append(((status.st_dev, status.st_ino), waiting))
            lower = None
            while lower is None:
                if way[-1][1]:
                    lower = _go_down(here, way[-1][1].pop(), device)
                    continue
                way.pop()
                if not way:
                    return
                upper = _go_up(here, way[-1][0])
                os.close(here)
                here = upper
            os.close(here)
            here = lower
    finally:
        os.close(here)


def _go_down(folder: int, name: str, device: int) -> int | None:
    try:
        lower = os.open(name, _OPEN | os.O_DIRECTORY | os.O_NOATIME, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_OURS:
            return None
        raise
    if os.fstat(lower).st_dev != device:
        os.close(lower)
        return None
    return lower


# --- the backend


class Quotas:
    """A mounted XFS or ext4 with quotas of users and projects."""

    counts_files = True
    counts_users = True

    def __init__(self, kind: Literal["xfs", "ext4"], root: Path, device: int) -> None:
        self.kind: Kind = kind
        self.root = root
        self.device = device

    def problem(self) -> str | None:
        """Say why limits would not hold here, and what to change."""
        return probe.problem(self.root, probe.mount_of(self.root))

    def prove(self) -> None:
        """Try a project's limit, then a user's."""
        for whose in ("project", "user"):
            with proof_place(self) as place:
                projects = {place: PROOF_LIMIT} if whose == "project" else {}
                users = {PROOF_UID: PROOF_LIMIT} if whose == "user" else {}
                try:
                    self.set_limits(projects, users, Soft())
                    require_held(self, place, f"limit of a {whose}")
                finally:
                    self.set_limits({place: NO_LIMIT}, {PROOF_UID: NO_LIMIT}, Soft())

    def make(self, place: Place) -> None:
        """Make an empty folder that is a place."""
        place.path.mkdir(mode=0o700)
        with self._open(place.path) as handle:
            _set_project(handle, place.project, inherit=True)

    def is_used(self, project: int) -> bool:
        """Tell whether a project has files."""
        with self._open(self.root) as handle:
            return bool(self._read(handle, probe.PROJECT, project).files)

    def adopt(self, place: Place) -> bool:
        """Give a folder and all that is in it to its project.

        The folder itself comes last, as it says that all is done; what its owner puts there meanwhile comes after.
        Links stay without a project, so that they count for their owner only. So does what the owner keeps from being
        taken in, by leases or by moving folders: a home that has a limit but for that is better than one without.
        """
        if self.is_place(place):
            return False
        leases = _Leases(_LEASE_SECONDS)
        try:
            with self._open(place.path) as handle:
                other = _project(handle)[0]
                # One that a ledger gave which has been replaced by an older one since is labstead's too.
                if other not in (0, place.project) and other < FIRST_PROJECT:
                    raise DiskError(f"belongs to project {other}, which is not labstead's; take that away first")
                was_whole = _marked_below(handle, place.project, lambda _: False, leases)
                _set_project(handle, place.project, inherit=True)
                done = (place.project, True)
                is_whole = _marked_below(handle, place.project, lambda f: was_whole and _project(f) == done, leases)
            if not is_whole:
                raise DiskError("not all of it is counted: folders in it are moved all the time")
            if leases.left:
                raise DiskError(f"not all of it is counted: a program holds leases on files in it ({len(leases.left)})")
        except DiskError as error:
            raise DiskError(f"{place.path}: {error}") from None
        except OSError as error:
            raise DiskError(
                f"{place.path}: cannot give all of it to project {place.project}: {error.strerror}"
            ) from None
        return True

    def is_place(self, place: Place) -> bool:
        """Tell whether a folder is of its project."""
        try:
            with self._open(place.path) as handle:
                return _project(handle) == (place.project, True)
        except OSError as error:
            if error.errno in _GONE:
                return False
            raise

    def forget(self, place: Place) -> None:
        """Take its limit away; a project without files and limits is in no list."""
        self.set_limits({place: NO_LIMIT}, {}, Soft())

    def report(self, places: Iterable[Place]) -> Report:
        """List what the file system counts."""
        with self._open(self.root) as handle:
            found = {}
            for place in places:
                # One that cannot be read keeps nobody else's from being counted.
                with suppress(OSError):
                    if self.is_place(place):
                        found[place.project] = self._read(handle, probe.PROJECT, place.project)
            return Report(places=found, users=self._all_users(handle))

    def set_limits(self, places: Mapping[Place, Limit], users: Mapping[int, Limit], soft: Soft) -> None:
        """Set limits at once."""
        wanted = [
            *((probe.PROJECT, place.project, limit) for place, limit in places.items()),
            *((probe.USER, uid, limit) for uid, limit in users.items()),
        ]
        with self._open(self.root) as handle:
            try:
                if soft.percent < 100:
                    seconds = soft.grace_days * 86400
                    for kind in (probe.USER, probe.PROJECT):
                        grace = _Grace(bytes=seconds, files=seconds, valid=_IIF_BGRACE | _IIF_IGRACE)
                        probe.quotactl(handle, _Q_SETINFO, kind, 0, grace)
                for kind, number, limit in wanted:
                    probe.quotactl(handle, _Q_SETQUOTA, kind, number, _quota(limit, soft))
            except OSError as error:
                raise DiskError(self.problem() or f"{self.root}: cannot set a limit: {error.strerror}") from None

    @staticmethod
    @contextmanager
    def _open(folder: Path) -> Iterator[int]:
        with _opened(folder, _OPEN | os.O_DIRECTORY) as handle:
            yield handle

    @staticmethod
    def _read(handle: int, kind: int, number: int) -> Use:
        quota = _Quota()
        try:
            probe.quotactl(handle, _Q_GETQUOTA, kind, number, quota)
        except OSError as error:
            # XFS has no entry for what holds nothing and has no limit.
            if error.errno != errno.ENOENT:
                raise DiskError(f"cannot read a quota: {error.strerror}") from None
        return _use(quota)

    @staticmethod
    def _all_users(handle: int) -> dict[int, Use]:
        found: dict[int, Use] = {}
        number = 1  # root has no limit
        while True:
            quota = _Quota()
            try:
                probe.quotactl(handle, _Q_GETNEXTQUOTA, probe.USER, number, quota)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ESRCH):
                    return found
                raise DiskError(f"cannot list the quotas of users: {error.strerror}") from None
            found[quota.number] = _use(quota)
            number = quota.number + 1
