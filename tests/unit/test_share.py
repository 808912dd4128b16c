"""`share` on a real file system, with real access control lists and real people: processes of their uids."""

import datetime
import grp
import json
import os
import pickle
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from labstead_session import acl, people, share, sharing, store
from labstead_session.acl import Acl
from labstead_session.errors import Hindered, Mistake

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several people")

_T = TypeVar("_T")

PEOPLE = {"anna": 20001, "ben": 20002, "carl": 20003, "dora": 20004}
GROUPS = {"ocean": (30000, ["anna", "ben"]), "ice": (30001, ["anna", "carl", "ben"])}
OTHERS = ("ben", "carl", "dora")
TODAY = datetime.date(2026, 11, 20)
NOW = datetime.datetime(2026, 11, 20, 12, tzinfo=datetime.UTC)


def _groups_of(name: str, gid: int) -> list[int]:
    return [gid, *(group for group, members in GROUPS.values() if name in members)]


def acting(name: str, action: Callable[[], _T]) -> _T:
    """Do something in a process of somebody's, and give or raise what it gives or raises."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            uid = PEOPLE[name]
            os.setgroups(_groups_of(name, uid))
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.umask(0o002)
            people.is_private.cache_clear()
            result: tuple[bool, object]
            try:
                result = True, action()
            except Exception as error:  # noqa: BLE001 - it is raised in the test
                result = False, error
            with os.fdopen(writer, "wb") as stream:
                pickle.dump(result, stream)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    assert data, f"the process of {name} died"
    fine, value = pickle.loads(data)  # noqa: S301 - of the child's own
    if not fine:
        raise value
    return value  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine know four people and two groups."""
    entries = {
        name: pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", "/bin/sh")) for name, uid in PEOPLE.items()
    }
    named = {name: grp.struct_group((name, "x", uid, [])) for name, uid in PEOPLE.items()}
    named |= {name: grp.struct_group((name, "x", gid, members)) for name, (gid, members) in GROUPS.items()}
    by_uid = {entry.pw_uid: entry for entry in entries.values()}
    by_gid = {entry.gr_gid: entry for entry in named.values()}
    getpwnam, getpwuid, getgrnam = pwd.getpwnam, pwd.getpwuid, grp.getgrnam
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entries.get(name) or getpwnam(name))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: by_uid.get(uid) or getpwuid(uid))
    monkeypatch.setattr(grp, "getgrnam", lambda name: named.get(name) or getgrnam(name))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: by_gid[gid])
    monkeypatch.setattr(os, "getgrouplist", _groups_of)
    monkeypatch.setattr(sharing, "_FLEETING", ("/proc",))


