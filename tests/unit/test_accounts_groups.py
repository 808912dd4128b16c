"""Groups with folders, on groups that stand in for the machine's; the real ones are made on a host."""

from pathlib import Path

import pytest

from labstead.accounts import groups, protocol
from labstead.accounts.ledger import Ledger
from labstead.accounts.service import Service
from labstead.errors import AccountRefused, Refusal
from labstead.settings import Accounts
from support.unix import Unix


@pytest.fixture
def unix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unix:
    stand_in = Unix(tmp_path / "home")
    for folder in ("home", "skel", "groups"):
        (tmp_path / folder).mkdir()
    stand_in.stand_in(monkeypatch)
    return stand_in


@pytest.fixture
def service(unix: Unix, tmp_path: Path) -> Service:
    settings = Accounts(home_root=unix.home_root, group_root=tmp_path / "groups", skeleton=tmp_path / "skel")
    made = Service(settings, Ledger(tmp_path / "ledger.sqlite"), tmp_path / "sessions")
    for name in ("anna", "ben", "carla"):
        made.handle(protocol.Create(name=name))
    return made


def set_group(service: Service, name: str = "ocean", **what: object) -> protocol.Group:
    answer = service.handle(protocol.SetGroup.model_validate({"name": name, **what}))
    assert isinstance(answer, protocol.Group)
    return answer


def change(service: Service, person: str | None = None, is_root: bool = True, **what: object) -> protocol.Group:
    request = protocol.ChangeMembers.model_validate({"group": "ocean", **what})
    answer = service.handle(request, person, is_root)
    assert isinstance(answer, protocol.Group)
    return answer


def test_a_group_is_made_with_its_folder_once(service: Service, unix: Unix, tmp_path: Path) -> None:
    first = set_group(service, declared=("ben", "anna"), managers=("carla",))
    assert (first.gid, first.kind, first.members, first.managers, first.changed) == (
        *(20003, "created", ("anna", "ben"), ("carla",), True),
    )
    assert unix.groups["ocean"].gr_mem == ["anna", "ben"]
    folder = tmp_path / "groups" / "ocean"
    assert first.folder == str(folder)
    assert folder.lstat().st_mode & 0o7777 == 0o2770
    ran = len(unix.ran)
    assert set_group(service, declared=("ben", "anna"), managers=("carla",)).changed is False
    assert set_group(service).changed is False
    assert len(unix.ran) == ran


def test_numbers_of_groups_and_people_are_one_pool(service: Service) -> None:
    assert set_group(service).gid == 20003
    account = service.handle(protocol.Create(name="doro"))
    assert isinstance(account, protocol.Account)
    assert account.uid == 20004
    service.handle(protocol.RemoveGroup(name="ocean"))
    assert set_group(service).gid == 20005


@pytest.mark.parametrize("tool", ["groupadd", "gpasswd"])
def test_a_group_whose_making_was_cut_off_is_made_to_the_end(
    service: Service, unix: Unix, tmp_path: Path, tool: str
) -> None:
    unix.die_before = tool
    with pytest.raises(KeyboardInterrupt):
        set_group(service, declared=("anna",))
    unix.die_before = None
    assert set_group(service, declared=("anna",)).changed is True
    assert unix.groups["ocean"].gr_mem == ["anna"]
    assert (tmp_path / "groups" / "ocean").is_dir()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Ocean", Refusal.BAD_NAME),
        ("sudo", Refusal.BAD_NAME),
        ("../x", Refusal.BAD_NAME),
        ("anna", Refusal.TAKEN),
        ("crew", Refusal.TAKEN),
        ("old", Refusal.TAKEN),
    ],
)
def test_names_that_mean_something_are_no_groups(
    service: Service, unix: Unix, tmp_path: Path, name: str, code: Refusal
) -> None:
    unix.add_group("crew", 1500)
    (tmp_path / "groups" / "old").mkdir()
    with pytest.raises(AccountRefused) as caught:
        set_group(service, name)
    assert caught.value.code is code
    with pytest.raises(AccountRefused):
        service.handle(protocol.ShowGroups(name=name))


def test_members_must_be_people_and_a_mistake_changes_nothing(service: Service, unix: Unix) -> None:
    unix.add_user("daemon7", 120)
    with pytest.raises(AccountRefused, match="no people of this machine: daemon7, typo"):
        set_group(service, declared=("anna", "typo", "daemon7"))
    assert "ocean" not in unix.groups


def test_a_member_has_the_inventory_or_somebody_else_to_thank(service: Service, unix: Unix) -> None:
    set_group(service, declared=("anna",), managers=("carla",))
    change(service, "carla", is_root=False, add=("anna", "ben"))
    assert set_group(service, declared=()).members == ("anna", "ben")  # both were added, too
    assert set_group(service, declared=("carla",)).declared == ("carla",)
    assert set_group(service, declared=()).members == ("anna", "ben")
    assert change(service, remove=("ben",)).members == ("anna",)
    assert unix.groups["ocean"].gr_mem == ["anna"]


