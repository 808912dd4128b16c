"""Who may ask the accounts service, and what comes back. The real service is tested on a host."""

import json
import os
import pwd
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from labstead import identity
from labstead.accounts import protocol, server
from labstead.accounts.client import Client
from labstead.accounts.ledger import Ledger
from labstead.accounts.service import Service
from labstead.errors import AccountRefused, LabsteadError
from labstead.settings import Accounts

HUB_UID = 990


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path)


def make_service(tmp_path: Path) -> Service:
    settings = Accounts(home_root=tmp_path / "home", skeleton=tmp_path / "skel", reserved_names=("director",))
    return Service(settings, Ledger(tmp_path / "ledger.sqlite"), tmp_path / "sessions")


def ask(service: Service, uid: int, **request: object) -> protocol.Reply:
    return server.answer(json.dumps(request).encode(), uid, HUB_UID, service)


def code(reply: protocol.Reply) -> str | None:
    return reply.error.code if reply.error else None


@pytest.mark.parametrize("uid", [1, 1000, 20000, HUB_UID + 1, 65534])
def test_nobody_but_root_and_the_hub_may_ask(service: Service, uid: int) -> None:
    assert code(ask(service, uid, op="check", name="anna")) == "not-allowed"


ROOT_ONLY = {
    "add": {"name": "anna"},
    "link": {"name": "root"},
    "expire": {"name": "anna", "day": None},
    "retire": {"name": "anna"},
    "make-canary": {},
    "remove-canary": {},
    "set-group": {"name": "ocean"},
    "remove-group": {"name": "ocean"},
}
FOR_THE_HUB = {
    "check": {"name": "anna"},
    "create": {"name": "anna"},
    "lock": {"name": "anna"},
    "unlock": {"name": "anna"},
    "show": {},
    "check-password": {"name": "anna", "password": "x"},
    "arrive": {"name": "anna", "subject": "x"},
    "open-session": {"name": "anna"},
}


@pytest.mark.parametrize("op", ROOT_ONLY)
def test_the_hub_may_not_do_what_is_roots(service: Service, op: str) -> None:
    assert code(ask(service, HUB_UID, op=op, **ROOT_ONLY[op])) == "not-allowed"


@pytest.mark.parametrize("op", [*ROOT_ONLY, *FOR_THE_HUB])
def test_other_people_may_not_do_what_is_roots_or_the_hubs(service: Service, op: str) -> None:
    assert code(ask(service, os.getuid() or 1, op=op, **{**ROOT_ONLY, **FOR_THE_HUB}[op])) == "not-allowed"


def test_other_people_speak_for_themselves_alone(service: Service) -> None:
    uid = os.getuid() or pwd.getpwnam("daemon").pw_uid
    reply = ask(service, uid, op="show-groups")
    assert reply.result == protocol.Groups(groups=())
    assert code(ask(service, uid, op="change-members", group="ocean", add=["anna"])) == "not-allowed"
    assert code(ask(service, uid, op="change-members", group="ocean", add=["anna"], manager="anna")) == "not-allowed"
    # A number that is nobody's.
    assert code(ask(service, 4_000_000, op="show-groups")) == "not-allowed"


def test_the_hub_must_say_for_which_manager_it_asks(service: Service) -> None:
    assert code(ask(service, HUB_UID, op="change-members", group="ocean", add=["anna"])) == "not-allowed"
    assert code(ask(service, HUB_UID, op="change-members", group="ocean", manager="anna")) == "not-allowed"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("root", "reserved"),
        ("director", "reserved"),
        ("Anna", "small letters"),
        ("_apt", "starts with a letter"),
        ("labstead-canary", "reserved"),
    ],
)
def test_names_are_checked_by_the_service_itself(service: Service, name: str, words: str) -> None:
    reply = ask(service, HUB_UID, op="check", name=name)
    assert isinstance(reply.result, protocol.Problem)
    assert words in str(reply.result.problem)
    assert code(ask(service, HUB_UID, op="create", name=name)) == "bad-name"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'{"op": "delete-everything"}',
        b'{"op": "check"}',
        b'{"op": "check", "name": 3}',
        b'{"op": "check", "name": "anna", "uid": 0}',
        b'{"op": "create", "name": "' + b"a" * 70000 + b'"}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_request_is_refused(service: Service, line: bytes) -> None:
    assert code(server.answer(line, HUB_UID, HUB_UID, service)) == "failed"


