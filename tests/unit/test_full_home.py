"""What a session writes in a home that is really full: by bytes and by files, on a file system of its own."""

import errno
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labstead_session import ipython, keep, room, spaces, whole

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")

LAUNCHER = Path(__file__).parents[2] / "hub" / "labstead" / "launcher.sh"
OLD, NEW = "the old one\n" * 200, "the new one, which is longer\n" * 4000


@pytest.fixture(params=["bytes", "files"])
def kind(request: pytest.FixtureRequest) -> str:
    """Say what is used up."""
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path, kind: str) -> Iterator[Path]:
    """Give a home on a small file system."""
    home = tmp_path / "anna"
    home.mkdir()
    options = "size=4m,mode=700" if kind == "bytes" else "size=64m,nr_inodes=120,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", home], check=True)
    yield home
    subprocess.run(["umount", "--lazy", home], check=True)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """Give a session's folder in memory, and its variables."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    monkeypatch.setenv("HOME", os.fspath(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", os.fspath(runtime))
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "IPYTHONDIR"):
        monkeypatch.delenv(name, raising=False)
    return runtime


@pytest.fixture
def fill(home: Path, kind: str) -> Callable[[], None]:
    """Give the function that fills the home to the last byte, or file."""

    def until_full(step: Callable[[], object]) -> None:
        error = None
        while error is None:
            try:
                step()
            except OSError as found:
                error = found
        assert error.errno == errno.ENOSPC

    def work() -> None:
        place = home / "filling"
        place.mkdir(exist_ok=True)
        if kind == "files":
            numbers = itertools.count()
            until_full(lambda: (place / str(next(numbers))).touch(exist_ok=False))
            return
        with (place / "large").open("ab", buffering=0) as file:
            for size in (2**16, 2**12, 1):
                until_full(functools.partial(file.write, bytes(size)))

    return work


def _files(home: Path) -> dict[str, bytes]:
    return {
        os.fspath(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file() and "filling" not in path.parts
    }


# --- writing whole


def test_what_does_not_fit_leaves_the_old_file_and_nothing_beside_it(home: Path, fill: Callable[[], None]) -> None:
    path = home / "notebook.ipynb"
    path.write_text(OLD, encoding="utf-8")
    before = path.stat()
    fill()
    with pytest.raises(OSError, match="No space left") as caught, whole.written(path) as file:
        file.write(NEW)
    assert room.is_lack(caught.value)
    assert _files(home) == {"notebook.ipynb": OLD.encode()}
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("kind", ["bytes"], indirect=True)
def test_what_does_not_fit_in_the_end_leaves_the_old_file(home: Path, fill: Callable[[], None]) -> None:
    """Less than a buffer holds is written when the file is closed: Jupyter's own way lost the file here."""
    path = home / "notebook.ipynb"
    path.write_text(OLD, encoding="utf-8")
    fill()
    os.truncate(home / "filling" / "large", (home / "filling" / "large").stat().st_size - 4096)
    with pytest.raises(OSError, match="No space left"), whole.written(path) as file:
        file.write(NEW[:8000])
    assert _files(home) == {"notebook.ipynb": OLD.encode()}


def test_a_new_file_that_does_not_fit_is_not_there(home: Path, fill: Callable[[], None]) -> None:
    fill()
    with pytest.raises(OSError, match="No space left"), whole.written(home / "new.ipynb") as file:
        file.write(NEW)
    assert _files(home) == {}


