"""What the accounts service does, on accounts that stand in for the machine's; the real ones are made on a host."""

import dataclasses
import errno
import os
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from labstead import identity
from labstead.accounts import machine, pam, protocol
from labstead.accounts.ledger import Ledger
from labstead.accounts.service import Service
from labstead.errors import AccountRefused, Refusal
from labstead.settings import Accounts
from support.unix import Unix

TODAY = date(2026, 11, 20)
DAY = timedelta(days=1)


@pytest.fixture
def unix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unix:
    stand_in = Unix(tmp_path / "home")
    for folder in ("home", "skel", "groups"):
        (tmp_path / folder).mkdir()
    (tmp_path / "skel" / ".profile").write_text("x")
    stand_in.stand_in(monkeypatch)
    return stand_in


@dataclasses.dataclass
class Clock:
    """What day it is."""

    day: date = TODAY

    def __call__(self) -> date:
        return self.day


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(unix: Unix, tmp_path: Path, clock: Clock) -> Callable[..., Service]:
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def service(**settings: Any) -> Service:
        known = Accounts(
            **{
                "home_root": unix.home_root,
                "group_root": tmp_path / "groups",
                "skeleton": tmp_path / "skel",
                "doors": ("native",),
                **settings,
            }
        )
        return Service(known, ledger, tmp_path / "sessions", clock)

    return service


@pytest.fixture
def service(make: Callable[..., Service]) -> Service:
    return make()


def ask(service: Service, request: protocol.Request) -> protocol.Account:
    answer = service.handle(request)
    assert isinstance(answer, protocol.Account)
    return answer


def create(service: Service, name: str = "anna") -> protocol.Account:
    return ask(service, protocol.Create(name=name))


def show(service: Service, name: str = "anna") -> protocol.Account:
    answer = service.handle(protocol.Show(name=name))
    assert isinstance(answer, protocol.Accounts)
    return answer.accounts[0]


def open_session(service: Service, name: str = "anna") -> identity.Identity:
    answer = service.handle(protocol.OpenSession(name=name))
    assert isinstance(answer, identity.Identity)
    return answer


def refused(service: Service, request: protocol.Request, code: Refusal, words: str | None = None) -> None:
    with pytest.raises(AccountRefused, match=words) as caught:
        service.handle(request)
    assert caught.value.code is code


# --- making


@pytest.mark.parametrize("was_locked", [False, True])
def test_an_account_of_an_older_ledger_joins_the_group_of_people(unix: Unix, was_locked: bool) -> None:
    unix.add_group(machine.PEOPLE_GROUP, 998)
    unix.add_user("anna", 20000)
    if was_locked:
        unix.run(["usermod", "--expiredate", machine.EXPIRED, "--", "anna"])
    assert machine.adopt("anna") is was_locked
    assert unix.groups[machine.PEOPLE_GROUP].gr_mem == ["anna"]


def test_an_account_is_made_once(service: Service, unix: Unix) -> None:
    first = create(service)
    assert (first.uid, first.gid, first.state, first.door, first.changed) == (20000, 20000, "active", "native", True)
    assert (unix.home_root / "anna" / ".profile").is_file()
    assert create(service).changed is False


@pytest.mark.parametrize("tool", ["groupadd", "useradd"])
@pytest.mark.parametrize("again", [protocol.Create(name="anna"), protocol.Add(name="anna"), protocol.Link(name="anna")])
def test_an_account_whose_making_was_cut_off_is_made_to_the_end(
    service: Service, unix: Unix, tool: str, again: protocol.Request
) -> None:
    unix.die_before = tool
    with pytest.raises(KeyboardInterrupt):
        create(service)
    unix.die_before = None
    account = ask(service, again)
    assert (account.uid, account.state) == (20000, "active")
    assert open_session(service).uid == 20000


def test_an_existing_user_or_group_is_left_alone(service: Service, unix: Unix) -> None:
    unix.add_user("ben", 1000)
    unix.add_group("crew", 1001)
    for name, kind in (("ben", "user"), ("crew", "group")):
        for request in (protocol.Create(name=name), protocol.Add(name=name)):
            refused(service, request, Refusal.TAKEN, f"is already a {kind} of this machine")


