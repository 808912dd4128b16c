"""btrfs: a subvolume for each place, and the limit of its quota group.

The one rule: everything goes through btrfs-progs, as an administrator would do it; only which subvolume a folder is, is
asked of the kernel, as there may be a thousand.

btrfs counts bytes only. What counts is what a subvolume refers to, shared with others or not.
"""

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from labstead.disks import probe
from labstead.disks.backend import NO_LIMIT, DiskError, Kind, Limit, NotNow, Place, Report, Soft, Use
from labstead.disks.proof import PROOF_LIMIT, proof_place, require_held

_BTRFS_IOC_INO_LOOKUP = 0xD0009412
_INO_LOOKUP = struct.Struct("=QQ4080x")
"""struct btrfs_ioctl_ino_lookup_args: subvolume, inode, name."""
_FIRST_INODE = 256
"""Of every subvolume, its root; BTRFS_FIRST_FREE_OBJECTID."""
_SECONDS = 600
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def _btrfs(*words: str | Path) -> str:
    try:
        done = subprocess.run(
            ["btrfs", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            umask=0o077,
            timeout=_SECONDS,
            check=False,
            env=_ENVIRONMENT,
        )
    except FileNotFoundError:
        raise DiskError("btrfs: no such program; install btrfs-progs") from None
    except subprocess.TimeoutExpired:
        raise NotNow(f"btrfs {words[0]} {words[1]}: still not done after {_SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise DiskError(f"btrfs {words[0]} {words[1]}: {lines[-1]}")
    return done.stdout


def parse_groups(table: str) -> dict[int, Use]:
    """Read the output of `btrfs qgroup show --raw -r`: what each subvolume holds and may hold."""
    found = {}
    for line in table.splitlines():
        group, *amounts = line.split()[:4] or [""]
        level, _, number = group.partition("/")
        if level == "0" and number.isdigit() and len(amounts) == 3:
            held, _, most = amounts
            found[int(number)] = Use(int(held), None, Limit(None if most == "none" else int(most)))
    return found


def _subvolume(folder: Path) -> int | None:
    """Give the number of the subvolume that a folder is; None where it is none."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        if os.fstat(handle).st_ino != _FIRST_INODE:
            return None
        answer = bytearray(_INO_LOOKUP.pack(0, _FIRST_INODE))
        fcntl.ioctl(handle, _BTRFS_IOC_INO_LOOKUP, answer)
        number: int = _INO_LOOKUP.unpack(answer)[0]
        return number
    finally:
        os.close(handle)


class Btrfs:
    """A mounted btrfs.

    :param problem: why limits do not hold, and what to change; None where they do
    """

    counts_files = False
    counts_users = False

    def __init__(self, root: Path, device: int, problem: str | None) -> None:
        self.kind: Kind = "btrfs" if problem is None else "other"
        self.root = root
        self.device = device
        self._problem = problem

    def problem(self) -> str | None:
        """Say why limits would not hold here, and what to change."""
        return self._problem

    def prove(self) -> None:
        """Try the limit of a subvolume.

        Where somebody has removed a large snapshot, the kernel has stopped counting; it is made to count again.
        """
        counting = probe.quota_groups(self.root) / "inconsistent"
        if self._problem is None and counting.exists() and counting.read_text(encoding="ascii").strip() == "1":
            _btrfs("quota", "rescan", "-w", self.root)
        with proof_place(self) as place:
            self.set_limits({place: PROOF_LIMIT}, {}, Soft())
            require_held(self, place, "limit of a subvolume")

    def make(self, place: Place) -> None:
        """Make an empty subvolume, also where quotas are off: they may be on one day."""
        _btrfs("subvolume", "create", place.path)

    def is_used(self, project: int) -> bool:  # noqa: ARG002
        """Tell that none is: the kernel gives each subvolume a number of its own."""
        return False

    def adopt(self, place: Place) -> bool:
        """Tell that a subvolume is a place already.

        :raises DiskError: for a plain folder
        """
        if self._problem is None and not self.is_place(place):
            raise DiskError(
                f"{place.path}: a plain folder on btrfs, which can have no limit; make it a subvolume: move it away, "
                f"`btrfs subvolume create {place.path}`, and `cp -a --reflink` it back"
            )
        return False

    def is_place(self, place: Place) -> bool:
        """Tell whether a folder is a subvolume."""
        return _subvolume(place.path) is not None

    def forget(self, place: Place) -> None:
        """Do nothing: the quota group of a subvolume that is gone goes with it (Linux 6.10), or is a row of no effect.

        To remove it while the kernel still cleans up after the subvolume makes its counts inconsistent.
        """

    def report(self, places: Iterable[Place]) -> Report:
        """List what the file system counts, as of its last commit: half a minute ago at most."""
        if self._problem is not None:
            return Report()
        groups = parse_groups(_btrfs("qgroup", "show", "--raw", "-r", self.root))
        found = {}
        for place in places:
            # One that cannot be read keeps nobody else's from being counted.
            with suppress(OSError):
                if (number := _subvolume(place.path)) in groups:
                    found[place.project] = groups[number]
        return Report(places=found)

    def set_limits(self, places: Mapping[Place, Limit], users: Mapping[int, Limit], soft: Soft) -> None:  # noqa: ARG002
        """Set limits of bytes at once; btrfs has no others, and no soft ones."""
        for place, limit in places.items():
            if self._problem is not None and limit != NO_LIMIT:
                raise DiskError(self._problem)
            if self._problem is None:
                _btrfs("qgroup", "limit", "none" if limit.bytes is None else str(limit.bytes), place.path)
