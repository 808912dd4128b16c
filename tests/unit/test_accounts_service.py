"""What the accounts service does, on accounts that stand in for the machine's; the real ones are made on a host."""

import os
import pwd
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labstead import identity
from labstead.accounts import protocol
from labstead.accounts import service as service_module
from labstead.accounts.ledger import Ledger
from labstead.accounts.service import Service
from labstead.errors import AccountRefused
from labstead.settings import Accounts


class Machine:
    """Users and groups, as NSS and the account tools show them."""

    def __init__(self, home_root: Path) -> None:
        self.home_root = home_root
        self.users: dict[str, SimpleNamespace] = {}
        self.groups: dict[str, int] = {}
        self.shadow: dict[str, str] = {}
        self.die_before: str | None = None

    def user(self, name: str) -> Any:
        return self.users[name]

    def group(self, name: str) -> Any:
        return SimpleNamespace(gr_gid=self.groups[name])

    def add_user(self, name: str, uid: int, shell: str = "/bin/bash", home: Path | None = None) -> None:
        self.users[name] = SimpleNamespace(
            pw_name=name, pw_uid=uid, pw_gid=uid, pw_dir=str(home or self.home_root / name), pw_shell=shell, pw_gecos=""
        )
        self.shadow[name] = "*:20000:0:99999:7:::"

    def run(self, command: list[str]) -> None:
        if command[0] == self.die_before:
            raise KeyboardInterrupt
        name = command[-1]
        if command[0] == "groupadd":
            self.groups[name] = int(command[2])
        elif command[0] == "useradd":
            self.add_user(name, int(command[2]))
        elif command[0] == "usermod":
            fields = self.shadow[name].split(":")
            self.shadow[name] = ":".join([*fields[:6], command[2], *fields[7:]])

    def getent(self, command: list[str], **_kwargs: Any) -> Any:
        return SimpleNamespace(returncode=0, stdout=f"{command[-1]}:{self.shadow[command[-1]]}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    stand_in = Machine(tmp_path / "home")
    (tmp_path / "home").mkdir()
    (tmp_path / "skel").mkdir()
    (tmp_path / "skel" / ".profile").write_text("x")
    for module in (pwd, service_module.pwd):
        monkeypatch.setattr(module, "getpwnam", stand_in.user)
    monkeypatch.setattr(service_module.grp, "getgrnam", stand_in.group)
    monkeypatch.setattr(service_module, "_run", stand_in.run)
    monkeypatch.setattr(service_module, "_number_taken", lambda _: False)
    monkeypatch.setattr(subprocess, "run", stand_in.getent)
    monkeypatch.setattr(identity, "passwd_and_group", lambda _: ("passwd", "group"))
    monkeypatch.setattr(identity.os, "getgrouplist", lambda _name, gid: [gid, 27, 44, 30000])
    owners: dict[Path, int] = {}
    monkeypatch.setattr(service_module.os, "chown", lambda path, uid, _gid, **_kwargs: owners.update({path: uid}))
    return stand_in


@pytest.fixture
def service(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    settings = Accounts(home_root=machine.home_root, skeleton=tmp_path / "skel")
    made = Service(settings, Ledger(tmp_path / "ledger.sqlite"), tmp_path / "sessions")
    # Files of a test belong to who runs it; a home is taken to be of whom it is named for.
    real = Path.stat

    def stat(path: Path, **kwargs: Any) -> Any:
        found = real(path, **kwargs)
        owner = machine.users.get(path.name)
        uid = owner.pw_uid if owner and not (path / "stolen").exists() else found.st_uid
        return SimpleNamespace(st_uid=uid, st_mode=found.st_mode)

    monkeypatch.setattr(Path, "stat", stat)
    return made


def create(service: Service, name: str = "anna") -> protocol.Account:
    answer = service.handle(protocol.Create(name=name))
    assert isinstance(answer, protocol.Account)
    return answer


def open_session(service: Service, name: str = "anna") -> identity.Identity:
    answer = service.handle(protocol.OpenSession(name=name))
    assert isinstance(answer, identity.Identity)
    return answer


def test_an_account_is_made_once(service: Service, machine: Machine) -> None:
    first = create(service)
    assert (first.uid, first.gid, first.state, first.changed) == (20000, 20000, "active", True)
    assert (machine.home_root / "anna" / ".profile").is_file()
    assert create(service).changed is False


@pytest.mark.parametrize("tool", ["groupadd", "useradd"])
@pytest.mark.parametrize("again", [protocol.Create(name="anna"), protocol.Link(name="anna")])
def test_an_account_whose_making_was_cut_off_is_made_to_the_end(
    service: Service, machine: Machine, tool: str, again: protocol.Request
) -> None:
    machine.die_before = tool
    with pytest.raises(KeyboardInterrupt):
        create(service)
    machine.die_before = None
    account = service.handle(again)
    assert isinstance(account, protocol.Account)
    assert (account.uid, account.state) == (20000, "active")
    assert open_session(service).uid == 20000


def test_an_existing_user_or_group_is_left_alone(service: Service, machine: Machine) -> None:
    machine.add_user("ben", 1000)
    machine.groups["crew"] = 1001
    for name, kind in (("ben", "user"), ("crew", "group")):
        with pytest.raises(AccountRefused, match=f"is already a {kind} of this machine"):
            create(service, name)


def test_a_missing_home_of_an_account_is_not_made_anew(service: Service, machine: Machine) -> None:
    """Its file system is not mounted, most likely."""
    create(service)
    (machine.home_root / "anna").rename(machine.home_root / "elsewhere")
    for call in (create, open_session):
        with pytest.raises(AccountRefused, match="is its file system mounted"):
            call(service)
    assert not (machine.home_root / "anna").exists()


def test_somebody_elses_folder_does_not_become_a_home(service: Service, machine: Machine) -> None:
    (machine.home_root / "anna").mkdir()
    (machine.home_root / "anna" / "stolen").touch()
    with pytest.raises(AccountRefused, match="belongs to somebody else"):
        create(service)
    with pytest.raises(AccountRefused, match="not an account of the hub"):
        open_session(service)


def test_the_gate_can_see_the_files_of_a_session(service: Service, tmp_path: Path) -> None:
    create(service)
    before = os.umask(0o077)  # that of the service
    try:
        open_session(service)
    finally:
        os.umask(before)
    folder = tmp_path / "sessions" / "anna"
    assert os.lstat(folder).st_mode & 0o777 == 0o755
    assert [os.lstat(folder / name).st_mode & 0o777 for name in ("passwd", "group")] == [0o644, 0o644]


def test_a_session_has_groups_of_people_only(service: Service) -> None:
    create(service)
    assert open_session(service).groups == (20000, 30000)


@pytest.mark.parametrize(
    ("shadow", "locked"),
    [
        ("*:20000:0:99999:7:::", False),
        ("!:20000:0:99999:7:::", False),  # never had a password: keys only
        ("$y$j9T$x:20000:0:99999:7:::", False),
        ("!*:20000:0:99999:7:::", True),
        ("!$y$j9T$x:20000:0:99999:7:::", True),
        ("*:20000:0:99999:7::1:", True),  # expired on 2 January 1970
        ("*:20000:0:99999:7::99999:", False),
    ],
)
def test_a_locked_or_expired_account_has_no_session(
    service: Service, machine: Machine, tmp_path: Path, shadow: str, locked: bool
) -> None:
    create(service)
    open_session(service)
    machine.shadow["anna"] = shadow
    if locked:
        with pytest.raises(AccountRefused, match="is locked"):
            open_session(service)
    else:
        open_session(service)
    # Without the file the gate starts nothing.
    assert (tmp_path / "sessions" / "anna" / "passwd").exists() is not locked


def test_a_revoked_account_is_locked_until_it_is_approved_again(service: Service, machine: Machine) -> None:
    create(service)
    open_session(service)
    assert service.handle(protocol.Lock(name="anna")).changed is True  # type: ignore[union-attr]
    assert machine.shadow["anna"].split(":")[6] == "1"
    with pytest.raises(AccountRefused, match="is locked"):
        open_session(service)
    assert create(service).changed is True
    assert open_session(service).uid == 20000


def test_a_lock_of_the_machines_administrator_outlasts_approval(service: Service, machine: Machine) -> None:
    create(service)
    machine.shadow["anna"] = "!*:20000:0:99999:7:::"
    create(service)
    with pytest.raises(AccountRefused, match="is locked"):
        open_session(service)


def test_a_linked_account_is_not_locked_by_the_hub(service: Service, machine: Machine) -> None:
    machine.add_user("doro", 1000)
    service.handle(protocol.Link(name="doro"))
    before = machine.shadow["doro"]
    service.handle(protocol.Lock(name="doro"))
    assert machine.shadow["doro"] == before


def test_no_login_shell_no_session(service: Service, machine: Machine) -> None:
    create(service)
    machine.users["anna"].pw_shell = "/usr/sbin/nologin"
    with pytest.raises(AccountRefused, match="no login shell"):
        open_session(service)


@pytest.mark.parametrize(("uid", "words"), [(0, "system account"), (999, "system account"), (1000, None)])
def test_only_people_are_linked(service: Service, machine: Machine, uid: int, words: str | None) -> None:
    machine.add_user("doro", uid)
    if words is None:
        assert service.handle(protocol.Link(name="doro")).changed is True  # type: ignore[union-attr]
    else:
        with pytest.raises(AccountRefused, match=words):
            service.handle(protocol.Link(name="doro"))


def test_another_number_than_the_ledgers_is_refused(service: Service, machine: Machine) -> None:
    create(service)
    machine.users["anna"].pw_uid = 20009
    with pytest.raises(AccountRefused, match="uid 20009 here but 20000 in the ledger"):
        open_session(service)
