"""The self-check: one whole session, from log-in to a line of Python, through the address that people use.

Where sessions have Slurm, the code in the kernel asks it for its partitions, and on demand has a Dask worker compute.

The one rule: it goes where a participant goes, and leaves nothing behind whether it succeeds or not. It makes the
account `labstead-canary`, logs in with a password, starts a session, runs code in a kernel over the WebSocket, looks
at what that code saw and wrote, and removes session, user, account and home.
"""

import asyncio
import json
import pwd
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from labstead import secrets
from labstead.accounts.client import Client
from labstead.accounts.protocol import Account
from labstead.errors import LabsteadError
from labstead.hub import login_protocol
from labstead.names import CANARY
from labstead.relay.client import Client as Relay
from labstead.settings import Sessions

_TLS = Path("/etc/labstead/tls")
SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")
"""What this machine trusts; requests would use a list of its own, without the site's authorities."""

_HUB_PATIENCE_SECONDS = 60
"""How long the hub may take to answer, as it does right after a start."""
_REQUEST_SECONDS = 60
_CODE_SECONDS = 60
_GONE_SECONDS = 60
_WORKER_SECONDS = 300
"""How long Slurm may let a worker wait."""

PROBE_FILE = "labstead-selfcheck"
"""What the code writes into its home."""
_PROBE = """
import ctypes, errno, json, os, pathlib
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
pathlib.Path("labstead-selfcheck").write_text("canary")
# FS_IOC_FSSETXATTR, one of those with which one leaves a limit; see labstead.seccomp.
ctypes.CDLL(None, use_errno=True).ioctl(99, ctypes.c_ulong(0x401c5820))
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "groups": sorted(os.getgroups()), "home": os.getcwd(),
    "capabilities": status["CapEff"], "no_new_privileges": status["NoNewPrivs"],
    "umask": status["Umask"], "ioctl_fssetxattr": errno.errorcode[ctypes.get_errno()],
}))
"""


_SLURM = """
import json, subprocess
done = subprocess.run(["sinfo", "--noheader", "--format=%R %T %D"], capture_output=True, text=True, timeout=50)
print(json.dumps({"exit": done.returncode, "partitions": done.stdout.splitlines(), "stderr": done.stderr}))
"""
_WORKER = """
import json, os, pathlib, subprocess
import dask
from dask_jobqueue import SLURMCluster
from distributed import Client

def squeue():
    words = ["squeue", "--me", "--noheader", "--format=%T %r %N"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=50)
    return [line.strip() for line in done.stdout.splitlines()]

def logs():
    files = sorted(pathlib.Path(dask.config.get("jobqueue.slurm.log-directory")).expanduser().glob("*"))
    return [line for file in files for line in file.read_text(errors="replace").splitlines()[-5:]]

with SLURMCluster() as cluster, Client(cluster) as client:
    cluster.scale(1)
    try:
        client.wait_for_workers(1, timeout=SECONDS)
    except TimeoutError:
        raise RuntimeError("; ".join(filter(None, ["no worker came", *squeue(), *logs()])))
    seen = {"sum": client.submit(sum, range(5)).result(timeout=60), "uid": client.submit(os.getuid).result(timeout=60)}
print(json.dumps(seen))
""".replace("SECONDS", str(_WORKER_SECONDS))


@dataclass(frozen=True)
class Step:
    """One thing that was checked."""

    name: str
    seconds: float


class CheckFailed(LabsteadError):
    """A step that did not come out right."""


def _wait(what: str, seconds: float, attempt: Callable[[], Any]) -> Any:
    """Try until there is a result, for a bounded time."""
    deadline = time.monotonic() + seconds
    pause = 0.1
    while True:
        try:
            if result := attempt():
                return result
            reason = "not yet"
        except requests.exceptions.SSLError as error:
            raise CheckFailed(f"{what}: {error}; give the authority to trust with --ca") from error
        except requests.RequestException as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise CheckFailed(f"{what}: still not after {seconds:.0f} s ({reason})")
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


def _good(answer: requests.Response, what: str) -> requests.Response:
    if answer.status_code >= 400:
        words = " ".join(answer.text.split())[:300]
        raise CheckFailed(f"{what}: {answer.request.method} {answer.url} answers {answer.status_code}: {words}")
    return answer


def authority() -> Path:
    """Give the file with the authorities to trust: the machine's own where it made the certificate that is served."""
    own = (_TLS / "live.crt").is_symlink() and (_TLS / "live.crt").readlink().name == "site.crt"
    return _TLS / "ca.crt" if own else SYSTEM_CA


def _owner(file: Path, account: Account) -> int:
    """Give a file's owner, asked as its owner: on a network file system root may see nothing in a home.

    :raises CheckFailed: when the file is not there
    """
    done = subprocess.run(
        ["stat", "--format=%u", "--", file],
        capture_output=True,
        text=True,
        timeout=_REQUEST_SECONDS,
        check=False,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        start_new_session=True,
        cwd="/",
    )
    if done.returncode:
        raise CheckFailed(f"its file is not on the host: {' '.join(done.stderr.split())}")
    return int(done.stdout)


