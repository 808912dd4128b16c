"""What the services may do: the hub without Docker, the gate that refuses, the accounts service that asks who calls."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.lab import Lab
from support.person import Person
from support.provision import ADMIN

GATE = "/run/labstead/gate.sock"
ACCOUNTS = "/run/labstead/accounts.sock"

CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('connected')"


# --- the hub's process


def _status(lab: Lab, unit: str) -> dict[str, str]:
    pid = lab.machine.out("systemctl", "show", "--property=MainPID", "--value", unit)
    assert int(pid) > 1
    lines = lab.machine.out("cat", f"/proc/{pid}/status").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _group(lab: Lab, name: str) -> str:
    return lab.machine.out("getent", "group", name).split(":")[2]


@pytest.mark.parametrize(("unit", "user"), [("labstead-hub", "labstead"), ("labstead-proxy", "labstead-proxy")])
def test_what_faces_the_internet_is_neither_root_nor_in_group_docker(lab: Lab, unit: str, user: str) -> None:
    status, uid = _status(lab, unit), lab.machine.out("id", "-u", user)
    assert uid != "0"
    assert status["Uid"].split() == [uid] * 4
    assert "0" not in status["Gid"].split()
    assert not {"0", _group(lab, "docker")} & set(status["Groups"].split())
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_the_gate_is_not_root_and_is_in_group_docker(lab: Lab) -> None:
    status = _status(lab, "labstead-gate")
    assert status["Uid"].split() == [lab.machine.out("id", "-u", "labstead-gate")] * 4
    assert _group(lab, "docker") in status["Groups"].split()
    assert int(status["CapEff"], 16) == 0


def test_nobody_of_labstead_is_in_group_docker_for_good(lab: Lab) -> None:
    """The participant was put there by a test, as an administrator's mistake; the gate gets it from its unit."""
    members = lab.machine.out("getent", "group", "docker").split(":")[3].split(",")
    assert not {name for name in members if name.startswith("labstead")}


@pytest.mark.parametrize("user", ["labstead", "labstead-proxy", "nobody"])
def test_dockers_socket_is_closed_to_the_hub_and_others(lab: Lab, user: str) -> None:
    assert lab.machine.python(CONNECT, "/run/docker.sock").stdout.strip() == "connected"
    refused = lab.machine.python(CONNECT, "/run/docker.sock", user=user, check=False)
    assert "PermissionError" in refused.stderr


def test_the_hubs_own_room_has_no_docker_socket(lab: Lab) -> None:
    """Even root would not find it from where the hub stands."""
    pid = lab.machine.out("systemctl", "show", "--property=MainPID", "--value", "labstead-hub")
    script = f"import socket; socket.socket(socket.AF_UNIX).connect('/proc/{pid}/root/run/docker.sock')"
    assert "Error" in lab.machine.python(script, check=False).stderr


# --- the gate


ASK = """
import http.client, json, socket, sys
method, path, body = sys.argv[1:4]
connection = http.client.HTTPConnection("docker", timeout=60)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.settimeout(60)
connection.sock.connect("/run/labstead/gate.sock")
connection.request(method, path, body or None, {"Content-Type": "application/json"} if body else {})
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""


def ask(lab: Lab, method: str, path: str, body: Any = None, user: str = "labstead") -> tuple[int, str]:
    """Ask the gate as some user; the answer's status and text."""
    text = json.dumps(body) if body is not None else ""
    status, answer = json.loads(lab.machine.python(ASK, method, path, text, user=user).stdout)
    return status, answer


BODY = """
import json, sys
from labstead import contract, identity, seccomp, settings
sessions = settings.load_sessions()
person = identity.with_folders(identity.look_up(sys.argv[1]), sessions.group_root, sessions.scratch_root)
image = sessions.images[0].reference
cmd = contract.command(["sleep", "1"])
print(json.dumps(contract.container(person, image, cmd, ["A=b"], sessions, seccomp.load())))
"""


@pytest.fixture(scope="module")
def somebody(lab: Lab, admin: Person) -> str:
    """Give the name of somebody who has an account and no session."""
    return lab.join("gina", admin).name


@pytest.fixture(scope="module")
def body(lab: Lab, somebody: str) -> dict[str, Any]:
    """Give a request that is what the contract says, as the hub makes it after asking the accounts service."""
    assert say(lab, {"op": "open-session", "name": somebody}, "labstead")["error"] is None
    found: dict[str, Any] = json.loads(lab.machine.out("/opt/labstead/current/bin/python", "-c", BODY, somebody))
    return found


@pytest.fixture
def _no_new_container(lab: Lab) -> Iterator[None]:
    before = lab.machine.containers()
    yield
    assert lab.machine.containers() == before


