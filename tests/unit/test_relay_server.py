"""The relay at its socket: who is heard, what is run, and as whom. Real sockets and uids, commands that note it."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labstead.errors import AccountRefused, LabsteadError, Refusal
from labstead.insession import slurm as insession
from labstead.relay import running, server
from labstead.relay.client import Client, Jobs
from support.fake_slurm import ANNA, BEN, HUB_UID, STRANGER, FakeSlurm, as_uid, fake_slurm

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="becomes other users")

SCRIPT = b"#!/bin/sh\n#SBATCH --time=5\ntrue\n"


@pytest.fixture
def fake() -> Iterator[FakeSlurm]:
    with fake_slurm() as made:
        yield made


@pytest.fixture
def serving(fake: FakeSlurm) -> Iterator[FakeSlurm]:
    with fake.serving():
        yield fake


def wait_until(what: str, is_so: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# --- as whom


def test_a_command_is_the_person_and_nothing_of_the_relay(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABSTEAD_SECRET", "canary")
    monkeypatch.setenv("SBATCH_UID", "0")
    home = fake.accounts.people[ANNA].home
    with fake.serving():
        answer = fake.ask(ANNA, "sbatch", "job.sh", cwd=str(home), script=SCRIPT)
    assert (answer.exit, answer.stdout, answer.stderr) == (0, "Submitted batch job 17\n", "")
    assert answer.need == {"need": "script", "index": 0}
    (call,) = fake.calls("sbatch")
    assert (call.uid, call.gid, call.groups) == (ANNA, ANNA, (ANNA, ANNA + 1000))
    assert set(call.capabilities) == {0}
    # A home that is closed to all others.
    assert (call.cwd, call.umask) == (str(home), "0002")
    assert call.stdin == SCRIPT
    assert set(call.environment) - {"PWD", "OLDPWD", "_", "SHLVL"} == {
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "PATH",
        "LANG",
    }
    assert call.environment["USER"] == "anna"
    assert call.environment["HOME"] == str(home)
    assert call.environment["PATH"].startswith(f"{fake.images_root}/bin:")


def test_two_people_at_once_are_never_mixed_up(serving: FakeSlurm) -> None:
    def ask(number: int) -> None:
        uid = (ANNA, BEN)[number % 2]
        assert serving.ask(uid, "squeue", "--name", f"of-{uid}").exit == 0

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(40)))
    calls = serving.calls("squeue")
    assert len(calls) == 40
    assert {(call.uid, call.args[0]) for call in calls} == {(ANNA, f"--name=of-{ANNA}"), (BEN, f"--name=of-{BEN}")}


def test_output_and_exit_code_come_back_as_they_are(serving: FakeSlurm) -> None:
    serving.does("sinfo", "printf 'a\\0b'; printf 'c\\n\\n' >&2; exit 3")
    answer = serving.ask(ANNA, "sinfo")
    assert (answer.exit, answer.stdout, answer.stderr) == (3, "a\0b", "c\n\n")


# --- who


@pytest.mark.parametrize("uid", [1, 33, 999, 65534, STRANGER])
def test_who_is_not_the_hubs_is_refused(serving: FakeSlurm, uid: int) -> None:
    answer = serving.ask(uid, "sbatch", "--wrap", "true")
    assert answer.exit == 2
    assert answer.stderr.startswith("sbatch: labstead: ")
    assert answer.stderr.count("\n") == 1
    assert serving.calls() == []
    if uid != STRANGER:
        assert serving.accounts.asked == []  # by its number already


@pytest.mark.parametrize("uid", [0, HUB_UID])
def test_root_and_the_hub_run_nothing(serving: FakeSlurm, uid: int) -> None:
    with serving.connect(uid) as connection, connection.makefile("rb") as stream:
        connection.sendall(b'{"version":1,"op":"run","command":"sbatch","args":["--wrap","id"]}\n')
        assert "error" in json.loads(stream.readline())
    assert serving.calls() == []


def test_a_closed_account_is_refused_within_moments(serving: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_KNOWN_SECONDS", 0.2)
    assert serving.ask(ANNA, "squeue").exit == 0
    serving.accounts.refused[ANNA] = AccountRefused(Refusal.LOCKED, "the account anna is locked; ask an administrator")
    wait_until("anna is refused", lambda: serving.ask(ANNA, "squeue").exit == 2)
    assert "anna is locked" in serving.ask(ANNA, "scancel", "17").stderr
    assert serving.calls("scancel") == []


def test_the_accounts_service_is_not_asked_for_each_call(serving: FakeSlurm) -> None:
    for _ in range(5):
        assert serving.ask(ANNA, "squeue").exit == 0
        assert serving.ask(STRANGER, "squeue").exit == 2
    assert sorted(serving.accounts.asked) == [ANNA, STRANGER]


def test_an_answer_about_somebody_else_is_nobodys(serving: FakeSlurm) -> None:
    serving.accounts.people[ANNA] = serving.accounts.people[BEN]
    assert serving.ask(ANNA, "squeue").exit == 2
    assert serving.calls() == []


def test_an_accounts_service_that_is_away_is_a_reason_to_come_again(
    serving: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise LabsteadError("the accounts service does not answer")

    monkeypatch.setattr(serving.accounts, "identify", fail)
    answer = serving.ask(ANNA, "squeue")
    assert answer.exit == 75
    assert "accounts service does not answer" in answer.stderr


# --- what is no request


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"version":1,"op":"run","command":"srun","args":[]}',
        b'{"version":1,"op":"run","command":"/bin/sh","args":[]}',
        b'{"version":2,"op":"run","command":"sinfo","args":[]}',
        b'{"version":1,"op":"run","command":"sinfo","args":"x"}',
        b'{"version":1,"op":"run","command":"sinfo","args":[1]}',
        b'{"version":1,"op":"run","command":"sinfo","args":[],"uid":0}',
        b'{"version":1,"op":"run","command":"sinfo","args":["\\ud800"]}',
        b'{"version":1,"op":"run","command":"sinfo","args":["' + b"a" * 70000 + b'"]}',
        b'{"version":1,"op":"jobs","user":"anna"}',
        b'{"version":1,"op":"end","user":"ben","what":"all"}',
    ],
)
def test_what_is_no_request_of_a_person_is_refused(serving: FakeSlurm, line: bytes) -> None:
    with serving.connect(ANNA) as connection, connection.makefile("rb") as stream:
        connection.sendall(line + b"\n")
        reply = json.loads(stream.readline())
        assert reply["exit"] == 2
        assert b": labstead: " in stream.read()
    assert serving.calls() == []


@pytest.mark.parametrize("args", [["a\0b"], ["--name=a\nb"], ["--name=\x1b[2J"], ["--name=" + "x" * 2000]])
def test_control_characters_and_long_words_never_arrive(serving: FakeSlurm, args: list[str]) -> None:
    assert serving.ask(ANNA, "squeue", *args).exit == 2
    assert serving.calls() == []


# --- scripts


def test_a_script_that_is_too_large_is_refused_by_its_size(serving: FakeSlurm) -> None:
    answer = serving.ask(ANNA, "sbatch", "big.sh", size=100 * 2**20)
    assert answer.exit == 2
    assert "104857600 bytes; at most 1048576" in answer.stderr
    assert serving.calls("sbatch") == []


def test_a_script_of_the_largest_size_arrives_whole(serving: FakeSlurm) -> None:
    script = SCRIPT + b"#" * (2**20 - len(SCRIPT) - 1) + b"\n"
    assert serving.ask(ANNA, "sbatch", script=script).exit == 0
    assert serving.calls("sbatch")[0].stdin == script


@pytest.mark.parametrize("line", [b"{}", b'{"script":-1}', b'{"script":"9"}', b'{"script":1.5}', b"x" * 70000])
def test_a_script_that_is_not_announced_is_refused(serving: FakeSlurm, line: bytes) -> None:
    with serving.connect(ANNA) as connection, connection.makefile("rb") as stream:
        connection.sendall(b'{"version":1,"op":"run","command":"sbatch","args":[]}\n')
        assert json.loads(stream.readline()) == {"need": "script", "index": None}
        connection.sendall(line + b"\n")
        assert json.loads(stream.readline())["exit"] == 2
    assert serving.calls("sbatch") == []


def test_refused_options_are_refused_before_a_script_is_asked_for(serving: FakeSlurm) -> None:
    answer = serving.ask(ANNA, "sbatch", "--uid=0", "job.sh")
    assert answer.need is None
    assert answer.stderr == "sbatch: labstead: --uid: jobs are always your own\n"


def test_a_script_has_its_words_and_its_name(serving: FakeSlurm) -> None:
    home = str(serving.accounts.people[ANNA].home)
    script = b"#!/bin/sh\ntrue\n"
    answer = serving.ask(ANNA, "sbatch", "-c2", "--mem", "1G", "run/job.sh", "a b", "--uid=0", cwd=home, script=script)
    assert answer.need == {"need": "script", "index": 3}
    (call,) = serving.calls("sbatch")
    assert call.args == [
        "--ignore-pbs",
        "--propagate=NONE",
        "--cpus-per-task=2",
        "--mem=1G",
        f"--chdir={home}",
        "--job-name=job.sh",
        "/dev/stdin",
        "a b",
        "--uid=0",
    ]


def test_a_child_can_read_its_script_by_name(serving: FakeSlurm) -> None:
    serving.does("sbatch", 'for word; do file="$word"; [ "$word" = /dev/stdin ] && break; done; cat "$file"')
    serving.does("sbatch", "cat /dev/stdin")  # what cat has read before is read again from the start
    answer = serving.ask(ANNA, "sbatch", "job.sh", "word", script=SCRIPT)
    assert (answer.exit, answer.stdout) == (0, SCRIPT.decode())


def test_names_and_folders_in_the_script_are_left_to_it(serving: FakeSlurm) -> None:
    home = str(serving.accounts.people[ANNA].home)
    script = f"#!/bin/sh\n#SBATCH -J mine -D {home}/deep\n".encode()
    assert serving.ask(ANNA, "sbatch", "job.sh", script=script).exit == 0
    assert serving.calls("sbatch")[0].args == ["--ignore-pbs", "--propagate=NONE"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (b"#!/bin/sh\n#SBATCH --uid=0\n", "--uid: jobs are always your own"),
        (b"#!/bin/sh\n#SBATCH--uid=0\n", "--uid"),
        (b"#!/bin/sh\n#SLURM --uid 0\n", "--uid"),
        (b"#!/bin/sh\n\n# x\n#SBATCH --nice '-H' --ui=0\n", "--ui"),
        (b"#!/bin/sh\n#SBATCH -o /etc/passwd\n", "--output: /etc/passwd is not in your home"),
        (b"#!/bin/sh\n#SBATCH true\n", "invalid directive in the script: true"),
        (b"#!/bin/sh\n#SBATCH --wrap=x\n", "--wrap in a script"),
        (b"#!/bin/sh\n#SBATCH -n1\n#SBATCH hetjob\n", "heterogeneous"),
        (b"true\n", "does not begin with #!"),
        (b"#!/bin/sh\r\ntrue\r\n", "DOS line breaks"),
        (b"#!/bin/sh\n\0", "NUL"),
        (b"#!/bin/sh\n\xff", "not UTF-8"),
        (b"", "empty"),
    ],
)
def test_scripts_are_read_as_the_command_line_is(serving: FakeSlurm, script: bytes, words: str) -> None:
    answer = serving.ask(ANNA, "sbatch", "job.sh", script=script)
    assert answer.exit == 2
    assert words in answer.stderr
    assert serving.calls("sbatch") == []


def test_a_worker_of_dask_is_marked_whatever_its_script_says(serving: FakeSlurm) -> None:
    runner = f"{serving.images_root}/bin/in-image"
    script = f"#!/bin/sh\n#SBATCH --comment=mine\n{runner} --dask 0123456789ab python3 -m x\n".encode()
    assert serving.ask(ANNA, "sbatch", "--comment=other", "/tmp/x.sh", script=script).exit == 0
    assert serving.calls("sbatch")[0].args[-1] == "--comment=labstead:dask"
    assert serving.ask(ANNA, "sbatch", "--wrap", f"echo {runner} --dask x").exit == 0
    assert "--comment=labstead:dask" not in serving.calls("sbatch")[1].args


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("0123456789ab", "0123456789ab"),
        ("labstead/base:1@sha256:0123456789ab" + "0" * 52, "0123456789ab"),
        ("labstead/base:1", "0123456789ab"),
        ("ffffffffffff", None),
        ("labstead/base:2", None),
        ("../../0123456789ab", None),
        ("", None),
    ],
)
def test_jobs_know_the_image_of_the_session_if_it_is_there(serving: FakeSlurm, said: str, found: str | None) -> None:
    images = serving.images_root / "images"
    told = {"reference": "labstead/base:1", "digest": "0123456789ab"}
    (images / "0123456789ab.json").write_text(json.dumps(told))
    (images / "broken.json").write_text("{")
    old = images / "aaaaaaaaaaaa.json"
    old.write_text(json.dumps({**told, "digest": "aaaaaaaaaaaa"}))
    os.utime(old, (1, 1))
    assert serving.ask(ANNA, "sbatch", "--wrap", "true", image=said).exit == 0
    assert serving.calls("sbatch")[0].environment.get("LABSTEAD_IMAGE") == found


@pytest.mark.parametrize("cwd", ["", "/", "/etc", "relative", "/nonexistent", "{root}/ben", "{root}/anna/../ben"])
def test_a_job_starts_at_home_where_it_cannot_be_elsewhere(serving: FakeSlurm, cwd: str) -> None:
    assert serving.ask(ANNA, "sbatch", "--wrap", "true", cwd=cwd.format(root=serving.root)).exit == 0
    assert serving.calls("sbatch")[0].cwd == str(serving.root / "anna")


def test_site_settings_reach_the_commands(fake: FakeSlurm) -> None:
    with fake.serving(mode="existing", slurm_conf="/etc/site/slurm.conf"):
        assert fake.ask(ANNA, "sacct", "-X").stdout == "of-the-site\n"
    assert fake.calls("sacct")[0].environment["SLURM_CONF"] == "/etc/site/slurm.conf"


# --- bounds


def test_output_is_bounded(serving: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MAX_STDOUT", 100_000)
    serving.does("squeue", "exec cat /dev/zero")
    answer = serving.ask(ANNA, "squeue")
    assert (answer.exit, len(answer.stdout)) == (1, 100_000)
    assert answer.stderr == "\nsqueue: labstead: that was too much; ask for less\n"
    assert serving.ask(ANNA, "sinfo").exit == 0


def processes_of(fake: FakeSlurm) -> list[str]:
    """Find the processes that run commands of these."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(fake.bin).encode() in (path / "cmdline").read_bytes():
                found.append(path.name)
    return found


