"""Runs of site.yml that are killed, on a fresh Debian 12 host: whatever the moment, the next run goes on."""

from support import provision
from support.authority import Authority
from support.doors import with_authority
from support.lab import Lab
from support.machine import Machine
from support.provision import Run
from support.slurm import IMAGES_ROOT

MOMENTS = {
    "python3-apt": "pgrep -f 'apt-get[ ]install python3-apt'",
    "packages": "pgrep -x dpkg",
    "release": "pgrep -f 'releases/.*[/]pip install'",
    "disk": "mountpoint --quiet /srv/labstead/institute.img",
    "image": "pgrep -f 'docker[ ]build'",
    "flattening": f"ls -d {IMAGES_ROOT}/images/.new-*",
    "admin": "pgrep -f 'labstead[ ]admin seed'",
    "self-check": "docker ps --quiet --filter label=org.labstead.user=labstead-canary | grep .",
}
"""Moments at which a run is killed, in their order: a command in the host that succeeds as soon as the work has begun.

The brackets keep a pattern from matching the command line that it stands in.
"""
LONGEST = 600
"""Seconds until a moment comes, at most."""


def _kill_at(lab: Lab, sign: str, log: str) -> None:
    with Run(lab.inventory, lab.folder / log) as running:
        # Looked for in the host: what the run prints comes too late.
        lab.machine.sh(f"until {sign} >/dev/null; do sleep 0.05; done", timeout=LONGEST)
        assert not running.ended(), "the run ended before it could be killed"
        running.kill()


def _leftovers(machine: Machine) -> str:
    return machine.sh(
        "getent passwd labstead-canary; docker ps --all --quiet; ls -d /home/labstead-canary", check=False
    ).stdout


def test_a_run_that_was_killed_is_made_good_by_the_next(
    fresh_bookworm: Lab, authority: Authority, measured: list[str]
) -> None:
    lab = fresh_bookworm
    # The doors' tests go on with this host; an image is built anew for each other set of authorities.
    provision.inventory(lab.machine, lab.inventory, with_authority(authority))
    for name, sign in MOMENTS.items():
        _kill_at(lab, sign, f"killed-{name}.log")

    last = provision.run(lab.inventory, lab.folder / "last.log")
    measured.append(f"site.yml after {len(MOMENTS)} killed runs on Debian 12: {last.seconds:.0f} s")
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
