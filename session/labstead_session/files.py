"""Files by their paths, with no symbolic link followed on the way.

The one rule: between looking at a file and changing it nobody can put another one in its place: what is changed is
opened by name, part by part, and has to be the file that was looked at.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from labstead_session import acl
from labstead_session.acl import Acl

_DEEPEST = 100
"""Parts of a path; what lies deeper is left alone, as each file is opened part by part."""
_ANY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Node:
    """A file or folder as it was found."""

    path: Path
    id: str
    """Device, inode and time of birth."""
    uid: int
    gid: int
    mode: int
    links: int
    access: Acl
    default: Acl | None

    @property
    def is_folder(self) -> bool:
        """Tell whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def device(self) -> str:
        """Give the number of its file system."""
        return self.id.split(":")[0]

    @property
    def is_mine(self) -> bool:
        """Tell whether it is the caller's, who alone may then change its rights."""
        return self.uid == os.getuid()


def _statx() -> Callable[..., int] | None:
    function = getattr(ctypes.CDLL(None), "statx", None)
    return None if function is None else function


_STATX = _statx()
_EMPTY_PATH, _BIRTH = 0x1000, 0x800
_BIRTH_PLACE = struct.Struct("=80xqI")
"""Where struct statx has stx_btime, include/uapi/linux/stat.h; Python has statx(2) from 3.15 on."""


def _born(fd: int) -> int:
    """Give when a file was made, in nanoseconds; 0 where its file system does not say."""
    buffer = ctypes.create_string_buffer(256)
    if _STATX is None or _STATX(fd, b"", _EMPTY_PATH, _BIRTH, buffer) != 0:
        return 0
    seconds, nanoseconds = _BIRTH_PLACE.unpack_from(buffer.raw)
    return int(seconds) * 10**9 + int(nanoseconds)


def id_of(fd: int) -> str:
    """Give what stays the same when a file is renamed, and is another's with the next file of its name and inode."""
    status = os.fstat(fd)
    return f"{status.st_dev}:{status.st_ino}:{_born(fd)}"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file by its absolute path; :raises OSError: where a part of it is a symbolic link or missing."""
    fd = os.open("/", _ANY)
    try:
        for part in path.parts[1:-1]:
            # What is no folder, a symbolic link among it, is refused by the kernel.
            fd = _inner(fd, part, _ANY | os.O_DIRECTORY)
        if path.name:
            fd = _inner(fd, path.name, _ANY)
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise NotADirectoryError(f"{path} is a symbolic link")
        yield fd
    finally:
        os.close(fd)


def _inner(fd: int, name: str, flags: int) -> int:
    """Open a file in an open folder and close that."""
    inner = os.open(name, flags, dir_fd=fd)
    os.close(fd)
    return inner


def _node(path: Path, fd: int) -> Node:
    status = os.fstat(fd)
    folder = stat.S_ISDIR(status.st_mode)
    return Node(
        path,
        id_of(fd),
        status.st_uid,
        status.st_gid,
        status.st_mode,
        status.st_nlink,
        acl.access(fd),
        acl.default(fd) if folder else None,
    )


def look(path: Path) -> Node:
    """Look at one file."""
    with opened(path) as fd:
        return _node(path, fd)


def _look_in(folder: Path, dir_fd: int, name: str) -> Node | None:
    """Look at a file in an open folder; None for links, sockets and what has just gone."""
    try:
        fd = os.open(name, _ANY, dir_fd=dir_fd)
    except OSError:
        return None
    try:
        mode = os.fstat(fd).st_mode
        return _node(folder / name, fd) if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else None
    finally:
        os.close(fd)


def is_too_deep(path: Path) -> bool:
    """Tell whether a folder lies deeper than anybody's work does."""
    return len(path.parts) > _DEEPEST


def children(path: Path) -> Iterator[Node]:
    """Look at the files in a folder; none where it is too deep."""
    if is_too_deep(path):
        return
    with opened(path) as fd:
        inner = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            for name in sorted(os.listdir(inner)):  # noqa: PTH208 - of a descriptor
                if node := _look_in(path, inner, name):
                    yield node
        finally:
            os.close(inner)


@dataclass
class Below:
    """What is below a folder, the folder itself first, and how much of it is not looked at."""

    nodes: list[Node]
    links: int = 0
    """Symbolic links, sockets and the like."""
    unread: int = 0
    """Folders that the caller cannot read, and that lie too deep."""


def below(path: Path) -> Below:
    """Look at a file, or at a folder and all that is in it on the same file system."""
    top = look(path)
    found = Below([top])
    if not top.is_folder:
        return found

    def unread(_: OSError) -> None:
        found.unread += 1

    with opened(path) as fd:
        for place, folders, names, inner in os.fwalk(".", dir_fd=fd, onerror=unread):
            folder = path if place == "." else path / place[2:]
            wanted = []
            for name in sorted(folders):
                node = _look_in(folder, inner, name)
                if node is None or not node.is_folder or node.device != top.device:
                    found.links += 1
                    continue
                if is_too_deep(node.path):
                    found.unread += 1
                    continue
                wanted.append(name)
                found.nodes.append(node)
            folders[:] = wanted
            for name in sorted(names):
                node = _look_in(folder, inner, name)
                if node is None:
                    found.links += 1
                else:
                    found.nodes.append(node)
    return found


@dataclass(frozen=True)
class Change:
    """New rights of a file."""

    node: Node
    access: Acl
    default: Acl | None

    @property
    def is_one(self) -> bool:
        """Tell whether anything is other than it is."""
        return self.access != self.node.access or self.default != self.node.default

    def undone(self) -> "Change":
        """Give the change that takes this one back."""
        node = replace(self.node, access=self.access, default=self.default)
        return Change(node, self.node.access, self.node.default)


def apply(change: Change) -> bool:
    """Make a change; False where the file is no longer there, or another one stands in its place."""
    try:
        with opened(change.node.path) as fd:
            if id_of(fd) != change.node.id:
                return False
            if change.default != change.node.default:
                acl.set_default(fd, change.default)
            if change.access != change.node.access:
                acl.set_access(fd, change.access)
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False
