"""Sockets of our services: how systemd hands them over and who is at the other end.

The one rule: a caller is who the kernel says, never who they say.
"""

import os
import socket
import struct

from labstead.errors import BadInput

HUB_USER = "labstead"
"""The user that the hub runs as."""

_FIRST_SOCKET = 3
"""Number of the first socket that systemd passes (sd_listen_fds(3))."""


def socket_from_systemd() -> socket.socket:
    """Take the one socket with which systemd started this process.

    :raises BadInput: when the process was not started by a socket unit
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise BadInput("not started by systemd's socket activation; start the .socket unit instead")
    return socket.socket(fileno=_FIRST_SOCKET)


def peer_uid(connection: socket.socket) -> int:
    """Give the uid of the process that opened this Unix socket connection (SO_PEERCRED, unix(7))."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)
