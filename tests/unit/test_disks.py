"""Disks, as far as a machine without quotas can show it; `tests/kernel` has the rest."""

import ctypes
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labstead import disks
from labstead.disks import btrfs, probe, proof, quotas
from labstead.disks.backend import NO_LIMIT, DiskError, Limit, NotNow, Place, Soft
from labstead.disks.other import Other
from labstead.disks.quotas import Quotas

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several people")

MOUNTINFO = """\
22 29 0:21 / /proc rw,nosuid shared:12 - proc proc rw
29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
61 29 8:17 / /srv/our\\040homes rw,relatime shared:30 master:2 - xfs /dev/sdb1 rw,usrquota,prjquota
62 29 0:45 /home /home rw,relatime - btrfs /dev/sdc rw,subvolid=5
"""
"""As proc(5) says: optional fields come before the dash, and blanks are written \\040."""


@pytest.mark.parametrize(
    ("number", "mount"),
    [
        (29, probe.Mount(os.makedev(254, 0), "ext4", "/", "/dev/vda1")),
        (61, probe.Mount(os.makedev(8, 17), "xfs", "/srv/our homes", "/dev/sdb1")),
        (62, probe.Mount(os.makedev(0, 45), "btrfs", "/home", "/dev/sdc")),
    ],
)
def test_the_mount_of_a_folder_is_in_mountinfo(number: int, mount: probe.Mount) -> None:
    assert probe.parse_mount(MOUNTINFO, number) == mount


def test_a_mount_that_is_gone_is_not_taken_for_another() -> None:
    with pytest.raises(LookupError):
        probe.parse_mount(MOUNTINFO, 2)