class Participant:
    """Somebody with a browser's cookies.

    :param url: the hub's public address
    :param ca: file with the certificates to trust
    """

    def __init__(self, url: str, ca: Path) -> None:
        self._url = url.rstrip("/")
        self._ca = ca
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = str(ca)

    def _xsrf(self, path: str) -> str:
        """Give the XSRF token whose cookie is the nearest to a path, as a browser's script would read it."""
        found = [c for c in self._http.cookies if c.name == "_xsrf" and path.startswith(c.path)]
        if not found:
            raise CheckFailed(f"no XSRF cookie for {path}")
        return max(found, key=lambda cookie: len(cookie.path)).value or ""

    def get(self, path: str) -> requests.Response:
        """Get a page, with redirects."""
        return self._http.get(self._url + path, timeout=_REQUEST_SECONDS)

    def post(self, path: str, **kwargs: Any) -> requests.Response:
        """Post as a page's script would."""
        base = urlsplit(self._url).path
        headers = {"X-XSRFToken": self._xsrf(base + path)}
        return self._http.post(self._url + path, headers=headers, timeout=_REQUEST_SECONDS, **kwargs)

    def is_there(self) -> bool:
        """Tell whether the hub answers."""
        return self.get("/hub/health").ok

    def log_in(self, name: str, password: str) -> None:
        """Log in with the form."""
        _good(self.get("/hub/login"), "log-in page")
        path = urlsplit(self._url).path + "/hub/login"
        form = {"username": name, "password": password, "_xsrf": self._xsrf(path)}
        answer = self._http.post(f"{self._url}/hub/login", data=form, timeout=_REQUEST_SECONDS, allow_redirects=False)
        if answer.status_code != 302:
            raise CheckFailed(f"log-in: answers {answer.status_code} instead of a redirect")

    def start(self, name: str, seconds: float) -> None:
        """Start a session and wait until it answers."""
        _good(self.post(f"/hub/api/users/{name}/server"), "start of a session")

        def ready() -> bool:
            model = _good(self.get(f"/hub/api/users/{name}"), "user model").json()
            server = model["servers"].get("", {})
            if not server and not model.get("pending"):
                raise CheckFailed("start of a session: it failed; see `journalctl -u labstead-hub`")
            return bool(server.get("ready"))

        _wait("start of a session", seconds, ready)

    def run(self, name: str, code: str, seconds: float = _CODE_SECONDS) -> str:
        """Run code in a new kernel of a running session and give what it prints.

        :param seconds: how long it may take
        """
        _good(self.get(f"/user/{name}/lab"), "JupyterLab")
        kernel = _good(self.post(f"/user/{name}/api/kernels", json={"name": "python3"}), "start of a kernel").json()
        return asyncio.run(self._execute(f"/user/{name}/api/kernels/{kernel['id']}/channels", code, seconds))

    async def _execute(self, path: str, code: str, seconds: float) -> str:
        address = "wss" if self._url.startswith("https") else "ws"
        full = self._url + path
        request = requests.Request("GET", full, cookies=self._http.cookies).prepare()
        context = ssl.create_default_context(cafile=self._ca) if address == "wss" else None
        cookie = request.headers.get("Cookie", "")
        message_id = uuid.uuid4().hex
        message = {
            "header": {
                "msg_id": message_id,
                "msg_type": "execute_request",
                "username": CANARY,
                "session": uuid.uuid4().hex,
                "version": "5.3",
            },
            "parent_header": {},
            "metadata": {},
            "channel": "shell",
            "content": {"code": code, "silent": False, "store_history": False, "allow_stdin": False},
        }
        printed = ""
        uri = address + full[full.index(":") :]
        # The asyncio client: the one with threads reads and writes one TLS connection at the same time, which OpenSSL
        # does not allow, and then loses a handshake now and then.
        # proxy=None: the hub is this machine; a site's way to the internet does not lead to it.
        async with (
            asyncio.timeout(seconds),
            connect(
                uri, ssl=context, additional_headers={"Cookie": cookie}, open_timeout=_CODE_SECONDS, proxy=None
            ) as socket,
        ):
            await socket.send(json.dumps(message))
            async for text in socket:
                reply = json.loads(text)
                if reply.get("parent_header", {}).get("msg_id") != message_id:
                    continue
                if reply["msg_type"] == "stream":
                    printed += reply["content"]["text"]
                elif reply["msg_type"] == "error":
                    raise CheckFailed(f"code in a kernel: {reply['content']['evalue']}")
                elif reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
                    return printed
        raise CheckFailed("code in a kernel: the connection was closed before it ended")


