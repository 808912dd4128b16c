"""What a session cannot do to the host's disks: leave its limits by the kernel's back doors, or write beside them.

The rule of these tests: what is refused in a session is tried on the host too, as the same person, and works there.
"""

import json
from typing import Any

import pytest

from support import provision
from support.commands import labstead
from support.kernel import Kernel
from support.lab import Lab
from support.machine import kept, wait_for
from support.person import Person
from support.provision import SETTINGS

PROFILE = "/etc/labstead/seccomp.json"
TMP = 256 * 2**20
"""sessions_tmp_size of the test hosts."""

#: Name → number, as strace(1) prints it.
ESCAPES = {
    "FS_IOC_SETFLAGS": 0x40086602,
    "FS_IOC32_SETFLAGS": 0x40046602,
    "FS_IOC_FSSETXATTR": 0x401C5820,
    "BTRFS_IOC_SNAP_CREATE": 0x50009401,
    "BTRFS_IOC_SUBVOL_CREATE": 0x5000940E,
    "BTRFS_IOC_SNAP_CREATE_V2": 0x50009417,
    "BTRFS_IOC_SUBVOL_CREATE_V2": 0x50009418,
    "BTRFS_IOC_SUBVOL_SETFLAGS": 0x4008941A,
}
EPERM, EBADF, ENOSYS = 1, 9, 38

#: Works on the host and in a session. Numbers of system calls are those of x86-64.
CALLS = """
import ctypes, json, os, struct, sys
_libc = ctypes.CDLL(None, use_errno=True)

def call(number, *words):
    "Make a system call; 0 or its errno."
    words = [ctypes.c_char_p(w) if isinstance(w, bytes) else ctypes.c_ulong(w % 2**64) for w in words]
    return ctypes.get_errno() if _libc.syscall(ctypes.c_long(number), *words) < 0 else 0

def ioctl(path, number, argument):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return call(16, descriptor, number, bytes(argument))
    finally:
        os.close(descriptor)

def nodump(path, number=0x40086602, size=8):
    "chattr +d: a flag that does no harm."
    return ioctl(path, number, (0x40).to_bytes(size, sys.byteorder))

def subvolume(folder, name, number=0x5000940e):
    return ioctl(folder, number, struct.pack("q4088s", 0, name.encode()))

def file_setattr(path):
    "The same flag by file_setattr(2), of Linux 6.17."
    return call(469, -100, path.encode(), struct.pack("QIIII", 0x80, 0, 0, 0, 0), 24, 0)
"""


@pytest.fixture(scope="module")
def kernel(participant: Person) -> Kernel:
    kernel = participant.kernel()
    kernel.run(CALLS)
    return kernel


@pytest.fixture(scope="module")
def rough(neighbour: Person) -> Kernel:
    """Give a kernel in a session that may come to harm."""
    return neighbour.kernel()


def on_host(lab: Lab, person: Person, expression: str) -> Any:
    """Give the value of an expression of `CALLS` on the host, as a person."""
    done = lab.machine.python(f"{CALLS}\nprint(json.dumps({expression}))", user=person.name)
    return json.loads(done.stdout)


# --- system calls


def test_an_escape_is_refused_whatever_is_above_its_32_bits(kernel: Kernel) -> None:
    """EBADF, as for the number beside it, would mean that the kernel was asked."""
    asked = [above << 32 | number for number in ESCAPES.values() for above in (0, 1, 2**31, 2**32 - 1)]
    assert kernel.value(f"[call(16, 99, number, 0) for number in {asked}]") == [EPERM] * len(asked)
    assert kernel.value(f"[call(16, 99, number ^ 1, 0) for number in {asked}]") == [EBADF] * len(asked)


def test_flags_of_a_file_are_changed_on_the_host_and_not_in_a_session(
    lab: Lab, participant: Person, kernel: Kernel
) -> None:
    home = f"/home/{participant.name}"
    kernel.sh("touch ~/flags")
    assert on_host(lab, participant, f"nodump('{home}/flags')") == 0
    tried = (
        f"[nodump('{home}/flags'), nodump('{home}/flags', 0x40046602, 4), ioctl('{home}/flags', 0x401c5820, bytes(28))]"
    )
    assert kernel.value(tried) == [EPERM] * 3


