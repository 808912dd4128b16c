"""Images of sessions as folders for jobs: whole or not there, without rights, kept as long as they are needed."""

import fcntl
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from labstead import settings
from labstead.cli import main
from labstead.compute import files, images, session
from labstead.errors import BadInput
from labstead.settings import Compute, Sessions

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives trees to root and asks as nobody")

BASE = "labstead/base:1"
ID = "sha256:594f21a6ba7a65e1c1f9a0f7b4f1d7e3a8b3c5d1"
DIGEST = "594f21a6ba7a"
DAY = 86400

#: As much of the docker command as is called; what it knows lies beside it.
DOCKER = """\
import json, os, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
words = sys.argv[1:]
with open(here / "calls", "a") as calls:
    print(json.dumps(words), file=calls)
known = json.loads((here / "images.json").read_text())
containers = here / "containers"
def refuse(text):
    sys.exit(f"Error response from daemon: {text}")
if (here / "down").exists():
    refuse("Cannot connect to the Docker daemon at unix:///var/run/docker.sock")
if words[:2] == ["image", "inspect"]:
    print(json.dumps(known[words[-1]]) if words[-1] in known else refuse(f"No such image: {words[-1]}"))
elif words[0] == "create":
    (containers / "c1").write_text(words[-2])
    print("c1")
elif words[0] == "export":
    about = known[(containers / words[1]).read_text()]
    with open(about["tar"], "rb") as tar:
        shutil.copyfileobj(tar, sys.stdout.buffer)
    if (here / "export-fails").exists():
        refuse("unexpected EOF")
elif words[0] == "rm":
    for name in words[2:]:
        (containers / name).unlink()
elif words[0] == "ps" and "--all" in words:
    print("\\n".join(path.name for path in containers.iterdir()))
elif words[0] == "ps":
    print((here / "running").read_text())
elif words[0] == "run":
    print((here / "versions").read_text())
else:
    refuse(f"not known here: {words}")
"""

#: As much of ch-run as counts here: it runs the command, which finds no python3 but the one beside.
CH_RUN = """\
while [ "$1" != -- ]; do shift; done
shift
PATH={bin}/image:/usr/bin:/bin
exec "$@"
"""


def program(path: Path, text: str, interpreter: str = "/bin/sh") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{interpreter}\n{text}", encoding="utf-8")
    path.chmod(0o755)


