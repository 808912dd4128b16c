"""What is left of homes and group folders."""

import gzip
import mmap
import os
import select
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from labstead import archive
from labstead.accounts.protocol import Account, Group
from labstead.disks import probe
from labstead.errors import LabsteadError
from labstead.settings import Accounts
from support.machine import ROOT

ANNA = Account(name="anna-b", uid=20007, gid=20007, kind="created", state="retired", created_at="2026-01-01")
OCEAN = Group(
    name="ocean",
    gid=20009,
    kind="created",
    folder="/groups/ocean",
    members=(),
    declared=(),
    managers=(),
    created_at="2026-01-01",
)


@pytest.fixture(autouse=True)
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Do not wait for what others write to this disk; undone by those for whom it matters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "_sync", lambda *_: None)
        yield patch


@pytest.fixture
def settings(tmp_path: Path) -> Accounts:
    for folder in ("home/.removed-20007/sub", "groups/.removed-20009"):
        (tmp_path / folder).mkdir(parents=True)
    home = tmp_path / "home/.removed-20007"
    (home / "notes").write_text("x" * 5000)
    (home / "sub" / "naïve name\n").write_text("y")
    (home / "link").symlink_to("/etc/passwd")
    os.mkfifo(home / "pipe")
    (tmp_path / "groups/.removed-20009/data").write_text("z")
    return Accounts(
        home_root=tmp_path / "home",
        group_root=tmp_path / "groups",
        archive_root=tmp_path / "archive",
        remove_after_days=10,
    )


def test_a_home_goes_into_an_archive_whole(settings: Accounts) -> None:
    file = archive.archive_home(settings, ANNA)
    assert file == settings.archive_root / "anna-b-20007.tar.gz"
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as opened:
        assert sorted(opened.getnames()) == [".", "./link", "./notes", "./pipe", "./sub", "./sub/naïve name\n"]
        assert opened.getmember("./link").linkname == "/etc/passwd"
    assert not (settings.home_root / ".removed-20007").exists()
    assert [path.name for path in settings.archive_root.iterdir()] == [file.name]
    # Once more: nothing is there any more, and the archive is.
    assert archive.archive_home(settings, ANNA) == file


def test_a_groups_folder_goes_into_an_archive(settings: Accounts) -> None:
    file = archive.archive_folder(settings, OCEAN)
    assert file == settings.archive_root / "groups" / "ocean-20009.tar.gz"
    assert not (settings.group_root / ".removed-20009").exists()


def test_nothing_to_archive_is_no_archive(settings: Accounts) -> None:
    assert archive.archive_home(settings, ANNA.model_copy(update={"uid": 1})) is None


def test_files_are_deleted_where_that_is_wanted(settings: Accounts) -> None:
    archive.delete_home(settings, ANNA)
    archive.delete_folder(settings, OCEAN)
    assert list(settings.home_root.iterdir()) == list(settings.group_root.iterdir()) == []
    archive.delete_home(settings, ANNA)


