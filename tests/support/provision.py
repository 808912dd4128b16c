"""Runs of site.yml: the inventory of a test host, starting, watching and killing a run, reading its result.

The rule: a run is the command that a sysadmin types; nothing about it is taken from inside Ansible.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from support import relay
from support.machine import ROOT, Machine, call, wait_for

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
LONGEST = 1500
"""Seconds that any run may take; about five times what one from nothing takes on two cores."""

ADMIN = "hubadmin"
SENDER = "hub@institute.test"
ADMINS_MAIL = "admins@institute.test"
SETTINGS: dict[str, Any] = {
    "hub_admins": [ADMIN],
    "hub_signup": "approval",
    "hub_title": "Institute of Tests",
    "hub_password_minimum_length": 11,
    "hub_failed_logins": 4,
    "hub_lockout_seconds": 90,
    "hub_mail_relay": "127.0.0.1",
    "hub_mail_port": relay.PORT,
    "hub_mail_sender": SENDER,
    "hub_mail_admins": [ADMINS_MAIL],
    "accounts_uid_min": 24000,
    "accounts_archive_after_days": 20,
    "accounts_remove_after_days": 60,
    "proxy_login_rate": "300r/m",
    "sessions_memory": "1G",
    "sessions_cpus": 1.0,
    "sessions_pids": 250,
    "sessions_tmp_size": "256M",
    "sessions_start_timeout": 45,
    "sessions_environment": {"LABSTEAD_TEST": "from the inventory"},
    "sessions_idle_hours": 500,
    "sessions_idle_hours_with_jobs": 600,
    "storage_disks": [
        {"file": "/srv/test.img", "size": "20G", "filesystem": "btrfs", "holds": ["home", "group", "scratch"]}
    ],
    "storage_home_quota": "1G",
    "storage_group_quota": "2G",
    "storage_scratch_quota": "2G",
    "storage_scratch_days": 5,
    "slurm_mode": "embedded",
    "slurm_cpus": 2,
    "slurm_memory": "3G",
    "slurm_max_time": "12:00:00",
    "slurm_worker_memory": "1G",
    "slurm_worker_time": "2:00:00",
    "slurm_jobs_per_user": 12,
    "slurm_clusters_per_user": 2,
    "slurm_idle_minutes": 30,
    "slurm_images_root": "/srv/compute",
}
"""Settings of the test hosts; they differ from the defaults, so that a test sees whether they arrive."""


def site_certificates() -> list[str]:
    """Give the authorities that this machine was told to trust: downloads may need them in the host too."""
    return [str(path) for path in sorted(Path("/usr/local/share/ca-certificates").glob("**/*.crt"))]


def inventory(machine: Machine, path: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Write an inventory with one host.

    :param settings: in place of SETTINGS
    """
    facts = machine.info()
    ssh = facts["ssh"]
    options = {"UserKnownHostsFile": ssh["known_hosts"], "IdentitiesOnly": "yes"}
    variables = {
        "ansible_host": facts["address"],
        "ansible_user": ssh["user"],
        "ansible_port": ssh["port"],
        "ansible_ssh_private_key_file": ssh["private_key"],
        "ansible_ssh_common_args": " ".join(f"-o {key}={value}" for key, value in options.items()),
        "proxy_hostname": facts["address"],
        "site_ca_certificates": site_certificates(),
        **(SETTINGS if settings is None else settings),
    }
    path.write_text(yaml.safe_dump({"all": {"hosts": {machine.name: variables}}}, sort_keys=False), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Result:
    """A run that has ended."""

    code: int
    seconds: float
    log: Path

    @property
    def text(self) -> str:
        """Give all that the run printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def count(self, host: str, what: str) -> int:
        """Read a number from the play recap: `changed`, `failed`, `unreachable` …"""
        line = re.search(rf"^{re.escape(host)}\s+:.*\b{what}=(\d+)", self.text, flags=re.MULTILINE)
        assert line, f"the recap has no {what} of {host}:\n{self.end}"
        return int(line[1])

    @property
    def end(self) -> str:
        """Give the last lines, for a message."""
        return "\n".join(self.text.splitlines()[-60:])

    def tasks_that_changed(self) -> list[str]:
        """Name the tasks that reported a change."""
        name, found = "", []
        for line in self.text.splitlines():
            if task := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*?)\]", line):
                name = task[1]
            elif line.startswith("changed: "):
                found.append(name)
        return found


def _descendants(pid: int) -> list[int]:
    """Give the processes that a process started, and those that they started."""
    listing = call(["ps", "-eo", "pid=,ppid="]).stdout
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in rows if its_parent == parent]
    return found[1:]


class Run:
    """A run of site.yml on its own, with its output in a file.

    :param words: more words of the command line, such as `--check`
    :param folder: where it is typed, the root of the repository or ansible/
    """

    def __init__(self, inventory: Path, log: Path, *words: str, folder: Path = ROOT) -> None:
        playbook = "site.yml" if folder.name == "ansible" else "ansible/site.yml"
        self._log = log
        self._begin = time.monotonic()
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [PLAYBOOK, "-i", inventory, playbook, *words],
                cwd=folder,
                env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """Kill the run with all its processes, as a closed laptop or the OOM killer would."""
        # Ansible's workers are in sessions of their own, so that killing the group would leave them at work.
        for pid in [self._process.pid, *_descendants(self._process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)

    def wait(self) -> Result:
        """Wait until the run ends by itself."""
        code = self._process.wait(LONGEST)
        return Result(code, time.monotonic() - self._begin, self._log)

    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self._process.poll() is not None

    def wait_for_task(self, task: str) -> None:
        """Wait until the run says that it begins a task, named as in its output: `role : Object | Verb …`."""

        def begun() -> bool:
            return f"[{task}" in self._log.read_text(encoding="utf-8", errors="replace") or self.ended()

        wait_for(f"task {task}", begun, LONGEST)
        text = self._log.read_text(encoding="utf-8", errors="replace")
        assert f"[{task}" in text, f"the run ended before the task {task}:\n{text[-3000:]}"


def run(inventory: Path, log: Path, *words: str, folder: Path = ROOT) -> Result:
    """Run site.yml to its end."""
    with Run(inventory, log, *words, folder=folder) as running:
        return running.wait()


@contextmanager
def command_lines(file: Path) -> Iterator[None]:
    """Write down every command line that is seen on this machine meanwhile, those in its hosts among them."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.15):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" "))
                except OSError:  # it has ended
                    continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join(10)
        file.write_bytes(b"\n".join(sorted(seen)))


FINGERPRINT = """
    dpkg-query --show --showformat '${Package} ${Version} ${db:Status-Abbrev}\\n'
    find /etc /opt /usr/local /usr/lib/*.d /srv /home /root /data /run/labstead /var/lib/labstead -xdev \
        -not -path '/root' -not -path '/root/.*' -printf '%p %y %m %U:%G %s %T@ %l\\n' 2>/dev/null | sort || true
    systemctl list-unit-files --no-legend --no-pager | grep -v transient
    getent passwd; getent group
    cut -d: -f1 /proc/net/dev
"""


def fingerprint(machine: Machine) -> str:
    """Describe all of a host that site.yml could change: packages, files with their times, units, accounts, links."""
    found: str = machine.sh(FINGERPRINT).stdout
    return found


SECRETS = r"""
import json, pathlib, re
found = {}
for path in pathlib.Path("/etc/labstead/secrets").iterdir():
    for line in path.read_text().split():
        found[f"{path.name} {line.split('=')[0] if '=' in line else ''}".strip()] = line.split("=", 1)[-1].strip('"')
found["cookie secret"] = pathlib.Path("/var/lib/labstead/hub/jupyterhub_cookie_secret").read_text().strip()
for path in pathlib.Path("/etc/labstead/tls").glob("*.key"):
    # Any line of the key's body will do; the first ones of all keys of a kind are alike.
    found[path.name] = re.sub(r"-----[^-]+-----", "", path.read_text()).split()[1]
print(json.dumps(found))
"""


def secrets(machine: Machine) -> dict[str, str]:
    """Read the secrets of a host: what each is, and its value."""
    found: dict[str, str] = json.loads(machine.python(SECRETS).stdout)
    return found
