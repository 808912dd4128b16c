"""Runs of site.yml that are killed, on a fresh Debian 12 host: whatever the moment, the next run goes on."""

from dataclasses import dataclass

from support import provision
from support.lab import Lab
from support.machine import Machine, wait_for
from support.provision import Run


@dataclass(frozen=True)
class Moment:
    """When a run is killed: in a task, once the host is at work on it.

    :param task: as the run's output names it
    :param sign: a command in the host that succeeds when the work has begun
    """

    task: str
    sign: str


MOMENTS = {
    "packages": Moment("docker : Docker | Install the packages of those that are missing", "pgrep -x dpkg"),
    "release": Moment(
        "labstead : Release | Install into an environment of its own", "pgrep -f 'pip install.*requirement'"
    ),
    "image": Moment("images : Images | Build, which takes some minutes", "pgrep -f 'docker build'"),
    "admin": Moment("hub : Admins | Make those that are missing", "pgrep -f 'labstead admin seed'"),
    "self-check": Moment(
        "selfcheck : Hub | Make a canary session through the public address",
        "docker ps --quiet --filter label=org.labstead.user=labstead-canary | grep .",
    ),
}


def _kill_at(lab: Lab, moment: Moment, log: str) -> None:
    def at_work() -> bool:
        return lab.machine.sh(moment.sign, check=False).returncode == 0

    with Run(lab.inventory, lab.folder / log) as running:
        running.wait_for_task(moment.task)
        wait_for(f"work on {moment.task}", at_work, 300)
        assert not running.ended(), "the run ended before it could be killed"
        running.kill()


def _leftovers(machine: Machine) -> str:
    return machine.sh(
        "getent passwd labstead-canary; docker ps --all --quiet; ls -d /home/labstead-canary", check=False
    ).stdout


def test_a_run_that_was_killed_is_made_good_by_the_next(fresh_bookworm: Lab, measured: list[str]) -> None:
    lab = fresh_bookworm
    provision.inventory(lab.machine, lab.inventory)
    for name, moment in MOMENTS.items():
        _kill_at(lab, moment, f"killed-{name}.log")

    last = provision.run(lab.inventory, lab.folder / "last.log")
    measured.append(f"site.yml after five killed runs on Debian 12: {last.seconds:.0f} s")
    assert last.code == 0, last.end
    assert last.count("lt12", "failed") == 0
    assert _leftovers(lab.machine) == ""

    again = provision.run(lab.inventory, lab.folder / "again.log")
    assert again.code == 0, again.end
    assert again.count("lt12", "changed") == 0, again.tasks_that_changed()

    person = lab.join("berta", lab.admin()).start()
    kernel = person.kernel()
    assert kernel.out("id -u") == lab.machine.out("id", "-u", person.name)
    kernel.run("open('written', 'w').write('on Debian 12')")
    assert lab.machine.out("cat", f"/home/{person.name}/written") == "on Debian 12"
    person.stop()
