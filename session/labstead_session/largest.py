"""The largest files and folders of a home, and how to delete one of them.

The one rule: nothing outside the home is ever looked at or deleted, whatever links, mounts or names say: every folder
is opened by name within the one above it, and no symbolic link is followed.
"""

import heapq
import itertools
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
_DEEPEST = 200
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


@dataclass
class _Folder:
    path: str
    bytes: int = 0
    files: int = 0
    folders: list["_Folder"] = field(default_factory=list)
    kept: list[Thing] = field(default_factory=list)


class _Search:
    """One look at a folder and all that is in it."""

    def __init__(self, device: int, deadline: float) -> None:
        self._device, self._deadline = device, deadline
        self._seen: set[int] = set()
        self._count = 0
        self._order = itertools.count()
        self._largest: list[tuple[int, int, Thing, _Folder]] = []
        self.is_complete = True

    def look(self, fd: int, folder: _Folder, depth: int) -> None:
        """Look through an open folder; closes nothing."""
        try:
            names = os.listdir(fd)
        except OSError:
            self.is_complete = False
            return
        for name in names:
            self._count += 1
            if self._count > _MOST or time.monotonic() > self._deadline:
                self.is_complete = False
                return
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:  # it has just gone
                continue
            if status.st_dev == self._device:
                self._take(fd, name, status, folder, depth)

    def _take(self, fd: int, name: str, status: os.stat_result, folder: _Folder, depth: int) -> None:
        path = f"{folder.path}/{name}" if folder.path else name
        if stat.S_ISDIR(status.st_mode):
            inner = _Folder(path, status.st_blocks * _BLOCK, 1)
            self._look_into(fd, name, status, inner, depth)
            folder.folders.append(inner)
            folder.bytes += inner.bytes
            folder.files += inner.files
            return
        if status.st_nlink > 1:
            if status.st_ino in self._seen:
                return
            self._seen.add(status.st_ino)
        thing = Thing(path, status.st_blocks * _BLOCK, 1, is_folder=False)
        folder.bytes += thing.bytes
        folder.files += 1
        entry = (thing.bytes, next(self._order), thing, folder)
        if len(self._largest) < _KEPT:
            heapq.heappush(self._largest, entry)
        else:
            heapq.heappushpop(self._largest, entry)

    def _look_into(self, fd: int, name: str, status: os.stat_result, inner: _Folder, depth: int) -> None:
        if depth >= _DEEPEST:
            self.is_complete = False
            return
        try:
            inner_fd = os.open(name, _FOLDER, dir_fd=fd)
        except OSError:
            self.is_complete = False
            return
        try:
            if os.path.samestat(os.fstat(inner_fd), status):
                self.look(inner_fd, inner, depth + 1)
        finally:
            os.close(inner_fd)

    def settle(self) -> None:
        """Hand the largest files over to their folders."""
        for _, _, thing, folder in self._largest:
            folder.kept.append(thing)


def _parts(path: str) -> list[str]:
    """Split a path below a folder; :raises Mistake: where it leads elsewhere."""
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts) or len(parts) > _DEEPEST:
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


def _weight(item: "_Folder | Thing", by: By) -> int:
    return item.bytes if by == "bytes" else item.files


def _chosen(top: _Folder, by: By) -> Iterator[Thing]:
    """Give the largest things, none of which lies in another."""
    order = itertools.count()
    heap: list[tuple[int, int, _Folder | Thing]] = [(0, 0, top)]
    while heap:
        _, _, item = heapq.heappop(heap)
        if isinstance(item, Thing):
            yield item
            continue
        inner: list[_Folder | Thing] = [*item.folders, *item.kept]
        heaviest = max((_weight(entry, by) for entry in inner), default=0)
        if item is top or (inner and heaviest > _SHARE * _weight(item, by)):
            for entry in inner:
                heapq.heappush(heap, (-_weight(entry, by), next(order), entry))
        else:
            yield Thing(item.path, item.bytes, item.files, is_folder=True)


def look(home: Path, path: str = "", by: By = "bytes", seconds: float = _SECONDS) -> Found:
    """Give the largest things in a home, or in a folder of it.

    :raises Mistake: for a path that leads out of it
    :raises OSError: when the folder cannot be opened
    """
    with _Opened(home, _parts(path) if path else []) as fd:
        top = _Folder(path)
        search = _Search(os.fstat(fd).st_dev, time.monotonic() + seconds)
        search.look(fd, top, 0)
        search.settle()
    least = _LEAST * _weight(top, by)
    if by == "bytes":
        least = max(least, _LEAST_BYTES)
    chosen = itertools.takewhile(lambda thing: _weight(thing, by) > least, _chosen(top, by))
    things = tuple(itertools.islice(chosen, _SHOWN))
    return Found(things, top.bytes, top.files, search.is_complete)


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
            count, left = _delete_folder(fd, name, status.st_dev, 0)
    except FileNotFoundError:
        raise Mistake(f"{path} is no longer there") from None
    except OSError as error:
        raise Hindered(f"{path} is still there: {error.strerror}") from None
    if left:
        raise Hindered(f"{path}: {count:,} files and folders are deleted, but not all: {left}")
    return count


def _open_up(fd: int, name: str) -> None:
    """Let the owner of a folder, such as those of Go's modules, look into it."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        Path(f"/proc/self/fd/{place}").chmod(0o700)
    finally:
        os.close(place)


def _delete_folder(fd: int, name: str, device: int, depth: int) -> tuple[int, str]:
    """Delete a folder in an open one; give how much is gone, and what kept it from going altogether."""
    count, left = 0, ""
    if depth > _DEEPEST:
        return 0, "it lies too deep"
    try:
        inner = os.open(name, _FOLDER, dir_fd=fd)
    except PermissionError:
        _open_up(fd, name)
        inner = os.open(name, _FOLDER, dir_fd=fd)
    try:
        if os.fstat(inner).st_dev != device:
            return 0, f"{name} is on another disk"
        mode = stat.S_IMODE(os.fstat(inner).st_mode)
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(inner, mode | stat.S_IRWXU)
        for entry in os.listdir(inner):  # noqa: PTH208 - of a descriptor
            try:
                if stat.S_ISDIR(os.stat(entry, dir_fd=inner, follow_symlinks=False).st_mode):
                    gone, why = _delete_folder(inner, entry, device, depth + 1)
                    count, left = count + gone, why or left
                else:
                    os.unlink(entry, dir_fd=inner)
                    count += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                left = f"{entry}: {error.strerror}"
    finally:
        os.close(inner)
    if not left:
        os.rmdir(name, dir_fd=fd)
        count += 1
    return count, left
