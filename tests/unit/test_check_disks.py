"""What the look at disks makes of what it finds; tests/host has the devices."""

import errno
import importlib.util
import os
import stat
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def _load() -> Any:
    path = ROOT / "roles" / "preflight" / "library" / "check_disks.py"
    spec = importlib.util.spec_from_file_location("check_disks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = _load()
KERNEL = {"xfs": None, "ext4": None, "btrfs": None}
KINDS = yaml.safe_load((ROOT / "roles" / "storage" / "vars" / "main.yml").read_text(encoding="utf-8"))[
    "__storage_kinds"
]


def _file(path: Path, *command: str) -> Path:
    """Make a file of 8 MiB, with something in it."""
    with path.open("wb") as stream:
        stream.truncate(8 * 2**20)
    if command:
        subprocess.run([*command, path], check=True, capture_output=True, timeout=60)
    return path


# The first partition of a master boot record, from https://en.wikipedia.org/wiki/Master_boot_record.
MBR = bytes(446) + bytes([0, 0, 2, 0, 0x83, 0, 2, 0, 1, 0, 0, 0, 1, 8, 0, 0]) + bytes(48) + b"\x55\xaa"


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("empty", ""),
        ("ext4", "ext4 (label data)"),
        ("swap", "swap"),
        ("mbr", "a partition table (dos)"),
        ("lvm", "LVM2_member"),
    ],
)
def test_what_is_on_a_disk_is_known_by_its_signs(tmp_path: Path, name: str, there: str) -> None:
    path = _file(tmp_path / name)
    if name == "ext4":
        _file(path, "mkfs.ext4", "-q", "-L", "data")
    elif name == "swap":
        _file(path, "mkswap")
    elif name == "mbr":
        path.write_bytes(MBR + bytes(8 * 2**20))
    elif name == "lvm":  # label in the second sector; lib/format_text/layout.h
        sector = b"LABELONE" + (1).to_bytes(8, "little") + bytes(4) + (32).to_bytes(4, "little") + b"LVM2 001"
        path.write_bytes(bytes(512) + sector + b"0" * 32 + bytes(8 * 2**20))
    found = check.signs(str(path))
    assert bool(found) is (there != "")
    assert check.what_is_there(found) == there


def _gpt_at_the_end(size: int) -> bytes:
    """Give a disk of which only the backup of its partition table is left: UEFI specification, chapter 5.3."""
    sectors = size // 512
    entry = bytes.fromhex("af3dc60f838472478e793d69d8477de4") + b"1" * 16 + struct.pack("<QQQ", 2048, 4095, 0)
    entries = entry.ljust(128 * 128, b"\0")
    place = (sectors - 1, 1, 34, sectors - 34, b"2" * 16, sectors - 33, 128, 128, zlib.crc32(entries))
    header = bytearray(struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, *place))
    header[16:20] = struct.pack("<I", zlib.crc32(header))
    return bytes(size - 33 * 512) + entries + bytes(header).ljust(512, b"\0")


