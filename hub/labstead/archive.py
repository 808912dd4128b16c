"""Archives of homes and group folders that were removed.

The one rule: nothing is deleted before the archive of it was written to the disk for good, read back and compared with
what was read of the folder, where nothing has changed since; and an archive is never written over, nor fills the disk.
A folder is renamed before its archive gets its name, and deleted after that: a deletion that was cut off is not taken
for a smaller folder, nor what came later for a part of the archive. These functions are for root; they may take hours.
"""

import fcntl
import gzip
import hashlib
import os
import re
import select
import subprocess
import tempfile
import time
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from labstead.accounts import homes
from labstead.accounts.protocol import Account, Group
from labstead.amounts import human_size
from labstead.disks import probe
from labstead.errors import LabsteadError
from labstead.settings import Accounts

SECONDS = 17 * 3600
"""How long one archive may take; labstead-tidy.service has a little more for all of a night."""

_CHUNK = 2**20
_STEP_SECONDS = 2
"""By how much a clock may be behind before it was set back; some file systems know no less than a second."""
_LEVEL = 6
"""What gzip does where it is not told."""
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

_SPARED = 2 * 2**30
"""Bytes that archives leave free: as a rule they are on the disk of the system, which must not be full."""
_SPARED_SHARE = 20
"""They leave this part of a smaller disk: a twentieth."""

_TRUSTED = ("xfs", "ext4", "btrfs")
"""Where a hole is one. Others, of a network above all, say that of data too, which tar takes for zeros then."""

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


def archive_home(settings: Accounts, account: Account, seconds: float = SECONDS) -> Path | None:
    """Put the home of an account that was removed into an archive, then delete it, and its scratch too.

    :param seconds: how long the archive may take
    :return: the archive; None where there is no such home
    :raises LabsteadError: when it fails; the home is still there then
    """
    folder = homes.removed(settings.home_root, account.uid)
    archive = _put_away(folder, settings.archive_root / f"{account.name}-{account.uid}.tar.gz", seconds)
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


def archive_lost_folder(settings: Accounts, gid: int, name: str = "group", seconds: float = SECONDS) -> Path | None:
    """Archive the folder of a group of which nothing but the number may be known; see `archive_home`."""
    folder = homes.removed(settings.group_root, gid)
    _close(folder)
    return _put_away(folder, settings.archive_root / "groups" / f"{name}-{gid}.tar.gz", seconds)


def delete_folder(settings: Accounts, group: Group) -> None:
    """Delete the folder of a group that was removed."""
    folder = homes.removed(settings.group_root, group.gid)
    _close(folder)
    _delete_both(folder)


def _close(folder: Path) -> None:
    """Keep out sessions that still have a removed group's folder mounted."""
    try:
        if folder.is_dir():
            folder.chmod(0o700)
    except OSError as error:
        raise LabsteadError(f"members cannot be kept out of {folder}: {error}") from None


def _short(words: str) -> str:
    """Give both ends of a line with a name of somebody's file in it, which may be very long."""
    return words if len(words) <= 2 * _END else f"{words[:_END]} … {words[-_END:]}"


def _printable(path: str | Path) -> str:
    """Give a path as a message can have it; names of files are any bytes."""
    return _short(os.fsencode(path).decode(errors="replace"))


def _failure(program: str, code: int, complaints: bytes) -> LabsteadError:
    lines = complaints.decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
    return LabsteadError(f"{program}: {_short(lines[0].removeprefix(f'{program}: '))}")


def _late(program: str, seconds: float) -> LabsteadError:
    return LabsteadError(f"{program}: still not done after {seconds / 3600:.1f} hours")