def _play_tar(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have a shell script in the place of tar; `"$@"` is tar."""
    real = subprocess.Popen

    def popen(command: list[str], **kwargs: Any) -> Any:
        return real(["sh", "-c", script, "sh", *command] if command[0] == "tar" else command, **kwargs)

    monkeypatch.setattr(archive.subprocess, "Popen", popen)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('"$@"; echo "tar: notes: Cannot open" >&2; exit 2', "^tar: notes: Cannot open$"),
        ('"$@"; echo late >"{home}/sub/late"', "/sub changed while it was archived; "),
        ('"$@"; echo late >>"{home}/notes"', "/notes changed while it was archived; "),
        ("exec sleep 600", "^tar: still not done"),
        ("exec >&- 2>&-; exec sleep 600", "^tar: still not done"),
        ('yes | head --bytes=9M >&2; "$@"; exit 2', "^tar: y$"),
    ],
)
def test_nothing_is_deleted_without_a_whole_archive(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    home = settings.home_root / ".removed-20007"
    _play_tar(monkeypatch, script.replace("{home}", str(home)))
    with pytest.raises(LabsteadError, match=words):
        archive.archive_home(settings, ANNA, 1 if "exec" in script else archive.SECONDS)
    assert (home / "notes").exists()
    assert list(settings.archive_root.iterdir()) == []
    monkeypatch.undo()
    assert archive.archive_home(settings, ANNA)


def test_an_archive_that_keeps_growing_ends_in_time_too(settings: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    real = select.select
    monkeypatch.setattr(archive.select, "select", lambda *lists: real(*lists[:3]))  # there is always something to read
    with (
        closing(archive._packed(settings.home_root, time.monotonic() - 1, 3600)) as chunks,
        pytest.raises(LabsteadError, match=r"^tar: still not done after 1\.0 hours"),
    ):
        next(chunks)


@pytest.mark.parametrize(
    ("size", "words"), [(None, "is not what was written"), (-1, "cannot be read back"), (300, "cannot be read back")]
)
def test_nothing_is_deleted_when_the_archive_reads_back_as_something_else(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch, size: int | None, words: str
) -> None:
    def spoil(_: int, _start: int, _length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED  # what is read after this comes from the disk
        (file,) = settings.archive_root.glob(".*.partial")
        written = file.read_bytes()
        file.write_bytes(gzip.compress(gzip.decompress(written)[:-512]) if size is None else written[:size])

    monkeypatch.setattr(archive.os, "posix_fadvise", spoil)
    with pytest.raises(LabsteadError, match=words):
        archive.archive_home(settings, ANNA)
    assert (settings.home_root / ".removed-20007" / "notes").exists()
    assert list(settings.archive_root.iterdir()) == []
    monkeypatch.undo()
    assert archive.archive_home(settings, ANNA)


@pytest.mark.parametrize("where", ["before the rename", "before the deletion", "within the deletion"])
def test_a_deletion_that_was_cut_off_does_not_cost_what_was_archived(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    home = settings.home_root / ".removed-20007"

    def cut_off(folder: Path) -> None:
        if where == "within the deletion":
            (folder / "notes").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "_flush" if where == "before the rename" else "_delete", cut_off)
    with pytest.raises(KeyboardInterrupt):
        archive.archive_home(settings, ANNA)
    monkeypatch.undo()
    assert archive.leftovers(settings.home_root) == (20007,)
    assert not home.exists()
    if where == "before the rename":
        # A session that is still open adds something.
        (settings.home_root / ".archived-20007" / "sub" / "late").touch()
    file = archive.archive_home(settings, ANNA)
    assert file is not None
    with tarfile.open(file) as opened:
        assert "./notes" in opened.getnames()
        assert ("./sub/late" in opened.getnames()) == (where == "before the rename")
    assert list(settings.home_root.iterdir()) == []
    assert list(settings.archive_root.iterdir()) == [file]


def test_the_rest_of_a_groups_folder_is_no_folder_of_its_own(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "_delete", cut_off)
    with pytest.raises(KeyboardInterrupt):
        archive.archive_folder(settings, OCEAN)
    monkeypatch.undo()
    archive.archive_lost_folder(settings, OCEAN.gid)  # its name is not known any more
    assert [path.name for path in (settings.archive_root / "groups").iterdir()] == ["ocean-20009.tar.gz"]
    assert list(settings.group_root.iterdir()) == []


def test_a_folder_that_cannot_be_closed_is_told(settings: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "chmod", refuse)
    for call in (archive.archive_folder, archive.delete_folder):
        with pytest.raises(LabsteadError, match=r"members cannot be kept out of .*: .*Read-only file system"):
            call(settings, OCEAN)
    assert (settings.group_root / ".removed-20009" / "data").exists()


def _after_tar(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Do something when tar has read all, and before it is looked whether something changed."""
    real = archive._packed

    def packed(folder: Path, deadline: float, seconds: float) -> Generator[bytes]:
        yield from real(folder, deadline, seconds)
        act()

    monkeypatch.setattr(archive, "_packed", packed)


def _kind(folder: Path) -> str:
    return probe.mount_of(folder).kind


def test_what_is_written_through_memory_is_a_change(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch, patch: pytest.MonkeyPatch
) -> None:
    home = settings.home_root / ".removed-20007"
    if _kind(home) not in archive._TRUSTED:
        pytest.skip("needs XFS, ext4 or btrfs")
    patch.undo()
    with (home / "notes").open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as memory:
        memory[0] = ord("1")
        _after_tar(monkeypatch, lambda: memory.__setitem__(0, ord("2")))
        with pytest.raises(LabsteadError, match="/notes changed while it was archived; "):
            archive.archive_home(settings, ANNA)
    assert (home / "notes").read_bytes().startswith(b"2")


def test_what_is_mounted_while_tar_runs_is_left_out_of_nothing(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[Path] = []
    monkeypatch.setattr(archive.probe, "mount_points", lambda: points)
    _after_tar(monkeypatch, lambda: points.append(settings.home_root / ".removed-20007" / "sub"))
    with pytest.raises(LabsteadError, match=r"something is mounted at .*/sub; unmount it first"):
        archive.archive_home(settings, ANNA)
    assert (settings.home_root / ".removed-20007" / "notes").exists()
    assert list(settings.archive_root.iterdir()) == []


def test_changes_are_told_by_the_clock_of_the_disk(settings: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    here = time.time_ns
    monkeypatch.setattr(archive.time, "time_ns", lambda: here() + 3600 * 10**9)
    _after_tar(monkeypatch, (settings.home_root / ".removed-20007" / "late").touch)
    with pytest.raises(LabsteadError, match=r"/\.removed-20007 changed while it was archived; "):
        archive.archive_home(settings, ANNA)


def test_an_archive_waits_for_the_next_tick(settings: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_now", lambda _: 10**18)  # as if it stood still
    with pytest.raises(LabsteadError, match=r"^waiting for the next tick of the clock: still not done"):
        archive.archive_home(settings, ANNA, 1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3600, "^the clock of .*/.removed-20007 was set back while it was archived"),
        (-60, "/sub has a time in the future, .*; run `find .*/.removed-20007 -newerct now -exec touch "),
    ],
)
def test_a_clock_that_goes_backwards_is_no_proof(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch, seconds: int, words: str
) -> None:
    """The time of all that is there cannot be set, so it is the clock that is played."""
    real, step = archive._now, 0
    # With a clock that was an hour ahead before, all files are older than the archive's begin.
    ahead = 3600 if seconds == -3600 else 0

    def later() -> None:
        nonlocal step
        step = seconds
        if not ahead:
            (settings.home_root / ".removed-20007" / "sub" / "late").touch()

    monkeypatch.setattr(archive, "_now", lambda folder: real(folder) + (ahead + step) * 10**9)
    _after_tar(monkeypatch, later)
    with pytest.raises(LabsteadError, match=words):
        archive.archive_home(settings, ANNA)
    assert (settings.home_root / ".removed-20007" / "notes").exists()


def test_holes_are_believed_only_where_they_are_known(settings: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no blocks is all zeros for tar, as on many file systems of a network; with sysfs anybody has such."""
    folder = Path("/sys/class/net/lo/statistics")
    if not folder.is_dir():
        pytest.skip("no sysfs here")
    deadline = time.monotonic() + 60
    with closing(archive._packed(folder, deadline, 60)) as chunks, pytest.raises(LabsteadError, match="File shrank by"):
        list(chunks)
    home, commands = settings.home_root / ".removed-20007", list[list[str]]()
    real = subprocess.Popen

    def popen(command: list[str], **kwargs: Any) -> Any:
        commands.append(command)
        return real(command, **kwargs)

    monkeypatch.setattr(archive.subprocess, "Popen", popen)
    for kind in ("ext4", "nfs4"):
        mount = probe.Mount(1, kind, "/home", "none")
        monkeypatch.setattr(archive.probe, "mount_of", lambda _, mount=mount: mount)
        assert b"".join(archive._packed(home, deadline, 60))
    assert ["--sparse" in command for command in commands] == [True, False]


def test_subvolumes_are_looked_for_on_btrfs_only_and_in_time(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, float]] = []
    monkeypatch.setattr(archive, "_require_no_subvolume", lambda folder, seconds: asked.append((folder, seconds)))
    for kind in ("xfs", "btrfs"):
        mount = probe.Mount(1, kind, "/home", "none")
        monkeypatch.setattr(archive.probe, "mount_of", lambda _, mount=mount: mount)
        archive.require_nothing_mounted(settings.home_root, 7)
    assert asked == [(settings.home_root, 7)]


def test_an_archive_is_never_written_over(settings: Accounts) -> None:
    settings.archive_root.mkdir()
    file = settings.archive_root / "anna-b-20007.tar.gz"
    with tarfile.open(file, "w:gz") as opened:
        opened.add("/etc/hostname", "./other")
    before = file.read_bytes()
    with pytest.raises(LabsteadError, match="is there already"):
        archive.archive_home(settings, ANNA)
    assert file.read_bytes() == before
    assert (settings.home_root / ".removed-20007" / "notes").exists()


def test_a_complaint_about_a_long_name_is_short() -> None:
    with pytest.raises(LabsteadError) as caught:
        archive._run(["ls", "--", "x" * 5000])
    assert len(str(caught.value)) < 400
    assert str(caught.value).endswith("File name too long")


@pytest.mark.parametrize("name", ["with blank", "für Jürgen", "latin \udcfc"])
def test_what_is_mounted_inside_is_not_deleted(settings: Accounts, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    home = settings.home_root / ".removed-20007"
    where = f"{home}/{name}".replace(" ", "\\040")
    table = os.fsencode(f"36 35 98:0 / {where} rw - tmpfs none rw\n")
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: table if path.name == "mountinfo" else real(path))
    for call in (archive.archive_home, archive.delete_home):
        with pytest.raises(LabsteadError, match=r"something is mounted at .*/\w+ \S+; unmount it first") as caught:
            call(settings, ANNA)
        str(caught.value).encode()  # a message can be printed
    assert (home / "notes").exists()


SUBVOLUME = """
truncate --size=200M "$1/image"
mkfs.btrfs --quiet "$1/image" >/dev/null
mkdir "$1/disk"
for _ in 1 2 3; do device=$(losetup --find --show "$1/image") && break; done
mounted=0; mount "$device" "$1/disk" || mounted=$?
losetup --detach "$device"  # it goes when nobody has it mounted any more
[ "$mounted" = 0 ]
mkdir -p "$1/disk/home" "$1/disk/groups"
btrfs subvolume create "$1/disk/home/.removed-20007" >/dev/null
mkdir -p "$1/disk/home/.removed-20007/deep"
btrfs subvolume create "$1/disk/home/.removed-20007/deep/$3" >/dev/null
echo thesis >"$1/disk/home/.removed-20007/deep/$3/thesis"
exec "$2" -c "$4" "$1"
"""
LIFE = """
import subprocess, sys
from pathlib import Path
from labstead import archive
from labstead.accounts.protocol import Account
from labstead.errors import LabsteadError
from labstead.settings import Accounts

root = Path(sys.argv[1], "disk")
where = Accounts(home_root=root / "home", group_root=root / "groups", archive_root=root.parent / "archive")
anna = Account(name="anna", uid=20007, gid=20007, kind="created", state="retired", created_at="2026-01-01")
for call in (archive.archive_home, archive.delete_home):
    try:
        call(where, anna)
    except LabsteadError as error:
        print(error)
(found,) = (root / "home/.removed-20007/deep").iterdir()
print((found / "thesis").read_text().strip())
(found / "thesis").unlink()
found.rmdir()  # as `btrfs subvolume delete`
# Its owner may do that, and it keeps files from being deleted.
subprocess.run(["btrfs", "property", "set", found.parent.parent, "ro", "true"], check=True)
print(archive.archive_home(where, anna).name, len(list((root / "home").iterdir())))
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None, reason="needs root and btrfs-progs")
@pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="needs loop devices")
def test_a_subvolume_inside_is_refused_before_anything_is_archived(tmp_path: Path) -> None:
    done = subprocess.run(
        # The mount goes with the namespace.
        ["unshare", "--mount", "bash", "-euc", SUBVOLUME, "sh", tmp_path, sys.executable, "mine ü", LIFE],
        env={**os.environ, "PYTHONPATH": f"{ROOT}/hub:{ROOT}/session"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unknown filesystem type" in done.stderr:
        pytest.skip("this kernel has no btrfs")
    assert done.returncode == 0, done.stderr
    *refused, kept, file = done.stdout.splitlines()
    assert refused == 2 * [
        f"{tmp_path}/disk/home/.removed-20007/deep/mine ü is a subvolume of its own, which no archive would hold; make "
        "it a folder, or delete it with `btrfs subvolume delete`"
    ]
    assert (kept, file) == ("thesis", "anna-20007.tar.gz 0")


@pytest.mark.parametrize(("disk", "spared", "words"), [(2**40, 2**31, "2G"), (10 * 2**30, 2**29, "512M")])
def test_an_archive_does_not_fill_the_disk(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch, disk: int, spared: int, words: str
) -> None:
    home = settings.home_root / ".removed-20007"
    (home / "random").write_bytes(os.urandom(2**23))
    settings.archive_root.mkdir()

    def statvfs(folder: Path) -> os.statvfs_result:
        taken = sum(path.stat().st_size for path in folder.iterdir())
        sizes.append(taken)
        return os.statvfs_result((4096, 4096, disk // 4096, 9, (room - taken) // 4096, *[9] * 5))

    monkeypatch.setattr(archive.os, "statvfs", statvfs)
    for free in (spared + 2**20, 2**20):
        room, sizes = free, list[int]()
        with pytest.raises(LabsteadError, match=rf"^no room for the archive of .*: .* has less than the {words} that"):
            archive.archive_home(settings, ANNA)
        assert max(sizes) < 2 * 2**20  # not all of it was tried
        assert (home / "random").stat().st_size == 2**23
        assert list(settings.archive_root.iterdir()) == []
    room = spared + 2**24
    assert archive.archive_home(settings, ANNA)


def test_neither_holes_nor_depth_hold_up_an_archive(settings: Accounts) -> None:
    home = settings.home_root / ".removed-20007"
    if _kind(home) not in archive._TRUSTED:
        pytest.skip("needs XFS, ext4 or btrfs")
    with (home / "holes").open("wb") as stream:
        try:
            stream.truncate(2**43)
        except OSError:
            pytest.skip("no such large files here")
        stream.seek(2**42)
        stream.write(b"thesis")
    here = os.open(home, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 250, dir_fd=here)
        here, above = os.open("d" * 250, os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(os.open("thesis", os.O_CREAT, dir_fd=here))
    os.close(here)
    # Reading the holes would take hours, and the name of the deepest file is too long to be opened.
    file = archive.archive_home(settings, ANNA, 60)
    assert list(settings.home_root.iterdir()) == []
    assert file is not None
    with tarfile.open(file) as opened:
        assert opened.getmember("./holes").size == 2**43
        (deep,) = (name for name in opened.getnames() if name.endswith("/thesis"))
        assert len(deep) > 10_000


def test_what_a_killed_run_left_takes_no_room(settings: Accounts) -> None:
    settings.archive_root.mkdir()
    file = settings.archive_root / "anna-b-20007.tar.gz"
    left = settings.archive_root / f".{file.name}.partial"
    left.write_bytes(b"x" * 5000)
    with archive._alone(file) as partial:
        assert partial == left
        assert partial.stat().st_size == 0


def test_two_do_not_make_the_same_archive(settings: Accounts) -> None:
    settings.archive_root.mkdir()
    with (
        archive._alone(settings.archive_root / "anna-b-20007.tar.gz"),
        pytest.raises(LabsteadError, match="at this moment"),
    ):
        archive.archive_home(settings, ANNA)


def test_archives_are_listed_with_the_day_of_their_end(settings: Accounts) -> None:
    assert archive.archives(settings) == ()
    file = archive.archive_home(settings, ANNA)
    archive.archive_folder(settings, OCEAN)
    (only,) = archive.archives(settings)
    assert (only.name, only.uid, only.file) == ("anna-b", 20007, file)
    assert only.archived_on == date.today()
    assert only.delete_on == date.today() + timedelta(days=10)
    (kept,) = archive.archives(settings.model_copy(update={"remove_after_days": None}))
    assert kept.delete_on is None


def test_what_was_set_aside_is_found(settings: Accounts) -> None:
    assert archive.leftovers(settings.home_root) == (20007,)
    assert archive.leftovers(settings.home_root / "missing") == ()
