"""What schedulers of Dask load in a session, on stand-ins for distributed; the real one is tested on hosts."""

import enum
import errno
import importlib.util
import json
import os
import shlex
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application

from labstead.compute import session

SOURCE = Path(__file__).parents[2] / "hub" / "labstead" / "insession" / "dask_preload.py"
IMAGE = "0123456789ab"
PYTHON = ".".join(map(str, sys.version_info[:3]))
LIMIT = 2


class Status(enum.Enum):
    running = "running"
    closed = "closed"


class Scheduler:
    """As much of distributed's as the preload touches."""

    def __init__(self, address: str = "tls://172.20.0.2:40000", http: str = "127.0.0.1") -> None:
        self.address, self.external_address = address, None
        self.idle_timeout: float | None = None
        self.idle_since: float | None = None
        self.http_server: Any = SimpleNamespace(address=http, ssl_options=None)
        self.services: dict[str, Any] = {}
        self.callbacks: list[Any] = []
        self.loop = SimpleNamespace(add_callback=self.callbacks.append)

    @property
    def refusal(self) -> str:
        """What a cluster raises as it looks for the address (SpecCluster._start); empty: nothing."""
        try:
            _ = self.external_address or self.address
        except RuntimeError as error:
            return str(error)
        return ""


class Cluster:
    """A cluster around a scheduler."""

    def __init__(self, scheduler: Scheduler, status: Status) -> None:
        self.scheduler, self.status = scheduler, status

    def close(self) -> None:
        raise AssertionError("only the loop may call this")


