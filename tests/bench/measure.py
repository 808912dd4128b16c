"""Measure, on a provisioned host, how long a session takes to start in three ways with the same image.

The rule: the three take turns within one run, so that whatever else the machine does falls on all of them alike, and
what is made here goes when it ends; what a run that was killed left goes when the next one begins.

Run by bench.py, as root and with labstead's own Python.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import requests

from labstead import settings
from labstead.accounts.client import Client
from labstead.contract import container_name
from labstead.hub import login_protocol
from labstead.secrets import admin_password_file, new_password
from labstead.selfcheck import SYSTEM_CA, Participant, authority

HERE = Path(__file__).resolve().parent
PREFIX = "labstead-bench-"
NETWORK = "labstead-bench"
SUBNET = "198.18.240.0/24"
"""Out of the block that RFC 2544 sets apart for benchmarks."""
GATEWAY = "198.18.240.1"
UNIT = "bench-stock-hub"
"""Not labstead-…, whose units all have the same sandbox."""
STOCK = "http://127.0.0.1:18000"
LOCK = Path("/run/lock/labstead-bench.lock")

COMPUTE = Path("/etc/labstead/compute.yml")
"""There where sessions have Slurm."""
WORKER_SECONDS = 600
"""How long all workers of the bench may take."""

ALONE = 3
"""Starts alone in each round: they are short, and one says little."""
START_SECONDS = 180
STOP_SECONDS = 60
RUN_SECONDS = 3600
"""After this systemd ends the stock hub, should nobody else do it."""


class BenchFailed(Exception):
    """Something did not start, stop or answer; there is nothing to compare."""


def say(text: str) -> None:
    """Tell what is being done."""
    print(text, flush=True)


def call(*words: str, check: bool = True, seconds: float = 120) -> str:
    """Run a program and give what it prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    if check and done.returncode:
        raise BenchFailed(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def wait_for(what: str, seconds: float, attempt: Callable[[], bool], pause: float) -> None:
    """Ask again and again, for a bounded time."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(requests.RequestException):
            if attempt():
                return
        if time.monotonic() > deadline:
            raise BenchFailed(f"{what}: still not after {seconds:.0f} s")
        time.sleep(pause)


class Way(Protocol):
    """One of the ways to come to a running notebook server."""

    title: str

    def start(self, number: int) -> None:
        """Start the server of one person and return when it answers."""

    def stop(self, number: int) -> None:
        """Stop it and return when it is gone."""


class Plain:
    """`docker run` and `jupyter server`, with nothing around them: the floor."""

    title = "docker run + jupyter server"

    def __init__(self, image: str) -> None:
        self._image = image

    def start(self, number: int) -> None:
        """Start a container and wait for the first answer."""
        address = f"198.18.240.{200 + number}"
        call(
            *("docker", "run", "--detach", "--rm", "--name", f"{PREFIX}plain-{number}"),
            *("--network", NETWORK, "--ip", address, "--user", "1000:1000", "--env", "HOME=/tmp", "--workdir", "/tmp"),
            *(self._image, "jupyter", "server", "--ip=0.0.0.0", "--IdentityProvider.token="),
        )
        url = f"http://{address}:8888/api"
        wait_for(url, START_SECONDS, lambda: requests.get(url, timeout=5).ok, 0.02)

    def stop(self, number: int) -> None:
        """Remove the container."""
        call("docker", "rm", "--force", f"{PREFIX}plain-{number}", check=False)


class Hub:
    """A JupyterHub, asked through its API as a user's browser would ask it, by way of its proxy.

    :param url: where people reach it
    :param token: of somebody who may start servers for others
    :param names: of the people, the first has number 0
    """

    def __init__(self, title: str, url: str, token: str, names: Sequence[str], ca: Path | bool = True) -> None:
        self.title = title
        self._names = names
        self._api = f"{url}/hub/api"
        self._ca = os.fspath(ca) if isinstance(ca, Path) else ca
        self._headers = {"Authorization": f"token {token}"}

    def ask(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Make one request."""
        with requests.Session() as http:
            http.trust_env = False
            http.verify = self._ca
            return http.request(method, self._api + path, headers=self._headers, timeout=START_SECONDS, **kwargs)

    def start(self, number: int) -> None:
        """Ask for a server. The hub answers 201 when it is ready, or 202 after ten seconds: then its events tell."""
        name = self._names[number]
        answer = self.ask("POST", f"/users/{name}/server")
        if answer.status_code == 202:
            self._follow(name)
        elif answer.status_code != 201:
            raise BenchFailed(f"{self.title}: start of {name}: {answer.status_code} {answer.text[:300]}")

    def _follow(self, name: str) -> None:
        events = self.ask("GET", f"/users/{name}/server/progress", stream=True)
        for line in events.iter_lines():
            event = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
            if event.get("ready"):
                return
            if event.get("failed"):
                raise BenchFailed(f"{self.title}: start of {name}: {event.get('message')}")
        raise BenchFailed(f"{self.title}: start of {name}: no more events ({events.status_code})")

    def stop(self, number: int) -> None:
        """Stop a server."""
        name = self._names[number]

        def gone() -> bool:
            # 204: stopped; 404: no such user; anything else: in the midst of something.
            return self.ask("DELETE", f"/users/{name}/server").status_code in (204, 404)

        wait_for(f"{self.title}: stop of {name}", STOP_SECONDS, gone, 0.2)

    def add_people(self) -> None:
        """Make the people known to the hub."""
        known = {user["name"] for user in self.ask("GET", "/users").json()}
        if missing := [name for name in self._names if name not in known]:
            answer = self.ask("POST", "/users", json={"usernames": missing})
            if answer.status_code != 201:
                raise BenchFailed(f"{self.title}: people: {answer.status_code} {answer.text[:300]}")

    def remove_people(self) -> None:
        """Stop their servers and make the hub forget them."""
        for number, name in enumerate(self._names):
            self.stop(number)
            self.ask("DELETE", f"/users/{name}")


# --- what has to be there


def remove_leftovers() -> None:
    """Remove the stock hub, containers and the network of this run or of one before."""
    call("systemctl", "stop", UNIT, check=False)
    call("systemctl", "reset-failed", UNIT, check=False)
    found = call("docker", "ps", "--all", "--quiet", "--filter", f"name=^{PREFIX}").split()
    if found:
        call("docker", "rm", "--force", *found, check=False)
    call("docker", "network", "rm", NETWORK, check=False)
    shutil.rmtree(HERE / "stock", ignore_errors=True)
    for folder in HERE.parent.glob("labstead-bench.*"):
        if folder != HERE:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def stock_hub(image: str, names: Sequence[str]) -> Iterator[Hub]:
    """Run a stock JupyterHub from an environment of its own, of the same versions as labstead's."""
    folder = HERE / "stock"
    folder.mkdir(mode=0o700)
    venv = folder / "venv"
    say("installing the stock hub")
    call(sys.executable, "-m", "venv", str(venv))
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    call(*pip, "--cert", os.fspath(SYSTEM_CA), "--requirement", str(HERE / "requirements.lock"), seconds=900)
    token = secrets.token_hex(32)
    environment = {
        "BENCH_GATEWAY": GATEWAY,
        "BENCH_IMAGE": image,
        "BENCH_NETWORK": NETWORK,
        "BENCH_PROXY": " ".join(_proxy_command()),
        "BENCH_TOKEN": token,
        "PATH": f"{venv}/bin:/usr/bin:/bin",
    }
    file = folder / "environment"
    file.touch(mode=0o600)
    file.write_text("".join(f'{key}="{value}"\n' for key, value in environment.items()), encoding="utf-8")
    call(
        *("systemd-run", "--quiet", "--collect", f"--unit={UNIT}", f"--property=RuntimeMaxSec={RUN_SECONDS}"),
        *(f"--property=EnvironmentFile={file}", f"--property=WorkingDirectory={folder}"),
        *(str(venv / "bin" / "jupyterhub"), "--config", str(HERE / "stock_hub.py")),
    )
    hub = Hub("stock JupyterHub + DockerSpawner", STOCK, token, names)
    try:
        wait_for("stock hub", 60, lambda: hub.ask("GET", "/").ok, 0.2)
    except BenchFailed as error:
        raise BenchFailed(f"{error}\n{call('journalctl', '--unit', UNIT, '--lines=30', '--no-pager')}") from None
    # Whatever is left of it goes with its folder and its containers.
    hub.add_people()
    yield hub


def _proxy_command() -> list[str]:
    """Give the command of labstead's own configurable-http-proxy, without its arguments."""
    words = call("systemctl", "show", "--property=ExecStart", "--value", "labstead-proxy")
    arguments = words.partition("argv[]=")[2].partition(" ;")[0].split()
    flags = [place for place, word in enumerate(arguments) if word.startswith("--")]
    return arguments[: flags[0]] if flags else arguments


@contextlib.contextmanager
def labstead_hub(names: Sequence[str]) -> Iterator[Hub]:
    """Give labstead's hub, with accounts for some people and a token of its administrator."""
    hub = settings.load_hub()
    admin = hub.admins[0]
    ca = authority()
    participant = Participant(hub.url, ca)
    participant.log_in(admin, admin_password_file(admin).read_text(encoding="utf-8").strip())
    participant.get("/hub/home")
    tokens = f"/hub/api/users/{admin}/tokens"
    model = participant.post(tokens, json={"note": "bench", "expires_in": RUN_SECONDS}).json()
    way = Hub("labstead", hub.url.rstrip("/"), model["token"], names, ca)
    try:
        way.remove_people()
        accounts = Client()
        for name in names:
            accounts.create(name)
            # Whoever never signed up nor was approved has no session.
            login_protocol.set_login(name, new_password(), replace=True)
        way.add_people()
        yield way
    finally:
        try:
            way.remove_people()
        finally:
            remove_accounts(names)
            way.ask("DELETE", f"/users/{admin}/tokens/{model['id']}")


def remove_accounts(names: Sequence[str]) -> None:
    """Remove the Unix accounts; the ledger keeps their uids, and gives them the same ones the next time."""
    home_root = settings.load_sessions().home_root
    for name in names:
        call("userdel", name, check=False)
        call("groupdel", name, check=False)
        shutil.rmtree(home_root / name, ignore_errors=True)
        shutil.rmtree(Path("/run/labstead/sessions") / name, ignore_errors=True)


# --- measuring


def timed(way: Way, number: int) -> float:
    """Start one server and give the seconds until it was ready."""
    begin = time.monotonic()
    way.start(number)
    return time.monotonic() - begin


def together(way: Way, count: int) -> list[float]:
    """Start some servers at once, give the seconds that each took, and stop them."""
    with ThreadPoolExecutor(count) as pool:
        seconds = list(pool.map(lambda number: timed(way, number), range(count)))
        list(pool.map(way.stop, range(count)))
    return seconds


def measure(ways: Sequence[Way], rounds: int, at_once: int) -> dict[str, dict[str, list[list[float]]]]:
    """Give, for each way, the seconds of each round's starts, alone and at once."""
    found: dict[str, dict[str, list[list[float]]]] = {way.title: {"alone": [], "at_once": []} for way in ways}
    for way in ways:
        together(way, 1)  # fills the page cache and counts for nothing
    for number in range(1, rounds + 1):
        alone: dict[str, list[float]] = {way.title: [] for way in ways}
        for _ in range(ALONE):
            for way in random.sample(ways, len(ways)):
                alone[way.title] += together(way, 1)
        for way in random.sample(ways, len(ways)):
            found[way.title]["alone"].append(alone[way.title])
            found[way.title]["at_once"].append(together(way, at_once))
        say(f"round {number} of {rounds}")
    return found


# Each pair has a cluster of its own: Dask gives names of workers again, and takes a new one for the lost one of fifteen
# seconds ago.
_WORKERS = """
import sys, time
from dask.distributed import Client
from dask_jobqueue import SLURMCluster
print("ready", flush=True)
for line in sys.stdin:
    if line == "scale\\n":
        cluster = SLURMCluster()
        client = Client(cluster)
        with open("bench-worker.sh", "w") as script:
            script.write(cluster.job_script())
        begin = time.time()
        cluster.scale(1)
        client.wait_for_workers(1, timeout=120)
        print(time.time() - begin, flush=True)
        cluster.scale(0)
        while client.scheduler_info()["workers"]:
            time.sleep(0.05)
    else:
        client.wait_for_workers(1, timeout=120)
        print(time.time() - float(line), flush=True)
        client.close()
        cluster.close()
    print("gone", flush=True)
"""


def measure_workers(hub: Hub, name: str, pairs: int) -> dict[str, list[float]]:
    """Give the seconds until a Dask worker works: by `scale(1)` in a session, and by sbatch of its script by hand.

    The two take turns. By hand it is on the host, with neither Dask nor labstead in between.
    """
    found: dict[str, list[float]] = {"scale(1)": [], "sbatch by hand": []}
    home = settings.load_sessions().home_root / name
    hub.start(0)
    words = ("docker", "exec", "--interactive", "--user", call("id", "--user", name).strip(), container_name(name))
    command = ("timeout", "--kill-after=10", str(WORKER_SECONDS), *words, "python3", "-c", _WORKERS)
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
            assert session.stdin is not None and session.stdout is not None  # noqa: PT018 - for the type checker

            def hear(what: str) -> str:
                line = session.stdout.readline().strip()
                if not line:
                    raise BenchFailed(f"{what}: the session ended before there was a worker")
                return line

            hear("cluster")
            for number in range(pairs + 1):  # the first pair fills the page cache and counts for nothing
                for way, seconds in found.items():
                    begin = "scale"
                    if way != "scale(1)":
                        begin = repr(time.time())
                        sbatch = ("sbatch", f"--chdir={home}", str(home / "bench-worker.sh"))
                        call("runuser", "--user", name, "--", *sbatch)
                    session.stdin.write(f"{begin}\n")
                    session.stdin.flush()
                    took = float(hear(way))
                    hear(way)
                    call("scancel", "--user", name)
                    wait_for(
                        "end of a worker", 60, lambda: not call("squeue", "--noheader", "--user", name).strip(), 0.1
                    )
                    if number:
                        seconds.append(took)
            session.stdin.close()
    finally:
        hub.stop(0)
    say("workers measured")
    return found


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--json", type=Path, required=True)
    words = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lock = LOCK.open("w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("bench: another run of it is at work on this host", file=sys.stderr)
        return 1
    image = settings.load_sessions().images[0].reference
    names = [f"bench-{number}" for number in range(1, words.at_once + 1)]
    remove_leftovers()
    try:
        call("docker", "network", "create", "--subnet", SUBNET, "--gateway", GATEWAY, NETWORK)
        with stock_hub(image, names) as stock, labstead_hub(names) as labstead:
            load = os.getloadavg()[0]
            found = measure([Plain(image), stock, labstead], words.rounds, words.at_once)
            workers = measure_workers(labstead, names[0], words.rounds) if COMPUTE.exists() else None
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        remove_leftovers()
    result = {
        "image": image,
        "cores": os.cpu_count(),
        "load_before": load,
        "at_once": words.at_once,
        "seconds": found,
        "workers": workers,
    }
    words.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
