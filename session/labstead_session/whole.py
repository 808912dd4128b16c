"""Files that are written whole or stay as they were, on a disk that may be full.

The one rule: new content is on the disk before anything old is touched, and nothing is left beside a file.
"""

import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_filling = threading.Lock()
"""Held while a file is filled in its place, so that two who save it at once leave it as one of them meant it."""


def beside(path: Path) -> Path:
    """Name a file that new content is written to first: another one each time, as two may save a file at once."""
    return path.with_name(f".~{secrets.token_hex(8)}")


def _end(file: IO[Any]) -> None:
    """Close a file whose content matters no longer, or is on the disk already."""
    # What is still in its buffer may not fit either; the first error is the one to tell.
    with suppress(OSError):
        file.close()


@contextmanager
def written(path: Path, *, text: bool = True, encoding: str = "utf-8", newline: str = "\n") -> Iterator[IO[Any]]:
    """Open a file to write its new content: after an error it is as it was before.

    The content is written beside it first, which shows that it fits. Then a file that was there is filled in its
    place, so that its rights, its names and its shares stay; should another program have taken the room meanwhile, what
    lies beside takes its place.
    """
    new, is_there = beside(path), path.exists()
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, 0o600 if is_there else 0o666)
    try:
        with os.fdopen(os.dup(fd), "rb") as content:
            file = os.fdopen(fd, "w", encoding=encoding, newline=newline) if text else os.fdopen(fd, "wb")
            try:
                yield file
                file.flush()
                os.fsync(fd)
            finally:
                _end(file)
            if is_there:
                content.seek(0)
                with _filling:
                    _fill(path, content, new)
            else:
                new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _fill(path: Path, content: IO[bytes], new: Path) -> None:
    """Give a file new content.

    :param new: the file that holds this content too
    """
    target = path.open("wb")
    try:
        try:
            shutil.copyfileobj(content, target, 2**20)
            target.flush()
            os.fsync(target.fileno())
        finally:
            _end(target)
    except OSError:
        # The old content is gone: whatever went wrong, what lies beside is all there is.
        shutil.copymode(path, new)
        new.replace(path)


def copied(source: Path, target: Path) -> None:
    """Put a copy of a file, with its times and mode, in the place of another."""
    new = beside(target)
    try:
        shutil.copyfile(source, new)
        shutil.copystat(source, new)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