@pytest.mark.parametrize("stop", ["", "kill -STOP $PPID; kill -STOP $$;", "trap '' TERM;"])
def test_a_command_that_hangs_is_ended(serving: FakeSlurm, monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    monkeypatch.setattr(running, "_GRACE_SECONDS", 1)
    monkeypatch.setattr(running.run, "__defaults__", ("/", None, 1.0))
    monkeypatch.setattr(server.Slurm.run, "__defaults__", ("/", None, "", 1.0))
    serving.does("squeue", f"{stop} while :; do sleep 1; done")
    answer = serving.ask(ANNA, "squeue")
    assert answer.exit in (124, 137)
    assert "Slurm has not answered within 1 s" in answer.stderr
    wait_until("nothing of it is left", lambda: not processes_of(serving))


def test_a_caller_who_leaves_does_not_undo_what_was_asked(serving: FakeSlurm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "labstead.relay")
    serving.does("sbatch", "sleep 0.5; echo Submitted batch job 18")
    with serving.connect(ANNA) as connection:
        connection.sendall(b'{"version":1,"op":"run","command":"sbatch","args":["--wrap","true"]}\n')
        wait_until("sbatch runs", lambda: serving.calls("sbatch"))
    wait_until("it is in the journal", lambda: "Submitted batch job 18" in caplog.text)
    assert f"sbatch of anna (uid {ANNA}) job: --wrap=… -> Submitted batch job 18" in caplog.text


@pytest.mark.parametrize(
    "sent", [b"", b'{"version":1,"op"', b'{"version":1,"op":"run","command":"sbatch","args":[]}\n']
)
def test_callers_who_stop_half_way_are_let_go(
    serving: FakeSlurm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    caplog.set_level("INFO", "labstead.relay")
    monkeypatch.setattr(server, "_PATIENCE_SECONDS", 0.3)
    for is_gone in (False, True, False):
        with serving.connect(ANNA) as connection:
            connection.sendall(sent)
            if not is_gone:
                while connection.recv(4096):
                    pass
    assert serving.ask(ANNA, "sinfo").exit == 0
    assert serving.calls("sbatch") == []
    assert sum("went away or was too slow" in record.message for record in caplog.records) == 1


def test_one_person_has_few_places_and_others_are_heard(serving: FakeSlurm) -> None:
    held = [serving.connect(ANNA) for _ in range(40)]
    try:
        assert serving.ask(BEN, "sinfo").exit == 0
        assert Client(serving.socket).everybody() == {}
    finally:
        for connection in held:
            connection.close()


def test_of_very_many_calls_some_are_told_to_come_again(serving: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_WAITING_PER_UID", 5)
    held = [serving.connect(ANNA) for _ in range(server._PLACES_PER_UID + 5)]
    try:
        wait_until("the next one is refused", lambda: serving.ask(ANNA, "sinfo").exit == 75)
    finally:
        for connection in held:
            connection.close()
    wait_until("there is room again", lambda: serving.ask(ANNA, "sinfo").exit == 0)


def test_fifty_submissions_at_once_all_go_through(serving: FakeSlurm) -> None:
    """As SLURMCluster.scale(50) does."""

    def submit(number: int) -> int:
        return serving.ask(ANNA, "sbatch", f"/tmp/tmp{number}.sh", script=SCRIPT).exit

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(submit, range(50))) == {0}
    assert len(serving.calls("sbatch")) == 50
    # How many jobs there are was not asked for each.
    assert len(serving.calls("squeue")) < 25


def test_too_many_jobs_are_refused_in_clear_words(fake: FakeSlurm) -> None:
    three = ("5|anna|labstead:dask", "6|anna|", "6|anna|")
    fake.jobs(*three)
    with fake.serving(jobs_per_user=4):
        refused = fake.ask(ANNA, "sbatch", "--array=1-2", "--wrap", "true")
        assert fake.calls("sbatch") == []
        assert fake.ask(ANNA, "sbatch", "--wrap", "true").exit == 0
        fake.jobs(*three, "17|anna|")
        assert fake.ask(ANNA, "sbatch", "--wrap", "true").exit == 2
        # --test-only submits nothing.
        assert fake.ask(ANNA, "sbatch", "--test-only", "--wrap", "true").exit == 0
        # Once one has ended, the next one goes through at once.
        fake.jobs(*three)
        assert fake.ask(ANNA, "sbatch", "--wrap", "true").exit == 0
    words = "sbatch: labstead: you have 3 jobs waiting or running, and may have 4; these would be 2 more\n"
    assert (refused.exit, refused.stderr) == (2, words)


def test_jobs_that_failed_to_be_submitted_do_not_count(fake: FakeSlurm) -> None:
    fake.does("sbatch", "exit 1")
    with fake.serving(jobs_per_user=1):
        for _ in range(3):
            assert fake.ask(ANNA, "sbatch", "--wrap", "true").exit == 1


def test_calls_without_end_are_slowed_and_harm_nobody_else(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SLOW_SECONDS", 0.0)
    monkeypatch.setattr(server, "_BURST", 5)
    monkeypatch.setattr(server, "_QUESTIONS_PER_SECOND", 0.001)
    with fake.serving():
        for _ in range(5):
            assert fake.ask(ANNA, "sinfo").exit == 0
        answer = fake.ask(ANNA, "sinfo")
        assert (answer.exit, answer.stderr) == (
            75,
            "sinfo: labstead: too many calls; please try again a little later\n",
        )
        assert fake.ask(BEN, "sinfo").exit == 0
        # Submissions have a measure of their own.
        assert fake.ask(ANNA, "sbatch", "--wrap", "true").exit == 0
    assert len(fake.calls("sinfo")) == 6


def test_a_flood_leaves_few_lines_in_the_journal(serving: FakeSlurm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "labstead.relay")
    for _ in range(50):
        assert serving.ask(ANNA, "squeue", "--iterate", "1" * 900).exit == 2
    assert 0 < len(caplog.records) <= 10
    assert all(len(record.getMessage()) < 800 for record in caplog.records)


def test_what_is_in_the_journal_is_one_line(serving: FakeSlurm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "labstead.relay")
    serving.does("sbatch", "printf 'Submitted batch job 9\\nERROR forged\\033[2J'")
    assert serving.ask(ANNA, "sbatch", "--wrap", "true\nERROR forged").exit == 0
    assert serving.ask(ANNA, "squeue", "a\nERROR forged").exit == 2
    (done, refused) = (record.getMessage() for record in caplog.records)
    assert "\n" not in done + refused
    assert "\x1b" not in done


def test_what_may_be_a_secret_is_not_in_the_journal(serving: FakeSlurm, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "labstead.relay")
    secret = "canary-of-anna"
    assert serving.ask(ANNA, "sbatch", "--export", f"ALL,TOKEN={secret}", "--wrap", f"login {secret}").exit == 0
    assert serving.ask(ANNA, "sbatch", "-n2", "job.sh", secret, script=SCRIPT + secret.encode()).exit == 0
    assert "--ntasks=2 job.sh -> Submitted batch job 17" in caplog.text
    assert secret not in caplog.text


def test_a_unit_in_which_nothing_starts_any_more_is_started_anew(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = fake.relay()
    monkeypatch.setattr("labstead.relay.commands._STUCK_SECONDS", 0.1)

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(running.subprocess, "Popen", refuse)
    failed: list[str] = []

    def serve(listener: socket.socket) -> None:
        try:
            relay.serve(listener)
        except LabsteadError as error:
            failed.append(str(error))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(fake.socket)
        Path(fake.socket).chmod(0o666)
        listener.listen(16)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        answer = fake.ask(ANNA, "sinfo")
        assert answer.exit == 75
        assert "cannot start a command" in answer.stderr
        time.sleep(0.2)
        fake.connect(ANNA).close()
        thread.join(30)
    assert not thread.is_alive()
    assert failed == ["no command can be started for a minute now; starting anew"]


# --- the client in a session


def in_session(fake: FakeSlurm, *words: str) -> tuple[int, bytes, bytes]:
    """Type a command as anna."""
    answers: list[tuple[int, bytes, bytes]] = []
    as_uid(ANNA, lambda: answers.append(insession.run(words[0], list(words[1:]), fake.socket)))
    return answers[0]


def test_the_client_in_a_session_and_the_relay_understand_each_other(serving: FakeSlurm) -> None:
    script = serving.root / "job.sh"
    script.write_bytes(SCRIPT)
    assert in_session(serving, "sbatch", "-n2", str(script), "a b") == (0, b"Submitted batch job 17\n", b"")
    (call,) = serving.calls("sbatch")
    assert (call.uid, call.stdin, call.args[-1]) == (ANNA, SCRIPT, "a b")
    assert "--job-name=job.sh" in call.args
    assert in_session(serving, "sinfo") == (0, b"PARTITION\n", b"trouble\n")
    refused = in_session(serving, "sbatch", "--uid=0", str(script))
    assert refused == (2, b"", b"sbatch: labstead: --uid: jobs are always your own\n")
    script.write_bytes(SCRIPT + b"#" * 2**21)
    code, _, stderr = in_session(serving, "sbatch", str(script))
    assert code == 2
    assert f"the script has {2**21 + len(SCRIPT)} bytes; at most 1048576".encode() in stderr
    script.unlink()
    assert in_session(serving, "sbatch", str(script))[0] == 1
    assert in_session(serving, "squeue")[0] == 0


def test_the_client_in_a_session_comes_again_while_the_relay_is_busy(
    serving: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_WAITING_PER_UID", 1)
    held = [serving.connect(ANNA) for _ in range(server._PLACES_PER_UID + 1)]
    leave = threading.Timer(1.0, lambda: [connection.close() for connection in held])
    leave.start()
    assert in_session(serving, "sinfo")[0] == 0
    leave.join()


# --- what the hub asks


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names on the machine."""
    names = {"anna": ANNA, "ben": BEN, "carl": STRANGER, "daemon": 1}

    def getpwnam(name: str) -> Any:
        uid = names[name]
        return SimpleNamespace(pw_name=name, pw_uid=uid, pw_gid=uid, pw_dir=f"/home/{name}", pw_shell="/bin/bash")

    monkeypatch.setattr(server.pwd, "getpwnam", getpwnam)


@pytest.mark.usefixtures("machine")
def test_the_hub_learns_how_many_jobs_somebody_has(serving: FakeSlurm) -> None:
    serving.jobs("5|anna|labstead:dask", "6|anna|x|labstead:dask", "7|anna|(null)", "", "a line of no sense")
    assert Client(serving.socket).jobs("anna") == Jobs(all=3, dask=1)
    (call,) = serving.calls("squeue")
    assert call.uid == ANNA
    assert f"--user={ANNA}" in call.args
    assert "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED,COMPLETING" in call.args


def test_the_hub_learns_who_has_jobs_at_all(serving: FakeSlurm) -> None:
    serving.jobs("5|anna|labstead:dask", "6|ben|", "7|anna|")
    assert Client(serving.socket).everybody() == {"anna": Jobs(all=2, dask=1), "ben": Jobs(all=1, dask=0)}
    (call,) = serving.calls("squeue")
    assert call.uid == 0
    assert not any(word.startswith("--user") for word in call.args)


@pytest.mark.parametrize(("what", "numbers"), [("dask", ["5", "9"]), ("all", ["5", "6", "9"])])
@pytest.mark.usefixtures("machine")
def test_the_hub_ends_somebodys_jobs_as_that_person(serving: FakeSlurm, what: str, numbers: list[str]) -> None:
    serving.jobs("5|anna|labstead:dask", "9|anna|labstead:dask", "6|anna|")
    serving.does("scancel", 'rm "@LOG@/jobs"')
    serving.log.chmod(0o777)
    assert Client(serving.socket).end("anna", what) == len(numbers)
    (call,) = serving.calls("scancel")
    assert (call.uid, call.args) == (ANNA, numbers)


@pytest.mark.usefixtures("machine")
def test_of_nothing_to_end_nothing_is_run(serving: FakeSlurm) -> None:
    assert Client(serving.socket).end("anna") == 0
    assert serving.calls("scancel") == []


@pytest.mark.usefixtures("machine")
def test_jobs_that_do_not_end_are_an_error(serving: FakeSlurm) -> None:
    serving.jobs("5|anna|labstead:dask")
    serving.does("scancel", "echo no way >&2; exit 1")
    with pytest.raises(LabsteadError, match="scancel: no way"):
        Client(serving.socket).end("anna")


@pytest.mark.usefixtures("machine")
def test_a_closed_account_can_be_ended_too(serving: FakeSlurm) -> None:
    serving.accounts.refused[ANNA] = AccountRefused(Refusal.LOCKED, "locked")
    assert Client(serving.socket).jobs("anna") == Jobs(0, 0)
    assert Client(serving.socket).end("anna", "all") == 0


@pytest.mark.usefixtures("machine")
def test_all_jobs_end_only_of_those_who_are_or_were_the_hubs(serving: FakeSlurm) -> None:
    client = Client(serving.socket)
    with pytest.raises(LabsteadError, match="carl is not an account of the hub"):
        client.end("carl", "all")
    assert client.end("carl", "dask") == 0
    serving.accounts.retired["carl"] = STRANGER
    assert client.end("carl", "all") == 0
    serving.accounts.retired["carl"] = STRANGER + 1  # another one of that name
    with pytest.raises(LabsteadError, match="carl is not an account of the hub"):
        client.end("carl", "all")


@pytest.mark.parametrize(
    ("name", "words"), [("daemon", "system account"), ("nobody-here", "no account"), ("a\0", "no")]
)
@pytest.mark.usefixtures("machine")
def test_system_accounts_and_strangers_have_no_jobs(serving: FakeSlurm, name: str, words: str) -> None:
    with pytest.raises(LabsteadError, match=words):
        Client(serving.socket).jobs(name)
    assert serving.calls() == []


@pytest.mark.usefixtures("machine")
def test_a_slurm_that_does_not_answer_is_an_error_in_one_line(serving: FakeSlurm) -> None:
    serving.does("squeue", "echo 'slurm_load_jobs error: Unable to contact' >&2; echo controller >&2; exit 1")
    with pytest.raises(LabsteadError, match="squeue: slurm_load_jobs error: Unable to contact controller"):
        Client(serving.socket).jobs("anna")


def test_a_relay_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LabsteadError, match=r"does not answer at .*systemctl status labstead-relay") as caught:
        Client(str(tmp_path / "none")).jobs("anna")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reply", [b"", b"{}\n", b'{"jobs":1}\n', b"x" * 1000 + b"\n", b'{"jobs":1,"dask":0'])
def test_a_reply_without_sense_is_told_in_one_line(tmp_path: Path, reply: bytes) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(LabsteadError, match="relay"):
            Client(path).jobs("anna")
        thread.join(10)


def test_a_relay_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with pytest.raises(LabsteadError, match="does not answer"):
            Client(path, timeout=0.2).jobs("anna")


def test_those_who_were_let_in_are_answered_before_the_end(fake: FakeSlurm) -> None:
    fake.does("sinfo", "sleep 1; echo done")
    with fake.serving() as relay, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(fake.ask, ANNA, "sinfo") for _ in range(4)]
        wait_until("two of them run", lambda: len(fake.calls("sinfo")) == 2)
        relay.stop()
        assert [answer.result(30).stdout for answer in asked] == ["done\n"] * 4
