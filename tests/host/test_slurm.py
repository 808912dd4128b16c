"""Slurm's commands in a session: jobs of one's own, in the session's own image, and what a job may do there."""

import re
import shlex
from collections.abc import Iterator

import pytest

from support.commands import labstead
from support.kernel import Kernel
from support.lab import Lab
from support.machine import wait_for
from support.person import Person
from support.provision import SETTINGS
from support.slurm import GONE, IMAGES_ROOT, ended, ids, jobs_of, submit, wait_for_jobs

GROUP = "ice-of-slurm"


@pytest.fixture(scope="module")
def lab(slurm: Lab) -> Lab:
    return slurm


@pytest.fixture(scope="module")
def admin(lab: Lab) -> Person:
    return lab.admin()


@pytest.fixture(scope="module")
def rike(lab: Lab, admin: Person) -> Iterator[Person]:
    """Give somebody with a session and a group."""
    person = lab.join("rike", admin)
    labstead(lab, "group", "add", GROUP, "--members", person.name)
    yield person.start()
    person.stop()
    labstead(lab, "group", "remove", GROUP, "--delete-files", "--yes")


@pytest.fixture(scope="module")
def kernel(rike: Person) -> Kernel:
    return rike.kernel()


@pytest.fixture(scope="module")
def other(lab: Lab, admin: Person) -> Iterator[Kernel]:
    """Give somebody else's kernel."""
    person = lab.join("olaf", admin).start()
    yield person.kernel()
    person.stop()


def _result(lab: Lab, kernel: Kernel, script: str, *options: str) -> str:
    """Submit a script from a session, wait until it has ended well, and give what it printed."""
    number = submit(kernel, f"#!/bin/sh\n{script}\n", "--output=result-%j.out", *options)
    found = ended(lab, number)
    printed = kernel.out(f"cat result-{number}.out")
    assert found["JobState"] == "COMPLETED", f"{found}\n{printed}"
    return printed


# --- the commands


def test_there_is_no_slurm_in_the_image(lab: Lab, kernel: Kernel) -> None:
    image = lab.machine.out("docker", "image", "ls", "--quiet", "--filter=reference=labstead/*").split()[0]
    inside = "command -v sbatch munge || find / -xdev -name 'libslurm*' -o -xdev -name 'munge*.key'"
    found = lab.machine.run("docker", "run", "--rm", "--entrypoint=sh", image, "-c", inside, check=False)
    assert found.stdout == ""
    assert kernel.sh("ls /etc/munge /run/munge", check=False).stdout == ""
    version = lab.machine.out("sinfo", "--version")
    assert kernel.out("sinfo --version") == version


def test_a_script_runs_as_its_owner_where_it_was_submitted(lab: Lab, rike: Person, kernel: Kernel) -> None:
    script = (
        '#!/bin/sh\n#SBATCH --job-name=first\nid -u; pwd; umask; echo "words: $*"; echo to stderr >&2; touch made\n'
    )
    kernel.run(
        f"import os, pathlib\nos.makedirs('here', exist_ok=True)\npathlib.Path('here/a b.sh').write_text({script!r})"
    )
    said = kernel.out("cd here && sbatch 'a b.sh' one 'two  words'")
    number = re.fullmatch(r"Submitted batch job (\d+)", said)
    assert number, said
    found = ended(lab, number[1])
    uid = lab.machine.out("id", "-u", rike.name)
    assert found["JobState"] == "COMPLETED"
    assert found["UserId"] == f"{rike.name}({uid})"
    assert found["Name"] == "first"
    home = f"/home/{rike.name}"
    assert lab.machine.out("cat", f"{home}/here/slurm-{number[1]}.out").splitlines() == [
        *(uid, f"{home}/here", "0002", "words: one two  words", "to stderr"),
    ]
    assert lab.machine.out("stat", "--format=%U:%G %a", f"{home}/here/made") == f"{rike.name}:{rike.name} 664"


def test_words_and_exit_codes_come_as_slurm_gives_them(lab: Lab, kernel: Kernel) -> None:
    good = kernel.sh("sbatch --test-only --wrap true", check=False)
    assert good.returncode == 0
    assert "to start at" in good.stderr
    bad = kernel.sh("sbatch --partition=nowhere --wrap true", check=False)
    own = lab.machine.run("sbatch", "--partition=nowhere", "--wrap=true", check=False)
    assert own.returncode != 0
    assert (bad.returncode, bad.stdout, bad.stderr) == (own.returncode, own.stdout, own.stderr)
    assert kernel.sh("sbatch nothing-here.sh", check=False).returncode not in (0, 75)
    assert kernel.sh("scancel 999999", check=False).stderr == lab.machine.run("scancel", "999999", check=False).stderr


