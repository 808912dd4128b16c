"""Slurm's commands as small scripts that note how they were run, behind a real relay at a real socket.

The rule: commands run as the uid that asks, and callers are who the kernel says; only Slurm and the accounts service
are stood in for.
"""

import ctypes
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from labstead.errors import AccountRefused, Refusal
from labstead.identity import Identity
from labstead.relay import server
from labstead.settings import Compute, Image, SessionCompute, Sessions

ANNA, BEN, STRANGER = 61001, 61002, 61003
"""uids that nobody has."""
HUB_UID = 990
COMMANDS = ("sbatch", "scancel", "squeue", "sinfo", "sacct")

_COMMAND = """#!/bin/sh
note="@LOG@/$(basename "$0").$$"
{
    echo "uid $(id -u)"; echo "gid $(id -g)"; echo "groups $(id -G)"; echo "cwd $(pwd)"; echo "umask $(umask)"
    grep -E '^(CapEff|CapPrm|CapAmb):' /proc/self/status
    for word in "$@"; do printf 'arg %s\\n' "$word"; done
} >"$note.new"
env >"$note.env"
[ "$(basename "$0")" != sbatch ] || cat >"$note.stdin"
mv "$note.new" "$note.call"
@DO@
"""
_DO = {
    "sbatch": "echo Submitted batch job 17",
    "scancel": ":",
    "squeue": 'cat "@LOG@/jobs" 2>/dev/null || :',
    "sinfo": "echo PARTITION; echo trouble >&2",
    "sacct": "echo of-the-site",
}


@dataclass(frozen=True)
class Call:
    """How a command was run."""

    command: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    cwd: str
    umask: str
    capabilities: tuple[int, ...]
    args: list[str]
    environment: dict[str, str]
    stdin: bytes


@dataclass
class Accounts:
    """The accounts service, as far as the relay asks it."""

    people: dict[int, Identity]
    refused: dict[int, AccountRefused] = field(default_factory=dict)
    retired: dict[str, int] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def identify(self, uid: int) -> Identity:
        self.asked.append(uid)
        if uid in self.refused:
            raise self.refused[uid]
        if uid not in self.people:
            raise AccountRefused(Refusal.UNKNOWN, f"{uid} is not an account of the hub; ask an administrator")
        return self.people[uid]

    def accounts(self, name: str, retired: bool = False) -> tuple[Any, ...]:
        if retired:
            return tuple(SimpleNamespace(uid=uid) for known, uid in self.retired.items() if known == name)
        found = [person for person in self.people.values() if person.name == name]
        if not found:
            raise AccountRefused(Refusal.UNKNOWN, f"{name} is not an account of the hub")
        return tuple(SimpleNamespace(uid=person.uid) for person in found)


