"""A guest with XFS and one with ext4, on which the provisioned host's labstead holds limits.

The rule: the tests make the disks, people and files that they need; labstead sets all limits.
"""

import json
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support import confined
from support.confined import Session
from support.guest import OPTIONS, Appliance, FileSystem, Guest, missing
from support.lab import Lab
from support.machine import ROOT

MIB = 2**20
QUOTAS = {
    "home": {"bytes": 16 * MIB, "files": 300},
    "group": {"bytes": 20 * MIB, "files": 250},
    "scratch": {"bytes": 12 * MIB, "files": 200},
}
"""Limits that the guests' accounts.yml says."""
SPACES = {
    "home": "/home/anna-of-the-guest",
    "group": "/groups/reef-of-the-guest",
    "scratch": "/scratch/anna-of-the-guest",
}

_MOUNT = """
mkdir -p /srv/disk /home /groups /scratch
mount -o "$1" /dev/ubdb /srv/disk
for folder in home groups scratch; do
    mkdir -p "/srv/disk/$folder"
    mount --bind "/srv/disk/$folder" "/$folder"
done
"""

_SETTINGS = """
import json, pathlib, sys, yaml
for name, changes in json.loads(sys.argv[1]).items():
    path = pathlib.Path("/etc/labstead", name)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
"""

_PEOPLE = """
from labstead.accounts.client import Client
client = Client()
client.add("anna-of-the-guest")
client.set_group("reef-of-the-guest")
client.change_members("reef-of-the-guest", add=("anna-of-the-guest",))
client.add("bert-of-the-guest")
"""


@dataclass(frozen=True)
class Bench:
    """A guest whose homes, group folders and scratch are on a disk of one kind."""

    guest: Guest
    kind: FileSystem


@pytest.fixture(scope="session")
def appliance(lab: Lab, measured: list[str]) -> Iterator[Appliance]:
    """Give an image of the provisioned host's disk."""
    if packages := missing():
        pytest.fail(f"programs are missing: apt-get install -y {' '.join(packages)}", pytrace=False)
    appliance = Appliance(ROOT / ".build" / "tests" / "guest", lab.machine.info())
    begin = time.monotonic()
    try:
        appliance.make()
        measured.append(f"image of the host's disk: {time.monotonic() - begin:.0f} s")
        yield appliance
    finally:
        appliance.discard()


@pytest.fixture(scope="session", params=["xfs", "ext4"])
def bench(request: pytest.FixtureRequest, appliance: Appliance, measured: list[str]) -> Iterator[Bench]:
    """Boot a guest with a disk of one kind for everything that people write."""
    kind: FileSystem = request.param
    begin = time.monotonic()
    with appliance.boot(appliance.disk("people.disk", kind), appliance.disk("other.disk", kind)) as guest:
        measured.append(f"guest with {kind}: up after {time.monotonic() - begin:.0f} s")
        guest.sh(_MOUNT, OPTIONS[kind])
        settings: dict[str, Any] = {
            "accounts.yml": {"scratch_root": "/scratch", "quotas": QUOTAS},
            "sessions.yml": {"scratch_root": "/scratch"},
        }
        guest.python(_SETTINGS, json.dumps(settings))
        guest.python(_PEOPLE)
        yield Bench(guest, kind)


@pytest.fixture(scope="session")
def session(bench: Bench, measured: list[str]) -> Session:
    """Give anna's session."""
    begin = time.monotonic()
    session = confined.start(bench.guest, "anna-of-the-guest")
    measured.append(f"session in the guest with {bench.kind}: {time.monotonic() - begin:.1f} s")
    return session


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failed test what its guest logged meanwhile."""
    report = yield
    bench = getattr(item, "funcargs", {}).get("bench")
    if report.failed and isinstance(bench, Bench):
        try:
            logs = bench.guest.logs(time.time() - 120)
        except Exception as error:  # noqa: BLE001 - the failure itself matters more than its logs
            logs = f"no logs: {error}"
        report.sections.append((f"guest with {bench.kind}", logs))
    return report
