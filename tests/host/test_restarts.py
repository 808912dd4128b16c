"""Restarts of services under a running session: nobody loses what they were doing."""

import functools

import pytest

from support.lab import Lab
from support.machine import wait_for
from support.person import Person

BACK = 90
"""Seconds in which a session has to be reachable again."""


@pytest.mark.parametrize("unit", ["labstead-hub", "labstead-proxy", "docker", "nginx", "labstead-gate"])
def test_a_session_survives_a_restart_of(lab: Lab, participant: Person, unit: str) -> None:
    kernel = participant.kernel()
    kernel.run("import os\nkept = [os.getpid(), 4711]")
    process = kernel.value("kept[0]")
    container = lab.machine.containers()[f"labstead-session-{participant.name}"]
    before = lab.machine.invocations([unit])

    lab.machine.run("systemctl", "restart", unit)

    assert lab.machine.invocations([unit]) != before
    assert wait_for("the kernel", lambda: kernel.value("kept[1]", 10), BACK) == 4711
    assert kernel.value("os.getpid()") == process
    assert lab.machine.containers()[container.name] == container
    lab.wait_until_healthy()
    assert participant.server()["ready"] is True
    assert lab.machine.out("systemctl", "is-active", unit) == "active"


def test_sessions_start_and_stop_after_all_that(lab: Lab, admin: Person) -> None:
    person = lab.join("rosa", admin).start()
    assert person.kernel().value("6 * 7") == 42
    person.stop()
    assert f"labstead-session-{person.name}" not in lab.machine.containers()


def test_the_hub_notices_a_session_that_ended_while_it_was_down(lab: Lab, admin: Person) -> None:
    person = lab.join("vera", admin).start()
    lab.machine.run("systemctl", "stop", "labstead-hub")
    try:
        lab.machine.run("docker", "rm", "--force", lab.container_of(person.name))
    finally:
        lab.machine.run("systemctl", "start", "labstead-hub")
    lab.wait_until_healthy()
    wait_for("end of the session", lambda: not person.server(), BACK)
    assert person.start().kernel().value("6 * 7") == 42
    person.stop()


def _is_back(lab: Lab, unit: str, before: dict[str, str]) -> bool:
    now = lab.machine.invocations([unit])
    return now != before and "ActiveState=active" in now[unit]


def test_killed_services_come_back_by_themselves(lab: Lab, participant: Person) -> None:
    for unit in ("labstead-hub", "labstead-proxy", "labstead-gate"):
        before = lab.machine.invocations([unit])
        lab.machine.run("systemctl", "kill", "--signal=KILL", unit)
        wait_for(f"return of {unit}", functools.partial(_is_back, lab, unit, before), 60)
    lab.wait_until_healthy()
    wait_for("the session", lambda: participant.visit(f"/user/{participant.name}/api/status").ok, BACK)
