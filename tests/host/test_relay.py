"""The relay under attack: whoever asks gets no more than they are, and the service stays up for everybody else.

The rule: what a request did is looked at on the host (queue, files, journal), not in the relay's answer alone.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from support.commands import labstead
from support.kernel import Kernel
from support.lab import Lab
from support.machine import wait_for
from support.person import Person
from support.provision import SETTINGS
from support.slurm import (
    GONE,
    READ,
    RELAY,
    SOCKET,
    Step,
    ask,
    cancel_all,
    ended,
    ids,
    jobs_of,
    journal,
    mark,
    request,
    stall,
    storm,
    submit,
    talk,
    talk_as_root_in_a_container,
    talk_as_root_of_a_namespace,
    wait_for_jobs,
)

_T = TypeVar("_T")

HELD = ("--hold", "--wrap=true")
JOBS_OF = '{{"version":1,"op":"jobs","user":"{name}"}}\n'
END_OF = '{{"version":1,"op":"end","user":"{name}","what":"all"}}\n'
REFUSAL = re.compile(r"(sbatch|slurm): labstead: .+\n")
MIB = 2**20
KNOWN = 30
"""Seconds after which the relay knows of a lock; it may remember for some that somebody was good."""


@pytest.fixture(scope="module")
def lab(slurm: Lab) -> Lab:
    return slurm


@pytest.fixture(scope="module")
def admin(lab: Lab) -> Person:
    return lab.admin()


@pytest.fixture(scope="module")
def eve(lab: Lab, admin: Person) -> Iterator[str]:
    """Give the name of somebody who attacks, from a program of their own."""
    person = lab.join("eve", admin)
    yield person.name
    cancel_all(lab, person.name)


@pytest.fixture(scope="module")
def tom(lab: Lab, admin: Person) -> Iterator[Person]:
    """Give somebody with a session, who only wants to work."""
    person = lab.join("tom", admin).start()
    yield person
    person.stop()
    cancel_all(lab, person.name)


@pytest.fixture(scope="module")
def kernel(tom: Person) -> Kernel:
    return tom.kernel()


@pytest.fixture(scope="module", autouse=True)
def stays_up(lab: Lab) -> Iterator[None]:
    """Check after all attacks that it is the same process that answers."""
    assert talk(lab, "root", ("send", JOBS_OF.format(name="nobody")), READ).reply, "it does not answer"
    before = lab.machine.invocations([RELAY])
    yield
    assert lab.machine.invocations([RELAY]) == before
    assert "ActiveState=active" in before[RELAY]


def _uid(lab: Lab, name: str) -> str:
    return lab.machine.out("id", "-u", name)


# --- who may ask


def test_somebody_of_the_hub_is_heard_as_themselves(lab: Lab, eve: str) -> None:
    """Else the refusals below would say nothing."""
    said = ask(lab, eve, "sbatch", "--parsable", *HELD)
    assert said.exit == 0, said
    (job,) = jobs_of(lab, eve)
    assert (job.id, str(job.uid)) == (said.words.strip(), _uid(lab, eve))
    assert ask(lab, eve, "scancel", job.id).exit == 0
    wait_for_jobs(lab, eve, set())


@pytest.fixture
def stranger(lab: Lab) -> Iterator[str]:
    """Give somebody of the machine, who is not of the hub."""
    lab.machine.run("useradd", "--uid=1777", "--no-create-home", "stranger")
    yield "stranger"
    lab.machine.run("userdel", "stranger")


def test_who_is_not_of_the_hub_is_refused(lab: Lab, stranger: str) -> None:
    for name in (stranger, "nobody", "daemon", "labstead-gate"):
        said = ask(lab, name, "sbatch", *HELD)
        assert said.exit == 2, (name, said)
        assert REFUSAL.fullmatch(said.words), (name, said)
    for name in ("root", "labstead"):
        assert ask(lab, name, "sbatch", *HELD).reply.keys() == {"error"}
    assert {job.uid for name in (stranger, "nobody", "root", "labstead") for job in jobs_of(lab, name)} == set()


def test_a_uid_without_a_name_is_refused(lab: Lab) -> None:
    code = "import os, socket, sys; os.setgid(64000); os.setuid(64000); c = socket.socket(1); c.connect(sys.argv[1])\n"
    code += "c.sendall(sys.argv[2].encode()); print(c.makefile().read())"
    said = lab.machine.run("python3", "-c", code, SOCKET, request("sbatch", *HELD)).stdout
    assert '"exit":2' in said.replace(" ", "")
    assert jobs_of(lab, "64000") == []


def test_root_of_a_container_is_refused(lab: Lab) -> None:
    said = talk_as_root_in_a_container(lab, ("send", request("sbatch", *HELD)), READ)
    assert said.reply.keys() == {"error"}, said
    assert jobs_of(lab, "root") == []


def test_root_of_ones_own_namespace_is_still_oneself(lab: Lab, eve: str) -> None:
    said = talk_as_root_of_a_namespace(lab, eve, ("send", request("sbatch", *HELD)), READ)
    assert said.exit == 0, said
    assert {str(job.uid) for job in jobs_of(lab, eve)} == {_uid(lab, eve)}
    assert jobs_of(lab, "root") == []
    cancel_all(lab, eve)


@pytest.mark.parametrize("field", ["user", "uid", "name", "env"])
def test_a_request_cannot_name_somebody(lab: Lab, eve: str, tom: Person, field: str) -> None:
    line = request("sbatch", *HELD, **{field: tom.name})
    said = talk(lab, eve, ("send", line), READ)
    assert said.exit != 0, said
    assert jobs_of(lab, eve) == jobs_of(lab, tom.name) == []


@pytest.mark.parametrize("line", [JOBS_OF, END_OF], ids=["jobs", "end"])
def test_what_the_hub_may_ask_nobody_else_may(lab: Lab, eve: str, tom: Person, kernel: Kernel, line: str) -> None:
    number = submit(kernel, "#!/bin/sh\ntrue\n", "--hold")
    ask_it = ("send", line.format(name=tom.name)), READ
    assert talk(lab, eve, *ask_it).exit == 2
    assert ids(jobs_of(lab, tom.name)) == {number}
    said = talk(lab, "labstead", *ask_it).reply
    assert "error" not in said, f"the hub is refused as well: {said}"
    assert set(said.values()) <= {0, 1}
    cancel_all(lab, tom.name)


@pytest.fixture
def leaver(lab: Lab, admin: Person) -> Person:
    """Give somebody whose account is about to close."""
    return lab.join("leo", admin)


@pytest.mark.parametrize("how", ["lock", "expire"])
def test_a_closed_account_is_refused_and_its_jobs_end(lab: Lab, leaver: Person, how: str) -> None:
    name = leaver.name
    assert ask(lab, name, "sbatch", *HELD).exit == 0
    assert ids(jobs_of(lab, name))
    labstead(lab, "user", how, name, *((lab.machine.out("date", "+%F"),) if how == "expire" else ()))
    wait_for_jobs(lab, name, set())

    def is_refused() -> bool:
        said = ask(lab, name, "sbatch", *HELD)
        assert said.exit == 2, said
        return True

    wait_for(f"refusal of {name}", is_refused, KNOWN)
    cancel_all(lab, name)  # what came in while the relay did not know
    assert is_refused()
    assert jobs_of(lab, name) == []


def test_somebody_who_was_removed_leaves_no_job(lab: Lab, leaver: Person) -> None:
    name, uid = leaver.name, _uid(lab, leaver.name)
    assert ask(lab, name, "sbatch", *HELD).exit == 0
    labstead(lab, "user", "remove", name, "--delete-files", "--yes")
    wait_for("the end of their jobs", lambda: not lab.machine.out("squeue", "--noheader", f"--user={uid}"), GONE)


# --- what may be asked for

PLACE = "/root/of-a-job"

REFUSED = {
    "uid": (("--uid=0",), ""),
    "uid in two words": (("--uid", "root"), ""),
    "uid cut short": (("--ui=0",), ""),
    "gid": (("--gid=0",), ""),
    "uid in the script": ((), "#SBATCH --uid=0"),
    "uid in the script, cut short": ((), "#SBATCH --ui=0"),
    "uid in the script, for Slurm": ((), "#SLURM --uid=0"),
    "uid in the script, in quotes": ((), "#SBATCH '--uid=0'"),
    "folder": (("--chdir=/root",), ""),
    "folder, short": (("-D/etc",), ""),
    "folder by its parents": (("--chdir=/home/NAME/../../root",), ""),
    "folder in the script": ((), "#SBATCH -D /root"),
    "output": ((f"--output={PLACE}",), ""),
    "output, short": ((f"-o{PLACE}",), ""),
    "error of somebody else": (("--error=/home/OTHER/theirs",), ""),
    "output by a pattern": (("--output=/home/%u/../OTHER/theirs",), ""),
    "input": (("--input=/etc/shadow",), ""),
    "another cluster": (("--clusters=elsewhere",), ""),
    "waiting": (("--wait",), ""),
    "login environment": (("--get-user-env",), ""),
    "a file of variables": (("--export-file=/etc/shadow",), ""),
    "more jobs than allowed": (("--array=0-999",), ""),
    "more jobs than allowed, in brackets": (("--array=[0-999]",), ""),
    "more jobs than allowed, and a comma": (("--array=0-999,",), ""),
    "more jobs than allowed, in the script": ((), "#SBATCH -a0-999"),
    "a newline": (("--job-name=a\nb",), ""),
    "a zero": (("--job-name=a\0b",), ""),
    "half a letter": (("--job-name=a\ud800b",), ""),
    "an escape": (("--job-name=\x1b[2J",), ""),
    "a long word": ((f"--job-name={'x' * 5000}",), ""),
    "what there is not": (("--no-such-option",), ""),
    "a wrapped job and words": (("--wrap=true", "--uid=0"), ""),
}
"""Options beside those of a held job, and a line of its script; NAME is who asks, OTHER somebody else."""


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_line(lab: Lab, eve: str, tom: Person, case: str) -> None:
    options, line = REFUSED[case]

    def filled(text: str) -> str:
        return text.replace("NAME", eve).replace("OTHER", tom.name)

    script = f"#!/bin/sh\n{filled(line)}\ntrue\n"
    said = ask(lab, eve, "sbatch", "--hold", *map(filled, options), script=script)
    assert said.exit == 2, said
    assert REFUSAL.fullmatch(said.words), said
    assert said.words[:-1].isprintable()
    assert jobs_of(lab, eve) == []


@pytest.mark.parametrize(
    "name", ["$(touch PLACE)", "; touch PLACE #", "`touch PLACE`", "' || touch PLACE '", "--uid=0", "%u %j ${HOME}"]
)
def test_what_a_shell_would_read_is_a_name_like_any_other(lab: Lab, eve: str, name: str) -> None:
    name = name.replace("PLACE", "/var/tmp/of-a-name")
    said = ask(lab, eve, "sbatch", "--parsable", f"--job-name={name}", *HELD)
    assert said.exit == 0, said
    (job,) = jobs_of(lab, eve)
    assert job.name == name
    assert job.comment == "(null)"
    cancel_all(lab, eve)
    assert lab.machine.run("ls", "/var/tmp/of-a-name", check=False).stdout == ""


def test_a_link_out_of_the_home_leads_no_further_than_ones_rights(lab: Lab, eve: str) -> None:
    """The relay cannot know where a name will lead when the job runs; Slurm opens it as the person."""
    folder = f"/home/{eve}/out"
    lab.machine.python("import os, sys; os.symlink('/root', sys.argv[1])", folder, user=eve)
    said = ask(lab, eve, "sbatch", "--parsable", f"--output={folder}/of-a-job", "--wrap=id")
    if said.exit == 0:
        assert ended(lab, said.words.strip())["JobState"] != "COMPLETED"
    assert lab.machine.run("ls", PLACE, check=False).stdout == ""


# --- too much at a time


def test_a_line_of_a_hundred_megabytes_is_not_read(lab: Lab, eve: str) -> None:
    said = talk(lab, eve, ("flood", 100 * MIB), READ)
    assert said.sent < MIB, "it went on reading"
    assert said.exit in (2, None), said


def test_a_script_of_a_hundred_megabytes_is_not_read(lab: Lab, eve: str, tom: Person, kernel: Kernel) -> None:
    line: Step = ("send", request("sbatch", "--hold"))
    for size in (100 * MIB, MIB + 1):
        said = talk(lab, eve, line, ("line", None), ("send", f'{{"script":{size}}}\n'), ("flood", size), READ)
        assert '"need"' in said.received
        assert said.sent < 2 * MIB, "it went on reading"
        assert said.exit == 2, said
    kernel.run("open('big.sh', 'w').write('#!/bin/sh\\n')\nimport os\nos.truncate('big.sh', 100 * 2**20)")
    refused = kernel.sh("sbatch --hold big.sh", check=False)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert jobs_of(lab, eve) == jobs_of(lab, tom.name) == []


def test_more_than_was_announced_is_not_taken(lab: Lab, eve: str) -> None:
    script = "#!/bin/sh\ntrue\n"
    line: Step = ("send", request("sbatch", "--hold", "--parsable"))
    announced: Step = ("send", f'{{"script":{len(script)}}}\n{script}')
    said = talk(lab, eve, line, ("line", None), announced, ("send", "#SBATCH --uid=0\n"), READ)
    assert said.exit in (0, 2), said
    assert len(jobs_of(lab, eve)) == (said.exit == 0)
    cancel_all(lab, eve)
    said = talk(lab, eve, line, ("line", None), ("send", '{"script":-1}\n'), READ)
    assert said.exit in (2, None), said
    assert jobs_of(lab, eve) == []


def test_a_client_that_stops_half_way_is_given_up(lab: Lab, eve: str) -> None:
    script: Step = ("send", '{"script":100}\n#!/bin/sh')
    whole: Step = ("send", request("sbatch", "--hold"))
    for steps in ((("send", request("sbatch", "--hold")[:20]),), (whole,), (whole, ("line", None), script)):
        for last in ((), (("end", None), READ)):
            said = talk(lab, eve, *steps, *last)
            assert said.exit in (2, None), said
    assert jobs_of(lab, eve) == []


def _works_meanwhile(kernel: Kernel, attack: Callable[[], _T]) -> _T:
    """Check that somebody else's commands answer while an attack is under way, and give what came of that."""
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(attack)
        answers = 0
        while not running.done():
            done = kernel.sh("sinfo --noheader", check=False)
            assert done.returncode == 0, done.stderr
            answers += not running.done()
        assert answers, "the attack was over before anybody else could ask"
        return running.result()


