"""A participant's session: who it is on the machine, what it can do, and where its limits are."""

import json
import shlex

import pytest

from support.kernel import Kernel, KernelDied
from support.lab import Lab
from support.person import Person


@pytest.fixture(scope="module")
def kernel(participant: Person) -> Kernel:
    return participant.kernel()


@pytest.fixture(scope="module")
def rough(neighbour: Person) -> Kernel:
    """Give a kernel in a session that may come to harm."""
    return neighbour.kernel()


# --- identity


def test_id_is_the_hosts_without_the_systems_groups(lab: Lab, participant: Person, kernel: Kernel) -> None:
    """The host says that she is in ocean, sudo, disk and docker; groups below 1000 own the machine and stay there."""
    name = participant.name
    groups = {int(gid) for gid in lab.machine.out("id", "-G", name).split()}
    ocean = int(lab.machine.out("getent", "group", "ocean").split(":")[2])
    people = {gid for gid in groups if gid >= 1000}
    assert ocean in people
    assert len(groups - people) >= 3, "the host has her in no group of the system"
    assert kernel.out("id -u") == lab.machine.out("id", "-u", name)
    assert kernel.out("id -g") == lab.machine.out("id", "-g", name)
    assert {int(gid) for gid in kernel.out("id -G").split()} == people


def test_the_uid_is_from_the_range_of_the_inventory(lab: Lab, participant: Person) -> None:
    assert int(lab.machine.out("id", "-u", participant.name)) >= 24000


def test_names_are_known_in_the_session(participant: Person, kernel: Kernel) -> None:
    assert kernel.out("whoami") == participant.name
    assert kernel.out("id -Gn").split().count("ocean") == 1
    assert kernel.out('getent passwd "$(id -u)"').split(":")[0] == participant.name
    assert kernel.value("__import__('getpass').getuser()") == participant.name
    assert kernel.out("echo $HOME $USER $SHELL $LABSTEAD_TEST") == f"/home/{participant.name} {participant.name} " + (
        "/bin/bash from the inventory"
    )


def test_no_capabilities_and_no_new_privileges(kernel: Kernel) -> None:
    status = dict(line.split(":\t") for line in kernel.out("cat /proc/self/status").splitlines() if ":\t" in line)
    for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_a_set_uid_program_gives_nothing(kernel: Kernel) -> None:
    assert kernel.sh("sudo -n true || su -c true root </dev/null", check=False).returncode != 0
    assert kernel.sh("unshare --user --map-root-user true", check=False).returncode != 0


# --- files


def test_a_file_of_the_session_is_the_users_on_the_host(lab: Lab, participant: Person, kernel: Kernel) -> None:
    kernel.run("import os\nopen('written', 'w').write('by a notebook')\nos.mkdir('folder')")
    uid, gid = lab.machine.out("id", "-u", participant.name), lab.machine.out("id", "-g", participant.name)
    home = f"/home/{participant.name}"
    assert lab.machine.out("stat", "--format=%u:%g %a", f"{home}/written") == f"{uid}:{gid} 664"
    assert lab.machine.out("stat", "--format=%u:%g %a", f"{home}/folder") == f"{uid}:{gid} 775"
    assert lab.machine.out("cat", f"{home}/written") == "by a notebook"


def test_a_file_of_the_host_is_in_the_session(lab: Lab, participant: Person, kernel: Kernel) -> None:
    lab.machine.sh('runuser -u "$1" -- sh -c "echo from the host >/home/$1/left"', participant.name)
    assert kernel.out("cat ~/left") == "from the host"


def test_a_terminal_has_the_same_umask(kernel: Kernel) -> None:
    assert kernel.out("umask") == "0002"
    assert kernel.out("bash -lc umask") == "0002"


LIST = """
import asyncio, json, pathlib
from labstead_session.contents import Contents

folder = pathlib.Path.home() / "busy"
folder.mkdir()
for name in ("goes.ipynb", "stays.ipynb"):
    (folder / name).touch()

class Busy(Contents):
    def should_list(self, name):
        # It is asked of each entry, between two looks at it.
        if name == "goes.ipynb":
            (folder / name).unlink()
        return super().should_list(name)

found = asyncio.run(Busy(root_dir="/").get(str(folder)))
print(json.dumps([entry["name"] for entry in found["content"]]))
"""
"""Lists a folder from which a file goes meanwhile, as with a rename in JupyterLab or a job that tidies up."""


