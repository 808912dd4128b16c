"""Which words Slurm's commands are given, and how scripts are read: as sbatch of 22.05 and 24.11, which were tried."""

from contextlib import suppress
from pathlib import Path

import pytest

from labstead.errors import BadInput
from labstead.identity import Identity
from labstead.relay import limits, options, script

_ABOUT = {"name": "anna", "uid": 20001, "gid": 20001, "groups": (20001, 21000), "home": "/home/anna"}
PERSON = Identity.model_validate(
    _ABOUT | {"shell": "/bin/bash", "folders": ("/groups/ocean",), "scratch": "/scratch/anna"}
)
HOME = options.Place(PERSON, "/home/anna")
DEEP = options.Place(PERSON, "/home/anna/a/b")


def passed(command: str, *args: str, place: options.Place = HOME) -> list[str]:
    given, _ = options.read(command, args)  # type: ignore[arg-type]
    return options.written(options.checked(given, place))


# --- what is passed on


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-n", "4"], ["--ntasks=4"]),
        (["-n4"], ["--ntasks=4"]),
        (["-n=4"], ["--ntasks==4"]),  # as getopt does
        (["--ntasks", "4"], ["--ntasks=4"]),
        (["--ntasks=4"], ["--ntasks=4"]),
        (["--ntasks="], ["--ntasks="]),
        (["-Hn", "4"], ["--hold", "--ntasks=4"]),
        (["-HQsJx"], ["--hold", "--quiet", "--oversubscribe", "--job-name=x"]),
        (["-J", "-n"], ["--job-name=-n"]),
        (["--tasks-per-node=2"], ["--ntasks-per-node=2"]),
        (["--exclusive"], ["--exclusive"]),
        (["--exclusive=user"], ["--exclusive=user"]),
        (["--nice", "--hold"], ["--nice", "--hold"]),
        (["--nice=5"], ["--nice=5"]),
        (["-k"], ["--no-kill"]),
        (["--comment=a b 'c' \"d\" $(e) ; f"], ["--comment=a b 'c' \"d\" $(e) ; f"]),
        (["--job-name=über"], ["--job-name=über"]),
        (["--export=ALL"], ["--export=ALL"]),
        (["--export=ALL,A=1,B_2=x=y"], ["--export=ALL,A=1,B_2=x=y"]),
        (["--wrap=a\n\tb"], ["--wrap=a\n\tb"]),
    ],
)
def test_sbatch_gets_its_options_in_one_form(args: list[str], words: list[str]) -> None:
    assert passed("sbatch", *args) == words


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--uid=0"], "--uid: jobs are always your own"),
        (["--uid", "0"], "--uid: jobs are always your own"),
        (["--gid=0"], "--gid: jobs are always your own"),
        (["--ui=0"], "--ui: "),
        (["--u=0"], "--u=0: not an option of sbatch"),
        (["--job=x"], "--job: write the option's whole name, such as --job-name"),
        (["--output-=x"], "--output-: "),
        (["--get-user-env"], "--get-user-env: "),
        (["--export-file=3"], "read a file"),
        (["-F", "/etc/shadow"], "-F: the command would read a file"),
        (["--bbf=/etc/shadow"], "read a file"),
        (["-w", "/etc/shadow"], "--nodelist: takes names of nodes"),
        (["-x./f"], "--exclude: takes names of nodes"),
        (["-W"], "-W: a session's commands do not wait"),
        (["-HW"], "-W: a session's commands do not wait"),
        (["--wait"], "--wait: a session's commands do not wait"),
        (["-M", "all"], "-M: sessions know one cluster"),
        (["--clusters=all"], "--clusters: sessions know one cluster"),
        (["--propagate"], "--propagate"),
        (["--container=/x"], "--container: it is not passed on from a session"),
        (["--hold=1"], "--hold takes no value"),
        (["-n"], "-n needs a value"),
        (["--ntasks"], "--ntasks needs a value"),
        (["-\n"], "-?: "),
        (["--\x1b]0;x=1"], "--?]0;x: "),
        (["--n=1"], "not an option"),
        (["--=1"], "not an option"),
        (["--export=NONE"], "--export: jobs start with a clean environment"),
        (["--export=A=1"], "--export: "),
        (["--export=ALL,A"], "--export: "),
        (["--export=ALL,1=2"], "--export: "),
        (["--export=ALL,SLURM_GET_USER_ENV=1"], "--export: variables of Slurm's own"),
        (["--export=ALL,A=1,SBATCH_UID=0"], "--export: variables of Slurm's own"),
        (["--comment=a\nb"], "--comment: has a character in it that cannot be printed"),
        (["--comment=a\u202eb"], "--comment: has a character in it that cannot be printed"),
        (["--comment=a\0b"], "--comment: "),
        (["--comment=" + "x" * 1025], "--comment: has 1025 characters"),
        (["--wrap=a\rb"], "--wrap: has a character"),
        (["--wrap=" + "x" * 40000], "--wrap: has 40000 characters"),
    ],
)
def test_other_options_of_sbatch_are_refused_by_name(args: list[str], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        passed("sbatch", *args)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("x.out", HOME),
        ("logs/%x-%j.out", HOME),
        ("/home/anna/x", HOME),
        ("/home/anna", HOME),
        ("/home/anna/../anna/x", HOME),
        ("/groups/ocean/x", HOME),
        ("/scratch/anna/x", HOME),
        ("../../x", DEEP),
        ("/dev/null", HOME),
    ],
)
def test_files_of_jobs_are_where_the_person_can_write(path: str, place: options.Place) -> None:
    assert passed("sbatch", "-o", path, place=place) == [f"--output={path}"]


