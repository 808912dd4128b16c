"""Slurm's commands in a session, with a relay that plays a part: what goes over, and what people see."""

import functools
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from labstead.insession import slurm
from labstead.relay import protocol

SCRIPT = b"#!/bin/sh\necho \xff\n"
DONE = (0, b"Submitted batch job 7\n", b"")

Part = Callable[[dict[str, Any], IO[bytes]], None]
"""What the relay does about a request; it reads and writes."""


def _give(stream: IO[bytes], code: int, out: bytes = b"", err: bytes = b"") -> None:
    stream.write(json.dumps({"exit": code, "stdout": len(out), "stderr": len(err)}).encode() + b"\n" + out + err)


def answers(code: int, out: bytes = b"", err: bytes = b"") -> Part:
    """Answer at once."""
    return lambda _asked, stream: _give(stream, code, out, err)


class Relay:
    """Plays its parts one after the other, one for each connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: list[Part] = []
        self.asked: list[dict[str, Any]] = []
        self.scripts: list[tuple[int, bytes]] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._socket.bind(os.fspath(self.path))
        self._socket.listen()
        self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                self.asked.append(json.loads(stream.readline()))
                self.parts.pop(0)(self.asked[-1], stream)

    def wants(self, index: int | None, then: Part) -> Part:
        """Ask for the script first."""

        def part(asked: dict[str, Any], stream: IO[bytes]) -> None:
            stream.write(json.dumps({"need": "script", "index": index}).encode() + b"\n")
            stream.flush()
            if line := stream.readline():
                size = json.loads(line)["script"]
                script = stream.read(size) if size <= protocol.MAX_SCRIPT else b""
                then(asked, stream)
                stream.flush()
                # Whatever comes beyond what was announced, until the other side has its answer.
                self.scripts.append((size, script + stream.read()))

        return part

    def ended(self) -> "Relay":
        """Let it end what it does."""
        self.stop()
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join(10)
        self._socket.close()


@pytest.fixture
def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """Give a relay that runs, and a folder to be in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(slurm, "_AWAY_SECONDS", 0)
    relay = Relay(tmp_path / "relay.sock")
    relay.start()
    yield relay
    relay.stop()


@pytest.fixture
def run(relay: Relay) -> Callable[..., tuple[int, bytes, bytes]]:
    """Give the function that runs a command."""
    return lambda command, *words: slurm.run(command, list(words), os.fspath(relay.path))


Run = Callable[..., tuple[int, bytes, bytes]]


def test_it_knows_what_the_relay_knows() -> None:
    assert slurm.SOCKET == protocol.SOCKET
    assert protocol.Run(command="sinfo", args=[]).version == slurm._VERSION
    assert (protocol.MAX_LINE, protocol.MAX_SCRIPT) == (slurm._MAX_LINE, slurm._MAX_SCRIPT)
    assert protocol.EXIT_BUSY == slurm._BUSY


