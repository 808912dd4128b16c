"""A guest: a provisioned host's disk under a kernel of its own (User Mode Linux), which holds quotas of XFS and ext4.

The rule: a guest leaves nothing. Its processes, mounts and network are in namespaces of their own, and the kernel takes
them away with the process that started them, however that ends; the host whose disk was copied notices nothing.

It has the host's addresses, keys and settings, so whatever names the host's address is true in the guest as well; it
reaches nothing but the machine.
"""

import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from support.machine import Completed, call, wait_for
from support.slurm import IMAGES_ROOT

FileSystem = Literal["xfs", "ext4"]

PROGRAM = "/usr/bin/linux.uml"
MODULES = Path("/usr/lib/uml/modules")
BOOT_SECONDS = 180

MAKE: dict[FileSystem, tuple[str, ...]] = {
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=usrquota:prjquota"),
}
"""How a disk for homes is made."""
OPTIONS: dict[FileSystem, str] = {"xfs": "uquota,pquota", "ext4": "usrquota,prjquota"}
"""How it is mounted."""

# What a killed run leaves of this is nothing: unshare kills what is in its namespaces when it ends.
_CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "--"),
)

# The host runs meanwhile. What changes there all the time, or is too much, is covered by empty folders of the same
# owner and mode; what makes it a host in a container is covered by what makes it a guest.
_COPY = """
set -eu
host=$1 tree=$2 image=$3 files=$4 compute=$5
mkdir -p "$tree"
mount --bind "$host" "$tree"
for folder in home groups scratch tmp run var/tmp var/log var/cache var/lib/apt/lists var/lib/docker/containers \\
    var/lib/docker/buildkit var/lib/labstead/accounts var/lib/labstead/archive srv; do
    [ -d "$tree/$folder" ] || continue
    mount -t tmpfs -o "$(stat --format=mode=%a,uid=%u,gid=%g "$tree/$folder")" guest "$tree/$folder"
done
mkdir "$tree/var/log/nginx"
mkdir -p "$tree$compute/images"
for file in etc/fstab etc/systemd/system/throwaway-host.service usr/local/lib/throwaway-host/prepare; do
    [ -f "$tree/$file" ] || continue
    mount --bind "$files/$(basename "$file")" "$tree/$file"
done
rm -f "$image"
truncate --size=6G "$image"
mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$tree" "$image"
"""

_UNIT = """[Unit]
Description=Network, modules and iptables of a guest
DefaultDependencies=no
Before=sysinit.target docker.service containerd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /usr/local/lib/throwaway-host/prepare

[Install]
WantedBy=sysinit.target
"""

_PREPARE = """
set -e
mkdir -p /lib/modules
mount -t hostfs -o {modules} none /lib/modules
ip link set dev vec0 up
ip address add {host}/30 dev vec0
ip route add default via {machine}
update-alternatives --quiet --set iptables /usr/sbin/iptables-legacy
update-alternatives --quiet --set ip6tables /usr/sbin/ip6tables-legacy
"""

_BOOT = """
set -eu
machine=$1
shift
ip link set dev lo up
ip tuntap add dev tap0 mode tap
ip address add "$machine/30" dev tap0
ip link set dev tap0 up
exec "$@"
"""