def test_ones_own_job_is_seen_and_cancelled_and_nobody_elses(
    lab: Lab, rike: Person, kernel: Kernel, other: Kernel
) -> None:
    number = kernel.out("sbatch --parsable --job-name='mine; $(id) #' --wrap 'sleep 600'")
    assert kernel.out("squeue --noheader --format='%i %j'") == f"{number} mine; $(id) #"
    assert number not in other.out("squeue --noheader --format=%i").split()
    refused = other.sh(f"scancel {number}", check=False)
    assert refused.returncode != 0
    assert "permission denied" in refused.stderr.lower()
    assert number in ids(jobs_of(lab, rike.name))
    kernel.sh(f"scancel {number}")
    wait_for_jobs(lab, rike.name, set())
    assert ended(lab, number)["JobState"] == "CANCELLED"


def test_sacct_tells_of_ones_own_jobs_alone(lab: Lab, rike: Person, kernel: Kernel, other: Kernel) -> None:
    good, bad = (submit(kernel, f"#!/bin/sh\n{script}\n") for script in ("true", "exit 3"))
    assert ended(lab, good)["JobState"] == "COMPLETED"
    assert ended(lab, bad)["JobState"] == "FAILED"
    listing = "sacct --noheader --parsable2 --allocations --format=JobID,User,State"
    told = kernel.out(listing).splitlines()
    assert {f"{good}|{rike.name}|COMPLETED", f"{bad}|{rike.name}|FAILED"} <= set(told)
    assert {line.split("|")[1] for line in told} == {rike.name}
    theirs = other.sh(f"{listing} --jobs={good}", check=False)
    assert rike.name not in theirs.stdout + theirs.stderr


def test_a_user_has_no_more_jobs_than_the_inventory_says(lab: Lab, rike: Person, kernel: Kernel) -> None:
    most = SETTINGS["slurm_jobs_per_user"]
    try:
        for _ in range(most):
            submit(kernel, "#!/bin/sh\ntrue\n", "--hold")
        one_more = kernel.sh("sbatch --hold --wrap true", check=False)
        assert one_more.returncode != 0
        assert str(most) in one_more.stderr
        assert len(one_more.stderr.splitlines()) == 1
        assert len(jobs_of(lab, rike.name)) == most
    finally:
        kernel.sh(f"scancel --user={rike.name}")
    wait_for_jobs(lab, rike.name, set())


# --- the session's image in a job


_INSIDE = """
import grp, json, os, pathlib, sys
import dask, distributed
folder = pathlib.Path(os.environ["GROUP_FOLDERS"])
(folder / sys.argv[1]).touch()
print(json.dumps({
    "python": sys.version, "prefix": sys.prefix, "dask": dask.__version__, "distributed": distributed.__version__,
    "home": os.environ["HOME"], "user": os.environ["USER"], "scratch": os.environ["SCRATCH"],
    "data": os.environ["DATA"], "umask": os.umask(2),
    "scratch is": os.access(os.environ["SCRATCH"], os.W_OK), "release": pathlib.Path("/etc/os-release").read_text(),
    "data is": sorted(os.listdir("/data")), "mine": __import__("rikesown").answer,
}))
"""


def test_a_plain_job_has_what_the_session_has(lab: Lab, kernel: Kernel) -> None:
    """The same Python and packages, with her own of `pip install --user`, her home, groups, scratch and data."""
    lab.machine.sh("echo 42 >/data/answer")
    kernel.run(f"""
import pathlib, site
own = pathlib.Path(site.getusersitepackages())
own.mkdir(parents=True, exist_ok=True)
(own / "rikesown.py").write_text("answer = 4711")
pathlib.Path("inside.py").write_text({_INSIDE!r})
""")
    number = kernel.out("sbatch --parsable --output=inside.out --wrap 'in-session python3 inside.py from-a-job'")
    found = ended(lab, number)
    in_job = kernel.out("cat inside.out")
    assert found["JobState"] == "COMPLETED", in_job
    in_session = kernel.out("python3 inside.py from-a-session")
    assert in_job == in_session
    assert '"mine": 4711' in in_session
    assert '"answer"' in in_session
    owners = lab.machine.out("stat", "--format=%G %a", *(f"/groups/{GROUP}/from-a-{one}" for one in ("job", "session")))
    assert owners.splitlines() == [f"{GROUP} 660"] * 2


