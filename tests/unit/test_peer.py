"""Sockets of the services. Those of systemd are tested on a host."""

import os
import socket

import pytest

from labstead import peer
from labstead.errors import BadInput


def test_a_service_started_by_hand_says_how_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    with pytest.raises(BadInput, match=r"start the \.socket unit instead"):
        peer.socket_from_systemd()


def test_sockets_meant_for_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    with pytest.raises(BadInput):
        peer.socket_from_systemd()


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer.peer_uid(ours) == os.getuid()