def test_no_session_for_a_name_that_is_not_the_hubs(service: Service) -> None:
    assert code(ask(service, HUB_UID, op="open-session", name="nobody")) == "unknown"


@pytest.mark.parametrize("name", ["root", "daemon", "nobody", "no-such-person"])
def test_system_accounts_are_nobody_to_a_session(name: str) -> None:
    with pytest.raises(AccountRefused):
        identity.look_up(name)


@contextmanager
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int | None = None) -> Iterator[str]:
    """Run the server; one second without a request ends it."""
    path = str(tmp_path / "s")
    if uid is not None:
        monkeypatch.setattr(server.peer, "peer_uid", lambda _: uid)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    hub_uid = os.getuid() or HUB_UID
    thread = threading.Thread(target=lambda: server.Server(make_service(tmp_path), hub_uid).serve(listener, 1.0))
    thread.start()
    try:
        yield path
    finally:
        thread.join(timeout=30)
        listener.close()
    assert not thread.is_alive()


def test_client_and_server_understand_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path, monkeypatch) as path:
        client = Client(path)
        problem = client.problem("root")
        assert problem is not None
        assert "reserved" in problem
        assert client.problem("anna") is None
        assert client.accounts() == ()
        with pytest.raises(AccountRefused, match="not an account of the hub"):
            client.open_session("anna")


def test_slow_callers_keep_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE_SECONDS", 3.0)
    with serving(tmp_path, monkeypatch) as path, ExitStack() as stack:
        for _ in range(8):
            slow = stack.enter_context(socket.socket(socket.AF_UNIX))
            slow.connect(path)
        before = time.monotonic()
        assert Client(path).problem("anna") is None
        assert time.monotonic() - before < 2


def test_other_people_never_take_all_places(service: Service) -> None:
    busy = server.Server(service, HUB_UID)
    assert [busy._has_room(5001) for _ in range(3)] == [True, True, False]
    assert all(busy._has_room(uid) for uid in range(6000, 6000 + server._STRANGERS - 2))
    assert not busy._has_room(7000)
    busy._leave(5001)
    assert busy._has_room(7000)
    assert server._STRANGERS < server._THREADS


def test_of_other_people_only_a_few_are_heard_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE_SECONDS", 60.0)
    with serving(tmp_path, monkeypatch, uid=4_000_000) as path:
        with ExitStack() as stack:
            for _ in range(server._STRANGERS_PER_UID):
                stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
            with pytest.raises(AccountRefused, match="too many people ask"):
                Client(path).groups()
        # Those before have gone away.
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with pytest.raises(AccountRefused) as caught:
                Client(path).groups()
            if "too many" not in str(caught.value):
                break
        assert "has no name on this machine" in str(caught.value)


def test_somebody_may_ask_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_STRANGERS_PER_UID", 1)
    with serving(tmp_path, monkeypatch, uid=4_000_000) as path:
        for _ in range(200):
            with pytest.raises(AccountRefused, match="has no name on this machine"):
                Client(path).groups()


def test_refusals_are_short_in_the_journal(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"u{number}" for number in range(5000)]
    assert code(ask(service, 0, op="set-group", name="ocean", declared=names)) == "unknown"
    assert "refused: " in caplog.text
    assert len(caplog.text) < 1000


def test_a_client_waits_until_there_is_room_to_be_heard(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as flood:
        listener.bind(path)
        listener.listen(1)
        for _ in range(2):
            flood.enter_context(socket.socket(socket.AF_UNIX)).connect(path)

        def serve() -> None:
            time.sleep(0.3)
            for _ in range(2):
                listener.accept()[0].close()
            with listener.accept()[0] as connection:
                connection.sendall(server._line(protocol.Reply(result=protocol.Problem(problem=None))))
                connection.recv(1024)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert Client(path).problem("anna") is None
        finally:
            thread.join(10)


def test_a_service_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LabsteadError, match=r"does not answer at .*systemctl status") as caught:
        Client(str(tmp_path / "none")).problem("anna")
    assert "\n" not in str(caught.value)
