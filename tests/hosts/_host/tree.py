"""A host's disk: a bootstrapped base of its suite, copied and furnished with what makes it this host.

The rule: a base holds what a fresh Debian server has and nothing that labstead should install.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import apt
from .plain import Failed, say
from .store import DIR, Host, discard, lock

PACKAGES = (
    "systemd,systemd-sysv,libpam-systemd,dbus,python3,adduser,passwd,sudo,procps,kmod,netbase,e2fsprogs,"
    "iproute2,iputils-ping,iptables,ca-certificates,openssh-server"
)

# systemd-udevd would start, for /sys is writable in a host, and trigger the machine's own devices.
FINISH = """
set -e
apt-get clean
rm -rf /etc/ssh/ssh_host_* /var/lib/apt/lists/* /var/lib/dbus/machine-id
: > /etc/machine-id
echo 'LANG=C.UTF-8' > /etc/default/locale
systemctl mask systemd-udevd.service systemd-udev-trigger.service \\
    systemd-udevd-kernel.socket systemd-udevd-control.socket
"""

# What a virtual machine has by itself and a container lacks: device nodes, and on cgroup v1
# controllers that Docker may write to. At every boot, before anything that could want them.
UNIT = """[Unit]
Description=Device nodes and control groups of a throwaway host
DefaultDependencies=no
# Before file systems are mounted, too: some are in files and need a loop device.
Wants=local-fs-pre.target
Before=local-fs-pre.target sysinit.target docker.service containerd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /usr/local/lib/throwaway-host/prepare

[Install]
WantedBy=sysinit.target
"""
PREPARE = """# Written by tests/hosts/host.
set -e
node() { [ -e "$1" ] || mknod -m "$2" "$1" "$3" "$4" "$5"; }
node /dev/fuse 0666 c 10 229
node /dev/loop-control 0660 c 10 237
for number in $(seq 0 63); do
    node "/dev/loop$number" 0660 b 7 "$number"
done
mkdir -p /dev/net
node /dev/net/tun 0666 c 10 200
# systemd-nspawn mounts v1 controllers read-only. With cgroup v2 alone there are none of these.
awk '$3 == "cgroup" { print $2 }' /proc/self/mounts | while read -r controller; do
    mount -o remount,bind,rw "$controller"
done
"""


def contained(command: Sequence[str]) -> list[str]:
    """Wrap a command so that a killed caller leaves neither processes nor mounts of it behind."""
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    return ["setpriv", "--pdeathsig", "KILL", *own, *command]


def within(root: Path, command: Sequence[str]) -> list[str]:
    """Wrap a command so that it runs in a tree that is not booted."""
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    clean = ["env", "-i", path, "LANG=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"]
    return contained(["chroot", str(root), *clean, *command])


def base_dir(suite: str) -> Path:
    """Return where the base of a suite is kept, as its recipe is now."""
    recipe = json.dumps([suite, PACKAGES, FINISH])
    return DIR / "base" / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:10]}"


def make_root(host: Host) -> None:
    """Copy the base of the host's suite, bootstrapping it first if need be."""
    base = base_dir(host.suite)
    if not base.is_dir():
        with lock(f"base-{host.suite}"):
            if not base.is_dir():
                _bootstrap(host.suite, base)
    with lock(f"base-{host.suite}", shared=True):
        say(f"copying {base}")
        copy = ["cp", "--archive", "--reflink=auto", "--", str(base), str(host.root)]
        _run(contained(copy), "copying the base failed")


def _bootstrap(suite: str, base: Path) -> None:
    """Bootstrap a base beside its place and move it there when it is whole."""
    for leftover in (DIR / "base").glob(f"{suite}-*"):
        if leftover.is_dir():
            discard(leftover)
    mirror = apt.machine_mirror()
    building = base.with_name(f"{base.name}.building")
    log = DIR / "base" / f"{suite}.log"
    cache = DIR / "debs" / suite
    (cache / "partial").mkdir(parents=True, exist_ok=True)  # debootstrap then moves whole files only
    say(f"bootstrapping Debian {suite} from {mirror.archive} (once; log: {log})")
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", f"--cache-dir={cache}"]
    if Path(apt.KEYRING).exists():
        command.append(f"--keyring={apt.KEYRING}")
    command += [suite, str(building), mirror.archive]
    environment = os.environ | apt.proxy_environment(apt.machine_settings())
    with log.open("w") as lines:
        process = subprocess.Popen(
            contained(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
        verb = ""
        for line in process.stdout or ():
            lines.write(line)
            lines.flush()
            words = line.split()
            steps = {"Retrieving", "Extracting", "Unpacking", "Configuring"} - {verb}
            if words[:1] == ["I:"] and steps.intersection(words[1:2]):
                verb = words[1]
                say(f"debootstrap: {line[3:].strip()}")
    if process.wait() != 0:
        raise Failed(f"debootstrap of {suite} failed", tail(log))
    _run(within(building, ["sh", "-c", FINISH]), f"finishing the base of {suite} failed")
    building.rename(base)
    say(f"{base} is ready")


def furnish(host: Host, public_key: str) -> None:
    """Make a copied tree this host: its name, network, mirror, certificates and keys."""
    root, name = host.root, host.name
    say("writing the host's own settings")
    mirror = apt.machine_mirror()
    _write(root / "etc/apt/sources.list.d/debian.sources", mirror.sources(host.suite))
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    _write(root / "etc/apt/apt.conf.d/80machine", apt.machine_settings())
    _write(root / "etc/hostname", f"{name}\n")
    # The real address, not 127.0.1.1: munge, Slurm and Dask hand their own name to others.
    own = f"127.0.0.1 localhost\n{host.cable.host} {name}\n"
    _write(root / "etc/hosts", f"{own}\n::1 localhost ip6-localhost ip6-loopback\n")
    _write(root / "etc/resolv.conf", _resolv_conf())
    _write(root / "etc/machine-id", f"{uuid.uuid4().hex}\n")
    _write(root / "etc/systemd/system/throwaway-host.service", UNIT)
    _write(root / "usr/local/lib/throwaway-host/prepare", PREPARE)
    wants = root / "etc/systemd/system/sysinit.target.wants/throwaway-host.service"
    wants.parent.mkdir(parents=True, exist_ok=True)
    wants.symlink_to("/etc/systemd/system/throwaway-host.service")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    _write(root / "root/.ssh/authorized_keys", public_key, 0o600)
    host_key = root / "etc/ssh/ssh_host_ed25519_key"
    make_key(host_key, f"root@{name}")
    key = host_key.with_suffix(".pub").read_text().rsplit(maxsplit=1)[0]
    _write(host.dir / "known_hosts", f"{host.cable.host},{name} {key}\n", 0o600)
    certificates = sorted(Path("/usr/local/share/ca-certificates").rglob("*.crt"))
    if certificates:
        for certificate in certificates:
            shutil.copy(certificate, root / "usr/local/share/ca-certificates" / certificate.name)
        _run(within(root, ["update-ca-certificates"]), "update-ca-certificates failed")
    archives = root / "var/cache/apt/archives"
    with lock(f"debs-{host.suite}"):
        apt.lend_packages(DIR / "debs" / host.suite, archives)


def harvest(host: Host) -> None:
    """Keep the packages that the host fetched, for the next one."""
    archives = host.root / "var/cache/apt/archives"
    if archives.is_dir():
        with lock(f"debs-{host.suite}"):
            apt.harvest_packages(archives, DIR / "debs" / host.suite)


def make_key(path: Path, comment: str) -> None:
    """Make an ed25519 key without a passphrase, unless it is there already."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        _run(command, "ssh-keygen failed")


def tail(log: Path, lines: int = 25) -> str:
    """Return the last lines of a log, without the colours and blank lines of a console."""
    if not log.exists():
        return ""
    text = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|.)", "", log.read_text(errors="replace"))
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def _resolv_conf() -> str:
    """Return the machine's resolv.conf, without name servers that only the machine itself hears."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if not line.startswith("nameserver 127.")]
        if any(line.startswith("nameserver") for line in kept):
            return "\n".join(kept) + "\n"
    say("the machine has no name server that a host can reach: names will not resolve in it")
    return ""


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file into a tree, in place of whatever is there, links too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode)
    path.write_text(text)
    path.chmod(mode)


def _run(command: Sequence[str], failure: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command quietly; if it fails, its output explains why."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(f"{failure} (exit code {done.returncode})", done.stdout[-4000:])