@pytest.fixture
def home(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give anna's home as labstead makes it, with work in it that her umask left open."""
    path = root / "anna"
    path.mkdir()
    os.chown(path, 20001, 20001)
    path.chmod(0o700)
    monkeypatch.setenv("HOME", os.fspath(path))

    def fill() -> None:
        for name in (
            "notes.txt",
            ".profile",
            "work/plan.txt",
            "work/run1/out.nc",
            "work/run1/deep/log",
            "work/run2/out.nc",
            "private/diary",
        ):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(name)
        (path / "work/run1/secret.key").write_text("x")
        (path / "work/run1/secret.key").chmod(0o600)
        (path / "work/run1/start.sh").write_text("x")
        (path / "work/run1/start.sh").chmod(0o755)

    acting("anna", fill)
    return path


def as_anna(action: Callable[[store.Store], _T]) -> _T:
    def work() -> _T:
        with store.opened(store.default_file()) as shelf:
            return action(shelf)

    return acting("anna", work)


def give(path: Path, who: str, until: datetime.date | None = None) -> sharing.Report:
    return as_anna(lambda shelf: sharing.share(shelf, os.fspath(path), people.resolve(who), until, NOW))


def take(path: Path | None, who: str | None = None) -> list[sharing.Report]:
    name = None if path is None else os.fspath(path)
    return as_anna(lambda shelf: sharing.stop(shelf, name, people.resolve(who) if who else None))


def expire(today: datetime.date = TODAY) -> list[sharing.Report]:
    return as_anna(lambda shelf: sharing.expire(shelf, today))


def state() -> store.State:
    return as_anna(lambda shelf: shelf.read())


def rights(path: Path) -> dict[str, tuple[int, dict[str, bytes]]]:
    """Give mode and attributes of all there is, but the list of shares itself."""
    found = {}
    for place in [path, *sorted(path.rglob("*"))]:
        if ".local" in place.parts or place.is_symlink():
            continue
        found[os.fspath(place)] = (
            stat.S_IMODE(place.stat().st_mode),
            {name: os.getxattr(place, name) for name in os.listxattr(place)},
        )
    return found


def can(name: str, root: Path) -> set[str]:
    """Give what somebody can read, by path: they know all names, as colleagues might."""
    places = [root, *root.rglob("*")]

    def look() -> set[str]:
        found = set()
        for place in places:
            try:
                _ = [*place.iterdir()] if place.is_dir() else [place.read_bytes()]
            except OSError:
                continue
            found.add(place.relative_to(root).as_posix())
        return {name for name in found if not name.startswith(".local")}

    return acting(name, look)


def writable(name: str, root: Path) -> set[str]:
    places = [root, *root.rglob("*")]
    return acting(name, lambda: {os.fspath(place) for place in places if os.access(place, os.W_OK)})


RUN1 = {
    "work/run1",
    "work/run1/out.nc",
    "work/run1/deep",
    "work/run1/deep/log",
    "work/run1/secret.key",
    "work/run1/start.sh",
}


# --- what is opened


@pytest.mark.parametrize(
    ("who", "readers"), [("ben", {"ben"}), ("ocean", {"ben"}), ("ice", {"ben", "carl"}), ("everyone", set(OTHERS))]
)
def test_what_is_shared_is_read_by_whom_it_is_shared_with_and_nothing_else_opens(
    home: Path, who: str, readers: set[str]
) -> None:
    before = rights(home)
    assert all(can(name, home) == set() for name in OTHERS)
    report = give(home / "work/run1", who)
    for name in OTHERS:
        assert can(name, home) == (RUN1 if name in readers else set()), name
        assert writable(name, home) == set(), name
    assert report.passed == [home, home / "work"]
    assert (report.files, report.folders) == (4, 2)
    take(home / "work/run1", who)
    assert rights(home) == before
    assert all(can(name, home) == set() for name in OTHERS)


def test_a_single_file_is_shared(home: Path) -> None:
    before = rights(home)
    give(home / "work/plan.txt", "ben")
    assert can("ben", home) == {"work/plan.txt"}
    take(home / "work/plan.txt")
    assert rights(home) == before


def test_programs_stay_programs_and_nothing_else_becomes_one(home: Path) -> None:
    give(home / "work/run1", "ben")

    def runs(name: str) -> bool:
        return acting("ben", lambda: os.access(home / "work/run1" / name, os.X_OK))

    assert runs("start.sh")
    assert not runs("out.nc")


def test_new_files_are_shared_and_new_neighbours_are_not(home: Path) -> None:
    give(home / "work/run1", "ben")

    def work() -> None:
        (home / "work/run1/new").write_text("x")
        (home / "work/run1/folder").mkdir()
        (home / "work/run1/folder/new").write_text("x")
        (home / "work/new").write_text("x")
        (home / "new").write_text("x")
        (home / "folder").mkdir()
        (home / "folder/new").write_text("x")

    acting("anna", work)
    assert can("ben", home) == RUN1 | {"work/run1/new", "work/run1/folder", "work/run1/folder/new"}
    assert can("carl", home) == set()
    take(home / "work/run1")
    assert can("ben", home) == set()
    after = rights(home)
    for name in ("work/run1/new", "work/run1/folder", "work/run1/folder/new"):
        assert after[os.fspath(home / name)][1] == {}, f"{name} keeps a list"


def test_what_was_moved_in_beside_or_inside_is_right_after_the_nightly_look(home: Path) -> None:
    give(home / "work/run1", "ben")

    def move() -> None:
        (home / "private/diary").rename(home / "diary")
        (home / "work/run2/out.nc").rename(home / "work/run1/moved.nc")
        (home / "work/run1/moved.nc").chmod(0o600)
        (home / "work/run1/out.nc").chmod(0o600)

    acting("anna", move)
    expire()
    assert can("ben", home) == RUN1 - {"work/run1/out.nc"} | {"work/run1/moved.nc"}, "her chmod 600 stays"


def test_a_home_that_its_owner_closes_stays_closed(home: Path) -> None:
    """chmod 700 is what people do who want an end of it; the night must not undo it."""
    before = rights(home)
    give(home / "work/run1", "ben")
    acting("anna", lambda: home.chmod(0o700))
    assert can("ben", home) == set()
    expire()
    assert can("ben", home) == set()
    give(home / "work/run1", "ben")
    assert can("ben", home) == RUN1
    take(home / "work/run1")
    assert rights(home) == before


def test_two_shares_on_one_way_end_one_by_one(home: Path) -> None:
    before = rights(home)
    give(home / "work/run1", "ben")
    give(home / "work/run2", "ben")
    give(home / "work/run2", "carl")
    give(home / "notes.txt", "everyone")
    assert can("ben", home) == RUN1 | {"work/run2", "work/run2/out.nc", "notes.txt"}
    assert can("carl", home) == {"work/run2", "work/run2/out.nc", "notes.txt"}
    take(home / "work/run2", "ben")
    assert can("ben", home) == RUN1 | {"notes.txt"}
    assert can("carl", home) == {"work/run2", "work/run2/out.nc", "notes.txt"}
    take(home / "work/run1")
    assert can("ben", home) == {"notes.txt"}
    take(home / "work/run2")
    assert can("carl", home) == {"notes.txt"}
    take(home / "notes.txt")
    assert can("dora", home) == set()
    assert rights(home) == before
    assert state() == store.State()


def test_a_share_within_a_share(home: Path) -> None:
    before = rights(home)
    give(home / "work", "ben")
    give(home / "work/run1/deep", "carl")
    work = {"work", "work/plan.txt", "work/run2", "work/run2/out.nc"}
    assert can("ben", home) == RUN1 | work
    assert can("carl", home) == {"work/run1/deep", "work/run1/deep/log"}
    take(home / "work")
    assert can("ben", home) == set()
    assert can("carl", home) == {"work/run1/deep", "work/run1/deep/log"}
    give(home / "work", "everyone")
    assert can("dora", home) == can("carl", home) == can("ben", home) == RUN1 | work
    take(home / "work/run1/deep")
    assert can("carl", home) == RUN1 | work
    take(home / "work")
    assert rights(home) == before


def test_what_somebody_has_through_a_group_is_not_hidden_by_an_entry_of_their_own(home: Path) -> None:
    give(home / "work", "ocean")
    give(home / "work/run1/deep", "ben")
    assert "work" in can("ben", home)
    assert can("ben", home) >= RUN1


def test_it_can_be_done_twice(home: Path) -> None:
    give(home / "work/run1", "ben")
    once, stored = rights(home), state()
    assert give(home / "work/run1", "ben").changed == 0
    assert rights(home) == once
    assert state() == stored
    assert len(take(home / "work/run1")) == 1
    assert take(home / "work/run1") == []


# --- what was there before


def test_a_mask_that_kept_rights_back_is_raised_for_nobody_else(home: Path) -> None:
    """carl has an entry that a mask makes worthless; opening the file for ben must not revive it."""
    place = home / "work/run1/out.nc"
    os.setxattr(place, "system.posix_acl_access", Acl(6, 6, 0, {20003: 6}, {30001: 6}, 0).pack())
    before = rights(home)
    give(home / "work", "ben")
    assert "work/run1/out.nc" in can("ben", home)
    give(home / "work/run2", "carl")
    assert acting("carl", lambda: os.access(place, os.R_OK)) is False
    take(home / "work")
    take(home / "work/run2")
    assert rights(home) == before


def test_lists_of_the_owners_own_come_back_as_they_were(home: Path) -> None:
    for name, value in (
        ("work", Acl(7, 5, 0, {20003: 1}, {}, 5)),
        ("work/run1", Acl(7, 7, 5, {20002: 4}, {30000: 7}, 7)),
        ("work/run1/out.nc", Acl(6, 4, 4, {20002: 0}, {}, 6)),
        ("work/run2", Acl(7, 5, 0, {}, {30001: 5}, 5)),
    ):
        os.setxattr(home / name, "system.posix_acl_access", value.pack())
    os.setxattr(home / "work/run1", "system.posix_acl_default", Acl(7, 7, 0, {20002: 5}, {}, 7).pack())
    os.setxattr(home / "private", "system.posix_acl_default", Acl(7, 5, 5).pack())
    before = rights(home)
    for who in ("ben", "ice", "everyone", "ocean"):
        give(home / "work/run1", who)
    assert can("dora", home) >= RUN1
    for who in ("ice", "ben", "ocean", "everyone"):
        take(home / "work/run1", who)
    assert rights(home) == before


def test_a_group_file_in_a_closed_home_stays_closed_to_the_group(home: Path) -> None:
    """Both are in ice; the file came from a group folder. Passing through the home must not open it."""
    os.chown(home / "notes.txt", 20001, 30001)
    (home / "notes.txt").chmod(0o660)
    before = rights(home)
    give(home / "work/run1", "carl")
    assert can("carl", home) == RUN1
    give(home / "work/run2", "ice")
    assert can("carl", home) == RUN1 | {"work/run2", "work/run2/out.nc"}
    take(None)
    assert rights(home) == before


@pytest.mark.parametrize("who", ["ben", "ice", "everyone"])
def test_what_was_writable_behind_a_closed_door_is_not_written(home: Path, who: str) -> None:
    """Mode 0666 harms nobody in a closed home. ben and carl are in ice."""
    (home / "work/run1").chmod(0o777)
    (home / "work/run1/out.nc").chmod(0o666)
    os.chown(home / "work/run1/deep/log", 20001, 30001)
    (home / "work/run1/deep/log").chmod(0o660)
    before = rights(home)
    give(home / "work", who)
    assert can("ben", home) >= RUN1
    assert all(writable(name, home) == set() for name in OTHERS)
    take(home / "work")
    assert rights(home) == before


@pytest.mark.parametrize("who", ["ben", "everyone"])
def test_entries_that_a_closed_home_made_worthless_stay_so(home: Path, who: str) -> None:
    for place in ("notes.txt", "work/run1/out.nc"):
        os.setxattr(home / place, "system.posix_acl_access", Acl(6, 0, 0, {20002: 6, 20004: 6}, {}, 6).pack())
    before = rights(home)
    give(home / "work/run1", who)
    assert can("ben", home) == RUN1
    assert can("dora", home) == (RUN1 if who == "everyone" else set())
    assert all(writable(name, home) == set() for name in OTHERS)
    take(home / "work/run1")
    assert rights(home) == before


@pytest.mark.parametrize("kind", ["link", "fifo", "huge", "nested", "odd path"])
def test_a_list_that_is_none_does_no_harm(home: Path, kind: str) -> None:
    """The night reads it as its owner, on the host, for everybody."""
    place = home / ".local/share/labstead/shares.json"

    def make() -> None:
        place.parent.mkdir(parents=True)
        if kind == "link":
            place.symlink_to("/dev/zero")
        elif kind == "fifo":
            os.mkfifo(place)
        elif kind == "huge":
            with place.open("wb") as stream:
                stream.truncate(2**40)
        elif kind == "nested":
            place.write_text("[" * 100_000)
        else:
            share = {
                "path": "/a\0b",
                "id": "1",
                "who": {"kind": "user", "id": 1, "name": "x"},
                "until": None,
                "since": "",
            }
            place.write_text(json.dumps({"version": 1, "shares": [share], "records": {}}))

    acting("anna", make)
    code, out, err = command("expire")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_what_lies_very_deep_is_left_alone(home: Path) -> None:
    def make() -> None:
        os.chdir(home / "work/run1")
        for _ in range(300):
            Path("d").mkdir()
            os.chdir("d")

    acting("anna", make)
    before = rights(home / "work/run2")
    report = give(home / "work/run1", "ben")
    assert report.unread == 1
    assert report.folders < 100
    take(home / "work/run1")
    assert rights(home / "work/run2") == before


def test_what_the_owner_changes_meanwhile_stays(home: Path) -> None:
    give(home / "work/run1", "ben")
    acting("anna", lambda: (home / "work/run2").chmod(0o751))
    acting("anna", lambda: (home / "work/run1/out.nc").chmod(0o640))
    assert "work/run1/out.nc" in can("ben", home)
    take(home / "work/run1")
    assert stat.S_IMODE((home / "work/run2").stat().st_mode) == 0o751
    assert stat.S_IMODE((home / "work/run1/out.nc").stat().st_mode) == 0o640


def test_what_the_owner_takes_meanwhile_does_not_come_back(home: Path) -> None:
    """What `share` has closed already looks the same after `chmod 600`."""
    notes = home / "notes.txt"
    notes.chmod(0o666)
    give(home / "work/run1", "ben")
    acting("anna", lambda: notes.chmod(0o600))
    take(home / "work/run1")
    assert stat.S_IMODE(notes.stat().st_mode) == 0o600
    out = home / "work/run1/out.nc"
    out.chmod(0o640)
    give(home / "work/run1", "everyone")
    acting("anna", lambda: out.chmod(0o604))
    take(home / "work/run1")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_home_that_is_open_anyway_is_left_as_it_is(home: Path) -> None:
    home.chmod(0o755)
    seen = can("dora", home)
    assert "notes.txt" in seen
    report = give(home / "work/run1", "ben")
    assert report.passed == []
    assert report.closed == []
    assert can("dora", home) == seen
    assert can("ben", home) == seen | {"work/run1/secret.key"}


@pytest.mark.usefixtures("home")
def test_a_colleague_who_could_write_still_can(root: Path) -> None:
    """A group folder: an entry of one's own would hide what one has through the group."""
    folder = root / "ocean"
    folder.mkdir()
    os.chown(folder, 0, 30000)
    folder.chmod(0o2770)
    acting("anna", lambda: (folder / "draft").write_text("x"))
    report = give(folder / "draft", "ben")
    assert report.kept is False
    assert report.changed == 0
    assert state() == store.State()
    assert acting("ben", lambda: os.access(folder / "draft", os.R_OK | os.W_OK))
    with pytest.raises(Mistake, match=rf"carl cannot get to .*{folder}.* is root's"):
        give(folder / "draft", "carl")
    with pytest.raises(Mistake, match="everyone cannot get to"):
        give(folder / "draft", "everyone")


# --- links, other people's files, races


def test_links_are_not_followed_and_files_of_others_are_left_alone(home: Path) -> None:
    secret = home / "private/diary"
    acting("anna", lambda: (home / "work/run1/link").symlink_to(secret))
    acting("anna", lambda: (home / "work/run1/linked").symlink_to(home / "private"))
    acting("anna", lambda: (home / "work/run1/hard").hardlink_to(secret))
    (home / "work/run1/bens").write_text("x")
    os.chown(home / "work/run1/bens", 20003, 20003)
    (home / "work/run1/bens").chmod(0o600)
    before = rights(home)
    report = give(home / "work/run1", "ben")
    assert (report.links, report.hard_links, report.others) == (2, 1, 1)
    assert rights(home)[os.fspath(secret)] == before[os.fspath(secret)]
    assert rights(home)[os.fspath(home / "private")][0] == 0o770, "closed to others, as it lies beside the way"
    assert "work/run1/bens" not in can("ben", home)
    take(home / "work/run1")
    assert rights(home) == before


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sharing.files.apply

    def swap() -> None:
        if not (home / "work/run1/deep").is_symlink():
            shutil.rmtree(home / "work/run1/deep")
            (home / "work/run1/deep").symlink_to(home / "private")

    def apply(change: Any) -> None:
        swap()
        real(change)

    monkeypatch.setattr(sharing.files, "apply", apply)
    before = rights(home / "private")
    acting("anna", lambda: (home / "private/log").write_text("x"))
    give(home / "work/run1", "ben")
    assert {**rights(home / "private")}[os.fspath(home / "private/diary")] == before[os.fspath(home / "private/diary")]
    assert rights(home / "private")[os.fspath(home / "private/log")][1] == {}


def test_a_share_follows_a_new_name_and_ends_wherever_it_was_moved(home: Path) -> None:
    before = rights(home / "work/run1")
    give(home / "work/run1", "ben")
    acting("anna", lambda: (home / "work/run1").rename(home / "work/first"))
    listed = as_anna(sharing.listing)
    assert [(row.share.path, row.is_there) for row in listed] == [(home / "work/first", True)]
    acting("anna", lambda: (home / "work/first").rename(home / "private/first"))
    assert [row.is_there for row in as_anna(sharing.listing)] == [False]
    assert can("ben", home) == set()
    take(home / "work/run1")
    acting("anna", lambda: (home / "private/first").rename(home / "work/run1"))
    assert rights(home / "work/run1") == before
    assert state() == store.State()


def test_a_file_that_an_editor_replaced_is_shared_again(home: Path) -> None:
    give(home / "work/plan.txt", "ben")

    def replace() -> None:
        (home / "work/new").write_text("better")
        (home / "work/new").rename(home / "work/plan.txt")

    acting("anna", replace)
    expire()
    assert can("ben", home) == {"work/plan.txt"}
    take(home / "work/plan.txt")
    assert can("ben", home) == set()


def test_what_was_deleted_can_still_be_stopped(home: Path) -> None:
    before = rights(home)
    give(home / "work/run1", "ben")
    acting("anna", lambda: shutil.rmtree(home / "work/run1"))
    assert len(take(home / "work/run1")) == 1
    after = rights(home)
    assert after == {path: value for path, value in before.items() if "/work/run1" not in path}


# --- time


def test_a_share_ends_after_its_last_day(home: Path) -> None:
    before = rights(home)
    give(home / "work/run1", "ben", TODAY)
    give(home / "work/run2", "ben", TODAY + datetime.timedelta(days=1))
    assert expire(TODAY) == []
    assert [report.share.path for report in expire(TODAY + datetime.timedelta(days=1))] == [home / "work/run1"]
    assert can("ben", home) == {"work/run2", "work/run2/out.nc"}
    expire(TODAY + datetime.timedelta(days=2))
    assert rights(home) == before


def test_an_interrupted_share_can_be_taken_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real, count = rights(home), sharing.files.apply, 0

    def apply(change: Any) -> None:
        nonlocal count
        count += 1
        if count == 7:
            os._exit(9)
        real(change)

    monkeypatch.setattr(sharing.files, "apply", apply)
    with pytest.raises(AssertionError, match="died"):
        give(home / "work/run1", "everyone")
    monkeypatch.setattr(sharing.files, "apply", real)
    assert len(take(home / "work/run1")) == 1
    assert rights(home) == before


def test_a_file_system_that_refuses_leaves_all_as_it_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real, count = rights(home), acl.set_access, 0

    def set_access(fd: int, value: Acl) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise OSError(28, "No space left on device")
        real(fd, value)

    monkeypatch.setattr(acl, "set_access", set_access)
    with pytest.raises(Hindered, match="could not be changed"):
        give(home / "work/run1", "ben")
    monkeypatch.setattr(acl, "set_access", real)
    assert rights(home) == before
    assert state() == store.State()


# --- what is refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("root", "account of the system"),
        ("anna", "is you"),
        ("nobodyatall", "nobody here is called"),
        ("group:ben2", "nobody here is called"),
        ("team:ben", "write user:NAME"),
        ("group:disk", "group of the system"),
    ],
)
def test_a_name_that_is_nobody_to_share_with_is_refused(home: Path, name: str, message: str) -> None:
    before = rights(home)
    with pytest.raises(Mistake, match=message):
        give(home / "work", name)
    assert rights(home) == before


