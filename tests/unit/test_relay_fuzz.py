"""The relay under 6,000 requests of all kinds, many of them no requests: it stays up, and runs what it said it ran.

The seeds are fixed: a failure comes again.
"""

import json
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from labstead.relay import server
from support.fake_slurm import ANNA, BEN, COMMANDS, STRANGER, FakeSlurm, fake_slurm

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="becomes other users")

CLIENTS = 8
REQUESTS = 750
"""Of each client."""

OPTIONS = (
    *("-n", "-n4", "-c", "-J", "-Jx", "-HQ", "-H", "-D", "-o", "-e/dev/null", "-W", "-M", "-F", "-u", "-i", "-j", "-s"),
    *(
        "--uid=0",
        "--uid",
        "--gid=0",
        "--ui=0",
        "--job-name=x",
        "--job",
        "--comment=labstead:dask",
        "--wrap",
        "--wrap=id",
    ),
    *("--export=ALL", "--export=NONE", "--export-file=/etc/shadow", "--array=1-3", "--array=0-999", "--array=x"),
    *("--test-only", "--chdir=/root", "--chdir", "--output=/etc/passwd", "--output=x", "--nodefile=x", "--propagate"),
    *("--help", "--version", "--", "-", "--=", "---", "--me", "--name=x", "--user=0", "--user=anna", "--user=root"),
    *("--noheader", "--format=%i", "--json", "--iterate=1", "--clusters=all", "--file=/etc/shadow", "--starttime=now"),
)
WORDS = (
    "",
    "x",
    "17",
    "17_3",
    "job.sh",
    "/etc/shadow",
    "../../x",
    "a b",
    "$(id)",
    ";id",
    "`id`",
    "|id",
    "é",
    "%j",
    "0",
)
BAD = ("\0", "\n", "\r", "\x1b[2J", "\u202e", "\ud7ff", "x" * 5000, "%n" * 50, "../" * 300)
LINES = (
    *(b"#SBATCH --uid=0", b"#SBATCH -J x", b"#SBATCH -n 2 --hold", b"#SBATCH 'x", b"#SBATCH hetjob", b"#SBATCH a\\ b"),
    *(
        b"#SBATCH -o /etc/x",
        b"#SBATCH --ui=0",
        b"#PBS -u root",
        b"# x",
        b"",
        b"true",
        b"\xff",
        b"\0",
        b"a\r",
        b"#SLURM -D /",
    ),
)
NEVER = {
    *("uid", "gid", "get-user-env", "export-file", "nodefile", "bbf", "clusters", "cluster", "wait", "iterate", "file"),
    *("interactive", "container", "completion", "autocomplete", "federation"),
}
"""Options that no command may ever have got."""


@pytest.fixture
def fake() -> Iterator[FakeSlurm]:
    with fake_slurm() as made:
        yield made


def some_args(dice: random.Random) -> list[str]:
    kinds = ((OPTIONS, 6), (WORDS, 3), (BAD, 0.3))
    pools, weights = zip(*kinds, strict=True)
    return [dice.choice(dice.choices(pools, weights)[0]) for _ in range(dice.randrange(5))]


def some_script(dice: random.Random) -> bytes:
    head = dice.choice((b"#!/bin/sh\n", b"#!/bin/sh\n", b"#!/bin/sh\n", b"", b"\n#!/bin/sh\n"))
    return head + b"\n".join(dice.choice(LINES) for _ in range(dice.randrange(6)))