def test_who_is_declared_stays(service: Service) -> None:
    set_group(service, declared=("anna",), managers=("carla",))
    for person in (None, "carla"):
        with pytest.raises(AccountRefused, match="site's settings say that they are in ocean: anna"):
            change(service, person, remove=("anna",))


def test_managers_and_nobody_else_change_members(service: Service, unix: Unix) -> None:
    set_group(service, managers=("carla",))
    unix.add_user("ldapuser", 40000)
    assert change(service, is_root=False, manager="carla", add=("ben",)).members == ("ben",)
    assert change(service, "carla", is_root=False, remove=("ben",)).members == ()
    for person, is_root, manager in (
        ("ben", False, None),
        ("ben", False, "carla"),
        (None, False, "ben"),
        (None, False, None),
    ):
        with pytest.raises(AccountRefused) as caught:
            change(service, person, is_root=is_root, manager=manager, add=("anna",))
        assert caught.value.code is Refusal.NOT_ALLOWED
    with pytest.raises(AccountRefused, match="no people of this machine: typo"):
        change(service, "carla", is_root=False, add=("typo",))
    assert change(service, "carla", is_root=False, add=("ldapuser",)).members == ("ldapuser",)


def test_a_locked_manager_manages_nothing(service: Service) -> None:
    set_group(service, managers=("carla",))
    service.handle(protocol.Lock(name="carla"))
    with pytest.raises(AccountRefused, match="is locked"):
        change(service, "carla", is_root=False, add=("anna",))


def test_people_are_told_of_their_own_groups_only(service: Service) -> None:
    set_group(service, declared=("anna",), managers=("carla",))
    set_group(service, "ice", declared=("ben",))
    seen = {}
    for person in (None, "anna", "carla", "ben"):
        answer = service.handle(protocol.ShowGroups(), person)
        assert isinstance(answer, protocol.Groups)
        seen[person] = [group.name for group in answer.groups]
    assert seen == {None: ["ice", "ocean"], "anna": ["ocean"], "carla": ["ocean"], "ben": ["ice"]}
    with pytest.raises(AccountRefused, match="not a group of the hub"):
        service.handle(protocol.ShowGroups(name="ice"), "anna")


def test_a_group_of_the_machine_gets_a_folder_and_keeps_its_members(
    service: Service, unix: Unix, tmp_path: Path
) -> None:
    unix.add_group("crew", 1500, "anna", "ldapuser")
    unix.add_group("docker", 998)
    first = set_group(service, "crew", existing=True)
    assert (first.gid, first.kind, first.members) == (1500, "linked", ("anna", "ldapuser"))
    assert set_group(service, "crew", existing=True).changed is False
    with pytest.raises(AccountRefused, match="not labstead's business"):
        set_group(service, "crew", existing=True, declared=("ben",))
    with pytest.raises(AccountRefused, match="not labstead's business"):
        service.handle(protocol.ChangeMembers(group="crew", add=("ben",)))
    with pytest.raises(AccountRefused, match="system group"):
        set_group(service, "docker", existing=True)
    assert unix.groups["crew"].gr_mem == ["anna", "ldapuser"]
    service.handle(protocol.RemoveGroup(name="crew"))
    assert "crew" in unix.groups
    assert (tmp_path / "groups" / ".removed-1500").is_dir()
    assert set_group(service, "crew", existing=True).gid == 1500


def test_a_removed_group_leaves_its_folder_aside(service: Service, unix: Unix, tmp_path: Path) -> None:
    set_group(service, declared=("anna",))
    (tmp_path / "groups" / "ocean" / "file").touch()
    assert service.handle(protocol.RemoveGroup(name="ocean")).changed is True  # type: ignore[union-attr]
    assert "ocean" not in unix.groups
    assert (tmp_path / "groups" / ".removed-20003" / "file").exists()
    assert not (tmp_path / "groups" / "ocean").exists()


def test_a_missing_folder_is_not_made_anew(service: Service, tmp_path: Path) -> None:
    set_group(service)
    (tmp_path / "groups" / "ocean").rmdir()
    with pytest.raises(AccountRefused, match="is its file system mounted"):
        set_group(service)


def test_the_default_acl_is_the_kernels_form_of_it() -> None:
    """acl(5): u::rwx,g::rwx,o::---, as `getfattr -m- -d` shows it of a folder that setfacl(1) made."""
    assert groups.DEFAULT_ACL.hex() == "0200000001000700ffffffff04000700ffffffff20000000ffffffff"
