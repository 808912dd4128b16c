"""Dask on Slurm: how long a worker takes, who may come near it, and that nothing stays when its notebook is gone.

The rule: that a job is there or gone is asked of Slurm; a worker's time is measured and shown, not asserted.
"""

import json
import statistics
from collections.abc import Iterator
from contextlib import suppress

import pytest

from support.commands import labstead
from support.dask import OPEN, UP, close_cluster, jobs_of_workers, on_workers, open_cluster
from support.kernel import CodeFailed, Kernel, KernelDied
from support.lab import Lab
from support.machine import kept, wait_for
from support.person import Person
from support.provision import SETTINGS
from support.slurm import DASK, GONE, cancel_all, ids, jobs_of, stand_in, submit, wait_for_jobs

PAIRS = 5
KEYS = ".local/share/labstead/dask"
SLEEPS = "#!/bin/sh\nsleep 600\n"


@pytest.fixture(scope="module")
def lab(slurm: Lab) -> Lab:
    return slurm


@pytest.fixture(scope="module")
def admin(lab: Lab) -> Person:
    return lab.admin()


@pytest.fixture(scope="module")
def dora(lab: Lab, admin: Person) -> Iterator[Person]:
    """Give somebody with a session."""
    person = lab.join("dora", admin).start()
    yield person
    if person.server():
        person.stop()
    cancel_all(lab, person.name)


@pytest.fixture
def kernel(dora: Person) -> Iterator[Kernel]:
    """Give a kernel that has done nothing yet, and end what it has left of clusters."""
    kernel = dora.kernel()
    yield kernel
    if dora.server():
        with suppress(AssertionError):  # a session of later than the kernel
            kernel.shut_down()


# --- a worker


def test_a_worker_is_a_job_of_its_owner_with_what_the_inventory_gives(lab: Lab, dora: Person, kernel: Kernel) -> None:
    open_cluster(kernel, 1)
    (job,) = jobs_of(lab, dora.name)
    uid = int(lab.machine.out("id", "-u", dora.name))
    assert (job.uid, job.comment, job.state) == (uid, DASK, "RUNNING")
    assert jobs_of_workers(kernel) == {job.id}
    code = "[__import__('os').getuid(), __import__('os').getcwd(), __import__('sys').version]"
    assert on_workers(kernel, code) == [[uid, f"/home/{dora.name}", kernel.value("__import__('sys').version")]]
    shown = lab.machine.out("squeue", "--noheader", f"--jobs={job.id}", "--format=%C %m %l")
    assert shown.split() == ["1", SETTINGS["slurm_worker_memory"], SETTINGS["slurm_worker_time"]]
    assert kernel.value("list(cluster.scheduler_info['workers'].values())[0]['memory_limit']") <= 2**30
    close_cluster(kernel)
    wait_for_jobs(lab, dora.name, set())


def test_adapt_brings_workers_and_takes_them_away(lab: Lab, dora: Person, kernel: Kernel) -> None:
    open_cluster(kernel)
    kernel.run("cluster.adapt(minimum=0, maximum=2, interval='500ms', wait_count=2)")
    assert kernel.run("print(client.submit(lambda a, b: a * b, 6, 7).result(timeout=110))", UP).split()[-1] == "42"
    wait_for_jobs(lab, dora.name, set())
    close_cluster(kernel)


def test_more_clusters_than_allowed_are_refused_with_a_line(kernel: Kernel) -> None:
    most = SETTINGS["slurm_clusters_per_user"]
    kernel.run(f"from dask_jobqueue import SLURMCluster\nclusters = [SLURMCluster() for _ in range({most})]", UP)
    with pytest.raises(CodeFailed) as failed:
        kernel.run("one_more = SLURMCluster()", UP)
    told = str(failed.value)
    assert any("labstead" in line and str(most) in line for line in told.splitlines()), told
    # The others go on, and there is room again once one is closed.
    kernel.run("clusters.pop().close()\nclusters.append(SLURMCluster())", UP)
    kernel.run("for cluster in clusters:\n    cluster.close()", UP)


def test_an_image_that_workers_do_not_have_is_told_before_anything_is_submitted(
    lab: Lab, dora: Person, kernel: Kernel
) -> None:
    digest = kernel.out("echo $LABSTEAD_IMAGE")
    file = f"{SETTINGS['slurm_images_root']}/images/{digest}.json"
    with kept(lab.machine, file):
        known = json.loads(lab.machine.out("cat", file))
        lab.machine.sh('cat >"$1"', file, stdin=json.dumps({**known, "distributed": "2001.1.0"}))
        with pytest.raises(CodeFailed, match=r"2001\.1\.0"):
            kernel.run(OPEN, UP)
    assert jobs_of(lab, dora.name) == []


