"""sacct without a database. Lines are as Slurm 22.05.8 and 24.11.5 wrote them, tables as their sacct shows them."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from labstead.errors import BadInput
from labstead.identity import Identity
from labstead.relay import completed, options
from labstead.relay.running import Outcome

ANNA, BEN = 24001, 24002
NOW = datetime(2026, 11, 20, 20, 0, 0)
_ABOUT = {"name": "anna", "uid": ANNA, "gid": ANNA, "groups": (ANNA,), "home": "/home/anna", "shell": "/bin/bash"}
PLACE = options.Place(Identity.model_validate(_ABOUT), "/home/anna")


def line(number: int, user: str = "anna", uid: int = ANNA, extra: str = "", **changes: str) -> str:
    """Write a line as jobcomp/filetxt does."""
    told = {
        "Name": "wrap",
        "JobState": "COMPLETED",
        "Partition": "labstead",
        "TimeLimit": "60",
        "StartTime": "2026-11-20T19:36:02",
        "EndTime": "2026-11-20T19:37:32",
        "NodeList": "lta",
        "NodeCnt": "1",
        "ProcCnt": "2",
        "WorkDir": "/home/anna",
        "ReservationName": "",
        "Tres": "cpu=2,mem=2G,node=1,billing=2",
        "Account": "",
        "QOS": "",
        "WcKey": "",
        "Cluster": "unknown",
        "SubmitTime": "2026-11-20T19:36:01",
        "EligibleTime": "2026-11-20T19:36:01",
    } | changes
    middle = " ".join(f"{name}={value}" for name, value in told.items() if name != "ExitCode")
    exit_code = changes.get("ExitCode", "0:0")
    head = f"JobId={number} UserId={user}({uid}) GroupId={user}({uid})"
    return f"{head} {middle}{extra} DerivedExitCode=0:0 ExitCode={exit_code} \n"


class Slurm:
    """squeue of one person."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        self.problem: Outcome | None = None

    def squeue_of(self, person: Identity, columns: str) -> Outcome:
        assert person.uid == ANNA
        assert columns == "%A|%i|%T|%u|%U|%V|%S|%C|%P|%a|%D|%N|%l|%q|%j"
        return self.problem or Outcome(0, "".join(f"{line}\n" for line in self.lines).encode())

    def tell(self, command: str, args: Sequence[str], _place: options.Place) -> Outcome:
        return Outcome(0, f"{command} {list(args)}".encode())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def sacct(file: Path, *args: str, slurm: Slurm | None = None) -> str:
    outcome = completed.sacct(args, PLACE, file, slurm or Slurm(), NOW)  # type: ignore[arg-type]
    assert (outcome.exit, outcome.stderr) == (0, b"")
    return outcome.stdout.decode()


def rows(file: Path, *args: str, slurm: Slurm | None = None) -> list[str]:
    return sacct(file, "--parsable2", "--noheader", *args, slurm=slurm).splitlines()


def test_the_table_looks_as_saccts_own(file: Path) -> None:
    file.write_text(line(6) + line(7, Name="a-rather-long-name", JobState="FAILED", ExitCode="3:0"))
    assert sacct(file) == (
        "JobID           JobName  Partition    Account  AllocCPUS      State ExitCode \n"
        "------------ ---------- ---------- ---------- ---------- ---------- -------- \n"
        "6                  wrap   labstead                     2  COMPLETED      0:0 \n"
        "7            a-rather-+   labstead                     2     FAILED      3:0 \n"
    )


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["-n"], "6                  wrap   labstead                     2  COMPLETED      0:0 \n"),
        (["-nb"], "6             COMPLETED      0:0 \n"),
        (["-Po", "jobid,state"], "JobID|State\n6|COMPLETED\n"),
        (["-po", "jobid,state"], "JobID|State|\n6|COMPLETED|\n"),
        (["-nP", "--delimiter=;", "-o", "JobID,State"], "6;COMPLETED\n"),
        (["-no", "jobname%-6,jobid%5"], "wrap       6 \n"),
        (["-nPo", "start,end,elapsed,elapsedraw"], "2026-11-20T19:36:02|2026-11-20T19:37:32|00:01:30|90\n"),
        (["-nPo", "cputime,cputimeraw,ncpus,alloccpus"], "00:03:00|180|2|2\n"),
        (["-nPo", "user,uid,group,gid,jobidraw"], "anna|24001|anna|24001|6\n"),
        (["-nPo", "timelimit,timelimitraw,reqmem,reqtres"], "01:00:00|60|2G|cpu=2,mem=2G,node=1,billing=2\n"),
        (["-nPo", "nodelist,nnodes,workdir,submit,MaxRSS"], "lta|1|/home/anna|2026-11-20T19:36:01|\n"),
        (["-nPo", "JobI,stat"], "6|COMPLETED\n"),  # sacct takes the beginning of a name
        (["-nPo", "jobid", "-o", "state"], "6|COMPLETED\n"),
    ],
)
def test_columns_and_forms_are_saccts(file: Path, args: list[str], text: str) -> None:
    file.write_text(line(6))
    assert sacct(file, *args) == text


