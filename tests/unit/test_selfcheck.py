"""What the self-check asks of Slurm in a session; the journey itself is tested on a host.

The code runs as a kernel would run it, with stand-ins for Slurm's commands and for Dask.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labstead import selfcheck
from labstead.relay.client import Jobs
from labstead.selfcheck import CheckFailed, Participant
from support.jobs import Queue

_DASK = """
import types
config = types.SimpleNamespace(get=lambda key: {{"jobqueue.slurm.log-directory": "{logs}"}}[key])
"""
_JOBQUEUE = """
class SLURMCluster:
    def __enter__(self): return self
    def __exit__(self, *_): print("closed", flush=True)
    def scale(self, workers): assert workers == 1
"""
_DISTRIBUTED = """
import types
class Client:
    def __init__(self, cluster): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def wait_for_workers(self, workers, timeout):
        if {is_late}: raise TimeoutError("Only 0/1 workers arrived")
    def submit(self, function, *args): return types.SimpleNamespace(result=lambda timeout: function(*args))
"""
ACCOUNT: Any = SimpleNamespace(uid=os.getuid())


class Kernel(Participant):
    """A kernel whose PATH and packages are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.set_up("sinfo", "echo 'labstead idle 1'")
        self.set_up("squeue", "echo 'PENDING Resources '")
        self.set_up_dask(is_late=False)

    def set_up(self, command: str, script: str) -> None:
        file = self._folder / command
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def set_up_dask(self, is_late: bool) -> None:
        logs = self._folder / "logs"
        logs.mkdir(exist_ok=True)
        for name, text in (
            ("dask", _DASK.format(logs=logs)),
            ("dask_jobqueue", _JOBQUEUE),
            ("distributed", _DISTRIBUTED.format(is_late=is_late)),
        ):
            (self._folder / f"{name}.py").write_text(text)

    def run(self, name: str, code: str, seconds: float = 60) -> str:
        assert name == selfcheck.CANARY
        environment = {"PATH": f"{self._folder}:/usr/bin:/bin", "PYTHONPATH": str(self._folder)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise CheckFailed(done.stderr.splitlines()[-1])
        return done.stdout


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_a_session_that_reaches_slurm_passes(kernel: Kernel) -> None:
    selfcheck._check_slurm(kernel)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'sinfo: labstead: the relay does not answer' >&2; exit 1", "the relay does not answer"),
        ("exit 0", "it names no partition"),
    ],
)
def test_one_that_does_not_is_told(kernel: Kernel, script: str, words: str) -> None:
    kernel.set_up("sinfo", script)
    with pytest.raises(CheckFailed, match=words):
        selfcheck._check_slurm(kernel)


def test_a_worker_that_computes_as_the_canary_passes(kernel: Kernel) -> None:
    selfcheck._check_worker(kernel, ACCOUNT)


def test_a_worker_of_somebody_else_does_not(kernel: Kernel) -> None:
    with pytest.raises(CheckFailed, match="uid is"):
        selfcheck._check_worker(kernel, SimpleNamespace(uid=os.getuid() + 1))  # type: ignore[arg-type]


def test_a_worker_that_does_not_come_is_told_with_why(kernel: Kernel, tmp_path: Path) -> None:
    kernel.set_up_dask(is_late=True)
    (tmp_path / "logs" / "1.out").write_text("one\nin-image: image 0123 is not on this node\n")
    with pytest.raises(CheckFailed, match="no worker came; PENDING Resources; one; in-image: image 0123 is not"):
        selfcheck._check_worker(kernel, ACCOUNT)


def test_the_canarys_jobs_end_before_its_home_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    queue: Any = Queue(**{selfcheck.CANARY: Jobs(2, 1)})
    selfcheck._end_jobs(queue)
    assert queue.people == {}
    queue.people[selfcheck.CANARY] = Jobs(1, 1)
    queue.keeps_jobs = True
    monkeypatch.setattr(selfcheck, "_GONE_SECONDS", 0)
    with pytest.raises(CheckFailed, match="end of the canary's jobs"):
        selfcheck._end_jobs(queue)
