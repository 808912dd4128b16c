"""Which limits hold for whom, and how a disk is made to follow."""

import errno
import functools
import io
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from labstead import settings
from labstead.accounts import homes, limits, protocol
from labstead.accounts.client import Client
from labstead.accounts.spaces import effective, total
from labstead.disks import probe
from labstead.disks.backend import NO_LIMIT, DiskError, Limit, Place, Report, Soft
from labstead.errors import AccountRefused
from support.disk import Disk
from support.office import Office
from support.unix import Unix

G = 2**30
SAID = settings.Limit


@pytest.mark.parametrize(
    ("own", "groups", "site", "limit", "said_by"),
    [
        (SAID(), [], SAID(), NO_LIMIT, "site"),
        (SAID(), [], SAID(bytes=G), Limit(bytes=G), "site"),
        (SAID(), [SAID(bytes=2 * G), SAID(bytes=3 * G)], SAID(bytes=4 * G), Limit(bytes=3 * G), "group"),
        (SAID(), [SAID(bytes=2 * G), SAID(bytes=0)], SAID(bytes=4 * G), NO_LIMIT, "group"),
        (SAID(bytes=G), [SAID(bytes=0)], SAID(bytes=4 * G), Limit(bytes=G), "own"),
        (SAID(bytes=0), [SAID(bytes=G)], SAID(bytes=G), NO_LIMIT, "own"),
        # Bytes and files each on their own.
        (SAID(files=7), [SAID(bytes=G, files=9)], SAID(files=1), Limit(bytes=G, files=7), "group"),
        (SAID(bytes=G), [], SAID(bytes=1, files=5), Limit(bytes=G, files=5), "own"),
        # File systems count in blocks, of 64 KiB at most.
        (SAID(bytes=1), [], SAID(), Limit(bytes=65536), "own"),
    ],
)
def test_the_special_comes_before_the_general(
    own: settings.Limit, groups: list[settings.Limit], site: settings.Limit, limit: Limit, said_by: str
) -> None:
    assert effective(own, groups, site) == (limit, said_by)


def test_limits_add_up_unless_one_is_none() -> None:
    assert total([Limit(1, 2), Limit(10, 20)]) == Limit(11, 22)
    assert total([Limit(1, None), Limit(None, 20)]) == NO_LIMIT


def test_a_soft_limit_is_a_part_of_the_hard_one() -> None:
    assert Soft(80).of(Limit(10 * 2**20, 101)) == Limit(8 * 2**20, 80)
    assert Soft(100).of(Limit(10 * 2**20, 101)) == Soft(80).of(NO_LIMIT) == NO_LIMIT


@pytest.fixture
def site(office: Office) -> Office:
    """Give a site with limits for all and scratch."""
    (office.folder / "scratch").mkdir()
    office.scratch_root = office.folder / "scratch"
    office.set_quotas(home={"bytes": "10G"}, group={"bytes": "100G"}, scratch={"bytes": "50G"})
    return office


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Give what the service logs; the hub's database switches off the loggers that it finds."""
    text, log = io.StringIO(), logging.Logger("journal")
    log.addHandler(logging.StreamHandler(text))
    monkeypatch.setattr(limits, "log", log)
    return text


def home(office: Office, name: str) -> Limit:
    return office.disk.limit(office.folder / "home" / name)


def uid(office: Office, name: str) -> int:
    return office.account(name).uid


# --- what is made has its limit from the start


def test_home_scratch_and_folder_have_limits_from_the_start(site: Office) -> None:
    site.run("user", "add", "anna")
    site.run("group", "add", "ocean")
    assert home(site, "anna") == Limit(bytes=10 * G)
    assert site.disk.limit(site.folder / "scratch" / "anna") == Limit(bytes=50 * G)
    assert site.disk.limit(site.folder / "groups" / "ocean") == Limit(bytes=100 * G)
    assert (site.folder / "scratch" / "anna").lstat().st_mode & 0o7777 == 0o700
    assert (site.folder / "scratch" / "anna").stat().st_uid == uid(site, "anna")
    projects = {project for project, limit in site.disk.limits.items() if limit != NO_LIMIT}
    assert len(projects) == 3
    assert min(projects) > 1_000_000_000


