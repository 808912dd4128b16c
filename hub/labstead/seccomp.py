"""Which system calls a session may make: those that Docker allows, but for what would lift a limit of the disks.

Whoever owns a file may take it out of its project, and write on where the project's limit does not reach:
FS_IOC_FSSETXATTR sets the number itself, FS_IOC_SETFLAGS stops a folder from passing it on, file_setattr(2) does both.
On btrfs whoever may write in a folder may make a subvolume there, which has no limit, and who owns one may make it read
only, so that root cannot delete what is in it. None of it needs a capability.

The one rule: the profile is what this Docker applies of itself, read from a container that it has just started, less
what stands in FORBIDDEN; and it is put in place only after a container has run with it.
"""

import json
import os
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from labstead.errors import BadInput, LabsteadError

PROFILE = Path("/etc/labstead/seccomp.json")
"""The profile of all sessions; the hub sends its text, the gate compares it with its own reading."""

_BITS = 32
"""The kernel reads no more of an ioctl's number: `unsigned int cmd`, fs/ioctl.c. Higher bits must not hide one."""


def _iow(kind: int, number: int, size: int) -> int:
    """Compose the number of an ioctl that is given `size` bytes (_IOW, asm-generic/ioctl.h)."""
    return 1 << 30 | size << 16 | kind << 8 | number


FORBIDDEN = (
    _iow(ord("f"), 2, 8),  # FS_IOC_SETFLAGS, linux/fs.h
    _iow(ord("f"), 2, 4),  # FS_IOC32_SETFLAGS, for programs of 32 bits
    _iow(ord("X"), 32, 28),  # FS_IOC_FSSETXATTR, with struct fsxattr
    _iow(0x94, 1, 4096),  # BTRFS_IOC_SNAP_CREATE, linux/btrfs.h
    _iow(0x94, 14, 4096),  # BTRFS_IOC_SUBVOL_CREATE
    _iow(0x94, 23, 4096),  # BTRFS_IOC_SNAP_CREATE_V2
    _iow(0x94, 24, 4096),  # BTRFS_IOC_SUBVOL_CREATE_V2
    _iow(0x94, 26, 8),  # BTRFS_IOC_SUBVOL_SETFLAGS
)
"""ioctls that no session may make."""
FORBIDDEN_CALLS = frozenset({"file_setattr"})
"""System calls that no session may make, should Docker allow them one day."""

