"""A running host: systemd-nspawn, the process that keeps it, its control groups, and ways into it.

The rule: only processes in the host's own control groups, or recorded with their start time, are
ever sent a signal.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import network
from .plain import Failed, say
from .store import Host, Keeper, Process, detach_loops
from .tree import tail

PROGRAM = Path(__file__).resolve().parent.parent / "host"
BOOT_SECONDS = 120.0
STOP_SECONDS = 60.0
REBOOTED = 133  # what systemd-nspawn --keep-unit exits with when the host wants to come up again


# Control groups


def hierarchies(cgroups: str, mounts: str) -> Iterator[tuple[str, Path, Path]]:
    """Read /proc/self/cgroup and mountinfo: kind (v1 or v2), mount point, own group of each."""
    mounted: dict[str, tuple[Path, str]] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point, kind, options = before.split()[4], after.split()[0], after.split()[-1]
        if kind == "cgroup2":
            mounted.setdefault("", (Path(point), before.split()[3]))
        elif kind == "cgroup":
            for option in options.split(","):
                mounted.setdefault(option, (Path(point), before.split()[3]))
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        found = mounted.get(controllers.split(",")[0])
        if found:
            point_path, root = found
            own = point_path / os.path.relpath(path, root)
            yield ("v1" if controllers else "v2"), point_path, Path(os.path.normpath(own))


def own_hierarchies() -> list[tuple[str, Path, Path]]:
    """Return the hierarchies that this process is in."""
    cgroups = Path("/proc/self/cgroup").read_text()
    return list(hierarchies(cgroups, Path("/proc/self/mountinfo").read_text()))


def machine_has_v1() -> bool:
    """Tell whether /sys/fs/cgroup is not the one hierarchy of cgroup v2."""
    return not Path("/sys/fs/cgroup/cgroup.controllers").exists()


def enter_group(group: Path) -> None:
    """Make a control group if need be and move this process into it."""
    for missing in [path for path in (group, *group.parents) if not path.exists()][::-1]:
        with contextlib.suppress(FileExistsError):
            missing.mkdir()
        for knob in (
            "cpuset.cpus",
            "cpuset.mems",
        ):  # empty in a new v1 group, and then nothing fits
            if (missing / knob).exists() and (missing.parent / knob).exists():
                with contextlib.suppress(OSError):
                    (missing / knob).write_text((missing.parent / knob).read_text())
    (group / "cgroup.procs").write_text("0")


def members(groups: Sequence[str]) -> set[int]:
    """Return all processes in these control groups and below."""
    found: set[int] = set()
    for group in groups:
        for folder, _, _ in os.walk(group):
            with contextlib.suppress(OSError):
                found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
    return found - {0, os.getpid()}


def remove_groups(groups: Sequence[str]) -> None:
    """Remove control groups that no process is in."""
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


# The keeper


def keep(host: Host, held: int) -> int:
    """Run systemd-nspawn until the host is switched off, again after each of its reboots.

    `held` is the descriptor of the host's lock, which is let go once this process is on record: so
    nobody else works on a host whose `up` was killed just before its keeper came to life.
    """
    groups = []
    if Path("/run/systemd/system").is_dir():
        # A delegated scope of our own (see `_keeper_command`). Not measured: no such machine yet.
        groups = [str(own) for _, _, own in own_hierarchies() if network.namespace(host.name) in str(own)]
    else:
        for kind, point, own in own_hierarchies():
            # On v2 only the root may hold both processes and groups with controllers. Not measured.
            group = (own if kind == "v1" else point) / network.namespace(host.name)
            enter_group(group)
            groups.append(str(group))
    process = Process.of(os.getpid())
    assert process is not None
    Keeper(process, tuple(groups)).save(host.name)
    with contextlib.suppress(OSError):
        if Path(f"/proc/self/fd/{held}").readlink().name == f"host-{host.name}":
            os.close(held)
    environment = os.environ | {
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
        "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE": "1",
    }
    while True:
        # A boot starts from nothing but the disk, as on a real machine: no old rules, no old groups.
        remove_groups(groups)
        detach_loops(host.root)
        network.connect(host)
        status = subprocess.call(nspawn_command(host), env=environment)
        print(f"systemd-nspawn exited with {status}", flush=True)
        if status != REBOOTED:
            return status


def nspawn_command(host: Host) -> list[str]:
    """Return the command that boots a host; it dies with its keeper."""
    command = [
        *("setpriv", "--pdeathsig", "KILL", "systemd-nspawn", "--quiet", "--boot", "--settings=no"),
        f"--directory={host.root}",
        f"--machine={network.namespace(host.name)}",
        f"--hostname={host.name}",
        f"--network-namespace-path=/run/netns/{network.namespace(host.name)}",
        *("--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off"),
        *("--timezone=off", "--console=read-only", "--capability=all"),
        "--system-call-filter=@keyring bpf",
    ]
    if machine_has_v1():
        # Debian 13's systemd refuses to start on cgroup v1 otherwise.
        command.append("--setenv=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
    return command


def start(host: Host, held: int) -> None:
    """Start a keeper in a session of its own, so that it outlives shell, make and pytest."""
    with host.console.open("ab") as console:
        keeper = subprocess.Popen(
            _keeper_command(host, held),
            pass_fds=[held],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            cwd="/",
            start_new_session=True,
        )
    end = time.monotonic() + 10
    while not running(host.name):
        if keeper.poll() is not None or time.monotonic() > end:
            raise Failed(f"the host '{host.name}' did not start", tail(host.console))
        time.sleep(0.02)


def _keeper_command(host: Host, held: int) -> list[str]:
    """Return the command of the keeper; where systemd is PID 1 it needs a delegated scope."""
    command = [sys.executable, str(PROGRAM), "_keep", host.name, str(held)]
    if not Path("/run/systemd/system").is_dir():
        return command
    unit = f"--unit={network.namespace(host.name)}"
    return [
        "systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        unit,
        "-pDelegate=yes",
        "--",
        *command,
    ]


def running(name: str) -> bool:
    """Tell whether the host's keeper lives."""
    keeper = Keeper.load(name)
    return keeper is not None and keeper.process.alive()