class FakeSlurm:
    """The commands, homes of anna and ben, and what the relay needs to know.

    :param root: an empty folder that everybody may enter
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = str(root / "relay.sock")
        self.log = root / "log"
        self.bin = root / "bin"
        self.groups = root / "groups"
        self.images_root = root / "compute"
        for folder in (self.log, self.bin, self.groups, self.images_root / "images", self.images_root / "bin"):
            folder.mkdir(parents=True)
        self.log.chmod(0o1777)
        for command in COMMANDS:
            self.does(command, _DO[command])
        self.accounts = Accounts({uid: self._person(name, uid) for name, uid in (("anna", ANNA), ("ben", BEN))})

    def _person(self, name: str, uid: int) -> Identity:
        home = self.root / name
        home.mkdir(mode=0o700)
        os.chown(home, uid, uid)
        about = {"name": name, "uid": uid, "gid": uid, "groups": (uid, uid + 1000), "home": home, "shell": "/bin/bash"}
        return Identity.model_validate(about)

    def does(self, command: str, script: str) -> None:
        """Say what a command does beside noting how it was run."""
        path = self.bin / command
        new = path.with_suffix(".new")
        new.write_text(_COMMAND.replace("@DO@", script).replace("@LOG@", str(self.log)))
        new.chmod(0o755)
        new.rename(path)

    def jobs(self, *lines: str) -> None:
        """Say what squeue prints."""
        (self.log / "jobs").write_text("".join(f"{line}\n" for line in lines))

    def calls(self, *commands: str) -> list[Call]:
        """Give how commands were run, oldest first."""
        paths = sorted(self.log.glob("*.call"), key=lambda path: path.stat().st_mtime_ns)
        return [_call(path) for path in paths if not commands or path.name.split(".")[0] in commands]

    def relay(self, **compute: Any) -> server.Server:
        """Make a relay."""
        settings = Compute.model_validate({"mode": "embedded", "commands": self.bin, **compute})
        return server.Server(settings, self.images_root, self.people(), HUB_UID)

    def people(self) -> server.People:
        """Make what knows who somebody is."""
        image = Image(name="base", title="Base", reference="labstead/base:1")
        compute = SessionCompute(images_root=self.images_root)
        sessions = Sessions(images=(image,), group_root=self.groups, compute=compute)
        return server.People(self.accounts, sessions)  # type: ignore[arg-type]

    @contextmanager
    def serving(self, **compute: Any) -> Iterator[server.Server]:
        """Run a relay at the socket until the end."""
        relay = self.relay(**compute)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.socket)
            Path(self.socket).chmod(0o666)
            listener.listen(1024)
            thread = threading.Thread(target=relay.serve, args=(listener,))
            thread.start()
            try:
                yield relay
            finally:
                relay.stop()
                thread.join(60)
                Path(self.socket).unlink()
        assert not thread.is_alive()

    def connect(self, uid: int) -> socket.socket:
        """Connect to the relay as a uid."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        as_uid(uid, lambda: connection.connect(self.socket))
        return connection

    def ask(
        self,
        uid: int,
        command: str,
        *args: str,
        cwd: str = "",
        image: str = "",
        script: bytes | None = None,
        size: int | None = None,
    ) -> "Answer":
        """Ask as the client in a session does.

        :param script: what it would read
        :param size: what it says of the script's size, and then does not send it
        """
        request = {"version": 1, "op": "run", "command": command, "args": args, "cwd": cwd, "image": image}
        with self.connect(uid) as connection, connection.makefile("rb") as stream:
            with suppress(BrokenPipeError):  # where there is no room the answer comes first
                connection.sendall(json.dumps(request).encode() + b"\n")
            reply = json.loads(stream.readline())
            need = reply if "need" in reply else None
            if need is not None:
                content = script or b""
                said = json.dumps({"script": len(content) if size is None else size}).encode() + b"\n"
                connection.sendall(said if size is not None else said + content)
                reply = json.loads(stream.readline())
            stdout, stderr = stream.read(reply["stdout"]), stream.read(reply["stderr"])
            with suppress(ConnectionResetError):  # the relay has not read all that was sent
                assert stream.read() == b""
        return Answer(reply["exit"], stdout.decode(), stderr.decode(), need)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    exit: int
    stdout: str
    stderr: str
    need: dict[str, Any] | None


def _call(path: Path) -> Call:
    lines = path.read_text().split("\n")[:-1]
    about = dict(line.split(" ", 1) for line in lines if line.startswith(("uid ", "gid ", "groups ", "cwd ", "umask ")))
    environment = dict(line.split("=", 1) for line in path.with_suffix(".env").read_text().splitlines())
    stdin = path.with_suffix(".stdin")
    words = path.read_text().partition("\narg ")[2].removesuffix("\n")
    return Call(
        command=path.name.split(".")[0],
        uid=int(about["uid"]),
        gid=int(about["gid"]),
        groups=tuple(sorted(int(group) for group in about["groups"].split())),
        cwd=about["cwd"],
        umask=about["umask"],
        capabilities=tuple(int(line.split()[1], 16) for line in lines if line.startswith("Cap")),
        args=words.split("\narg ") if words else [],
        environment=environment,
        stdin=stdin.read_bytes() if stdin.exists() else b"",
    )


_SETRESUID = 117 if os.uname().machine == "x86_64" else 147
"""System call, which unlike the C library's function changes the calling thread alone (nptl(7))."""


def as_uid(uid: int, do: Callable[[], None]) -> None:
    """Do something as a uid, in this thread alone."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    assert call(_SETRESUID, -1, uid, -1) == 0, os.strerror(ctypes.get_errno())
    try:
        do()
    finally:
        assert call(_SETRESUID, -1, 0, -1) == 0


@contextmanager
def fake_slurm() -> Iterator[FakeSlurm]:
    """Make the commands in a folder that everybody may enter."""
    root = Path(tempfile.mkdtemp(prefix="relay-", dir="/tmp"))
    root.chmod(0o755)
    try:
        yield FakeSlurm(root)
    finally:
        shutil.rmtree(root)