def test_a_path_that_cannot_be_shared_is_refused(root: Path, home: Path) -> None:
    acting("anna", lambda: (home / "link").symlink_to(home / "work"))
    (root / "bens").mkdir()
    before = rights(home)
    for path, message in (
        (home / "none", "no such file"),
        (home / "link", "is a link to"),
        (home, "keys and passwords"),
        (root, "is root's"),
        (root / "bens", "is root's"),
        (Path("/proc/self"), "is a link|others do not see"),
    ):
        with pytest.raises(Mistake, match=message):
            give(path, "ben")
    assert rights(home) == before


# --- the command


def command(*words: str) -> tuple[int, str, str]:
    """Run the command as anna."""

    def work() -> tuple[int, str, str]:
        with os.fdopen(os.memfd_create("out"), "w+") as out, os.fdopen(os.memfd_create("err"), "w+") as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            share.sys.stdout = os.fdopen(1, "w", closefd=False)  # type: ignore[assignment]
            share.sys.stderr = os.fdopen(2, "w", closefd=False)  # type: ignore[assignment]
            share.sys.argv = ["share", *words]
            code = 0
            try:
                share.main()
            except SystemExit as leaving:
                code = int(leaving.code or 0)
            share.sys.stderr.flush()
            out.seek(0)
            err.seek(0)
            return code, out.read(), err.read()

    return acting("anna", work)


