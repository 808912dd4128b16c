#!/usr/bin/python
"""Look at the disks that the inventory names and at the file systems of homes, group folders and scratch.

The rule: it reads and never writes, and calls a device empty only where no sign is on it and all that was looked at is
zero: what it does not understand holds data. It runs on the target with nothing but Python's standard library and
util-linux.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: check_disks
short_description: List what stands in the way of limits, and say what has to be done with each disk
description:
  - Reads /sys, /proc and the beginnings of devices; changes nothing, so it runs in check mode as well.
author:
  - labstead contributors
options:
  disks:
    description: The disks as the inventory names them (storage_disks).
    type: list
    elements: dict
    required: true
  roots:
    description: Folder of each kind of space, home, group and scratch; empty for none.
    type: dict
    required: true
  limits:
    description: What is limited of each kind of space, bytes or files.
    type: dict
    required: true
  scratch_days:
    description: Days after which what nobody uses is removed from the folder of scratch; 0 for never.
    type: int
    required: true
  probe:
    description: What labstead.disks.probe says of the folders and the kernel.
    type: dict
    required: true
  kinds:
    description: What makes a file system of each kind, as words of a command, `make`.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Disks | Look for what stands in the way
  check_disks:
    disks: [{device: /dev/sdb, filesystem: xfs, holds: [home]}]
    roots: {home: /home, group: /groups, scratch: ""}
    limits: {home: [bytes], group: [], scratch: []}
    scratch_days: 7
    probe: {folders: {}, kernel: {}}
    kinds: {xfs: {make: [mkfs.xfs, -L, labstead]}}
"""

RETURN = r"""
findings:
  description: One line for each thing to put right, "what, what is wrong; what to do".
  type: list
  elements: str
  returned: always
disks:
  description: Each disk with its state (empty, ours, mounted) and where it is mounted.
  type: list
  elements: dict
  returned: always
"""

LABEL = "labstead"
"""Of the file systems that labstead makes: what bears it is used and never formatted."""
MOUNTS = Path("/srv/labstead")
ACCOUNTS = Path("/etc/labstead/accounts.yml")
FSTAB = Path("/etc/fstab")

END = 4 * 2**20
"""Bytes at both ends of a device that have to be zero: what keeps no signature (encryption without a header, databases,
disks of virtual machines) has data there, and a file system whose beginning was overwritten has its tables."""
SAMPLE = 2**16
SAMPLES = 64
"""Bytes at each of so many places between, which have to be zero as well."""


