"""The first run of site.yml, the run before it that only looks, and the run after it that has nothing to do."""

import re
import socket
import ssl

import pytest
import requests

from support import provision
from support.lab import Lab, Record
from support.machine import ROOT, UNITS
from support.person import Person


def test_check_mode_on_a_machine_that_nothing_has_touched(provisioning: Record) -> None:
    assert provisioning.check.code == 0, provisioning.check.end
    assert provisioning.check.count("lt13", "failed") == 0
    assert provisioning.check_changed == ""


def test_the_first_run_finishes(provisioning: Record) -> None:
    assert provisioning.first.code == 0, provisioning.first.end
    assert provisioning.first.count("lt13", "failed") == 0
    assert provisioning.first.count("lt13", "changed") > 0
    assert "TASK [selfcheck" in provisioning.first.text


def test_settings_of_the_inventory_arrive(lab: Lab) -> None:
    page = lab.person("nobody").visit("/hub/signup")
    assert "Institute of Tests" in page.text
    assert "At least 11 characters" in page.text


# --- secrets


def _found(secrets: dict[str, str], text: str) -> list[str]:
    return [name for name, value in secrets.items() if value in text]


@pytest.fixture(scope="module")
def secrets(lab: Lab) -> dict[str, str]:
    found = provision.secrets(lab.machine)
    expected = {
        "hub.env CONFIGPROXY_AUTH_TOKEN",
        "hub.env LABSTEAD_COMMAND_TOKEN",
        "hub.env LABSTEAD_SELFCHECK_TOKEN",
        f"admin-{provision.ADMIN}.password",
        "cookie secret",
        "ca.key",
        "site.key",
    }
    assert expected <= found.keys()
    assert all(len(value) >= 20 for value in found.values())
    return found


def test_no_secret_in_the_log_of_a_verbose_run(provisioning: Record, secrets: dict[str, str]) -> None:
    text = provisioning.first.text
    assert "module_args" in text, "that run was not verbose"
    assert _found(secrets, text) == []


def test_no_secret_in_a_command_line(lab: Lab, provisioning: Record, secrets: dict[str, str]) -> None:
    seen = provisioning.commands.read_text(encoding="utf-8", errors="replace")
    for command in ("labstead admin seed", "labstead selfcheck", "labstead hub serve", "configurable-http-proxy"):
        assert command in seen, f"the watcher of command lines has missed {command}"
    assert _found(secrets, seen) == []
    assert _found(secrets, lab.machine.out("ps", "-eo", "args")) == []


def test_no_secret_in_the_journal(lab: Lab, secrets: dict[str, str]) -> None:
    assert _found(secrets, lab.machine.run("journalctl", "--no-pager", "--output=cat", timeout=300).stdout) == []


def test_no_secret_is_readable_for_everybody(lab: Lab, secrets: dict[str, str]) -> None:
    """`nobody` searches what there is on the machine, and finds the canary that lies open."""
    canary = "canary-7d1f60f1c2"
    script = """
        printf '%s' "$1" >/var/lib/labstead/canary
        trap 'rm /var/lib/labstead/canary' EXIT
        runuser -u nobody -- grep --recursive --devices=skip --binary-files=text --fixed-strings --file=- \
            --files-with-matches /etc /opt/labstead /run /var/lib/labstead /var/log /home /tmp /srv 2>/dev/null || true
    """
    patterns = "\n".join([canary, *secrets.values()]) + "\n"
    found = lab.machine.sh(script, canary, stdin=patterns, timeout=300).stdout.split()
    assert found == ["/var/lib/labstead/canary"]


# --- the front door


def test_the_certificate_is_good_for_the_address(lab: Lab) -> None:
    address = lab.machine.info()["address"]
    context = ssl.create_default_context(cafile=lab.ca)
    with (
        socket.create_connection((address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=address) as secure,
    ):
        assert ("IP Address", address) in secure.getpeercert()["subjectAltName"]
        assert secure.version() in ("TLSv1.2", "TLSv1.3")


def test_the_certificate_is_not_trusted_without_its_authority(lab: Lab) -> None:
    address = lab.machine.info()["address"]
    with socket.create_connection((address, 443), timeout=10) as plain, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(plain, server_hostname=address)


def test_http_leads_to_https(lab: Lab) -> None:
    address = lab.machine.info()["address"]
    answer = requests.get(f"http://{address}/hub/login?next=/x", allow_redirects=False, timeout=10)
    assert answer.status_code in (301, 308)
    assert answer.headers["Location"] == f"{lab.url}/hub/login?next=/x"


@pytest.mark.parametrize("port", [8000, 8001, 8081])
def test_what_stands_behind_the_front_door_is_not_reached_from_outside(lab: Lab, port: int) -> None:
    """The control, on a machine that answers: 443 is open, see above."""
    with pytest.raises(OSError, match=r"refused|timed out"):
        socket.create_connection((lab.machine.info()["address"], port), timeout=3)


# --- again


def test_a_second_run_changes_and_restarts_nothing(lab: Lab, participant: Person, measured: list[str]) -> None:
    kernel = participant.kernel()
    kernel.run("kept = 4711")
    containers, units = lab.machine.containers(), lab.machine.invocations(UNITS)
    again = provision.run(lab.inventory, lab.folder / "again.log", folder=ROOT)
    measured.append(f"site.yml again, with a session running: {again.seconds:.0f} s (goal: under 60 s)")
    assert again.code == 0, again.end
    assert again.count("lt13", "changed") == 0, again.tasks_that_changed()
    assert again.tasks_that_changed() == []
    assert lab.machine.containers() == containers
    assert lab.machine.invocations(UNITS) == units
    assert all("ActiveState=active" in properties for properties in units.values())
    assert kernel.value("kept") == 4711
    assert not re.search(r"deprecat", again.text, flags=re.IGNORECASE), "the run warns of a deprecated feature"
