"""Run a program that cannot make what no session may: the ioctls and system calls that lift a limit of the disks.

slurmd is started by this, so that limits of homes and groups hold in jobs as well, inside of an image and outside.

The one rule: what is forbidden is labstead.seccomp's list, and the program starts with all of it or not at all.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator, Sequence

from labstead.seccomp import FORBIDDEN, FORBIDDEN_CALLS

_IOCTL = {"x86_64": 16, "aarch64": 29}
_CALLS = {"file_setattr": 469}
"""Numbers of system calls, the new ones alike on all machines."""

# linux/bpf_common.h, linux/seccomp.h, linux/prctl.h.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _SECOND_ARGUMENT = 0, 24
"""Where struct seccomp_data has the call's number, and the lower half of its second argument."""
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2

_Step = tuple[int, int, int, int]
"""Operation, steps to leave out if true, if false, and what it is done with: struct sock_filter."""


def _refuse(values: Sequence[int]) -> Iterator[_Step]:
    """Refuse what was loaded last, where it is one of these."""
    for value in values:
        yield _JUMP_IF_EQUAL, 0, 1, value
        yield _RETURN, 0, 0, _ERRNO | errno.EPERM


def program(ioctl: int) -> bytes:
    """Write the filter, for the kernel to run before each system call.

    :param ioctl: the number of ioctl(2) on this machine
    """
    numbers = list(_refuse(FORBIDDEN))
    steps: list[_Step] = [
        (_LOAD, 0, 0, _NUMBER),
        *_refuse([_CALLS[name] for name in sorted(FORBIDDEN_CALLS)]),
        (_JUMP_IF_EQUAL, 0, len(numbers) + 1, ioctl),
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        *numbers,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def confine() -> None:
    """Forbid it to this process and all that it starts, for good.

    :raises OSError: when the kernel does not take the filter
    """
    filters = program(_IOCTL[platform.machine()])
    buffer = ctypes.create_string_buffer(filters, len(filters))
    # struct sock_fprog
    whole = ctypes.create_string_buffer(struct.pack("@HP", len(filters) // 8, ctypes.addressof(buffer)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    for words in ((_NO_NEW_PRIVILEGES, 1, 0), (_SECCOMP, _FILTER, ctypes.addressof(whole))):
        if prctl(*words, *[0] * (5 - len(words))):
            raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def main() -> None:
    """Become the program that the command line names."""
    if len(sys.argv) < 2:
        sys.stderr.write("confine: no program; give one with its arguments\n")
        sys.exit(2)
    try:
        confine()
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell wanted: words stay words
    except OSError as error:
        sys.exit(f"confine: {sys.argv[1]}: {error.strerror}")


if __name__ == "__main__":
    main()