class Machine:
    """A machine with Docker and Charliecloud, of whose images the test decides."""

    def __init__(self, root: Path) -> None:
        self.bin, self.root = root / "bin", root / "shared/compute"
        self.folder = self.root / "images"
        program(self.bin / "docker", DOCKER, f"{sys.executable} -I")
        program(self.bin / "ch-run", CH_RUN.format(bin=self.bin))
        (self.bin / "containers").mkdir()
        self.known: dict[str, Any] = {}
        self.run_sessions()
        self.has_python('{"python": "3.13.5", "dask": "2026.8.0", "distributed": null}')
        self.add(BASE, ID)

    def has_python(self, answer: str, code: int = 0) -> None:
        program(self.bin / "image/python3", f"[ $(id -u) = 65534 ] && echo '{answer}' && exit {code}\n")

    def add(self, reference: str, image_id: str, *members: tuple[tarfile.TarInfo, bytes], size: int = 1000) -> None:
        """Have Docker know an image with some files."""
        tar = self.bin / f"{image_id[7:19]}.tar"
        with tarfile.open(tar, "w") as stream:
            for entry, content in members or (member("usr/bin/true", b"x", mode=0o755),):
                stream.addfile(entry, io.BytesIO(content))
        about = {"Id": image_id, "Size": size, "tar": str(tar), "Config": {"Env": ["LANG=C.UTF-8", "ODD=a 'b' $c"]}}
        self.known[reference] = about
        (self.bin / "images.json").write_text(json.dumps(self.known), encoding="utf-8")

    def run_sessions(self, *references: str) -> None:
        (self.bin / "running").write_text("\n".join(references), encoding="utf-8")

    @property
    def calls(self) -> list[str]:
        lines = (self.bin / "calls").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)[0] for line in lines]

    def sessions(self, *references: str, **more: Any) -> Sessions:
        about = [
            {"name": f"i{n}", "title": "An image", "reference": name} for n, name in enumerate(references or (BASE,))
        ]
        return Sessions.model_validate({"images": about, "compute": {"images_root": self.root}, **more})

    def ensure(self, *references: str, **more: Any) -> list[str]:
        changed = images.ensure(Compute(mode="embedded"), self.sessions(*references, **more))
        return [path.name for path in changed if path.parent == self.folder]

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def member(name: str, content: bytes = b"", mode: int = 0o644, **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.uid, entry.gid, entry.mtime = len(content), mode, 1000, 1000, 1_000_000_000
    for key, value in more.items():
        setattr(entry, key, value)
    return entry, content


@pytest.fixture
def machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(root)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    found = {"PATH": f"{made.bin}:/usr/bin:/bin", "TMPDIR": str(root / "tmp")}
    monkeypatch.setattr(images, "_ENVIRONMENT", found)
    for name in ("DASK_SETTINGS", "PROGRAMS_DIR"):
        monkeypatch.setattr(session, name, root / "host" / getattr(session, name).relative_to("/"))
    preloads = [session.PROGRAMS_DIR / path.name for path in session.PRELOADS]
    monkeypatch.setattr(session, "PRELOADS", preloads)
    return made


def test_an_image_becomes_a_folder_once(machine: Machine) -> None:
    assert machine.ensure() == [DIGEST]
    assert machine.names() == [DIGEST, f"{DIGEST}.env", f"{DIGEST}.json"]
    assert (machine.folder / DIGEST / "usr/bin/true").read_bytes() == b"x"
    assert json.loads((machine.folder / f"{DIGEST}.json").read_text()) == {
        "reference": BASE,
        "digest": DIGEST,
        "python": "3.13.5",
        "dask": "2026.8.0",
        "distributed": None,
    }
    assert list((machine.bin / "containers").iterdir()) == []
    before = (machine.folder / DIGEST).stat().st_ino
    assert machine.ensure() == []
    assert (machine.folder / DIGEST).stat().st_ino == before
    assert machine.calls.count("export") == 1


def test_everybody_may_read_it_and_nobody_gets_rights_from_it(machine: Machine) -> None:
    machine.add(
        BASE,
        ID,
        member("usr/bin/su", b"x", mode=0o4755),
        member("usr/bin/wall", b"x", mode=0o2755),
        member("usr/share", mode=0o2777, type=tarfile.DIRTYPE),
        member("dev/console", type=tarfile.CHRTYPE, devmajor=5, devminor=1),
        member("dev/sda", type=tarfile.BLKTYPE, devmajor=8),
        member("run/pipe", type=tarfile.FIFOTYPE),
        member("etc/shadow", b"root:*", mode=0o640),
    )
    machine.ensure()
    tree = machine.folder / DIGEST
    assert stat.S_IMODE(tree.stat().st_mode) == 0o755
    for path in tree.rglob("*"):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
        assert not found.st_mode & 0o7022, path
        assert stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode), path
    assert not (tree / "dev/sda").exists()
    assert stat.S_IMODE((tree / "usr/bin/su").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "etc/shadow").stat().st_mode) == 0o640


def test_it_matters_not_how_whoever_starts_it_keeps_files(machine: Machine, root: Path) -> None:
    before = os.umask(0o077)
    try:
        machine.ensure(scratch_root="/srv/deep/scratch")
    finally:
        assert os.umask(before) == 0o077
    closed = [
        path
        for folder in (root / "shared", root / "host")
        for path in folder.rglob("*")
        if not path.stat().st_mode & 0o004 and path.name != ".lock"
    ]
    assert closed == []


def test_what_the_disk_refuses_is_one_line(machine: Machine) -> None:
    machine.ensure()
    (machine.root / "bin/in-image").unlink()
    (machine.root / "bin/in-image").mkdir()
    with pytest.raises(images.ImageError, match=r"/compute/bin/in-image: Is a directory$"):
        machine.ensure()


def test_dates_stay_so_that_bytecode_is_valid(machine: Machine) -> None:
    machine.ensure()
    assert (machine.folder / DIGEST / "usr/bin/true").stat().st_mtime == 1_000_000_000  # as in the image


