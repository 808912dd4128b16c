"""Who may ask the accounts service, and what comes back. The real service is tested on a host."""

import json
import socket
import threading
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


@pytest.mark.parametrize("op", ["link", "show", "make-canary", "remove-canary"])
def test_the_hub_may_not_do_what_is_roots(service: Service, op: str) -> None:
    request = {"op": op} if "canary" in op else {"op": op, "name": "root"}
    assert code(ask(service, HUB_UID, **request)) == "not-allowed"


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


def test_client_and_server_understand_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    # The ledger belongs to the thread that opens it. One second without a request ends it.
    thread = threading.Thread(target=lambda: server.serve(listener, make_service(tmp_path), HUB_UID, 1.0))
    thread.start()
    try:
        client = Client(path)
        problem = client.problem("root")
        assert problem is not None
        assert "reserved" in problem
        assert client.problem("anna") is None
        with pytest.raises(AccountRefused, match="not an account of the hub"):
            client.open_session("anna")
    finally:
        thread.join(timeout=30)
        listener.close()
    assert not thread.is_alive()


def test_a_service_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LabsteadError, match=r"does not answer at .*systemctl status") as caught:
        Client(str(tmp_path / "none")).problem("anna")
    assert "\n" not in str(caught.value)
