"""Who a uid is, as the relay asks the accounts service: root alone may, nothing is written."""

import json
from datetime import date
from pathlib import Path

import pytest

from labstead.accounts import protocol, server
from labstead.accounts.ledger import Ledger
from labstead.accounts.service import Service
from labstead.identity import Identity
from labstead.settings import Accounts
from support.unix import Unix

HUB_UID = 990


@pytest.fixture
def unix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unix:
    stand_in = Unix(tmp_path / "home")
    for folder in ("home", "skel", "groups"):
        (tmp_path / folder).mkdir()
    stand_in.stand_in(monkeypatch)

    def getpwuid(uid: int) -> object:
        found = [user for user in stand_in.users.values() if user.pw_uid == uid]
        if not found:
            raise KeyError(uid)
        return found[0]

    monkeypatch.setattr("labstead.accounts.machine.pwd.getpwuid", getpwuid)
    return stand_in


@pytest.fixture
def service(unix: Unix, tmp_path: Path) -> Service:
    settings = Accounts(home_root=unix.home_root, skeleton=tmp_path / "skel", group_root=tmp_path / "groups")
    made = Service(settings, Ledger(tmp_path / "ledger.sqlite"), tmp_path / "sessions", lambda: date(2026, 11, 20))
    made.handle(protocol.Add(name="anna"))
    made.handle(protocol.MakeCanary())
    return made


def ask(service: Service, asker: int = 0, **about: object) -> protocol.Reply:
    line = json.dumps({"op": "identify", **about}).encode()
    return server.answer(line, asker, HUB_UID, service)


def code(reply: protocol.Reply) -> str | None:
    return reply.error.code if reply.error else None


def test_a_uid_and_a_name_are_the_same_person(service: Service, unix: Unix, tmp_path: Path) -> None:
    uid = unix.users["anna"].pw_uid
    found = ask(service, uid=uid).result
    assert isinstance(found, Identity)
    assert (found.name, found.uid, found.home) == ("anna", uid, unix.home_root / "anna")
    assert ask(service, name="anna").result == found
    # A session's files are for the one who opens it.
    assert not (tmp_path / "sessions").exists()


def test_the_canary_is_somebody(service: Service, unix: Unix) -> None:
    found = ask(service, uid=unix.users["labstead-canary"].pw_uid).result
    assert isinstance(found, Identity)


@pytest.mark.parametrize("asker", [HUB_UID, 1000, 20000])
def test_only_root_may_ask(service: Service, unix: Unix, monkeypatch: pytest.MonkeyPatch, asker: int) -> None:
    monkeypatch.setattr("labstead.accounts.machine.name_of", lambda _: "anna")
    assert code(ask(service, asker, uid=unix.users["anna"].pw_uid)) == "not-allowed"


@pytest.mark.parametrize(
    "about", [{}, {"uid": 20000, "name": "anna"}, {"uid": -1}, {"uid": 2**32}, {"uid": True, "x": 1}]
)
def test_a_question_is_about_one_thing(service: Service, about: dict[str, object]) -> None:
    assert code(ask(service, **about)) == "failed"


def test_strangers_are_unknown(service: Service, unix: Unix) -> None:
    unix.add_user("host", 1005)
    assert code(ask(service, uid=1005)) == "unknown"
    assert code(ask(service, uid=4_000_000)) == "unknown"
    assert code(ask(service, uid=0)) == "unknown"


def test_closed_accounts_are_refused(service: Service, unix: Unix) -> None:
    uid = unix.users["anna"].pw_uid
    service.handle(protocol.Lock(name="anna"))
    assert code(ask(service, uid=uid)) == "locked"
    service.handle(protocol.Unlock(name="anna"))
    assert code(ask(service, uid=uid)) is None
    service.handle(protocol.Expire(name="anna", day=date(2026, 11, 20)))
    assert code(ask(service, uid=uid)) == "locked"
    service.handle(protocol.Expire(name="anna", day=None))
    unix.shadow["anna"] = "!$y$x:20000:0:99999:7:::"  # by an administrator of the machine
    assert code(ask(service, uid=uid)) == "locked"


def test_removed_accounts_are_unknown(service: Service, unix: Unix) -> None:
    uid = unix.users["anna"].pw_uid
    service.handle(protocol.Retire(name="anna"))
    assert code(ask(service, uid=uid)) == "unknown"
    unix.add_user("anna", uid)
    assert code(ask(service, uid=uid)) == "unknown"


def test_another_uid_of_the_same_name_is_nobody(service: Service, unix: Unix) -> None:
    before = unix.users["anna"].pw_uid
    unix.users["anna"].pw_uid = before + 7
    assert code(ask(service, uid=before + 7)) == "taken"
    assert code(ask(service, name="anna")) == "taken"


def test_a_home_that_is_not_there_is_refused(service: Service, unix: Unix) -> None:
    (unix.home_root / "anna").rename(unix.home_root / "gone")
    assert code(ask(service, uid=unix.users["anna"].pw_uid)) == "failed"