def test_the_owner_may_have_as_much_as_all_their_spaces(site: Office) -> None:
    site.run("user", "add", "anna")
    assert site.disk.user_limits[uid(site, "anna")] == Limit(bytes=60 * G)
    site.run("group", "add", "ocean", "--members", "anna")
    assert site.disk.user_limits[uid(site, "anna")] == Limit(bytes=160 * G)
    site.run("quota", "set", "ocean", "none", "--group")
    assert site.disk.user_limits[uid(site, "anna")] == NO_LIMIT
    site.run("quota", "set", "ocean", "1G", "--group")
    assert site.disk.user_limits[uid(site, "anna")] == Limit(bytes=61 * G)


def test_who_left_a_group_is_not_held_by_what_they_made_there(site: Office) -> None:
    """Their files stay in the folder, and are theirs."""
    site.run("user", "add", "anna")
    site.run("group", "add", "ocean", "--members", "anna")
    site.run("group", "members", "ocean", "--remove", "anna")
    assert site.disk.user_limits[uid(site, "anna")] == Limit(bytes=160 * G)
    site.run("group", "remove", "ocean", "--delete-files", "--yes")
    assert site.disk.user_limits[uid(site, "anna")] == Limit(bytes=60 * G)


def test_who_wrote_to_a_removed_group_is_held_no_tighter_while_its_folder_is_archived(site: Office) -> None:
    """That takes hours, or days where it fails; what they have there counts against them until then."""
    site.run("user", "add", "anna")
    site.run("group", "add", "ocean", "--members", "anna")
    number, group = uid(site, "anna"), site.group("ocean")
    Client().remove_group("ocean")
    left = homes.removed(site.folder / "groups", group.gid)
    assert left.is_dir()
    for _ in range(2):
        site.service.handle(protocol.OpenSession(name="anna"))
        Client().follow_limits()
        assert site.disk.user_limits[number] == Limit(bytes=160 * G)
        left = left.replace(left.with_name(f".archived-{group.gid}"))
    # More is more all the same.
    site.run("quota", "set", "anna", "150G")
    assert site.disk.user_limits[number] == Limit(bytes=200 * G)
    left.rmdir()
    site.service.handle(protocol.OpenSession(name="anna"))
    assert site.disk.user_limits[number] == Limit(bytes=200 * G)
    Client().follow_limits()
    assert site.disk.user_limits[number] == Limit(bytes=200 * G)
    site.run("quota", "set", "anna", "default")
    assert site.disk.user_limits[number] == Limit(bytes=60 * G)
    assert site.service._ledger.spaces.writers() == {}