def test_callers_who_say_nothing_keep_nobody_out(lab: Lab, eve: str, kernel: Kernel) -> None:
    beginning = request("sbatch", "--hold")[:20]
    ends = _works_meanwhile(kernel, lambda: stall(lab, eve, beginning, 4))
    assert set(ends) <= {"closed", "ConnectionResetError"}, "the relay waits for ever"


def test_a_thousand_calls_keep_nobody_out(lab: Lab, eve: str, kernel: Kernel) -> None:
    came = _works_meanwhile(kernel, lambda: storm(lab, eve, request("squeue"), 1000))
    assert came.keys() == {"0", "75"}, came
    wait_for("an answer after all that", lambda: ask(lab, eve, "squeue").exit == 0, KNOWN)


def test_the_journal_tells_who_did_what_and_no_more_than_that(lab: Lab, leaver: Person) -> None:
    name, since = leaver.name, mark(lab)
    assert ask(lab, name, "sbatch", "--job-name=first", *HELD).exit == 0
    (number,) = ids(jobs_of(lab, name))
    assert ask(lab, name, "scancel", number).exit == 0
    came = storm(lab, name, request("sbatch", "--uid=0", "--job-name=a\x1b[2J\nb"), 200)
    assert came.keys() <= {"2", "75"}, came
    lines = [line for line in journal(lab, since) if name in line or _uid(lab, name) in line]
    for words in (("sbatch", "first", number), ("scancel", number), ("refused", "--uid")):
        assert any(all(word in line for word in words) for line in lines), (words, lines)
    assert len(lines) < 40
    assert all(line.isprintable() and len(line) < 1000 for line in lines)


_MANY = """
import collections, json, subprocess
from concurrent.futures import ThreadPoolExecutor
def submit(_):
    done = subprocess.run(["sbatch", "--hold", "--wrap", "true"], capture_output=True, text=True)
    return "made" if done.returncode == 0 else f"{done.returncode}, {done.stderr.count(chr(10))} line"
with ThreadPoolExecutor(8) as pool:
    print(json.dumps(collections.Counter(pool.map(submit, range(30)))))
"""


def test_submissions_side_by_side_do_not_pass_the_limit(lab: Lab, tom: Person, kernel: Kernel) -> None:
    """A client whom the relay finds too quick tries again by itself, as `cluster.scale(30)` has to get through."""
    most = SETTINGS["slurm_jobs_per_user"]
    came = json.loads(kernel.run(_MANY, 240))
    assert came.pop("made") == most == len(jobs_of(lab, tom.name)), came
    assert came.keys() == {"2, 1 line"} or came.keys() == {"1, 1 line"}, came
    cancel_all(lab, tom.name)
