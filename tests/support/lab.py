"""A provisioned host with its people, and the record of how it was provisioned.

The rule: tests make people under names of their own, so that they do not see each other's.
"""

import json
import os
import secrets as _random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from support import provision
from support.machine import ROOT, Machine, wait_for
from support.person import PASSWORD, Person
from support.provision import ADMIN, SETTINGS, Result

KEEP = os.environ.get("LABSTEAD_KEEP") == "1"
"""Leave the hosts up at the end."""
REUSE = os.environ.get("LABSTEAD_REUSE") == "1"
"""Take a host that was provisioned before, with the record of that."""

STATE = """
import json, pathlib, pwd, grp, sqlite3
def rows(path, query):
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as db:
        return sorted(map(list, db.execute(query)))
print(json.dumps({
    "users": sorted(entry.pw_name for entry in pwd.getpwall()),
    "groups": sorted(f"{entry.gr_name}:{entry.gr_gid}:{entry.gr_mem}" for entry in grp.getgrall()),
    "homes": sorted(path.name for path in pathlib.Path("/home").iterdir()),
    "folders": sorted(
        f"{path.name}:{path.stat().st_mode:o}:{path.stat().st_uid}:{path.stat().st_gid}"
        for path in pathlib.Path("/groups").glob("*")
    ),
    "ledger": rows("/var/lib/labstead/accounts/ledger.sqlite", "SELECT name, uid, state FROM account"),
    "sign-ups": rows("/var/lib/labstead/hub/jupyterhub.sqlite", "SELECT username, is_authorized FROM users_info"),
    "hub users": rows("/var/lib/labstead/hub/jupyterhub.sqlite", "SELECT name, admin FROM users"),
}))
"""


@dataclass(frozen=True)
class Lab:
    """A host on which site.yml has run.

    :param folder: where inventory, logs and records of the host are on this machine
    """

    machine: Machine
    folder: Path

    @property
    def inventory(self) -> Path:
        """Give the inventory with which it was provisioned."""
        return self.folder / "inventory.yml"

    @cached_property
    def url(self) -> str:
        """Give the public address."""
        return f"https://{self.machine.info()['address']}"

    @cached_property
    def ca(self) -> Path:
        """Give a copy of the host's authority, as people import it."""
        path = self.folder / "ca.crt"
        path.write_text(self.machine.out("cat", "/etc/labstead/tls/ca.crt") + "\n", encoding="utf-8")
        return path

    # --- people

    def person(self, name: str, password: str = PASSWORD) -> Person:
        """Give somebody who has not done anything yet."""
        return Person(self.url, self.ca, name, password)

    def somebody(self, stem: str) -> Person:
        """Give somebody with a name that nobody had before."""
        return self.person(f"{stem}-{_random.token_hex(3)}")

    def admin(self) -> Person:
        """Give the administrator, logged in."""
        password = self.machine.out("cat", f"/etc/labstead/secrets/admin-{ADMIN}.password")
        return self.person(ADMIN, password).log_in()

    def join(self, stem: str, admin: Person) -> Person:
        """Let somebody sign up, be approved and log in."""
        person = self.somebody(stem)
        answer = person.sign_up()
        assert answer.status_code == 200, f"sign-up of {person.name}: {answer.status_code}"
        answer = admin.decide("approve", person.name)
        assert answer.status_code == 302, f"approval of {person.name}: {answer.status_code}"
        return person.log_in()

    # --- the machine

    def state(self) -> dict[str, Any]:
        """Give what there is of people on the host: NSS, homes, group folders, ledger, log-ins."""
        found: dict[str, Any] = json.loads(self.machine.python(STATE).stdout)
        return found

    def container_of(self, name: str) -> str:
        """Give the id of the one container that bears somebody's label."""
        found = self.machine.out("docker", "ps", "--quiet", "--no-trunc", f"--filter=label=org.labstead.user={name}")
        assert len(found.split()) == 1, f"containers of {name}: {found or 'none'}"
        return found

    def wait_until_healthy(self) -> None:
        """Wait until the hub answers at its public address."""
        somebody = self.person("nobody")
        wait_for(f"hub at {self.url}", lambda: somebody.visit("/hub/health").ok, 90)


# --- what happened while the host was provisioned


@dataclass(frozen=True)
class Attempt:
    """A run that was to be refused, and what it left."""

    code: int
    text: str
    changed: str
    """Lines of the host's fingerprint that were not there before; empty where nothing changed."""


@dataclass(frozen=True)
class Record:
    """How the first host was provisioned, from a machine that nothing had touched."""

    refused: dict[str, Attempt]
    check: Result
    check_changed: str
    first: Result
    commands: Path