def test_there_is_a_place_for_everything_that_is_mounted(machine: Machine) -> None:
    machine.add(BASE, ID, member("var/tmp", type=tarfile.SYMTYPE, linkname="/tmp"), member("etc/hosts", b"old"))
    machine.ensure(home_root="/srv/people")
    tree = machine.folder / DIGEST
    for name in ("dev", "proc", "sys", "tmp", "var/tmp", "srv/people", "groups", "data"):
        assert (tree / name).is_dir(), name
        assert not (tree / name).is_symlink(), name
    for name in ("etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf", "etc/labstead/ca-certificates.crt"):
        assert (tree / name).is_file(), name
    # A setting that comes later finds its place, too.
    machine.ensure(home_root="/srv/people", scratch_root="/scratch")
    assert (tree / "scratch").is_dir()


def test_a_link_of_an_image_leads_nowhere_on_the_host(machine: Machine, root: Path) -> None:
    outside = root / "outside"
    outside.mkdir()
    machine.add(BASE, ID, member("srv", type=tarfile.SYMTYPE, linkname=str(outside)))
    with pytest.raises(images.ImageError, match=r"/srv is a link in the image, and /srv/people is to be there"):
        machine.ensure(home_root="/srv/people")
    assert list(outside.iterdir()) == []
    assert machine.names() == []


def test_variables_of_the_image_arrive_as_they_are(machine: Machine) -> None:
    machine.ensure()
    script = f'default() {{ printf "%s=%s\\n" "$1" "$2"; }}; . {machine.folder}/{DIGEST}.env'
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [
        "LANG=C.UTF-8",
        "ODD=a 'b' $c",
        f"JUPYTER_IMAGE={BASE}@{ID}",
        f"JUPYTER_IMAGE_SPEC={BASE}@{ID}",
    ]


def test_what_a_killed_run_left_is_thrown_away(machine: Machine) -> None:
    (machine.folder / ".new-abc" / "usr").mkdir(parents=True)
    (machine.folder / ".old-594f21a6ba7a").mkdir()
    (machine.bin / "containers/left").write_text(BASE)
    assert machine.ensure() == [DIGEST]
    assert machine.names() == [DIGEST, f"{DIGEST}.env", f"{DIGEST}.json"]
    assert list((machine.bin / "containers").iterdir()) == []


def test_a_run_that_was_killed_after_unpacking_is_gone_on_with(machine: Machine) -> None:
    machine.ensure()
    for name in (f"{DIGEST}.env", f"{DIGEST}.json"):
        (machine.folder / name).unlink()
    assert machine.ensure() == []
    assert machine.names() == [DIGEST, f"{DIGEST}.env", f"{DIGEST}.json"]
    assert machine.calls.count("export") == 1


@pytest.mark.parametrize("broken", ["export", "tar"])
def test_half_an_image_is_none(machine: Machine, broken: str) -> None:
    """Docker may end in the middle, and what it sent may be no whole tar."""
    if broken == "export":
        (machine.bin / "export-fails").touch()
    else:
        tar = Path(machine.known[BASE]["tar"])
        tar.write_bytes(b"x" * 5000)
    with pytest.raises(images.ImageError, match=r"was not unpacked"):
        machine.ensure()
    assert machine.names() == []
    assert list((machine.bin / "containers").iterdir()) == []


def test_without_room_nothing_is_begun(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add(BASE, ID, size=8_000_000_000)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=9_000_000_000))
    with pytest.raises(BadInput, match=r"no room for image labstead/base:1: it needs 10\.0 GB, 9\.0 GB are free; make"):
        machine.ensure()
    assert "create" not in machine.calls
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=11_000_000_000))
    assert machine.ensure() == [DIGEST]


def test_an_image_that_was_not_built_is_named(machine: Machine) -> None:
    with pytest.raises(BadInput, match=r"^labstead: image other:1 is not on this machine; site\.yml builds it$"):
        machine.ensure("other:1")


def test_an_image_without_python_has_no_versions(machine: Machine) -> None:
    machine.has_python("", code=127)
    machine.ensure()
    (found,) = images.found(machine.sessions())
    assert (found.python, found.dask, found.distributed) == (None, None, None)


def test_a_machine_on_which_jobs_cannot_run_is_told_until_they_can(machine: Machine) -> None:
    good = (machine.bin / "ch-run").read_text()
    program(machine.bin / "ch-run", "echo 'ch-run[7]: error: cannot make user+mount namespaces' >&2\nexit 1\n")
    for _ in range(2):
        with pytest.raises(images.ImageError, match=r"jobs cannot run in image labstead/base:1 .*user\+mount namesp"):
            machine.ensure()
        assert images.found(machine.sessions()) == []
    (machine.bin / "ch-run").write_text(good)
    machine.ensure()
    assert [image.digest for image in images.found(machine.sessions())] == [DIGEST]


