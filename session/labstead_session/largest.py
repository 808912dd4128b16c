"""The largest files and folders of a home, and how to delete one of them.

The one rule: nothing outside the home is ever looked at or deleted, whatever links, mounts or names say: every folder
is opened by name within the one above it, and no symbolic link is followed. One folder is open at a time, so that
neither depth nor long paths are in the way: whoever has nested folders without end can delete them here, too.
"""

import errno
import heapq
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from labstead_session.errors import Hindered, Mistake

By = Literal["bytes", "files"]

_SECONDS, _MOST = 15.0, 3_000_000
"""How long to look, and at how many files."""
_KEPT = 500
"""Files that are remembered one by one; the others only count in their folders."""
_SHOWN = 25
_SHARE = 0.5
"""A folder more than half of which is one thing in it is not shown, but that thing."""
_LEAST, _LEAST_BYTES = 0.002, 2**15
"""Part of the whole, and bytes, that a thing must make up to be shown: deleting the others helps nobody."""
_DEEPEST = 50
"""How far below the folder looked at something may lie to be shown; what lies deeper counts in its folder."""
_BLOCK = 512
"""Unit of st_blocks, stat(2)."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True)
class Thing:
    """A file, or a folder with all that is in it."""

    path: str
    """Below the folder looked at."""
    bytes: int
    """On disk."""
    files: int
    """Itself and all that is in it."""
    is_folder: bool


@dataclass(frozen=True)
class Found:
    """The largest things, the largest first; none lies in another."""

    things: tuple[Thing, ...]
    bytes: int
    """Of all, those not shown too."""
    files: int
    is_complete: bool
    """False where there was too much to look at all of it."""


# --- folders below folders

_T = TypeVar("_T")


def _up(here: int, above: os.stat_result) -> int:
    """Open the folder above an open one, in its place; it has to be the one from which that was opened."""
    upper = os.open("..", _FOLDER, dir_fd=here)
    if not os.path.samestat(os.fstat(upper), above):
        os.close(upper)
        raise OSError(errno.ESTALE, "folders were moved meanwhile")
    os.close(here)
    return upper


def _walk(
    fd: int,
    waiting: list[_T],
    enter: Callable[[int, _T], tuple[int, list[_T]] | None],
    leave: Callable[[int, _T], None] = lambda _fd, _folder: None,
) -> None:
    """Go through folders in an open one, and through all below them.

    :param enter: opens a folder in an open one and gives it, with the folders in it; None where there is no way
    :param leave: is given a folder that was gone through, and the open one above it
    :raises OSError: when folders are moved meanwhile
    """
    here = os.dup(fd)
    way = [(os.fstat(here), waiting)]
    try:
        while way:
            above, waiting = way[-1]
            if not waiting:
                way.pop()
                if way:
                    above, waiting = way[-1]
                    here = _up(here, above)
                    leave(here, waiting.pop())
            elif (entered := enter(here, waiting[-1])) is None:
                waiting.pop()
            elif entered[1]:
                os.close(here)
                here = entered[0]
                way.append((os.fstat(here), entered[1]))
            else:
                # Not by the way of those that have folders: there may be no way up from a folder that is closed.
                os.close(entered[0])
                leave(here, waiting.pop())
    finally:
        os.close(here)


# --- looking


@dataclass(slots=True)
class _File:
    name: str
    above: "_Folder"
    bytes: int
    files: int = 1

    @property
    def path(self) -> str:
        """Give where it is, below the home."""
        return f"{self.above.path}/{self.name}" if self.above.path else self.name


@dataclass(slots=True)
class _Folder:
    name: str
    above: "_Folder | None" = None
    bytes: int = 0
    files: int = 0
    node: tuple[int, int] = (0, 0)
    """Device and inode."""
    depth: int = 0
    folders: list["_Folder"] = field(default_factory=list)
    kept: list[_File] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Give where it is, below the home."""
        # Put together only for those that are shown: paths of deep folders are long.
        names, folder = [self.name], self.above
        while folder is not None:
            names.append(folder.name)
            folder = folder.above
        return "/".join(name for name in reversed(names) if name)