@pytest.mark.parametrize(
    "path",
    ["/etc/x", "../x", "../../etc/x", "/home/ben/x", "/home/annabel/x", "/groups/x", "/scratch/ben/x", "/", "/dev/sda"],
)
@pytest.mark.parametrize("option", ["-o", "-e", "-i", "-D"])
def test_other_files_are_refused(option: str, path: str) -> None:
    with pytest.raises(BadInput, match="is not in your home"):
        passed("sbatch", option, path)


def test_relative_paths_begin_where_chdir_says() -> None:
    assert passed("sbatch", "-o", "../x", "-D", "/home/anna/a") == ["--output=../x", "--chdir=/home/anna/a"]
    assert passed("sbatch", "-D", "..", place=DEEP) == ["--chdir=.."]
    with pytest.raises(BadInput, match="/home/x is not"):
        passed("sbatch", "-o", "../x", "-D", "..", place=options.Place(PERSON, "/home/anna/a"))
    given, _ = options.read("sbatch", ["-o", "../x"])
    moved, _ = options.read("sbatch", ["-D", "/home/anna"])
    with pytest.raises(BadInput):
        options.checked(given, DEEP, [*moved, *given])


@pytest.mark.parametrize(
    ("cwd", "found"),
    [
        ("/home/anna/a/../b", "/home/anna/b"),
        ("/groups/ocean", "/groups/ocean"),
        ("/groups/ocean2", "/home/anna"),
        ("/tmp", "/home/anna"),
        ("", "/home/anna"),
        ("x", "/home/anna"),
        ("/home/anna/\n", "/home/anna"),
    ],
)
def test_somebody_is_where_jobs_can_be(cwd: str, found: str) -> None:
    assert options.place(PERSON, cwd).cwd == found


@pytest.mark.parametrize(
    ("args", "rest", "count"),
    [
        (["job.sh"], ["job.sh"], 0),
        (["-n4", "job.sh", "-n", "--uid=0", "--"], ["job.sh", "-n", "--uid=0", "--"], 1),
        (["--", "-n"], ["-n"], 0),
        (["-"], ["-"], 0),
        ([], [], 0),
    ],
)
def test_options_of_sbatch_end_at_the_script(args: list[str], rest: list[str], count: int) -> None:
    given, found = options.read("sbatch", args)
    assert (found, len(given)) == (rest, count)


