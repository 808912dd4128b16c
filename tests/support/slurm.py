"""Slurm on a host: its queue, what it wrote down of ended jobs, and the relay's socket as whoever wants to attack it.

The rule: what is expected comes from Slurm's own commands and files, asked as root on the host; never from labstead.
"""

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from support.kernel import Kernel
from support.lab import Lab
from support.machine import Completed, wait_for
from support.provision import SETTINGS

SOCKET = "/run/labstead/relay/relay.sock"
RELAY = "labstead-relay"
IMAGES_ROOT = SETTINGS["slurm_images_root"]
DASK = "labstead:dask"
"""Comment of a job that belongs to a Dask cluster."""
GONE = 60
"""Seconds in which jobs that were cancelled are to be gone: Slurm gives a process 30 s between SIGTERM and SIGKILL."""

_FIELDS = ("%i", "%U", "%T", "%k", "%j")


@dataclass(frozen=True)
class Job:
    """A job in the queue."""

    id: str
    uid: int
    state: str
    comment: str
    name: str


def jobs_of(lab: Lab, name: str) -> list[Job]:
    """Give somebody's jobs that wait, run or are about to end."""
    listing = lab.machine.out("squeue", "--noheader", f"--user={name}", f"--format={'|'.join(_FIELDS)}")
    rows = (line.split("|", len(_FIELDS) - 1) for line in listing.splitlines())
    return [Job(ident, int(uid), state, comment, title) for ident, uid, state, comment, title in rows]


def ids(jobs: Iterable[Job]) -> set[str]:
    """Give the numbers of jobs."""
    return {job.id for job in jobs}


def wait_for_jobs(lab: Lab, name: str, numbers: set[str], seconds: float = GONE) -> None:
    """Wait until somebody has these jobs and no others."""

    def are_left() -> bool:
        found = jobs_of(lab, name)
        assert ids(found) == numbers, f"{name} has {found}"
        return True

    wait_for(f"jobs {sorted(numbers)} of {name}", are_left, seconds)


def cancel_all(lab: Lab, name: str) -> None:
    """Cancel what somebody has in the queue, as root."""
    lab.machine.run("scancel", f"--user={name}")
    wait_for_jobs(lab, name, set())


def ended(lab: Lab, number: str) -> dict[str, str]:
    """Give what Slurm wrote down when a job ended: `UserId=anna(24031)`, `JobState=COMPLETED` …"""
    conf = lab.machine.out("scontrol", "show", "config")
    place = re.search(r"^JobCompLoc\s*=\s*(\S+)", conf, flags=re.MULTILINE)
    assert place, conf

    def line() -> str:
        return lab.machine.run("grep", f"^JobId={number} ", place[1], check=False).stdout

    found = wait_for(f"job {number} in {place[1]}", line, GONE)
    return dict(word.split("=", 1) for word in found.split() if "=" in word)


def stand_in(kernel: Kernel, *options: str) -> str:
    """Submit from a session what the relay takes for a worker of Dask, and which never runs; give its number."""
    worker = f"#!/bin/sh\n{IMAGES_ROOT}/bin/in-image --dask $LABSTEAD_IMAGE sleep 600\n"
    return submit(kernel, worker, "--hold", *options)


def submit(kernel: Kernel, script: str, *options: str) -> str:
    """Submit a script from a session, by sbatch's standard input, and give the job's number."""
    words = shlex.join(("sbatch", "--parsable", *options))
    number = kernel.out(f"printf %s {shlex.quote(script)} | {words}")
    assert re.fullmatch(r"\d+", number), number
    return number


# --- the relay's socket, without its client

_TALK = r"""
import json, socket, sys

received, sent, problem = b"", 0, ""
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(45)
try:
    connection.connect(sys.argv[1])
    for verb, value in json.loads(sys.argv[2]):
        if verb == "send":
            connection.sendall(value.encode("latin-1"))
        elif verb == "flood":
            while sent < value:
                sent += connection.send(b"x" * min(65536, value - sent))
        elif verb == "line":
            while b"\n" not in received and (part := connection.recv(65536)):
                received += part
        elif verb == "end":
            connection.shutdown(socket.SHUT_WR)
        elif verb == "read":
            while part := connection.recv(65536):
                received += part
except OSError as error:
    problem = type(error).__name__
    try:
        while part := connection.recv(65536):
            received += part
    except OSError:
        pass
print(json.dumps([sent, received.decode("latin-1"), problem]))
"""

Step = tuple[str, Any]
"""`send` text, `flood` with so many bytes, read a `line`, `end` what is sent, or `read` to the end."""
READ: Step = ("read", None)