class _Cleaner:
    """Removes what the self-check made, through the hub's own API."""

    def __init__(self, url: str, ca: Path) -> None:
        self._api = url.rstrip("/") + "/hub/api"
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.verify = str(ca)
        self._http.headers["Authorization"] = f"token {secrets.selfcheck_token()}"

    def _stop_server(self) -> bool:
        answer = self._http.delete(f"{self._api}/users/{CANARY}/server", timeout=_REQUEST_SECONDS)
        # 204: stopped; 404: no such user; 202: stopping; 400: pending or not running.
        if answer.status_code in (204, 404):
            return True
        model = self._http.get(f"{self._api}/users/{CANARY}", timeout=_REQUEST_SECONDS).json()
        return not model.get("servers")

    def __call__(self) -> None:
        _wait("stop of the canary's session", _GONE_SECONDS, self._stop_server)
        answer = self._http.delete(f"{self._api}/users/{CANARY}", timeout=_REQUEST_SECONDS)
        if answer.status_code != 404:
            _good(answer, "removal of the canary's user")


def _compare(seen: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        if seen.get(key) != value:
            raise CheckFailed(f"in a session {key} is {seen.get(key)!r} where {value!r} was expected")


def _answer(printed: str) -> dict[str, Any]:
    """Read what code printed last, after what libraries may have to say."""
    answer: dict[str, Any] = json.loads(printed.strip().rpartition("\n")[2])
    return answer


def _check_slurm(participant: Participant) -> None:
    seen = _answer(participant.run(CANARY, _SLURM))
    if seen["exit"] or not seen["partitions"]:
        words = " ".join(seen["stderr"].split()) or "it names no partition"
        raise CheckFailed(f"sinfo in a session: {words}")


def _check_worker(participant: Participant, account: Account) -> None:
    """Have a Dask worker compute, on whichever node Slurm gives."""
    _compare(
        _answer(participant.run(CANARY, _WORKER, _WORKER_SECONDS + 3 * _CODE_SECONDS)), {"sum": 10, "uid": account.uid}
    )


def _end_jobs(relay: Relay) -> None:
    """End what the canary has in Slurm, which would write into its home while that is removed."""
    relay.end(CANARY, "all")
    _wait("end of the canary's jobs", _GONE_SECONDS, lambda: relay.jobs(CANARY).all == 0)


def run(url: str, ca: Path, sessions: Sessions, worker: bool = False) -> list[Step]:
    """Make the whole journey once.

    :param url: the hub's public address
    :param ca: file with the certificates to trust
    :param sessions: sessions.yml; where it has Slurm, Slurm is asked in the session
    :param worker: whether a Dask worker is started in Slurm
    :return: the steps and how long each took
    :raises LabsteadError: at the first step that fails; everything is removed all the same
    """
    steps: list[Step] = []

    @contextmanager
    def step(name: str) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        except TimeoutError as error:
            raise CheckFailed(f"{name}: no answer in time") from error
        except (requests.RequestException, WebSocketException, OSError, ValueError) as error:
            raise CheckFailed(f"{name}: {error}") from error
        steps.append(Step(name, round(time.monotonic() - begin, 3)))

    participant, accounts, clean = Participant(url, ca), Client(), _Cleaner(url, ca)
    with step("hub answers"):
        _wait(f"hub at {url}", _HUB_PATIENCE_SECONDS, participant.is_there)
    with step("leftovers"):  # of a check that was cut off
        clean()
        accounts.remove_canary()

    def remove() -> None:
        with step("removal"):
            clean()
            if worker:
                _end_jobs(Relay())
            accounts.remove_canary()

    try:
        password = secrets.new_password()
        with step("account"):
            account = accounts.make_canary()
            login_protocol.set_login(CANARY, password, replace=True)
        with step("log-in"):
            participant.log_in(CANARY, password)
        with step("session"):
            participant.start(CANARY, sessions.start_timeout)
        with step("kernel"):
            seen = json.loads(participant.run(CANARY, _PROBE))
        with step("identity"):
            home = pwd.getpwnam(CANARY).pw_dir
            expected = {
                "uid": account.uid,
                "gid": account.gid,
                "groups": [account.gid],
                "home": home,
                "capabilities": "0000000000000000",
                "no_new_privileges": "1",
                "umask": "0002",
                "ioctl_fssetxattr": "EPERM",
            }
            _compare(seen, expected)
            _compare({"owner of its file": _owner(Path(home, PROBE_FILE), account)}, {"owner of its file": account.uid})
        if sessions.compute is not None:
            with step("Slurm"):
                _check_slurm(participant)
        if worker:
            with step("Dask worker"):
                _check_worker(participant, account)
    except BaseException as error:
        try:
            remove()
        except LabsteadError as second:
            raise CheckFailed(f"{error}; and then {second}") from error
        raise
    remove()
    return steps
