"""How the hub and the command line ask the relay.

The one rule: it never keeps its caller for long; Slurm that does not answer is an error, not a wait.
"""

import socket
import struct
import time
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from labstead.errors import LabsteadError
from labstead.relay import protocol

_TIMEOUT_SECONDS = 10.0

_MOST_BYTES = 16 * 1024 * 1024
"""Of an answer about everybody."""

_T = TypeVar("_T", bound=BaseModel)


@dataclass(frozen=True)
class Jobs:
    """How many jobs of somebody wait or run."""

    all: int
    dask: int
    """Those of them that are workers of Dask."""


class Client:
    """A caller of the relay: root or the hub's user.

    :param path: its socket
    :param timeout: seconds for a question as a whole
    """

    def __init__(self, path: str = protocol.SOCKET, timeout: float = _TIMEOUT_SECONDS) -> None:
        self._path = path
        self._timeout = timeout

    def _ask(self, request: protocol.CountJobs | protocol.End, kind: type[_T]) -> _T:
        try:
            line = self._exchange(request.model_dump_json().encode() + b"\n")
        except OSError as error:
            raise LabsteadError(
                f"the Slurm relay does not answer at {self._path} ({error}); "
                "see `systemctl status labstead-relay.socket`"
            ) from error
        if not line.endswith(b"\n"):
            raise LabsteadError("the Slurm relay hung up; see `journalctl -u labstead-relay`")
        try:
            problem = protocol.Error.model_validate_json(line).error
        except ValidationError:
            pass
        else:
            raise LabsteadError(problem)
        try:
            return kind.model_validate_json(line)
        except ValidationError:
            raise LabsteadError(
                f"the Slurm relay answered {request.op} with something else; is it another version?"
            ) from None

    def _exchange(self, request: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout
        with socket.socket(socket.AF_UNIX) as connection:
            # Python's own timeout would not wait where many others are being heard, but fail at once.
            seconds, part = divmod(self._timeout, 1)
            send_timeout = struct.pack("ll", int(seconds), int(part * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, send_timeout)
            connection.connect(self._path)
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            connection.sendall(request)
            line = b""
            while not line.endswith(b"\n") and len(line) <= _MOST_BYTES:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                if not (part_of_line := connection.recv(protocol.MAX_LINE)):
                    break
                line += part_of_line
            return line

    def jobs(self, user: str) -> Jobs:
        """Tell how many jobs of somebody wait, run or complete.

        :raises LabsteadError: when the relay or Slurm does not answer, or nobody has that name
        """
        found = self._ask(protocol.CountJobs(user=user), protocol.Jobs)
        return Jobs(found.jobs, found.dask)

    def everybody(self) -> dict[str, Jobs]:
        """Tell how many jobs everybody has who has any, by their names as Slurm gives them.

        :raises LabsteadError: when the relay or Slurm does not answer
        """
        found = self._ask(protocol.CountJobs(), protocol.People).people
        return {name: Jobs(jobs.jobs, jobs.dask) for name, jobs in found.items()}

    def end(self, user: str, what: str = "dask") -> int:
        """Cancel somebody's jobs: those of Dask (`dask`) or `all`; locked people's too.

        :return: how many were told to end
        :raises LabsteadError: as for `jobs`, and for `all` of somebody who never was the hub's
        """
        request = protocol.End.model_validate({"user": user, "what": what})
        return self._ask(request, protocol.Ended).ended
