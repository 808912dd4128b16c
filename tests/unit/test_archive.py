"""What is left of homes and group folders."""

import os
import subprocess
import tarfile
from datetime import date, timedelta
from pathlib import Path

import pytest

from labstead import archive
from labstead.accounts.protocol import Account, Group
from labstead.errors import LabsteadError
from labstead.settings import Accounts

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


@pytest.mark.parametrize("broken", ["tar --create", "tar --compare"])
def test_nothing_is_deleted_without_a_whole_archive(
    settings: Accounts, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    real = subprocess.run

    def run(command: list[str], **kwargs: object) -> object:
        if " ".join(command).startswith(broken):
            return subprocess.CompletedProcess(command, 2, b"", b"tar: No space left on device\n")
        return real(command, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(LabsteadError, match="No space left"):
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

    def cut_off_after_bringing_in(folder: Path, file: Path, partial: Path) -> None:
        bring_in(folder, file, partial)
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


def test_what_is_mounted_inside_is_not_deleted(settings: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    home = settings.home_root / ".removed-20007"
    mounts = f"36 35 98:0 / {home}/with\\040blank rw - tmpfs none rw\n"
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_kwargs: mounts)
    for call in (archive.archive_home, archive.delete_home):
        with pytest.raises(LabsteadError, match=r"something is mounted at .*/with blank"):
            call(settings, ANNA)
    assert (home / "notes").exists()


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
