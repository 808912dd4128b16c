#!/usr/bin/env -S python3 -IS
"""Slurm's commands in a session: sbatch, scancel, squeue, sinfo and sacct, by whichever name this is called.

A session has neither Slurm nor its key. What was typed goes to the relay on the host, which knows from the kernel who
asks and runs the real command as that person (labstead.relay.protocol).

The one rule: it understands nothing of what was typed. The words go over as they are; exit code, stdout and stderr come
back as they are. It needs Python's own library alone, and nothing in a home can change what it does.

Exit codes are those of Slurm; 2 where the relay refuses, 1 where it could not be asked.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

COMMANDS = ("sbatch", "scancel", "squeue", "sinfo", "sacct")
SOCKET = "/run/labstead/relay/relay.sock"

_VERSION = 1
_MAX_LINE = 64 * 1024
_MAX_SCRIPT = 1024 * 1024
_BUSY = 75
"""EX_TEMPFAIL of sysexits(3)."""
_BUSY_SECONDS = 60.0
"""How long a busy relay is asked again."""
_AWAY_SECONDS = 5.0
"""The same for one that is not there: it may be starting anew."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_ANSWER_SECONDS = 150.0
"""How long an answer may take; the relay ends a command, and somebody's turn to wait for, long before."""


class _Problem(Exception):
    """What kept the relay from being asked, or its answer from coming; a sentence."""


class _Away(_Problem):
    """There is no relay: nothing has been asked for."""


class _Call:
    """One command line, and its script once the relay has asked for it."""

    def __init__(self, command: str, words: list[str]) -> None:
        self.command, self._words = command, words
        try:
            folder = os.getcwd()  # noqa: PTH109 - pathlib takes longer to load than all else
        except OSError:  # somebody has removed it
            folder = ""
        asked = {
            "version": _VERSION,
            "op": "run",
            "command": command,
            "args": words,
            "cwd": folder,
            "image": os.environ.get("JUPYTER_IMAGE_SPEC", ""),
        }
        self.line = json.dumps(asked).encode() + b"\n"
        if len(self.line) > _MAX_LINE:
            raise _Problem("the command line is too long; write what it says into a script")
        self._script: bytes | None = None

    def script(self, index: int | None) -> bytes:
        """Give what to send of the script, which the word of that number names, or which is on stdin.

        :return: a line that says how many bytes there are, and they; of too many the line alone
        """
        if self._script is None:
            name = "standard input" if index is None else self._words[index]
            try:
                with open(0 if index is None else name, "rb", closefd=index is not None) as file:
                    data = file.read(_MAX_SCRIPT + 1)
                    size = len(data)
                    if size > _MAX_SCRIPT:
                        size, data = max(size, os.fstat(file.fileno()).st_size), b""
            except OSError as error:
                raise _Problem(f"cannot read the script, {name}: {error.strerror}") from None
            self._script = json.dumps({"script": size}).encode() + b"\n" + data
        return self._script


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_ANSWER_SECONDS)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise _Away(f"Slurm is not in reach, as the relay on the host does not run ({error.strerror})") from None
    return connection


def _ask(call: _Call, path: str) -> tuple[int, bytes, bytes]:
    """Ask once.

    :return: exit code, stdout and stderr
    :raises _Problem: where there is no whole answer
    """
    with _connect(path) as connection, connection.makefile("rb") as answers:

        def send(data: bytes) -> None:
            # A relay that knows its answer may close before it has read all; the answer is there all the same.
            try:  # noqa: SIM105 - contextlib takes longer to load than this to run
                connection.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass

        def line() -> dict[str, int | None]:
            text = answers.readline(_MAX_LINE)
            if not text.endswith(b"\n"):
                raise EOFError
            found = json.loads(text)
            if not isinstance(found, dict):
                raise ValueError("no object")
            return found

        try:
            send(call.line)
            answer = line()
            if "need" in answer:
                send(call.script(answer["index"]))
                answer = line()
            code, sizes = answer["exit"], (answer["stdout"], answer["stderr"])
            if not isinstance(code, int) or not all(isinstance(size, int) for size in sizes):
                raise ValueError("no numbers")
            out, err = (answers.read(size) for size in sizes)
            if (len(out), len(err)) != sizes:
                raise EOFError
        except TimeoutError:
            raise _Problem(f"the relay on the host has not answered for {_ANSWER_SECONDS:.0f} s") from None
        except (EOFError, OSError):
            raise _Problem("the relay on the host broke off; look with squeue at what became of it") from None
        except (ValueError, LookupError, TypeError):
            raise _Problem("the relay on the host answers what this session does not know; start it anew") from None
        return code, out, err


def run(command: str, words: list[str], path: str = SOCKET) -> tuple[int, bytes, bytes]:
    """Have a command run.

    :return: exit code, stdout and stderr
    """
    try:
        call = _Call(command, words)
        pause, start = _FIRST_PAUSE, time.monotonic()
        while True:
            problem: _Away | None = None
            try:
                answer = _ask(call, path)
            except _Away as error:
                problem = error
            waited = time.monotonic() - start
            if problem is not None and waited > _AWAY_SECONDS:
                raise problem
            if problem is None and (answer[0] != _BUSY or waited > _BUSY_SECONDS):
                return answer
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    except _Problem as problem:
        return 1, b"", f"{command}: labstead: {problem}\n".encode(errors="replace")


def main() -> int:
    """Run as one of the commands; give the exit code."""
    command = os.path.basename(sys.argv[0])  # noqa: PTH119
    if command not in COMMANDS:
        sys.stderr.write(f"{command}: call this by one of the names {', '.join(COMMANDS)}\n")
        return 2
    try:
        code, out, err = run(command, sys.argv[1:])
        for descriptor, data in ((1, out), (2, err)):
            while data:
                data = data[os.write(descriptor, data) :]
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has seen enough
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
