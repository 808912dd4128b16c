"""What runs a job in an image, with a runtime that only tells how it was called."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labstead.compute import runner
from labstead.errors import BadInput
from labstead.settings import Compute, Sessions

IMAGE = "594f21a6ba7a"

#: Tells how it was called. What it is given to bind may be gone once it has ended.
RUNTIME = """\
import json, os, sys
umask = os.umask(0)
files = {}
for word in sys.argv:
    source, _, target = word.partition(":")
    if target in ("/etc/passwd", "/etc/group"):
        files[target] = open(source).read()
told = {"words": sys.argv[1:], "env": dict(os.environ), "umask": umask, "files": files, "stdin": sys.stdin.read()}
print(json.dumps(told))
sys.exit(7)
"""

#: A person of two groups with a folder, one without, one of the system's, and one without a name (24099).
PEOPLE = {"anna": 24001, "ocean": 24009, "land": 24010, "nofolder": 24011, "audio": 29}


class Node:
    """A machine on which jobs run."""

    def __init__(self, root: Path, runtime: str = "charliecloud", **more: Any) -> None:
        self.root, self.bin = root, root / "bin"
        self.home = root / "home/anna"
        for name in ("home/anna/work", "groups/ocean", "groups/land", "groups/audio", "groups/other", "data", "tmp"):
            (root / name).mkdir(parents=True)
        about: dict[str, Any] = {
            "images": [{"name": "base", "title": "Base", "reference": "base:1"}],
            "compute": {"images_root": root / "compute"},
            **{
                f"{name}_root": root / folder
                for name, folder in (("home", "home"), ("group", "groups"), ("data", "data"))
            },
            **more,
        }
        self.sessions = Sessions.model_validate(about)
        self.compute = Compute.model_validate({"mode": "embedded", "runtime": runtime})
        self.tree = root / "compute/images" / IMAGE
        self.tree.mkdir(parents=True)
        self.variables({"PATH": "/opt/conda/bin:/bin", "LANG": "en_GB.UTF-8", "FROM_IMAGE": "image", "BOTH": "image"})
        (root / "compute/bin").mkdir()
        for name, text in runner.scripts(self.compute, self.sessions).items():
            self.program(root / "compute/bin" / name, text)
        for name in ("ch-run", "apptainer"):
            self.program(self.bin / name, f"#!{sys.executable} -I\n{RUNTIME}")
        self.program(
            self.bin / "id",
            '#!/bin/sh\ncase $1 in -u) echo 24001 ;; -G) echo "24001 29 24009 24010 24011 24099" ;; esac',
        )
        groups = "".join(f"{name}:x:{gid}:anna\\n" for name, gid in PEOPLE.items() if name != "anna")
        entry = f"anna:x:24001:24001:Anna B:{self.home}:/bin/zsh"
        lines = f"anna:x:24001:\\n{groups}"
        self.program(
            self.bin / "getent",
            f"#!/bin/sh\ncase $1 in passwd) echo '{entry}' ;; group) printf '{lines}'; exit 2 ;; esac",
        )

    @staticmethod
    def program(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def variables(self, variables: dict[str, str]) -> None:
        self.tree.with_name(f"{IMAGE}.env").write_text(runner.defaults(variables), encoding="utf-8")

    def call(self, *words: str, name: str = "in-image", cwd: Path | None = None, **env: str) -> Any:
        given = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": "/wrong", "TMPDIR": str(self.root / "tmp"), **env}
        return subprocess.run(
            [str(self.root / "compute/bin" / name), *words],
            cwd=cwd or self.home,
            env=given,
            input="in\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            umask=0o077,
        )

    def told(self, *words: str, **more: Any) -> dict[str, Any]:
        done = self.call(IMAGE, *(words or ("true",)), **more)
        assert done.returncode == 7, done.stderr  # the runtime's own
        assert done.stderr == ""
        told = json.loads(done.stdout)
        assert isinstance(told, dict)
        return told

    def binds(self, told: dict[str, Any]) -> list[str]:
        words = told["words"][: told["words"].index(str(self.tree))]
        return [words[at + 1] for at, word in enumerate(words) if word in ("-b", "--bind")]

    def folder(self, **more: Any) -> str:
        (found,) = [word[5:] for word in self.told(**more)["words"] if word.startswith("--cd=")]
        return str(found)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_command_arrives_word_by_word_with_its_input(node: Node) -> None:
    words = ["python3", "-c", "print('a b')", "", "$HOME", '"', "*", "--", "ü\n", "\\"]
    told = node.told(*words)
    after = told["words"][told["words"].index(str(node.tree)) + 1 :]
    assert after[0] == "--"
    assert after[-len(words) :] == words
    # What stands before takes two files away and becomes the command.
    shell = after[1 : -len(words)]
    (node.root / "tmp/people").mkdir()
    run = [*shell[:-1], str(node.root / "tmp/people"), "printf", "<%s>", "a b", ""]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "<a b><>"
    assert not (node.root / "tmp/people").exists()
    assert told["stdin"] == "in\n"


def test_everything_is_where_it_is_in_a_session(node: Node) -> None:
    told = node.told()
    roots = [str(node.root / name) for name in ("data", "groups", "home")]
    assert [bind for bind in node.binds(told) if ":" not in bind] == roots
    assert f"--set-env=HOME={node.home}" in told["words"]
    env = told["env"]
    assert {name: env[name] for name in ("HOME", "USER", "LOGNAME", "SHELL", "DATA", "LABSTEAD_IMAGE")} == {
        "HOME": str(node.home),
        "USER": "anna",
        "LOGNAME": "anna",
        "SHELL": "/bin/zsh",
        "DATA": str(node.root / "data"),
        "LABSTEAD_IMAGE": IMAGE,
    }
    assert env["GROUP_FOLDERS"] == f"{node.root}/groups/land:{node.root}/groups/ocean"
    assert "SCRATCH" not in env
    assert told["umask"] == 0o002


def test_people_have_their_names_and_homes(node: Node) -> None:
    told = node.told()
    assert "--no-passwd" in told["words"]  # with its own, everybody's home is /
    passwd, group = told["files"]["/etc/passwd"].splitlines(), told["files"]["/etc/group"].splitlines()
    assert passwd[0] == f"anna:x:24001:24001:Anna B:{node.home}:/bin/zsh"
    assert [line.split(":")[0] for line in passwd[1:]] == ["root", "nobody"]
    assert {line.split(":")[0] for line in group} == {*PEOPLE, "root", "nogroup"}
    assert all(len(line.split(":")) == 7 for line in passwd)
    assert all(len(line.split(":")) == 4 for line in group)
    (folder,) = (node.root / "tmp").glob("in-image.*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_scratch_is_there_where_there_is_some(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    node = Node(tmp_path, scratch_root=str(scratch))
    assert str(scratch) not in node.binds(node.told())  # not on this machine
    (scratch / "anna").mkdir(parents=True)
    told = node.told()
    assert str(scratch) in node.binds(told)
    assert told["env"]["SCRATCH"] == told["env"]["PANGEO_SCRATCH"] == f"{scratch}/anna"


def test_a_root_below_another_is_there_once(tmp_path: Path) -> None:
    node = Node(tmp_path, group_root=str(tmp_path / "home/groups"), scratch_root=str(tmp_path / "home2"))
    assert runner.roots(node.sessions) == (tmp_path / "data", tmp_path / "home", tmp_path / "home2")


def test_what_the_job_exports_stays_and_what_is_the_machines_goes(tmp_path: Path) -> None:
    node = Node(tmp_path, environment={"OF_SITE": "site", "BOTH": "site", "ODD": 'a\'b "$(id)" `id`\n${HOME}'})
    odd = {"YEAR": "2020 b", "EMPTY": "", "SLURM_JOB_ID": "12", "PYTHONPATH": "/home/anna/lib"}
    host = {
        "LD_LIBRARY_PATH": "/host",
        "LD_PRELOAD": "",
        "PYTHONHOME": "/host",
        "LANG": "de_DE.UTF-8",
        "LC_ALL": "C",
        "XDG_RUNTIME_DIR": "/run/user/1",
    }
    env = node.told(**odd, **host, GROUP_FOLDERS="/x")["env"]
    assert {name: env.get(name) for name in odd} == odd
    assert {name for name in host if name in env} == {"LANG"}
    assert env["LANG"] == "en_GB.UTF-8"
    assert env["PATH"] == f"{node.home}/.local/bin:/opt/conda/bin:/bin"
    assert (env["OF_SITE"], env["BOTH"], env["FROM_IMAGE"]) == ("site", "site", "image")
    assert env["ODD"] == 'a\'b "$(id)" `id`\n${HOME}'
    env = node.told(BOTH="job", FROM_IMAGE="")["env"]
    assert (env["OF_SITE"], env["BOTH"], env["FROM_IMAGE"]) == ("site", "job", "")


def test_an_image_that_says_nothing_still_has_a_path(node: Node) -> None:
    node.variables({"not a name": "x"})
    env = node.told()["env"]
    assert env["PATH"] == f"{node.home}/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert "not" not in env


def test_who_has_no_folders_of_groups_is_told_of_none(node: Node) -> None:
    for name in ("ocean", "land"):
        (node.root / "groups" / name).rmdir()
    assert "GROUP_FOLDERS" not in node.told(GROUP_FOLDERS="/groups/ocean")["env"]


def test_the_sites_certificates_are_trusted(tmp_path: Path) -> None:
    node = Node(tmp_path, ca_bundle="/etc/ssl/certs/ca-certificates.crt")
    told = node.told(REQUESTS_CA_BUNDLE="/own.crt")
    assert f"{tmp_path}/compute/ca-certificates.crt:/etc/labstead/ca-certificates.crt" in node.binds(told)
    assert told["env"]["SSL_CERT_FILE"] == "/etc/labstead/ca-certificates.crt"
    assert told["env"]["REQUESTS_CA_BUNDLE"] == "/own.crt"


def test_it_runs_in_the_folder_of_the_job_where_the_image_has_it(node: Node) -> None:
    assert node.folder(cwd=node.home / "work") == f"{node.home}/work"
    assert node.folder(cwd=node.root / "data") == f"{node.root}/data"
    assert node.folder(cwd=node.root / "tmp") == "/tmp"
    (node.root / "tmp/own").mkdir()
    assert node.folder(cwd=node.root / "tmp/own") == "/tmp/own"
    for elsewhere in (Path("/"), node.root, Path("/usr")):
        assert node.folder(cwd=elsewhere) == str(node.home)


def test_a_home_elsewhere_has_a_mount_of_its_own_where_there_is_a_place(tmp_path: Path) -> None:
    node = Node(tmp_path, home_root=str(tmp_path / "people"))
    told = node.told()
    assert str(node.home) not in node.binds(told)
    assert node.folder() == node.folder(cwd=node.home / "work") == "/"
    Path(f"{node.tree}{node.home}").mkdir(parents=True)
    told = node.told()
    assert str(node.home) in node.binds(told)
    assert node.folder() == str(node.home)
    assert node.folder(cwd=node.home / "work") == f"{node.home}/work"


@pytest.mark.parametrize("temporary", ["", "/nowhere"])
def test_without_a_folder_for_temporary_files_it_is_tmp(node: Node, temporary: str) -> None:
    told = node.told(TMPDIR=temporary)
    assert "/tmp:/var/tmp" in node.binds(told)
    assert told["env"]["TMPDIR"] == "/tmp"  # ch-run(1) binds it and takes the variable out
    (people,) = [bind.split(":")[0] for bind in node.binds(told) if bind.endswith(":/etc/passwd")]
    Path(people).unlink()
    Path(people).with_name("group").unlink()
    Path(people).parent.rmdir()


def test_a_worker_has_the_certificate_of_the_session(node: Node) -> None:
    keys = node.home / ".local/share/labstead/dask"
    done = node.call("--dask", IMAGE, "python3")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"in-image: there is no certificate in {keys}; make the cluster in a running session\n"
    keys.mkdir(parents=True)
    (keys / "key.pem").touch()
    env = json.loads(node.call("--dask", IMAGE, "python3").stdout)["env"]
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    assert {name.removeprefix(prefix): value for name, value in env.items() if name.startswith(prefix)} == {
        "CA_FILE": f"{keys}/ca.pem",
        "WORKER__CERT": f"{keys}/cert.pem",
        "WORKER__KEY": f"{keys}/key.pem",
    }
    assert not any(name.startswith(prefix) for name in node.told()["env"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, r"write: in-image [--dask] IMAGE COMMAND…"),
        ((IMAGE,), 2, r"write: in-image [--dask] IMAGE COMMAND…"),
        (("--dask", IMAGE), 2, r"write: in-image [--dask] IMAGE COMMAND…"),
        (("../../etc", "true"), 2, "'../../etc' is no image; give the first twelve digits of its id"),
        (("", "true"), 2, "'' is no image; give the first twelve digits of its id"),
        (
            ("aaaabbbbcccc", "true"),
            3,
            "image aaaabbbbcccc is not on HOST; stop your session, start it again and submit anew",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_line(node: Node, words: tuple[str], code: int, said: str) -> None:
    done = node.call(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"in-image: {said.replace('HOST', os.uname().nodename)}\n"


def test_a_machine_without_the_runtime_or_the_account_is_named(node: Node) -> None:
    (node.bin / "ch-run").unlink()
    done = node.call(IMAGE, "true")
    host = os.uname().nodename
    assert (done.returncode, done.stderr) == (
        3,
        f"in-image: ch-run is not on {host}; tell the administrators to install it\n",
    )
    node.program(node.bin / "ch-run", "#!/bin/sh\n")
    node.program(node.bin / "getent", "#!/bin/sh\nexit 2\n")
    done = node.call(IMAGE, "true")
    assert (done.returncode, done.stderr) == (3, f"in-image: uid 24001 has no account on {host}\n")


def test_in_session_takes_the_image_that_the_relay_named(node: Node) -> None:
    done = node.call("python3", "-c", "a b", name="in-session", LABSTEAD_IMAGE=IMAGE)
    words = json.loads(done.stdout)["words"]
    assert str(node.tree) in words
    assert words[-3:] == ["python3", "-c", "a b"]
    done = node.call("true", name="in-session")
    assert done.returncode == 2
    assert "not submitted from a session" in done.stderr


def test_apptainer_is_told_the_same(tmp_path: Path) -> None:
    """Its words are those of apptainer-exec(1), 1.3; it was not run here."""
    node = Node(tmp_path, "apptainer", ca_bundle="/etc/ssl/certs/ca-certificates.crt")
    told = node.told("python3", "a b", cwd=node.home / "work")
    words = told["words"]
    assert words[0] == "exec"
    assert words[-3:] == [str(node.tree), "python3", "a b"]
    assert words[words.index("--pwd") + 1] == f"{node.home}/work"
    binds = node.binds(told)
    assert {f"{tmp_path}/tmp:/tmp", *(str(root) for root in runner.roots(node.sessions))} <= set(binds)
    assert f"{tmp_path}/compute/ca-certificates.crt:/etc/labstead/ca-certificates.crt" in binds
    assert told["env"]["APPTAINERENV_PATH"] == told["env"]["PATH"] == f"{node.home}/.local/bin:/opt/conda/bin:/bin"
    assert told["umask"] == 0o002


def test_without_slurm_there_are_no_programs() -> None:
    sessions = Sessions.model_validate({"images": [{"name": "base", "title": "Base", "reference": "base:1"}]})
    with pytest.raises(BadInput, match=r"^labstead: sessions have no Slurm here; see slurm_mode$"):
        runner.scripts(Compute(mode="embedded"), sessions)