class Site(SimpleNamespace):
    """A session on stand-ins."""

    home: Path
    runtime: Path
    tree: Path
    config: dict[str, Any]
    preload: Any
    clusters: Any

    def tell(self, **versions: str | None) -> None:
        """Say what the image has."""
        told = {"python": PYTHON, "dask": "2026.8.0", "distributed": "2026.8.0", **versions}
        self.tree.with_name(f"{IMAGE}.json").write_text(json.dumps(told), encoding="utf-8")

    def set_up(self, *arguments: str, **more: str) -> Scheduler:
        """Start a scheduler."""
        scheduler = Scheduler(*arguments, **more)
        self.preload.dask_setup(scheduler)
        return scheduler

    @property
    def keys(self) -> Path:
        return self.home / ".local/share/labstead/dask"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Give a session, with the preload loaded as distributed loads it."""
    config: dict[str, Any] = {"labstead.idle-timeout": "60 minutes"}
    packages = "/opt/jupyter/lib/python3.13/site-packages"
    spec = SimpleNamespace(SpecCluster=SimpleNamespace(_instances=weakref.WeakSet()))
    stand_ins: dict[str, dict[str, Any]] = {
        "dask": {
            "config": SimpleNamespace(get=lambda key, default: config.get(key, default), set=config.update),
            "__version__": "2026.8.0",
            "__file__": f"{packages}/dask/__init__.py",
        },
        "dask.utils": {"parse_timedelta": lambda text: text and 3600.0, "format_time": lambda _seconds: "1.00 hr"},
        "distributed": {
            "Status": Status,
            "__version__": "2026.8.0",
            "__file__": f"{packages}/distributed/__init__.py",
        },
        "distributed.comm": {"get_address_host": lambda address: urlsplit(address).hostname},
        "distributed.deploy": {},
        "distributed.deploy.spec": vars(spec),
    }
    for name, content in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    home, runtime, images = tmp_path / "home", tmp_path / "runtime", tmp_path / "compute" / "images"
    tree = images / IMAGE
    for folder in (home, runtime / "labstead" / "dask", tree / sys.executable[1:]):
        folder.mkdir(parents=True)
    for name in ("ca", "cert", "key"):
        (runtime / "labstead" / "dask" / f"{name}.pem").write_text(name, encoding="utf-8")
    for name, value in {
        "XDG_RUNTIME_DIR": os.fspath(runtime),
        "LABSTEAD_IMAGE": IMAGE,
        "LABSTEAD_IMAGES_ROOT": os.fspath(images.parent),
        "LABSTEAD_CLUSTERS": str(LIMIT),
        "DASK_JOBQUEUE__SLURM__PYTHON": f"/srv/bin/in-image --dask {IMAGE} python3",
    }.items():
        monkeypatch.setenv(name, value)
    found = importlib.util.spec_from_file_location("dask_preload", SOURCE)
    assert found is not None
    assert found.loader is not None
    preload: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(preload)
    monkeypatch.setattr(preload.pwd, "getpwuid", lambda _uid: SimpleNamespace(pw_dir=os.fspath(home)))
    # The tests' own Python may be anywhere.
    monkeypatch.setattr(preload, "_IN_MEMORY", ("/nowhere/",))
    site = Site(
        home=home, runtime=runtime, tree=tree, config=config, preload=preload, clusters=spec.SpecCluster._instances
    )
    site.tell()
    return site


# --- what workers need


def test_a_cluster_is_prepared(site: Site) -> None:
    scheduler = site.set_up()
    assert scheduler.refusal == ""
    assert scheduler.idle_timeout == 3600
    assert {path.name: path.read_text(encoding="utf-8") for path in site.keys.iterdir()} == {
        "ca.pem": "ca",
        "cert.pem": "cert",
        "key.pem": "key",
    }
    assert {oct(path.stat().st_mode & 0o777) for path in site.keys.iterdir()} == {"0o600"}
    assert oct(site.keys.stat().st_mode & 0o777) == "0o700"
    assert site.config["jobqueue.slurm.python"] == f"/srv/bin/in-image --dask {IMAGE} {sys.executable}"
    assert site.keys == session.keys_dir(site.home)


def test_certificates_of_an_earlier_session_are_replaced(site: Site) -> None:
    site.keys.mkdir(parents=True, mode=0o755)
    (site.keys / "ca.pem").write_text("ca", encoding="utf-8")
    (site.keys / "key.pem").write_text("old", encoding="utf-8")
    (site.keys / "key.pem").chmod(0o644)
    assert site.set_up().refusal == ""
    assert (site.keys / "key.pem").read_text(encoding="utf-8") == "key"
    assert oct((site.keys / "key.pem").stat().st_mode & 0o777) == "0o600"
    inode = (site.keys / "key.pem").stat().st_ino
    site.set_up()
    assert (site.keys / "key.pem").stat().st_ino == inode, "nothing was to be done"


def test_a_home_without_room_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(Path, "write_bytes", full)
    refusal = site.set_up().refusal
    assert refusal.startswith("labstead: the certificates of its workers cannot be written to ")
    assert "(Disk quota exceeded)" in refusal
    assert "`quota`" in refusal
    assert list(site.keys.iterdir()) == []


def test_schedulers_of_this_session_alone_are_left_alone(site: Site) -> None:
    for address in ("inproc://172.20.0.2/7/1", "tcp://127.0.0.1:40000", "tls://127.0.0.1:40000"):
        scheduler = site.set_up(address)
        assert (scheduler.refusal, scheduler.idle_timeout) == ("", None)
    assert not site.keys.exists()
    assert "jobqueue.slurm.python" not in site.config


def test_outside_of_a_session_it_does_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABSTEAD_IMAGE")
    assert site.set_up("tcp://172.20.0.2:40000").refusal == ""
    assert not site.keys.exists()


def test_a_cluster_that_others_could_use_is_refused(site: Site) -> None:
    refusal = site.set_up("tcp://172.20.0.2:40000").refusal
    assert refusal == "labstead: without TLS everybody on this machine could use it; leave out the protocol"


# --- how many


def test_there_are_as_many_clusters_as_the_session_may_have(site: Site) -> None:
    first, second = site.set_up(), site.set_up()
    assert (first.refusal, second.refusal) == ("", "")
    third = site.set_up()
    assert third.refusal.startswith("labstead: your session has 2 Dask clusters, which is as many as it may; close one")
    site.preload.dask_teardown(third)
    assert site.set_up().refusal, "one that was refused had no place to give back"
    site.preload.dask_teardown(first)
    again = site.set_up()
    assert again.refusal == ""
    assert site.set_up().refusal


def test_a_process_that_dies_gives_its_places_back(site: Site) -> None:
    reader, writer = os.pipe()
    if not (child := os.fork()):
        places = [site.set_up(), site.set_up()]
        os.write(writer, b"x" if not any(place.refusal for place in places) else b"-")
        signal_wait = socket.socketpair()
        signal_wait[0].recv(1)
    assert os.read(reader, 1) == b"x"
    assert site.set_up().refusal, "it counts for all notebooks of a session"
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert site.set_up().refusal == ""


# --- which Python


def test_an_image_that_jobs_no_longer_have(site: Site) -> None:
    site.tree.with_name(f"{IMAGE}.json").unlink()
    assert site.set_up().refusal == (
        "labstead: jobs no longer have the image of your session; stop your session and start it anew"
    )


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"python": "3.8.1"}, f"Python is {PYTHON.rpartition('.')[0]} here and would be 3.8 in its workers"),
        ({"dask": "2025.1.0"}, "dask is 2026.8.0 here and would be 2025.1.0 in its workers"),
        ({"distributed": None}, "distributed is 2026.8.0 here and would be missing in its workers"),
    ],
)
def test_a_mismatch_is_found_before_anything_is_submitted(
    site: Site, versions: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/jupyter")
    site.tell(**versions)
    refusal = site.set_up().refusal
    assert refusal.startswith(f"labstead: {message}; ")
    assert not site.keys.exists()


@pytest.mark.parametrize("versions", [{"python": PYTHON + "9"}, {"python": None, "dask": None, "distributed": None}])
def test_what_does_not_matter_and_what_nobody_knows_is_no_mismatch(site: Site, versions: dict[str, str | None]) -> None:
    site.tell(**versions)
    assert site.set_up().refusal == ""


@pytest.fixture
def own(site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of `pip install --user`, with an older dask."""
    folder = site.home / ".local/lib/python3.13/site-packages"
    (folder / "dask-2025.1.0.dist-info").mkdir(parents=True)
    (folder / "dask-2025.1.0.dist-info" / "METADATA").write_text("Name: dask\nVersion: 2025.1.0\n", encoding="utf-8")
    monkeypatch.setattr(site.preload.site, "getusersitepackages", lambda: os.fspath(folder))
    return folder


