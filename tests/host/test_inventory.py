"""What site.yml refuses: each mistake in one readable line, before anything is changed."""

import re

import pytest

from support.lab import MACHINES, MISTAKES, Record

# Mistake → what its lines have to say, one line each, in any order.
LINES: dict[str, list[list[str]]] = {
    "misspelt setting": [["hub_singup", "unknown", "did you mean hub_signup?"]],
    "misspelt role": [["hubs_signup", "unknown", "did you mean hub_signup?"]],
    "wrong type": [["sessions_pids", "'many'", "number"]],
    "no admin": [["hub_admins", "missing"]],
    "empty list of admins": [["hub_admins", "no admin"]],
    "bad size": [["sessions_memory", "'5 apples'", "4G"]],
    "three at once": [
        ["docker_session_subnet", "172.31.240.0/33", "172.31.240.0/20"],
        ["hub_signup", "'open'", "approval, closed"],
        ["hub_admins", "root", "reserved"],
    ],
    "people and doors": [
        ["accounts_users[1].expires", "'some day'", "2027-09-30"],
        ["accounts_groups[1].quota", "'5 apples'", "4G"],
        ["hub_doors[1]", "'ldap'", "native, pam, oidc"],
    ],
    "too little disk": [["disk", "GB free", "1000000 GB are needed"]],
    "port in use": [["port 443", "lt-squatter.service", "stop"]],
    "other system": [["Debian GNU/Linux 11", "not supported", "Debian 12 or 13"]],
}


def test_every_mistake_has_its_lines() -> None:
    assert LINES.keys() == MISTAKES.keys() | MACHINES.keys()


@pytest.mark.parametrize("mistake", LINES)
def test_a_mistake_ends_the_run_before_anything_changes(provisioning: Record, mistake: str) -> None:
    attempt = provisioning.refused[mistake]
    assert attempt.code != 0
    assert attempt.changed == ""


@pytest.mark.parametrize("mistake", LINES)
def test_a_mistake_is_told_in_one_readable_line(provisioning: Record, mistake: str) -> None:
    text = provisioning.refused[mistake].text
    told = [line for line in text.splitlines() if re.search(r"\b(inventory|machine): lt13: ", line)]
    assert len(told) == len(LINES[mistake]), text
    for words in LINES[mistake]:
        assert any(all(word in line for word in words) for line in told), f"no line with {words} in\n{text}"
    assert "Traceback" not in text
