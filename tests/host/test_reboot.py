"""A reboot of the host: all of it comes back by itself."""

from support.lab import Lab
from support.machine import UNITS, wait_for
from support.person import Person


def test_after_a_reboot_people_go_on(lab: Lab, participant: Person) -> None:
    participant.kernel().run("open('before-the-reboot', 'w').write('still there')")

    lab.machine.reboot()

    lab.wait_until_healthy()
    sockets = ["labstead-accounts.socket", "labstead-gate.socket"]
    for unit in [unit for unit in UNITS if unit != "labstead-gate"] + sockets:  # the gate starts when it is asked
        assert lab.machine.out("systemctl", "is-active", unit) == "active"
    assert lab.machine.out("systemctl", "--failed", "--no-legend", "--plain") == ""
    lab.machine.run("labstead", "disk", "prove", "/home", "/groups", "/scratch")
    again = lab.person(participant.name)
    again.log_in()
    wait_for("end of the session of before", lambda: not again.server(), 90)
    kernel = again.start().kernel()
    assert kernel.out("cat ~/before-the-reboot") == "still there"
    assert kernel.out("id -Gn").split().count("ocean") == 1
    again.stop()