def _run(command: Sequence[str], stdout: int = subprocess.DEVNULL, seconds: float = SECONDS) -> bytes:
    """Run a program; give what it printed, where `stdout` is a pipe."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=seconds,
            check=False,
            env=_ENVIRONMENT,
        )
    except subprocess.TimeoutExpired:
        raise _late(command[0], seconds) from None
    if done.returncode:
        raise _failure(command[0], done.returncode, done.stderr)
    return done.stdout or b""


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
        os.ftruncate(descriptor, 0)  # what a run that was killed left takes room
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _archived(folder: Path) -> Path:
    """Say what a folder is called once it is in its archive."""
    return folder.with_name(folder.name.replace(".removed-", ".archived-"))


def _put_away(folder: Path, archive: Path, seconds: float) -> Path | None:
    done = _archived(folder)
    try:
        if (folder.is_dir() and not folder.is_symlink()) or done.is_dir():
            archive.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone(archive) as partial:
                _bring_in(folder, archive, partial, seconds)
        _delete(done)
    except OSError as error:
        raise LabsteadError(f"the archive {archive} was not made: {error}; look at {folder}") from None
    return archive if archive.is_file() else None


def _bring_in(folder: Path, archive: Path, partial: Path, seconds: float) -> None:
    """Make an archive in `partial` and put it in place, unless that has been done and only the deletion is missing."""
    done = _archived(folder)
    if done.is_dir():
        number = folder.name.removeprefix(".removed-")  # it never comes back
        if any(archive.parent.glob(f"*-{number}.tar.gz")):
            return
        done.rename(folder)  # it was cut off between the two below: nothing was deleted yet
    if archive.exists():
        raise LabsteadError(f"{archive} is there already, and {folder} may not be in it; look at both")
    deadline = time.monotonic() + seconds
    require_nothing_mounted(folder, seconds)
    _make(partial, folder, deadline, seconds)
    require_nothing_mounted(folder, _left(deadline))  # what came meanwhile was left out
    folder.rename(done)
    _flush(done.parent)
    partial.rename(archive)
    _flush(archive.parent)


def _left(deadline: float) -> float:
    return max(1, deadline - time.monotonic())


def _require_room(folder: Path, source: Path) -> None:
    """Refuse to fill the disk of archives. No estimate beforehand: paths, holes and shared blocks belie it."""
    status = os.statvfs(folder)
    spared = min(_SPARED, status.f_blocks * status.f_frsize // _SPARED_SHARE)
    if status.f_bavail * status.f_frsize < spared:
        raise LabsteadError(
            f"no room for the archive of {source}: {folder} has less than the {human_size(spared)} that stay free; "
            "make room there, or set storage_archive_root to a folder on another disk"
        )


def require_nothing_mounted(folder: Path, seconds: float = SECONDS) -> None:
    """Refuse a folder with a mount or a subvolume inside, which would not be in the archive."""
    for point in probe.mount_points():
        if folder in point.parents:
            raise LabsteadError(f"something is mounted at {_printable(point)}; unmount it first")
    if folder.is_dir() and probe.mount_of(folder).kind == "btrfs":
        _require_no_subvolume(folder, seconds)


def _require_no_subvolume(folder: Path, seconds: float) -> None:
    """Refuse what whoever has a shell on the machine can make in a home on btrfs, and tar would leave out."""
    # The top folder of each subvolume has this inode, BTRFS_FIRST_FREE_OBJECTID.
    tops = ["-xdev", "-ignore_readdir_race", "-inum", "256", "-type", "d", "-printf", "%D %p\\0"]
    for line in _run(["find", str(folder), *tops], subprocess.PIPE, seconds).split(b"\0")[:-1]:
        device, path = os.fsdecode(line).split(" ", 1)
        if int(device) != folder.stat().st_dev:
            raise LabsteadError(
                f"{_printable(path)} is a subvolume of its own, which no archive would hold; make it a folder, or "
                "delete it with `btrfs subvolume delete`"
            )


def _make(partial: Path, folder: Path, deadline: float, seconds: float) -> None:
    """Make an archive, bring it to the disk and read it back.

    Not by `tar --compare`: it reads the holes of a file, which can be of any size, and knows no path that is very long.
    """
    before = _now(folder)
    while (begin := _now(folder)) <= before:
        if time.monotonic() > deadline:
            raise _late("waiting for the next tick of the clock", seconds)
        time.sleep(0.01)
    began = time.monotonic()
    # What a process writes through memory that it shares with a file gives the file a new time once after each sync.
    _sync(folder, deadline)
    written = hashlib.sha256()
    _require_room(partial.parent, folder)
    with partial.open("wb") as stream:
        with (
            gzip.GzipFile("", "wb", _LEVEL, stream) as packed,
            closing(_packed(folder, deadline, seconds)) as chunks,
        ):
            for chunk in chunks:
                written.update(chunk)
                packed.write(chunk)
                _require_room(partial.parent, folder)
        stream.flush()
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that the disk is read, not memory
    if _digest(partial, deadline, seconds) != written.digest():
        raise LabsteadError(f"{partial}: what was read back is not what was written")
    since = f"@{before // 10**9}.{before % 10**9:09}"
    changed = ["find", str(folder), "-xdev", "-newerct", since, "-printf", "%C@ %p\\0", "-quit"]
    found = os.fsdecode(_run(changed, subprocess.PIPE, _left(deadline)))[:-1]
    passed = time.monotonic() - began
    now = _now(folder)
    if found:
        at, path = found.split(" ", 1)
        if float(at) > now / 10**9:
            raise LabsteadError(
                f"{_printable(path)} has a time in the future, so changes cannot be told; "
                f"run `find {folder} -newerct now -exec touch --no-create --no-dereference {{}} +`"
            )
        raise LabsteadError(f"{_printable(path)} changed while it was archived; does a session or a job still use it?")
    if (now - begin) / 10**9 < passed - _STEP_SECONDS:
        raise LabsteadError(f"the clock of {folder} was set back while it was archived, so changes cannot be told")


def _now(folder: Path) -> int:
    """Give the time that a change of a folder gets now, in ns: by its file system, which may be on another machine."""
    with tempfile.TemporaryFile(dir=folder.parent) as stream:
        return os.fstat(stream.fileno()).st_ctime_ns


def _sync(folder: Path, deadline: float) -> None:
    _run(["sync", "--file-system", str(folder)], seconds=_left(deadline))


def _packed(folder: Path, deadline: float, seconds: float) -> Generator[bytes]:
    """Give what tar makes of a folder, piece by piece."""
    options = ["--create", "--numeric-owner", "--acls", "--xattrs", "--one-file-system"]
    if probe.mount_of(folder).kind in _TRUSTED:
        options.append("--sparse")
    command = ["tar", *options, f"--directory={folder}", "."]
    said = b""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_ENVIRONMENT
    ) as tar:
        waiting = [stream for stream in (tar.stdout, tar.stderr) if stream]
        try:
            while waiting:
                left = deadline - time.monotonic()
                ready = select.select(waiting, [], [], max(0, left))[0]
                if left <= 0 or not ready:
                    raise _late("tar", seconds)
                for stream in ready:
                    if not (chunk := os.read(stream.fileno(), _CHUNK)):
                        waiting.remove(stream)
                    elif stream is tar.stdout:
                        yield chunk
                    else:
                        said += chunk[: _CHUNK - len(said)]
            tar.wait(_left(deadline))
        except subprocess.TimeoutExpired:
            raise _late("tar", seconds) from None
        finally:
            tar.kill()
    if tar.returncode:
        raise _failure("tar", tar.returncode, said)


def _digest(file: Path, deadline: float, seconds: float) -> bytes:
    """Read an archive and sum up what is in it."""
    found = hashlib.sha256()
    try:
        with gzip.open(file) as stream:
            while chunk := stream.read(_CHUNK):
                found.update(chunk)
                if time.monotonic() > deadline:
                    raise _late("reading the archive back", seconds)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabsteadError(f"{file}: cannot be read back: {error}") from None
    return found.digest()


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
    # Its owner may make a subvolume read-only; then root cannot write there either.
    if probe.mount_of(folder).kind == "btrfs" and not os.access(folder, os.W_OK):
        _run(["btrfs", "property", "set", "-t", "subvol", str(folder), "ro", "false"])
    _run(["rm", "--recursive", "--force", "--one-file-system", "--", str(folder)])
    if folder.exists():
        raise LabsteadError(f"{folder} could not be deleted whole; is something mounted inside?")