def test_names_of_mounts_are_read_as_the_kernel_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It escapes blanks and newlines alone; anybody may mount something of theirs at any other name."""
    names = ("jürgen", "our homes", "end\u2028of line", "carriage\rreturn", "\udcff")
    lines = [f"29 1 0:27 / /home/{name.replace(' ', chr(92) + '040')} rw - fuse x rw\n" for name in names]
    monkeypatch.setattr(Path, "read_bytes", lambda _: os.fsencode("".join(lines)))
    assert probe.mount_points() == [Path("/home", name) for name in names]
    assert probe.parse_mount(probe._mountinfo(), 29).point == "/home/jürgen"


def test_a_folder_that_is_missing_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="nosuch: No such file or directory; is its file system mounted"):
        disks.find(tmp_path / "nosuch")


def test_on_what_no_backend_knows_places_are_folders_and_limits_are_refused() -> None:
    backend = disks.find(Path("/proc"))
    assert isinstance(backend, Other)
    problem = backend.problem()
    assert problem is not None
    assert problem.startswith("/proc: labstead cannot set limits on proc (proc); put it on a disk with XFS")
    assert "\n" not in problem
    place = Place(Path("/proc/self"), 1_000_000_001)
    assert backend.is_place(place)
    assert backend.report([place]) == disks.backend.Report()
    backend.set_limits({place: NO_LIMIT}, {20000: NO_LIMIT}, Soft())
    for wanted in ({place: Limit(bytes=1)}, {place: Limit(files=1)}):
        with pytest.raises(DiskError, match="cannot set limits"):
            backend.set_limits(wanted, {}, Soft())
    with pytest.raises(DiskError, match="cannot set limits"):
        backend.prove()


# --- what the kernel says of quotas


class _Kernel:
    """Answers to quotactl_fd(2), as fs/quota/quota.c of Linux 6.1 gives them.

    :param flags: of struct fs_quota_stat; None: there are none, which is ENOSYS
    :param quotas: whether the kernel was built with them
    :param allowed: whether this process may ask
    """

    def __init__(self, flags: int | None, quotas: bool = True, allowed: bool = True) -> None:
        self.flags, self.quotas, self.allowed = flags, quotas, allowed

    def __call__(self, _handle: int, command: int, _kind: int, _number: int, argument: Any) -> None:
        if not self.allowed:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        if not self.quotas:
            raise OSError(errno.ENOSYS, "")
        if command == 0x5805:  # Q_XGETQSTAT
            if not self.flags:
                raise OSError(errno.ENOSYS, "")
            argument[2:4] = self.flags.to_bytes(2, sys.byteorder)
        else:  # Q_GETFMT of quotas that are off
            raise OSError(errno.ESRCH, "")


# FS_QUOTA_UDQ_ACCT 1, _ENFD 2; FS_QUOTA_PDQ_ACCT 16, _ENFD 32.
@pytest.mark.parametrize(
    ("kind", "point", "kernel", "line"),
    [
        ("xfs", "/srv", _Kernel(1 | 2 | 16 | 32), None),
        ("ext4", "/srv", _Kernel(1 | 2 | 16 | 32), None),
        (
            "xfs",
            "/srv",
            _Kernel(None, quotas=False),
            "this kernel has no quotas for xfs (CONFIG_XFS_QUOTA); boot one that has, such as Debian's own, or use "
            "ext4 or btrfs on a disk of its own (storage_disks)",
        ),
        (
            "ext4",
            "/srv",
            _Kernel(None, quotas=False),
            "this kernel has no quotas for ext4 (CONFIG_QUOTA); boot one that has, such as Debian's own, or use xfs or "
            "btrfs on a disk of its own (storage_disks)",
        ),
        (
            "xfs",
            "/srv",
            _Kernel(None),
            "xfs on /dev/sdb1 is mounted at /srv without quotas of users and projects; give it uquota,pquota in "
            "/etc/fstab, unmount and mount it (a remount is not enough)",
        ),
        (
            "xfs",
            "/",
            _Kernel(None),
            "xfs on /dev/sdb1 is mounted at / without quotas of users and projects; add rootflags=uquota,pquota to the "
            "kernel's command line and reboot, or use another disk",
        ),
        (
            "ext4",
            "/srv",
            _Kernel(1 | 2 | 16),
            "ext4 on /dev/sdb1 is mounted at /srv without quotas of projects; unmount it, run "
            "`tune2fs -O quota,project /dev/sdb1`, give it usrquota,prjquota in /etc/fstab, and mount it",
        ),
        (
            "ext4",
            "/srv",
            _Kernel(None, allowed=False),
            "the machine does not let quotas be asked for (quotactl_fd: Operation not permitted); is it a container?",
        ),
        (
            "ext4",
            "/",
            _Kernel(None),
            "ext4 on /dev/sdb1 is mounted at / without quotas of users and projects; use another disk (storage_disks), "
            "as this one cannot be unmounted",
        ),
    ],
)
def test_what_is_missing_for_quotas_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, point: str, kernel: _Kernel, line: str | None
) -> None:
    monkeypatch.setattr(probe, "quotactl", kernel)
    monkeypatch.setattr(probe, "kernel_configuration", lambda: "")
    mount = probe.Mount(1, kind, point, "/dev/sdb1")
    assert probe.problem(tmp_path, mount) == (line and f"{tmp_path}: {line}")


# From the configurations of Debian 13's kernel and of one that was built small.
@pytest.mark.parametrize(
    ("configuration", "kind", "missing"),
    [
        ("CONFIG_XFS_FS=m\nCONFIG_XFS_QUOTA=y\n", "xfs", None),
        ("CONFIG_XFS_FS=y\n# CONFIG_XFS_QUOTA is not set\n", "xfs", "no quotas for xfs (CONFIG_XFS_QUOTA)"),
        ("CONFIG_EXT4_FS=m\nCONFIG_QUOTA=y\nCONFIG_QFMT_V2=m\n", "ext4", None),
        (
            "CONFIG_EXT4_FS=y\nCONFIG_QUOTA=y\n# CONFIG_QFMT_V2 is not set\n",
            "ext4",
            "no quotas for ext4 (CONFIG_QFMT_V2)",
        ),
        ("CONFIG_BTRFS_FS=m\n", "btrfs", None),
        ("CONFIG_EXT4_FS=y\n", "btrfs", "no quotas for btrfs (CONFIG_BTRFS_FS)"),
        ("", "xfs", None),
    ],
)
def test_a_kernel_without_quotas_is_known_by_its_configuration(
    configuration: str, kind: str, missing: str | None
) -> None:
    line = probe.kernel_problem(kind, configuration)
    assert (line is None) is (missing is None)
    assert missing is None or (line and missing in line)


def test_the_probe_runs_without_labstead(tmp_path: Path) -> None:
    """Preflight copies it to machines that have nothing but Python."""
    copy = tmp_path / "probe.py"
    copy.write_bytes(Path(probe.__file__).read_bytes())
    done = subprocess.run(
        ["python3", "-I", copy, "/proc", "/proc/nosuch"], capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    folders = found["folders"]
    assert folders["/proc"]["kind"] == folders["/proc/nosuch"]["kind"] == "proc"
    assert found["kernel"].keys() == {"xfs", "ext4", "btrfs"}
    assert folders["/proc/nosuch"]["problem"].startswith("/proc/nosuch: labstead cannot set limits on proc")


# --- numbers


@pytest.mark.parametrize(
    ("limit", "soft", "fields"),
    [
        (NO_LIMIT, Soft(80), (0, 0, 0, 0)),
        (Limit(bytes=2**30, files=1000), Soft(), (2**20, 0, 1000, 0)),
        (Limit(bytes=2**30, files=1000), Soft(50), (2**20, 2**19, 1000, 500)),
        # The kernel counts bytes in KiB, and 0 is no limit.
        (Limit(bytes=1), Soft(), (1, 0, 0, 0)),
    ],
)
def test_limits_are_told_the_kernel_in_its_units(limit: Limit, soft: Soft, fields: tuple[int, ...]) -> None:
    told = quotas._quota(limit, soft)
    assert (told.bytes_hard, told.bytes_soft, told.files_hard, told.files_soft) == fields
    assert told.valid == 1 | 4  # QIF_BLIMITS, QIF_ILIMITS


def test_the_kernel_and_we_mean_the_same_structures() -> None:
    """Sizes from include/uapi/linux/quota.h and fs.h."""
    assert ctypes.sizeof(quotas._Quota) == 72
    assert ctypes.sizeof(quotas._Grace) == 24
    assert quotas._FSXATTR.size == 28


# Output of btrfs-progs 6.2 (Debian 12) and 6.14 (Debian 13).
@pytest.mark.parametrize(
    "table",
    [
        """\
