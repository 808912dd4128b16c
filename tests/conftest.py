"""Fixtures of all tests, their order, and what a failing one tells.

The rule: hosts are made by the first test that needs one and taken away at the end; LABSTEAD_KEEP=1 leaves them up,
LABSTEAD_REUSE=1 takes those that an earlier run left up. Tests of one host run in one process, in their order; with
`--numprocesses=2` the two hosts are worked on side by side.
"""

import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from support import lab as labs
from support import provision
from support.authority import Authority
from support.directory import Directory
from support.doors import with_authority
from support.lab import Lab, Record
from support.machine import ROOT, Machine
from support.person import Person

ON_BOOKWORM = (
    *("host/test_killed.py", "host/test_slurm.py", "host/test_relay.py", "host/test_compute.py"),
    *("host/test_doors_pam.py", "host/test_doors_oidc.py", "host/test_people_scale.py"),
)
"""Tests on the host with Debian 12; those of the doors give it other settings, one after the other."""
ORDER = (
    *("unit", "contract", "host", "browser", "kernel", "host/test_selfcheck.py", "host/test_reboot.py"),
    *ON_BOOKWORM,
)
"""Cheap tests first; those that shake a host last; on the Debian 12 host one set of doors after the other. With several
processes the hosts come first, and the order is that on each of them: xdist begins with what has the most tests."""
FOLDERS = ("host/", "browser/", "kernel/")
"""Tests that need a host are in these folders."""
FIXTURES = {"lt13": {"provisioning"}, "lt12": {"bookworm", "fresh_bookworm", "slurm"}}
"""By which fixtures a test gets a host."""

HOSTS: dict[str, Lab] = {
    name: Lab(Machine(name, suite), ROOT / ".build" / "tests" / name)
    for name, suite in (("lt13", "trixie"), ("lt12", "bookworm"))
}
_begun: dict[str, float] = {}
_measured: list[str] = []


def _path(nodeid: str) -> str:
    return nodeid.partition("::")[0].removeprefix("tests/")


def _host(path: str) -> str | None:
    if not path.startswith(FOLDERS):
        return None
    return "lt12" if path.startswith(ON_BOOKWORM) else "lt13"


