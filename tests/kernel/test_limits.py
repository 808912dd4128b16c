"""Limits of XFS and ext4, met by a person in a real session who wants more.

The rule: a limit is measured from outside the session, by what the file system gave away.
"""

import json
from collections.abc import Iterator

import pytest

from support import confined
from support.confined import Session
from support.guest import Guest
from support.machine import wait_for

from .conftest import MIB, QUOTAS, SPACES, Bench

ANNA, BERT = "anna-of-the-guest", "bert-of-the-guest"
_BREAK_TIME = "/proc/sys/fs/lease-break-time"
FULL = ("EDQUOT", "ENOSPC")
"""What a full space answers; XFS says ENOSPC of a project, and the disk itself has room."""
_FOLLOW = """
from labstead.accounts.client import Client
print(*Client().follow_limits(adopt=True).problems, sep="\\n")
"""
_ADVICE = _FOLLOW.replace("problems", "advice")

kinds = pytest.mark.parametrize("kind", ["home", "group", "scratch"])


@pytest.fixture(autouse=True)
def _empty(bench: Bench) -> Iterator[None]:
    """Take away what a test wrote."""
    yield
    bench.guest.sh('for folder; do find "$folder" -mindepth 1 -name "full*" -exec rm -rf {} +; done', *SPACES.values())


def used(guest: Guest, path: str) -> tuple[int, int]:
    """Give the bytes and the files that a folder really takes, by walking through it."""
    found = guest.sh('du --summarize --block-size=1 "$1"; du --summarize --inodes "$1"', path).stdout.split()
    return int(found[0]), int(found[2])


@kinds
def test_a_limit_of_bytes_is_met_and_not_passed(bench: Bench, session: Session, kind: str) -> None:
    limit = QUOTAS[kind]["bytes"]
    why, _ = session.do("fill_bytes", f"{SPACES[kind]}/full")
    again, _ = session.do("fill_bytes", f"{SPACES[kind]}/full-again")
    taken, _ = used(bench.guest, SPACES[kind])
    assert why in FULL
    assert again in FULL
    assert 0.95 * limit < taken <= limit


@kinds
def test_a_limit_of_files_is_met_and_not_passed(bench: Bench, session: Session, kind: str) -> None:
    limit = QUOTAS[kind]["files"]
    why, made = session.do("fill_files", f"{SPACES[kind]}/full")
    _, taken = used(bench.guest, SPACES[kind])
    assert why in FULL
    assert made > limit / 2
    assert taken == limit


@kinds
def test_df_in_the_session_shows_limit_and_use(bench: Bench, session: Session, kind: str) -> None:
    session.do("fill_bytes", f"{SPACES[kind]}/full", 5 * MIB)
    taken, files = used(bench.guest, SPACES[kind])
    shown = session.do("df", SPACES[kind])
    assert (shown["size"], shown["itotal"]) == (QUOTAS[kind]["bytes"], QUOTAS[kind]["files"])
    assert (shown["used"], shown["iused"]) == (taken, files)
    assert shown["avail"] == shown["size"] - shown["used"]


def test_no_way_out_of_a_project_is_open_in_a_session(bench: Bench, session: Session) -> None:
    home = SPACES["home"]
    session.do("sh", f"mkdir {home}/full")
    tried = session.do("escapes", f"{home}/full", confined.on_host(bench.guest, BERT, "project", f"/home/{BERT}"))
    # This kernel (6.1) has no file_setattr(2) yet; tests/host tries it on one that has.
    assert {name: told for name, told in tried.items() if told not in ("EPERM", "ENOSYS")} == {}
    assert len(tried) == 8
    projects = session.do("projects", f"{home}/full")
    assert projects.keys() == {".", *tried}
    assert set(projects.values()) == {session.do("project", home)} != {0}