@dataclass(frozen=True)
class Talk:
    """What came of a connection to the relay."""

    sent: int
    received: str
    problem: str

    @property
    def reply(self) -> dict[str, Any]:
        """Give the last reply that is a line of JSON; empty where there was none."""
        for line in reversed(self.received.splitlines()):
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        return {}

    @property
    def words(self) -> str:
        """Give what follows the last reply: standard output and error."""
        head, brace, rest = self.received.rpartition('{"exit"')
        return rest.partition("\n")[2] if brace else head

    @property
    def exit(self) -> int | None:
        """Give the exit code; None where there was no such reply."""
        return self.reply.get("exit")


def request(command: str, *args: str, cwd: str = "/", **others: Any) -> str:
    """Make the first line of a request to run a command."""
    fields = {"version": 1, "op": "run", "command": command, "args": args, "cwd": cwd, "image": "", **others}
    return json.dumps(fields) + "\n"


def _talk(done: Completed) -> Talk:
    return Talk(*json.loads(done.stdout.splitlines()[-1]))


def talk(lab: Lab, user: str, *steps: Step) -> Talk:
    """Speak to the relay as some user of the host."""
    return _talk(lab.machine.python(_TALK, SOCKET, json.dumps(steps), user=user))


def ask(lab: Lab, user: str, command: str, *args: str, script: str | None = None) -> Talk:
    """Let the relay run a command as some user of the host would, with a script where it wants one."""
    steps: list[Step] = [("send", request(command, *args, cwd=f"/home/{user}"))]
    if script is not None:
        steps += [("line", None), ("send", json.dumps({"script": len(script)}) + "\n" + script)]
    return talk(lab, user, *steps, READ)


def talk_as_root_in_a_container(lab: Lab, *steps: Step) -> Talk:
    """Speak to the relay as root of a container that has the folder of the socket, as a session has."""
    image = lab.machine.out("docker", "image", "ls", "--quiet", "--filter=reference=labstead/*").split()[0]
    folder = SOCKET.rpartition("/")[0]
    options = ("--rm", "--user=0:0", "--network=none", f"--volume={folder}:{folder}:ro", "--entrypoint=python3")
    return _talk(lab.machine.run("docker", "run", *options, image, "-c", _TALK, SOCKET, json.dumps(steps)))


def talk_as_root_of_a_namespace(lab: Lab, user: str, *steps: Step) -> Talk:
    """Speak to the relay as somebody who is root in a user namespace of their own."""
    command = ("runuser", "--user", user, "--", "unshare", "--user", "--map-root-user", "python3", "-c", _TALK)
    return _talk(lab.machine.run(*command, SOCKET, json.dumps(steps)))


_STORM = r"""
import collections, contextlib, json, socket, sys
from multiprocessing.pool import ThreadPool

def call(line):
    received = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(sys.argv[1])
            # A refusal may be said before the request was read.
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(line)
            while part := connection.recv(65536):
                received += part
    except OSError as error:
        if b"\n" not in received:
            return type(error).__name__
    return str(json.loads(received.partition(b"\n")[0] or "{}").get("exit"))

with ThreadPool(150) as pool:
    print(json.dumps(collections.Counter(pool.map(call, [sys.argv[2].encode()] * int(sys.argv[3]), chunksize=1))))
"""


def storm(lab: Lab, user: str, line: str, times: int) -> dict[str, int]:
    """Let somebody make a request very often, many at a time, and count the exit codes, or what else came."""
    found: dict[str, int] = json.loads(
        lab.machine.python(_STORM, SOCKET, line, str(times), user=user, timeout=300).stdout
    )
    return found


_CROWD = r"""
import json, socket, sys, time

crowd = []
for _ in range(int(sys.argv[3])):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    try:
        connection.connect(sys.argv[1])
        connection.sendall(sys.argv[2].encode("latin-1"))
    except OSError:
        continue
    crowd.append(connection)
print("all wait", flush=True)
ends = []
for connection in crowd:
    try:
        while connection.recv(65536):
            pass
        ends.append("closed")
    except OSError as error:
        ends.append(type(error).__name__)
print(json.dumps(ends))
"""


def stall(lab: Lab, user: str, beginning: str, count: int) -> list[str]:
    """Let somebody open connections, send the beginning of a request on each and wait; give how each ended."""
    done = lab.machine.python(_CROWD, SOCKET, beginning, str(count), user=user, timeout=180)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


_JOURNAL = ("journalctl", "--no-pager", "--quiet", "--output=cat", f"--unit={RELAY}.service")


def journal(lab: Lab, since: str) -> list[str]:
    """Give the relay's lines in the journal after a place of `mark`."""
    return lab.machine.out(*_JOURNAL, f"--after-cursor={since}").splitlines()


def mark(lab: Lab) -> str:
    """Give the place of the relay's last line in the journal, where there is one."""
    # Of the same unit: journalctl leaves out the first line after a place that is not one of those it shows.
    return lab.machine.out(*_JOURNAL, "--lines=1", "--show-cursor").rpartition("-- cursor: ")[2].strip()