def run(*words: str) -> tuple[int, str]:
    """Run a program of util-linux."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60, env=environment)
    return done.returncode, done.stdout


def first_data(path: str) -> int | None:
    """Say at which byte something is that is not zero, as far as it was looked at; None for nowhere."""
    handle = os.open(path, os.O_RDONLY)
    try:
        size = os.lseek(handle, 0, os.SEEK_END)
        places = [(0, END), (max(0, size - END), END)]
        places += [(size * number // (SAMPLES + 1), SAMPLE) for number in range(1, SAMPLES + 1)]
        for begin, amount in places:
            block = os.pread(handle, amount, begin)
            if rest := block.lstrip(b"\0"):
                return begin + len(block) - len(rest)
    finally:
        os.close(handle)
    return None


def signs(path: str) -> dict[str, str]:
    """Say what blkid and wipefs find on a device or in a file: TYPE, LABEL, PTTYPE …

    `unclear` is there where they cannot tell.
    """
    code, text = run("blkid", "--probe", "--output", "export", path)
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    found = {key: value for key, value in found.items() if key not in ("DEVNAME", "MINIMUM_IO_SIZE")}
    if code not in (0, 2):
        found["unclear"] = f"blkid ended with {code}"
    erasable = run("wipefs", "--no-act", "--noheadings", "--output", "TYPE", path)
    if erasable[0] or (erasable[1].strip() and not {"TYPE", "PTTYPE"} & set(found)):
        found["unclear"] = erasable[1].strip() or "wipefs cannot read it"
    if not found:
        try:
            where = first_data(path)
        except OSError as error:
            found["unclear"] = f"what cannot be read ({error.strerror})"
        else:
            if where is not None:
                found["unclear"] = f"data without a signature (at byte {where})"
    return found


def what_is_there(found: dict[str, str]) -> str:
    """Describe signs for people; empty for none."""
    kind = found.get("TYPE") or (f"a partition table ({found['PTTYPE']})" if "PTTYPE" in found else "")
    kind = kind or found.get("unclear", "").replace("\n", ", ")
    label = found.get("LABEL", "")
    return f"{kind} (label {label})" if kind and label else kind


def users_of(device: str) -> str:
    """Say who uses a block device now; empty for nobody."""
    real = os.path.realpath(device)
    number = Path(real).stat().st_rdev
    system = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if system.is_dir():
        holders = sorted(entry.name for entry in (system / "holders").glob("*"))
        parts = sorted(entry.parent.name for entry in system.glob("*/partition"))
        if holders:
            return f"is in use by {', '.join(holders)}"
        if parts:
            return f"has partitions ({', '.join(parts)})"
    for line in Path("/proc/swaps").read_text(encoding="utf-8").splitlines()[1:]:
        if os.path.realpath(line.split()[0]) == real:
            return "is swap"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if os.path.realpath(after.split()[1]) == real:
            return f"is mounted at {before.split()[4]}"
    try:
        os.close(os.open(real, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        return f"cannot be had alone ({error.strerror})"
    return ""


def place(disk: dict[str, Any]) -> str:
    """Say what a disk is called: its device or file."""
    return disk.get("device") or disk["file"]


def is_of(mount: dict[str, Any], disk: dict[str, Any]) -> bool:
    """Tell whether a mount is of a disk."""
    source = os.path.realpath(mount["source"])
    if disk.get("device"):
        return source == os.path.realpath(disk["device"])
    backing = Path("/sys/class/block", Path(source).name, "loop", "backing_file")
    return backing.exists() and backing.read_text(encoding="utf-8").strip() == os.path.realpath(disk["file"])


def root_findings(kind: str, root: str, mount: dict[str, Any], disk: dict[str, Any]) -> list[str]:
    """Refuse a folder that is on another disk already, or that holds what the disk would hide."""
    where = place(disk)
    if os.path.ismount(root):
        if is_of(mount, disk):
            if mount["kind"] == disk["filesystem"]:
                return []
            return [f"{root}: {where} is {mount['kind']}, not {disk['filesystem']}; write that in storage_disks"]
        return [
            f"{root}: is mounted from {mount['source']} already, not from {where}; leave {where} out of storage_disks, "
            f"or unmount {root} and take it out of /etc/fstab"
        ]
    path = Path(root)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        return [f"{root}: is not a folder, so {where} cannot be mounted there; move it away"]
    there = sorted(entry.name for entry in path.iterdir())[:3] if path.exists() else []
    if there:
        return [
            f"{root}: holds {', '.join(there)}, which {where} would hide; set storage_{kind}_root to a new folder such "
            f"as /srv/{kind}, or, if nobody logs in from there, Ansible neither, move all of it away as root on the "
            "console, run site.yml, and move it back"
        ]
    return []


def mounted_before(disk: dict[str, Any]) -> str:
    """Say what /etc/fstab has mounted where a disk would be; empty for nothing."""
    point = str(MOUNTS / Path(place(disk)).name)
    table = FSTAB.read_text(encoding="utf-8") if FSTAB.exists() else ""
    lines = [line.split() for line in table.splitlines() if not line.lstrip().startswith("#")]
    return next((words[0] for words in lines if words[1:2] == [point]), "")


def taken_findings(disk: dict[str, Any], found: dict[str, str]) -> list[str]:
    """Refuse what has taken the place of another disk, by its name or as a new file.

    The machine boots without a disk that is gone; an empty one in its place would pass for it.
    """
    before = mounted_before(disk)
    is_same = before == f"UUID={found.get('UUID')}" if before.startswith("UUID=") else bool(found)
    if not before or is_same:
        return []
    where = place(disk)
    lost = "it is gone" if before == where else f"{before} is gone, or has another name now"
    return [
        f"{where}: /etc/fstab has {before} mounted at {MOUNTS / Path(where).name}, and {lost}; bring it back, or take "
        "that line out of /etc/fstab to begin with an empty disk"
    ]


def device_state(disk: dict[str, Any], make: list[str]) -> tuple[str, list[str]]:
    """Say whether a disk that is not mounted is empty or was made by labstead; refuse all others.

    :param make: words of the command that makes a file system on it
    """
    where = place(disk)
    path = Path(where)
    is_file = not disk.get("device")
    if is_file and not path.exists():
        taken = taken_findings(disk, {})
        return ("", taken) if taken else ("empty", [])
    if not path.exists():
        return "", [f"{where}: there is no such device; `lsblk` lists those of this machine"]
    mode = path.stat().st_mode
    if is_file and not stat.S_ISREG(mode):
        return "", [f"{where}: is not a file; name a new one in storage_disks"]
    if not is_file and not stat.S_ISBLK(mode):
        return "", [f"{where}: is not a disk; `lsblk` lists those of this machine"]
    if not is_file and (use := users_of(where)):
        return "", [
            f"{where}: {use}; name an empty disk in storage_disks, or leave it out to have what is mounted used as it "
            "is"
        ]
    found = signs(where)
    is_ours = found.get("LABEL") == LABEL and found.get("TYPE") == disk["filesystem"]
    if is_ours or (not is_file and not found):
        taken = taken_findings(disk, found)
        return ("", taken) if taken else ("ours" if is_ours else "empty", [])
    there = what_is_there(found) or "something"
    undo = (
        f"remove the file and what is in it: rm {where}"
        if is_file
        else f"if all of it may go, run wipefs --all {where} && {shlex.join(make)} {where}, or overwrite it, which may "
        f"take a day: blkdiscard --force --zeroout {where}"
    )
    return "", [
        f"{where}: holds {there}, and only what is empty is made a disk of labstead's; mount it yourself and leave it "
        f"out of storage_disks, or {undo}"
    ]


def disk_findings(
    disks: list[dict[str, Any]], roots: dict[str, str], probe: dict[str, Any], kinds: dict[str, Any]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Look at each disk: what stands in the way, and what has to be done."""
    findings, plan = [], []
    for disk in disks:
        held = {kind: roots[kind] for kind in disk["holds"] if roots[kind]}
        mounts = {root: probe["folders"][root] for root in held.values()}
        found = [line for kind, root in held.items() for line in root_findings(kind, root, mounts[root], disk)]
        point = str(MOUNTS / Path(place(disk)).name)
        if all(os.path.ismount(root) for root in held.values()):
            state = "mounted"
        elif os.path.ismount(point):
            # A run was cut off between the disk and its folders.
            state = "ours"
        else:
            state, more = device_state(disk, kinds[disk["filesystem"]]["make"])
            found += more
        if state != "mounted" and (lacking := probe["kernel"][disk["filesystem"]]):
            found.append(f"{place(disk)}: {lacking}")
        findings += found
        folders = [{"path": root, "folder": f"{point}/{kind}"} for kind, root in held.items()]
        plan.append({**disk, "state": state, "point": point, "folders": folders})
    return findings, plan