_KNOCK = """
import json, socket, ssl, sys
address, port, folder, keys = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
if keys:
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
with socket.create_connection((address, int(port)), timeout=10) as plain:
    try:
        with context.wrap_socket(plain) as connection:
            print("greeted" if connection.recv(8) else "closed")
    except OSError as error:
        print(getattr(error, "reason", None) or type(error).__name__)
"""


def test_nobody_without_the_sessions_certificate_speaks_to_its_scheduler(
    lab: Lab, admin: Person, dora: Person, kernel: Kernel
) -> None:
    """Jobs of other people reach the port: they run on the same machine."""
    open_cluster(kernel)
    other = lab.join("otto", admin).start()
    open_cluster(other.kernel())
    address, port = kernel.value("cluster.scheduler_address").removeprefix("tls://").rsplit(":", 1)

    def knock(name: str, keys: str) -> str:
        return lab.machine.python(_KNOCK, address, port, f"/home/{name}/{KEYS}", keys).stdout.strip()

    assert knock(dora.name, "yes") == "greeted"
    assert knock(dora.name, "") != "greeted"
    assert knock(other.name, "yes") != "greeted"
    home = f"/home/{dora.name}/{KEYS}"
    assert lab.machine.out("stat", "--format=%U %a", home, f"{home}/key.pem").splitlines() == [
        *(f"{dora.name} 700", f"{dora.name} 600"),
    ]
    other.stop()
    close_cluster(kernel)


_BY_DASK = """
import time
begin = time.monotonic()
cluster.scale(1)
client.wait_for_workers(1, timeout=110)
took = time.monotonic() - begin
open("worker.sh", "w").write(cluster.job_script())
cluster.scale(0)
while client.scheduler_info()["workers"]:
    time.sleep(0.1)
print(took)
"""
_COMES = f"""
client.wait_for_workers(1, timeout={UP})
print(time.time())
"""
_BY_HAND = """
import subprocess, sys, time
begin = time.time()
subprocess.run(["sbatch", "--chdir=" + sys.argv[1], sys.argv[2]], check=True, stdout=subprocess.DEVNULL)
print(begin)
"""


def test_how_long_a_worker_takes_beside_sbatch_by_hand(
    lab: Lab, dora: Person, kernel: Kernel, measured: list[str]
) -> None:
    """The same job script both times, in turns; by hand on the host, with neither Dask nor the relay in between.

    Each pair has a cluster of its own: Dask gives names of workers again, and takes a new one for the lost one of
    fifteen seconds ago.
    """
    home, pairs = f"/home/{dora.name}", []
    for _ in range(PAIRS):
        open_cluster(kernel)
        by_dask = float(kernel.run(_BY_DASK, UP).split()[-1])
        wait_for_jobs(lab, dora.name, set())
        begin = float(lab.machine.python(_BY_HAND, home, f"{home}/worker.sh", user=dora.name).stdout)
        by_hand = float(kernel.run(_COMES, UP + 20).split()[-1]) - begin
        close_cluster(kernel)
        cancel_all(lab, dora.name)
        pairs.append((by_dask, by_hand))
    ratio = statistics.median(dask / hand for dask, hand in pairs)
    dask, hand = (statistics.median(column) for column in zip(*pairs, strict=True))
    measured.append(
        f"scale(1) to a working worker on Debian 12: {dask:.1f} s, sbatch by hand {hand:.1f} s; "
        f"median ratio of {PAIRS} pairs {ratio:.2f} (goal: below 1.3)"
    )


# --- cleaning up


def test_the_end_of_a_session_ends_its_dask_jobs_and_no_others(lab: Lab, dora: Person, kernel: Kernel) -> None:
    """One of them waits: it would come to nobody."""
    open_cluster(kernel, 1)
    waiting, plain = stand_in(kernel), submit(kernel, SLEEPS)
    assert {job.id for job in jobs_of(lab, dora.name) if job.comment == DASK} > {waiting}
    dora.stop()
    wait_for_jobs(lab, dora.name, {plain})
    dora.start()
    assert ids(jobs_of(lab, dora.name)) == {plain}
    cancel_all(lab, dora.name)


def test_a_restart_of_the_hub_ends_nothing(lab: Lab, dora: Person, kernel: Kernel) -> None:
    open_cluster(kernel, 1)
    waiting = stand_in(kernel)
    before = ids(jobs_of(lab, dora.name))
    assert waiting in before
    for unit in ("labstead-hub", "labstead-gate", "labstead-accounts", "labstead-relay.socket", "labstead-relay"):
        lab.machine.run("systemctl", "restart", unit)
    lab.wait_until_healthy()
    answer = "print(client.submit(lambda a, b: a * b, 6, 7).result(timeout=60))"
    assert wait_for("the cluster", lambda: kernel.run(answer), 90).split()[-1] == "42"
    kernel.sh("squeue")
    assert ids(jobs_of(lab, dora.name)) == before
    close_cluster(kernel)
    wait_for_jobs(lab, dora.name, {waiting})
    cancel_all(lab, dora.name)


