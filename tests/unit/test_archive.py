"""What is left of homes and group folders."""

import gzip
import os
import select
import shutil
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from labstead import archive
from labstead.accounts.protocol import Account, Group
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
        ('"$@"; echo late >"{home}/sub/late"', "/sub changed while it was archived$"),
        ('"$@"; echo late >>"{home}/notes"', "/notes changed while it was archived$"),
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
    def spoil(_: int) -> None:
        (file,) = settings.archive_root.glob(".*.partial")
        written = file.read_bytes()
        file.write_bytes(gzip.compress(gzip.decompress(written)[:-512]) if size is None else written[:size])

    monkeypatch.setattr(archive.os, "fsync", spoil)
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
    bring_in = archive._bring_in

    def cut_off_after_bringing_in(folder: Path, file: Path, partial: Path, seconds: float) -> None:
        bring_in(folder, file, partial, seconds)
        raise KeyboardInterrupt

    def cut_off(folder: Path) -> None:
        if where == "within the deletion":
            (folder / "notes").unlink()
        raise KeyboardInterrupt

    if where == "before the rename":
        monkeypatch.setattr(archive, "_bring_in", cut_off_after_bringing_in)
    else:
        monkeypatch.setattr(archive, "_delete", cut_off)
    with pytest.raises(KeyboardInterrupt):
        archive.archive_home(settings, ANNA)
    monkeypatch.undo()
    assert archive.leftovers(settings.home_root) == (20007,)
    file = archive.archive_home(settings, ANNA)
    assert file is not None
    with tarfile.open(file) as opened:
        assert "./notes" in opened.getnames()
    assert list(settings.home_root.iterdir()) == []


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
mount -o loop "$1/image" "$1/disk"
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
    if "mount:" in done.stderr or "failed to setup loop" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    *refused, kept, file = done.stdout.splitlines()
    assert refused == 2 * [
        f"{tmp_path}/disk/home/.removed-20007/deep/mine ü is a subvolume of its own, which no archive would hold; make "
        "it a folder, or delete it with `btrfs subvolume delete`"
    ]
    assert (kept, file) == ("thesis", "anna-20007.tar.gz 0")


def test_an_archive_does_not_fill_the_disk(settings: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    home = settings.home_root / ".removed-20007"
    (home / "random").write_bytes(os.urandom(2**23))
    settings.archive_root.mkdir()

    def statvfs(folder: Path) -> os.statvfs_result:
        taken = sum(path.stat().st_size for path in folder.iterdir())
        sizes.append(taken)
        return os.statvfs_result((4096, 4096, 9, 9, (room - taken) // 4096, *[9] * 5))

    monkeypatch.setattr(archive.os, "statvfs", statvfs)
    for free in (2 * 2**30 + 2**20, 2**20):
        room, sizes = free, list[int]()
        with pytest.raises(LabsteadError, match=r"^no room for the archive of .*: .* has less than the 2G that stay"):
            archive.archive_home(settings, ANNA)
        assert max(sizes) < 2 * 2**20  # not all of it was tried
        assert (home / "random").stat().st_size == 2**23
        assert list(settings.archive_root.iterdir()) == []
    room = 2 * 2**30 + 2**24
    assert archive.archive_home(settings, ANNA)


def test_neither_holes_nor_depth_hold_up_an_archive(settings: Accounts) -> None:
    home = settings.home_root / ".removed-20007"
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