def test_a_file_keeps_its_names_mode_and_inode(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_text(OLD, encoding="utf-8")
    path.chmod(0o640)
    other.hardlink_to(path)
    with whole.written(path) as file:
        file.write(NEW)
    assert other.read_text(encoding="utf-8") == NEW
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b"]


def test_another_error_leaves_the_old_file_too(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(OLD, encoding="utf-8")
    with pytest.raises(TypeError), whole.written(path, text=False) as file:
        file.write("text")
    assert _files(tmp_path) == {"a": OLD.encode()}


def test_two_who_save_at_once_leave_what_one_of_them_meant(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(OLD, encoding="utf-8")
    with whole.written(path) as first:
        first.write("first" * 1000)
        with whole.written(path) as second:
            second.write("second")
        assert path.read_text(encoding="utf-8") == "second"
    assert _files(tmp_path) == {"a": b"first" * 1000}


def test_a_disk_that_fails_half_way_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text(OLD, encoding="utf-8")
    path.chmod(0o640)

    def fail(_source: object, target: Any, _length: int) -> None:
        target.write(NEW[:1].encode())
        target.flush()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with whole.written(path) as file:
        file.write(NEW)
    assert _files(tmp_path) == {"a": NEW.encode()}
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("kind", ["bytes"], indirect=True)
def test_room_taken_meanwhile_costs_nothing(home: Path, fill: Callable[[], None]) -> None:
    """A program that fills the home while it is saved takes what the old content gives free."""
    path = home / "notebook.ipynb"
    path.write_text(OLD * 50, encoding="utf-8")
    with whole.written(path) as file:
        file.write(NEW)
        file.flush()
        fill()
    assert _files(home) == {"notebook.ipynb": NEW.encode()}


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one(home: Path, fill: Callable[[], None]) -> None:
    source, target = home / "notebook.ipynb", home / "notebook-checkpoint.ipynb"
    source.write_text(NEW, encoding="utf-8")
    target.write_text(OLD, encoding="utf-8")
    fill()
    with pytest.raises(OSError, match="No space left"):
        whole.copied(source, target)
    assert _files(home) == {"notebook.ipynb": NEW.encode(), "notebook-checkpoint.ipynb": OLD.encode()}


# --- room


def test_room_is_tried_and_nothing_left(home: Path, fill: Callable[[], None]) -> None:
    assert room.has_room(home)
    fill()
    assert not room.has_room(home)
    assert _files(home) == {}
    assert [path.name for path in home.iterdir()] == ["filling"]


@pytest.mark.usefixtures("runtime")
def test_the_file_system_tells_a_full_home(fill: Callable[[], None], kind: str) -> None:
    fill()
    found = spaces.ask({"USER": "anna"}).home
    assert found is not None
    assert found.level == "full"
    assert found.fullest is not None
    assert found.fullest.what == kind
    assert found.notice.startswith("Your home is full: "), "the limit is the folder's own"


def test_a_file_system_is_known_by_its_number(home: Path) -> None:
    for folder in (home, Path("/"), Path("/proc")):
        fd = os.open(folder, os.O_RDONLY)
        told = subprocess.run(["stat", "--file-system", "--format=%t", folder], capture_output=True, check=True).stdout
        assert f"{room.file_system(fd):x}" == told.decode().strip()
        os.close(fd)


# --- settings


def test_settings_made_in_a_full_home_come_into_it_once_there_is_room(
    home: Path, tmp_path: Path, fill: Callable[[], None]
) -> None:
    live, kept = tmp_path / "live", home / ".jupyter" / "lab"
    kept.mkdir(parents=True)
    (kept / "theme").write_text("light", encoding="utf-8")
    live.mkdir()
    mirror = keep.Mirror(live, kept)
    mirror.settle()
    assert (live / "theme").read_text(encoding="utf-8") == "light"
    fill()
    (live / "theme").write_text("dark" * 5000, encoding="utf-8")
    (live / "new" / "deep").mkdir(parents=True)
    (live / "new" / "deep" / "font").write_text("large", encoding="utf-8")
    mirror.settle()
    assert _files(kept) == {"theme": b"light"}
    subprocess.run(["rm", "-r", home / "filling"], check=True)
    mirror.settle()
    assert _files(kept) == {"theme": b"dark" * 5000, "new/deep/font": b"large"}


def test_settings_changed_in_the_home_come_into_the_session_and_what_is_deleted_goes(tmp_path: Path) -> None:
    live, kept = tmp_path / "live", tmp_path / "kept"
    for folder in (live, kept):
        folder.mkdir()
    (kept / "a").write_text("1", encoding="utf-8")
    (kept / "b").write_text("1", encoding="utf-8")
    mirror = keep.Mirror(live, kept)
    mirror.settle()
    (kept / "a").write_text("by hand", encoding="utf-8")
    (live / "b").unlink()
    mirror.settle()
    assert _files(live) == _files(kept) == {"a": b"by hand"}
    (live / "a").write_text("in the session", encoding="utf-8")
    (kept / "a").write_text("on the host", encoding="utf-8")
    mirror.settle()
    assert _files(live) == _files(kept) == {"a": b"in the session"}


def test_what_was_too_large_to_load_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, kept = tmp_path / "live", tmp_path / "kept"
    kept.mkdir()
    (kept / "layout").write_text("of months", encoding="utf-8")
    monkeypatch.setattr(keep, "_LARGEST", 5)
    mirror = keep.Mirror(live, kept)
    mirror.settle()
    live.mkdir()
    (live / "layout").write_text("new", encoding="utf-8")
    mirror.settle()
    assert _files(kept) == {"layout": b"of months"}


def test_what_was_too_many_to_load_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, kept = tmp_path / "live", tmp_path / "kept"
    (kept / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/layout"):
        (kept / name).write_text("of months", encoding="utf-8")
    monkeypatch.setattr(keep, "_MOST", 2)
    mirror = keep.Mirror(live, kept)
    mirror.settle()
    assert set(_files(live)) == {"a", "b"}
    (live / "a").unlink()
    (live / "deep").mkdir()
    (live / "deep" / "layout").write_text("new", encoding="utf-8")
    mirror.settle()
    assert _files(kept) == {"b": b"of months", "deep/layout": b"of months"}


@pytest.mark.parametrize(("most", "free"), [(3500, 2**30), (2**20, 7000)])
def test_no_more_is_loaded_than_there_is_memory_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, free: int
) -> None:
    live, kept = tmp_path / "live", tmp_path / "kept"
    kept.mkdir()
    for number in range(10):
        (kept / f"workspace-{number}").write_bytes(bytes(1000))
    monkeypatch.setattr(keep, "_LOADED", most)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    mirror = keep.Mirror(live, kept)
    mirror.load()
    assert len(_files(live)) == 3
    assert len(_files(kept)) == 10
    # What was left out stays left out, however much becomes free: it would be replaced by what JupyterLab made.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))
    missing = min(_files(kept).keys() - _files(live).keys())
    (live / missing).write_text("new", encoding="utf-8")
    mirror.settle()
    assert _files(kept)[missing] == bytes(1000)


def test_what_grows_too_large_in_the_session_is_still_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, kept = tmp_path / "live", tmp_path / "kept"
    live.mkdir()
    mirror = keep.Mirror(live, kept)
    monkeypatch.setattr(keep, "_LARGEST", 10)
    for content in ("small", "larger than that", "larger than that still"):
        (live / "layout").write_text(content, encoding="utf-8")
        mirror.settle()
        assert _files(kept) == {"layout": content.encode()}


# --- IPython


def test_a_kernel_in_a_full_home_has_its_profile_in_memory(
    home: Path, runtime: Path, kind: str, fill: Callable[[], None]
) -> None:
    (home / ".ipython" / "profile_default" / "startup").mkdir(parents=True)
    (home / ".ipython" / "profile_default" / "startup" / "10-mine.py").write_text("x = 1", encoding="utf-8")
    environment = {"XDG_RUNTIME_DIR": os.fspath(runtime)}
    ipython.choose_profile(environment, home)
    assert "IPYTHONDIR" not in environment
    fill()
    ipython.choose_profile(environment, home)
    place = Path(environment["IPYTHONDIR"])
    assert runtime in place.parents
    assert (place / "profile_default" / "startup" / "10-mine.py").read_text(encoding="utf-8") == "x = 1"
    subprocess.run(["rm", "-r", home / "filling"], check=True)
    ipython.choose_profile(environment, home)
    assert "IPYTHONDIR" not in environment, f"there is room again ({kind})"
    mine = {"XDG_RUNTIME_DIR": os.fspath(runtime), "IPYTHONDIR": "/of/my/own"}
    ipython.choose_profile(mine, home)
    assert mine["IPYTHONDIR"] == "/of/my/own"


# --- the launcher

SHOW = """
import json, os
names = ("JUPYTER_CONFIG_DIR", "JUPYTER_CONFIG_PATH", "JUPYTER_DATA_DIR", "JUPYTER_PATH", "IPYTHONDIR")
mask = os.umask(0)
print(json.dumps({"mask": mask, **{name: os.environ[name] for name in names if name in os.environ}}))
"""


def _launched() -> dict[str, str]:
    script = LAUNCHER.read_text(encoding="utf-8")
    done = subprocess.run(
        ["/bin/sh", "-c", script, "labstead", sys.executable, "-c", SHOW], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_session_with_room_is_left_alone(home: Path, runtime: Path) -> None:
    assert _launched() == {"mask": 0o002}
    assert list(home.iterdir()) == list(runtime.iterdir()) == []


@pytest.mark.parametrize("kind", ["bytes"], indirect=True)
def test_a_session_starts_though_its_settings_do_not_fit_into_memory(
    home: Path, runtime: Path, fill: Callable[[], None]
) -> None:
    (home / ".jupyter" / "lab" / "workspaces").mkdir(parents=True)
    (home / ".jupyter" / "lab" / "workspaces" / "large").write_bytes(bytes(3 * 2**20))
    fill()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", runtime], check=True)
    try:
        assert _launched()["JUPYTER_CONFIG_DIR"] == os.fspath(runtime / "labstead" / "config")
        assert shutil.disk_usage(runtime).free > 2**20
        assert _files(runtime) == {"labstead/config/migrated": b""}
    finally:
        subprocess.run(["umount", "--lazy", runtime], check=True)


def test_a_session_without_room_has_what_jupyter_writes_in_memory(
    home: Path, runtime: Path, fill: Callable[[], None]
) -> None:
    for name, content in {
        ".jupyter/lab/user-settings/theme": "dark",
        ".jupyter/jupyter_server_config.py": "# mine",
        ".local/share/jupyter/notebook_secret": "key",
        ".ipython/profile_default/startup/10-mine.py": "x = 1",
        ".ipython/profile_default/history.sqlite": "history",
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content, encoding="utf-8")
    before = _files(home)
    fill()
    found = _launched()
    spare = runtime / "labstead"
    assert found == {
        "mask": 0o002,
        "JUPYTER_CONFIG_DIR": f"{spare}/config",
        "JUPYTER_CONFIG_PATH": f"{home}/.jupyter",
        "JUPYTER_DATA_DIR": f"{spare}/data",
        "JUPYTER_PATH": f"{home}/.local/share/jupyter",
        "IPYTHONDIR": f"{spare}/ipython",
    }
    assert _files(spare) == {
        "config/lab/user-settings/theme": b"dark",
        "config/migrated": b"",
        "data/notebook_secret": b"key",
        "ipython/profile_default/startup/10-mine.py": b"x = 1",
    }
    assert _files(home) == before
    subprocess.run(["rm", "-r", home / "filling"], check=True)
    assert _launched() == {"mask": 0o002}
    assert _files(home) == before
