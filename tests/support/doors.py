"""Sets of doors on one host, and what it means that somebody did not come in.

The rule: who is refused reads why, and has nothing afterwards: no log-in, no account of the hub's, no session.
"""

from typing import Any

import requests

from support import provision
from support.authority import Authority
from support.forms import words_of
from support.lab import Lab
from support.person import Person
from support.provision import SETTINGS, Result, site_certificates

SENT_OUT = 60
"""Seconds in which whoever is in is sent out after their account was closed by a command; the hub asks every 30 s."""


def with_authority(authority: Authority) -> dict[str, Any]:
    """Give the settings of the test hosts with an authority of the institute's to trust, and a disk of another name.

    Hosts on one machine share its loop devices, and where a file is missing `mount` takes the device of one that bears
    its name.
    """
    return {
        **SETTINGS,
        "site_ca_certificates": [*site_certificates(), str(authority.path)],
        "storage_disks": [{**disk, "file": "/srv/institute.img"} for disk in SETTINGS["storage_disks"]],
    }


def open_doors(lab: Lab, authority: Authority, settings: dict[str, Any], log: str, *words: str) -> Result:
    """Run site.yml with other doors, on a host that trusts the institute's authority.

    :param words: more words of the command line
    """
    provision.inventory(lab.machine, lab.inventory, {**with_authority(authority), **settings})
    result = provision.run(lab.inventory, lab.folder / log, *words)
    assert result.code == 0, result.end
    lab.wait_until_healthy()
    return result


def ledger(lab: Lab) -> dict[str, tuple[int, str]]:
    """Give what the ledger says: name → uid and state."""
    return {name: (uid, state) for name, uid, state in lab.state()["ledger"]}


def assert_kept_out(lab: Lab, person: Person, answer: requests.Response, *words: str) -> None:
    """Check that an answer refuses somebody with a sentence, and that they are not in.

    :param words: of the sentence
    """
    text = words_of(answer.text)
    assert answer.status_code in (400, 401, 403), f"{person.name}: {answer.status_code} {answer.url} {text[:300]}"
    for word in words:
        assert word in text, text
    assert "Traceback" not in answer.text
    home = person.visit("/hub/home")
    assert "/hub/login" in home.url, f"{person.name} is in: {home.url}"
    found = lab.machine.out("docker", "ps", "--all", "--quiet", f"--filter=label=org.labstead.user={person.name}")
    assert found == "", f"{person.name} has a session"
