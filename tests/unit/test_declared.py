"""`labstead apply`: from what the inventory declares to what is done about it."""

import json
from datetime import date

import bcrypt
from nativeauthenticator.orm import UserInfo

from labstead.disks.backend import Limit
from labstead.hub import database, logins
from labstead.settings import DeclaredGroup, DeclaredUser
from support.office import Office


def apply(office: Office, *options: str) -> list[str]:
    return office.run("apply", *options).stdout.splitlines()


def test_people_and_groups_are_made_once(office: Office) -> None:
    office.add_staff("staffer", 5000)
    office.unix.add_group("physics", 5001, "staffer")
    office.declare(
        users=(
            DeclaredUser(name="anna", full_name="Anna Adam", email="anna@example.org", expires=date(2099, 1, 1)),
            DeclaredUser(name="bert"),
            DeclaredUser(name="staffer", existing=True),
        ),
        groups=(
            DeclaredGroup(name="ocean", members=("anna", "bert"), managers=("staffer",), quota=2**30),
            DeclaredGroup(name="physics", existing=True),
        ),
    )
    expected = [
        "user anna: made",
        "user bert: made",
        "user staffer: linked",
        "group ocean: made",
        "group physics: linked",
        "group ocean: folder: at most 1G",
    ]
    assert apply(office, "--check") == expected
    assert office.logins() == {}
    assert apply(office) == expected
    anna = office.account("anna")
    assert (anna.full_name, anna.email, anna.expires) == ("Anna Adam", "anna@example.org", date(2099, 1, 1))
    ocean = office.group("ocean")
    assert (ocean.members, ocean.declared, ocean.managers) == (("anna", "bert"), ("anna", "bert"), ("staffer",))
    assert office.disk.limit(office.folder / "groups" / "ocean") == Limit(bytes=2**30)
    assert office.logins() == {"anna": True, "bert": True, "staffer": True}
    office.asked.clear()
    assert apply(office) == []
    assert {request.op for request in office.asked} == {"show", "show-groups", "show-limits", "follow-limits"}


def test_details_follow_the_inventory_and_the_rest_stays(office: Office) -> None:
    office.declare(
        users=(DeclaredUser(name="anna", full_name="Anna Adam"), DeclaredUser(name="bert")),
        groups=(DeclaredGroup(name="ocean", members=("anna",)),),
    )
    apply(office)
    office.run("user", "expire", "bert", "2099-01-01")
    office.run("user", "lock", "anna")
    office.run("group", "members", "ocean", "--add", "bert")
    office.run("group", "managers", "ocean", "--add", "bert")
    assert apply(office) == []
    office.declare(
        users=(DeclaredUser(name="anna", full_name="Anna Abel"), DeclaredUser(name="bert", expires=None)),
        groups=(DeclaredGroup(name="ocean", members=(), managers=(), quota=2**30),),
    )
    assert apply(office) == [
        "user anna: full name Anna Abel",
        "user bert: expires never",
        "group ocean: -anna, managers none",
        "group ocean: folder: at most 1G",
    ]
    assert office.group("ocean").members == ("bert",)
    assert office.account("anna").locked == "locked"
    assert office.account("bert").expires is None
    assert apply(office) == []


def test_who_is_no_longer_declared_stays(office: Office) -> None:
    office.declare(users=(DeclaredUser(name="anna"),), groups=(DeclaredGroup(name="ocean"),))
    apply(office)
    office.declare()
    assert apply(office) == []
    assert office.account("anna").state == "active"
    assert office.group("ocean").name == "ocean"


def test_a_password_that_was_set_stays(office: Office) -> None:
    office.declare(users=(DeclaredUser(name="anna"),))
    apply(office)
    with database.opened(office.db_url) as db:
        logins.set_login(db, "anna", logins.hashed("correct horse battery"), replace=True)
    del office.unix.users["anna"]  # somebody called userdel
    del office.unix.groups["anna"]
    assert apply(office) == ["user anna: made"]
    with database.opened(office.db_url) as db:
        assert bcrypt.checkpw(b"correct horse battery", UserInfo.find(db, "anna").password)
    assert office.unix.users["anna"].pw_uid == 20000