def test_a_file_that_goes_while_its_folder_is_listed_hides_no_other(participant: Person, kernel: Kernel) -> None:
    """JupyterLab asks every few seconds, and leaves a folder of which it is told that it is not there for /."""
    assert json.loads(kernel.out(f"/opt/jupyter/bin/python -c {shlex.quote(LIST)}")) == ["stays.ipynb"]
    folder = f"/user/{participant.name}/api/contents/home/{participant.name}/busy"
    assert participant.api("GET", folder).status_code == 200
    assert participant.api("GET", f"{folder}/goes.ipynb").status_code == 404


def test_a_home_is_its_owners_alone(lab: Lab, participant: Person, neighbour: Person, kernel: Kernel) -> None:
    assert lab.machine.out("stat", "--format=%a", f"/home/{participant.name}") == "700"
    assert kernel.out(f"ls -d /home/{neighbour.name}") == f"/home/{neighbour.name}"
    refused = kernel.sh(f"ls /home/{neighbour.name}", check=False)
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr


def test_the_skeleton_is_in_a_new_home(lab: Lab, participant: Person) -> None:
    skeleton = set(lab.machine.out("ls", "-A", "/etc/skel").split())
    assert skeleton
    assert skeleton <= set(lab.machine.out("ls", "-A", f"/home/{participant.name}").split())


@pytest.mark.parametrize("folder", ["/data", "/home", "/etc", "/usr", "/opt/jupyter"])
def test_what_is_not_ones_own_is_read_only(kernel: Kernel, folder: str) -> None:
    refused = kernel.sh(f"touch {folder}/mine", check=False)
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr or "Permission denied" in refused.stderr


def test_data_is_read_only_even_where_its_mode_would_let_everybody_write(lab: Lab, kernel: Kernel) -> None:
    lab.machine.sh("echo 42 >/data/answer; chmod 0666 /data/answer; mkdir -p /data/open; chmod 1777 /data/open")
    assert kernel.out("cat /data/answer") == "42"
    for command in ("echo 43 >/data/answer", "touch /data/open/mine"):
        refused = kernel.sh(command, check=False)
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr
    assert lab.machine.out("cat", "/data/answer") == "42"


# --- work


def test_git_commit_works(kernel: Kernel) -> None:
    kernel.sh("git config --global user.name Anna && git config --global user.email anna@example.org")
    log = kernel.out(
        "rm -rf ~/repo; git init -q ~/repo && cd ~/repo && echo a >a && git add a && git commit -qm first && "
        "git log --oneline"
    )
    assert log.endswith(" first")
    assert len(log.splitlines()) == 1


def test_pip_install_lands_in_the_home(participant: Person, kernel: Kernel) -> None:
    """The package is made here, so that the test needs no index."""
    kernel.run("""
import zipfile
name = "labsteadprobe-1.0.dist-info"
with zipfile.ZipFile("labsteadprobe-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("labsteadprobe.py", "answer = 42")
    wheel.writestr(f"{name}/METADATA", "Metadata-Version: 2.1\\nName: labsteadprobe\\nVersion: 1.0\\n")
    wheel.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(f"{name}/RECORD", "")
""")
    kernel.sh("pip install --user --no-index ./labsteadprobe-1.0-py3-none-any.whl")
    fresh = participant.kernel()
    assert fresh.value("[__import__('labsteadprobe').answer, __import__('labsteadprobe').__file__]") == [
        42,
        kernel.out("python3 -c 'import labsteadprobe; print(labsteadprobe.__file__)'"),
    ]
    assert fresh.value("__import__('labsteadprobe').__file__").startswith(f"/home/{participant.name}/.local/")


def test_dask_computes(kernel: Kernel) -> None:
    code = """
from dask.distributed import Client
with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
    print(client.submit(lambda a, b: a * b, 6, 7).result())
"""
    assert kernel.run(code).strip().splitlines()[-1] == "42"


