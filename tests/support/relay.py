"""A mail relay on a throwaway host: Debian's aiosmtpd, which keeps what it is given.

The rule: mail is read where a relay would send it on, as text that a person would see.
"""

import json
from dataclasses import dataclass
from email import message_from_bytes, policy

from support.machine import Machine, wait_for

PORT = 2525
FOLDER = "/var/mail/lt-relay"

START = """
    dpkg-query --show python3-aiosmtpd >/dev/null 2>&1 ||
        DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --no-install-recommends python3-aiosmtpd >/dev/null
    systemctl is-active --quiet lt-relay ||
        systemd-run --quiet --unit=lt-relay python3 -m aiosmtpd --nosetuid --listen "127.0.0.1:$1" \\
            --class aiosmtpd.handlers.Mailbox "$2"
    for _ in $(seq 100); do ss -ltn | grep -q "127.0.0.1:$1 " && exit 0; sleep 0.1; done; exit 1
"""
READ = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1], "new")
paths = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime_ns)
print(json.dumps([path.read_bytes().decode('latin-1') for path in paths]))
"""


@dataclass(frozen=True)
class Letter:
    """One mail."""

    to: str
    sender: str
    subject: str
    text: str


class Relay:
    """The relay of one host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def start(self) -> None:
        """Start it, if it does not run."""
        self._machine.sh(START, str(PORT), FOLDER, timeout=180)

    def stop(self) -> None:
        """Stop it; what it has got stays."""
        self._machine.run("systemctl", "stop", "lt-relay")

    def letters(self, word: str) -> list[Letter]:
        """Give the mails that contain a word, oldest first."""
        found = []
        for raw in json.loads(self._machine.python(READ, FOLDER).stdout):
            message = message_from_bytes(raw.encode("latin-1"), policy=policy.default)
            body = message.get_body(("plain",))
            text = body.get_content() if body is not None else ""
            letter = Letter(message["To"], message["From"], message["Subject"], text)
            if word in f"{letter.to} {letter.subject} {letter.text}":
                found.append(letter)
        return found

    def wait_for(self, word: str, to: str) -> Letter:
        """Wait for a mail to somebody that contains a word, and give the last one."""

        def arrived() -> list[Letter]:
            return [letter for letter in self.letters(word) if to in letter.to]

        return wait_for(f"mail about {word} to {to}", arrived, 30)[-1]