def test_file_setattr_changes_a_file_on_the_host_and_not_in_a_session(
    lab: Lab, participant: Person, kernel: Kernel
) -> None:
    path = f"/home/{participant.name}/setattr"
    kernel.sh("touch ~/setattr")
    if (found := on_host(lab, participant, f"file_setattr({path!r})")) != 0:
        assert found == ENOSYS, "on Linux before 6.17 there is no such call"
    assert kernel.value(f"file_setattr({path!r})") in (EPERM, ENOSYS)


#: long call(number, a, b, c) by the way of 32-bit programs: push rbx; mov eax,edi; mov ebx,esi; xchg ecx,edx; int 0x80.
LEGACY = """
import mmap, subprocess, sys
code = '''
import ctypes, mmap, sys
room = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
room.write(bytes.fromhex("5389f889f387d1cd805bc3"))
address = ctypes.addressof(ctypes.c_char.from_buffer(room))
call = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)(address)
print([-call(54, 99, int(number), 0) for number in sys.argv[1:]])
'''
def legacy(*numbers):
    done = subprocess.run([sys.executable, "-c", code, *map(str, numbers)], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else f"{done.returncode}: {done.stderr}"
"""


def test_the_calls_of_32_bit_programs_are_no_way_round(kernel: Kernel) -> None:
    kernel.run(LEGACY)
    numbers = list(ESCAPES.values())
    assert kernel.value(f"legacy(*{[number ^ 1 for number in numbers]})") == [EBADF] * len(numbers)
    assert kernel.value(f"legacy(*{numbers})") == [EPERM] * len(numbers)


def test_the_calls_of_x32_programs_are_no_way_round(kernel: Kernel) -> None:
    numbers = list(ESCAPES.values())
    tried = "[call(0x40000000 + 514, 99, number, 0) for number in {}]"
    # Most kernels have no such calls; then it is they who say so of the number beside it, and not the profile.
    beside = kernel.value(tried.format([number ^ 1 for number in numbers]))
    assert beside in ([EBADF] * len(numbers), [ENOSYS] * len(numbers))
    assert kernel.value(tried.format(numbers)) == [EPERM] * len(numbers)


def test_a_subvolume_without_a_limit_is_made_on_the_host_and_not_in_a_session(
    lab: Lab, participant: Person, kernel: Kernel
) -> None:
    home = f"/home/{participant.name}"
    if lab.machine.out("findmnt", "--noheadings", "--output=FSTYPE", "--target", home) != "btrfs":
        pytest.skip("homes are not on btrfs")
    assert on_host(lab, participant, f"subvolume({home!r}, 'outside')") == 0
    lab.machine.run("btrfs", "subvolume", "delete", f"{home}/outside")
    numbers = [number for name, number in ESCAPES.items() if name.startswith("BTRFS")]
    assert kernel.value(f"[subvolume({home!r}, 'inside', number) for number in {numbers}]") == [EPERM] * len(numbers)
    assert kernel.sh("ls -d ~/inside", check=False).returncode != 0


def test_what_terminals_and_programs_ask_for_works(kernel: Kernel) -> None:
    code = """
import array, fcntl, pty, socket, termios
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 43, 132, 0, 0))
found = {"size": struct.unpack("HHHH", fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8)))[:2]}
attributes = termios.tcgetattr(slave)
attributes[3] &= ~termios.ECHO
termios.tcsetattr(slave, termios.TCSANOW, attributes)
found["echo"] = termios.tcgetattr(slave)[3] & termios.ECHO
reader, writer = os.pipe()
os.write(writer, b"12345")
waiting = array.array("i", [0])
fcntl.ioctl(reader, termios.FIONREAD, waiting)
found["waiting"] = waiting[0]
with socket.socket() as knock:
    fcntl.ioctl(knock, 0x5421, struct.pack("i", 1))
    found["blocking"] = not fcntl.fcntl(knock, fcntl.F_GETFL) & os.O_NONBLOCK
open("plain", "w").close()
with open("plain") as file:
    found["flags"] = fcntl.ioctl(file, 0x80086601, bytes(8)) is not None
"""
    kernel.run(code)
    expected = {"size": [43, 132], "echo": 0, "waiting": 5, "blocking": False, "flags": True}
    assert kernel.value("found") == expected
    assert kernel.out("script --quiet --command 'stty rows 40 cols 90; stty size' /dev/null </dev/null") == "40 90"
    assert kernel.out("cp --reflink=always --archive ~/flags ~/copied && stat --format=%n ~/copied").endswith("/copied")


