"""What the kernel says about the file system below a folder, and why limits would not hold there.

The one rule: it only asks, and needs nothing but Python itself: preflight runs this very file on machines that have no
labstead yet.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gzip
import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

USER, PROJECT = 0, 2
"""Kinds of quota; include/uapi/linux/quota.h, as all numbers of quotas here."""

_QUOTACTL_FD = 443
"""Number of the system call, the same on all processors (Linux 5.14)."""
_Q_GETFMT, _Q_XGETQSTAT = 0x800004, 0x5805
_ENFORCED = {USER: 1 << 1, PROJECT: 1 << 5}
"""FS_QUOTA_UDQ_ENFD, FS_QUOTA_PDQ_ENFD; include/uapi/linux/dqblk_xfs.h."""

_BTRFS_IOC_FS_INFO = 0x8400941F
"""include/uapi/linux/btrfs.h; struct btrfs_ioctl_fs_info_args has 1024 bytes, the UUID at byte 16."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mount:
    """The mount that a folder is on."""

    device: int
    """st_dev of the file system as a whole; a folder on btrfs may have another one."""
    kind: str
    """As in /proc/filesystems."""
    point: str
    source: str
    """Device, as a rule."""


def _plain(text: str) -> str:
    """Undo the \\040 of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _lines(mountinfo: str) -> list[str]:
    # Anybody's mount may have a name with what Python takes for the end of a line; the kernel escapes its own alone.
    return [line for line in mountinfo.split("\n") if line]


def parse_mount(mountinfo: str, number: int) -> Mount:
    """Find a mount by its number in the text of /proc/self/mountinfo; see proc(5).

    :raises LookupError: when it is not there
    """
    for line in _lines(mountinfo):
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if fields[0] == str(number):
            major, minor = fields[2].split(":")
            kind, source = after.split(" ")[:2]
            return Mount(os.makedev(int(major), int(minor)), kind, _plain(fields[4]), _plain(source))
    raise LookupError(f"mount {number}")


def _mountinfo() -> str:
    return os.fsdecode(Path("/proc/self/mountinfo").read_bytes())


def mount_points() -> list[Path]:
    """Say where something is mounted; no file system is asked, as one may hang."""
    return [Path(_plain(line.split(" ")[4])) for line in _lines(_mountinfo())]


def mount_of(folder: Path) -> Mount:
    """Find the mount that a folder is on.

    :raises OSError: when there is no such folder
    """
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        about = Path(f"/proc/self/fdinfo/{handle}").read_text(encoding="ascii")
    finally:
        os.close(handle)
    number = int(about.split("mnt_id:", 1)[1].split(None, 1)[0])
    return parse_mount(_mountinfo(), number)


def quotactl(
    handle: int, command: int, kind: int, number: int, argument: ctypes.Structure | ctypes.Array[ctypes.c_char]
) -> None:
    """Call quotactl_fd(2).

    :raises OSError: when it fails
    """
    code = ctypes.c_uint((command << 8) | kind)
    if _libc.syscall(_QUOTACTL_FD, ctypes.c_uint(handle), code, ctypes.c_uint(number), ctypes.byref(argument)) < 0:
        reason = ctypes.get_errno()
        raise OSError(reason, os.strerror(reason))


_OPTIONS = {"xfs": ("XFS_FS", "XFS_QUOTA"), "ext4": ("EXT4_FS", "QUOTA", "QFMT_V2"), "btrfs": ("BTRFS_FS",)}
"""With what a kernel has to be built to have quotas of users and projects, or quota groups."""


def kernel_configuration() -> str:
    """Give the text of how the running kernel was built; empty where it is not told."""
    try:
        return gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    except OSError:
        pass
    try:
        return Path(f"/boot/config-{os.uname().release}").read_text(encoding="utf-8")
    except OSError:
        return ""


def kernel_problem(kind: str, configuration: str) -> str | None:
    """Say what the running kernel lacks to hold limits on a kind of file system; None also where it is not known.

    :param configuration: from `kernel_configuration`
    """
    built = set(re.findall(r"^CONFIG_(\w+)=[ym]$", configuration, flags=re.MULTILINE))
    missing = [f"CONFIG_{option}" for option in _OPTIONS[kind] if option not in built]
    return _kernel_line(kind, ", ".join(missing)) if missing and built else None


def _kernel_line(kind: str, missing: str) -> str:
    others = [other for other in _OPTIONS if other != kind]
    return (
        f"this kernel has no quotas for {kind} ({missing}); boot one that has, such as Debian's own, or use "
        f"{' or '.join(others)} on a disk of its own (storage_disks)"
    )


def _quota_flags(folder: Path) -> int:
    """Give the flags of struct fs_quota_stat; 0 where no quotas are on.

    :raises OSError: where there are none at all: ENOSYS; or where this process may not ask: EPERM
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        status = ctypes.create_string_buffer(256)  # struct fs_quota_stat, 80 bytes: version, flags, …
        quotactl(handle, _Q_XGETQSTAT, USER, 0, status)
        return int.from_bytes(status.raw[2:4], sys.byteorder)
    except OSError as error:
        # Quotas that are off are ENOSYS as well as a kernel that has none; the next question tells the two apart.
        if error.errno not in (errno.ENOSYS, errno.EINVAL):
            raise
        try:
            quotactl(handle, _Q_GETFMT, USER, 0, ctypes.create_string_buffer(4))
        except OSError as second:
            if second.errno == errno.ENOSYS:
                raise
        return 0
    finally:
        os.close(handle)