@pytest.mark.usefixtures("_no_new_container")
def test_the_gate_takes_what_the_contract_says(lab: Lab, somebody: str, body: dict[str, Any]) -> None:
    """The control of all refusals below: the same request without their change is good."""
    name = f"labstead-session-{somebody}"
    status, answer = ask(lab, "POST", f"/containers/create?name={name}", body)
    assert status == 201, answer
    assert ask(lab, "GET", f"/containers/{name}/json")[0] == 200
    assert ask(lab, "DELETE", f"/containers/{name}?force=true")[0] == 204


_HOST_ROOT = {"Type": "bind", "Source": "/", "Target": "/host", "ReadOnly": False}

# What is changed → where in the body, to what, and the word that the refusal has to name.
CHANGES: dict[str, tuple[list[str], Any, str]] = {
    "privileged": (["HostConfig", "Privileged"], True, "Privileged"),
    "bind of the root": (["HostConfig", "Binds"], ["/:/host"], "Binds"),
    "mount of the root": (["HostConfig", "Mounts"], [_HOST_ROOT], "Mounts"),
    "no mounts": (["HostConfig", "Mounts"], [], "Mounts"),
    "capability": (["HostConfig", "CapAdd"], ["SYS_ADMIN"], "CapAdd"),
    "kept capabilities": (["HostConfig", "CapDrop"], [], "CapDrop"),
    "no seccomp": (["HostConfig", "SecurityOpt"], ["no-new-privileges:true", "seccomp=unconfined"], "SecurityOpt"),
    "Docker's own seccomp": (["HostConfig", "SecurityOpt"], ["no-new-privileges:true"], "SecurityOpt"),
    "new privileges": (["HostConfig", "SecurityOpt"], [], "SecurityOpt"),
    "room on Docker's disk": (["HostConfig", "ReadonlyRootfs"], False, "ReadonlyRootfs"),
    "a log without end": (["HostConfig", "LogConfig", "Config", "max-size"], "-1", "LogConfig"),
    "core files": (["HostConfig", "Ulimits"], [], "Ulimits"),
    "root": (["User"], "0:0", "User"),
    "group docker": (["HostConfig", "GroupAdd"], ["0"], "GroupAdd"),
    "the host's processes": (["HostConfig", "PidMode"], "host", "PidMode"),
    "the host's network": (["HostConfig", "NetworkMode"], "host", "NetworkMode"),
    "a device": (["HostConfig", "Devices"], [{"PathOnHost": "/dev/vda"}], "Devices"),
    "no memory limit": (["HostConfig", "Memory"], 0, "Memory"),
    "more memory": (["HostConfig", "Memory"], 2**40, "Memory"),
    "no pids limit": (["HostConfig", "PidsLimit"], -1, "PidsLimit"),
    "a port of the host": (["HostConfig", "PortBindings"], {"8888/tcp": [{"HostPort": "25"}]}, "PortBindings"),
    "another runtime": (["HostConfig", "Runtime"], "io.containerd.runc.v2", "Runtime"),
    "another image": (["Image"], "debian:latest", "image"),
    "an entry point": (["Entrypoint"], ["/bin/sh"], "Entrypoint"),
    "no label": (["Labels"], {}, "label"),
    "a label more": (["Labels", "org.labstead.admin"], "true", "Labels"),
    "a number for true": (["HostConfig", "Init"], 1, "Init"),
}


@pytest.mark.usefixtures("_no_new_container")
@pytest.mark.parametrize("change", CHANGES)
def test_the_gate_refuses_a_container_with(lab: Lab, somebody: str, body: dict[str, Any], change: str) -> None:
    keys, value, word = CHANGES[change]
    changed: dict[str, Any] = json.loads(json.dumps(body))
    place = changed
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    status, answer = ask(lab, "POST", f"/v1.41/containers/create?name=labstead-session-{somebody}", changed)
    assert status == 403
    assert word in json.loads(answer)["message"]


@pytest.mark.usefixtures("_no_new_container")
@pytest.mark.parametrize("user", ["root", "daemon", "labstead", "no-such-user"])
def test_the_gate_refuses_a_session_of(lab: Lab, body: dict[str, Any], user: str) -> None:
    """The body says honestly whose it is; they are nobody whose session there could be."""
    changed = {**body, "Labels": {"org.labstead.user": user}, "User": "0:0"}
    assert ask(lab, "POST", f"/containers/create?name=labstead-session-{user}", changed)[0] == 403


@pytest.mark.usefixtures("_no_new_container")
def test_the_gate_refuses_a_session_under_anothers_identity(
    lab: Lab, participant: Person, somebody: str, body: dict[str, Any]
) -> None:
    """Somebody's mounts and uid with the participant's label, and the other way round."""
    changed = {**body, "Labels": {"org.labstead.user": participant.name}}
    for name in (participant.name, somebody):
        assert ask(lab, "POST", f"/containers/create?name=labstead-session-{name}", changed)[0] == 403
    assert ask(lab, "POST", "/containers/create?name=innocent", body)[0] == 403


