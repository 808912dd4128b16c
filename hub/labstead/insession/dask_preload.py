"""What every scheduler of Dask in a session loads (distributed.scheduler.preload).

It is for schedulers that others on the machine or in the cluster can reach, those of `SLURMCluster`. Before such a
cluster submits anything it sees to what its workers need, and says in one sentence what is wrong where they could not
work. A `LocalCluster` is left alone; its dashboard, too, is for this session alone.

The one rule: it makes life easier and keeps nobody from anything: whoever leaves it out has a cluster without it. What
must hold is held elsewhere: by the certificates, and by the relay's limits.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shlex
import site
import sys
from importlib.metadata import distributions
from pathlib import Path
from time import time
from typing import Any

import dask
import distributed
from dask.utils import format_time, parse_timedelta
from distributed.comm import get_address_host
from distributed.deploy.spec import SpecCluster
from tornado.httpserver import HTTPServer

_KEYS = ("ca.pem", "cert.pem", "key.pem")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_IN_MEMORY = ("/tmp/", "/var/tmp/", "/run/", "/dev/shm/")  # noqa: S108 - names of what jobs have for themselves


class _Refused(Exception):
    """Why there is no cluster; a sentence."""


class _Refusal:
    """Stands where a cluster looks for the address of its scheduler, and raises as it looks.

    An error in a preload is logged and forgotten, and one that ends the scheduler comes out as another one, about a
    server that does not run. This one comes out as `RuntimeError: Cluster failed to start: …` (SpecCluster._start).
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __bool__(self) -> bool:
        raise RuntimeError(self._reason)


def _memory() -> Path:
    return Path(os.environ["XDG_RUNTIME_DIR"], "labstead", "dask")


def _take_place(limit: int) -> Any:
    """Take one of the session's places for clusters.

    It is a lock, so that it is free again when the scheduler closes or its process ends, however it does.

    :return: the locked file
    :raises _Refused: when there is none left
    """
    for number in range(limit):
        file = (_memory() / f"cluster-{number}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            return file
    raise _Refused(
        f"your session has {limit} Dask clusters, which is as many as it may; "
        "close one of them (cluster.close()) or stop the notebook that made it"
    )


def _hand_out_keys(target: Path) -> None:
    """Put the session's certificates where workers find them.

    :raises _Refused: when the home has no room
    """
    files = {target / name: (_memory() / name).read_bytes() for name in _KEYS}
    try:
        if all(path.is_file() and path.read_bytes() == data for path, data in files.items()):
            return
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(0o700)
        for path, data in files.items():
            new = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                new.touch(mode=0o600, exist_ok=False)
                new.write_bytes(data)
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)
    except OSError as error:
        raise _Refused(
            f"the certificates of its workers cannot be written to {target} ({error.strerror}); "
            "see `quota` whether your home is full"
        ) from None


def _release(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _check_versions(image: dict[str, str | None], of_image: bool) -> None:
    """See that workers will run what runs here.

    :param image: what the session's image has
    :param of_image: whether this Python is the image's
    :raises _Refused: when they would not
    """
    if image["python"] is None:
        return  # nobody could tell when it was flattened
    pairs: list[tuple[str, str, str | None]] = []
    if of_image:
        pairs.append(("Python", _release(sys.version.split()[0]), _release(image["python"])))
    for module in (dask, distributed):
        name = module.__name__
        # What somebody has installed for themselves comes before the image's own; the notebook server does not see it.
        own = [found.version for found in distributions(name=name, path=[site.getusersitepackages()])]
        if of_image or not Path(module.__file__).is_relative_to(sys.prefix):
            pairs.append((name, module.__version__, own[0] if own else image[name]))
    for name, here, there in pairs:
        if here != there:
            raise _Refused(
                f"{name} is {here} here and would be {there or 'missing'} in its workers; "
                "use the image's own kernel, or one that you made in your home"
            )


def _choose_python() -> None:
    """Have workers run the Python that runs here.

    :raises _Refused: when they could not
    """
    default, executable = os.environ["DASK_JOBQUEUE__SLURM__PYTHON"], sys.executable
    own = shlex.join([*shlex.split(default)[:-1], executable])
    if dask.config.get("jobqueue.slurm.python", default) not in (default, own):
        return  # somebody knows better
    image, tree = os.environ["LABSTEAD_IMAGE"], Path(os.environ["LABSTEAD_IMAGES_ROOT"], "images")
    try:
        versions = json.loads((tree / f"{image}.json").read_bytes())
    except FileNotFoundError:
        raise _Refused("jobs no longer have the image of your session; stop your session and start it anew") from None
    if executable.startswith(_IN_MEMORY):
        raise _Refused(f"its workers would not find {executable}, which is in this session alone; move it to your home")
    _check_versions(versions, of_image=Path(f"{tree}/{image}{executable}").exists())
    # The notebook server's own Python does not see what people have installed; its workers run the image's default.
    if "jupyter_server.serverapp" not in sys.modules:
        dask.config.set({"jobqueue.slurm.python": own})


def _is_here_alone(address: str) -> bool:
    return address.startswith("inproc://") or get_address_host(address) in _LOOPBACK


def _keep_dashboard_here(scheduler: Any) -> None:
    """Move a dashboard that listens on all addresses, as that of a `LocalCluster` does, to this session alone.

    It asks for no password, and jobs on the host reach sessions. JupyterLab and the hub show it by way of the notebook
    server, which asks who it is.
    """
    old = scheduler.http_server
    if old.address in _LOOPBACK or old.ssl_options is not None:
        return
    old.stop()
    new: Any = HTTPServer(scheduler.http_application)
    new.listen(old.port, "127.0.0.1")
    new.address, new.port = "127.0.0.1", old.port
    scheduler.http_server = scheduler.services["dashboard"] = new


def _prepare(scheduler: Any) -> None:
    if scheduler.idle_timeout is None:
        scheduler.idle_timeout = parse_timedelta(dask.config.get("labstead.idle-timeout", None))
    try:
        if not scheduler.address.startswith("tls://"):
            raise _Refused("without TLS everybody on this machine could use it; leave out the protocol")
        _choose_python()
        _hand_out_keys(Path(pwd.getpwuid(os.getuid()).pw_dir, ".local/share/labstead/dask"))
        scheduler.labstead_place = _take_place(int(os.environ["LABSTEAD_CLUSTERS"]))
    except _Refused as refused:
        scheduler.external_address = _Refusal(f"labstead: {refused}")


def dask_setup(scheduler: Any) -> None:
    """Prepare for the workers of a scheduler that has just started to listen."""
    if "LABSTEAD_IMAGE" not in os.environ:
        return
    if not _is_here_alone(scheduler.address):
        _prepare(scheduler)
    _keep_dashboard_here(scheduler)


def dask_teardown(scheduler: Any) -> None:
    """Give back the place of a scheduler that closes, and close its cluster with it where that goes on."""
    if (place := getattr(scheduler, "labstead_place", None)) is None:
        return
    place.close()
    idle, since = scheduler.idle_timeout, scheduler.idle_since
    if idle and since and time() > since + idle:
        sys.stderr.write(f"labstead: a Dask cluster that had no work for {format_time(idle)} was closed\n")
    for cluster in list(SpecCluster._instances):
        if cluster.scheduler is scheduler and cluster.status is distributed.Status.running:
            # Its workers end with the scheduler; jobs that still wait would wait on.
            scheduler.loop.add_callback(cluster.close)