def test_the_command_explains_what_it_opened(home: Path) -> None:
    code, out, err = command(os.fspath(home / "work/run1"), "with", "ben", "--until", "2999-01-31")
    assert (code, err) == (0, "")
    assert f"Open for ben until the end of 2999-01-31: {home}/work/run1 (2 folders and 4 files" in out
    assert f"  {home}\n  {home}/work\nIn JupyterLab they open it with File, Open from Path" in out
    assert "lost rights for others" in out
    code, out, _ = command("list")
    assert code == 0
    assert out.splitlines()[1].split() == ["ben", "2999-01-31", f"{home}/work/run1"]
    rows = json.loads(command("list", "--json")[1])
    assert rows[0]["path"] == f"{home}/work/run1"
    assert rows[0]["with"] == "ben"
    code, out, _ = command("stop", os.fspath(home / "work/run1"), "with", "ben")
    assert (code, out) == (0, f"No longer shared with ben: {home}/work/run1\n")
    assert command("list")[1] == "You share nothing.\n"


def test_with_several_people_at_once(home: Path) -> None:
    code, out, _ = command(os.fspath(home / "work/run1"), "with", "ben", "carl,dora", "--json")
    assert code == 0
    assert [entry["with"] for entry in json.loads(out)] == ["ben", "carl", "dora"]
    assert command("stop", "--all")[0] == 0
    code, _, err = command(os.fspath(home / "work/run1"), "with", "ben", "nobodyatall")
    assert code == 2
    assert "nobodyatall" in err
    assert state() == store.State(), "one wrong name, and nothing is shared"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["work"],
        ["work", "ben"],
        ["work", "with"],
        ["list", "all"],
        ["list", "--until", "2999-01-01"],
        ["stop"],
        ["stop", "a", "--all"],
        ["stop", "a", "ben"],
        ["expire", "now"],
        ["work", "with", "ben", "--until", "tomorrow"],
        ["work", "with", "ben", "--until", "2020-01-01"],
        ["work", "with", "ben", "--writable"],
        ["none", "with", "ben"],
        ["stop", "none"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(home: Path, words: list[str]) -> None:
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert err.startswith("share: ")
    assert err.count("\n") == 1
    assert not (home / ".local/share/labstead/shares.json").exists()


@pytest.mark.usefixtures("home")
def test_help_has_examples() -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert "share results with ben" in out


def test_a_broken_list_is_told_and_left(home: Path) -> None:
    command(os.fspath(home / "work/run1"), "with", "ben")
    (home / ".local/share/labstead/shares.json").write_text("{")
    code, _, err = command("list")
    assert code == 1
    assert "is broken" in err


# --- lists as text and as the kernel has them


@pytest.mark.parametrize(
    "value",
    [Acl(7, 5, 0), Acl(6, 4, 4, {20002: 4, 20001: 0}, {}, 4), Acl(7, 7, 0, {}, {30000: 7, 30001: 5}, 7)],
    ids=str,
)
def test_a_list_survives_both_forms(value: Acl) -> None:
    assert Acl.unpack(value.pack()) == value
    assert Acl.parse(str(value)) == value


def test_the_kernel_reads_a_list_as_it_is_meant(root: Path) -> None:
    place = root / "file"
    place.touch()
    value = Acl(6, 4, 0, {20002: 4}, {30000: 6}, 6)
    os.setxattr(place, "system.posix_acl_access", value.pack())
    assert Acl.unpack(os.getxattr(place, "system.posix_acl_access")) == value
    assert stat.S_IMODE(place.stat().st_mode) == 0o660
    assert str(value) == "u::rw-,u:20002:r--,g::r--,g:30000:rw-,m::rw-,o::---"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("wo", ["work/run1"]), ("", ["work/run1", "b c"]), ("{here}/b", ["{here}/b c"]), ("x", [])],
)
def test_tab_completes_what_is_shared(tmp_path: Path, typed: str, expected: list[str]) -> None:
    """The list has blanks between its columns and may have some in its paths."""
    completion = Path(__file__).resolve().parents[2] / "session/data/share/bash-completion/completions/share"
    script = """
        share() { printf '%s\\n' "WHO  UNTIL  PATH" "ben  -  $PWD/work/run1" "ice  2027-01-01  $PWD/b c"; }
        complete() { :; }; compopt() { :; }
        . "$1"; COMP_WORDS=(share stop "$2"); COMP_CWORD=2; _share; printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-euc", script, "sh", completion, typed.format(here=tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split("\n")[:-1] == ([word.format(here=tmp_path) for word in expected] or [""])
