"""Running one of Slurm's commands as a person.

The one rule: the command is the person from its first instruction: their uid, their groups, no capabilities and an
environment of which nothing is the relay's.
"""

import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from labstead.errors import LabsteadError
from labstead.identity import Identity

SECONDS = 30
"""How long a command may take."""
MAX_STDOUT = 4 * 1024 * 1024
MAX_STDERR = 256 * 1024
_GRACE_SECONDS = 5
"""How long after SIGTERM comes SIGKILL, and again how long until we no longer wait for either."""
_CHUNK = 64 * 1024
_TIMED_OUT, _KILLED = 124, 128 + 9
"""As timeout(1) exits: at SIGTERM, and where it had to kill."""


class CannotStart(LabsteadError):
    """The kernel does not let a command start."""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    exit: int
    stdout: bytes = b""
    stderr: bytes = b""


def environment(person: Identity, bin_folder: Path) -> dict[str, str]:
    """Give the environment of a command, which sbatch makes the job's.

    :param bin_folder: of `in-session`
    """
    return {
        "HOME": str(person.home),
        "USER": person.name,
        "LOGNAME": person.name,
        "SHELL": person.shell,
        "PATH": f"{bin_folder}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }


def script_file(content: bytes) -> int:
    """Put a script where a command can read it as its stdin; :return: a file descriptor, for the caller to close."""
    descriptor = os.memfd_create("script")
    try:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def run(
    person: Identity,
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: str = "/",
    script: bytes | None = None,
    seconds: float = SECONDS,
) -> Outcome:
    """Run a command as a person, for a bounded time, and keep a bounded part of what it says.

    :param command: the path of a program and its words
    :param cwd: entered as the person: a home is closed to the relay
    :param script: its stdin; None: there is none
    :param seconds: after which it is ended
    :raises CannotStart: when it cannot be started
    """
    # The kernel lets nobody without CAP_KILL signal somebody else's process: timeout(1) is the person too.
    guard = ["/usr/bin/timeout", f"--kill-after={_GRACE_SECONDS}", f"{seconds:g}"]
    words = ["/usr/bin/env", f"--chdir={cwd}", *guard, *command]
    stdin = subprocess.DEVNULL if script is None else script_file(script)
    try:
        child = subprocess.Popen(
            [word.encode() for word in words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=dict(environment),
            user=person.uid,
            group=person.gid,
            extra_groups=person.groups,
            umask=0o002,  # as in a session
            start_new_session=True,
        )
    except OSError as error:
        raise CannotStart(f"cannot start a command: {error}") from error
    finally:
        if script is not None:
            os.close(stdin)
    name = os.path.basename(command[0])  # noqa: PTH119 - a word, not a file
    return _followed(child, person, name, seconds)


def _kill(child: "subprocess.Popen[bytes]", person: Identity) -> None:
    """End a command that timeout(1) has not ended: its owner may have stopped both. They are the one who may do it."""
    words = ["/bin/sh", "-c", 'kill -9 "-$1"', "kill", str(child.pid)]
    subprocess.run(
        words,
        check=False,
        timeout=_GRACE_SECONDS,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        user=person.uid,
        group=person.gid,
        extra_groups=(),
    )


def _followed(child: "subprocess.Popen[bytes]", person: Identity, name: str, seconds: float) -> Outcome:
    """Read what a command says until it ends."""
    assert child.stdout is not None and child.stderr is not None  # noqa: S101, PT018 - for the type checker
    limits: dict[IO[bytes], int] = {child.stdout: MAX_STDOUT, child.stderr: MAX_STDERR}
    said: dict[IO[bytes], bytearray] = {stream: bytearray() for stream in limits}
    is_cut = False
    deadline = time.monotonic() + seconds + 2 * _GRACE_SECONDS
    with selectors.DefaultSelector() as selector, child.stdout, child.stderr:
        for stream in limits:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0 and not is_cut:
            for key, _ in selector.select(left):
                stream = child.stdout if key.fileobj is child.stdout else child.stderr
                part = os.read(stream.fileno(), _CHUNK)
                if not part:
                    selector.unregister(stream)
                    continue
                said[stream] += part[: limits[stream] - len(said[stream])]
                is_cut = is_cut or len(said[stream]) >= limits[stream]
    # Whoever still writes finds the pipe closed and ends.
    try:
        code = child.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        code = _TIMED_OUT
        with suppress(subprocess.TimeoutExpired):
            _kill(child, person)
            child.wait(_GRACE_SECONDS)
    code = code if code >= 0 else 128 - code
    stdout, stderr = bytes(said[child.stdout]), bytes(said[child.stderr])
    if is_cut:
        return Outcome(1, stdout, stderr + f"\n{name}: labstead: that was too much; ask for less\n".encode())
    if code in (_TIMED_OUT, _KILLED):
        stderr += f"{name}: labstead: Slurm has not answered within {seconds:g} s\n".encode()
    return Outcome(code, stdout, stderr)
