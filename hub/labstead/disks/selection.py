"""Which backend goes with a folder.

The one rule: the file system that is found decides, and only one on which limits hold now is more than `other`.
"""

from pathlib import Path

from labstead.disks import probe
from labstead.disks.backend import Backend, DiskError
from labstead.disks.btrfs import Btrfs
from labstead.disks.other import Other
from labstead.disks.quotas import Quotas


def find(folder: Path) -> Backend:
    """Give the backend for what is below a folder.

    It reads the mounts each time, so it is never behind them: ask once for a root, not for every home in it.

    :raises DiskError: when there is no such folder
    """
    try:
        mount = probe.mount_of(folder)
        reason = probe.problem(folder, mount)
    except OSError as error:
        raise DiskError(f"{folder}: {error.strerror}; is its file system mounted?") from None
    if mount.kind == "btrfs":
        return Btrfs(folder, mount.device, reason)
    if reason is None and mount.kind in ("xfs", "ext4"):
        return Quotas("xfs" if mount.kind == "xfs" else "ext4", folder, mount.device)
    return Other(folder, mount.device, reason or f"{folder}: {mount.kind} holds no limits")
