"""Disks as site.yml makes, uses and refuses them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import provision
from support.lab import Attempt, Lab
from support.provision import SETTINGS

ROOTS = ("/home", "/groups", "/scratch")
DISK = "/srv/labstead/test.img"
"""Where the disk of the test hosts is mounted; see support.provision."""


# --- what was made


@pytest.mark.parametrize("root", ROOTS)
def test_each_root_is_on_the_disk_now_and_at_boot(lab: Lab, root: str) -> None:
    assert lab.machine.out("findmnt", "--noheadings", "--output", "FSTYPE", root) == "btrfs"
    (line,) = (line for line in lab.machine.out("cat", "/etc/fstab").splitlines() if line.split()[1:2] == [root])
    assert line.split()[0].startswith(f"{DISK}/")
    options = lab.machine.out("findmnt", "--noheadings", "--output", "OPTIONS", root).split(",")
    assert {"nodev", "nosuid"} <= set(options)
    assert lab.machine.out("stat", "--format=%U:%G %a", root) == "root:root 755"


def test_the_disk_itself_is_no_way_around(lab: Lab) -> None:
    denied = lab.machine.run("setpriv", "--reuid=nobody", "--clear-groups", "ls", f"{DISK}/home", check=False)
    assert denied.returncode != 0
    assert "Permission denied" in denied.stderr
    assert lab.machine.out("stat", "--format=%U:%a", "/srv/test.img") == "root:600"


# What systemd makes of /etc/fstab at the next boot.
BOOT = r"""
units=$(mktemp -d)
/usr/lib/systemd/system-generators/systemd-fstab-generator "$units" "$units" "$units"
cd "$units"
for root in /srv/labstead/test.img /home /groups /scratch; do
    unit=$(systemd-escape --path --suffix=mount "$root")
    ls -d local-fs.target.*/"$unit"
    grep -x 'Before=.*local-fs.target.*' "$unit"
done
rm -r "$units"
"""


def test_a_dead_disk_keeps_nobody_from_booting_and_is_waited_for(lab: Lab) -> None:
    units = ("srv-labstead-test.img", "home", "groups", "scratch")
    told = lab.machine.sh(BOOT).stdout.splitlines()
    # Wanted, not required: a machine that needs a dead disk ends where nobody can log in.
    assert told[::2] == [f"local-fs.target.wants/{unit}.mount" for unit in units]
    assert all("local-fs.target" in line for line in told[1::2])


def test_limits_are_proved_and_nothing_stays(lab: Lab) -> None:
    done = lab.machine.run("labstead", "disk", "prove", *ROOTS)
    assert (done.stdout, done.stderr) == ("", "")
    assert lab.machine.sh("ls -A /home /groups /scratch | grep proof || true").stdout == ""


FULL = r"""
truncate --size=200M /root/try-full
mkfs.btrfs --quiet /root/try-full
mkdir -p /srv/try-full
mount -o loop /root/try-full /srv/try-full
btrfs quota enable /srv/try-full
for size in 128 64 32 16 8 4 2 1; do
    fallocate --length "${size}M" "/srv/try-full/$size" || true