def test_nobody_gets_the_groups_of_a_name_that_somebody_left_behind(service: Service, unix: Unix) -> None:
    unix.add_group("docker", 998, "anna")
    answer = service.handle(protocol.Check(name="anna"))
    assert isinstance(answer, protocol.Problem)
    assert "is taken" in str(answer.problem)
    refused(service, protocol.Create(name="anna"), Refusal.TAKEN, "named as a member of docker")


@pytest.mark.parametrize("door", ["native", "oidc"])
def test_an_approval_does_not_open_an_account_of_another_door_or_the_machines(
    make: Callable[..., Service], unix: Unix, door: str
) -> None:
    service = make(doors=("oidc", "native"))
    unix.add_user("doro", 1000)
    if door == "oidc":
        service.handle(protocol.Add(name="anna", door="oidc"))
    else:
        service.handle(protocol.Link(name="doro"))
    refused(service, protocol.Create(name="anna" if door == "oidc" else "doro"), Refusal.TAKEN)


def test_a_new_account_does_not_inherit_the_groups_of_a_name_that_is_gone(service: Service, unix: Unix) -> None:
    """Whom only the machine knew and who was deleted there leaves no line in /etc/group, but one in the ledger."""
    unix.add_user("anna", 1000)
    unix.add_user("ben", 1001)
    service.handle(protocol.SetGroup(name="ocean", declared=("anna", "ben"), managers=("anna",)))
    del unix.users["anna"]
    unix.groups["ocean"].gr_mem.remove("anna")
    create(service)
    group = service.handle(protocol.SetGroup(name="ocean"))
    assert isinstance(group, protocol.Group)
    assert (group.members, group.managers) == (("ben",), ())
    assert unix.groups["ocean"].gr_mem == ["ben"]


def test_a_missing_home_of_an_account_is_not_made_anew(service: Service, unix: Unix) -> None:
    """Its file system is not mounted, most likely."""
    create(service)
    (unix.home_root / "anna").rename(unix.home_root / "elsewhere")
    for call in (create, open_session):
        with pytest.raises(AccountRefused, match="is its file system mounted"):
            call(service)
    assert not (unix.home_root / "anna").exists()


def test_somebody_elses_folder_does_not_become_a_home(service: Service, unix: Unix) -> None:
    (unix.home_root / "anna").mkdir()
    with pytest.raises(AccountRefused, match="belongs to somebody else"):
        create(service)
    assert "anna" not in unix.users
    with pytest.raises(AccountRefused, match="not an account of the hub"):
        open_session(service)


def test_details_go_to_ledger_and_account_and_change_once(service: Service, unix: Unix) -> None:
    added = protocol.Add(name="anna", full_name="Anna Ärlig", email="anna@example.org")
    assert ask(service, added).changed is True
    assert ask(service, added).changed is False
    assert unix.users["anna"].pw_gecos == "Anna Ärlig"
    assert ask(service, protocol.Add(name="anna")).full_name == "Anna Ärlig"
    assert show(service).email == "anna@example.org"


@pytest.mark.parametrize("details", [{"full_name": "a:b"}, {"full_name": "a\nb"}, {"email": "no address"}])
def test_details_that_would_break_passwd_are_refused(service: Service, details: dict[str, str]) -> None:
    refused(service, protocol.Add(name="anna", **details), Refusal.BAD_NAME, "cannot be the")
    refused(service, protocol.Show(name="anna"), Refusal.UNKNOWN)


def test_an_account_keeps_its_door(make: Callable[..., Service]) -> None:
    service = make(doors=("oidc", "native"))
    create(service)
    refused(service, protocol.Add(name="anna", door="oidc"), Refusal.TAKEN, "door native")
    refused(service, protocol.Link(name="anna", door="oidc"), Refusal.TAKEN, "door native")
    refused(service, protocol.Add(name="ben", door="pam"), Refusal.NOT_ALLOWED, "labstead user link ben")