def limit_findings(
    disks: list[dict[str, Any]], roots: dict[str, str], limits: dict[str, list[str]], probe: dict[str, Any]
) -> list[str]:
    """Refuse limits that nothing would hold."""
    findings = []
    for kind, units in limits.items():
        root = roots[kind]
        if not units or not root:
            continue
        mount = probe["folders"][root]
        new = [disk for disk in disks if kind in disk["holds"] and disk["state"] != "mounted"]
        filesystem = new[0]["filesystem"] if new else mount["kind"]
        if not new and mount["problem"]:
            findings.append(f"{mount['problem']} (there are limits in the inventory, storage_{kind}_quota or others)")
        elif filesystem == "btrfs" and "files" in units:
            findings.append(
                f"{root}: btrfs cannot limit files; remove storage_{kind}_files and `files` of people and groups, or "
                "use xfs or ext4"
            )
    return findings


def scratch_findings(root: str, days: int) -> list[str]:
    """Refuse to clean a folder of scratch that somebody else has filled, and one in which everybody may write.

    What accounts.yml names, a run before has taken for labstead's. Sessions get no scratch from a folder in which
    somebody could put a link in its place.
    """
    if root and Path(root).is_dir():
        found = Path(root).stat()
        if found.st_mode & 0o022 or found.st_uid != os.geteuid():
            return [
                f"{root}: others than root may write there, and could put links in the place of people's scratch; run "
                f"chown root {root} and chmod 0755 {root}, or set storage_scratch_root to another folder"
            ]
    there = sorted(entry.name for entry in Path(root).iterdir())[:3] if days and root and Path(root).is_dir() else []
    known = ACCOUNTS.exists() and f"scratch_root: {root}\n" in ACCOUNTS.read_text(encoding="utf-8")
    if not there or known:
        return []
    return [
        f"{root}: holds {', '.join(there)} already, and files in scratch are removed after {days} days; set "
        'storage_scratch_root to another folder or to "" for none, or keep all for good with storage_scratch_days: 0'
    ]


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "disks": {"type": "list", "elements": "dict", "required": True},
            "roots": {"type": "dict", "required": True},
            "limits": {"type": "dict", "required": True},
            "scratch_days": {"type": "int", "required": True},
            "probe": {"type": "dict", "required": True},
            "kinds": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    findings, plan = disk_findings(wanted["disks"], wanted["roots"], wanted["probe"], wanted["kinds"])
    findings += limit_findings(plan, wanted["roots"], wanted["limits"], wanted["probe"])
    findings += scratch_findings(wanted["roots"]["scratch"], wanted["scratch_days"])
    module.exit_json(changed=False, findings=findings, disks=plan)


if __name__ == "__main__":
    main()