def test_a_waiting_signup_does_not_become_the_declared_persons_login(office: Office) -> None:
    with database.opened(office.db_url) as db:
        db.add(UserInfo(username="anna", password=logins.hashed("a stranger's word")))
        db.commit()
    office.declare(users=(DeclaredUser(name="anna"),))
    apply(office)
    with database.opened(office.db_url) as db:
        assert not bcrypt.checkpw(b"a stranger's word", UserInfo.find(db, "anna").password)


def test_every_mistake_is_told_and_nothing_is_changed(office: Office) -> None:
    office.add_staff("staffer", 5000)
    office.add_staff("linked", 5001)
    office.unix.add_group("physics", 5002)
    office.run("user", "add", "made")
    office.run("user", "link", "linked")
    office.declare(
        users=(
            DeclaredUser(name="anna"),
            DeclaredUser(name="Bert"),
            DeclaredUser(name="slurm"),
            DeclaredUser(name="staffer"),
            DeclaredUser(name="nobody2", existing=True),
            DeclaredUser(name="made", existing=True),
            DeclaredUser(name="linked"),
        ),
        groups=(
            DeclaredGroup(name="ocean", members=("anna", "emil"), managers=("fred",)),
            DeclaredGroup(name="physics"),
            DeclaredGroup(name="mountains", existing=True),
            DeclaredGroup(name="anna"),
            DeclaredGroup(name="Lake"),
            DeclaredGroup(name="sudo"),
        ),
    )
    before = dict(office.unix.users)
    for options in ((), ("--check",)):
        lines = office.run("apply", *options, code=2).stderr.splitlines()
        assert [line.split(": ")[1] for line in lines] == [
            *("Bert", "slurm", "staffer", "nobody2", "made", "linked", "ocean", "physics", "mountains"),
            *("anna", "Lake", "sudo"),
        ]
        for line, words in zip(
            lines,
            (
                "small",
                "reserved",
                "existing: true",
                "leave out",
                "leave out",
                "existing: true",
                "emil, fred",
                "true",
                "leave",
                "somebody has this name",
                "small letters",
                "reserved",
            ),
            strict=True,
        ):
            assert words in line
    assert office.unix.users == before


def test_who_expired_and_was_removed_stays_removed(office: Office) -> None:
    office.declare(
        users=(DeclaredUser(name="anna", expires=date(2020, 1, 1)), DeclaredUser(name="bert")),
        groups=(DeclaredGroup(name="ocean", members=("anna", "bert")),),
    )
    assert apply(office) == ["user bert: made", "group ocean: made"]
    assert office.group("ocean").members == ("bert",)
    assert apply(office) == []


def test_a_date_that_has_come_closes_and_puts_out(office: Office) -> None:
    office.declare(users=(DeclaredUser(name="anna"),))
    apply(office)
    office.declare(users=(DeclaredUser(name="anna", expires=date(2020, 1, 1)),))
    assert "has passed" in office.run("apply", code=2).stderr
    office.declare(users=(DeclaredUser(name="anna", expires=date.today()),))
    assert apply(office) == [f"user anna: expires {date.today()}"]
    assert office.account("anna").locked == "expired"
    assert office.out_of_hub == ["anna"]
    assert apply(office) == []


def test_one_failure_does_not_keep_the_others(office: Office) -> None:
    office.declare(users=(DeclaredUser(name="anna"), DeclaredUser(name="bert")))
    (office.folder / "home" / "anna").mkdir()  # somebody's, in the way
    result = office.run("apply", "--json", code=1)
    assert json.loads(result.stdout)["changes"] == ["user bert: made"]
    assert "anna" in result.stderr
    assert office.logins() == {"bert": True}