def _quota_problem(folder: Path, mount: Mount) -> str | None:
    """Say what is missing for quotas of users and projects on XFS or ext4."""
    try:
        flags = _quota_flags(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        if lacking := kernel_problem(mount.kind, kernel_configuration()):
            return lacking
        if error.errno == errno.ENOSYS:
            return _kernel_line(mount.kind, f"CONFIG_{_OPTIONS[mount.kind][1]}")
        return f"the machine does not let quotas be asked for (quotactl_fd: {error.strerror}); is it a container?"
    missing = [name for kind, name in ((USER, "users"), (PROJECT, "projects")) if not flags & _ENFORCED[kind]]
    if not missing:
        return None
    if lacking := kernel_problem(mount.kind, kernel_configuration()):
        return lacking
    wrong = f"{mount.kind} on {mount.source} is mounted at {mount.point} without quotas of {' and '.join(missing)}"
    if mount.kind == "xfs":
        if mount.point == "/":
            return f"{wrong}; add rootflags=uquota,pquota to the kernel's command line and reboot, or use another disk"
        return f"{wrong}; give it uquota,pquota in /etc/fstab, unmount and mount it (a remount is not enough)"
    if mount.point == "/":
        return f"{wrong}; use another disk (storage_disks), as this one cannot be unmounted"
    return (
        f"{wrong}; unmount it, run `tune2fs -O quota,project {mount.source}`, "
        "give it usrquota,prjquota in /etc/fstab, and mount it"
    )


def quota_groups(folder: Path) -> Path:
    """Say where the kernel tells of the quota groups of a btrfs; it is there while they are on (Linux 5.9)."""
    about = bytearray(1024)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(handle, _BTRFS_IOC_FS_INFO, about)
    finally:
        os.close(handle)
    text = about[16:32].hex()
    return Path("/sys/fs/btrfs", "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])), "qgroups")


def _btrfs_problem(folder: Path, mount: Mount) -> str | None:
    """Say whether btrfs keeps no quota groups."""
    if quota_groups(folder).is_dir():
        return None
    return f"btrfs on {mount.source} has its quotas off; run `btrfs quota enable {mount.point}`"


def problem(folder: Path, mount: Mount) -> str | None:
    """Say why limits would not hold below a folder, and what to change; None where they do."""
    if mount.kind == "btrfs":
        reason = _btrfs_problem(folder, mount)
    elif mount.kind in ("xfs", "ext4"):
        reason = _quota_problem(folder, mount)
    else:
        reason = (
            f"labstead cannot set limits on {mount.kind} ({mount.source}); put it on a disk with XFS, ext4 or btrfs "
            "(storage_disks), or set no limits"
        )
    return None if reason is None else f"{folder}: {reason}"


def nearest(path: Path) -> Path:
    """Give the folder itself, or the nearest one above that exists."""
    while not path.is_dir():
        path = path.parent
    return path


def main(paths: list[str]) -> None:
    """Print what is below folders as JSON, for preflight."""
    found: dict[str, dict[str, object]] = {}
    for path in map(Path, paths):
        folder = nearest(path)
        mount = mount_of(folder)
        reason = problem(folder, mount)
        found[str(path)] = {**asdict(mount), "problem": reason and reason.replace(f"{folder}: ", f"{path}: ", 1)}
    configuration = kernel_configuration()
    kernel = {kind: kernel_problem(kind, configuration) for kind in _OPTIONS}
    sys.stdout.write(json.dumps({"folders": found, "kernel": kernel}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