def test_where_jobs_run_elsewhere_docker_is_asked(machine: Machine) -> None:
    (machine.bin / "ch-run").unlink()
    (machine.bin / "versions").write_text('{"python": "3.12.1", "dask": null, "distributed": null}')
    images.ensure(Compute(mode="existing"), machine.sessions())
    assert images.found(machine.sessions())[0].python == "3.12.1"


def test_only_one_works_on_them(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.ensure()
    monkeypatch.setattr(images, "_LOCK_SECONDS", 0)
    lock = machine.root / ".lock"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600  # nobody else can hold it
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(images.ImageError, match=r"another labstead compute has worked there"):
            machine.ensure()


def test_what_unpacks_holds_the_lock_when_its_parent_is_killed(machine: Machine) -> None:
    """Else the next run would take the folder away in which it still writes."""
    program(machine.bin / "tar", f"touch {machine.bin}/at-work\nexec sleep 60\n")
    machine.folder.mkdir(parents=True)
    code = (
        "import sys\nfrom pathlib import Path\nfrom labstead.compute import images\n"
        "from labstead.settings import Sessions\n"
        "sessions = Sessions.model_validate_json(sys.argv[1])\n"
        "with images._alone(sessions.compute.images_root) as lock:\n"
        "    images._flatten(sys.argv[3], Path(sys.argv[2]), 1000, sessions, lock)\n"
    )
    about = machine.sessions().model_dump_json(include={"images", "compute"})
    words = [sys.executable, "-c", code, about, str(machine.folder / DIGEST), BASE]
    paths = os.pathsep.join(sys.path)
    child = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not (machine.bin / "at-work").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.kill()
        child.wait(10)
        with (machine.root / ".lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.killpg(child.pid, 9)


# --- how long they stay


def age(machine: Machine, days: float) -> None:
    file = machine.folder / f"{DIGEST}.json"
    then = time.time() - days * DAY
    os.utime(file, (then, then))


OTHER, OTHER_ID = "labstead/base:2", "sha256:aaaabbbbcccc0000"


def test_an_image_is_removed_two_weeks_after_the_sessions_left_it(machine: Machine) -> None:
    machine.add(OTHER, OTHER_ID)
    machine.ensure(BASE, OTHER)
    left = machine.sessions(OTHER)
    age(machine, 13.9)
    assert images.prune(left) == []
    age(machine, 14.1)
    assert images.prune(left) == [machine.folder / DIGEST]
    assert machine.names() == ["aaaabbbbcccc", "aaaabbbbcccc.env", "aaaabbbbcccc.json"]
    assert images.prune(left) == []


@pytest.mark.parametrize("running", [(BASE,), (ID,)], ids=["by name", "by id, as its name means another one"])
def test_an_image_of_a_running_session_stays_and_its_time_begins_anew(machine: Machine, running: tuple[str]) -> None:
    machine.add(OTHER, OTHER_ID)
    machine.ensure(BASE, OTHER)
    left = machine.sessions(OTHER)
    age(machine, 20)
    machine.run_sessions(*running)
    assert images.prune(left) == []
    machine.run_sessions()
    assert images.prune(left) == []
    age(machine, 14.1)
    assert images.prune(left) == [machine.folder / DIGEST]


def test_one_of_the_sessions_stays_however_old(machine: Machine) -> None:
    machine.ensure()
    age(machine, 1000)
    assert images.prune(machine.sessions()) == []
    assert images.kept_until(images.found(machine.sessions())[0], machine.sessions()) is None


def test_one_that_comes_back_begins_anew(machine: Machine) -> None:
    machine.add(OTHER, OTHER_ID)
    machine.ensure(BASE, OTHER)
    age(machine, 20)
    machine.ensure(BASE, OTHER)
    assert images.prune(machine.sessions(OTHER)) == []


def test_nothing_is_removed_while_docker_does_not_answer(machine: Machine) -> None:
    machine.add(OTHER, OTHER_ID)
    machine.ensure(BASE, OTHER)
    age(machine, 100)
    (machine.bin / "down").touch()
    with pytest.raises(images.ImageError, match=r"docker ps: .*Cannot connect to the Docker daemon"):
        images.prune(machine.sessions(OTHER))
    assert (machine.folder / DIGEST).is_dir()


def test_before_the_first_image_there_is_nothing_to_remove(machine: Machine) -> None:
    assert images.prune(machine.sessions()) == []


# --- the files beside


def test_files_are_new_ones_when_they_change(machine: Machine, root: Path) -> None:
    """Sessions have some of them bound, and keep what they started with."""
    machine.ensure()
    path = root / "host/etc/labstead/dask.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    kept = path.open(encoding="utf-8")
    before = kept.read()
    path.chmod(0o600)
    sessions = machine.sessions()
    assert images.ensure(Compute(mode="embedded"), sessions) == [path]
    assert images.ensure(Compute.model_validate({"mode": "embedded", "partition": "long"}), sessions) == [path]
    kept.seek(0)
    assert kept.read() == before
    kept.close()
    assert yaml.safe_load(path.read_text())["jobqueue"]["slurm"]["queue"] == "long"
    assert images.ensure(Compute.model_validate({"mode": "embedded", "partition": "long"}), sessions) == []


def test_programs_of_sessions_are_those_of_this_release(machine: Machine, root: Path) -> None:
    machine.ensure()
    source = Path(files.__file__).parents[1] / "insession"
    programs = root / "host/opt/labstead/session"
    found = {path.name: (path.read_text(), stat.S_IMODE(path.stat().st_mode)) for path in programs.iterdir()}
    assert found == {
        "slurm": ((source / "slurm.py").read_text(), 0o755),
        "dask_preload.py": ((source / "dask_preload.py").read_text(), 0o644),
        "tls_errors.py": ((source / "tls_errors.py").read_text(), 0o644),
    }
    # Machines that are nodes only have no more than that folder.
    assert (machine.root / "bin" / "tls_errors.py").read_text() == (source / "tls_errors.py").read_text()


def test_jobs_have_the_certificates_of_the_site(machine: Machine, root: Path) -> None:
    bundle = root / "bundle.crt"
    bundle.write_text("one")
    machine.ensure(ca_bundle=str(bundle))
    copy = machine.root / "ca-certificates.crt"
    assert copy.read_text() == "one"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o644
    bundle.write_text("two")
    machine.ensure(ca_bundle=str(bundle))
    assert copy.read_text() == "two"
    with pytest.raises(BadInput, match=r"/nowhere: No such file or directory; see site_ca_certificates"):
        machine.ensure(ca_bundle="/nowhere")


# --- the command


@pytest.fixture
def configured(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    sessions, compute = machine.sessions(), Compute(mode="embedded")
    monkeypatch.setattr(settings, "load_sessions", lambda: sessions)
    monkeypatch.setattr(settings, "load_compute", lambda: compute)
    return machine


def said(*words: str) -> str:
    result = CliRunner().invoke(main, ["compute", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_prints_what_has_changed_and_then_nothing(configured: Machine) -> None:
    lines = said("ensure").splitlines()
    assert str(configured.folder / DIGEST) in lines
    assert str(configured.root / "bin/in-image") in lines
    assert said("ensure") == ""
    assert json.loads(said("ensure", "--json")) == {"changed": []}


def test_the_command_lists_images_and_how_long_they_stay(configured: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    said("ensure")
    assert said("list").split()[-6:] == [BASE, DIGEST, "3.13.5", "2026.8.0", "-", "-"]
    configured.add(OTHER, OTHER_ID)
    left = configured.sessions(OTHER)
    monkeypatch.setattr(settings, "load_sessions", lambda: left)
    os.utime(configured.folder / f"{DIGEST}.json", (1_795_132_800, 1_795_132_800))  # 20 November 2026, 0:00 UTC
    (row,) = json.loads(said("list", "--json"))
    assert (row["digest"], row["kept_until"]) == (DIGEST, "2026-12-04")
    assert str(configured.folder / DIGEST) in said("prune") or time.time() < 1_796_342_400


def test_without_slurm_the_night_has_nothing_to_do(configured: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    without = configured.sessions().model_copy(update={"compute": None})
    monkeypatch.setattr(settings, "load_sessions", lambda: without)
    assert said("prune") == ""
    result = CliRunner().invoke(main, ["compute", "list"])
    assert (result.exit_code, result.stderr) == (2, "labstead: sessions have no Slurm here; see slurm_mode\n")