def test_root_gives_a_linked_account_another_door(make: Callable[..., Service], unix: Unix) -> None:
    service = make(doors=("oidc", "native"), oidc_accounts="existing")
    unix.add_user("doro", 5001)
    ask(service, arrive("doro"))
    assert ask(service, protocol.Link(name="doro", door="native")).changed is True
    refused(service, arrive("doro"), Refusal.NOT_ALLOWED)
    ask(service, protocol.Link(name="doro", door="oidc"))
    assert ask(service, arrive("doro", "https://id.example.org 2")).uid == 5001


def test_no_account_for_a_door_that_the_hub_does_not_have(service: Service) -> None:
    refused(service, protocol.Add(name="anna", door="oidc"), Refusal.NOT_ALLOWED, "no door oidc")


# --- sessions


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


def test_a_session_has_groups_of_people_only(service: Service, unix: Unix) -> None:
    create(service)
    unix.add_group("docker", 998, "anna")
    unix.add_group("sudo", 27, "anna")
    unix.add_group("ldapcrew", 30000, "anna")
    assert open_session(service).groups == (20000, 30000)


def test_a_session_names_the_hubs_people_and_groups_but_not_who_is_in_them(
    service: Service, unix: Unix, tmp_path: Path
) -> None:
    unix.add_user("root", 0)
    unix.add_user("daemon7", 120)
    unix.add_user("colleague", 40000)
    unix.add_user("stranger", 40001)
    create(service)
    ask(service, protocol.Add(name="ben", full_name="Ben Secret"))
    unix.add_group("sudo", 27, "ben")
    create(service, "carla")
    unix.add_group("ldapcrew", 30000, "anna", "colleague")
    service.handle(protocol.SetGroup(name="ocean", declared=("anna", "ben")))
    service.handle(protocol.SetGroup(name="ice", declared=("carla",)))
    open_session(service)
    passwd, group = ((tmp_path / "sessions" / "anna" / name).read_text().splitlines() for name in ("passwd", "group"))
    assert [line.split(":")[0] for line in passwd] == ["root", "ben", "carla", "colleague", "anna"]
    assert "Secret" not in "".join(passwd)
    assert f"ben:x:20001:20001::{unix.home_root}/ben:/bin/sh" in passwd
    assert "ocean:x:20003:anna,ben" in group
    assert "ice:x:20004:" in group
    assert "ldapcrew:x:30000:anna,colleague" in group
    assert "carla:x:20002:" in group
    assert "sudo:x:27:" in group


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
def test_a_locked_or_expired_unix_account_has_no_session(
    service: Service, unix: Unix, tmp_path: Path, shadow: str, locked: bool
) -> None:
    create(service)
    open_session(service)
    unix.shadow["anna"] = shadow
    if locked:
        with pytest.raises(AccountRefused, match="is locked"):
            open_session(service)
    else:
        open_session(service)
    # Without the file the gate starts nothing.
    assert (tmp_path / "sessions" / "anna" / "passwd").exists() is not locked


def test_no_login_shell_no_session(service: Service, unix: Unix) -> None:
    create(service)
    unix.users["anna"].pw_shell = "/usr/sbin/nologin"
    with pytest.raises(AccountRefused, match="no login shell"):
        open_session(service)


def test_another_number_than_the_ledgers_is_refused(service: Service, unix: Unix) -> None:
    create(service)
    unix.users["anna"].pw_uid = 20009
    with pytest.raises(AccountRefused, match="uid 20009 here but 20000 in the ledger"):
        open_session(service)
    for request in (protocol.Lock(name="anna"), protocol.Create(name="anna")):
        refused(service, request, Refusal.TAKEN)
    # The way out: the hub forgets its account, and whoever has the name now is left alone.
    ask(service, protocol.Retire(name="anna"))
    assert unix.shadow["anna"].split(":")[6] == ""
    assert unix.users["anna"].pw_uid == 20009