@pytest.mark.parametrize(
    ("command", "args", "words"),
    [
        ("squeue", ["-i", "1"], "-i: a session's commands do not wait"),
        ("squeue", ["--iterate=1"], "do not wait"),
        ("squeue", ["-M", "x"], "one cluster"),
        ("sinfo", ["-i1"], "do not wait"),
        ("sinfo", ["--local"], "one cluster"),
        ("sacct", ["-f", "/etc/shadow"], "read a file"),
        ("sacct", ["--file=/etc/shadow"], "read a file"),
        ("sacct", ["-c"], "everybody's jobs or none"),
        ("sacct", ["-L"], "one cluster"),
        ("scancel", ["-i", "5"], "nobody to ask"),
        ("scancel", ["-u", "ben"], "--user: is for anna alone here"),
        ("scancel", ["--user=0"], "--user: is for anna alone here"),
        ("scancel", ["--sibling=x"], "one cluster"),
    ],
)
def test_other_commands_have_their_own_reasons(command: str, args: list[str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        passed(command, *args)


@pytest.mark.parametrize(
    ("command", "args", "words"),
    [
        ("squeue", ["-u", "ben", "-h", "-o", "%i %j"], ["--user=ben", "--noheader", "--format=%i %j"]),
        ("squeue", ["-O", "jobid"], ["--Format=jobid"]),
        ("squeue", ["-j5"], ["--jobs=5"]),
        ("sinfo", ["-N", "-n", "a"], ["--Node", "--nodes=a"]),
        ("scancel", ["-u", "anna", "--jobname=x"], ["--user=anna", "--name=x"]),
        ("scancel", ["-u20001", "-tPD"], ["--user=20001", "--state=PD"]),
        ("sacct", ["-XPno", "jobid"], ["--allocations", "--parsable2", "--noheader", "--format=jobid"]),
    ],
)
def test_other_commands_get_their_options_in_one_form(command: str, args: list[str], words: list[str]) -> None:
    assert passed(command, *args) == words


def test_words_and_options_may_stand_in_any_order() -> None:
    given, rest = options.read("scancel", ["5", "-t", "PD", "6_1", "--", "-7"])
    assert (options.written(given), rest) == (["--state=PD"], ["5", "6_1", "-7"])


# --- arrays


@pytest.mark.parametrize(
    ("array", "count"),
    [
        ("7", 1),
        ("0-15", 16),
        ("0-15:4", 4),
        ("0-16:4", 5),
        ("1,3,7", 3),
        ("1-100%10", 100),
        ("1,5-6%1", 3),
        ("1-2%", 2),
    ],
)
def test_tasks_of_an_array_are_counted(array: str, count: int) -> None:
    assert limits.tasks(array) == count


@pytest.mark.parametrize(
    "array",
    [
        "",
        "0-999,",
        ",0-999",
        "[0-999]",
        "+0-999",
        "0- 999",
        " 0-9",
        "9-0",
        "1-9:0",
        "x",
        "1-2%x",
        "1-2%3%4",
        "0-9:-1",
        "٣",
    ],
)
def test_arrays_in_other_words_are_refused(array: str) -> None:
    """Slurm would understand some of them, and take a thousand for one."""
    with pytest.raises(BadInput, match="--array"):
        limits.tasks(array)


# --- scripts


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("#SBATCH -J x --comment='a b'", ["-J", "x", "--comment=a b"]),
        ("#SBATCH\t-J\t\"a 'b'\" # -n 4", ["-J", "a 'b'"]),
        ("#SBATCH--hold", ["--hold"]),
        ("#SLURM -n 1", ["-n", "1"]),
        ("#SBATCH -J a#b c", ["-J", "a"]),
        ('#SBATCH -J "a#b"', ["-J", "a#b"]),
        ('#SBATCH -J "" -n 1', ["-J"]),
        ('#SBATCH --comment="" -n 1', ["--comment=", "-n", "1"]),
        ('#SBATCH -J a\\"b\\\\', ["-J", 'a"b\\']),
        ('#SBATCH -J \\"x', ["-J", '"x']),
        ("##SBATCH -n 1", []),
        ("# SBATCH -n 1", []),
        (" #SBATCH -n 1", []),
        ("#sbatch -n 1", []),
        ("#PBS -n 1", []),
        ("\n  \n# comment\n#SBATCH -n 1", ["-n", "1"]),
        ("true\n#SBATCH -n 1", []),
        ("\u00a0\n#SBATCH -n 1", []),  # that blank is none to Slurm
        ("#SBATCH -n 1\r", ["-n", "1"]),
        ("#SBATCH -J hetjobs", ["-J", "hetjobs"]),
    ],
)
def test_sbatch_lines_are_read_as_slurm_does(lines: str, words: list[str]) -> None:
    assert script.header(f"#!/bin/sh\n{lines}\n") == words
    assert script.header(f"#!/bin/sh\n{lines}") == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("#SBATCH hetjob", "heterogeneous"),
        ("#SBATCH -n 1 PackJob", "heterogeneous"),
        ("#SBATCH : -n 1", "unexpected `:`"),
        ("#SBATCH -J 'a", "unmatched '"),
        ("#SBATCH -J a\\ b", "a backslash before a blank"),
        ("#SBATCH -J a\\", "a backslash before a blank"),
        ("#SBATCH " + "x" * 9000, "more than 8192 characters"),
        ("#SBATCH " + "x " * 2000, "more than 1024 words"),
    ],
)
def test_lines_that_slurm_could_not_read_in_one_way_are_refused(line: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        script.header(f"#!/bin/sh\n{line}\n")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\n" + "#SBATCH " + "x " * 500_000,
        "#!/bin/sh\n" + "#SBATCH " + "x" * 1_000_000,
        "#!/bin/sh\n" + "\n" * 1_000_000,
        "#!/bin/sh\n" + "#\n" * 500_000,
        "#!/bin/sh\n" + "#SBATCH\n" * 120_000,
        "#!/bin/sh\n" + "#SBATCH '" + "\\'" * 4000 + "\n",
    ],
)
def test_no_script_takes_long_to_read(text: str) -> None:
    # Read in quadratic time, each of these would take minutes.
    with suppress(BadInput):
        assert len(script.header(text)) <= 1024


def test_a_script_of_dasks_workers_is_known_by_its_line() -> None:
    runner = "/var/lib/labstead/compute/bin/in-image"
    assert script.is_dask(f"#!/bin/sh\n\n{runner} --dask 0123456789ab python3 -m distributed.cli\n", runner)
    assert not script.is_dask(f"#!/bin/sh\necho {runner} --dask x\n", runner)
    assert not script.is_dask(f"#!/bin/sh\n{runner} 0123456789ab x\n", runner)
    assert not script.is_dask(f"#!/bin/sh\n{Path('/other/in-image')} --dask x\n", runner)