def test_a_large_upload_arrives_whole(lab: Lab, participant: Person) -> None:
    """20 MB in one request; nginx takes 1 MB where nobody says otherwise."""
    content = "0123456789abcdef" * (20 * 2**20 // 16)
    model = {"type": "file", "format": "text", "content": content}
    place = f"/user/{participant.name}/api/contents/home/{participant.name}/large.txt"
    answer = participant.api("PUT", place, json=model)
    assert answer.status_code == 201, answer.text[:300]
    size = lab.machine.out("stat", "--format=%s", f"/home/{participant.name}/large.txt")
    assert int(size) == 20 * 2**20


# --- limits


def test_docker_was_told_the_limits(lab: Lab, participant: Person) -> None:
    found = json.loads(lab.machine.out("docker", "inspect", lab.container_of(participant.name)))[0]["HostConfig"]
    assert found["Memory"] == 2**30
    assert found["MemorySwap"] == 2**30
    assert found["NanoCpus"] == 1_000_000_000
    assert found["PidsLimit"] == 250
    assert found["Privileged"] is False
    assert found["CapDrop"] == ["ALL"]


def test_the_pids_limit_holds(rough: Kernel) -> None:
    code = """
import os, signal
children, refused = [], None
try:
    for _ in range(400):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError as error:
    refused = error.errno
finally:
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
"""
    rough.run(code)
    assert rough.value("refused") == 11, "EAGAIN, fork(2)"
    assert 50 < rough.value("len(children)") < 250


def test_the_cpu_limit_holds(rough: Kernel) -> None:
    """Four busy processes in a session of one core are held up by the kernel: cpu.stat counts it."""
    code = """
import pathlib, subprocess, time
files = [pathlib.Path("/sys/fs/cgroup/cpu/cpu.stat"), pathlib.Path("/sys/fs/cgroup/cpu.stat")]
file = next(path for path in files if path.exists())
def held_up():
    return int(dict(line.split() for line in file.read_text().splitlines())["nr_throttled"])
before = held_up()
busy = [subprocess.Popen(["python3", "-c", "while True: pass"]) for _ in range(4)]
end = time.monotonic() + 30
while held_up() - before < 5 and time.monotonic() < end:
    time.sleep(0.2)
for process in busy:
    process.kill()
    process.wait()
times = held_up() - before
"""
    rough.run(code)
    assert rough.value("times") >= 5


def test_the_memory_limit_holds_and_the_session_lives_on(lab: Lab, neighbour: Person) -> None:
    before = lab.container_of(neighbour.name)
    with pytest.raises(KernelDied):
        neighbour.kernel().run("block = b'x' * (1536 * 2**20)\nprint(len(block))")
    assert lab.container_of(neighbour.name) == before
    assert neighbour.kernel().value("6 * 7") == 42


# --- what is out of reach


def test_no_socket_of_the_machine_is_in_the_session(lab: Lab, kernel: Kernel) -> None:
    sockets = ["/run/docker.sock", "/run/labstead/gate.sock", "/run/labstead/accounts.sock"]
    assert lab.machine.out("ls", *sockets).split() == sorted(sockets), "they are not there on the host either"
    for socket in [*sockets, "/var/run/docker.sock"]:
        assert kernel.value(f"__import__('os').path.exists({socket!r})") is False


_KNOCK = """
import socket
def knock(address, port):
    try:
        socket.create_connection((address, port), timeout=3).close()
    except OSError as error:
        return type(error).__name__
    return "open"
"""


def _address(lab: Lab, name: str) -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return lab.machine.out("docker", "inspect", "--format", form, lab.container_of(name))


def test_another_session_is_not_reached(lab: Lab, neighbour: Person, kernel: Kernel) -> None:
    address = _address(lab, neighbour.name)
    knock = "bash", "-c", f"exec 3<>/dev/tcp/{address}/8888"
    assert lab.machine.run(*knock, check=False).returncode == 0, "nothing answers there from the host either"
    kernel.run(_KNOCK)
    assert kernel.value(f"knock({address!r}, 8888)") != "open"


def test_proxy_and_docker_are_out_of_reach(lab: Lab, kernel: Kernel) -> None:
    """The hub's own port is open to sessions, which have to ask it; those of the proxy and of Docker are not."""
    kernel.run(_KNOCK)
    gateway = lab.machine.out("ip", "-4", "-o", "addr", "show", "labstead0").split()[3].split("/")[0]
    assert kernel.value(f"knock({gateway!r}, 8081)") == "open"
    for port in (8000, 8001, 2375):
        assert kernel.value(f"knock({gateway!r}, {port})") != "open", port


def test_a_neighbours_server_answers_nobody_else(participant: Person, neighbour: Person) -> None:
    answer = participant.visit(f"/user/{neighbour.name}/api/contents")
    assert answer.status_code in (403, 404)