# --- closing and opening


def test_a_locked_account_stays_closed_until_it_is_opened(service: Service, unix: Unix) -> None:
    create(service)
    open_session(service)
    assert ask(service, protocol.Lock(name="anna")).changed is True
    assert ask(service, protocol.Lock(name="anna")).changed is False
    assert unix.shadow["anna"].split(":")[6] == "1"
    with pytest.raises(AccountRefused, match="is locked"):
        open_session(service)
    assert ask(service, protocol.Unlock(name="anna")).changed is True
    assert open_session(service).uid == 20000
    ask(service, protocol.Lock(name="anna"))
    assert create(service).changed is True  # approved again
    assert open_session(service).uid == 20000


def test_adding_details_does_not_open_what_is_locked(service: Service) -> None:
    create(service)
    service.handle(protocol.Lock(name="anna"))
    assert ask(service, protocol.Add(name="anna", email="anna@example.org")).locked == "locked"
    assert ask(service, protocol.Link(name="anna")).locked == "locked"


def test_a_lock_of_the_machines_administrator_outlasts_approval(service: Service, unix: Unix) -> None:
    create(service)
    unix.shadow["anna"] = "!*:20000:0:99999:7:::"
    create(service)
    with pytest.raises(AccountRefused, match="is locked"):
        open_session(service)


def test_a_linked_account_is_locked_in_the_ledger_alone(service: Service, unix: Unix) -> None:
    unix.add_user("doro", 1000)
    service.handle(protocol.Link(name="doro"))
    before = unix.shadow["doro"]
    assert ask(service, protocol.Lock(name="doro")).locked == "locked"
    assert unix.shadow["doro"] == before
    with pytest.raises(AccountRefused, match="is locked"):
        open_session(service, "doro")


def test_an_account_is_closed_on_its_day_even_before_anybody_tidies(service: Service, unix: Unix, clock: Clock) -> None:
    create(service)
    assert ask(service, protocol.Expire(name="anna", day=TODAY + DAY)).locked == ""
    open_session(service)
    clock.day += DAY
    assert show(service).locked == "expired"
    with pytest.raises(AccountRefused, match="expired on 2026-11-21"):
        open_session(service)
    assert unix.shadow["anna"].split(":")[6] == ""
    # Which is what tidying does.
    tidied = ask(service, protocol.Expire(name="anna", day=TODAY + DAY))
    assert (tidied.locked, tidied.changed) == ("expired", True)
    assert unix.shadow["anna"].split(":")[6] == "1"
    assert ask(service, protocol.Expire(name="anna", day=TODAY + DAY)).changed is False
    for request in (protocol.Unlock(name="anna"), protocol.Create(name="anna")):
        refused(service, request, Refusal.LOCKED, "labstead user expire anna never")
    reopened = ask(service, protocol.Expire(name="anna", day=None))
    assert (reopened.locked, reopened.changed) == ("", True)
    open_session(service)


def test_another_day_does_not_open_what_an_administrator_locked(service: Service) -> None:
    create(service)
    service.handle(protocol.Lock(name="anna"))
    assert ask(service, protocol.Expire(name="anna", day=TODAY)).locked == "locked"
    assert ask(service, protocol.Expire(name="anna", day=None)).locked == "locked"


# --- linking


@pytest.mark.parametrize(("uid", "words"), [(0, "system account"), (999, "system account"), (1000, None)])
def test_only_people_are_linked(service: Service, unix: Unix, uid: int, words: str | None) -> None:
    unix.add_user("doro", uid)
    if words is None:
        assert ask(service, protocol.Link(name="doro")).changed is True
        assert ask(service, protocol.Link(name="doro")).changed is False
    else:
        refused(service, protocol.Link(name="doro"), Refusal.NOT_ALLOWED, words)


