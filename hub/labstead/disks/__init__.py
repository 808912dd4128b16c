"""Disks: limits that hold.

A space is a folder with a limit of its own: somebody's home, a group's folder, somebody's scratch. Spaces lie on file
systems, and each kind of file system has its own way to hold a limit (`backend`): XFS and ext4 by the quota of the
folder's project and of its owner (`quotas`), btrfs by the quota group of a subvolume (`btrfs`). What no backend knows
(NFS, Lustre, a disk without quotas) is reported only (`other`). `find` says which one a folder is on, `proof` tries
whether a limit holds.

The one rule: the ledger and accounts.yml say what the limits are, and the disks are made to follow
(`labstead.accounts.limits`); nothing here remembers anything.
"""

from labstead.disks.selection import find as find