def test_everybody_sees_their_own_jobs_alone(file: Path) -> None:
    file.write_text(
        line(1)
        + line(2, "ben", BEN)
        + line(3, "ben", BEN, Name="x UserId=anna(24001) GroupId=anna(24001)")
        + line(4, "anna2", 240011)
        + "JobId=x UserId=anna(24001) \n\n\xff\n"
        + line(5)
    )
    assert rows(file, "-o", "jobid") == ["1", "5"]
    assert rows(file, "-o", "jobid", "-j", "1,2,3,4,5") == ["1", "5"]
    for user in ("ben", str(BEN), "anna,ben"):
        with pytest.raises(BadInput, match="--user: is for anna alone here"):
            sacct(file, "-u", user)
    assert rows(file, "-u", "anna", "-o", "jobid") == ["1", "5"]


def test_names_may_have_anything_in_them(file: Path) -> None:
    names = [
        "a b",
        "x JobState=FAILED Partition=p",
        "ArrayJobId=9 ArrayTaskId=9",
        "ends ExitCode=9:9",
        "\x1b[2J",
        "é|ß",
    ]
    file.write_text("".join(line(number, Name=name) for number, name in enumerate(names)))
    assert rows(file, "-o", "jobid,state,exitcode,jobname") == [
        f"{number}|COMPLETED|0:0|{name}" for number, name in enumerate([*names[:4], "?[2J", "é|ß"])
    ]


def test_a_line_without_end_is_read_in_moments(file: Path) -> None:
    """A pattern for the whole of it would be tried in more ways than there are seconds."""
    cycle = "".join(f" {name}=" for name in completed._FIELDS.split())
    file.write_text(line(1, Name="".join([cycle] * 4000)) + line(2)[:-9].replace("wrap", cycle * 100))
    assert [row.partition("|")[0] for row in rows(file, "-o", "jobid,state")] == ["1", "2"]


def test_lines_that_slurm_22_cut_stand_each_for_themselves(file: Path) -> None:
    long = line(1, Name="n" * 2000)
    file.write_text(long[:1023] + line(2, "ben", BEN) + long[:1023] + line(3))
    assert rows(file, "-o", "jobid,state,exitcode") == ["1|UNKNOWN|", "3|COMPLETED|0:0"]


def test_tasks_of_arrays_have_their_numbers(file: Path) -> None:
    file.write_text(line(8, extra=" ArrayJobId=6 ArrayTaskId=2") + line(6, extra=" ArrayJobId=6 ArrayTaskId=3"))
    assert rows(file, "-o", "jobid,jobidraw") == ["6_3|6", "6_2|8"]
    assert rows(file, "-o", "jobid", "-j", "6") == ["6_3", "6_2"]
    assert rows(file, "-o", "jobid", "-j", "6_2") == ["6_2"]


RUNNING = "9|9|RUNNING|anna|24001|2026-11-20T19:50:00|2026-11-20T19:55:00|4|labstead|(null)|1|lta|1:00:00|(null)|a|b"
PENDING = "10|10|PENDING|anna|24001|2026-11-20T19:58:00|2026-11-20T21:00:00|1|labstead|x|1||1:00:00|(null)|p"


def test_jobs_that_wait_and_run_belong_to_the_answer(file: Path) -> None:
    file.write_text(line(6) + line(9, JobState="COMPLETED"))
    slurm = Slurm("11|no sense", PENDING, RUNNING.replace("9|9|", "8|8|", 1), RUNNING)
    found = rows(file, "-o", "jobid,jobname,state,start,end,elapsed,alloccpus,account", slurm=slurm)
    assert found == [
        "6|wrap|COMPLETED|2026-11-20T19:36:02|2026-11-20T19:37:32|00:01:30|2|",
        "8|a|b|RUNNING|2026-11-20T19:55:00|Unknown|00:05:00|4|",
        # What the file tells is the end of it.
        "9|wrap|COMPLETED|2026-11-20T19:36:02|2026-11-20T19:37:32|00:01:30|2|",
        "10|p|PENDING|Unknown|Unknown|00:00:00|1|x",
    ]


def test_without_a_file_nothing_has_ended_yet(file: Path) -> None:
    assert rows(file, "-o", "jobid", slurm=Slurm(RUNNING)) == ["9"]


def test_a_slurm_that_does_not_answer_is_told(file: Path) -> None:
    slurm = Slurm()
    slurm.problem = Outcome(1, b"", b"slurm_load_jobs error\n")
    assert completed.sacct([], PLACE, file, slurm, NOW) == slurm.problem  # type: ignore[arg-type]