APPLIED = """
import json, pathlib, sys
path = pathlib.Path("/run/containerd/io.containerd.runtime.v2.task/moby", sys.argv[1], "config.json")
print(json.dumps(json.loads(path.read_text())["linux"]["seccomp"]))
"""


def _without_ioctl(profile: dict[str, Any]) -> list[Any]:
    rules = [{**rule, "names": [name for name in rule["names"] if name != "ioctl"]} for rule in profile["syscalls"]]
    return [rule for rule in rules if rule["names"]]


def test_all_else_is_what_docker_allows(lab: Lab, participant: Person) -> None:
    ours = json.loads(lab.machine.python(APPLIED, lab.container_of(participant.name)).stdout)
    image = lab.machine.out("docker", "inspect", "--format={{.Image}}", lab.container_of(participant.name))
    options = "--detach --rm --cap-drop=ALL --security-opt=no-new-privileges --network=none --entrypoint=sleep"
    plain = lab.machine.out("docker", "run", *options.split(), image, "60")
    try:
        dockers = json.loads(lab.machine.python(APPLIED, plain).stdout)
    finally:
        lab.machine.run("docker", "kill", plain)
    assert {key: value for key, value in ours.items() if key != "syscalls"} == {
        key: value for key, value in dockers.items() if key != "syscalls"
    }
    assert _without_ioctl(ours) == _without_ioctl(dockers)
    assert sum("ioctl" in rule["names"] for rule in dockers["syscalls"]) == 1


def test_the_profile_is_written_when_it_is_missing_and_not_otherwise(lab: Lab) -> None:
    seen = lab.machine.out("stat", "--format=%U:%G %a %i %z", PROFILE)
    assert seen.startswith("root:root 644 ")
    assert labstead(lab, "seccomp", "ensure").stdout == ""
    assert lab.machine.out("stat", "--format=%U:%G %a %i %z", PROFILE) == seen
    before = lab.machine.out("cat", PROFILE)
    lab.machine.run("rm", PROFILE)
    assert labstead(lab, "seccomp", "ensure").stdout == f"{PROFILE}\n"
    assert lab.machine.out("cat", PROFILE) == before
    assert lab.machine.out("ls", "-A", "/etc/labstead").count("seccomp") == 1


def test_without_the_profile_no_session_starts(lab: Lab, admin: Person) -> None:
    person = lab.join("hugo", admin)
    with kept(lab.machine, PROFILE):
        lab.machine.run("rm", PROFILE)
        assert _refused(person) == "The machine could not start your session; please tell an administrator."
        journal = lab.machine.out("journalctl", "--quiet", "--unit=labstead-hub", "--since=-2min", "--output=cat")
        assert f"{PROFILE}: No such file or directory; site.yml writes this file" in journal
    person.start().stop()


def _refused(person: Person) -> str:
    """Try to start a session that cannot start, and give what its owner is told."""
    answer = person.api("POST", f"/hub/api/users/{person.name}/server")
    assert answer.status_code == 400, answer.text[:300]
    return str(answer.json()["message"])


# --- limits of spaces: btrfs; XFS and ext4 are in tests/kernel


MIB = 2**20
LIMIT, MORE = 48 * MIB, 96 * MIB

FILL = """
import os
def fill(path, most, keep=False):
    "Write at the end of a file until there is no more room; bytes written and errno."
    block, written, why = os.urandom(2**16), 0, 0
    try:
        with open(path, "ab", buffering=0) as file:
            while written < most:
                written += file.write(block)
                if written % 2**20 == 0:
                    os.fsync(file)
            os.fsync(file)
    except OSError as error:
        why = error.errno
    if not keep and os.path.exists(path):
        os.unlink(path)
    return [written, why]
"""


@pytest.fixture(scope="module")
def limited(lab: Lab, admin: Person) -> Person:
    """Give somebody in a group of her own, with a session."""
    person = lab.join("lena", admin)
    labstead(lab, "group", "add", _lagoon(person), "--members", person.name)
    return person.start()


def _lagoon(person: Person) -> str:
    return f"lagoon-{person.name[-6:]}"


@pytest.fixture(scope="module")
def writer(limited: Person) -> Kernel:
    kernel = limited.kernel()
    kernel.run(FILL)
    return kernel


def taken(lab: Lab, path: str) -> int:
    """Give the bytes that a folder takes, by walking through it."""
    return int(lab.machine.out("du", "--summarize", "--block-size=1", path).split()[0])


