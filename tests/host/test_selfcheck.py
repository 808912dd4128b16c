"""The self-check: it fails where the chain is broken, and leaves nothing behind in either case."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support import provision
from support.lab import Lab

CHECK = ("labstead", "selfcheck", "--ca", "/etc/labstead/tls/ca.crt")


@contextmanager
def leaves_nothing(lab: Lab) -> Iterator[None]:
    """Compare accounts, homes, log-ins and containers; the ledger keeps the canary's number for ever."""

    def all_there_is() -> list[object]:
        state = lab.state()
        state["ledger"] = [row for row in state["ledger"] if row[0] != "labstead-canary"]
        return [state, lab.machine.containers(), lab.machine.out("ls", "/run/labstead/sessions")]

    before = all_there_is()
    yield
    assert all_there_is() == before
    assert not any("canary" in str(part) for part in before)


def test_a_good_hub_passes(lab: Lab) -> None:
    with leaves_nothing(lab):
        lab.machine.run(*CHECK, timeout=300)


# An image that Docker starts and that ends at once, under the name of the good one, which is kept meanwhile.
BREAK_IMAGE = r"""
    name=$(docker image ls --format '{{.Repository}}:{{.Tag}}' --filter reference='labstead/base:*' | head --lines=1)
    docker tag "$name" kept:kept
    printf 'FROM kept:kept\nENTRYPOINT ["/bin/false"]\n' | docker build --quiet --tag "$name" -
"""
MEND_IMAGE = """
    name=$(docker image ls --format '{{.Repository}}:{{.Tag}}' --filter reference='labstead/base:*' | head --lines=1)
    docker tag kept:kept "$name"; docker image rm kept:kept
"""
REJECT = "INPUT --in-interface labstead0 --protocol tcp --dport 8081 --jump REJECT --reject-with tcp-reset"

# How the chain is broken, how that is undone, and what the message has to name.
BREAKS = {
    "gate": (
        "systemctl stop labstead-gate.socket labstead-gate.service",
        "systemctl start labstead-gate.socket",
        "session",
    ),
    "image": (BREAK_IMAGE, MEND_IMAGE, "session"),
    "way from sessions to the hub": (f"iptables --insert {REJECT}", f"iptables --delete {REJECT}", "session"),
    "account tool": (
        "mv /usr/sbin/useradd /usr/sbin/useradd.away; "
        "printf '#!/bin/sh\necho the disk is full >&2; exit 12\n' >/usr/sbin/useradd; chmod 0755 /usr/sbin/useradd",
        "mv /usr/sbin/useradd.away /usr/sbin/useradd",
        "the disk is full",
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_chain_fails(lab: Lab, broken: str) -> None:
    make, undo, word = BREAKS[broken]
    with leaves_nothing(lab):
        lab.machine.sh(make)
        try:
            failed = lab.machine.run(*CHECK, check=False, timeout=400)
        finally:
            lab.machine.sh(undo)
    assert failed.returncode == 1, failed.stdout
    assert word in failed.stderr
    assert "Traceback" not in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


def test_site_yml_fails_where_the_self_check_does(lab: Lab) -> None:
    """Only the last role runs here; that it is part of a whole run is seen in the first one's log."""
    make, undo, word = BREAKS["account tool"]
    lab.machine.sh(make)
    try:
        result = provision.run(lab.inventory, lab.folder / "broken.log", "--tags", "selfcheck")
    finally:
        lab.machine.sh(undo)
    assert result.code != 0
    assert result.count(lab.machine.name, "failed") == 1
    assert "TASK [selfcheck" in result.text
    assert word in result.text
    lab.machine.run(*CHECK, timeout=300)