def _raid(size: int) -> bytes:
    """Give a member of an array: struct mdp_superblock_1 at 4 KiB, include/uapi/linux/raid/md_p.h."""
    block = bytearray(256)
    block[:8] = struct.pack("<II", 0xA92B4EFC, 1)
    block[16:32] = b"array of labstead"[:16]
    block[144:152] = struct.pack("<Q", 8)  # super_offset, in sectors
    total = sum(struct.unpack("<64I", block))
    block[216:220] = struct.pack("<I", ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    return (bytes(4096) + block).ljust(size, b"\0")


def _zfs(size: int) -> bytes:
    """Give a member of a pool, with its uberblocks from 128 KiB of the first label on, each 1 KiB."""
    label = bytes(128 * 1024) + struct.pack("<QQQ", 0x00BAB10C, 5000, 7).ljust(1024, b"\0") * 128
    return (label + label).ljust(size, b"\0")


SIZE = 8 * 2**20
MADE = {
    "gpt": (_gpt_at_the_end(SIZE), "gpt"),
    "raid": (_raid(SIZE), "linux_raid_member"),
    # Version 1: its key material needs no checksum; LUKS1 on-disk format specification.
    "luks": ((b"LUKS\xba\xbe\0\1" + b"aes".ljust(32, b"\0")).ljust(SIZE, b"\0"), "crypto_LUKS"),
    # Without the list of what is in the pool, which some versions of libblkid want: then it is data all the same.
    "zfs": (_zfs(SIZE), ""),
}


@pytest.mark.parametrize("name", MADE)
def test_what_looks_empty_at_a_glance_is_known_by_its_signs(tmp_path: Path, name: str) -> None:
    content, there = MADE[name]
    path = tmp_path / name
    path.write_bytes(content)
    text = check.what_is_there(check.signs(str(path)))
    assert text == there or (text and not there)


@pytest.mark.parametrize("where", [0, 2**20 + 5, 40 * 2**20 - 1, 20 * 2**20])
def test_data_without_a_signature_is_not_empty(tmp_path: Path, where: int) -> None:
    """Plain encryption, a database, a file system whose beginning somebody has overwritten."""
    path = tmp_path / "disk"
    with path.open("wb") as stream:
        stream.truncate(40 * 2**20)
        if where == 20 * 2**20:  # far from both ends: found where a sample is
            where -= 2**20
            stream.seek(where)
            stream.write(b"x" * 2**21)
        else:
            stream.seek(where)
            stream.write(b"x")
    assert path.stat().st_size == 40 * 2**20
    text = check.what_is_there(check.signs(str(path)))
    assert text.startswith("data without a signature (at byte ")
    assert where <= int(text.split()[-1].rstrip(")")) < where + 2**20


def test_a_disk_that_cannot_be_read_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: str) -> int | None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(check, "first_data", broken)
    found = check.signs(str(_file(tmp_path / "broken")))
    assert check.what_is_there(found) == "what cannot be read (Input/output error)"


def _disk(where: Path, **more: Any) -> dict[str, Any]:
    return {"file": str(where), "size": "8M", "filesystem": "ext4", "holds": ["home"], **more}


def _state(disk: dict[str, Any]) -> tuple[str, list[str]]:
    """Say how it is with a disk, and what stands in the way."""
    state, findings = check.device_state(disk, KINDS[disk["filesystem"]]["make"])
    return str(state), list(findings)


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give what stands for /etc/fstab; there is none."""
    monkeypatch.setattr(check, "FSTAB", tmp_path / "fstab")
    return tmp_path / "fstab"


def test_a_file_that_is_not_there_is_to_be_made(tmp_path: Path) -> None:
    assert _state(_disk(tmp_path / "new")) == ("empty", [])


@pytest.mark.parametrize(
    ("source", "lost"),
    [("{}/homes.img", "it is gone"), ("UUID=7", "UUID=7 is gone, or has another name now")],
)
def test_no_empty_file_takes_the_place_of_one_that_is_gone(tmp_path: Path, table: Path, source: str, lost: str) -> None:
    source = source.format(tmp_path)
    table.write_text(f"{tmp_path}/homes.img /mnt ext4 loop 0 0\n#{source} /srv/labstead/homes.img ext4 loop 0 0\n")
    assert _state(_disk(tmp_path / "homes.img")) == ("empty", [])
    table.write_text(f"# disks\n\n{source} /srv/labstead/homes.img ext4 loop,nofail 0 0\n")
    assert _state(_disk(tmp_path / "homes.img")) == (
        "",
        [
            f"{tmp_path}/homes.img: /etc/fstab has {source} mounted at /srv/labstead/homes.img, and {lost}; bring it "
            "back, or take that line out of /etc/fstab to begin with an empty disk"
        ],
    )


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give what passes for an empty device that nobody uses."""
    path = _file(tmp_path / "sdb")
    monkeypatch.setattr(check.stat, "S_ISBLK", stat.S_ISREG)
    monkeypatch.setattr(check, "users_of", lambda _: "")
    return path


