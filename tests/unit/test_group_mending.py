"""What is put into a group folder with rights of its own becomes the group's, and nothing else changes."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from labstead_session import groups
from labstead_session.acl import Acl

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several people")

_T = TypeVar("_T")
ANNA, BEN, OCEAN = 20001, 20002, 30000


def acting(uid: int, action: Callable[[], _T]) -> _T:
    """Do something as a member of the group."""
    os.setgroups([OCEAN])
    os.setresgid(uid, uid, 0)
    os.setresuid(uid, uid, 0)
    before = os.umask(0o002)
    try:
        return action()
    finally:
        os.umask(before)
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups([])


@pytest.fixture
def ocean(root: Path) -> Path:
    """Give a group's folder as labstead makes it."""
    path = root / "ocean"
    path.mkdir()
    os.chown(path, 0, OCEAN)
    path.chmod(0o2770)
    os.setxattr(path, "system.posix_acl_default", Acl(7, 7, 0).pack())
    return path


@pytest.fixture
def home(root: Path) -> Path:
    path = root / "anna"
    path.mkdir(0o700)
    os.chown(path, ANNA, ANNA)
    return path


def put(path: Path, mode: int) -> None:
    path.write_text("x")
    path.chmod(mode)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def ben_can_write(path: Path) -> bool:
    # access(2) asks for the real uid and gid.
    return acting(BEN, lambda: os.access(path, os.R_OK | os.W_OK))


@pytest.mark.parametrize("bits", [0o664, 0o644, 0o600, 0o755])
def test_what_is_moved_in_becomes_the_groups_at_the_next_look(ocean: Path, home: Path, bits: int) -> None:
    watch = groups.Watch([ocean])
    assert acting(ANNA, watch.look) == 0
    acting(ANNA, lambda: put(home / "file", bits))
    acting(ANNA, lambda: (home / "file").rename(ocean / "file"))
    assert not ben_can_write(ocean / "file")
    assert acting(ANNA, watch.look) == 1
    assert (ocean / "file").stat().st_gid == OCEAN
    assert ben_can_write(ocean / "file")
    assert mode(ocean / "file") & 0o100 == bits & 0o100
    assert acting(ANNA, watch.look) == 0


def test_a_file_put_in_place_of_another_is_the_groups_too(ocean: Path) -> None:
    watch = groups.Watch([ocean])
    acting(ANNA, lambda: put(ocean / "file", 0o660))
    acting(ANNA, watch.look)
    for _ in range(3):
        acting(ANNA, lambda: put(ocean / "new", 0o600))
        acting(ANNA, lambda: (ocean / "new").rename(ocean / "file"))
        assert not ben_can_write(ocean / "file")
        acting(ANNA, watch.look)
        assert ben_can_write(ocean / "file")


def test_a_file_that_gets_name_and_inode_of_another_is_a_new_one(ocean: Path) -> None:
    watch = groups.Watch([ocean])
    for _ in range(3):
        acting(ANNA, lambda: put(ocean / "file", 0o600))
        acting(ANNA, watch.look)
        (ocean / "file").unlink()
    acting(ANNA, lambda: put(ocean / "file", 0o600))
    acting(ANNA, watch.look)
    assert ben_can_write(ocean / "file")


def test_a_folder_that_is_moved_in_becomes_the_groups_with_all_that_is_in_it(ocean: Path, home: Path) -> None:
    watch = groups.Watch([ocean])
    acting(ANNA, watch.look)

    def move() -> None:
        (home / "run/deep").mkdir(parents=True)
        put(home / "run/deep/file", 0o600)
        put(home / "run/file", 0o644)
        (home / "run").rename(ocean / "run")

    acting(ANNA, move)
    assert acting(ANNA, watch.look) == 4
    assert mode(ocean / "run/deep") & 0o2770 == 0o2770
    acting(BEN, lambda: put(ocean / "run/deep/new", 0o644))
    assert ben_can_write(ocean / "run/deep/file")
    assert ben_can_write(ocean / "run/file")
    assert (ocean / "run/deep/new").stat().st_gid == OCEAN


def test_what_its_owner_closes_later_stays_closed(ocean: Path) -> None:
    watch = groups.Watch([ocean])
    acting(ANNA, lambda: put(ocean / "file", 0o660))
    acting(ANNA, watch.look)
    acting(ANNA, lambda: (ocean / "file").chmod(0o600))
    acting(ANNA, lambda: put(ocean / "other", 0o660))
    acting(ANNA, watch.look)
    assert mode(ocean / "file") == 0o600
    groups.sweep(ocean)
    assert mode(ocean / "file") == 0o600
    acting(ANNA, groups.Watch([ocean]).look)
    assert mode(ocean / "file") == 0o600


def test_the_night_mends_what_came_without_a_session(ocean: Path, home: Path) -> None:
    def work() -> None:
        put(home / "moved", 0o600)
        (home / "moved").rename(ocean / "moved")
        put(ocean / "copied", 0o644)
        (home / "run").mkdir()
        (home / "run").rename(ocean / "run")

    acting(ANNA, work)
    assert groups.sweep(ocean) == 3
    assert groups.sweep(ocean) == 0
    assert ben_can_write(ocean / "moved")
    assert ben_can_write(ocean / "copied")
    assert (ocean / "moved").stat().st_uid == ANNA


def test_links_and_files_of_others_are_left_alone(ocean: Path, home: Path) -> None:
    secret = home / "secret"
    acting(ANNA, lambda: put(secret, 0o600))
    acting(ANNA, lambda: (ocean / "hard").hardlink_to(secret))
    acting(ANNA, lambda: (ocean / "link").symlink_to(secret))
    acting(BEN, lambda: put(ocean / "bens", 0o644))
    watch = groups.Watch([ocean])
    acting(ANNA, watch.look)
    assert (mode(secret), secret.stat().st_gid) == (0o600, ANNA)
    assert mode(ocean / "bens") == 0o644
    groups.sweep(ocean)
    assert (mode(secret), secret.stat().st_gid) == (0o600, ANNA)
    assert mode(ocean / "bens") == 0o664


def test_a_program_that_runs_as_its_owner_is_left_alone(ocean: Path) -> None:
    acting(ANNA, lambda: put(ocean / "program", 0o4755))
    assert groups.sweep(ocean) == 0
    assert mode(ocean / "program") == 0o4755


def test_a_very_deep_tree_ends(ocean: Path) -> None:
    def make() -> None:
        before = Path.cwd()
        os.chdir(ocean)
        for _ in range(300):
            Path("d").mkdir()
            os.chdir("d")
        os.chdir(before)

    acting(ANNA, make)
    assert groups.sweep(ocean) == 0
    assert acting(ANNA, groups.Watch([ocean]).look) == 0


def test_too_many_folders_are_left_to_the_night(ocean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_TOO_MANY", 3)
    for name in "abcd":
        acting(ANNA, (ocean / name).mkdir)
    with pytest.raises(groups.TooMany):
        groups.Watch([ocean]).look()
    groups.Watch([ocean]).run()