DAYS = {
    1: {"SubmitTime": "2026-11-18T10:00:00", "StartTime": "2026-11-18T10:00:00", "EndTime": "2026-11-18T11:00:00"},
    2: {"SubmitTime": "2026-11-19T10:00:00", "StartTime": "2026-11-19T10:00:00", "EndTime": "2026-11-20T01:00:00"},
    3: {"SubmitTime": "2026-11-20T10:00:00", "StartTime": "2026-11-20T10:00:00", "EndTime": "2026-11-20T11:00:00"},
}


@pytest.mark.parametrize(
    ("args", "numbers"),
    [
        ([], "2 3"),  # since midnight
        (["-S", "2026-11-18"], "1 2 3"),
        (["-S", "2026-11-18T12:00"], "2 3"),
        (["-S", "now-10hours"], "3"),
        (["-S", "now-1day"], "2 3"),
        (["-S", "now-3days"], "1 2 3"),
        (["-S", "09:00"], "3"),
        (["-S", "today"], "2 3"),
        (["-S", "2026-11-18", "-E", "2026-11-19T00:00:00"], "1"),
        (["-j", "1"], "1"),  # of any day
        (["-j", "1,3", "-S", "today"], "3"),
        (["-j", "1.batch"], "1"),
        (["-S", "2026-11-18", "-s", "f"], "2"),
        (["-S", "2026-11-18", "--state=COMPLETED,TIMEOUT"], "1 3"),
        (["-S", "2026-11-18", "--name=other"], ""),
        (["-S", "2026-11-18", "-r", "labstead"], "1 2 3"),
    ],
)
def test_jobs_are_chosen_as_sacct_does(file: Path, args: list[str], numbers: str) -> None:
    changes = {number: times | {"JobState": "FAILED" if number == 2 else "COMPLETED"} for number, times in DAYS.items()}
    file.write_text("".join(line(number, **change) for number, change in changes.items()))
    assert " ".join(rows(file, "-o", "jobid", *args)) == numbers


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-o", "nonsense"], "invalid field requested: nonsense"),
        (["-o", ""], "name some columns"),
        (["-o", "jobid%x"], "the width"),
        (["-o", "jobid%99999"], "the width"),
        (["-o", ",".join(["user"] * 200)], "name some columns"),
        (["-S", "yesterday-ish"], "is not a time"),
        (["-S", "2026-02-31"], "is not a time"),
        (["-S", "25:00"], "is not a time"),
        (["-E", ""], "is not a time"),
        (["-s", "happy"], "happy is not a state"),
        (["-N", "lta"], "--nodelist: this machine's Slurm has no database"),
        (["--json"], "--json: this machine's Slurm has no database"),
        (["-a"], "--allusers: this machine's Slurm has no database"),
        (["x"], "unexpected word x"),
        (["-c"], "everybody's jobs or none"),
    ],
)
def test_what_it_cannot_tell_is_refused_in_clear_words(file: Path, args: list[str], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        sacct(file, *args)
    assert words in str(caught.value)


def test_of_itself_sacct_tells_itself(file: Path) -> None:
    assert sacct(file, "-V") == "sacct ['-V']"


def test_the_answer_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completed, "_MOST_ROWS", 3)
    file.write_text("".join(line(number) for number in range(10)))
    assert rows(file, "-o", "jobid") == ["7", "8", "9"]
    monkeypatch.setattr(completed, "_MOST_BYTES", 2 * len(line(1)) + 10)
    assert rows(file, "-o", "jobid") == ["8", "9"]


def test_times_beyond_the_calendar_are_refused(file: Path) -> None:
    file.write_text(line(1))
    with pytest.raises(BadInput, match="is not a time"):
        sacct(file, "-S", "now-99999999weeks")


def odd(**changes: Any) -> str:
    return line(1, **changes)


@pytest.mark.parametrize(
    "text",
    [
        odd(StartTime="Unknown"),
        odd(EndTime=""),
        odd(EndTime="2020-01-01T00:00:00"),
        odd(ProcCnt="x"),
        odd(ProcCnt="9" * 5000),
        odd(TimeLimit="9" * 5000),
        odd(TimeLimit="UNLIMITED"),
        odd(StartTime="2026-11-20T19:36:02+00:00"),
        odd(SubmitTime="2026-W47"),
        odd(EligibleTime="a b=c d"),
    ],
)
def test_no_line_whatever_is_in_it_ends_the_answer(file: Path, text: str) -> None:
    file.write_text(text + line(2))
    columns = ",".join(title for title in completed._TITLE_OF)
    assert len(rows(file, "-S", "2019-01-01", "-o", columns)) == 2