class _Search:
    """One look at a folder and all that is in it."""

    def __init__(self, device: int, deadline: float) -> None:
        self._device, self._deadline = device, deadline
        self._seen: set[int] = set()
        self._count = 0
        self._order = itertools.count()
        self._folders: list[_Folder] = []
        self._largest: list[tuple[int, int, _File]] = []
        self._is_over = False
        self.is_complete = True

    def look(self, fd: int, top: _Folder) -> None:
        """Look through an open folder; closes nothing."""
        try:
            _walk(fd, self._look_at(fd, top), self._enter)
        except OSError:
            self.is_complete = False
        # Those below come after those above.
        for folder in reversed(self._folders):
            if folder.above is not None:
                folder.above.bytes += folder.bytes
                folder.above.files += folder.files
        for _, _, file in self._largest:
            file.above.kept.append(file)

    def _look_at(self, fd: int, folder: _Folder) -> list[_Folder]:
        """Look at what is in an open folder, and give the folders among it."""
        try:
            names = os.listdir(fd)
        except OSError:
            self.is_complete = False
            return []
        for name in names:
            self._count += 1
            if self._count > _MOST or time.monotonic() > self._deadline:
                self._is_over, self.is_complete = True, False
                break
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:  # it has just gone
                continue
            if status.st_dev == self._device:
                self._take(name, status, folder)
        return list(folder.folders)

    def _take(self, name: str, status: os.stat_result, folder: _Folder) -> None:
        size = status.st_blocks * _BLOCK
        if stat.S_ISDIR(status.st_mode):
            inner = _Folder(name, folder, size, 1, (status.st_dev, status.st_ino), folder.depth + 1)
            folder.folders.append(inner)
            self._folders.append(inner)
            return
        if status.st_nlink > 1:
            if status.st_ino in self._seen:
                return
            self._seen.add(status.st_ino)
        folder.bytes += size
        folder.files += 1
        entry = (size, next(self._order), _File(name, folder, size))
        if len(self._largest) < _KEPT:
            heapq.heappush(self._largest, entry)
        else:
            heapq.heappushpop(self._largest, entry)

    def _enter(self, fd: int, folder: _Folder) -> tuple[int, list[_Folder]] | None:
        if self._is_over:
            return None
        try:
            inner = os.open(folder.name, _FOLDER, dir_fd=fd)
        except OSError:
            self.is_complete = False
            return None
        status = os.fstat(inner)
        return inner, self._look_at(inner, folder) if (status.st_dev, status.st_ino) == folder.node else []


def _parts(path: str) -> list[str]:
    """Split a path below a folder; :raises Mistake: where it leads elsewhere."""
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise Mistake("path: give the path of a file or folder in your home, from the home on")
    return parts


class _Opened:
    """A folder in the home, opened part by part."""

    def __init__(self, home: Path, parts: list[str]) -> None:
        self.fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            device = os.fstat(self.fd).st_dev
            for part in parts:
                inner = os.open(part, _FOLDER, dir_fd=self.fd)
                os.close(self.fd)
                self.fd = inner
            if os.fstat(self.fd).st_dev != device:
                raise Mistake(f"{'/'.join(parts)} is on another disk")
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _weight(item: _Folder | _File, by: By) -> int:
    return item.bytes if by == "bytes" else item.files


def _chosen(top: _Folder, by: By) -> Iterator[_Folder | _File]:
    """Give the largest things, none of which lies in another."""
    order = itertools.count()
    heap: list[tuple[int, int, _Folder | _File]] = [(0, 0, top)]
    while heap:
        _, _, item = heapq.heappop(heap)
        if isinstance(item, _File):
            yield item
            continue
        inner: list[_Folder | _File] = [*item.folders, *item.kept] if item.depth < _DEEPEST else []
        heaviest = max((_weight(entry, by) for entry in inner), default=0)
        if item is top or (inner and heaviest > _SHARE * _weight(item, by)):
            for entry in inner:
                heapq.heappush(heap, (-_weight(entry, by), next(order), entry))
        else:
            yield item