@pytest.mark.parametrize("kind", ["home", "scratch", "group"])
def test_a_limit_on_btrfs_is_met_and_not_passed_and_raised_at_once(
    lab: Lab, limited: Person, writer: Kernel, kind: str
) -> None:
    name, option, folder = {
        "home": (limited.name, [], f"/home/{limited.name}"),
        "scratch": (limited.name, ["--scratch"], f"/scratch/{limited.name}"),
        "group": (_lagoon(limited), ["--group"], f"/groups/{_lagoon(limited)}"),
    }[kind]
    assert lab.machine.out("findmnt", "--noheadings", "--output=FSTYPE", "--target", folder) == "btrfs"
    path = f"{folder}/full"
    labstead(lab, "quota", "set", name, str(LIMIT), *option)
    try:
        _, why = writer.value(f"fill({path!r}, {4 * LIMIT}, keep=True)")
        assert why in (28, 122), "ENOSPC or EDQUOT"
        assert LIMIT - 4 * MIB < taken(lab, folder) <= LIMIT
        assert writer.value(f"fill({folder + '/again'!r}, {4 * LIMIT})")[1] in (28, 122)
        assert taken(lab, folder) <= LIMIT

        labstead(lab, "quota", "set", name, str(MORE), *option)
        written, why = writer.value(f"fill({path!r}, {4 * LIMIT}, keep=True)")
        assert why in (28, 122)
        assert written > MORE - LIMIT - 4 * MIB
        assert MORE - 4 * MIB < taken(lab, folder) <= MORE
    finally:
        labstead(lab, "quota", "set", name, "default", *option)
        writer.sh(f"rm -f {path} {folder}/again")


def test_a_group_that_somebody_joins_brings_its_limit(lab: Lab, limited: Person, writer: Kernel) -> None:
    strand = f"strand-{limited.name[-6:]}"
    labstead(lab, "group", "add", strand)
    labstead(lab, "quota", "set", _lagoon(limited), str(LIMIT), "--members")
    labstead(lab, "quota", "set", strand, str(MORE), "--members")
    path = f"/home/{limited.name}/full"
    try:
        assert writer.value(f"fill({path!r}, {4 * LIMIT})")[0] < LIMIT
        labstead(lab, "group", "members", strand, "--add", limited.name)
        assert LIMIT < writer.value(f"fill({path!r}, {4 * LIMIT})")[0] < MORE
        labstead(lab, "group", "members", strand, "--remove", limited.name)
        assert writer.value(f"fill({path!r}, {4 * LIMIT})")[0] < LIMIT
    finally:
        labstead(lab, "quota", "set", _lagoon(limited), "default", "--members")


# --- places to write


PLACES = """
import json, os
places = {}
for line in open("/proc/self/mountinfo"):
    fields = line.split()
    place, kind = fields[4], fields[fields.index("-") + 1]
    probe = os.path.join(place, "labstead-probe")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(probe)
    except OSError:
        continue
    found = os.statvfs(place)
    places[place] = [kind, found.f_frsize * found.f_blocks]
"""


def test_whatever_can_be_written_has_a_limit_or_lies_in_memory(lab: Lab, participant: Person, kernel: Kernel) -> None:
    kernel.run(PLACES)
    places: dict[str, tuple[str, int]] = kernel.value("places")
    uid = lab.machine.out("id", "-u", participant.name)
    own = {f"/home/{participant.name}", f"/scratch/{participant.name}"}
    groups = {place for place in places if place.startswith("/groups/")}
    memory = {
        "/tmp": TMP,
        "/var/tmp": TMP,
        f"/run/user/{uid}": TMP // 4,
        "/run/lock": 2**20,
        "/dev/shm": 64 * 2**20,
    }
    assert own <= places.keys()
    assert {place: size for place, (kind, size) in places.items() if kind == "tmpfs"} == memory
    assert set(places) - own - groups - set(memory) <= {"/dev/mqueue"}, "RLIMIT_MSGQUEUE holds there"
    # Beside the mounts there is the image alone.
    assert set(kernel.sh("find / -xdev -writable -not -type l 2>/dev/null", check=False).stdout.split()) <= set(places)