def test_who_leaves_a_project_on_the_host_meets_the_limit_of_the_user(bench: Bench, session: Session) -> None:
    """Over ssh and in jobs nothing keeps people from FS_IOC_FSSETXATTR; more than all their spaces they never get."""
    home = SPACES["home"]
    confined.on_host(bench.guest, ANNA, "sh", f"mkdir {home}/full")
    tried = confined.on_host(bench.guest, ANNA, "escapes", f"{home}/full", 0)
    assert tried["file-leaves"] == tried["folder-leaves"] == tried["no-inheritance"] == "done", "nothing was tried"
    assert confined.on_host(bench.guest, ANNA, "project", f"{home}/full/file-leaves") == 0
    why, size = confined.on_host(bench.guest, ANNA, "fill_bytes", f"{home}/full/file-leaves")
    assert size > QUOTAS["home"]["bytes"], "the way out leads nowhere"
    total = sum(QUOTAS[kind]["bytes"] for kind in QUOTAS)
    assert why == "EDQUOT"
    assert size <= total
    blocks = bench.guest.out("find", "/srv/disk", "-user", ANNA, "-printf", "%b\n").split()
    assert sum(int(block) * 512 for block in blocks) <= total
    assert session.do("fill_bytes", f"{home}/full-more", MIB)[0] == "EDQUOT"


def test_who_counts_for_somebody_else_on_the_host_is_found(bench: Bench) -> None:
    """Anna's file is in Bert's count: nothing keeps her from that, but whoever follows the limits says so."""
    guest, path = bench.guest, f"{SPACES['home']}/full"
    confined.prepare(guest)
    before = guest.python(_ADVICE)
    assert "belong to others" not in before
    project = confined.on_host(guest, BERT, "project", f"/home/{BERT}")
    confined.on_host(guest, ANNA, "sh", f"mkdir {path}")
    assert confined.on_host(guest, ANNA, "escapes", path, project)["file-joins"] == "done"
    assert confined.on_host(guest, ANNA, "fill_bytes", f"{path}/file-joins", 5 * MIB) == ["none", 5 * MIB]
    (line,) = (line for line in guest.python(_ADVICE).splitlines() if "belong to others" in line)
    assert line.startswith(f"/home/{BERT}: 5M that are counted there belong to others; `")
    # What it says to run names the file.
    found = guest.sh(line.split("`")[1]).stdout.splitlines()
    assert [words.split()[-1] for words in found] == [f"{path}/file-joins"]


def test_a_raised_limit_holds_at_once(bench: Bench, session: Session) -> None:
    limit = QUOTAS["home"]["bytes"]
    path = f"{SPACES['home']}/full"
    why, before = session.do("fill_bytes", path)
    assert why in FULL
    bench.guest.run("labstead", "quota", "set", ANNA, "24M")
    try:
        assert session.do("df", SPACES["home"])["size"] == 24 * MIB
        why, after = session.do("fill_bytes", path)
        assert why in FULL
        assert after - before > 7.5 * MIB
        assert used(bench.guest, SPACES["home"])[0] <= 24 * MIB
    finally:
        bench.guest.run("labstead", "quota", "set", ANNA, "default")
    assert session.do("df", SPACES["home"])["size"] == limit


def test_what_labstead_shows_is_what_there_is(bench: Bench, session: Session) -> None:
    session.do("fill_bytes", f"{SPACES['home']}/full", 3 * MIB)
    taken, files = used(bench.guest, SPACES["home"])
    shown = json.loads(bench.guest.out("labstead", "quota", "show", ANNA, "--json"))
    (home,) = [space for space in shown if space["kind"] == "home"]
    assert (home["used_bytes"], home["used_files"]) == (taken, files)
    assert (home["limit_bytes"], home["limit_files"]) == (QUOTAS["home"]["bytes"], QUOTAS["home"]["files"])


# --- folders that were there before limits


_BEFORE = """
useradd --uid 25000 --user-group --no-create-home --shell /bin/bash "$1"
mkdir --mode=700 "/home/$1"
cd "/home/$1"
mkdir -p a/b/c
echo data | tee one a/two a/b/c/three >/dev/null
truncate --size=1M a/leased
mkfifo pipe
ln one a/b/one-again
ln -s /etc/passwd link
ln -s "/home/$2" a/folder-link
chown --recursive --no-dereference "$1:" .
"""

_LEASE = """
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1], "rb")
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
signal.pause()
"""


_LEAVE = """
import sys
from labstead.accounts.client import Client
client = Client()
if sys.argv[1] in {account.name for account in client.accounts()}:
    client.retire(sys.argv[1])
"""