def test_a_folder_of_groups_that_cannot_be_read_keeps_no_limit_from_being_set(
    site: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("anna", "bert"):
        site.run("user", "add", name)
    site.run("group", "add", "ocean", "--members", "anna")
    Client().remove_group("ocean")
    real = os.scandir

    def scandir(path: Path) -> Any:
        if path == site.folder / "groups":
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    site.set_quotas(home={"bytes": "7G"}, group={"bytes": "100G"}, scratch={"bytes": "50G"})
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", scandir)
        assert "home of bert: 7G" in site.run("apply").stdout
    # Nor is forgotten what may be left there.
    assert site.service._ledger.spaces.writers_of_retired() != {}
    assert site.disk.user_limits[uid(site, "anna")] == Limit(bytes=160 * G)


def test_who_wrote_to_a_removed_group_is_held_no_tighter_once_its_disk_was_away(site: Office) -> None:
    """What is left of the group's folder cannot be seen while the disk is not mounted, and is there all the same."""
    site.run("user", "add", "anna")
    site.run("group", "add", "ocean", "--members", "anna")
    Client().remove_group("ocean")
    groups, away = site.folder / "groups", site.folder / "away"
    groups.rename(away)
    groups.mkdir()
    site.disk.broken = "the disk is mounted without quotas"
    Client().follow_limits(adopt=True)
    groups.rmdir()
    away.rename(groups)
    site.disk.broken = None
    Client().follow_limits(adopt=True)
    assert site.disk.user_limits[uid(site, "anna")] == Limit(bytes=160 * G)


def test_whose_limits_hold_in_sessions_alone_is_told(site: Office) -> None:
    """Who may own any amount on a disk is held by projects alone, which the owner of a file can leave by ssh."""
    for name in ("anna", "bert", "carla", "dora"):
        site.run("user", "add", name)
    Client().make_canary()
    site.run("group", "add", "ocean", "--members", "anna")
    assert site.run("apply").stderr == ""
    # For one person it is what an administrator wants.
    site.run("quota", "set", "bert", "none")
    assert site.run("apply").stderr == ""
    site.run("quota", "set", "ocean", "none", "--group")
    line = "limits of anna hold in sessions alone, as on the same disk there is no limit for the folder of ocean"
    assert site.run("apply").stderr == f"labstead: {site.folder}: {line}\n"
    site.set_quotas(home={"bytes": "10G"}, group={"bytes": "100G"})
    line = (
        "limits of anna, carla, dora hold in sessions alone, as on the same disk there is no limit for scratch, the "
        "folder of ocean"
    )
    assert site.run("apply").stderr == f"labstead: {site.folder}: {line}\n"
    # It is advice: no mail says it each night.
    assert Client().follow_limits(adopt=True).problems == ()
    site.run("quota", "set", "bert", "default")
    assert "anna, bert, carla and 1 more hold in sessions alone" in site.run("apply").stderr
    # Nobody who asks for something else is told.
    assert site.run("quota", "set", "dora", "20G").stderr == ""


def test_what_others_count_for_somebody_is_told(site: Office) -> None:
    for name in ("anna", "bert"):
        site.run("user", "add", name)
        site.disk.fill(site.folder / "home" / name, 3 * G)
    number = uid(site, "anna")
    site.disk.owned.update({number: 3 * G - 2**20, uid(site, "bert"): 5 * G})
    assert site.run("apply").stderr == ""
    site.disk.owned[number] = G
    # It may be root's, put back from a backup: no mail says it each night.
    assert Client().follow_limits(adopt=True).problems == ()
    (line,) = site.run("apply").stderr.splitlines()
    assert line.startswith(f"labstead: {site.folder}/home/anna: 2G that are counted there belong to others; `find ")
    assert f" ! -uid {number} -exec lsattr -pd {{}} + | grep 10000000" in line


def test_btrfs_counts_neither_users_nor_files(site: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    site.disk = Disk(site.folder, "btrfs")
    site.disk.stand_in(monkeypatch)
    site.set_quotas(home={"bytes": "10G", "files": 5})
    site.run("user", "add", "anna")
    assert home(site, "anna") == Limit(bytes=10 * G)
    followed = Client().follow_limits()
    assert followed.spaces == ()
    assert followed.problems == (f"{site.folder}: btrfs does not limit the number of files",)
    refused = site.run("quota", "set", "anna", "--files", "500k", code=2).stderr
    assert "does not limit the number of files" in refused
    assert Client().limits() == ()


def test_a_soft_limit_and_its_days_reach_the_disk(site: Office) -> None:
    site.run("user", "add", "anna")
    site.set_quotas(home={"bytes": "10G"}, soft_percent=80, grace_days=3)
    Client().follow_limits()
    assert Limit(bytes=8 * G) in site.disk.soft.values()
    assert site.disk.grace_days == 3


# --- who says it


def test_moving_between_groups_changes_the_limit(site: Office) -> None:
    site.run("user", "add", "anna")
    for name in ("ocean", "ice"):
        site.run("group", "add", name)
    site.run("quota", "set", "ocean", "20G", "--members")
    site.run("quota", "set", "ice", "30G", "--members")
    assert home(site, "anna") == Limit(bytes=10 * G)
    site.run("group", "members", "ocean", "--add", "anna")
    assert home(site, "anna") == Limit(bytes=20 * G)
    site.run("group", "members", "ice", "--add", "anna")
    assert home(site, "anna") == Limit(bytes=30 * G)
    site.run("group", "members", "ice", "--remove", "anna")
    assert home(site, "anna") == Limit(bytes=20 * G)
    site.run("quota", "set", "anna", "5G")
    assert home(site, "anna") == Limit(bytes=5 * G)
    site.run("quota", "set", "anna", "default")
    assert home(site, "anna") == Limit(bytes=20 * G)
    site.run("group", "remove", "ocean", "--yes")
    assert home(site, "anna") == Limit(bytes=10 * G)


def test_groups_that_the_machine_knows_count_too(site: Office) -> None:
    site.add_staff("staffer", 5000)
    site.unix.add_group("physics", 5001, "staffer")
    site.run("user", "link", "staffer")
    site.run("group", "add", "physics", "--existing")
    Client().follow_limits(adopt=True)
    assert site.disk.user_limits[5000] == Limit(bytes=160 * G)
    site.run("quota", "set", "physics", "70G", "--members")
    assert home(site, "staffer") == Limit(bytes=70 * G)
    # The directory takes them out; their next session finds that.
    site.unix.groups["physics"].gr_mem.clear()
    site.service.handle(protocol.OpenSession(name="staffer"))
    assert home(site, "staffer") == Limit(bytes=10 * G)


# --- what was there before


def test_what_was_there_before_is_taken_in_by_apply_alone(site: Office, journal: io.StringIO) -> None:
    site.add_staff("staffer", 5000)
    site.run("user", "link", "staffer")
    assert home(site, "staffer") == NO_LIMIT
    assert "staffer: its limit does not hold yet; `labstead apply` takes the folder in" in journal.getvalue()
    site.service.handle(protocol.OpenSession(name="staffer"))
    assert home(site, "staffer") == NO_LIMIT
    assert site.run("apply").stdout == "home of staffer: 10G\n"
    assert home(site, "staffer") == Limit(bytes=10 * G)
    assert site.run("apply").stdout == ""


def test_what_cannot_be_taken_in_is_told_and_is_in_nobodys_way(site: Office) -> None:
    for name, number in (("staffer", 5000), ("other", 5001)):
        site.add_staff(name, number)
        site.run("user", "link", name)
    site.disk.stubborn.add("staffer")
    result = site.run("apply")
    assert result.stdout == "home of other: 10G\n"
    assert result.stderr == f"labstead: {site.folder}/home/staffer: cannot be taken in\n"
    site.service.handle(protocol.OpenSession(name="staffer"))


def test_what_is_not_taken_in_whole_is_told(site: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its limit all the same."""
    site.add_staff("staffer", 5000)
    site.run("user", "link", "staffer")
    real = site.disk.adopt

    def adopt(place: Place) -> bool:
        if real(place):
            raise DiskError(f"{place.path}: not all of it is counted")
        return False

    monkeypatch.setattr(site.disk, "adopt", adopt)
    result = site.run("apply")
    assert (result.stdout, result.stderr) == (
        "home of staffer: 10G\n",
        f"labstead: {site.folder}/home/staffer: not all of it is counted\n",
    )
    assert home(site, "staffer") == Limit(bytes=10 * G)


def test_a_home_somewhere_else_is_not_labsteads_to_limit(site: Office) -> None:
    elsewhere = site.folder / "elsewhere" / "staffer"
    elsewhere.mkdir(parents=True)
    site.unix.add_user("staffer", 5000, elsewhere)
    site.unix.chown(elsewhere, 5000, 5000)
    site.run("user", "link", "staffer")
    assert site.run("apply").stderr == ""
    (space,) = (space for space in Client().spaces("staffer") if space.kind == "home")
    assert (space.path, space.file_system, space.used_bytes, space.limit_bytes) == (str(elsewhere), "other", None, None)
    assert "is not on the disk of" in site.run("quota", "set", "staffer", "1G", code=2).stderr
    # It may be on the very disk of scratch, where it would count for its owner.
    assert site.disk.user_limits.get(5000, Limit()) == Limit()


# --- what goes wrong keeps nobody out


def test_a_disk_that_holds_no_limits_keeps_nobody_out(site: Office, journal: io.StringIO) -> None:
    site.run("user", "add", "anna")
    site.disk.broken = "the disk is mounted without quotas"
    for _ in range(2):
        site.service.handle(protocol.OpenSession(name="anna"))
    assert journal.getvalue().count("limits do not hold: the disk is mounted without quotas") == 2
    assert Client().spaces("anna")[0].used_bytes is None
    assert "mounted without quotas" in site.run("quota", "set", "anna", "1G", code=2).stderr
    assert Client().limits() == ()
    site.set_quotas()
    site.run("quota", "set", "anna", "none")


def test_a_folder_that_nobody_may_look_into_keeps_no_limit_of_others_from_being_set(
    site: Office, monkeypatch: pytest.MonkeyPatch, journal: io.StringIO
) -> None:
    """As root meets it where somebody has put a file system of their own over their home."""
    for name in ("anna", "bert"):
        site.run("user", "add", name)
    real = os.scandir

    def scandir(path: Any) -> Any:
        if path == site.folder / "home":
            raise OSError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    site.run("user", "remove", "anna", "--delete-files", "--yes")
    site.set_quotas(home={"bytes": "7G"})
    assert "home of bert: 7G" in site.run("apply").stdout
    assert "Permission denied" in journal.getvalue()


def test_whatever_goes_wrong_keeps_nobody_out(site: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run("user", "add", "anna")

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(site.disk, "report", fail)
    site.service.handle(protocol.OpenSession(name="anna"))


def test_nothing_is_made_where_the_disk_of_its_limit_is_not_mounted(site: Office) -> None:
    """It would lie on the disk below, without a limit, and be hidden as soon as the right one is there."""
    site.disk.broken = "ext4 on /dev/sda1 is mounted at / without quotas"
    for words in (("user", "add", "anna"), ("group", "add", "ocean")):
        said = site.run(*words, code=1).stderr
        assert "cannot hold its limit; is its file system mounted? (ext4 on /dev/sda1 is mounted at / without" in said
    assert [*(site.folder / "home").iterdir(), *(site.folder / "groups").iterdir()] == []
    assert Client().accounts() == Client().groups() == ()
    site.disk.broken = None
    site.run("user", "add", "anna")
    site.run("group", "add", "ocean")
    assert home(site, "anna") == Limit(bytes=10 * G)
    site.disk.broken = "no disk for limits"
    site.set_quotas()
    site.run("user", "add", "bert")
    assert (site.folder / "home" / "bert").is_dir()


def test_a_project_that_counts_something_is_nobody_elses(site: Office) -> None:
    """As when the ledger is of last night and the disk of today."""
    site.disk.taken = set(range(1_000_000_001, 1_000_000_040))
    site.run("user", "add", "anna")
    site.run("group", "add", "ocean")
    projects = {project for project, limit in site.disk.limits.items() if limit != NO_LIMIT}
    assert len(projects) == 3
    assert not projects & site.disk.taken
    assert home(site, "anna") == Limit(bytes=10 * G)


def test_a_disk_whose_projects_are_all_taken_keeps_nobody_out(site: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.disk, "is_used", lambda _: True)
    site.run("user", "add", "anna")
    assert home(site, "anna") == Limit(bytes=10 * G)


def test_a_home_is_made_where_the_disk_cannot_make_a_place(site: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_place: object) -> None:
        raise DiskError("no such program")

    monkeypatch.setattr(site.disk, "make", fail)
    site.run("user", "add", "anna")
    assert (site.folder / "home" / "anna").is_dir()
    assert home(site, "anna") == NO_LIMIT


# --- scratch


def test_scratch_comes_back_with_the_next_session(site: Office) -> None:
    site.run("user", "add", "anna")
    folder = site.folder / "scratch" / "anna"
    folder.rmdir()
    site.service.handle(protocol.OpenSession(name="anna"))
    assert folder.is_dir()
    assert site.disk.limit(folder) == Limit(bytes=50 * G)


@pytest.mark.parametrize("what", ["link", "file", "folder"])
def test_what_somebody_put_in_the_place_of_scratch_stays(site: Office, what: str, journal: io.StringIO) -> None:
    target, place = site.folder / "target", site.folder / "scratch" / "anna"
    target.mkdir()
    site.unix.chown(target, 4711, 4711)
    if what == "link":
        place.symlink_to(target)
    elif what == "file":
        place.touch()
    else:
        place.mkdir()
        site.unix.chown(place, 4711, 4711)
    before = place.lstat().st_mode
    site.run("user", "add", "anna")
    site.service.handle(protocol.OpenSession(name="anna"))
    assert place.lstat().st_mode == before
    assert not list(target.iterdir())
    assert f"{place} is in the place of scratch that would be anna's" in journal.getvalue()
    assert [space.kind for space in Client().spaces("anna")] == ["home"]


def test_scratch_is_not_made_on_a_disk_that_cannot_hold_its_limit(site: Office) -> None:
    """Its own is not mounted, most likely, and what is under it is the machine's."""
    site.run("user", "add", "anna")
    (site.folder / "scratch" / "anna").rmdir()
    site.disk.broken = "no quotas"
    site.service.handle(protocol.OpenSession(name="anna"))
    assert not (site.folder / "scratch" / "anna").exists()
    # Also where only she has a limit.
    site.disk.broken = None
    site.set_quotas()
    site.run("quota", "set", "anna", "1G", "--scratch")
    site.disk.broken = "no quotas"
    site.service.handle(protocol.OpenSession(name="anna"))
    assert not (site.folder / "scratch" / "anna").exists()
    site.disk.broken = None
    site.service.handle(protocol.OpenSession(name="anna"))
    assert site.disk.limit(site.folder / "scratch" / "anna") == Limit(bytes=G)


class Watched:
    """A lock that says when somebody asks for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.asked = threading.Event()

    def acquire(self, timeout: float = -1) -> bool:
        self.asked.set()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def run_beside(self, work: Callable[[], object]) -> threading.Thread:
        """Start something, which is done or waits for the lock when this returns."""
        self.asked.clear()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive() and not self.asked.wait(0.01):
            pass
        return thread


def test_two_sessions_at_once_make_one_scratch(
    site: Office, monkeypatch: pytest.MonkeyPatch, journal: io.StringIO
) -> None:
    site.run("user", "add", "anna")
    account, folder = site.account("anna"), site.folder / "scratch" / "anna"
    folder.rmdir()
    limits_of = site.service._limits
    lock = Watched()
    monkeypatch.setattr(limits_of, "_folders", lock)
    real, first, others = Unix.chown, threading.current_thread(), list[threading.Thread]()

    def chown(unix: Unix, path: Path, uid: int, gid: int, **kwargs: Any) -> None:
        if threading.current_thread() is first and not others:
            others.append(lock.run_beside(lambda: limits_of.follow_person(account)))
        real(unix, path, uid, gid, **kwargs)

    monkeypatch.setattr(homes.os, "chown", functools.partial(chown, site.unix))
    limits_of.follow_person(account)
    (other,) = others
    other.join(30)
    assert not other.is_alive()
    assert folder.stat().st_uid == account.uid
    assert [path.name for path in (site.folder / "scratch").iterdir()] == ["anna"]
    assert journal.getvalue() == ""


def test_who_was_removed_meanwhile_gets_no_scratch(site: Office) -> None:
    site.run("user", "add", "anna")
    account = site.account("anna")
    site.run("user", "remove", "anna", "--delete-files", "--yes")
    site.service._limits.follow_person(account)
    assert list((site.folder / "scratch").iterdir()) == []


# --- who leaves


def test_who_leaves_while_limits_of_all_are_set_has_none_afterwards(
    site: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add_staff("staffer", 5000)
    site.run("user", "link", "staffer")
    site.run("apply")
    site.set_quotas(home={"bytes": "20G"}, group={"bytes": "1G"}, scratch={"bytes": "1G"})
    lock = Watched()
    monkeypatch.setattr(site.service._limits, "_lock", lock)
    real, others = site.disk.report, list[threading.Thread]()

    def report(places: Iterable[Place]) -> Report:
        if not others:
            others.append(lock.run_beside(lambda: Client().retire("staffer")))
        return real(places)

    monkeypatch.setattr(site.disk, "report", report)
    Client().follow_limits()
    (other,) = others
    other.join(30)
    assert not other.is_alive()
    assert site.disk.user_limits[5000] == NO_LIMIT
    assert home(site, "staffer") == NO_LIMIT


def test_who_leaves_takes_limits_and_scratch_along(site: Office) -> None:
    site.run("user", "add", "anna")
    site.run("quota", "set", "anna", "5G")
    number = uid(site, "anna")
    site.run("user", "remove", "anna", "--yes")
    assert site.disk.user_limits[number] == NO_LIMIT
    assert set(site.disk.limits.values()) <= {NO_LIMIT}
    assert len(site.disk.forgotten) == 2
    assert list((site.folder / "scratch").iterdir()) == list((site.folder / "home").iterdir()) == []
    assert Client().limits() == ()


def test_who_leaves_a_home_that_cannot_be_read_has_no_limit_either(
    site: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add_staff("staffer", 5000)
    site.run("user", "link", "staffer")
    site.run("apply")
    assert site.disk.user_limits[5000] == Limit(bytes=60 * G)
    real = site.disk.is_place

    def is_place(place: Place) -> bool:
        if place.path.parent.name == "home":
            raise OSError(errno.EIO, "Input/output error")
        return real(place)

    monkeypatch.setattr(site.disk, "is_place", is_place)
    Client().retire("staffer")
    assert site.disk.user_limits[5000] == NO_LIMIT
    assert site.disk.limit(site.folder / "scratch" / "staffer") == NO_LIMIT


def test_who_is_linked_keeps_all_but_the_limits(site: Office) -> None:
    site.add_staff("staffer", 5000)
    site.run("user", "link", "staffer")
    site.run("apply")
    site.run("user", "remove", "staffer", "--yes")
    assert home(site, "staffer") == NO_LIMIT
    assert (site.folder / "scratch" / "staffer").is_dir()
    site.run("user", "link", "staffer")
    assert home(site, "staffer") == Limit(bytes=10 * G)


def test_the_self_checks_account_leaves_nothing_behind(site: Office) -> None:
    made = Client().make_canary()
    assert home(site, made.name) == Limit(bytes=10 * G)
    assert [space.name for space in Client().spaces()] == []
    Client().remove_canary()
    assert set(site.disk.limits.values()) <= {NO_LIMIT}
    assert len(site.disk.forgotten) == 2
    assert list((site.folder / "scratch").iterdir()) == []


# --- telling


def test_people_see_their_own_and_nobody_elses(site: Office) -> None:
    for name in ("anna", "bert"):
        site.run("user", "add", name)
    site.run("group", "add", "ocean", "--members", "anna")
    site.run("group", "add", "ice")
    site.disk.fill(site.folder / "home" / "anna", 3 * G, 12)

    def ask(person: str | None, name: str | None = None) -> list[tuple[str, str]]:
        told = site.service.handle(protocol.ShowSpaces(name=name), person, is_root=person is None)
        assert isinstance(told, protocol.Spaces)
        return [(space.kind, space.name) for space in told.spaces]

    assert ask("anna") == ask("anna", "anna") == ask(None, "anna")
    assert ask("anna") == [("home", "anna"), ("group", "ocean"), ("scratch", "anna")]
    assert ask("nobody") == []
    assert ask(None) == [
        *(("home", "anna"), ("home", "bert"), ("group", "ice"), ("group", "ocean")),
        *(("scratch", "anna"), ("scratch", "bert")),
    ]
    with pytest.raises(AccountRefused, match="may not see"):
        ask("bert", "anna")
    with pytest.raises(AccountRefused, match="not an account"):
        ask(None, "nobody")
    assert Client().spaces("anna")[0] == protocol.Space(
        kind="home",
        name="anna",
        path=str(site.folder / "home" / "anna"),
        used_bytes=3 * G,
        used_files=12,
        limit_bytes=10 * G,
        said_by="site",
        file_system="xfs",
    )


def test_a_disk_is_asked_once_for_all(site: Office) -> None:
    for number in range(20):
        site.run("user", "add", f"p{number}")
    site.disk.calls.clear()
    assert len(Client().spaces()) == 40
    assert site.disk.calls == ["report"]
    site.disk.calls.clear()
    Client().follow_limits()
    assert site.disk.calls == ["report"]


def test_following_only_to_tell_sets_nothing(site: Office) -> None:
    site.run("user", "add", "anna")
    site.set_quotas(home={"bytes": "20G"})
    for _ in range(2):
        (space,) = (space for space in Client().follow_limits(check=True).spaces if space.kind == "home")
        assert space.limit_bytes == 20 * G
    assert home(site, "anna") == Limit(bytes=10 * G)


def test_what_is_mounted_in_the_place_of_a_home_is_another_disk(
    site: Office, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.run("user", "add", "anna")
    mounts = f"29 1 0:27 / {tmp_path}/home/anna rw - nfs4 server:/anna rw\n"
    monkeypatch.setattr(probe, "_mountinfo", lambda: mounts)
    assert [(space.kind, space.file_system) for space in Client().spaces("anna")] == [
        ("home", "other"),
        ("scratch", "xfs"),
    ]
