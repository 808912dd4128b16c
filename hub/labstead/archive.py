"""Archives of homes and group folders that were removed.

The one rule: nothing is deleted before the archive of it was read back, compared and written to the disk for good, and
an archive is never written over. A folder that is in its archive is renamed before it is deleted, so that a deletion
that was cut off is not taken for a smaller folder. These functions are for root; they may take hours.
"""

import fcntl
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from labstead.accounts import homes
from labstead.accounts.protocol import Account, Group
from labstead.errors import LabsteadError
from labstead.settings import Accounts

_SECONDS = 17 * 3600
"""How long one archive may take; labstead-tidy.service has a little more."""

_END = 150
"""Characters of each end of a program's complaint."""

_FILE = re.compile(r"(?P<name>[a-z][a-z0-9_-]*)-(?P<uid>\d+)\.tar\.gz")
_LEFTOVER = re.compile(r"\.(removed|archived)-(\d+)")


class Archive(BaseModel):
    """What is left of somebody's home."""

    model_config = ConfigDict(frozen=True)

    name: str
    uid: int
    size: int
    """Bytes."""
    archived_on: date
    delete_on: date | None
    """Day on which tidying deletes it; None: never."""
    file: Path


def archives(settings: Accounts) -> tuple[Archive, ...]:
    """List the archives of homes, by name."""
    found = []
    folder = settings.archive_root
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _FILE.fullmatch(file.name):
            status = file.stat()
            archived_on = date.fromtimestamp(status.st_mtime)
            days = settings.remove_after_days
            found.append(
                Archive(
                    name=match["name"],
                    uid=int(match["uid"]),
                    size=status.st_size,
                    archived_on=archived_on,
                    delete_on=None if days is None else archived_on + timedelta(days=days),
                    file=file,
                )
            )
    return tuple(found)


def leftovers(root: Path | None) -> tuple[int, ...]:
    """Give the numbers of homes, scratch or group folders that were set aside and wait to be archived or deleted."""
    paths = root.iterdir() if root is not None and root.is_dir() else ()
    names = (_LEFTOVER.fullmatch(path.name) for path in paths)
    return tuple(sorted({int(match[2]) for match in names if match}))


def archive_home(settings: Accounts, account: Account) -> Path | None:
    """Put the home of an account that was removed into an archive, then delete it, and its scratch too.

    :return: the archive; None where there is no such home
    :raises LabsteadError: when it fails; the home is still there then
    """
    folder = homes.removed(settings.home_root, account.uid)
    archive = _put_away(folder, settings.archive_root / f"{account.name}-{account.uid}.tar.gz")
    delete_scratch(settings, account.uid)
    return archive


def delete_home(settings: Accounts, account: Account) -> None:
    """Delete home and scratch of an account that was removed."""
    _delete_both(homes.removed(settings.home_root, account.uid))
    delete_scratch(settings, account.uid)


def delete_scratch(settings: Accounts, uid: int) -> None:
    """Delete the scratch of an account that was removed."""
    if settings.scratch_root is not None:
        _delete_both(homes.removed(settings.scratch_root, uid))


def archive_folder(settings: Accounts, group: Group) -> Path | None:
    """Put the folder of a group that was removed into an archive, then delete it; see `archive_home`."""
    return archive_lost_folder(settings, group.gid, group.name)


def archive_lost_folder(settings: Accounts, gid: int, name: str = "group") -> Path | None:
    """Archive the folder of a group of which nothing but the number may be known."""
    folder = homes.removed(settings.group_root, gid)
    _close(folder)
    return _put_away(folder, settings.archive_root / "groups" / f"{name}-{gid}.tar.gz")


def delete_folder(settings: Accounts, group: Group) -> None:
    """Delete the folder of a group that was removed."""
    folder = homes.removed(settings.group_root, group.gid)
    _close(folder)
    _delete_both(folder)


def _close(folder: Path) -> None:
    """Keep out sessions that still have a removed group's folder mounted."""
    if folder.is_dir():
        folder.chmod(0o700)


def _short(words: str) -> str:
    """Give both ends of a line with a name of somebody's file in it, which may be very long."""
    return words if len(words) <= 2 * _END else f"{words[:_END]} … {words[-_END:]}"


def _run(command: Sequence[str], stdout: int = subprocess.DEVNULL) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=_SECONDS,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise LabsteadError(f"{command[0]}: still not done after {_SECONDS // 3600} hours") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise LabsteadError(f"{command[0]}: {_short(lines[0].removeprefix(f'{command[0]}: '))}")


def _differences(archive: Path, folder: Path) -> None:
    """Compare an archive with the folder that is in it; :raises LabsteadError: when they differ."""
    _run(["tar", "--compare", "--gzip", f"--file={archive}", f"--directory={folder}"])


@contextmanager
def _alone(archive: Path) -> Iterator[Path]:
    """Give the file beside an archive in which it is made, to one process at a time."""
    partial = archive.with_name(f".{archive.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabsteadError(f"{archive} is being made at this moment") from None
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _archived(folder: Path) -> Path:
    """Say what a folder is called once it is in its archive."""
    return folder.with_name(folder.name.replace(".removed-", ".archived-"))


def _put_away(folder: Path, archive: Path) -> Path | None:
    done = _archived(folder)
    try:
        if folder.is_dir() and not folder.is_symlink() and not done.exists():
            require_nothing_mounted(folder)
            archive.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone(archive) as partial:
                _bring_in(folder, archive, partial)
                folder.rename(done)
                _flush(done.parent)
        _delete(done)
    except OSError as error:
        raise LabsteadError(f"the archive {archive} was not made: {error}; look at {folder}") from None
    return archive if archive.is_file() else None


def _bring_in(folder: Path, archive: Path, partial: Path) -> None:
    """Make an archive in `partial` and put it in place; one that is there must be of this very folder."""
    if archive.exists():
        try:
            _differences(archive, folder)
        except LabsteadError as error:
            raise LabsteadError(f"{archive} is there already and is not of {folder} ({error}); look at both") from None
        return
    _make(partial, folder)
    partial.rename(archive)
    _flush(archive.parent)


def require_nothing_mounted(folder: Path) -> None:
    """Refuse a folder with a mount inside, which would not be in the archive."""
    inside = f"{folder}/"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        place = line.split()[4].encode().decode("unicode_escape")  # \040 is a blank, proc(5)
        if place.startswith(inside):
            raise LabsteadError(f"something is mounted at {place}; unmount it first")


def _make(partial: Path, folder: Path) -> None:
    """Make an archive, read it back and bring it to the disk."""
    with partial.open("wb") as stream:
        options = ["--create", "--gzip", "--numeric-owner", "--acls", "--xattrs", "--sparse", "--one-file-system"]
        _run(["tar", *options, f"--directory={folder}", "."], stdout=stream.fileno())
        stream.flush()
        os.fsync(stream.fileno())
    _differences(partial, folder)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete_both(folder: Path) -> None:
    for path in (_archived(folder), folder):
        if path.exists():
            require_nothing_mounted(path)
        _delete(path)


def _delete(folder: Path) -> None:
    """Delete a folder, but nothing that is mounted inside it."""
    if not folder.exists():
        return
    _run(["rm", "--recursive", "--force", "--one-file-system", "--", str(folder)])
    if folder.exists():
        raise LabsteadError(f"{folder} could not be deleted whole; is something mounted inside?")