def test_packages_of_ones_own_come_before_the_images_in_workers_too(
    site: Site, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.preload.dask, "__file__", os.fspath(own / "dask/__init__.py"))
    monkeypatch.setattr(site.preload.dask, "__version__", "2025.1.0")
    assert site.set_up().refusal == ""


def test_who_does_not_see_packages_of_ones_own_is_told_that_workers_do(site: Site, own: Path) -> None:
    """As the notebook server, for whose clusters JupyterLab has a panel."""
    assert own
    assert site.set_up().refusal.startswith("labstead: dask is 2026.8.0 here and would be 2025.1.0 in its workers; ")


def test_a_kernel_of_ones_own_runs_in_workers_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = site.home / "my env"
    monkeypatch.setattr(sys, "executable", f"{prefix}/bin/python")
    monkeypatch.setattr(sys, "prefix", os.fspath(prefix))
    monkeypatch.setattr(site.preload.dask, "__file__", f"{prefix}/lib/dask/__init__.py")
    monkeypatch.setattr(site.preload.distributed, "__file__", f"{prefix}/lib/distributed/__init__.py")
    site.tell(python="3.8.1", dask="2025.1.0", distributed="2025.1.0")
    for _ in range(LIMIT):
        assert site.set_up().refusal == ""
        assert shlex.split(site.config["jobqueue.slurm.python"])[-2:] == [IMAGE, f"{prefix}/bin/python"]
    # One that sees the image's packages has the image's versions in workers.
    monkeypatch.setattr(site.preload.dask, "__file__", "/opt/jupyter/lib/dask/__init__.py")
    assert "dask is 2026.8.0 here and would be 2025.1.0" in site.set_up().refusal