@pytest.mark.parametrize("policy", ["make", "require"])
def test_a_linked_account_without_a_home_gets_one_by_policy(
    make: Callable[..., Service], unix: Unix, policy: str
) -> None:
    service = make(linked_homes=policy)
    unix.add_user("doro", 1000)
    unix.add_user("far", 1001, home=unix.home_root.parent / "elsewhere" / "far")
    for name in ("doro", "far"):
        service.handle(protocol.Link(name=name))
    assert (unix.home_root / "doro").is_dir() is (policy == "make")
    assert not (unix.home_root.parent / "elsewhere").exists()


@pytest.mark.parametrize("later", [False, True])
def test_nobody_is_linked_with_the_private_group_of_somebody_else(service: Service, unix: Unix, later: bool) -> None:
    create(service)
    unix.add_user("doro", 5001, gid=5001 if later else 20000)
    if not later:
        refused(service, protocol.Link(name="doro"), Refusal.TAKEN, "gid 20000 of doro")
        return
    service.handle(protocol.Link(name="doro"))
    unix.users["doro"].pw_gid = 20000
    refused(service, protocol.OpenSession(name="doro"), Refusal.TAKEN, "gid 20000 of doro")


# --- removing


def test_a_removed_name_inherits_nothing(service: Service, unix: Unix, tmp_path: Path) -> None:
    create(service)
    create(service, "ben")
    service.handle(protocol.SetGroup(name="ocean", declared=("anna",), managers=("anna",)))
    (unix.home_root / "anna" / "secret").write_text("x")
    open_session(service)
    assert ask(service, protocol.Retire(name="anna")).state == "retired"
    assert "anna" not in unix.users
    assert "anna" not in unix.groups
    assert not (tmp_path / "sessions" / "anna").exists()
    assert (unix.home_root / ".removed-20000" / "secret").exists()
    again = create(service)
    assert again.uid not in (20000, 20001)
    assert not (unix.home_root / "anna" / "secret").exists()
    assert open_session(service).groups == (again.uid,)
    groups = service.handle(protocol.ShowGroups())
    assert isinstance(groups, protocol.Groups)
    assert (groups.groups[0].members, groups.groups[0].managers) == ((), ())


