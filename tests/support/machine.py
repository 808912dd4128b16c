"""Throwaway hosts as the tests see them.

The rule: a command in a host is bounded in time, and one that fails says what it printed.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / "tests" / "hosts" / "host"

UNITS = ("labstead-hub", "labstead-proxy", "labstead-gate", "nginx", "docker")
"""Services that nothing but a change of their own files may restart."""

Completed = subprocess.CompletedProcess[str]
_T = TypeVar("_T")


class CommandFailed(AssertionError):
    """A command that a test relies on ended with another exit code than 0."""


def call(command: Iterable[str | Path], *, check: bool = True, stdin: str = "", timeout: float = 120) -> Completed:
    """Run a program and keep what it prints."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise CommandFailed(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def wait_for(what: str, attempt: Callable[[], _T], seconds: float = 60) -> _T:
    """Ask again and again until the answer is neither empty nor an error, for a bounded time."""
    deadline = time.monotonic() + seconds
    while True:
        reason: object = "not yet"
        try:
            if found := attempt():
                return found
        except (OSError, AssertionError) as error:  # requests' own errors are OSErrors too
            reason = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: still not after {seconds:.0f} s ({reason})")
        time.sleep(0.3)


@dataclass(frozen=True)
class Container:
    """A container as Docker knows it."""

    name: str
    id: str
    started_at: str
    running: bool


@dataclass(frozen=True)
class Machine:
    """One throwaway host; it need not exist yet."""

    name: str
    suite: str

    # --- the host itself

    def up(self) -> None:
        """Make and boot the host, from a bootstrapped tree if there is one."""
        call([HOST, "up", self.name, "--suite", self.suite], timeout=900)

    def down(self) -> None:
        """Throw the host away, if it is there."""
        if self.exists():
            call([HOST, "down", self.name], timeout=180)

    def reboot(self) -> None:
        """Reboot the host and wait until systemd has started all there is."""
        call([HOST, "reboot", self.name], timeout=300)

    def exists(self) -> bool:
        """Tell whether there is a host of this name."""
        return any(row["name"] == self.name for row in json.loads(call([HOST, "list", "--json"]).stdout))

    def info(self) -> dict[str, Any]:
        """Give address, ssh key and so on."""
        facts: dict[str, Any] = json.loads(call([HOST, "info", self.name, "--json"]).stdout)
        return facts

    # --- commands in it, as root

    def run(self, *command: str | Path, check: bool = True, stdin: str = "", timeout: float = 120) -> Completed:
        """Run one program in the host."""
        return call([HOST, "exec", self.name, "--", *command], check=check, stdin=stdin, timeout=timeout)

    def sh(self, script: str, *words: str, check: bool = True, stdin: str = "", timeout: float = 120) -> Completed:
        """Run a piece of bash in the host; `words` are its $1 and so on."""
        return self.run(
            "bash", "-euo", "pipefail", "-c", script, "sh", *words, check=check, stdin=stdin, timeout=timeout
        )

    def out(self, *command: str | Path) -> str:
        """Run one program in the host and give what it prints."""
        return str(self.run(*command).stdout).strip()

    def python(
        self, script: str, *words: str, user: str = "root", check: bool = True, timeout: float = 120
    ) -> Completed:
        """Run a piece of Python in the host, with Debian's own interpreter, as some user of it."""
        return self.run(
            *("setpriv", f"--reuid={user}", f"--regid={self._group(user)}", "--init-groups", "--"),
            *("env", "--chdir=/", "/usr/bin/python3", "-c", script, *words),
            check=check,
            timeout=timeout,
        )

    def _group(self, user: str) -> str:
        return self.out("id", "--group", user)

    # --- what runs in it

    def containers(self) -> dict[str, Container]:
        """Give all containers, stopped ones too, by name."""
        form = "{{.Name}} {{.Id}} {{.State.StartedAt}} {{.State.Running}}"
        # One that is removed between the two commands is none of them.
        found = self.sh(
            f"docker ps --all --quiet --no-trunc | xargs --no-run-if-empty docker inspect --format '{form}'"
        )
        rows = (line.split() for line in found.stdout.splitlines())
        return {
            name.lstrip("/"): Container(name.lstrip("/"), ident, started, running == "true")
            for name, ident, started, running in rows
        }

    def invocations(self, units: Iterable[str] = UNITS) -> dict[str, str]:
        """Give which start of each unit this is, with its main process."""
        return {
            unit: self.out("systemctl", "show", "--property=ActiveState,InvocationID,MainPID", unit) for unit in units
        }

    def logs(self, since: float) -> str:
        """Collect what explains a failure: journals and containers, since a time (seconds of the epoch)."""
        script = """
            echo "== units"; systemctl --failed --no-legend --plain
            echo "== containers"; docker ps --all
            for id in $(docker ps --all --quiet --filter label=org.labstead.user); do
                echo "== log of container $id"; docker logs --tail 40 "$id" 2>&1
            done
            for unit in 'labstead-*' nginx docker slurmctld slurmd; do
                echo "== journal of $unit"
                journalctl --no-pager --quiet --output=short-iso --unit="$unit" --since="@$1" | tail --lines=60
            done
            echo "== jobs"; squeue --states=all 2>&1
            find /home/*/.local/share/labstead/dask/logs -type f -newermt "@$1" -printf '%T@ %p\\n' 2>/dev/null |
                sort --reverse | head --lines=3 | cut --delimiter=' ' --fields=2- | while read -r log; do
                echo "== $log"; tail --lines=30 "$log"
            done
            echo "== nginx"; tail --quiet --lines=15 /var/log/nginx/error.log
        """
        found = self.run("bash", "-c", script, "sh", str(int(since)), check=False, timeout=60)
        return found.stdout + found.stderr


@contextmanager
def kept(machine: Machine, path: str) -> Iterator[None]:
    """Give a file or folder of the host back its present content afterwards, or its absence."""
    copy = f"/root/kept{path.replace('/', '_')}"
    machine.sh('rm -rf "$2"; if [ -e "$1" ]; then cp -a "$1" "$2"; fi', path, copy)
    try:
        yield
    finally:
        machine.sh('rm -rf "$1"; if [ -e "$2" ]; then mv "$2" "$1"; fi', path, copy)