def _place(item: pytest.Item) -> int:
    path = _path(item.nodeid)
    return max((place for place, prefix in enumerate(ORDER) if path.startswith(prefix)), default=-1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in their order, and refuse one that works on another host than its file says."""
    items.sort(key=_place)
    for item in items:
        names, own = set(getattr(item, "fixturenames", ())), _host(_path(item.nodeid))
        for host, fixtures in FIXTURES.items():
            if host != own and names & fixtures:
                raise pytest.UsageError(f"{item.nodeid} works on {host}; see ON_BOOKWORM in tests/conftest.py")


class ByHost(LoadScopeScheduling):
    """Gives all tests of a host to one process, and others to any, file by file."""

    def _split_scope(self, nodeid: str) -> str:
        path = _path(nodeid)
        return _host(path) or path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByHost:
    """Say which process takes which tests."""
    return ByHost(config, log)


# --- logs of failures and measurements


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember when a test began."""
    _begun[item.nodeid] = time.time()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failed test what its hosts logged since shortly before it began."""
    report = yield
    host, names = _host(_path(item.nodeid)), set(getattr(item, "fixturenames", ()))
    # A guest tells of itself (kernel/conftest.py).
    if report.failed and host and names & FIXTURES[host] and "appliance" not in names:
        lab = HOSTS[host]
        try:
            logs = lab.machine.logs(_begun.get(item.nodeid, time.time()) - 10)
        except Exception as error:  # noqa: BLE001 - the failure itself matters more than its logs
            logs = f"no logs: {error}"
        report.sections.append((f"host {lab.machine.name}", logs))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand on what was measured to the process that prints it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["measured"] = _measured


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what another process measured."""
    _measured.extend(getattr(node, "workeroutput", {}).get("measured", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured."""
    if _measured:
        terminalreporter.section("measured")
        for line in _measured:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def measured() -> list[str]:
    """Give the list of measurements, one line each; they are shown at the end and asserted nowhere."""
    return _measured


# --- hosts


@pytest.fixture(scope="session")
def provisioning(measured: list[str]) -> Iterator[Record]:
    """Provision the Debian 13 host and give the record of it."""
    lab = HOSTS["lt13"]
    record = labs.load_record(lab) if labs.REUSE and lab.machine.exists() else None
    try:
        if record is None:
            record = labs.provision_from_nothing(lab)
            measured.append(f"first site.yml on Debian 13: {record.first.seconds:.0f} s")
        yield record
    finally:
        if not labs.KEEP:
            lab.machine.down()


@pytest.fixture(scope="session")
def lab(provisioning: Record) -> Lab:
    """Give the provisioned Debian 13 host."""
    if provisioning.first.code:
        pytest.fail(f"site.yml failed on the first host:\n{provisioning.first.end}", pytrace=False)
    return HOSTS["lt13"]


@pytest.fixture(scope="session")
def fresh_bookworm() -> Iterator[Lab]:
    """Boot a fresh Debian 12 host."""
    lab = HOSTS["lt12"]
    lab.folder.mkdir(parents=True, exist_ok=True)
    lab.machine.down()
    lab.machine.up()
    yield lab
    if not labs.KEEP:
        lab.machine.down()


@pytest.fixture(scope="session")
def bookworm(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Give the Debian 12 host as it is: fresh, or provisioned by the test that kills runs."""
    lab = HOSTS["lt12"]
    if not (labs.REUSE and lab.machine.exists()):
        request.getfixturevalue("fresh_bookworm")
    yield lab
    if not labs.KEEP:
        lab.machine.down()


@pytest.fixture(scope="session")
def authority(bookworm: Lab) -> Authority:
    """Give an authority of the institute's own, which signs the servers beside the hub."""
    return Authority(bookworm.folder / "institute.crt")


@pytest.fixture(scope="session")
def slurm(bookworm: Lab, authority: Authority) -> Lab:
    """Give the Debian 12 host as a hub with Slurm: as it was provisioned after the killed runs, or provisioned now."""
    if bookworm.machine.run("test", "-e", "/etc/labstead/compute.yml", check=False).returncode:
        provision.inventory(bookworm.machine, bookworm.inventory, with_authority(authority))
        result = provision.run(bookworm.inventory, bookworm.folder / "slurm.log")
        assert result.code == 0, result.end
    bookworm.wait_until_healthy()
    return bookworm


@pytest.fixture(scope="session")
def directory(bookworm: Lab, authority: Authority) -> Directory:
    """Give the institute's directory, which the Debian 12 host asks through SSSD."""
    directory = Directory(bookworm.machine)
    directory.set_up(authority)
    return directory


# --- people


@pytest.fixture(scope="session")
def admin(lab: Lab) -> Person:
    """Give the administrator, logged in."""
    return lab.admin()


@pytest.fixture(scope="session")
def participant(lab: Lab, admin: Person) -> Iterator[Person]:
    """Give a participant with a running session.

    On the host she is in a group of people and, by an administrator's mistake, in groups that own the machine.
    """
    person = lab.join("anna", admin)
    lab.machine.sh(
        'getent group ocean || groupadd ocean; for group in ocean sudo disk docker; do gpasswd -a "$1" "$group"; done',
        person.name,
    )
    yield person.start()
    if lab.machine.exists():
        lab.machine.sh('for group in sudo disk docker; do gpasswd -d "$1" "$group"; done', person.name)


@pytest.fixture(scope="session")
def neighbour(lab: Lab, admin: Person) -> Person:
    """Give another participant with a running session, for tests that are rough with it."""
    return lab.join("bert", admin).start()