@pytest.fixture
def carla(bench: Bench) -> Iterator[str]:
    """Give somebody of the machine who has a home already, with a lease on a file in it that she does not end."""
    guest, name = bench.guest, "carla-of-the-guest"
    guest.sh(_BEFORE, name, BERT)
    confined.prepare(guest)
    # A second, so that the test does not wait for the 45 that are usual.
    usual = guest.out("cat", _BREAK_TIME)
    lease = f"sysctl --write --quiet fs.lease-break-time=1; nohup setpriv --reuid={name} --clear-groups python3 -c "
    try:
        guest.sh(f'{lease}"$1" "/home/{name}/a/leased" </dev/null >/run/lease 2>&1 & echo $! >/run/lease.pid', _LEASE)
        wait_for("the lease", lambda: guest.run("grep", "held", "/run/lease", check=False).returncode == 0, 30)
        yield name
    finally:
        guest.sh("kill $(cat /run/lease.pid)", check=False)
        guest.run("sysctl", "--write", "--quiet", f"fs.lease-break-time={usual}")
        guest.python(_LEAVE, name)
        guest.sh('userdel "$1"; rm -rf "/home/$1"', name, check=False)


def test_a_home_that_was_there_before_is_taken_in_with_all_that_is_in_it(bench: Bench, carla: str) -> None:
    guest, home = bench.guest, f"/home/{carla}"
    guest.python("import sys; from labstead.accounts.client import Client; Client().link(sys.argv[1])", carla)
    assert confined.on_host(guest, carla, "project", home) == 0
    assert carla not in guest.python(_FOLLOW)
    project = confined.on_host(guest, carla, "project", home)
    assert project > 1_000_000_000
    for path in ("a", "a/b", "a/b/c", "one", "a/two", "a/b/c/three", "a/leased", "a/b/one-again"):
        assert confined.on_host(guest, carla, "project", f"{home}/{path}") == project, path
    other = confined.on_host(guest, BERT, "project", f"/home/{BERT}")
    assert other not in (0, project)
    # What was there counts, what comes later too, and the names of one file still are one file's.
    (_, files, inodes), limit = _told(guest, carla), QUOTAS["home"]
    assert files == inodes
    assert limit["files"] > files
    why, _ = confined.on_host(guest, carla, "fill_bytes", f"{home}/a/b/c/full")
    assert why in FULL
    assert 0.95 * limit["bytes"] < used(guest, home)[0] <= limit["bytes"]
    assert guest.out("stat", "--format=%h", f"{home}/one") == "2"


def _told(guest: Guest, name: str) -> tuple[int, int, int]:
    """Give bytes and files that labstead shows of a home, and the files that are there and have a project."""
    (space,) = [
        space for space in json.loads(guest.out("labstead", "quota", "show", name, "--json")) if space["kind"] == "home"
    ]
    kinds = guest.out("find", f"/home/{name}", "-type", "f,d", "-printf", "%i\n").split()
    return space["used_bytes"], space["used_files"], len(set(kinds))


# --- soft limits


_SOFT = """
import os, pathlib, sys
from labstead import disks
from labstead.disks.backend import Limit, Place, Soft

place = Place(pathlib.Path(sys.argv[1]), 3_000_000)
backend = disks.find(place.path.parent)
backend.make(place)
os.chown(place.path, int(sys.argv[2]), -1)
backend.set_limits({place: Limit(8 * 2**20, 100)}, {}, Soft(percent=50, grace_days=7))
"""

# quotactl_fd(2), with Q_GETINFO and Q_SETINFO of projects and struct if_dqinfo of linux/quota.h.
_GRACE = """
import ctypes, os, struct, sys

def quotactl(command, buffer):
    libc = ctypes.CDLL(None, use_errno=True)
    words = (os.open("/srv/disk", os.O_RDONLY), ctypes.c_uint(command << 8 | 2), 0, buffer)
    if libc.syscall(443, *words) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))

known = ctypes.create_string_buffer(24)
quotactl(0x800005, known)
print(*struct.unpack("=QQII", known.raw)[:2])
quotactl(0x800006, struct.pack("=QQII", 1, 1, 0, 3))
"""