done
"""


def test_a_disk_that_is_too_full_to_try_is_told_of_and_stops_no_run(lab: Lab) -> None:
    try:
        lab.machine.sh(FULL, timeout=60)
        for words, code in (((), 1), (("--may-wait",), 0)):
            done = lab.machine.run("labstead", "disk", "prove", *words, "/srv/try-full", "/home", check=False)
            assert (done.returncode, done.stdout) == (code, "")
            assert done.stderr == ("labstead: /srv/try-full: too full to try whether limits hold; make 32 MB of room\n")
    finally:
        lab.machine.sh("umount /srv/try-full; rm -rf /root/try-full /srv/try-full", check=False)


def test_what_holds_no_limit_is_told_in_one_line(lab: Lab) -> None:
    """The first process's file systems: none that labstead knows, and one that holds limits beside it."""
    done = lab.machine.run("labstead", "disk", "prove", "/home", "/proc", check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(
        r"/proc: labstead cannot set limits on proc \(proc\); put it on a disk with [^\n]*\n", done.stderr
    )


def test_a_folder_that_is_missing_is_told_in_one_line(lab: Lab) -> None:
    done = lab.machine.run("labstead", "disk", "prove", "/nosuch", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "/nosuch: No such file or directory; is its file system mounted?\n"


# --- what is refused

MAKE = r"""
mkdir -p /srv/try/full/anna /srv/try/plain /srv/try/off
truncate --size=200M /root/try-ext4 /root/try-data /root/try-off
mkfs.ext4 -q -L thesis /root/try-ext4
dd if=/dev/urandom of=/root/try-data bs=64K count=1 seek=32 conv=notrunc status=none
mkfs.btrfs --quiet /root/try-off
mount -o loop /root/try-off /srv/try/off
ln -s "$(losetup --find --show /root/try-ext4)" /dev/try-ext4
ln -s "$(losetup --find --show /root/try-data)" /dev/try-data
# A kernel without quotas on XFS and ext4, whatever this one has.
printf 'CONFIG_EXT4_FS=y\nCONFIG_XFS_FS=y\n# CONFIG_XFS_QUOTA is not set\nCONFIG_BTRFS_FS=y\n' | gzip >/root/try-config
if [ -e /proc/config.gz ]; then
    mount --bind /root/try-config /proc/config.gz
else
    zcat /root/try-config >"/boot/config-$(uname -r)"
fi
"""
UNDO = r"""
umount /srv/try/off || true
losetup --detach "$(readlink /dev/try-ext4)" || true
losetup --detach "$(readlink /dev/try-data)" || true
umount /proc/config.gz || rm -f "/boot/config-$(uname -r)"
rm -rf /dev/try-ext4 /dev/try-data /root/try-* /srv/try
"""

_ROOTS = {
    "storage_home_root": "/srv/try/full",
    "storage_group_root": "/srv/try/group",
    "storage_scratch_root": "/srv/try/scratch",
}
MISTAKES = {
    "disks": {
        **_ROOTS,
        "storage_disks": [
            {"device": "/dev/try-ext4", "filesystem": "btrfs", "holds": ["home"]},
            {"device": "/dev/try-data", "filesystem": "btrfs", "holds": ["group"]},
            {"file": "/srv/try.img", "size": "1G", "filesystem": "xfs", "holds": ["scratch"]},
        ],
    },
    "mounts": {
        "storage_disks": [],
        "storage_home_root": "/srv/try/plain",
        "storage_group_root": "/srv/try/off/groups",
        "storage_scratch_root": "/scratch",
        "storage_scratch_files": 1000,
    },
    "sizes": {"storage_home_quota": "5 apples", "accounts_users": [{"name": "anna", "files": "5 apples"}]},
}
LINES = {
    "disks": [
        ["/dev/try-ext4: holds ext4 (label thesis)", "blkdiscard --force --zeroout /dev/try-ext4"],
        ["/dev/try-data: holds data without a signature (at byte 20971", "blkdiscard --force --zeroout /dev/try-data"],
        ["/srv/try.img: this kernel has no quotas for xfs (CONFIG_XFS_QUOTA)", "boot one that has"],
        ["/srv/try/full: holds anna, which /dev/try-ext4 would hide", "set storage_home_root to a new folder"],
    ],
    "mounts": [
        ["/srv/try/plain: ", "no quotas for ext4 (CONFIG_QUOTA, CONFIG_QFMT_V2)", "storage_disks"],
        ["/srv/try/off/groups: btrfs on /dev/loop", "has its quotas off", "run `btrfs quota enable /srv/try/off`"],
        ["/scratch: btrfs cannot limit files", "remove storage_scratch_files"],
    ],
    "sizes": [
        ["storage_home_quota: '5 apples' is not a size", "such as 4G"],
        ["accounts_users[1].files: '5 apples' is not a number of files", "such as 100000"],
    ],
}


@pytest.fixture(scope="module")
def refused(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Attempt]]:
    """Run site.yml with each of the mistakes, on devices that hold something."""
    folder: Path = tmp_path_factory.mktemp("disks")
    devices = "sha256sum /dev/try-ext4 /dev/try-data; cat /etc/fstab; findmnt --list --noheadings"

    def state() -> set[str]:
        lines = (provision.fingerprint(lab.machine) + lab.machine.sh(devices).stdout).splitlines()
        # The hub runs, and notes what people do; what lies on the disk is written to the file that the disk is; the
        # first log-in by ssh after a boot has a mount of its own.
        return {
            line for line in lines if not line.startswith(("/var/lib/labstead/hub", "/srv/test.img ", "/run/user/"))
        }

    lab.machine.sh(UNDO, check=False)
    lab.machine.sh(MAKE)
    try:
        found = {}
        for name, mistake in MISTAKES.items():
            inventory = provision.inventory(lab.machine, folder / f"{name}.yml", {**SETTINGS, **mistake})
            before = state()
            result = provision.run(inventory, folder / f"{name}.log")
            after = state()
            found[name] = Attempt(result.code, result.text, "\n".join(sorted(before ^ after)))
        yield found
    finally:
        lab.machine.sh(UNDO, check=False)


@pytest.mark.parametrize("mistake", LINES)
def test_what_cannot_be_is_refused_before_anything_changes(refused: dict[str, Attempt], mistake: str) -> None:
    assert refused[mistake].code != 0
    assert refused[mistake].changed == ""


@pytest.mark.parametrize("mistake", LINES)
def test_what_cannot_be_is_told_in_one_line_each(refused: dict[str, Attempt], mistake: str) -> None:
    text = refused[mistake].text
    told = [line for line in text.splitlines() if re.search(r"\b(inventory|machine): lt13: ", line)]
    assert len(told) == len(LINES[mistake]), text
    for words in LINES[mistake]:
        assert any(all(word in line for word in words) for line in told), f"no line with {words} in\n{text}"
    assert "Traceback" not in text