#: Where containerd keeps what it runs: as a service of its own, and started by dockerd. {} is the container's id.
_BUNDLES = (
    "/run/containerd/io.containerd.runtime.v2.task/moby/{}/config.json",
    "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{}/config.json",
)
_ALLOW = "SCMP_ACT_ALLOW"
#: As sessions are, as far as it bears on what Docker allows, and with nothing that is anybody's.
_AS_A_SESSION = (
    *("run", "--rm", "--pull=never", "--network=none", "--log-driver=none", "--read-only", "--user=65534:65534"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges:true"),
)
_DOCKER_SECONDS = 120
_LOOK_SECONDS = 60
"""How long the container that is looked at lives, should nobody end it."""

#: EBADF would mean that the kernel was asked: no file is open as 99. Threads and programs are what Python needs most.
_PROBE = """
import ctypes, errno, subprocess, sys, threading
call = ctypes.CDLL(None, use_errno=True).ioctl
call.argtypes = [ctypes.c_int, ctypes.c_ulong]
for number in map(int, sys.argv[1:]):
    for asked in (number, number | 1 << 32, number | 1 << 63):
        if call(99, asked) != -1 or ctypes.get_errno() != errno.EPERM:
            sys.exit(f"ioctl {asked:#x} is not refused")
    for other in (number ^ 1, number ^ 1 << 31):
        if call(99, other) != -1 or ctypes.get_errno() != errno.EBADF:
            sys.exit(f"ioctl {other:#x} is refused")
thread = threading.Thread(target=subprocess.run, args=(["/bin/sh", "-c", ":"],))
thread.start()
thread.join()
"""


class SeccompError(LabsteadError):
    """There can be no profile: what is wrong with Docker here, and what to do."""


def all_but(forbidden: Collection[int], bits: int = _BITS, value: int = 0) -> Iterator[tuple[int, int]]:
    """Cover all numbers but some with blocks, as few as start with the same bits.

    :param bits: of the numbers
    :param value: bits above those, which all of them have
    :return: mask and value of each block: the numbers n with n & mask == value
    """
    if not forbidden:
        yield (1 << _BITS) - (1 << bits), value
    elif bits:
        bit = 1 << bits - 1
        yield from all_but([number for number in forbidden if not number & bit], bits - 1, value)
        yield from all_but([number for number in forbidden if number & bit], bits - 1, value | bit)


def _ioctl_rules() -> list[dict[str, Any]]:
    """Allow ioctls by their numbers.

    A profile cannot say "neither this nor that" of one argument: several rules for a call are alternatives.
    """
    return [
        {
            "names": ["ioctl"],
            "action": _ALLOW,
            "args": [{"index": 1, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}],
        }
        for mask, value in all_but(FORBIDDEN)
    ]


def restrict(default: dict[str, Any]) -> dict[str, Any]:
    """Take what sessions may not do out of a profile.

    :param default: `linux.seccomp` of an OCI configuration; Docker reads profiles of the same form
    :raises SeccompError: when it allows what it does not name, or says more of ioctl than that it is allowed
    """
    syscalls = default.get("syscalls") or []
    of_ioctl = [rule for rule in syscalls if "ioctl" in rule["names"]]
    if (
        default.get("defaultAction") not in ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL")
        or len(of_ioctl) != 1
        or of_ioctl[0]["action"] != _ALLOW
        or of_ioctl[0].get("args")
    ):
        raise SeccompError(
            "Docker's default seccomp profile is not a list of allowed calls with ioctl among them; "
            "is there a seccomp-profile in /etc/docker/daemon.json? Take it out and run: systemctl restart docker"
        )
    gone = FORBIDDEN_CALLS | {"ioctl"}
    kept = [{**rule, "names": [name for name in rule["names"] if name not in gone]} for rule in syscalls]
    return {**default, "syscalls": [rule for rule in kept if rule["names"]] + _ioctl_rules()}


def _docker(*words: str) -> str:
    try:
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, timeout=_DOCKER_SECONDS, check=False, cwd="/"
        )
    except OSError as error:
        raise SeccompError(f"docker: {error.strerror}; is Docker installed?") from None
    except subprocess.TimeoutExpired:
        raise SeccompError(f"docker {words[0]}: no answer in {_DOCKER_SECONDS} s; see journalctl -u docker") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise SeccompError(f"docker {words[0]}: {said or f'exit code {done.returncode}'}")
    return done.stdout.strip()


def _default(image: str) -> dict[str, Any]:
    """Give the profile that Docker applies of itself to what runs as sessions do."""
    ident = _docker(*_AS_A_SESSION, "--detach", "--entrypoint=/bin/sh", image, "-c", f"exec sleep {_LOOK_SECONDS}")
    try:
        places = [Path(place.format(ident)) for place in _BUNDLES]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise SeccompError(
                f"no configuration of a running container in {' or '.join(str(p.parents[1]) for p in places)}; "
                "Docker has to run containers with containerd and runc, as Debian's and Docker's own packages do"
            )
        configuration = json.loads(found.read_text(encoding="utf-8"))
    finally:
        _docker("kill", ident)
    return configuration["linux"].get("seccomp") or {}  # unconfined: there is none


def _prove(image: str, profile: Path) -> None:
    """Run Python with a profile, and try there what it has to refuse.

    :raises SeccompError: when it does not, or does not let Python run
    """
    numbers = map(str, FORBIDDEN)
    confined = f"--security-opt=seccomp={profile}"
    try:
        _docker(*_AS_A_SESSION, confined, "--entrypoint=python3", image, "-c", _PROBE, *numbers)
    except SeccompError as error:
        raise SeccompError(f"{image} does not run with the seccomp profile of the sessions: {error}") from None


def ensure(image: str, path: Path = PROFILE) -> bool:
    """Write the profile for this machine's Docker; it counts for sessions that start from now on.

    :param image: reference of an image of the sessions, which has Python
    :return: whether it has changed
    :raises SeccompError: when Docker cannot be asked, or the profile does not do what it is for; nothing has changed
    """
    # In the order that Docker gives, which is always the same.
    text = json.dumps(restrict(_default(image)), separators=(",", ":")) + "\n"
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        with new.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        _prove(image, new)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)
    return True


def load(path: Path = PROFILE) -> str:
    """Give the text of the profile.

    :raises BadInput: when there is none
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; site.yml writes this file, run it again") from None