Qgroupid    Referenced    Exclusive  Max referenced   Path 
--------    ----------    ---------  --------------   ---- 
0/5              16384        16384            none   <toplevel>
0/256          5017600      5017600        52428800   home/anna
0/257            16384        16384            none   <stale>
1/100          5033984      5033984            none   <0 member qgroups>
""",  # noqa: W291
        """\
Qgroupid    Referenced    Exclusive Max referenced   Path
--------    ----------    --------- --------------   ----
0/5              16384        16384           none   <toplevel>
0/256          5017600      5017600       52428800   home/anna
0/257            16384        16384           none   <under deletion>
""",
    ],
)
def test_quota_groups_of_btrfs_are_read(table: str) -> None:
    groups = btrfs.parse_groups(table)
    assert groups.keys() == {5, 256, 257}
    assert (groups[256].bytes, groups[256].files, groups[256].limit) == (5017600, None, Limit(bytes=52428800))
    assert groups[5].limit == NO_LIMIT


# --- folders that were there before


class _Projects:
    """Projects by inode, in place of a file system that keeps them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: dict[int, tuple[int, bool]] = {}
        monkeypatch.setattr(quotas, "_project", lambda handle: self.of.get(os.fstat(handle).st_ino, (0, False)))
        monkeypatch.setattr(quotas, "_set_project", self.set)

    def set(self, handle: int, project: int, inherit: bool) -> bool:
        number = os.fstat(handle).st_ino
        changed = self.of.get(number) != (project, inherit)
        self.of[number] = (project, inherit)
        return changed

    def have(self, path: Path) -> tuple[int, bool] | None:
        return self.of.get(path.lstat().st_ino)