def test_a_folder_that_is_missing_is_told_each_time(office: Office) -> None:
    office.declare(groups=(DeclaredGroup(name="ocean"),))
    apply(office)
    (office.folder / "groups" / "ocean").rename(office.folder / "elsewhere")
    assert "file system mounted" in office.run("apply", code=1).stderr


def test_guests_and_staff_of_a_site_with_its_own_directory(office: Office) -> None:
    office.add_staff("staffer", 5000)
    office.set_hub(doors=("pam", "native"))
    office.declare(users=(DeclaredUser(name="staffer", existing=True), DeclaredUser(name="guest1")))
    apply(office)
    assert (office.account("staffer").door, office.account("guest1").door) == ("pam", "native")
    assert office.logins() == {"guest1": True}
    office.set_hub(doors=("pam",))
    office.declare(users=(DeclaredUser(name="guest2"),))
    assert "door pam" in office.run("apply", code=2).stderr


def test_limits_follow_the_inventory_and_the_rest_stays(office: Office) -> None:
    (office.folder / "scratch").mkdir()
    office.scratch_root = office.folder / "scratch"
    office.set_quotas(home={"bytes": "10G"})
    office.declare(
        users=(
            DeclaredUser.model_validate({"name": "anna", "quota": "20G", "files": 500, "scratch_quota": "1T"}),
            DeclaredUser(name="bert"),
        ),
        groups=(
            DeclaredGroup.model_validate(
                {"name": "ocean", "members": ["bert"], "home_quota": "30G", "home_files": 9, "scratch_quota": "none"}
            ),
        ),
    )
    limits = [
        "user anna: home: at most 20G, at most 500 files",
        "user anna: scratch: at most 1T",
        "group ocean: each member's home: at most 30G, at most 9 files",
        "group ocean: each member's scratch: no limit of bytes",
    ]
    assert apply(office, "--check")[3:] == limits
    assert apply(office)[3:] == limits
    home = office.folder / "home"
    assert office.disk.limit(home / "anna") == Limit(20 * 2**30, 500)
    assert office.disk.limit(home / "bert") == Limit(30 * 2**30, 9)
    assert apply(office) == apply(office, "--check") == []
    # What is declared wins at each run, what is not said is left as it is, and null takes it back.
    office.run("quota", "set", "anna", "1G", "--files", "1")
    office.run("quota", "set", "bert", "2G")
    office.declare(users=(DeclaredUser.model_validate({"name": "anna", "quota": "20G"}), DeclaredUser(name="bert")))
    assert apply(office) == ["user anna: home: at most 20G"]
    assert office.disk.limit(home / "anna") == Limit(20 * 2**30, 1)
    assert office.disk.limit(home / "bert") == Limit(2 * 2**30, 9)
    office.declare(users=(DeclaredUser.model_validate({"name": "anna", "quota": None, "files": None}),))
    assert apply(office) == ["user anna: home: bytes as for all, files as for all"]
    assert office.disk.limit(home / "anna") == Limit(10 * 2**30)


def test_another_limit_for_all_is_told_for_each_whom_it_concerns(office: Office) -> None:
    for name in ("anna", "bert"):
        office.run("user", "add", name)
    office.run("quota", "set", "bert", "1G")
    office.set_quotas(home={"bytes": "10G"})
    assert apply(office, "--check") == apply(office) == ["home of anna: 10G"]
    assert apply(office) == []
    office.set_quotas()
    assert apply(office) == ["home of anna: no limit"]


def test_a_declared_limit_that_no_disk_holds_fails(office: Office) -> None:
    office.disk.broken = "no quotas here"
    office.declare(users=(DeclaredUser.model_validate({"name": "anna", "quota": "20G"}),))
    result = office.run("apply", code=1)
    assert result.stdout == "user anna: made\n"
    assert result.stderr.endswith("labstead: user anna: home: at most 20G: no quotas here\n")
