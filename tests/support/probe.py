"""What somebody does to a disk who wants more of it than they may have.

The rule: it needs Python alone, so that the same attempts are made in a session, on its host, and by anybody.

    python3 probe.py serve 8888                      # calls as lines of JSON, over TCP
    python3 probe.py call fill_bytes '["/home/a"]'   # one call, its answer as JSON
"""

import ctypes
import errno
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

FSGETXATTR, FSSETXATTR = 0x801C581F, 0x401C5820
GETFLAGS, SETFLAGS, SETFLAGS_32 = 0x80086601, 0x40086602, 0x40046602
"""ioctl(2) numbers, uapi/linux/fs.h."""
PROJECT_INHERITANCE = 0x20000000
"""FS_PROJINHERIT_FL, uapi/linux/fs.h."""
_FSXATTR = struct.Struct("=IIIII8x")
"""struct fsxattr: xflags, extsize, nextents, projid, cowextsize."""
_IOCTL, _FILE_SETATTR = 16, 469
"""System calls of x86-64."""
_UPPER = 0xDEADBEEF << 32
"""The kernel reads the lower half of an ioctl's number alone; a filter may read both."""
_CHUNK = 2**18

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *words: object) -> str:
    """Make a system call; give `done`, or the name of its error."""
    if _libc.syscall(ctypes.c_long(number), *words) == 0:
        return "done"
    return errno.errorcode[ctypes.get_errno()]


def _ioctl(file: int, number: int, argument: Any) -> str:
    return _call(_IOCTL, ctypes.c_long(file), ctypes.c_ulong(number), argument)


def _project_of(file: int) -> tuple[int, ...]:
    buffer = ctypes.create_string_buffer(_FSXATTR.size)
    told = _ioctl(file, FSGETXATTR, buffer)
    if told != "done":
        raise OSError(f"FS_IOC_FSGETXATTR: {told}")
    return tuple(_FSXATTR.unpack(buffer.raw))


def project(path: str) -> int:
    """Give the number of the project that a file or folder is in."""
    file = os.open(path, os.O_RDONLY)
    try:
        return _project_of(file)[3]
    finally:
        os.close(file)


def projects(folder: str) -> dict[str, int]:
    """Give the project of each file and folder in a folder, and of itself (`.`)."""
    return {".": project(folder), **{path.name: project(str(path)) for path in Path(folder).iterdir()}}


def _move(file: int, project: int, upper: int = 0) -> str:
    """Give a file or folder to another project; 0 is none."""
    flags, extent, extents, _, cow = _project_of(file)
    argument = ctypes.create_string_buffer(_FSXATTR.pack(flags, extent, extents, project, cow))
    return _ioctl(file, upper | FSSETXATTR, argument)


def _stop_inheritance(file: int, number: int) -> str:
    """Let what is made in a folder from now on be in no project (`chattr -P`)."""
    flags = ctypes.c_ulong()
    told = _ioctl(file, GETFLAGS, ctypes.byref(flags))
    if told != "done":
        raise OSError(f"FS_IOC_GETFLAGS: {told}")
    return _ioctl(file, number, ctypes.byref(ctypes.c_ulong(flags.value & ~PROJECT_INHERITANCE)))