def look(home: Path, path: str = "", by: By = "bytes", seconds: float = _SECONDS) -> Found:
    """Give the largest things in a home, or in a folder of it.

    :raises Mistake: for a path that leads out of it
    :raises OSError: when the folder cannot be opened
    """
    with _Opened(home, _parts(path) if path else []) as fd:
        top = _Folder(path)
        search = _Search(os.fstat(fd).st_dev, time.monotonic() + seconds)
        search.look(fd, top)
    least = _LEAST * _weight(top, by)
    if by == "bytes":
        least = max(least, _LEAST_BYTES)
    chosen = itertools.takewhile(lambda item: _weight(item, by) > least, _chosen(top, by))
    things = [
        Thing(item.path, item.bytes, item.files, is_folder=isinstance(item, _Folder))
        for item in itertools.islice(chosen, _SHOWN)
    ]
    return Found(tuple(things), top.bytes, top.files, search.is_complete)


# --- deleting


def delete(home: Path, path: str) -> int:
    """Delete a file, or a folder with all that is in it, for good; give the number of files and folders deleted.

    :raises Mistake: for a path that is none of the home's
    :raises Hindered: when something of it is left
    """
    *above, name = _parts(path)
    try:
        with _Opened(home, above) as fd:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if status.st_dev != os.fstat(fd).st_dev:
                raise Mistake(f"{path} is on another disk")
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=fd)
                return 1
            removal = _Removal(status.st_dev)
            _walk(fd, [name], removal.enter, removal.leave)
    except FileNotFoundError:
        raise Mistake(f"{path} is no longer there") from None
    except OSError as error:
        raise Hindered(f"{path} is still there: {error.strerror}") from None
    if removal.left:
        raise Hindered(f"{path}: {removal.count:,} files and folders are deleted, but not all: {removal.left}")
    return removal.count


def _open_up(fd: int, name: str) -> None:
    """Let the owner of a folder, such as those of Go's modules, look into it."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        Path(f"/proc/self/fd/{place}").chmod(0o700)
    finally:
        os.close(place)


class _Removal:
    """Deletes folders, each once it is empty."""

    def __init__(self, device: int) -> None:
        self._device = device
        self.count = 0
        self.left = ""
        """What kept something from going; empty where all went."""

    def enter(self, fd: int, name: str) -> tuple[int, list[str]] | None:
        """Delete the files in a folder, and give it with the names of its folders."""
        try:
            inner, entries = self._opened(fd, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.left = f"{name}: {error.strerror}"
            return None
        folders = []
        for entry in entries:
            try:
                if stat.S_ISDIR(os.stat(entry, dir_fd=inner, follow_symlinks=False).st_mode):
                    folders.append(entry)
                else:
                    os.unlink(entry, dir_fd=inner)
                    self.count += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                self.left = f"{entry}: {error.strerror}"
        return inner, folders

    def _opened(self, fd: int, name: str) -> tuple[int, list[str]]:
        try:
            inner = os.open(name, _FOLDER, dir_fd=fd)
        except PermissionError:
            _open_up(fd, name)
            inner = os.open(name, _FOLDER, dir_fd=fd)
        try:
            status = os.fstat(inner)
            if status.st_dev != self._device:
                raise OSError(errno.EXDEV, "is on another disk")
            mode = stat.S_IMODE(status.st_mode)
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                os.fchmod(inner, mode | stat.S_IRWXU)
            return inner, os.listdir(inner)  # noqa: PTH208 - of a descriptor
        except OSError:
            os.close(inner)
            raise

    def leave(self, fd: int, name: str) -> None:
        """Delete a folder in which nothing should be any more."""
        try:
            os.rmdir(name, dir_fd=fd)
            self.count += 1
        except FileNotFoundError:
            pass
        except OSError as error:
            # Where something is left in it, that is the reason to tell.
            self.left = self.left or f"{name}: {error.strerror}"