def test_workers_of_a_killed_kernel_end_by_themselves(lab: Lab, dora: Person, kernel: Kernel) -> None:
    open_cluster(kernel, 1)
    with pytest.raises(KernelDied):
        kernel.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\nimport time\ntime.sleep(30)")
    wait_for_jobs(lab, dora.name, set())


def test_a_cluster_that_does_nothing_closes_after_the_set_time(lab: Lab, dora: Person, kernel: Kernel) -> None:
    """The time of the inventory arrives; that it is kept is seen with a shorter one."""
    kernel.run("import dask")
    assert kernel.value("dask.config.get('labstead.idle-timeout')") == f"{SETTINGS['slurm_idle_minutes']} minutes"
    kernel.run("dask.config.set({'labstead.idle-timeout': '4s'})")
    open_cluster(kernel, 1)
    waiting = stand_in(kernel)
    wait_for_jobs(lab, dora.name, {waiting})
    assert kernel.value("cluster.status.name") in ("closing", "closed")
    cancel_all(lab, dora.name)


def test_a_container_that_dies_leaves_no_dask_job(lab: Lab, dora: Person, kernel: Kernel) -> None:
    waiting = stand_in(kernel)
    assert ids(jobs_of(lab, dora.name)) == {waiting}
    lab.machine.run("docker", "rm", "--force", lab.container_of(dora.name))
    wait_for_jobs(lab, dora.name, set(), 120)
    wait_for("the hub's notice", lambda: not dora.server(), 60)
    dora.start()


def test_dask_jobs_that_outlived_their_session_are_ended_by_the_culler(lab: Lab, dora: Person, kernel: Kernel) -> None:
    """The relay was away when the session ended."""
    waiting, plain = stand_in(kernel), submit(kernel, SLEEPS)
    lab.machine.run("systemctl", "stop", "labstead-relay.socket", "labstead-relay.service")
    try:
        dora.stop()
    finally:
        lab.machine.run("systemctl", "start", "labstead-relay.socket")
    assert ids(jobs_of(lab, dora.name)) == {waiting, plain}
    labstead(lab, "cull")
    assert ids(jobs_of(lab, dora.name)) == {waiting, plain}, "found for the first time, it may be a new session's"
    assert f"{dora.name}: 1 job of Dask without a session" in labstead(lab, "cull", "--patience", "0").stdout
    wait_for_jobs(lab, dora.name, {plain})
    cancel_all(lab, dora.name)
    dora.start()


_SESSIONS = "/etc/labstead/sessions.yml"
_SET = """
import re, sys
path, *settings = sys.argv[1:]
text = open(path).read()
for setting in settings:
    name, value = setting.split("=")
    text, count = re.subn(rf"(?m)^{name}: .*$", f"{name}: {value}", text)
    assert count == 1, name
open(path, "w").write(text)
"""
_A_MOMENT = "0.0005"
"""Hours: less than two seconds."""


def _cull(lab: Lab, idle_hours: str, idle_hours_with_jobs: str) -> None:
    with kept(lab.machine, _SESSIONS):
        settings = (f"idle_hours={idle_hours}", f"idle_hours_with_jobs={idle_hours_with_jobs}")
        lab.machine.python(_SET, _SESSIONS, *settings)
        labstead(lab, "cull", "--patience", "0")


def test_the_culler_spares_whose_jobs_run_within_a_maximum(lab: Lab, admin: Person) -> None:
    """All other sessions of this host, which nobody uses either, end here, too."""
    idle, busy = (lab.join(name, admin).start() for name in ("ida", "bo"))
    kernel = busy.kernel()
    plain, waiting = submit(kernel, SLEEPS), stand_in(kernel)

    def has_ended(person: Person) -> bool:
        return not person.server()

    def is_culled() -> bool:
        _cull(lab, _A_MOMENT, "72")
        return has_ended(idle)

    wait_for(f"end of the session of {idle.name}", is_culled, 60)
    assert not has_ended(busy)
    assert ids(jobs_of(lab, busy.name)) == {plain, waiting}

    def is_culled_in_the_end() -> bool:
        _cull(lab, _A_MOMENT, _A_MOMENT)
        return has_ended(busy)

    wait_for(f"end of the session of {busy.name}", is_culled_in_the_end, GONE)
    wait_for_jobs(lab, busy.name, {plain})
    cancel_all(lab, busy.name)