def test_a_soft_limit_holds_after_its_grace(bench: Bench) -> None:
    """Above the soft limit there is time to clean up: seven days, of which the test makes a second."""
    guest, path = bench.guest, "/srv/disk/full-soft"
    confined.prepare(guest)
    guest.python(_SOFT, path, guest.out("id", "--user", ANNA))
    assert guest.out("python3", "-c", _GRACE).split() == [str(7 * 86400)] * 2
    try:
        assert confined.on_host(guest, ANNA, "fill_bytes", f"{path}/a", 5 * MIB) == ["none", 5 * MIB]
        wait_for(
            "the end of the grace",
            lambda: confined.on_host(guest, ANNA, "fill_bytes", f"{path}/b", 4096)[0] in FULL,
            30,
        )
        assert used(guest, path)[0] < 8 * MIB
        confined.on_host(guest, ANNA, "remove", f"{path}/a")
        assert confined.on_host(guest, ANNA, "fill_bytes", f"{path}/c", 2 * MIB) == ["none", 2 * MIB]
    finally:
        guest.run("rm", "-rf", path)


# --- many homes


_THOUSAND = """
import json, os, pathlib, subprocess, time
from labstead import disks
from labstead.disks.backend import Limit, Place, Soft

root = pathlib.Path("/srv/disk/many")
root.mkdir()
backend = disks.find(root)
places = [Place(root / f"p{number}", 2_000_000 + number) for number in range(1000)]
for number, place in enumerate(places):
    backend.make(place)
    os.chown(place.path, 40000 + number, 40000 + number)
    (place.path / "notebook").write_bytes(b"x" * 5000)
    for path in (place.path / "notebook", place.path):
        os.utime(path, (0, time.time()))
backend.set_limits({place: Limit(10 * 2**20, 100) for place in places}, {}, Soft())
os.sync()


def looked_into():
    return sum(path.stat().st_atime > 0 for place in places for path in (place.path, place.path / "notebook"))


begin = time.monotonic()
report = backend.report(places)
seconds, looked = time.monotonic() - begin, looked_into()
begin = time.monotonic()
walked = subprocess.run(["du", "--block-size=1", "--summarize", *[place.path for place in places]], capture_output=True)
print(json.dumps({
    "report": {str(p.path): [(use := report.places[p.project]).bytes, use.files, use.limit.bytes] for p in places},
    "du": {line.split()[1]: int(line.split()[0]) for line in walked.stdout.decode().splitlines()},
    "looked": looked,
    "looked by du": looked_into(),
    "seconds": seconds,
    "du seconds": time.monotonic() - begin,
}))
"""


def test_a_thousand_homes_are_listed_without_a_look_into_them(bench: Bench, measured: list[str]) -> None:
    """A folder that was listed and a file that was read have a new time of access; `du` shows that it can be seen."""
    try:
        found = json.loads(bench.guest.python(_THOUSAND, timeout=240))
    finally:
        bench.guest.run("rm", "-rf", "/srv/disk/many")
    assert len(found["report"]) == 1000
    assert {path: [size, 2, 10 * MIB] for path, size in found["du"].items()} == found["report"]
    assert found["looked"] == 0
    assert found["looked by du"] >= 1000
    ratio = found["du seconds"] / found["seconds"]
    measured.append(
        f"1,000 homes on {bench.kind}: listed in {found['seconds']:.2f} s in a guest, {ratio:.1f} times as fast as du"
    )


# --- disks that cannot


def test_a_mount_without_quotas_is_told_in_one_line(bench: Bench) -> None:
    # As xfs(5) and ext4(5) name the options.
    option = {"xfs": "pquota", "ext4": "prjquota"}[bench.kind]
    bench.guest.sh("mkdir -p /mnt/other; mount /dev/ubdc /mnt/other")
    commands = {"check": 1, "prove": 2}
    before = bench.guest.out("ls", "-lA", "--time-style=full-iso", "/mnt/other")
    try:
        told = {word: bench.guest.run("labstead", "disk", word, "/mnt/other", check=False) for word in commands}
        assert bench.guest.out("ls", "-lA", "--time-style=full-iso", "/mnt/other") == before
    finally:
        bench.guest.run("umount", "/mnt/other")
    for word, code in commands.items():
        assert told[word].returncode == code
        (line,) = told[word].stderr.splitlines()
        assert "/mnt/other" in line
        assert option in line
    assert told["prove"].stdout == ""


def test_a_mount_with_quotas_is_proven(bench: Bench) -> None:
    before = bench.guest.out("ls", "-A", "/home", "/groups", "/scratch")
    bench.guest.run("labstead", "disk", "prove", "/home", "/groups", "/scratch")
    assert bench.guest.out("ls", "-A", "/home", "/groups", "/scratch") == before
