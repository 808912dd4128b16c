"""What slurmd and jobs cannot do: the kernel of this machine is asked, in a process of its own."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labstead.compute import confine

ROOT = Path(__file__).resolve().parents[2]

#: As strace(1) prints their numbers: FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS, FS_IOC_FSSETXATTR and those of btrfs.
FORBIDDEN = (0x40086602, 0x40046602, 0x401C5820, 0x50009401, 0x5000940E, 0x50009417, 0x50009418, 0x4008941A)
#: TCGETS, FIONREAD, FICLONE, FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR, BTRFS_IOC_TREE_SEARCH.
ORDINARY = (0x5401, 0x541B, 0x40049409, 0x80086601, 0x801C581F, 0xD0009411, 0, 0xFFFFFFFF)

_TRY = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong]
libc.syscall.argtypes = [ctypes.c_long] + [ctypes.c_long] * 5
for word in sys.argv[1:]:
    number = int(word)
    ctypes.set_errno(0)
    # No file is open as 99: what passes the filter is EBADF.
    libc.ioctl(99, number) if number >= 0 else libc.syscall(-number, 99, 0, 0, 0, 0)
    print(ctypes.get_errno())
"""


def confined(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program by way of the module."""
    command = [sys.executable, "-m", "labstead.compute.confine", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "hub")}
    return subprocess.run(command, text=True, capture_output=True, check=False, timeout=60, env=environment)


def errors(*numbers: int) -> list[int]:
    """Make ioctls, and the system calls of negative numbers, confined; give what the kernel answers."""
    done = confined(sys.executable, "-c", _TRY, *map(str, numbers))
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def test_what_lifts_a_limit_is_refused() -> None:
    assert errors(*FORBIDDEN) == [errno.EPERM] * len(FORBIDDEN)


def test_higher_bits_hide_nothing() -> None:
    """The kernel reads 32 bits of an ioctl's number."""
    hidden = [number | bit for number in FORBIDDEN for bit in (1 << 32, 1 << 62)]
    assert errors(*hidden) == [errno.EPERM] * len(hidden)


def test_all_else_goes_through() -> None:
    near = [number ^ 1 for number in FORBIDDEN]
    assert errors(*ORDINARY, *near) == [errno.EBADF] * (len(ORDINARY) + len(near))


def test_the_new_way_to_set_flags_is_refused() -> None:
    # file_setattr(2); fchdir(2) of x86-64 and aarch64 next to it.
    fchdir = {"x86_64": 81, "aarch64": 50}[os.uname().machine]
    assert errors(-469, -fchdir) == [errno.EPERM, errno.EBADF]


def test_every_forbidden_call_has_a_number() -> None:
    assert confine.program(16)
    assert {"file_setattr"} == confine.FORBIDDEN_CALLS


def test_a_program_of_the_program_is_confined_and_has_its_exit_code() -> None:
    done = confined("sh", "-c", f'"$@" {FORBIDDEN[0]}; exit 7', "-", sys.executable, "-c", _TRY)
    assert (done.returncode, done.stdout) == (7, f"{errno.EPERM}\n")


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [((), 2, "confine: no program; give one"), (("/no/such/program",), 1, "confine: /no/such/program: No such file")],
)
def test_what_cannot_be_run_is_told_in_a_line(words: tuple[str, ...], code: int, line: str) -> None:
    done = confined(*words)
    assert done.returncode == code
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