def test_a_home_that_is_a_mount_point_keeps_its_owner(
    service: Service, unix: Unix, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(service)
    with monkeypatch.context() as patched:

        def busy(*_: object) -> None:
            raise OSError(errno.EBUSY, "busy")

        patched.setattr(Path, "rename", busy)
        refused(service, protocol.Retire(name="anna"), Refusal.FAILED, "something is mounted")
    assert "anna" in unix.users
    assert show(service).locked == "locked"
    assert ask(service, protocol.Retire(name="anna")).state == "retired"
    assert "anna" not in unix.users


def test_an_account_in_use_is_not_removed(service: Service, unix: Unix) -> None:
    create(service)
    unix.running[20000] = (4711,)
    refused(service, protocol.Retire(name="anna"), Refusal.FAILED, r"1 processes of anna still run \(4711\)")
    assert show(service).locked == ""


def test_who_has_no_home_at_this_moment_is_not_removed_unless_it_is_asked_for(service: Service, unix: Unix) -> None:
    """Its file system is not mounted, most likely; when it is back, the home would be nobody's."""
    create(service)
    home = unix.home_root / "anna"
    home.rename(unix.home_root / "away")
    refused(service, protocol.Retire(name="anna"), Refusal.FAILED, "is missing; is its file system mounted")
    assert show(service).locked == ""
    assert "anna" in unix.users
    assert ask(service, protocol.Retire(name="anna", home_may_be_missing=True)).state == "retired"


def test_who_was_never_made_whole_is_removed_without_a_home(service: Service, unix: Unix) -> None:
    unix.die_before = "useradd"
    with pytest.raises(KeyboardInterrupt):
        create(service)
    unix.die_before = None
    assert not (unix.home_root / "anna").exists()
    assert ask(service, protocol.Retire(name="anna")).state == "retired"


@pytest.mark.parametrize("tool", ["usermod", "userdel"])
def test_a_removal_that_was_cut_off_goes_on(service: Service, unix: Unix, tool: str) -> None:
    create(service)
    unix.die_before = tool
    with pytest.raises(KeyboardInterrupt):
        service.handle(protocol.Retire(name="anna"))
    unix.die_before = None
    with pytest.raises(AccountRefused, match="is locked"):
        open_session(service)
    service.handle(protocol.Retire(name="anna"))
    assert (unix.home_root / ".removed-20000").is_dir()
    removed = service.handle(protocol.Show(retired=True))
    assert isinstance(removed, protocol.Accounts)
    assert [(account.name, account.uid) for account in removed.accounts] == [("anna", 20000)]


def test_a_removal_that_was_cut_off_at_its_end_goes_on(
    service: Service, unix: Unix, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(_name: str) -> None:
        raise KeyboardInterrupt

    create(service)
    with monkeypatch.context() as patch:
        patch.setattr(service._ledger, "retire", cut_off)
        with pytest.raises(KeyboardInterrupt):
            service.handle(protocol.Retire(name="anna"))
    assert (unix.home_root / ".removed-20000").is_dir()
    assert ask(service, protocol.Retire(name="anna")).state == "retired"
    # Somebody else's folder of that name is not taken for the home.
    create(service)
    (unix.home_root / "anna").rename(unix.home_root / "moved")
    (unix.home_root / "anna").mkdir()
    ask(service, protocol.Retire(name="anna"))
    assert (unix.home_root / "anna").is_dir()


def test_a_linked_account_keeps_account_and_home_and_can_be_linked_again(service: Service, unix: Unix) -> None:
    unix.add_user("doro", 1000)
    service.handle(protocol.Link(name="doro"))
    service.handle(protocol.SetGroup(name="ocean", declared=("doro",)))
    assert unix.groups["ocean"].gr_mem == ["doro"]
    service.handle(protocol.Retire(name="doro"))
    assert "doro" in unix.users
    assert (unix.home_root / "doro").is_dir()
    assert unix.groups["ocean"].gr_mem == []
    again = ask(service, protocol.Link(name="doro"))
    assert (again.uid, again.state) == (1000, "active")
    open_session(service, "doro")


def test_the_canary_is_the_self_checks(service: Service, unix: Unix) -> None:
    first = ask(service, protocol.MakeCanary())
    for request in (
        protocol.Retire(name=first.name),
        protocol.Expire(name=first.name, day=TODAY),
        protocol.Lock(name=first.name),
        protocol.Link(name=first.name),
        protocol.Create(name=first.name),
    ):
        with pytest.raises(AccountRefused):
            service.handle(request)
    service.handle(protocol.RemoveCanary())
    assert first.name not in unix.users
    assert not (unix.home_root / first.name).exists()
    assert ask(service, protocol.MakeCanary()).uid == first.uid


# --- the door pam


@pytest.fixture
def pam_service(make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> Service:
    def check(_name: str, password: str) -> None:
        if password != "right":
            raise AccountRefused(Refusal.WRONG_PASSWORD, "Wrong name or password.")

    monkeypatch.setattr(pam, "check", check)
    return make(doors=("pam", "native"))


def with_password(name: str, *, right: bool = True) -> protocol.CheckPassword:
    return protocol.CheckPassword(name=name, password="right" if right else "wrong")


def test_the_first_right_password_takes_in_an_account(pam_service: Service, unix: Unix) -> None:
    unix.add_user("doro", 5001)
    refused(pam_service, with_password("doro", right=False), Refusal.WRONG_PASSWORD)
    refused(pam_service, protocol.Show(name="doro"), Refusal.UNKNOWN)
    first = ask(pam_service, with_password("doro"))
    assert (first.uid, first.kind, first.door, first.changed) == (5001, "linked", "pam", True)
    assert ask(pam_service, with_password("doro")).changed is False
    assert open_session(pam_service, "doro").uid == 5001


@pytest.mark.parametrize(
    ("name", "uid", "code"),
    [
        ("root", 0, Refusal.BAD_NAME),
        ("toor", 0, Refusal.BAD_NAME),
        ("backdoor", 0, Refusal.NOT_ALLOWED),
        ("service", 999, Refusal.NOT_ALLOWED),
        ("Doro", 5001, Refusal.BAD_NAME),
        ("../doro", 5001, Refusal.BAD_NAME),
        ("doro@other", 5001, Refusal.BAD_NAME),
        ("labstead-canary", 5001, Refusal.BAD_NAME),
        ("nobody-knows-me", None, Refusal.UNKNOWN),
    ],
)
def test_pam_cannot_make_somebody_else_of_you(
    pam_service: Service, unix: Unix, name: str, uid: int | None, code: Refusal
) -> None:
    if uid is not None:
        unix.add_user(name, uid)
    refused(pam_service, with_password(name), code)
    refused(pam_service, protocol.Show(name=name), Refusal.UNKNOWN)


def test_a_directorys_bert_is_not_the_guest_bert(pam_service: Service) -> None:
    create(pam_service, "bert")
    refused(pam_service, with_password("bert"), Refusal.NOT_ALLOWED, "comes in another way")


def test_whoever_was_linked_with_a_password_of_the_hub_does_not_come_in_through_pam(
    pam_service: Service, unix: Unix
) -> None:
    unix.add_user("doro", 5001)
    pam_service.handle(protocol.Link(name="doro", door="native"))
    refused(pam_service, with_password("doro"), Refusal.NOT_ALLOWED)


def test_a_name_that_the_directory_gave_to_somebody_else_does_not_come_in(pam_service: Service, unix: Unix) -> None:
    unix.add_user("doro", 5001)
    pam_service.handle(with_password("doro"))
    unix.users["doro"].pw_uid = 5077
    refused(pam_service, with_password("doro"), Refusal.TAKEN)


def test_no_login_shell_no_log_in(pam_service: Service, unix: Unix) -> None:
    unix.add_user("doro", 5001)
    pam_service.handle(with_password("doro"))
    unix.users["doro"].pw_shell = "/usr/sbin/nologin"
    refused(pam_service, with_password("doro"), Refusal.LOCKED, "no login shell")


def test_pam_does_not_open_what_the_hub_closed(pam_service: Service, unix: Unix) -> None:
    unix.add_user("doro", 5001)
    pam_service.handle(with_password("doro"))
    pam_service.handle(protocol.Lock(name="doro"))
    refused(pam_service, with_password("doro"), Refusal.LOCKED)
    refused(pam_service, with_password("doro", right=False), Refusal.WRONG_PASSWORD)
    pam_service.handle(protocol.Retire(name="doro"))
    refused(pam_service, with_password("doro"), Refusal.NOT_ALLOWED, "was removed")
    pam_service.handle(protocol.Link(name="doro", door="pam"))
    assert ask(pam_service, with_password("doro")).uid == 5001


def test_pam_is_not_asked_where_the_hub_has_no_such_door(service: Service, unix: Unix) -> None:
    unix.add_user("doro", 5001)
    refused(service, with_password("doro"), Refusal.NOT_ALLOWED, "no door pam")


def test_a_home_that_must_be_there_is_not_made_by_a_log_in(
    make: Callable[..., Service], pam_service: Service, unix: Unix
) -> None:
    unix.add_user("doro", 5001)
    refused(make(doors=("pam",), linked_homes="require"), with_password("doro"), Refusal.FAILED, "is missing")
    refused(pam_service, protocol.Show(name="doro"), Refusal.UNKNOWN)


# --- the door oidc


def arrive(name: str, subject: str = "https://id.example.org 1", **claims: str) -> protocol.Arrive:
    return protocol.Arrive(name=name, subject=subject, **claims)


@pytest.fixture
def oidc_service(make: Callable[..., Service]) -> Service:
    return make(doors=("oidc", "native"))


def test_the_first_arrival_makes_an_account_and_binds_it(oidc_service: Service) -> None:
    first = ask(oidc_service, arrive("anna", full_name="Anna: Ärlig\n,", email="anna@example.org"))
    assert (first.kind, first.door, first.uid, first.full_name) == ("created", "oidc", 20000, "Anna Ärlig")
    assert ask(oidc_service, arrive("anna", full_name="Other")).full_name == "Anna Ärlig"
    assert ask(oidc_service, arrive("anna")).changed is False
    refused(oidc_service, arrive("anna", "https://id.example.org 2"), Refusal.NOT_ALLOWED, "somebody else")
    refused(oidc_service, arrive("ben"), Refusal.NOT_ALLOWED, "come in as anna")


@pytest.mark.parametrize("policy", ["create", "existing"])
@pytest.mark.parametrize("name", ["root", "../anna", "anna/x", "Anna", "_apt", "labstead-canary", "", "a" * 33])
def test_a_claim_that_is_no_persons_name_is_refused(
    make: Callable[..., Service], unix: Unix, policy: str, name: str
) -> None:
    unix.add_user(name, 0)
    refused(make(doors=("oidc",), oidc_accounts=policy), arrive(name), Refusal.BAD_NAME)


def test_a_provider_does_not_give_away_accounts_of_the_machine_or_of_guests(oidc_service: Service, unix: Unix) -> None:
    unix.add_user("doro", 1000)
    refused(oidc_service, arrive("doro"), Refusal.TAKEN, "already a user")
    create(oidc_service, "bert")
    refused(oidc_service, arrive("bert"), Refusal.NOT_ALLOWED, "another way")


def test_an_account_that_was_made_for_somebody_waits_for_them(oidc_service: Service) -> None:
    ask(oidc_service, protocol.Add(name="anna", door="oidc", full_name="Anna"))
    first = ask(oidc_service, arrive("anna"))
    assert (first.uid, first.full_name, first.changed) == (20000, "Anna", True)
    refused(oidc_service, arrive("anna", "https://id.example.org 2"), Refusal.NOT_ALLOWED)


@pytest.mark.parametrize(
    ("uid", "group", "code"),
    [
        (5001, None, None),
        (999, None, Refusal.NOT_ALLOWED),
        (5001, "docker", Refusal.NOT_ALLOWED),
        (5001, "sudo", Refusal.NOT_ALLOWED),
        (None, None, Refusal.UNKNOWN),
    ],
)
def test_existing_accounts_are_taken_in_but_not_those_that_can_become_root(
    make: Callable[..., Service], unix: Unix, uid: int | None, group: str | None, code: Refusal | None
) -> None:
    service = make(doors=("oidc",), oidc_accounts="existing")
    if uid is not None:
        unix.add_user("doro", uid)
    if group is not None:
        unix.add_group(group, 27, "doro")
    if code is None:
        assert ask(service, arrive("doro")).kind == "linked"
        assert (unix.home_root / "doro").is_dir()
        return
    refused(service, arrive("doro"), code)
    if group is not None:  # an administrator may
        service.handle(protocol.Link(name="doro", door="oidc"))
        assert ask(service, arrive("doro")).uid == uid


def test_whoever_was_removed_does_not_come_back_by_logging_in(oidc_service: Service) -> None:
    ask(oidc_service, arrive("anna"))
    oidc_service.handle(protocol.Lock(name="anna"))
    refused(oidc_service, arrive("anna"), Refusal.LOCKED)
    oidc_service.handle(protocol.Retire(name="anna"))
    refused(oidc_service, arrive("anna"), Refusal.NOT_ALLOWED, "was removed")
    ask(oidc_service, protocol.Add(name="anna", door="oidc"))
    assert ask(oidc_service, arrive("anna")).uid == 20001


def test_a_locked_account_is_not_bound(oidc_service: Service) -> None:
    ask(oidc_service, protocol.Add(name="anna", door="oidc"))
    oidc_service.handle(protocol.Lock(name="anna"))
    refused(oidc_service, arrive("anna"), Refusal.LOCKED)
    oidc_service.handle(protocol.Unlock(name="anna"))
    assert ask(oidc_service, arrive("anna", "https://id.example.org 2")).changed is True