# Each entry is a mistake in an inventory that is right otherwise; None takes a setting away.
MISTAKES: dict[str, dict[str, Any]] = {
    "misspelt setting": {"hub_singup": "approval"},
    "misspelt role": {"hubs_signup": "approval"},
    "wrong type": {"sessions_pids": "many"},
    "no admin": {"hub_admins": None},
    "empty list of admins": {"hub_admins": []},
    "bad size": {"sessions_memory": "5 apples"},
    "three at once": {"docker_session_subnet": "172.31.240.0/33", "hub_signup": "open", "hub_admins": ["root"]},
    "people and doors": {
        "accounts_users": [{"name": "anna", "expires": "some day"}],
        "accounts_groups": [{"name": "ocean", "quota": "5 apples"}],
        "hub_doors": ["ldap"],
    },
    "too little disk": {"preflight_minimum_disk_gb": 1000000},
}
"""Inventories that site.yml has to refuse."""

MACHINES: dict[str, tuple[str, str]] = {
    "port in use": (
        "systemd-run --quiet --unit=lt-squatter python3 -m http.server 443; "
        "for _ in $(seq 50); do ss -ltn | grep -q ':443 ' && exit 0; sleep 0.1; done; exit 1",
        "systemctl stop lt-squatter",
    ),
    "other system": (
        'sed \'s/^VERSION_ID=.*/VERSION_ID="11"/; s/^PRETTY_NAME=.*/PRETTY_NAME="Debian GNU\\/Linux 11"/\' '
        "/usr/lib/os-release >/tmp/os-release; mount --bind /tmp/os-release /usr/lib/os-release",
        "umount /usr/lib/os-release; rm /tmp/os-release",
    ),
}
"""Machines that site.yml has to refuse: how to make one, how to undo that."""


def _news(before: str, after: str) -> str:
    old = set(before.splitlines())
    gone = old - set(after.splitlines())
    return "\n".join([f"+ {line}" for line in after.splitlines() if line not in old] + [f"- {line}" for line in gone])


def _refused(lab: Lab, before: str) -> dict[str, Attempt]:
    found = {}
    inventory, log = lab.folder / "mistake.yml", lab.folder / "mistake.log"

    def attempt() -> Attempt:
        result = provision.run(inventory, log)
        return Attempt(result.code, result.text, _news(before, provision.fingerprint(lab.machine)))

    for name, mistake in MISTAKES.items():
        settings = {key: value for key, value in {**SETTINGS, **mistake}.items() if value is not None}
        provision.inventory(lab.machine, inventory, settings)
        found[name] = attempt()
    provision.inventory(lab.machine, inventory)
    for name, (make, undo) in MACHINES.items():
        lab.machine.sh(make)
        try:
            found[name] = attempt()
        finally:
            lab.machine.sh(undo)
    return found


def provision_from_nothing(lab: Lab) -> Record:
    """Boot a fresh host and take it through mistakes, a check and the first real run; write down what happened."""
    lab.folder.mkdir(parents=True, exist_ok=True)
    (lab.folder / "record.json").unlink(missing_ok=True)
    lab.machine.down()
    lab.machine.up()
    before = provision.fingerprint(lab.machine)
    refused = _refused(lab, before)
    provision.inventory(lab.machine, lab.inventory)
    check = provision.run(lab.inventory, lab.folder / "check.log", "--check", "--diff")
    check_changed = _news(before, provision.fingerprint(lab.machine))
    commands = lab.folder / "commands.txt"
    with provision.command_lines(commands):
        first = provision.run(lab.inventory, lab.folder / "first.log", "-vvv", folder=ROOT / "ansible")
    record = Record(refused, check, check_changed, first, commands)
    _save(record, lab.folder / "record.json")
    return record


def _save(record: Record, path: Path) -> None:
    path.write_text(
        json.dumps(
            {
                "refused": {name: vars(attempt) for name, attempt in record.refused.items()},
                "check": [record.check.code, record.check.seconds],
                "check_changed": record.check_changed,
                "first": [record.first.code, record.first.seconds],
            }
        ),
        encoding="utf-8",
    )


def load_record(lab: Lab) -> Record | None:
    """Read the record of an earlier provisioning; None where there is none."""
    path = lab.folder / "record.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    return Record(
        {name: Attempt(**attempt) for name, attempt in data["refused"].items()},
        Result(*data["check"], lab.folder / "check.log"),
        data["check_changed"],
        Result(*data["first"], lab.folder / "first.log"),
        lab.folder / "commands.txt",
    )
