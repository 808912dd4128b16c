"""A session in a guest: the container that the hub would ask for, with a probe in place of the notebook server.

The rule: it is asked for as the hub asks, of the accounts service and of the gate, as the hub's user.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import probe
from support.guest import Guest
from support.machine import wait_for

_PROBE = Path(probe.__file__).read_text(encoding="utf-8")
_ON_GUEST = "/usr/local/lib/probe.py"

# As `LabsteadSpawner.create_object` does.
_START = """
import http.client, json, socket, sys
from labstead import contract, identity, seccomp, settings
from labstead.accounts.client import Client

name, source = sys.argv[1], sys.argv[2]
sessions = settings.load_sessions()
person = identity.with_folders(Client().open_session(name), sessions.group_root, sessions.scratch_root)
image = sessions.images[0].reference
environment = contract.environment(person, image, sessions)
command = contract.command(["python3", "-c", source, "serve", str(contract.PORT)])
body = contract.container(
    person=person,
    image=image,
    cmd=command,
    env=[f"{key}={value}" for key, value in sorted(environment.items())],
    settings=sessions,
    profile=seccomp.load(),
)


def call(method, path, body=None):
    connection = http.client.HTTPConnection("gate")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/labstead/gate.sock")
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
    reply = connection.getresponse()
    text = reply.read().decode()
    if reply.status >= 300:
        sys.exit(f"{method} {path}: {reply.status} {text}")
    return json.loads(text) if text else None


ident = call("POST", f"/containers/create?name={contract.container_name(name)}", body)["Id"]
call("POST", f"/containers/{ident}/start")
print(call("GET", f"/containers/{ident}/json")["NetworkSettings"]["Networks"][sessions.network]["IPAddress"])
"""


@dataclass(frozen=True)
class Session:
    """A session that runs in a guest."""

    guest: Guest
    name: str
    address: str

    def do(self, call: str, *words: Any) -> Any:
        """Make a call of the probe in the session."""
        line = json.dumps([call, words])
        return _value(self.guest.out("python3", _ON_GUEST, "ask", self.address, "8888", line))

    def python(self, source: str, *words: str, seconds: float = 300) -> str:
        """Run a piece of Python in the session, and give what it prints."""
        command = ("docker", "exec", f"labstead-session-{self.name}", "python3", "-c", source, *words)
        return str(self.guest.run(*command, timeout=seconds).stdout)

    def stop(self) -> None:
        """End the session."""
        self.guest.run("docker", "rm", "--force", f"labstead-session-{self.name}")


def start(guest: Guest, name: str) -> Session:
    """Start somebody's session."""
    prepare(guest)
    command = ("runuser", "--user", "labstead", "--", "env", "--chdir=/", "/opt/labstead/current/bin/python", "-")
    session = Session(guest, name, guest.run(*command, name, _PROBE, stdin=_START).stdout.strip())
    wait_for(f"the probe of {name}", lambda: session.do("sh", "true") == [0, "", ""], 60)
    return session


def prepare(guest: Guest) -> None:
    """Put the probe on the guest."""
    guest.sh('cat >"$1"', _ON_GUEST, stdin=_PROBE)


def on_host(guest: Guest, user: str, call: str, *words: Any) -> Any:
    """Make a call of the probe as somebody on the guest itself, as over ssh or in a job."""
    group = guest.out("id", "--group", user)
    command = ("setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", "--", "env", "--chdir=/")
    return _value(guest.out(*command, "python3", _ON_GUEST, "call", call, json.dumps(words)))


def _value(text: str) -> Any:
    reply = json.loads(text)
    assert "answer" in reply, reply
    return reply["answer"]