def stop(name: str) -> None:
    """Kill a host at once, as if its plug were pulled, and take its control groups away."""
    keeper = Keeper.load(name)
    if keeper is None:
        return
    end = time.monotonic() + STOP_SECONDS
    while keeper.process.alive() or members(keeper.cgroups):
        # systemd-nspawn dies with its keeper, and the host with systemd-nspawn.
        for pid in [keeper.process.pid] if keeper.process.alive() else members(keeper.cgroups):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise Failed(f"processes of '{name}' do not die: {sorted(members(keeper.cgroups))}")
        time.sleep(0.05)
    remove_groups(keeper.cgroups)
    with contextlib.suppress(OSError):
        Path(f"/run/systemd/nspawn/propagate/{network.namespace(name)}").rmdir()


# Ways in


def leader(name: str) -> Process | None:
    """Find the host's PID 1: number 1 one PID namespace below the machine, in the host's group."""
    keeper = Keeper.load(name)
    for pid in members(keeper.cgroups) if keeper else ():
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            numbers = re.search(r"^NSpid:(.*)$", status, re.MULTILINE)
            if numbers and len(numbers[1].split()) == 2 and numbers[1].split()[1] == "1":
                return Process.of(pid)
    return None


def way_in(leader: Process, command: Sequence[str]) -> list[str]:
    """Return the command that runs another one as root in the host."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    words = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash"}
    words |= {"PATH": path, "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb")}
    settings = [f"{key}={value}" for key, value in words.items()]
    enter = ["nsenter", f"--target={leader.pid}", "--all", "--root", "--wd", "--"]
    # A caller that is killed, or runs out of patience, takes its command along.
    enter += ["setpriv", "--pdeathsig", "KILL", "--"]
    return [*enter, "env", "--ignore-environment", "--chdir=/root", *settings, *command]


def enter_leader_groups(leader: Process) -> None:
    """Move this process into the host's control groups, beside its services."""
    points = {(kind, point): own for kind, point, own in own_hierarchies()}
    cgroups = Path(f"/proc/{leader.pid}/cgroup").read_text()
    mounts = Path("/proc/self/mountinfo").read_text()
    for kind, point, group in hierarchies(cgroups, mounts):
        if (kind, point) in points:
            enter_group((group.parent if group.name == "init.scope" else group) / "exec")


def ask(leader: Process, command: Sequence[str], timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a short command in the host and return its output."""
    return subprocess.run(
        way_in(leader, command),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def wait_until_up(host: Host, ssh: Sequence[str]) -> str:
    """Wait until systemd has started everything and ssh lets us in; return systemd's state."""
    end = time.monotonic() + BOOT_SECONDS
    state, told = "", ""
    while time.monotonic() < end:
        if not running(host.name):
            raise Failed(f"the host '{host.name}' went down while booting", tail(host.console))
        first = leader(host.name)
        if first:
            with contextlib.suppress(subprocess.TimeoutExpired):
                state = ask(first, ["systemctl", "is-system-running"]).stdout.strip()
        if state != told and state in ("initializing", "starting", "running", "degraded"):
            say(f"systemd: {state}")
            told = state
        if state in ("running", "degraded"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                quiet = subprocess.run(
                    [*ssh, "true"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=15,
                    check=False,
                )
                if quiet.returncode == 0:
                    say("ssh answers")
                    return state
        time.sleep(0.2)
    what = "ssh does not answer" if state in ("running", "degraded") else f"systemd is '{state}'"
    raise Failed(f"'{host.name}' is not up after {BOOT_SECONDS:.0f} s: {what}", tail(host.console))
