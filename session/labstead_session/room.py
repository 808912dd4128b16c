"""Whether there is room where something is about to be written, tried rather than calculated.

The one rule: what it puts there to find out is gone again when it answers.
"""

import ctypes
import errno
import os
import shutil
import tempfile
from pathlib import Path

_FILES, _BYTES = 16, 2**18
"""As much as a kernel and IPython write before anybody asks them to."""
_BTRFS = 0x9123683E
"""BTRFS_SUPER_MAGIC, linux/magic.h."""


def is_lack(error: BaseException | None) -> bool:
    """Tell whether an error says that a disk or its owner's part of it is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def spare() -> Path | None:
    """Name the folder in memory for what does not fit into the home; None outside of a session."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "labstead") if runtime else None


def is_spare(path: Path) -> bool:
    """Tell whether a path is in that folder."""
    return spare() in path.parents


def tried(folder: Path) -> OSError | None:
    """Try whether a handful of small files fits; give what went wrong."""
    try:
        place = Path(tempfile.mkdtemp(prefix=".labstead-room-", dir=folder))
    except OSError as error:
        return error
    try:
        for number in range(_FILES):
            (place / str(number)).touch()
        with (place / "0").open("wb") as file:
            file.write(bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error
    else:
        return None
    finally:
        shutil.rmtree(place, ignore_errors=True)


def has_room(folder: Path) -> bool:
    """Tell whether a handful of small files fits."""
    return tried(folder) is None


def file_system(fd: int) -> int:
    """Give the number of the kind of file system on which an open folder lies: f_type of statfs(2)."""
    about = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None, use_errno=True).fstatfs(fd, about):
        raise OSError(ctypes.get_errno(), "fstatfs")
    return ctypes.c_ulong.from_buffer(about).value


def count(folder: Path) -> None:
    """Have the use of a folder's file system counted now; btrfs counts what it has written, each half minute."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if file_system(fd) == _BTRFS:
            ctypes.CDLL(None).syncfs(fd)
    finally:
        os.close(fd)