def test_no_other_device_takes_the_place_of_one_that_is_gone(device: Path, table: Path) -> None:
    """The machine has booted without a disk, and what is /dev/sdb now was /dev/sdc before."""
    disk = {"device": str(device), "filesystem": "ext4", "holds": ["home"]}
    refused = (
        "",
        [
            f"{device}: /etc/fstab has UUID=7 mounted at /srv/labstead/sdb, and UUID=7 is gone, or has another name "
            "now; bring it back, or take that line out of /etc/fstab to begin with an empty disk"
        ],
    )
    assert _state(disk) == ("empty", [])
    table.write_text("UUID=7 /srv/labstead/sdb ext4 nofail 0 0\n")
    assert _state(disk) == refused
    # One of labstead's, but not the one.
    _file(device, "mkfs.ext4", "-q", "-L", "labstead")
    assert _state(disk) == refused
    # The disk itself.
    table.write_text(f"UUID={check.signs(str(device))['UUID']} /srv/labstead/sdb ext4 nofail 0 0\n")
    assert _state(disk) == ("ours", [])


@pytest.mark.parametrize("kind", ["xfs", "ext4", "btrfs"])
def test_a_device_that_holds_something_is_told_how_to_be_had(device: Path, kind: str) -> None:
    device.write_bytes(b"my thesis".ljust(2**23, b"\0"))
    state, (line,) = _state({"device": str(device), "filesystem": kind, "holds": ["home"]})
    assert state == ""
    assert line.endswith(f"which may take a day: blkdiscard --force --zeroout {device}")
    command = line.partition("run wipefs --all ")[2].partition(", or overwrite it")[0]
    assert command == f"{device} && {' '.join(KINDS[kind]['make'])} {device}"


def test_what_is_made_by_hand_as_told_is_used(device: Path) -> None:
    device.write_bytes(MBR.ljust(2**23, b"\0"))
    disk = {"device": str(device), "filesystem": "ext4", "holds": ["home"]}
    _, (line,) = _state(disk)
    command = line.partition("if all of it may go, run ")[2].partition(", or overwrite it")[0]
    subprocess.run(["sh", "-euc", command], check=True, capture_output=True, timeout=60)
    assert _state(disk) == ("ours", [])


def test_a_file_that_labstead_made_is_used(tmp_path: Path) -> None:
    made = _file(tmp_path / "ours", "mkfs.ext4", "-q", "-L", "labstead")
    assert _state(_disk(made)) == ("ours", [])
    # Made as something else: not what the inventory asks for.
    state, (line,) = _state(_disk(made, filesystem="btrfs"))
    assert (state, "holds ext4 (label labstead)" in line) == ("", True)


@pytest.mark.parametrize("content", ["ext4", "text", "zeros"])
def test_a_file_of_somebody_else_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "there"
    if content == "ext4":
        _file(path, "mkfs.ext4", "-q")
    else:
        path.write_bytes(b"my thesis" if content == "text" else bytes(2**20))
    before = path.read_bytes()
    state, (line,) = _state(_disk(path))
    assert state == ""
    there = {"ext4": "ext4", "text": "data without a signature (at byte 0)", "zeros": "something"}[content]
    assert line.startswith(f"{path}: holds {there}, and only what is empty")
    assert line.endswith(f"or remove the file and what is in it: rm {path}")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("/dev/nosuch", "/dev/nosuch: there is no such device; `lsblk` lists those of this machine"),
        ("/dev/null", "/dev/null: is not a disk; `lsblk` lists those of this machine"),
    ],
)
def test_what_is_no_disk_is_refused(where: str, said: str) -> None:
    assert _state({"device": where, "filesystem": "xfs", "holds": ["home"]}) == ("", [said])


def _probe(root: Path, kind: str = "ext4", problem: str | None = None, **kernel: str) -> dict[str, Any]:
    mount = {"kind": kind, "source": "/dev/vda1", "point": "/", "device": 1, "problem": problem}
    return {"folders": {str(root): mount}, "kernel": {**KERNEL, **kernel}}