@pytest.fixture
def projects(monkeypatch: pytest.MonkeyPatch) -> _Projects:
    """Keep projects in memory."""
    return _Projects(monkeypatch)


def _backend(folder: Path) -> Quotas:
    return Quotas("xfs", folder, folder.stat().st_dev)


def test_all_that_is_in_a_folder_goes_to_its_project(projects: _Projects, tmp_path: Path) -> None:
    home, outside = tmp_path / "anna", tmp_path / "bert"
    (home / "a/b").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").touch()
    (home / "a/b/file").touch()
    (home / "link").symlink_to(outside)
    (home / "a/file-link").symlink_to(outside / "secret")
    os.mkfifo(home / "pipe")  # opening it would wait for a writer
    place = Place(home, 1_000_000_001)
    assert _backend(tmp_path).adopt(place) is True
    assert _backend(tmp_path).is_place(place)
    for path, inherit in ((home, True), (home / "a", True), (home / "a/b", True), (home / "a/b/file", False)):
        assert projects.have(path) == (1_000_000_001, inherit), path
    for path in (tmp_path, outside, outside / "secret", home / "pipe", home / "link", home / "a/file-link"):
        assert projects.have(path) is None, path
    assert _backend(tmp_path).adopt(place) is False


def test_a_folder_that_is_too_deep_for_paths_and_recursion_is_taken_in(projects: _Projects, tmp_path: Path) -> None:
    depth = 3000  # 3000 names of 4 characters: beyond PATH_MAX, Python's recursion and the open files of a process
    handle = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deep", dir_fd=handle)
        lower = os.open("deep", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = lower
    bottom = os.fstat(handle).st_ino
    os.close(handle)
    _backend(tmp_path).adopt(Place(tmp_path, 7))
    assert projects.of[bottom] == (7, True)
    assert len(projects.of) == depth + 1
    subprocess.run(["rm", "-r", tmp_path / "deep"], check=True, timeout=60)  # shutil cannot, nor can pytest


def test_a_cut_off_start_is_done_again(projects: _Projects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    place = Place(tmp_path, 7)
    done = projects.set

    def killed_at_a_file(handle: int, project: int, inherit: bool) -> bool:
        if not inherit:
            raise KeyboardInterrupt
        return done(handle, project, inherit)

    monkeypatch.setattr(quotas, "_set_project", killed_at_a_file)
    with pytest.raises(KeyboardInterrupt):
        _backend(tmp_path).adopt(place)
    assert not _backend(tmp_path).is_place(place)
    monkeypatch.setattr(quotas, "_set_project", done)
    assert _backend(tmp_path).adopt(place) is True
    assert projects.have(tmp_path / "folder/file") == (7, False)


def test_what_comes_in_meanwhile_is_taken_in_too(
    projects: _Projects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "early").touch()
    done = projects.set

    def busy_owner(handle: int, project: int, inherit: bool) -> bool:
        (tmp_path / "late/inner").mkdir(parents=True, exist_ok=True)
        return done(handle, project, inherit)

    monkeypatch.setattr(quotas, "_set_project", busy_owner)
    _backend(tmp_path).adopt(Place(tmp_path, 7))
    assert projects.have(tmp_path / "late/inner") == (7, True)


def test_a_folder_that_is_swapped_for_a_link_leads_nowhere(
    projects: _Projects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, outside = tmp_path / "anna", tmp_path / "bert"
    (home / "folder").mkdir(parents=True)
    (outside / "inner").mkdir(parents=True)
    done = projects.set

    def swap(handle: int, project: int, inherit: bool) -> bool:
        changed = done(handle, project, inherit)
        if (home / "folder").is_dir() and not (home / "folder").is_symlink():
            (home / "folder").rename(home / "moved")
            (home / "folder").symlink_to(outside)
        return changed

    monkeypatch.setattr(quotas, "_set_project", swap)
    _backend(tmp_path).adopt(Place(home, 7))
    assert projects.have(home / "moved") == (7, True)
    assert projects.have(outside) is projects.have(outside / "inner") is None


def test_a_folder_that_is_moved_out_ends_the_walk(
    projects: _Projects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, outside = tmp_path / "anna", tmp_path / "bert"
    (home / "a/b").mkdir(parents=True)
    (outside / "inner").mkdir(parents=True)
    done = projects.set

    def move(handle: int, project: int, inherit: bool) -> bool:
        if (home / "a/b").exists() and os.fstat(handle).st_ino == (home / "a/b").stat().st_ino:
            (home / "a").rename(outside / "a")
        return done(handle, project, inherit)

    monkeypatch.setattr(quotas, "_set_project", move)
    assert _backend(tmp_path).adopt(Place(home, 7)) is True
    assert projects.have(outside) is projects.have(outside / "inner") is None


def test_folders_that_are_moved_for_ever_keep_no_limit_away(
    projects: _Projects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "here/a/b").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    inode = (tmp_path / "here/a/b").stat().st_ino
    done = projects.set

    def move(handle: int, project: int, inherit: bool) -> bool:
        if os.fstat(handle).st_ino == inode:
            here, there = sorted((tmp_path / "here", tmp_path / "there"), key=lambda path: not (path / "a").exists())
            (here / "a").rename(there / "a")
        return done(handle, project, inherit)

    monkeypatch.setattr(quotas, "_set_project", move)
    place = Place(tmp_path, 7)
    with pytest.raises(DiskError, match="not all of it is counted: folders in it are moved all the time"):
        _backend(tmp_path).adopt(place)
    assert _backend(tmp_path).is_place(place)
    assert projects.have(tmp_path / "file") == (7, False)


#: Holds a lease on a file until its input ends; one that is asked for gives it back.
LEASE = """
import fcntl, signal, sys
file = open(sys.argv[1], "rb")
give_back = lambda *_: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
signal.signal(signal.SIGIO, give_back if sys.argv[2] == "polite" else signal.SIG_IGN)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("manner", ["polite", "stubborn"])
def test_a_leased_file_is_waited_for_and_keeps_no_limit_away(
    projects: _Projects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, manner: str
) -> None:
    home = tmp_path / "anna"
    home.mkdir()
    for name in ("leased", "plain"):
        (home / name).touch()
    place = Place(home, 7)
    if manner == "stubborn":
        monkeypatch.setattr(quotas, "_LEASE_SECONDS", 0)
    command = [sys.executable, "-c", LEASE, str(home / "leased"), manner]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        if manner == "polite":
            assert _backend(tmp_path).adopt(place) is True
        else:
            with pytest.raises(DiskError, match=r"anna: not all of it is counted: .* leases on files in it \(1\)"):
                _backend(tmp_path).adopt(place)
        holder.communicate(timeout=30)
    assert projects.have(home / "leased") == ((7, False) if manner == "polite" else None)
    assert projects.have(home / "plain") == (7, False)
    assert _backend(tmp_path).is_place(place)


def test_a_place_that_cannot_be_read_keeps_no_other_from_being_counted(
    projects: _Projects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = [Place(tmp_path / name, number) for number, name in enumerate(("anna", "bert"), 7)]
    for place in places:
        place.path.mkdir()
        projects.of[place.path.stat().st_ino] = (place.project, True)
    broken = places[0].path.stat().st_ino

    def project(handle: int) -> tuple[int, bool]:
        if os.fstat(handle).st_ino == broken:
            raise OSError(errno.EIO, "Input/output error")
        return projects.of[os.fstat(handle).st_ino]

    def nothing(*_: object) -> None:
        raise OSError(errno.ENOENT, "")

    monkeypatch.setattr(quotas, "_project", project)
    monkeypatch.setattr(probe, "quotactl", nothing)
    assert _backend(tmp_path).report(places).places.keys() == {8}


def test_a_folder_of_a_ledger_that_is_lost_is_taken_in(projects: _Projects, tmp_path: Path) -> None:
    projects.of[tmp_path.stat().st_ino] = (1_000_000_042, True)
    place = Place(tmp_path, 1_000_000_007)
    assert _backend(tmp_path).adopt(place) is True
    assert _backend(tmp_path).is_place(place)


def test_a_folder_of_somebody_elses_project_is_left_alone(projects: _Projects, tmp_path: Path) -> None:
    projects.of[tmp_path.stat().st_ino] = (42, True)
    with pytest.raises(DiskError, match="belongs to project 42"):
        _backend(tmp_path).adopt(Place(tmp_path, 7))
    assert projects.of == {tmp_path.stat().st_ino: (42, True)}


# --- the proof


@pytest.fixture(autouse=True)
def _lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the lock of proofs out of /run."""
    monkeypatch.setattr(proof, "_LOCK", tmp_path / "proof.lock")


class _Folder(Other):
    """A folder without limits that says it has some."""

    counts_files = True

    def __init__(self, root: Path) -> None:
        super().__init__(root, root.stat().st_dev, "")
        self.forgotten = 0

    def forget(self, place: Place) -> None:  # noqa: ARG002
        self.forgotten += 1


@only_root
def test_a_limit_that_does_not_hold_is_found_out_and_nothing_stays(root: Path) -> None:
    backend = _Folder(root)
    with (
        pytest.raises(DiskError, match="limit of a home by bytes does not hold: not stopped after 16777216 of 8388608"),
        proof.proof_place(backend) as place,
    ):
        proof.require_held(backend, place, "limit of a home")
    assert list(root.iterdir()) == []
    assert backend.forgotten == 1


@only_root
@pytest.mark.parametrize("reason", [errno.EDQUOT, errno.ENOSPC])
def test_a_limit_that_stops_the_write_holds(root: Path, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    """XFS says ENOSPC of a full project."""

    def stop(_folder: int, amount: int) -> tuple[int, int]:
        return amount // 2, reason

    monkeypatch.setattr(proof, "_fill_bytes", stop)
    monkeypatch.setattr(proof, "_fill_files", stop)
    with proof.proof_place(_Folder(root)) as place:
        proof.require_held(_Folder(root), place, "limit")


@only_root
@pytest.mark.parametrize(
    ("stopped", "said"),
    [
        ((0, errno.EDQUOT), "by bytes does not hold: 0 of 8388608 went in"),
        ((8388609, errno.EDQUOT), "by bytes does not hold: 8388609 of 8388608 went in"),
        ((100, errno.EIO), "by bytes does not hold: stopped by Input/output error after 100 of 8388608"),
    ],
)
def test_being_stopped_is_not_enough(
    root: Path, monkeypatch: pytest.MonkeyPatch, stopped: tuple[int, int], said: str
) -> None:
    monkeypatch.setattr(proof, "_fill_bytes", lambda *_: stopped)
    with pytest.raises(DiskError, match=said), proof.proof_place(_Folder(root)) as place:
        proof.require_held(_Folder(root), place, "limit")


@only_root
def test_a_disk_that_is_too_full_for_a_proof_is_no_disk_without_limits(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = _Folder(root)
    with monkeypatch.context() as patch:
        patch.setattr(proof, "_ROOM", 2**80)
        with pytest.raises(NotNow, match="too full to try whether limits hold"), proof.proof_place(backend):
            pytest.fail("went on")

    def full(_place: Place) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(backend, "make", full)
    with pytest.raises(NotNow, match="No space left"), proof.proof_place(backend):
        pytest.fail("went on")


@only_root
def test_the_proof_removes_what_a_killed_one_left(root: Path) -> None:
    (root / ".labstead-proof/sub").mkdir(parents=True)
    with proof.proof_place(_Folder(root)) as place:
        assert list(place.path.iterdir()) == []
        assert place.path.stat().st_uid == proof.PROOF_UID
    assert list(root.iterdir()) == []


# --- btrfs


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Keep the commands of btrfs-progs instead of running them."""
    kept: list[tuple[str, ...]] = []

    def run(*words: str | Path) -> str:
        kept.append(tuple(map(str, words)))
        return ""

    monkeypatch.setattr(btrfs, "_btrfs", run)
    return kept


def test_limits_on_btrfs_are_those_of_subvolumes(commands: list[tuple[str, ...]], tmp_path: Path) -> None:
    backend = btrfs.Btrfs(tmp_path, 1, None)
    places = {Place(tmp_path / "anna", 1): Limit(bytes=2**30), Place(tmp_path / "bert", 2): NO_LIMIT}
    backend.set_limits(places, {}, Soft(90))
    assert commands == [
        ("qgroup", "limit", "1073741824", f"{tmp_path}/anna"),
        ("qgroup", "limit", "none", f"{tmp_path}/bert"),
    ]
    assert (backend.kind, backend.counts_files, backend.counts_users) == ("btrfs", False, False)


def test_a_subvolume_that_cannot_be_read_keeps_no_other_from_being_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def subvolume(folder: Path) -> int:
        if folder.name == "anna":
            raise OSError(errno.EIO, "Input/output error")
        return 257

    monkeypatch.setattr(btrfs, "_subvolume", subvolume)
    monkeypatch.setattr(btrfs, "_btrfs", lambda *_: "0/257 16384 16384 none\n")
    places = [Place(tmp_path / "anna", 7), Place(tmp_path / "bert", 8)]
    assert btrfs.Btrfs(tmp_path, 1, None).report(places).places.keys() == {8}


def test_a_plain_folder_on_btrfs_is_not_taken_for_one_with_a_limit(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    place = Place(tmp_path / "anna", 1)
    backend = btrfs.Btrfs(tmp_path, 1, None)
    assert not backend.is_place(place)
    assert not backend.is_place(Place(tmp_path / "nosuch", 2))
    with pytest.raises(DiskError, match="anna: a plain folder on btrfs, which can have no limit; make it a subvolume"):
        backend.adopt(place)


def test_a_btrfs_without_quotas_makes_subvolumes_and_promises_nothing(
    commands: list[tuple[str, ...]], tmp_path: Path
) -> None:
    backend = btrfs.Btrfs(tmp_path, 1, "quotas are off; switch them on")
    place = Place(tmp_path / "anna", 1)
    backend.make(place)
    assert commands == [("subvolume", "create", f"{tmp_path}/anna")]
    assert (backend.kind, backend.problem()) == ("other", "quotas are off; switch them on")
    assert backend.adopt(place) is False
    backend.set_limits({place: NO_LIMIT}, {}, Soft())
    assert len(commands) == 1
    with pytest.raises(DiskError, match="quotas are off"):
        backend.set_limits({place: Limit(bytes=1)}, {}, Soft())


def test_what_btrfs_complains_of_is_told_in_one_line() -> None:
    with pytest.raises(DiskError, match=r"^btrfs( subvolume create)?: [^\n]+$"):
        btrfs._btrfs("subvolume", "create", "/proc/nosuch/anna")


@only_root
def test_two_proofs_at_once_are_not_taken_for_limits(root: Path) -> None:
    with (
        proof.proof_place(_Folder(root)),
        pytest.raises(NotNow, match="somebody else tries at this moment"),
        proof.proof_place(_Folder(root)),
    ):
        pytest.fail("both went on")
    assert list(root.iterdir()) == []