def some_line(dice: random.Random, fake: FakeSlurm) -> bytes:
    request: dict[str, object] = {
        "version": 1,
        "op": "run",
        "command": dice.choice(COMMANDS),
        "args": some_args(dice),
        "cwd": dice.choice(("", "/", "/root", str(fake.root / "anna"), str(fake.root / "ben"), "x", "\0")),
        "image": dice.choice(("", "0123456789ab", "../x")),
    }
    if dice.random() < 0.1:
        changes = (
            ("version", 2),
            ("op", "jobs"),
            ("op", "end"),
            ("command", "srun"),
            ("uid", 0),
            ("args", "x"),
            ("args", [[]]),
        )
        key, value = dice.choice(changes)
        request[key] = value
    line = json.dumps(request, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    return broken(dice, line) if dice.random() < 0.25 else line


def broken(dice: random.Random, line: bytes) -> bytes:
    kind = dice.randrange(5)
    place = dice.randrange(len(line))
    if kind == 0:
        return line[:place]
    if kind == 1:
        return line[:place] + bytes([dice.randrange(256)]) + line[place + 1 :]
    if kind == 2:
        return dice.randbytes(dice.randrange(200))
    if kind == 3:
        return b"[" * dice.randrange(30_000) + line
    return line + line


class Client:
    """Asks, and counts what it was told."""

    def __init__(self, number: int, fake: FakeSlurm) -> None:
        self.dice = random.Random(number)  # noqa: S311 - dice, not keys
        self.fake = fake
        self.ran: Counter[int] = Counter()
        """Answers of commands, by uid."""
        self.unknown: Counter[int] = Counter()
        """Requests whose answer nobody waited for."""
        self.answers: Counter[int] = Counter()

    def run(self) -> None:
        for _ in range(REQUESTS):
            uid = self.dice.choice((ANNA, ANNA, BEN, BEN, BEN, STRANGER))
            with self.fake.connect(uid) as connection:
                try:
                    answer = self.ask(connection)
                except ConnectionError:
                    answer = None
            if answer is None:
                self.unknown[uid] += 1
                continue
            code, text = answer
            self.answers[code] += 1
            self.ran[uid] += b": labstead: " not in text

    def ask(self, connection: socket.socket) -> tuple[int, bytes] | None:
        """Give exit code and words of an answer; None: it was not waited for."""
        dice = self.dice
        end = dice.choice((b"\n", b"\n", b"\n", b"\n", b"\n\n", b""))
        connection.sendall(some_line(dice, self.fake) + end)
        if end == b"" or dice.random() < 0.05:
            return None
        stream = connection.makefile("rb")
        reply = json.loads(stream.readline())
        if "need" in reply:
            script = some_script(dice)
            size = dice.choice((len(script),) * 6 + (len(script) + 1, 0, 2**40))
            connection.sendall(json.dumps({"script": size}).encode() + b"\n" + script)
            connection.shutdown(socket.SHUT_WR)
            line = stream.readline()
            if not line:
                return None
            reply = json.loads(line)
        return reply["exit"], stream.read(reply["stdout"]) + stream.read(reply["stderr"])


def test_it_stays_up_and_runs_what_it_said(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(server, "_BURST", 1_000_000)
    for command in COMMANDS:
        fake.does(command, ":")  # no more processes than needed
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    threads_before = threading.active_count()
    clients = [Client(number, fake) for number in range(CLIENTS)]
    most_threads = 0
    with fake.serving(jobs_per_user=10_000):
        with ThreadPoolExecutor(CLIENTS) as pool:
            asking = [pool.submit(client.run) for client in clients]
            for asked in asking:
                while not asked.done():
                    most_threads = max(most_threads, threading.active_count())
                    with suppress(TimeoutError):
                        asked.exception(0.2)
                asked.result()
        assert fake.ask(ANNA, "sinfo").exit == 0
        assert fake.ask(BEN, "sbatch", "--wrap", "true").exit == 0
    assert most_threads <= threads_before + server._PLACES + server._HUB_THREADS + CLIENTS + 1
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_before + 2  # what the relay wakes itself with

    ran: Counter[int] = Counter()
    for call in fake.calls():
        assert call.uid in (ANNA, BEN)
        assert set(call.capabilities) == {0}
        if call.command == "squeue" and "--array" in call.args and "--noheader" in call.args:
            continue  # how many jobs there are, before a submission
        ran[call.uid] += 1
        options = call.args[: call.args.index("/dev/stdin")] if "/dev/stdin" in call.args else call.args
        names = {word[2:].partition("=")[0] for word in options if word.startswith("--")}
        assert not names & NEVER, call
        assert not any(word.startswith("-") and not word.startswith("--") for word in options), call
        assert not any("\n" in word or "\0" in word for word in call.args), call
        assert b"\0" not in call.stdin
        assert b"--uid" not in call.stdin.split(b"true")[0], call
        home = str(fake.root / ("anna" if call.uid == ANNA else "ben"))
        assert call.cwd in ("/", home)
        for word in options:
            if word.startswith(("--output=/", "--chdir=/", "--error=/")):
                assert word.partition("=")[2].startswith((home, "/dev/null")), call

    answers = sum((client.answers for client in clients), Counter[int]())
    # Each kind of answer was there; nothing that was refused ran, and all that was said to have run did.
    assert set(answers) == {0, 2}
    assert answers[2] > 2000
    assert answers[0] > 300
    assert ran.total() > 300
    for uid in (ANNA, BEN):
        said = sum(client.ran[uid] for client in clients) + 1
        assert said <= ran[uid] <= said + sum(client.unknown[uid] for client in clients)