@pytest.mark.parametrize(
    ("place", "size"),
    [("/tmp", TMP), ("/var/tmp", TMP), ("/dev/shm", 64 * 2**20), ("/run/lock", 2**20), ("$XDG_RUNTIME_DIR", TMP // 4)],
)
def test_what_lies_in_memory_is_full_at_its_size(rough: Kernel, place: str, size: int) -> None:
    rough.run(FILL)
    written, errno = rough.value(f"fill(os.path.expandvars('{place}/fill'), {2 * size})")
    assert errno == 28, "ENOSPC"
    assert 0.9 * size <= written <= size


def test_a_session_that_says_much_does_not_fill_the_disk(lab: Lab, neighbour: Person, rough: Kernel) -> None:
    """Docker keeps two files of 10 MB of what is printed; 80 MB that do not shrink are printed."""
    ident = lab.container_of(neighbour.name)
    rough.run("""
import base64, os
with open("/proc/1/fd/1", "wb", buffering=0) as output:
    for _ in range(80):
        for _ in range(16):
            output.write(base64.b64encode(os.urandom(48 * 1024)) + b"\\n")
    output.write(b"that was all\\n")
""")
    wait_for("the end of it", lambda: "that was all" in lab.machine.out("docker", "logs", "--tail=50", ident), 60)
    size = int(lab.machine.out("du", "--summarize", "--block-size=1", f"/var/lib/docker/containers/{ident}").split()[0])
    assert 5 * 10**6 < size < 32 * 10**6


def test_a_crash_leaves_no_image_of_memory(kernel: Kernel) -> None:
    crash = "mkdir -p ~/crash && cd ~/crash && ulimit -c; ulimit -Hc; python3 -c 'import os; os.abort()'; ls -A"
    assert kernel.sh(crash, check=False).stdout.split() == ["0", "0"]
    assert kernel.sh("ulimit -c unlimited", check=False).returncode != 0


def test_docker_keeps_nothing_of_a_session_but_its_log(lab: Lab, participant: Person) -> None:
    found = json.loads(lab.machine.out("docker", "inspect", lab.container_of(participant.name)))[0]
    assert {mount["Type"] for mount in found["Mounts"]} == {"bind"}
    layer = found["GraphDriver"]["Data"]["UpperDir"]
    size = int(lab.machine.out("du", "--summarize", "--block-size=1", layer).split()[0])
    assert size < 2**20


# --- images with volumes of their own


WITH_VOLUME = """printf 'FROM %s\\nVOLUME /srv/extra\\n' "$1" | docker build --quiet --tag "$2" -"""


@pytest.fixture
def image(lab: Lab) -> str:
    """Give the reference of the sessions' image."""
    return lab.machine.out("awk", "/reference:/ {print $NF; exit}", "/etc/labstead/sessions.yml")


def test_the_gate_refuses_an_image_with_a_volume(lab: Lab, admin: Person, image: str) -> None:
    person = lab.join("iris", admin)
    ident = lab.machine.out("docker", "image", "inspect", "--format={{.Id}}", image)
    lab.machine.sh(WITH_VOLUME, image, image)
    try:
        assert _refused(person) == "The machine could not start your session; please tell an administrator."
    finally:
        lab.machine.sh('docker tag "$1" "$2"; docker image prune --force', ident, image)
    says = f"image {image} declares VOLUME /srv/extra, which no limit would hold"
    assert says in lab.machine.out("journalctl", "--quiet", "--unit=labstead-gate", "--since=-2min", "--output=cat")
    assert lab.machine.out("docker", "volume", "ls", "--quiet") == ""
    person.start().stop()


def test_site_yml_refuses_an_image_with_a_volume(lab: Lab, image: str) -> None:
    extra = "institute/extra:1"
    inventory = lab.folder / "volume.yml"
    images = [{"name": "extra", "title": "Extra", "reference": extra}]
    provision.inventory(lab.machine, inventory, {**SETTINGS, "sessions_images": images})
    before = lab.machine.out("stat", "--format=%z", "/etc/labstead/sessions.yml")
    lab.machine.sh(WITH_VOLUME, image, extra)
    try:
        run = provision.run(inventory, lab.folder / "volume.log", "--tags", "sessions")
    finally:
        lab.machine.run("docker", "rmi", extra)
    assert run.code == 2
    assert f"sessions_images: {extra} declares VOLUME /srv/extra, which no limit would hold" in " ".join(
        run.text.split()
    )
    assert lab.machine.out("stat", "--format=%z", "/etc/labstead/sessions.yml") == before


# --- scratch


def test_scratch_is_ones_own_and_the_environment_says_where(
    lab: Lab, participant: Person, neighbour: Person, kernel: Kernel
) -> None:
    scratch = f"/scratch/{participant.name}"
    assert kernel.out("echo $SCRATCH $PANGEO_SCRATCH") == f"{scratch} {scratch}"
    kernel.sh("echo temporary >$SCRATCH/made-here")
    uid = lab.machine.out("id", "-u", participant.name)
    assert lab.machine.out("stat", "--format=%u %a", f"{scratch}/made-here") == f"{uid} 664"
    assert lab.machine.out("stat", "--format=%u %a", scratch) == f"{uid} 700"
    assert lab.machine.sh('test -d "/scratch/$1"', neighbour.name).returncode == 0
    assert kernel.out("ls /scratch") == participant.name


AGE = """
    scratch=$1/scratch outside=$1/outside
    mkdir -p "$scratch"/anna/deep/deeper "$scratch"/anna/kept "$scratch"/bert "$outside"
    cd "$scratch/anna"
    touch -d '40 days ago' "$outside/file" "$scratch/bert/old"
    echo old | tee old .hidden deep/deeper/old kept/old read written >/dev/null
    touch -d '40 days ago' old .hidden deep/deeper/old kept/old read written deep/deeper deep kept
    ln -s "$outside" folder; ln -s "$outside/file" file; ln -s "$scratch/bert" neighbour
    sed "s|/scratch/|$scratch/|; s|:[0-9]*d\\$|:4s|" /etc/tmpfiles.d/labstead-scratch.conf >"$1/age.conf"
    made=$(date +%s)
    until [ $(($(date +%s) - made)) -ge 6 ]; do sleep 0.2; done
    # What is used now: read, written, brought here with its own dates; looked at alone.
    cat read >/dev/null; echo more >>written; touch kept/new; ls -R . >/dev/null
    touch "$scratch/bert/new"; cp -a "$outside/file" unpacked
    systemd-tmpfiles --clean "$1/age.conf"
    cd "$1"; find scratch outside | sort
"""


def test_what_nobody_uses_goes_and_nothing_else(lab: Lab) -> None:
    """systemd-tmpfiles with the very line of the host, but for seconds in place of days.

    A file's ctime and time of birth are the kernel's; so they are waited for. The folder is on the disk of scratch.
    """
    folder = "/scratch/.age"
    try:
        found = lab.machine.sh(AGE, folder).stdout.split()
    finally:
        lab.machine.run("rm", "--recursive", "--force", folder)
    assert set(found) == {
        *("outside", "outside/file", "scratch", "scratch/anna", "scratch/bert", "scratch/bert/new"),
        *("scratch/anna/read", "scratch/anna/written", "scratch/anna/unpacked"),
        *("scratch/anna/kept", "scratch/anna/kept/new"),
    }


def test_scratch_is_looked_after_daily_and_with_the_age_of_the_inventory(lab: Lab, participant: Person) -> None:
    """On top of the days comes one, as the kernel notes reading once a day only."""
    days = SETTINGS["storage_scratch_days"] + 1
    lab.machine.sh('runuser -u "$1" -- touch "/scratch/$1/present"', participant.name)
    said = lab.machine.sh("SYSTEMD_LOG_LEVEL=debug systemd-tmpfiles --clean labstead-scratch.conf 2>&1").stdout
    threshold = lab.machine.out("date", "--utc", f"--date=-{days} days", "+%a %Y-%m-%d")
    assert f'Cleanup threshold for directory "/scratch/{participant.name}" is {threshold}' in said
    assert lab.machine.out("ls", f"/scratch/{participant.name}/present")
    timer = lab.machine.out(
        "systemctl", "show", "--property=ActiveState,TimersMonotonic", "systemd-tmpfiles-clean.timer"
    )
    assert "ActiveState=active" in timer
    assert "OnUnitActiveUSec=1d" in timer


def test_reading_in_a_session_is_use(lab: Lab, participant: Person, kernel: Kernel) -> None:
    """Not with `noatime`."""
    path = f"/scratch/{participant.name}/read"
    kernel.sh(f"echo x >{path}; touch -d '40 days ago' {path}; cat {path}")
    assert int(lab.machine.out("stat", "--format=%X", path)) > int(lab.machine.out("date", "+%s")) - 300
    assert int(lab.machine.out("stat", "--format=%Y", path)) < int(lab.machine.out("date", "+%s")) - 39 * 86400