def test_words_go_over_as_they_are_and_answers_come_back(
    relay: Relay, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_IMAGE_SPEC", "labstead/base:1@sha256:ab")
    relay.parts = [answers(3, b"\xff\n" * 100_000, b"squeue: error: \xfe\n")]
    assert run("squeue", "-h", "--format=%i $(id) 'x'", "", "ü") == (3, b"\xff\n" * 100_000, b"squeue: error: \xfe\n")
    (asked,) = relay.asked
    assert asked == {
        "version": 1,
        "op": "run",
        "command": "squeue",
        "args": ["-h", "--format=%i $(id) 'x'", "", "ü"],
        "cwd": os.fspath(tmp_path),
        "image": "labstead/base:1@sha256:ab",
    }
    assert protocol.request_adapter.validate_python(asked).op == "run"


def test_a_folder_that_is_gone_is_no_hindrance(relay: Relay, run: Run, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    relay.parts = [answers(0)]
    assert run("sinfo")[0] == 0
    assert relay.asked[0]["cwd"] == ""


def test_the_script_that_the_relay_asks_for_is_sent(relay: Relay, run: Run, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_bytes(SCRIPT)
    relay.parts = [relay.wants(1, answers(*DONE))]
    assert run("sbatch", "--parsable", "job.sh", "x") == DONE
    assert relay.ended().scripts == [(len(SCRIPT), SCRIPT)]


def test_a_script_on_stdin_is_sent_again_to_a_relay_that_was_busy(
    relay: Relay, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.write(writer, SCRIPT)
    os.close(writer)
    stdin = os.dup(0)
    os.dup2(reader, 0)
    try:
        busy = answers(75, b"", b"sbatch: labstead: too many calls\n")
        relay.parts = [busy, relay.wants(None, busy), relay.wants(None, answers(*DONE))]
        assert run("sbatch") == DONE
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
        os.close(reader)
    assert relay.ended().scripts == [(len(SCRIPT), SCRIPT)] * 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("more", [0, 1])
def test_of_a_script_that_is_too_large_only_the_size_is_sent(relay: Relay, run: Run, tmp_path: Path, more: int) -> None:
    size = 2**20 + more
    (tmp_path / "large").write_bytes(b"#" * size)
    relay.parts = [relay.wants(0, answers(2, b"", b"sbatch: labstead: what the relay says\n"))]
    assert run("sbatch", "large") == (2, b"", b"sbatch: labstead: what the relay says\n")
    assert relay.ended().scripts == [(size, b"" if more else b"#" * size)]


def test_an_answer_may_come_before_the_script_was_read(relay: Relay, run: Run, tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_bytes(b"#" * 2**20)

    def part(_asked: dict[str, Any], stream: IO[bytes]) -> None:
        stream.write(b'{"need":"script","index":0}\n')
        _give(stream, *DONE)

    relay.parts = [part]
    assert run("sbatch", "job.sh") == DONE


def test_a_script_that_cannot_be_read(relay: Relay, run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    relay.parts = [relay.wants(0, answers(*DONE))] * 2
    missing, folder = run("sbatch", "missing.sh"), run("sbatch", "folder")
    assert missing == (1, b"", b"sbatch: labstead: cannot read the script, missing.sh: No such file or directory\n")
    assert folder == (1, b"", b"sbatch: labstead: cannot read the script, folder: Is a directory\n")
    assert relay.ended().scripts == []


def test_a_relay_that_stays_busy_has_the_last_word(relay: Relay, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_BUSY_SECONDS", 0)
    busy = (75, b"", b"sbatch: labstead: too many calls\n")
    relay.parts = [answers(*busy)]
    assert run("sbatch") == busy
    assert len(relay.asked) == 1


def test_a_command_line_that_is_too_long_is_not_sent(relay: Relay, run: Run) -> None:
    code, out, err = run("sbatch", "--wrap", "x" * 70_000)
    assert (code, out) == (1, b"")
    assert err == b"sbatch: labstead: the command line is too long; write what it says into a script\n"
    assert relay.asked == []


def test_a_relay_that_is_away_is_told_in_a_line(run: Run, relay: Relay) -> None:
    relay.path.unlink()
    told = "sinfo: labstead: Slurm is not in reach, as the relay on the host does not run ({})\n".format
    assert run("sinfo") == (1, b"", told("No such file or directory").encode())
    relay.stop()
    socket.socket(socket.AF_UNIX).bind(os.fspath(relay.path))
    assert run("sinfo") == (1, b"", told("Connection refused").encode())


def test_a_relay_that_is_starting_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay(tmp_path / "late.sock")
    relay.parts = [answers(0, b"here")]
    monkeypatch.setattr(slurm.time, "sleep", lambda _seconds: relay.start())
    try:
        assert slurm.run("sinfo", [], os.fspath(relay.path)) == (0, b"here", b"")
    finally:
        relay.stop()


def _raw(data: bytes, _asked: dict[str, Any], stream: IO[bytes]) -> None:
    stream.write(data)


@pytest.mark.parametrize("data", [b"", b'{"exit":0', b'{"exit":0,"stdout":9,"stderr":0}\nshort'])
def test_an_answer_that_breaks_off(relay: Relay, run: Run, data: bytes) -> None:
    """Nobody is told that a job was submitted, nor that it was not."""
    relay.parts = [functools.partial(_raw, data)]
    code, out, err = run("sbatch")
    assert (code, out) == (1, b"")
    assert err == b"sbatch: labstead: the relay on the host broke off; look with squeue at what became of it\n"
    assert len(relay.asked) == 1


@pytest.mark.parametrize("data", [b"[]\n", b"hello\n", b"{}\n", b'{"need":"script","index":9}\n', b'{"exit":"0"}\n'])
def test_an_answer_that_makes_no_sense(relay: Relay, run: Run, data: bytes) -> None:
    relay.parts = [functools.partial(_raw, data)]
    code, out, err = run("sbatch")
    assert (code, out) == (1, b"")
    assert err == b"sbatch: labstead: the relay on the host answers what this session does not know; start it anew\n"


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Give the function that installs the program by a name."""

    def install(name: str) -> Path:
        path = tmp_path / name
        path.write_text(Path(slurm.__file__).read_text(encoding="utf-8").replace(slurm.SOCKET, "relay.sock"))
        path.chmod(0o755)
        return path

    return install


def test_the_program_passes_streams_and_exit_code_on(relay: Relay, program: Callable[[str], Path]) -> None:
    relay.parts = [answers(4, b"o\xff", b"e\xff")]
    done = subprocess.run([program("scancel"), "7"], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (4, b"o\xff", b"e\xff")
    assert (relay.asked[0]["command"], relay.asked[0]["args"]) == ("scancel", ["7"])


def test_whoever_reads_may_stop_reading(relay: Relay, program: Callable[[str], Path]) -> None:
    relay.parts = [answers(0, b"line\n" * 200_000)]
    done = subprocess.run(
        ["/bin/bash", "-c", '"$0" | head -n 1; exit "${PIPESTATUS[0]}"', program("squeue")],
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"line\n", b"")


def test_nothing_in_a_home_changes_what_it_does(
    relay: Relay, program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    site = Path(
        subprocess.check_output(
            ["python3", "-m", "site", "--user-site"],
            text=True,
            env={
                "HOME": os.fspath(home),
                "PATH": os.environ["PATH"],
            },
        ).strip()
    )
    site.mkdir(parents=True)
    for name in ("json.py", "usercustomize.py", "sitecustomize.py"):
        (site / name).write_text("raise SystemExit('mine')")
        shutil.copy(site / name, tmp_path / name)
    monkeypatch.setenv("HOME", os.fspath(home))
    monkeypatch.setenv("PYTHONPATH", os.fspath(site))
    monkeypatch.setenv("PYTHONSTARTUP", os.fspath(site / "json.py"))
    relay.parts = [answers(0, b"ok")]
    done = subprocess.run([program("sinfo")], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ok", b"")


def test_another_name_is_refused(program: Callable[[str], Path]) -> None:
    done = subprocess.run([program("srun"), "hostname"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "srun: call this by one of the names sbatch, scancel, squeue, sinfo, sacct\n"