CALLS = [
    ("GET", "/containers/json"),
    ("GET", "/containers/json?all=1"),
    ("GET", "/images/json"),
    ("GET", "/info"),
    ("GET", "/events"),
    ("GET", "/networks"),
    ("GET", "/volumes"),
    ("GET", "/system/df"),
    ("POST", "/volumes/create"),
    ("POST", "/networks/create"),
    ("POST", "/build"),
    ("POST", "/images/create?fromImage=debian"),
    ("POST", "/containers/prune"),
    ("POST", "/auth"),
    ("POST", "/swarm/init"),
    ("POST", "/containers/{session}/exec"),
    ("POST", "/containers/{session}/update"),
    ("POST", "/containers/{session}/attach"),
    ("POST", "/containers/{session}/kill"),
    ("POST", "/containers/{session}/rename?name=x"),
    ("POST", "/commit?container={session}"),
    ("GET", "/containers/{session}/archive?path=/"),
    ("GET", "/containers/{session}/export"),
    ("GET", "/containers/{session}/logs?stdout=1"),
    ("GET", "/containers/{session}/top"),
    ("GET", "/containers/{session}/../../info"),
    ("GET", "/containers/{session}%2f..%2f../json"),
    ("GET", "/containers/..%2fimages/json"),
    ("GET", "/images/debian/json"),
    ("GET", "/v1.41/info"),
    ("POST", "/exec/0123456789ab/start"),
]


@pytest.mark.usefixtures("_no_new_container")
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_the_gate_does_not_know_the_call(lab: Lab, participant: Person, method: str, path: str) -> None:
    session = f"labstead-session-{participant.name}"
    assert ask(lab, "GET", f"/containers/{session}/json")[0] == 200
    status, answer = ask(lab, method, path.format(session=session), {} if method == "POST" else None)
    assert status == 403, answer


@pytest.fixture(scope="module")
def foreign(lab: Lab, body: dict[str, Any]) -> Iterator[str]:
    """Run a container on the host that is none of labstead's."""
    name = "somebody-elses"
    lab.machine.sh(
        'docker rm -f "$1" 2>/dev/null || true; docker run -d --name "$1" "$2" sleep 3600', name, body["Image"]
    )
    yield name
    lab.machine.run("docker", "rm", "-f", name)


@pytest.mark.usefixtures("_no_new_container")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/containers/{}/json"),
        ("POST", "/containers/{}/stop"),
        ("POST", "/containers/{}/start"),
        ("DELETE", "/containers/{}"),
    ],
)
def test_the_gate_leaves_other_containers_alone(lab: Lab, foreign: str, method: str, path: str) -> None:
    ident = lab.machine.containers()[foreign].id
    for name in (foreign, ident, ident[:12]):
        status, answer = ask(lab, method, path.format(name))
        assert status == 403
        assert "Config" not in answer
    assert lab.machine.containers()[foreign].running


@pytest.mark.parametrize("user", ["nobody", "labstead-proxy"])
def test_the_gate_is_closed_to_others(lab: Lab, user: str) -> None:
    refused = lab.machine.python(CONNECT, GATE, user=user, check=False)
    assert "PermissionError" in refused.stderr


def test_the_gate_is_closed_to_people(lab: Lab, participant: Person) -> None:
    refused = lab.machine.python(CONNECT, GATE, user=participant.name, check=False)
    assert "PermissionError" in refused.stderr


def test_the_gate_answers_the_hub_alone(lab: Lab) -> None:
    """Root can open any socket; the gate looks at who is there all the same."""
    assert ask(lab, "GET", "/_ping")[0] == 200
    assert ask(lab, "GET", "/_ping", user="root")[0] == 403


# --- the accounts service