def test_a_folder_that_holds_something_is_never_hidden(tmp_path: Path) -> None:
    root = tmp_path / "home"
    (root / "debian").mkdir(parents=True)
    disks = [_disk(tmp_path / "new")]
    findings, _ = check.disk_findings(disks, {"home": str(root)}, _probe(root), KINDS)
    assert findings == [
        f"{root}: holds debian, which {tmp_path}/new would hide; set storage_home_root to a new folder such as "
        "/srv/home, or, if nobody logs in from there, Ansible neither, move all of it away as root on the console, run "
        "site.yml, and move it back"
    ]
    (root / "debian").rmdir()
    findings, (plan,) = check.disk_findings(disks, {"home": str(root)}, _probe(root), KINDS)
    assert findings == []
    assert plan["state"] == "empty"
    assert plan["point"] == "/srv/labstead/new"
    assert plan["folders"] == [{"path": str(root), "folder": "/srv/labstead/new/home"}]


def test_a_folder_that_is_a_mount_of_another_disk_is_refused(tmp_path: Path) -> None:
    findings, _ = check.disk_findings([_disk(tmp_path / "new")], {"home": "/proc"}, _probe(Path("/proc")), KINDS)
    assert findings == [
        f"/proc: is mounted from /dev/vda1 already, not from {tmp_path}/new; leave {tmp_path}/new out of "
        "storage_disks, or unmount /proc and take it out of /etc/fstab"
    ]


def test_a_kernel_that_cannot_hold_limits_is_found_out_before_anything_is_made(tmp_path: Path) -> None:
    root = tmp_path / "home"
    line = "this kernel has no quotas for ext4 (CONFIG_QFMT_V2); boot one that has"
    findings, _ = check.disk_findings([_disk(tmp_path / "new")], {"home": str(root)}, _probe(root, ext4=line), KINDS)
    assert findings == [f"{tmp_path}/new: {line}"]


@pytest.mark.parametrize(
    ("kind", "problem", "units", "line"),
    [
        ("ext4", "/r: no quotas; mount it with", [], None),
        ("btrfs", None, ["bytes"], None),
        ("xfs", None, ["bytes", "files"], None),
        (
            "ext4",
            "/r: no quotas; mount it with",
            ["bytes"],
            "/r: no quotas; mount it with (there are limits in the inventory, storage_home_quota or others)",
        ),
        (
            "btrfs",
            None,
            ["bytes", "files"],
            "/r: btrfs cannot limit files; remove storage_home_files and `files` of people and groups, or use xfs "
            "or ext4",
        ),
    ],
)
def test_limits_that_nothing_would_hold_are_refused(
    kind: str, problem: str | None, units: list[str], line: str | None
) -> None:
    found = check.limit_findings([], {"home": "/r"}, {"home": units}, _probe(Path("/r"), kind, problem))
    assert found == ([line] if line else [])


def test_a_scratch_that_somebody_else_filled_is_not_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, accounts = tmp_path / "scratch", tmp_path / "accounts.yml"
    monkeypatch.setattr(check, "ACCOUNTS", accounts)
    assert check.scratch_findings(str(root), 7) == check.scratch_findings("", 7) == []
    (root / "project").mkdir(parents=True)
    (line,) = check.scratch_findings(str(root), 7)
    assert line.startswith(f"{root}: holds project already, and files in scratch are removed after 7 days; set")
    assert check.scratch_findings(str(root), 0) == []
    assert line.endswith("or keep all for good with storage_scratch_days: 0")
    # A run has taken it for labstead's.
    accounts.write_text(f"home_root: /home\nscratch_root: {root}\nshell: /bin/bash\n")
    assert check.scratch_findings(str(root), 7) == []


def test_a_scratch_in_which_everybody_may_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "ACCOUNTS", tmp_path / "none")
    for mode in (0o1777, 0o775):
        tmp_path.chmod(mode)
        (line,) = check.scratch_findings(str(tmp_path), 0)
        assert line.startswith(f"{tmp_path}: others than root may write there")
    tmp_path.chmod(0o755)
    assert check.scratch_findings(str(tmp_path), 0) == []


def test_limits_on_a_disk_that_is_yet_to_be_made_are_fine() -> None:
    probe = _probe(Path("/r"), "ext4", "/r: no quotas")
    new = [{"holds": ["home"], "state": "empty", "filesystem": "xfs"}]
    assert check.limit_findings(new, {"home": "/r"}, {"home": ["bytes", "files"]}, probe) == []