def test_a_job_in_an_image_that_is_not_there_says_so(lab: Lab, kernel: Kernel) -> None:
    number = kernel.out("sbatch --parsable --output=away.out --wrap 'in-image 0123456789ab true'")
    assert ended(lab, number)["JobState"] == "FAILED"
    told = kernel.out("cat away.out")
    assert "0123456789ab" in told
    assert len(told.splitlines()) == 1


# --- what a job may do on the machine


_CONNECT = "/usr/bin/python3 -c \"import socket; socket.socket(1).connect('{}')\""
OUT_OF_REACH = {
    "Docker": _CONNECT.format("/run/docker.sock"),
    "the gate": _CONNECT.format("/run/labstead/gate.sock"),
    "the machine's service managers": "ls /run/dbus/* || ls /run/user/*",
    "secrets": "ls /etc/labstead/secrets/*",
    "the hub's database": "ls /var/lib/labstead/hub/*",
    "Slurm's key": "cat /etc/munge/munge.key",
    "what others had run": "cat /var/log/slurm/completed/jobs",
    "root": "sudo -n true || su -c true root </dev/null || unshare --mount true",
    "the system's files": "touch /usr/bin/mine || touch /etc/mine || touch /opt/labstead/mine",
    "everybody's images": f"cd {IMAGES_ROOT}; touch mine || touch images/mine || touch bin/mine",
    "everybody's data": "touch /data/open-to-all/mine",
}
"""Things on the machine that a job must not do: commands of a shell."""


@pytest.mark.parametrize("what", OUT_OF_REACH)
def test_a_job_has_no_way_to(lab: Lab, kernel: Kernel, what: str) -> None:
    lab.machine.sh("mkdir -p /data/open-to-all; chmod 1777 /data/open-to-all")
    attempt = f"if {{ {OUT_OF_REACH[what]}; }} >/dev/null 2>&1; then echo done; else echo refused; fi"
    assert _result(lab, kernel, attempt) == "refused"


def test_a_job_leaves_nothing_in_the_machines_tmp(lab: Lab, kernel: Kernel) -> None:
    name = "left-by-a-job"
    assert (
        _result(lab, kernel, f"touch /tmp/{name} /var/tmp/{name} /dev/shm/{name} && ls /tmp/{name}") == f"/tmp/{name}"
    )
    assert lab.machine.sh(f"ls /tmp/{name} /var/tmp/{name} /dev/shm/{name}", check=False).stdout == ""


def test_no_more_cores_and_memory_than_the_inventory_gives(lab: Lab, kernel: Kernel) -> None:
    cpus, memory = SETTINGS["slurm_cpus"], 3 * 2**30
    refused = kernel.sh(f"sbatch --cpus-per-task={cpus + 1} --wrap true", check=False)
    assert refused.returncode != 0
    refused = kernel.sh("sbatch --mem=3100M --wrap true", check=False)
    assert refused.returncode != 0
    shown = lab.machine.out("systemctl", "show", "--property=CPUQuotaPerSecUSec,MemoryMax", "slurmd")
    limits = dict(line.split("=", 1) for line in shown.splitlines())
    assert limits["CPUQuotaPerSecUSec"] == f"{cpus}s"
    assert memory <= int(limits["MemoryMax"]) < 1.2 * memory


def test_jobs_outlive_restarts_of_slurm(lab: Lab, rike: Person, kernel: Kernel) -> None:
    number = kernel.out(
        "sbatch --parsable --output=lives.out --wrap 'echo $$; until [ -e go-on ]; do sleep 0.2; done; echo $$'"
    )
    first = wait_for("the job's first line", lambda: kernel.sh("cat lives.out", check=False).stdout, GONE)
    lab.machine.run("systemctl", "restart", "slurmd", "slurmctld", "munge")
    wait_for("Slurm", lambda: number in ids(jobs_of(lab, rike.name)), GONE)
    kernel.sh("touch go-on")
    assert ended(lab, number)["JobState"] == "COMPLETED"
    assert kernel.out("cat lives.out").splitlines() == [first.strip()] * 2
    assert shlex.split(kernel.out("sinfo --noheader --format=%t")) != ["down"]