_MASKED = (
    *("labstead-hub.service", "labstead-proxy.service", "labstead-tidy.timer", "nginx.service", "apparmor.service"),
    *("labstead-cull.timer", "slurmctld.service", "slurmd.service", "munge.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("modprobe@configfs.service", "modprobe@drm.service", "modprobe@fuse.service", "systemd-logind.service"),
    *("e2scrub_reap.service", "getty@tty1.service", "systemd-pstore.service", "systemd-journal-flush.service"),
)
"""Units that no test here needs; a guest has one slow processor."""


def missing() -> list[str]:
    """Name the Debian packages that a guest needs and this machine lacks."""
    needs = {PROGRAM: "user-mode-linux", "/usr/sbin/mkfs.xfs": "xfsprogs", "/usr/sbin/mkfs.ext4": "e2fsprogs"}
    return [package for path, package in needs.items() if not Path(path).exists()]


def _network(process: int | str) -> str:
    """Give the network namespace of a process."""
    return str(Path(f"/proc/{process}/ns/net").readlink())


@dataclass(frozen=True)
class Appliance:
    """The disk of a provisioned host, as an image that guests boot from.

    :param folder: where image and logs are
    :param facts: what the host says of itself: address, ssh key, root directory
    """

    folder: Path
    facts: Mapping[str, Any]

    @property
    def image(self) -> Path:
        """Give the image."""
        return self.folder / "root.ext4"

    @property
    def host(self) -> str:
        """Give the guest's address, which is the host's."""
        return str(self.facts["address"])

    @property
    def machine(self) -> str:
        """Give the machine's address as the guest sees it: the one before its own (`_host.plain.Cable`)."""
        before, _, last = self.host.rpartition(".")
        return f"{before}.{int(last) - 1}"

    def make(self) -> None:
        """Copy the host's disk into the image."""
        files = self.folder / "files"
        files.mkdir(parents=True, exist_ok=True)
        (files / "fstab").write_text("", encoding="utf-8")
        (files / "throwaway-host.service").write_text(_UNIT, encoding="utf-8")
        prepare = _PREPARE.format(modules=MODULES, host=self.host, machine=self.machine)
        (files / "prepare").write_text(prepare, encoding="utf-8")
        words = (self.facts["root"], self.folder / "tree", self.image, files, IMAGES_ROOT)
        for last in (False, True):  # a file that the host removes meanwhile is one too few for mke2fs
            done = call([*_CONTAINED, "sh", "-c", _COPY, "sh", *words], check=last, timeout=180)
            if not done.returncode:
                return

    def disk(self, name: str, kind: FileSystem, megabytes: int = 1024) -> Path:
        """Make a disk for homes and the like."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(megabytes * 2**20)
        call([*MAKE[kind], path])
        return path

    def discard(self) -> None:
        """Remove the image and all disks; the console's log stays."""
        for path in (self.image, *self.folder.glob("*.disk")):
            path.unlink(missing_ok=True)
        for name in ("files", "uml"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        with suppress(FileNotFoundError):
            (self.folder / "tree").rmdir()  # the host's disk was below this name, in a namespace that is gone

    @contextmanager
    def boot(self, *disks: Path, memory: str = "1536M") -> Iterator["Guest"]:
        """Boot a guest, with disks beside its own, and give it while it runs.

        :param disks: ubdb, ubdc and so on in the guest
        """
        changes, state = self.folder / "changes.cow", self.folder / "uml"
        changes.unlink(missing_ok=True)
        shutil.rmtree(state, ignore_errors=True)
        drives = [f"ubd0={changes},{self.image}", *(f"ubd{place}={disk}" for place, disk in enumerate(disks, 1))]
        console = self.folder / "console.log"
        command = [
            *(PROGRAM, f"mem={memory}", *drives, "root=/dev/ubda", "rw", "rootfstype=ext4"),
            *("vec0:transport=tap,ifname=tap0,depth=128", "con=null", "con0=null,fd:1", "noreboot"),
            *(f"uml_dir={state}", "umid=guest", "systemd.show_status=true"),
            *(f"systemd.mask={unit}" for unit in _MASKED),
        ]
        with (
            console.open("wb") as log,
            subprocess.Popen(
                [*_CONTAINED, "sh", "-c", _BOOT, "sh", self.machine, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                with self._line(process) as guest:
                    yield guest
            finally:
                process.kill()
                process.wait(30)
                changes.unlink(missing_ok=True)

    @contextmanager
    def _line(self, process: subprocess.Popen[bytes]) -> Iterator["Guest"]:
        """Keep one ssh connection, which all commands share."""
        ssh = self.facts["ssh"]
        socket = self.folder / "ssh"
        settings = {
            "IdentityFile": ssh["private_key"],
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": ssh["known_hosts"],
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "ControlPath": socket,
        }
        options = [f"-o{key}={value}" for key, value in settings.items()]
        enter = ["setpriv", "--pdeathsig", "KILL", "nsenter", "--net", f"--target={process.pid}", "--"]
        master = ["ssh", "-F", "none", *options, "-oControlMaster=yes", "-N", f"root@{self.host}"]
        guest = Guest(self, ("ssh", "-F", "none", f"-oControlPath={socket}", f"root@{self.host}"))
        running: list[subprocess.Popen[bytes]] = []

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the guest went down while booting:\n{guest.console()}")
            if _network("self") == _network(process.pid):
                return False  # the host itself is at this address in the machine's own network
            if not running or running[-1].poll() is not None:
                socket.unlink(missing_ok=True)
                running.append(subprocess.Popen([*enter, *master], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            return socket.exists()

        try:
            try:
                wait_for("ssh to the guest", answers, BOOT_SECONDS)
                guest.run("grep", "--quiet", "User Mode Linux", "/proc/cpuinfo")
                guest.run("systemctl", "is-system-running", "--wait", check=False, timeout=BOOT_SECONDS)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{guest.console()}") from None
            yield guest
        finally:
            for one in running:
                one.kill()
                one.wait(10)
            socket.unlink(missing_ok=True)


@dataclass(frozen=True)
class Guest:
    """A guest that runs.

    :param ssh: command that logs in, up to the command to run there
    """

    appliance: Appliance
    ssh: tuple[str, ...]

    def run(self, *command: str | Path, check: bool = True, stdin: str = "", timeout: float = 120) -> Completed:
        """Run one program in the guest, as root."""
        words = shlex.join(str(word) for word in command)
        return call([*self.ssh, "--", words], check=check, stdin=stdin, timeout=timeout)

    def sh(self, script: str, *words: str, check: bool = True, stdin: str = "", timeout: float = 120) -> Completed:
        """Run a piece of bash in the guest; `words` are its $1 and so on."""
        bash = ("bash", "-euo", "pipefail", "-c", script, "sh", *words)
        return self.run(*bash, check=check, stdin=stdin, timeout=timeout)

    def out(self, *command: str | Path) -> str:
        """Run one program in the guest and give what it prints."""
        return str(self.run(*command).stdout).strip()

    def python(self, script: str, *words: str, timeout: float = 120) -> str:
        """Run a piece of Python with what labstead has installed there, and give what it prints."""
        return str(self.run("/opt/labstead/current/bin/python", "-", *words, stdin=script, timeout=timeout).stdout)

    def console(self, lines: int = 40) -> str:
        """Give the last lines of the console."""
        text = (self.appliance.folder / "console.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def logs(self, since: float) -> str:
        """Collect what explains a failure, since a time (seconds of the epoch)."""
        script = """
            systemctl --failed --no-legend --plain
            docker ps --all
            journalctl --no-pager --quiet --output=short-iso --since="@$1" | tail --lines=80
            findmnt --list --types xfs,ext4
        """
        found = self.run("bash", "-c", script, "sh", str(int(since)), check=False, timeout=60)
        return f"{found.stdout}{found.stderr}\n== console\n{self.console(15)}"