def _by_file_setattr(path: str) -> str:
    """Take a file out of its project by file_setattr(2), of Linux 6.17."""
    attributes = struct.pack("=QIIII", 0, 0, 0, 0, 0)
    words = (ctypes.c_int(-100), os.fsencode(path), attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    return _call(_FILE_SETATTR, *words)


def escapes(folder: str, other: int) -> dict[str, str]:
    """Try all ways out of a folder's project, each with a file or folder of its own; tell what came of each.

    Those of which the kernel says that they were done have their names below the folder.

    :param other: somebody else's project, to be counted there
    """
    tries: dict[str, tuple[str, Callable[[int], str]]] = {
        "file-leaves": ("file", lambda file: _move(file, 0)),
        "file-leaves-upper": ("file", lambda file: _move(file, 0, _UPPER)),
        "file-joins": ("file", lambda file: _move(file, other)),
        "folder-leaves": ("folder", lambda file: _move(file, 0)),
        "no-inheritance": ("folder", lambda file: _stop_inheritance(file, SETFLAGS)),
        "no-inheritance-upper": ("folder", lambda file: _stop_inheritance(file, _UPPER | SETFLAGS)),
        "no-inheritance-32": ("folder", lambda file: _stop_inheritance(file, SETFLAGS_32)),
    }
    found = {}
    for name, (kind, attempt) in tries.items():
        path = Path(folder, name)
        if kind == "folder":
            path.mkdir(exist_ok=True)
        else:
            path.touch()
        file = os.open(path, os.O_RDONLY)
        found[name] = attempt(file)
        os.close(file)
    path = Path(folder, "file-setattr")
    path.touch()
    found[path.name] = _by_file_setattr(str(path))
    return found


def fill_bytes(path: str, most: int = 2**28) -> list[Any]:
    """Write to a file until the disk takes no more.

    :param path: the file; written on at its end
    :param most: bytes after which to give up
    :return: name of the error, bytes that it holds then
    """
    chunk, written, why = _CHUNK, 0, "none"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        return [errno.errorcode[error.errno or 0], 0]
    try:
        while written < most:
            try:
                written += os.write(file, os.urandom(chunk))
            except OSError as error:
                why = errno.errorcode[error.errno or 0]
                # What is left may take a smaller piece.
                if chunk <= 512:
                    break
                chunk //= 2
        with suppress(OSError):
            os.fsync(file)
        return [why, os.fstat(file).st_size]
    finally:
        os.close(file)


def fill_files(folder: str, most: int = 100_000) -> list[Any]:
    """Make empty files until there can be no more.

    :return: name of the error, how many were made
    """
    Path(folder).mkdir(exist_ok=True)
    for number in range(most):
        try:
            os.close(os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except OSError as error:
            return [errno.errorcode[error.errno or 0], number]
    return ["none", most]


def df(path: str) -> dict[str, int]:
    """Give what `df` shows: size, used, avail in bytes, itotal, iused, iavail."""
    keys = ("size", "used", "avail", "itotal", "iused", "iavail")
    command = ["df", "--block-size=1", f"--output={','.join(keys)}", path]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(zip(keys, map(int, shown.splitlines()[-1].split()), strict=True))


def remove(path: str) -> None:
    """Remove a file, or a folder and what is in it."""
    subprocess.run(["rm", "-rf", "--", path], check=True)


def sh(script: str) -> list[Any]:
    """Run a piece of shell: exit code, what it printed, what it complained about."""
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return [done.returncode, done.stdout, done.stderr]


_CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call for call in (project, projects, escapes, fill_bytes, fill_files, df, remove, sh)
}


def _answer(name: str, words: list[Any]) -> dict[str, Any]:
    try:
        return {"answer": _CALLS[name](*words)}
    except Exception as error:  # noqa: BLE001 - whoever asked shall know
        return {"error": repr(error)}


def _serve(port: int) -> None:
    with socket.create_server(("", port)) as server:
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as stream:
                for line in stream:
                    name, words = json.loads(line)
                    stream.write(json.dumps(_answer(name, words)) + "\n")
                    stream.flush()


def ask(address: str, port: int, line: str) -> str:
    """Send a call to a probe that serves, and give its answer."""
    with socket.create_connection((address, port), timeout=100) as connection, connection.makefile("rw") as stream:
        stream.write(line + "\n")
        stream.flush()
        return stream.readline()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", number]:
            _serve(int(number))
        case ["call", name, words]:
            print(json.dumps(_answer(name, json.loads(words))))
        case ["ask", address, number, line]:
            print(ask(address, int(number), line))
