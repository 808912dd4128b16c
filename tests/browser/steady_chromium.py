#!/usr/bin/env python3
"""Chromium that does not hear of networks which come and go; it is started in the place of `chromium`.

Chromium breaks off whatever it loads when the machine gets or loses an address (ERR_NETWORK_CHANGED), and hosts of
other tests do that to it all the time. It hears of that through netlink(7), which is refused here, to it alone.
"""

import ctypes
import os
import platform
import struct
import sys

_SYSTEMS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""By machine: its number in linux/audit.h, and that of socket(2)."""
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_AF_NETLINK, _EAFNOSUPPORT = 16, 97
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def refuse_netlink() -> None:
    """Let neither this process nor what it becomes make a netlink socket; nothing on machines not known here."""
    if platform.machine() not in _SYSTEMS:
        return
    system, socket = _SYSTEMS[platform.machine()]
    steps = (
        _step(_LOAD, 4),
        _step(_JUMP_IF_EQUAL, system, no=5),
        _step(_LOAD, 0),
        _step(_JUMP_IF_EQUAL, socket, no=3),
        _step(_LOAD, 16),
        _step(_JUMP_IF_EQUAL, _AF_NETLINK, no=1),
        _step(_RETURN, _REFUSE | _EAFNOSUPPORT),
        _step(_RETURN, _ALLOW),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(steps), b"".join(steps))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    refuse_netlink()
    os.execvp("chromium", ["chromium", *sys.argv[1:]])  # noqa: S606 - no shell is meant, but PATH is
