#!/bin/sh
# Written by labstead. slurmd runs this as root, among the jobs, when one has ended: what its owner has left in /tmp and
# the like is removed, as it is in memory. The rule: nothing that another job of theirs may use, and always success, as
# Slurm would take the machine out of service.
set -u
uid=${SLURM_JOB_UID:-0} gid=${SLURM_JOB_GID:-$uid}
[ "$uid" -ge 1000 ] || exit 0

# What is younger than this file belongs to a job that began after the look at processes.
now=$(mktemp -p /run) || exit 0
trap 'rm -f "$now"' EXIT
# Processes of theirs in a session, or logged in, are elsewhere: they see another /tmp.
here=$(readlink "/proc/$$/ns/mnt")
find /proc -mindepth 1 -maxdepth 1 -name '[0-9]*' -uid "$uid" 2>/dev/null | while read -r process; do
    [ "$(readlink "$process/ns/mnt" 2>/dev/null)" != "$here" ] || exit 1
done || exit 0
# As the owner: no link that they have put there leads to anything else. They may stop what runs as them, and Slurm starts
# nobody's job before this has ended: timeout is root's.
timeout --kill-after=5 60 setpriv --reuid "$uid" --regid "$gid" --clear-groups \
    find /tmp /var/tmp /dev/shm -xdev -mindepth 1 -depth -uid "$uid" ! -cnewer "$now" -delete >/dev/null 2>&1
exit 0