def test_a_kernel_that_workers_cannot_see(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.preload, "_IN_MEMORY", ("/tmp/",))
    monkeypatch.setattr(sys, "executable", "/tmp/env/bin/python")
    assert site.set_up().refusal.startswith("labstead: its workers would not find /tmp/env/bin/python, ")


def test_who_names_a_python_knows_better(site: Site) -> None:
    site.config["jobqueue.slurm.python"] = "/sw/bin/python"
    site.tree.with_name(f"{IMAGE}.json").unlink()
    assert site.set_up().refusal == ""
    assert site.config["jobqueue.slurm.python"] == "/sw/bin/python"


def test_a_cluster_of_the_notebook_server_has_the_images_python(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own does not see what somebody has installed for notebooks."""
    monkeypatch.setitem(sys.modules, "jupyter_server.serverapp", ModuleType("jupyter_server.serverapp"))
    assert site.set_up().refusal == ""
    assert "jobqueue.slurm.python" not in site.config


# --- its dashboard, its end


@pytest.fixture
def listening() -> Iterator[Callable[[str], Any]]:
    """Give the function that makes a dashboard's server as distributed does."""
    loop = IOLoop(make_current=True)
    servers: list[HTTPServer] = []

    def listen(host: str) -> Any:
        server: Any = HTTPServer(Application())
        sockets = bind_sockets(0, host, socket.AF_INET)
        server.add_sockets(sockets)
        server.address, server.port = sockets[0].getsockname()
        servers.append(server)
        return server

    yield listen
    for server in servers:
        server.stop()
    loop.close(all_fds=True)


def _is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("address", ["tls://172.20.0.2:40000", "tcp://127.0.0.1:40000"])
def test_a_dashboard_is_for_the_session_alone(site: Site, listening: Callable[[str], Any], address: str) -> None:
    scheduler = Scheduler(address)
    scheduler.http_server, scheduler.http_application = listening(""), Application()  # type: ignore[attr-defined]
    port = scheduler.http_server.port
    assert _is_open("127.0.0.2", port)
    site.preload.dask_setup(scheduler)
    assert _is_open("127.0.0.1", port)
    assert not _is_open("127.0.0.2", port)
    assert (scheduler.http_server.address, scheduler.http_server.port) == ("127.0.0.1", port)
    scheduler.services["dashboard"].stop()
    assert not _is_open("127.0.0.1", port)


def test_a_cluster_closes_with_its_scheduler(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else jobs that still wait would wait on, and it would say that it runs."""
    mine, other = site.set_up(), Scheduler()
    mine.idle_since = time.time() - 60
    clusters = [Cluster(mine, Status.running), Cluster(mine, Status.closed), Cluster(other, Status.running)]
    site.clusters.update(clusters)
    site.preload.dask_teardown(mine)
    assert mine.callbacks == [clusters[0].close]
    assert other.callbacks == []
    assert capsys.readouterr().err == ""
    idle = site.set_up()
    idle.idle_since = 1_000_000.0
    monkeypatch.setattr(site.preload, "time", lambda: 1_000_000.0 + 3601)
    site.preload.dask_teardown(idle)
    assert capsys.readouterr().err == "labstead: a Dask cluster that had no work for 1.00 hr was closed\n"
    site.preload.dask_teardown(Scheduler())


def test_an_idle_time_of_ones_own_is_kept(site: Site) -> None:
    scheduler = Scheduler()
    scheduler.idle_timeout = 60
    site.preload.dask_setup(scheduler)
    assert scheduler.idle_timeout == 60
    site.config["labstead.idle-timeout"] = None
    assert site.set_up().idle_timeout is None
