"""The largest things in a home on a real file system, and how one of them goes."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labstead_session import largest
from labstead_session.errors import Hindered, Mistake

BLOCK = 2**16
DEPTH = 3000


def _file(path: Path, blocks: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(blocks * BLOCK))


@pytest.fixture
def home(root: Path) -> Path:
    """Give a home with something in it."""
    home = root / "anna"
    _file(home / "data" / "large.nc", 40)
    _file(home / "data" / "small.nc", 1)
    for number in range(30):
        _file(home / "cache" / f"{number % 3}" / str(number), 1)
    _file(home / "notebook.ipynb", 2)
    _file(root / "outside" / "huge", 100)
    return home


def test_the_largest_come_first_and_none_lies_in_another(home: Path) -> None:
    found = largest.look(home)
    assert [thing.path for thing in found.things][:3] == ["data/large.nc", "cache", "notebook.ipynb"]
    paths = [thing.path for thing in found.things]
    assert not [path for path in paths for other in paths if path.startswith(f"{other}/")]
    cache = found.things[1]
    assert cache.is_folder
    assert cache.files == 34
    assert cache.bytes >= 30 * BLOCK
    assert found.is_complete


def test_by_files_folders_with_many_come_first(home: Path) -> None:
    assert largest.look(home, by="files").things[0].path == "cache"
    assert largest.look(home, "cache", "files").things[0].files == 11


def test_a_folder_can_be_looked_into(home: Path) -> None:
    found = largest.look(home, "cache")
    assert sorted(thing.path for thing in found.things) == ["cache/0", "cache/1", "cache/2"]


def test_sizes_are_those_on_disk(home: Path) -> None:
    with (home / "sparse").open("wb") as file:
        file.truncate(2**30)
    du = int(subprocess.run(["du", "-s", "--block-size=1", home], capture_output=True, check=True).stdout.split()[0])
    own = home.lstat().st_blocks * 512
    found = largest.look(home)
    assert found.bytes == du - own
    assert "sparse" not in [thing.path for thing in found.things][:3]


def test_a_file_with_several_names_counts_once(home: Path) -> None:
    before = largest.look(home).bytes
    (home / "again").hardlink_to(home / "data" / "large.nc")
    assert largest.look(home).bytes == before


def test_links_are_not_followed(home: Path) -> None:
    before = largest.look(home).bytes
    (home / "out").symlink_to(home.parent / "outside")
    (home / "round").symlink_to(home)
    assert largest.look(home).bytes < before + BLOCK
    with pytest.raises(OSError, match="Not a directory"):
        largest.look(home, "out")


def test_it_ends_in_time_and_says_so(home: Path) -> None:
    found = largest.look(home, seconds=-1)
    assert not found.is_complete


@pytest.fixture
def mounted(home: Path) -> Iterator[Path]:
    """Mount another file system in the home."""
    if os.geteuid():
        pytest.skip("only root mounts")
    place = home / "data" / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    _file(place / "theirs", 50)
    yield place
    subprocess.run(["umount", place], check=True)


def test_another_file_system_is_neither_counted_nor_deleted(home: Path, mounted: Path) -> None:
    assert largest.look(home).things[0].path == "data/large.nc"
    assert "mounted" not in str(largest.look(home))
    with pytest.raises(Mistake, match="on another disk"):
        largest.delete(home, "data/mounted")
    with pytest.raises(Mistake, match="on another disk"):
        largest.delete(home, "data/mounted/theirs")
    with pytest.raises(Hindered, match="not all"):
        largest.delete(home, "data")
    assert (mounted / "theirs").exists()
    assert not (home / "data" / "large.nc").exists()


# --- deleting


def test_a_file_goes_for_good(home: Path) -> None:
    assert largest.delete(home, "data/large.nc") == 1
    assert not (home / "data" / "large.nc").exists()
    assert not list(home.rglob("*rash*"))


def test_a_folder_goes_with_all_that_is_in_it(home: Path) -> None:
    (home / "cache" / "link").symlink_to(home.parent / "outside")
    assert largest.delete(home, "cache") == 35
    assert not (home / "cache").exists()
    assert (home.parent / "outside" / "huge").exists()


def test_a_link_goes_and_not_what_it_names(home: Path) -> None:
    (home / "out").symlink_to(home.parent / "outside")
    assert largest.delete(home, "out") == 1
    assert (home.parent / "outside" / "huge").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else, for whom modes count")
def test_read_only_folders_go_too(home: Path) -> None:
    for path in (home / "cache" / "0", home / "cache"):
        path.chmod(0o555)
    subprocess.run(["chown", "-R", "12345:12345", home], check=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(12345, 12345, 12345)
            os.setresuid(12345, 12345, 12345)
            largest.delete(home, "cache")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert not (home / "cache").exists()


@pytest.fixture
def deep(home: Path) -> Iterator[Path]:
    """Give a folder in which folders lie in folders, deeper than Python calls itself and than a path is long."""
    top = home / "deep"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("folder", dir_fd=here)
        inner = os.open("folder", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    yield top
    subprocess.run(["rm", "-rf", top], check=True)


def test_folders_are_seen_and_deleted_however_deep_they_lie(home: Path, deep: Path) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    found = largest.look(home, by="files")
    assert found.is_complete
    assert found.things[0].path.startswith("deep/folder")
    assert found.things[0].path.count("/") < 100, "nobody reads longer paths"
    assert found.things[0].files > DEPTH - 100
    assert largest.delete(home, f"{found.things[0].path}/folder") > DEPTH - 100
    assert largest.delete(home, "deep") < 100
    assert not deep.exists()
    # Of other tests some may be closed meanwhile.
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def test_what_is_moved_away_meanwhile_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes back up from a folder that was moved is elsewhere, and deletes there."""
    moved = home.parent / "outside" / "0"
    (home / "cache" / "0" / "inner").mkdir()
    (home.parent / "outside" / "1").mkdir()
    rmdir = os.rmdir

    def move(name: str, *, dir_fd: int) -> None:
        if name == "inner":
            (home / "cache" / "0").rename(moved)
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", move)
    with pytest.raises(Hindered, match="moved meanwhile"):
        largest.delete(home, "cache")
    assert sorted(path.name for path in moved.parent.iterdir()) == ["0", "1", "huge"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/",
        "/etc",
        "../outside/huge",
        "data/../../outside/huge",
        "data//large.nc",
        "data/",
        "a\0b",
        "./x",
    ],
)
def test_nothing_outside_can_be_named(home: Path, path: str) -> None:
    with pytest.raises(Mistake, match="in your home"):
        largest.delete(home, path)
    assert (home.parent / "outside" / "huge").exists()
    assert (home / "data" / "large.nc").exists()


def test_nothing_is_reached_through_a_link(home: Path) -> None:
    (home / "out").symlink_to(home.parent / "outside")
    with pytest.raises(Hindered, match="Not a directory"):
        largest.delete(home, "out/huge")
    assert (home.parent / "outside" / "huge").exists()


def test_what_has_gone_is_said(home: Path) -> None:
    with pytest.raises(Mistake, match="no longer there"):
        largest.delete(home, "data/gone")