SAY = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(60)
connection.connect("/run/labstead/accounts.sock")
connection.sendall(sys.argv[1].encode() + b"\\n")
print(connection.makefile().readline())
"""


def say(lab: Lab, request: Any, user: str) -> dict[str, Any]:
    """Send the accounts service one line as some user and give its reply."""
    line = request if isinstance(request, str) else json.dumps(request)
    reply: dict[str, Any] = json.loads(lab.machine.python(SAY, line, user=user).stdout)
    return reply


def test_the_accounts_service_tells_root_about_an_account(lab: Lab, participant: Person) -> None:
    """The control of the refusals below."""
    reply = say(lab, {"op": "show", "name": participant.name}, "root")
    assert reply["error"] is None
    assert str(reply["result"]["accounts"][0]["uid"]) == lab.machine.out("id", "-u", participant.name)


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "add", "name": "new-1"},
        {"op": "link", "name": "dora-of-the-host"},
        {"op": "expire", "name": "ADMIN", "day": "2020-01-01"},
        {"op": "retire", "name": "ADMIN"},
        {"op": "set-group", "name": "new-1", "declared": ["ADMIN"]},
        {"op": "remove-group", "name": "new-1"},
        {"op": "set-limit", "kind": "home", "name": "ADMIN", "bytes": 1048576},
        {"op": "follow-limits"},
        {"op": "show-limits"},
        {"op": "make-canary"},
        {"op": "remove-canary"},
    ],
    ids=lambda request: request["op"],
)
def test_the_hub_may_not_ask_for_what_is_roots(lab: Lab, request_: dict[str, Any]) -> None:
    lab.machine.sh("id dora-of-the-host >/dev/null 2>&1 || useradd --create-home dora-of-the-host")
    request_ = json.loads(json.dumps(request_).replace("ADMIN", ADMIN))
    before = lab.state()
    reply = say(lab, request_, "labstead")
    assert reply["error"]["code"] == "not-allowed"
    assert reply["result"] is None
    assert lab.state() == before


@pytest.mark.parametrize("user", ["nobody", "labstead-proxy", "labstead-gate"])
@pytest.mark.parametrize(
    "request_",
    [
        {"op": "show"},
        {"op": "check", "name": "zoe"},
        {"op": "create", "name": "new-1"},
        {"op": "lock", "name": "ADMIN"},
        {"op": "unlock", "name": "ADMIN"},
        {"op": "open-session", "name": "ADMIN"},
        {"op": "check-password", "name": "ADMIN", "password": "x"},
        {"op": "arrive", "name": "new-1", "subject": "https://login.example.org 1"},
        {"op": "retire", "name": "ADMIN"},
        {"op": "set-limit", "kind": "home", "name": "ADMIN", "bytes": 0},
        {"op": "show-spaces", "name": "ADMIN"},
    ],
    ids=lambda request: request["op"],
)
def test_everybody_may_ask_about_their_groups_alone(lab: Lab, request_: dict[str, str], user: str) -> None:
    before = lab.state()
    request_ = json.loads(json.dumps(request_).replace("ADMIN", ADMIN))
    reply = say(lab, request_, user)
    assert reply["error"]["code"] == "not-allowed"
    assert reply["result"] is None
    assert lab.state() == before


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"op": "create", "name": "root"}, "bad-name"),
        ({"op": "create", "name": "../x"}, "bad-name"),
        ({"op": "create", "name": "-rf"}, "bad-name"),
        ({"op": "create", "name": "x:0:0::/:/bin/sh"}, "bad-name"),
        ({"op": "create", "name": "dora-of-the-host"}, "taken"),
        ({"op": "create", "name": "new-1", "uid": 0}, "failed"),
        ({"op": "create", "name": "new-1", "home": "/root"}, "failed"),
        ({"op": "open-session", "name": "root"}, "unknown"),
        ({"op": "open-session", "name": "dora-of-the-host"}, "unknown"),
        ({"op": "no-such-thing"}, "failed"),
        ("this is no JSON", "failed"),
        ("[" * 5000, "failed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_accounts_service_refuses_the_hub(lab: Lab, request_: Any, code: str) -> None:
    lab.machine.sh("id dora-of-the-host >/dev/null 2>&1 || useradd --create-home dora-of-the-host")
    before = lab.state()
    assert say(lab, request_, "labstead")["error"]["code"] == code
    assert lab.state() == before


def test_a_caller_that_says_nothing_does_not_block_the_others(lab: Lab) -> None:
    """Requests are done one after the other; one that never comes is given up after some seconds."""
    silent = f"import socket; silent = socket.socket(socket.AF_UNIX); silent.connect({ACCOUNTS!r})"
    reply = json.loads(lab.machine.python(silent + SAY, '{"op": "check", "name": "zoe"}', user="labstead").stdout)
    assert reply["result"] == {"problem": None}


# --- the machine's ssh


SSH = """
    name=$1
    folder=$(mktemp --directory)
    trap 'rm -rf "$folder" "/home/$name/.ssh"' EXIT
    ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
    install --directory --owner="$name" --group="$name" --mode=0700 "/home/$name/.ssh"
    install --owner="$name" --group="$name" --mode=0600 "$folder/key.pub" "/home/$name/.ssh/authorized_keys"
    ssh -i "$folder/key" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \\
        -o ConnectTimeout=20 "$name@127.0.0.1" id --user --name
"""


def test_people_come_in_by_ssh_only_where_an_administrator_lets_them(lab: Lab, somebody: str) -> None:
    refused = lab.machine.sh(SSH, somebody, check=False)
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr
    lab.machine.run("gpasswd", "--delete", somebody, "labstead-people")
    try:
        assert lab.machine.sh(SSH, somebody).stdout.strip() == somebody
    finally:
        lab.machine.run("gpasswd", "--add", somebody, "labstead-people")
