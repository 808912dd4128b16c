"""Where hosts live on the disk: records, locks and leftovers.

The rule: a record is written whole or not at all, and changed only under the lock of its name.

    DIR/base/SUITE-HASH        bootstrapped trees, never booted
    DIR/debs/SUITE             packages that hosts have fetched
    DIR/hosts/NAME             state.json, keeper.json, notes.json, console.log, known_hosts, root/
    DIR/locks, DIR/ssh, DIR/trash
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .plain import Busy, Cable, say

DIR = Path(os.environ.get("LABSTEAD_HOSTS_DIR") or "/var/cache/labstead-hosts").absolute()
LOCK_SECONDS = 900.0


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has this number now, None if there is none or it is a zombie."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return parse_stat(text)

    def alive(self) -> bool:
        """Tell whether this very process still runs."""
        return Process.of(self.pid) == self


def parse_stat(text: str) -> Process | None:
    """Read /proc/PID/stat; the command name in brackets may hold blanks and brackets."""
    before, _, after = text.rpartition(")")
    fields = after.split()
    if fields[0] in ("Z", "X"):
        return None
    return Process(int(before.split()[0]), int(fields[19]))


@dataclass(frozen=True)
class Host:
    """What is recorded about a host; `ready` once it has been up, before that it is half-made."""

    name: str
    suite: str
    slot: int
    ready: bool = False

    @property
    def dir(self) -> Path:
        """Return the host's directory."""
        return DIR / "hosts" / self.name

    @property
    def root(self) -> Path:
        """Return the host's root directory."""
        return self.dir / "root"

    @property
    def console(self) -> Path:
        """Return the log of the host's console."""
        return self.dir / "console.log"

    @property
    def cable(self) -> Cable:
        """Return the host's network."""
        return Cable(self.slot)

    def save(self) -> None:
        """Write the record."""
        write_json(self.dir / "state.json", asdict(self))

    @classmethod
    def load(cls, name: str) -> Host | None:
        """Return the host's record, None if there is none (a killed run may leave none)."""
        record = read_json(DIR / "hosts" / name / "state.json")
        try:
            return cls(**record) if record else None
        except TypeError:
            return None


@dataclass(frozen=True)
class Keeper:
    """The process that keeps a host's systemd-nspawn, and the control groups it made for it."""

    process: Process
    cgroups: tuple[str, ...]

    def save(self, name: str) -> None:
        """Write the record."""
        record = {**asdict(self.process), "cgroups": list(self.cgroups)}
        write_json(DIR / "hosts" / name / "keeper.json", record)

    @classmethod
    def load(cls, name: str) -> Keeper | None:
        """Return the recorded keeper, None if there is no (whole) record."""
        record = read_json(DIR / "hosts" / name / "keeper.json")
        try:
            return cls(Process(record["pid"], record["start"]), tuple(record["cgroups"]))
        except (KeyError, TypeError):
            return None


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record atomically, for root's eyes only (mkstemp gives 0600)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(record, file, indent=2)
        file.write("\n")
    Path(temporary).replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return a record, empty if there is none or it is damaged."""
    try:
        record = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def names() -> list[str]:
    """Return the names of all hosts, half-made ones too."""
    folder = DIR / "hosts"
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def prepare() -> None:
    """Make the folders; nobody but root looks inside, for the trees hold setuid programs."""
    for folder in (DIR, *(DIR / part for part in ("base", "debs", "hosts", "locks", "trash"))):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextlib.contextmanager
def lock(what: str, *, shared: bool = False, wait: float = LOCK_SECONDS, folder: Path | None = None) -> Iterator[int]:
    """Hold a lock and return its descriptor; the kernel lets go of it when this process dies, however that happens."""
    folder = folder or DIR / "locks"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    told = False
    end = time.monotonic() + wait
    with (folder / what).open("w") as file:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise Busy(f"another run still works on '{what}' after {wait:.0f} s") from None
                if not told:
                    say(f"waiting for another run that works on '{what}'")
                    told = True
                time.sleep(0.1)
        yield file.fileno()


def mounts_below(folder: Path) -> list[str]:
    """Return the mount points at or below a folder, innermost first."""
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(folder) or point.startswith(f"{folder}/"):
            points.append(point)
    return points[::-1]


def discard(folder: Path) -> None:
    """Take a tree away for good: its mounts, its loop devices, and files that resist."""
    if not folder.exists():
        return
    for point in mounts_below(folder):
        subprocess.run(["umount", "--lazy", "--no-canonicalize", point], check=False)
    detach_loops(folder)
    # First out of the way at once, so that the name is free whatever happens to the removal.
    own = Process.of(os.getpid())
    assert own is not None
    grave = DIR / "trash" / f"{own.pid}-{own.start}-{time.time_ns()}-{folder.name}"
    grave.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(grave)
    _bury(grave)


def empty_trash() -> None:
    """Take away what a killed run had only begun to take away."""
    with lock("trash"):
        for grave in list((DIR / "trash").iterdir()):
            words = grave.name.split("-")
            owner = Process(int(words[0]), int(words[1]))
            if not owner.alive():
                _bury(grave)


def _bury(folder: Path) -> None:
    """Remove a tree, also one with immutable files or read-only btrfs subvolumes."""
    remove = ["rm", "-rf", "--one-file-system", "--", str(folder)]
    if subprocess.run(remove, capture_output=True, check=False).returncode == 0:
        return
    resisting = ["chattr", "-R", "-f", "-i", "-a", str(folder)]
    subprocess.run(resisting, capture_output=True, check=False)
    if shutil.which("btrfs"):
        for path, _, _ in os.walk(folder):
            if os.lstat(path).st_ino == 256:  # the root of a btrfs subvolume has this inode number
                command = ["btrfs", "property", "set", "-f", "-t", "subvol", path, "ro", "false"]
                subprocess.run(command, capture_output=True, check=False)
    again = subprocess.run(remove, capture_output=True, text=True, check=False)
    if again.returncode != 0:
        say(f"left over for the next run: {folder} ({again.stderr.strip().splitlines()[-1]})")


def detach_loops(folder: Path) -> None:
    """Detach loop devices from files below a folder.

    A device that was attached within a host shows the path as that host saw it, so files are told
    by device and inode number.
    """
    command = ["losetup", "--list", "--json", "--output", "NAME,BACK-INO,BACK-MAJ:MIN"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0 or not found.stdout.strip():
        return
    number = folder.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    for loop in json.loads(found.stdout)["loopdevices"]:
        if str(loop["back-maj:min"]).replace(" ", "") != device:
            continue
        search = ["find", str(folder), "-xdev", "-inum", str(loop["back-ino"]), "-print", "-quit"]
        if subprocess.run(search, capture_output=True, text=True, check=False).stdout.strip():
            subprocess.run(["losetup", "--detach", loop["name"]], capture_output=True, check=False)
