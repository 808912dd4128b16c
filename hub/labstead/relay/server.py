"""The relay at its socket: who asks, and many at a time.

The one rule: a caller is heard only once the kernel has said who it is and the accounts service that this is somebody
of the hub's whose account is open. One person has few places, so that nobody waits for what somebody else does.
"""

import errno
import hashlib
import logging
import os
import pwd
import select
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from labstead import identity, peer, settings
from labstead.accounts.client import Client as Accounts
from labstead.errors import AccountRefused, BadInput, LabsteadError, Refusal
from labstead.identity import FIRST_PERSON, Identity
from labstead.relay import completed, limits, options, protocol
from labstead.relay.commands import ROOT, Job, Slurm
from labstead.relay.running import Outcome
from labstead.settings import Compute, Sessions

IDLE_SECONDS = 3600.0
"""Without a request for so long the process ends; systemd starts it again with the next one, which waits longer."""
_PATIENCE_SECONDS = 10.0
"""How long a caller may take to send their line, and again their script."""
_ANSWER_SECONDS = 30.0
"""How long a caller may take to read the answer."""
_PLACES = 32
_PLACES_PER_UID = 2
"""How many callers are heard at the same time, and how many of the same uid."""
_WAITING = 1024
_WAITING_PER_UID = 64
"""How many more may wait; that costs an open file each, and no thread."""
_DRAIN_SECONDS = 50.0
"""How long those who were let in before the end are waited for."""
_CHILDREN = 16
"""How many commands run at the same time."""
_HUB_THREADS = 4
_KNOWN_SECONDS = 5.0
"""How long we remember who somebody is: somebody whose account is closed meanwhile may ask for so long."""
_MOST_KNOWN = 4096
_NOBODY = 65534
"""The kernel's number for users who are not of this machine's user namespace (user_namespaces(7))."""

_SUBMISSIONS_PER_SECOND = 5
_QUESTIONS_PER_SECOND = 10
_BURST = 60
"""Calls of one person in the long run, and at once."""
_SLOW_SECONDS = 20.0
"""How long a call that comes too soon is kept waiting, before it is refused."""
_MOST_WORDS = 500
"""Characters of what somebody sent in a line of the journal."""

log = logging.getLogger("labstead.relay")


class _Hurried(Exception):
    """The caller has to come again."""


class _Caller:
    """One connection: reads lines and scripts within a time, and sends the answer.

    :param connection: from accept(2)
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def _more(self, deadline: float) -> None:
        """Read on.

        :raises TimeoutError: when the caller is too slow
        :raises ConnectionError: when they are gone
        """
        if (left := deadline - time.monotonic()) <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        part = self._connection.recv(64 * 1024)
        if not part:
            raise ConnectionError("hung up")
        self._buffer += part

    def line(self) -> bytes:
        """Read a line, of which all is given that came if it is too long."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while b"\n" not in self._buffer and len(self._buffer) <= protocol.MAX_LINE:
            self._more(deadline)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def script(self, index: int | None) -> bytes:
        """Ask for a script.

        :raises BadInput: when it is too large, or is not sent as it should
        """
        self.send(protocol.NeedScript(index=index).model_dump_json().encode() + b"\n")
        line = self.line()
        try:
            size = protocol.Script.model_validate_json(line).script
        except ValidationError:
            raise BadInput("that is not how a script is sent") from None
        if size > protocol.MAX_SCRIPT:
            raise BadInput(f"the script has {size} bytes; at most {protocol.MAX_SCRIPT} are passed on")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        parts, count = [self._buffer[:size]], min(len(self._buffer), size)
        self._buffer = b""
        while count < size:
            self._more(deadline)
            parts.append(self._buffer[: size - count])
            count += len(parts[-1])
            self._buffer = b""
        return b"".join(parts)

    def send(self, *parts: bytes) -> None:
        """Send bytes; :raises OSError: when the caller is gone or too slow."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        for part in parts:
            view = memoryview(part)
            while view:
                self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
                view = view[self._connection.send(view) :]


def _head(outcome: Outcome) -> bytes:
    done = protocol.Done(exit=outcome.exit, stdout=len(outcome.stdout), stderr=len(outcome.stderr))
    return done.model_dump_json().encode() + b"\n"


def _refusal(command: str, text: str, code: int = protocol.EXIT_REFUSED) -> Outcome:
    return Outcome(code, stderr=f"{command}: labstead: {' '.join(text.split())}\n".encode("utf-8", "replace"))


class People:
    """Who somebody is, remembered for a moment.

    :param accounts: the accounts service
    :param sessions: sessions.yml, for the folders of groups and scratch
    """

    def __init__(self, accounts: Accounts, sessions: Sessions) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._lock = threading.Lock()
        self._known: dict[int, tuple[float, Identity | AccountRefused]] = {}

    def who(self, uid: int) -> Identity:
        """Give the person of a uid, with their folders.

        :raises AccountRefused: when nobody of the hub's has it, or their account is closed
        :raises LabsteadError: when the accounts service does not say
        """
        if uid < FIRST_PERSON or uid == _NOBODY:
            raise AccountRefused(Refusal.NOT_ALLOWED, f"uid {uid} is nobody's who has a session")
        with self._lock:
            since, known = self._known.get(uid, (0.0, None))
        if known is None or time.monotonic() - since >= _KNOWN_SECONDS:
            known = self._ask(uid)
            with self._lock:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[uid] = (time.monotonic(), known)
        if isinstance(known, AccountRefused):
            raise AccountRefused(known.code, str(known))
        return known

    def _ask(self, uid: int) -> Identity | AccountRefused:
        try:
            person = self._accounts.identify(uid=uid)
        except AccountRefused as refused:
            return refused
        if person.uid != uid or person.gid < FIRST_PERSON:
            return AccountRefused(Refusal.NOT_ALLOWED, f"uid {uid} is nobody's who has a session")
        return identity.with_folders(person, self._sessions.group_root, self._sessions.scratch_root)

    def whose_jobs(self, name: str, must_be_known: bool) -> Identity:
        """Give somebody whose jobs are to be counted or ended; their account may be closed.

        :param must_be_known: refuse whom the ledger does not know, and never knew, as this uid
        :raises LabsteadError: when there is no such person
        """
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise LabsteadError(f"{options.printable(name)} has no account on this machine") from None
        if entry.pw_uid < FIRST_PERSON or entry.pw_gid < FIRST_PERSON or entry.pw_uid == _NOBODY:
            raise LabsteadError(f"{name} is a system account")
        if must_be_known and entry.pw_uid not in self._uids(name):
            raise LabsteadError(f"{name} is not an account of the hub; their jobs are their own")
        about = {"name": name, "uid": entry.pw_uid, "gid": entry.pw_gid, "groups": (entry.pw_gid,)}
        return Identity.model_validate({**about, "home": entry.pw_dir, "shell": "/bin/sh"})

    def _uids(self, name: str) -> set[int]:
        try:
            return {account.uid for account in self._accounts.accounts(name)}
        except AccountRefused:
            return {account.uid for account in self._accounts.accounts(name, retired=True)}


class Server:
    """Who listens.

    :param compute: compute.yml
    :param images_root: folder of the flattened images
    :param people: knows who somebody is
    :param hub_uid: the hub's user
    """

    def __init__(self, compute: Compute, images_root: Path, people: People, hub_uid: int) -> None:
        self._slurm = Slurm(compute, images_root, _CHILDREN)
        self._for_hub = Slurm(compute, images_root, _HUB_THREADS)
        self._people = people
        self._compute = compute
        self._hub_uid = hub_uid
        self._lock = threading.RLock()
        self._is_empty = threading.Condition(self._lock)
        self._wake = os.pipe()
        self._waiting: dict[int, deque[socket.socket]] = {}
        self._heard: Counter[int] = Counter()
        self._submissions = limits.Bucket(_SUBMISSIONS_PER_SECOND, _BURST)
        self._questions = limits.Bucket(_QUESTIONS_PER_SECOND, _BURST)
        self._job_limit = limits.JobLimit(compute.jobs_per_user)
        self._refusals = limits.Seldom()
        self._troubles = limits.Seldom(1)
        self._told: Counter[str] = Counter()
        self._told_since = time.monotonic()

    # --- who is heard when

    def serve(self, listener: socket.socket, idle_seconds: float = IDLE_SECONDS) -> None:
        """Answer requests until there are none for a while, or `stop`; who was let in is answered first.

        :raises LabsteadError: when no command can be started any more
        """
        listener.settimeout(0)
        with (
            ThreadPoolExecutor(_PLACES, thread_name_prefix="person") as pool,
            ThreadPoolExecutor(_HUB_THREADS, thread_name_prefix="hub") as hub_pool,
        ):
            while (connection := self._next(listener, idle_seconds)) is not None:
                uid = peer.peer_uid(connection)
                if uid in (0, self._hub_uid):
                    hub_pool.submit(self._guarded, self._answer_hub, connection, uid)
                else:
                    self._queue(connection, uid, pool)
                if self._slurm.is_stuck:
                    # Somebody may have filled the unit with what runs as them. systemd ends all of it and starts anew.
                    raise LabsteadError("no command can be started for a minute now; starting anew")
            with self._lock:
                self._is_empty.wait_for(lambda: not self._waiting and not self._heard, _DRAIN_SECONDS)
        self._say_told()

    def stop(self) -> None:
        """Let nobody else in; can be called in a signal handler."""
        os.write(self._wake[1], b"x")

    def _next(self, listener: socket.socket, idle_seconds: float) -> socket.socket | None:
        """Wait for the next caller; None: there is none for a while, or we are to stop."""
        while True:
            ready, _, _ = select.select([listener.fileno(), self._wake[0]], [], [], idle_seconds)
            if not ready or self._wake[0] in ready:
                return None
            try:
                return listener.accept()[0]
            except OSError as error:  # they are gone already, or too many files are open
                if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                    log.warning("cannot let a caller in: %s", error)
                    time.sleep(0.1)

    def _queue(self, connection: socket.socket, uid: int, pool: ThreadPoolExecutor) -> None:
        with self._lock:
            mine = self._waiting.get(uid, ())
            is_full = len(mine) >= _WAITING_PER_UID or sum(map(len, self._waiting.values())) >= _WAITING
            if not is_full:
                self._waiting.setdefault(uid, deque()).append(connection)
        if is_full:
            busy = _refusal("slurm", "too many calls at this moment; please try again", protocol.EXIT_BUSY)
            with connection, suppress(OSError):
                connection.settimeout(0)
                connection.sendall(_head(busy) + busy.stderr)
                connection.recv(protocol.MAX_LINE)  # what is left unread resets the connection
        self._start(pool)

    def _start(self, pool: ThreadPoolExecutor) -> None:
        """Hear those who wait, as far as there are places: everybody's next one in turn."""
        with self._lock:
            for uid in list(self._waiting):
                if self._heard.total() >= _PLACES:
                    return
                if self._heard[uid] >= _PLACES_PER_UID:
                    continue
                queue = self._waiting.pop(uid)
                connection = queue.popleft()
                if queue:
                    self._waiting[uid] = queue  # now the last in turn
                self._heard[uid] += 1
                pool.submit(self._hear, connection, uid, pool)

    def _hear(self, connection: socket.socket, uid: int, pool: ThreadPoolExecutor) -> None:
        try:
            self._guarded(self._answer_person, connection, uid)
        finally:
            with self._lock:
                self._heard[uid] -= 1
                if not self._heard[uid]:
                    del self._heard[uid]
            with suppress(RuntimeError):  # the pool is closing
                self._start(pool)
            with self._lock:
                if not self._waiting and not self._heard:
                    self._is_empty.notify_all()

    def _guarded(self, answer: Callable[[_Caller, int], None], connection: socket.socket, uid: int) -> None:
        with connection:
            try:
                answer(_Caller(connection), uid)
            except OSError as error:
                if self._troubles.is_one_to_say(uid):
                    log.info("uid %d went away or was too slow: %s", uid, error or type(error).__name__)
            except Exception:
                if self._troubles.is_one_to_say(uid):
                    log.exception("a request of uid %d was not answered", uid)

    # --- people

    def _answer_person(self, caller: _Caller, uid: int) -> None:
        line = caller.line()
        command = "slurm"
        try:
            if len(line) > protocol.MAX_LINE:
                raise BadInput(f"a request has at most {protocol.MAX_LINE} bytes")
            try:
                request = protocol.request_adapter.validate_json(line)
            except ValidationError as error:
                raise BadInput(f"not a request: {error.errors(include_url=False)[0]['msg']}") from None
            if not isinstance(request, protocol.Run):
                raise BadInput(f"only the hub may ask for {request.op}")
            command = request.command
            person = self._people.who(uid)
            outcome = self._run(caller, request, person)
        except (BadInput, AccountRefused) as refused:
            self._say_refused(uid, command, str(refused))
            outcome = _refusal(command, str(refused))
        except _Hurried:
            self._say_refused(uid, command, "too many calls")
            outcome = _refusal(command, "too many calls; please try again a little later", protocol.EXIT_BUSY)
        except LabsteadError as error:
            log.warning("%s of uid %d: %s", command, uid, error)
            outcome = _refusal(command, str(error), protocol.EXIT_BUSY)
        caller.send(_head(outcome), outcome.stdout, outcome.stderr)

    def _run(self, caller: _Caller, request: protocol.Run, person: Identity) -> Outcome:
        bucket = self._submissions if request.command == "sbatch" else self._questions
        wait = bucket.take(person.uid, _SLOW_SECONDS)
        if wait is None:
            time.sleep(1)  # whoever asks again and again at once is slowed too
            raise _Hurried
        time.sleep(wait)
        place = options.place(person, request.cwd)
        match request.command:
            case "sbatch":
                return self._submit(caller, request, place)
            case "scancel":
                outcome = self._slurm.cancel(request.args, place)
                self._say_done("scancel", person, outcome, request.args)
                return outcome
            case _:
                self._count(person.name)
                if request.command == "sacct" and self._compute.completed is not None:
                    return completed.sacct(request.args, place, self._compute.completed, self._slurm)
                return self._slurm.tell(request.command, request.args, place)

    def _submit(self, caller: _Caller, request: protocol.Run, place: options.Place) -> Outcome:
        asked = self._slurm.submission(request.args, place)
        content = caller.script(asked.index) if asked.needs_script else b""
        outcome, is_dask = self._slurm.submit(asked, content, place, request.image, self._job_limit)
        digest = hashlib.sha256(content).hexdigest()[:12]
        about = f" {'dask' if is_dask else 'job'}" + (f" script={len(content)}B/{digest}" if content else "")
        if not asked.only_tells:
            self._say_done("sbatch", place.person, outcome, [*options.told(asked.given), *asked.rest[:1]], about)
        return outcome

    # --- the hub

    def _answer_hub(self, caller: _Caller, uid: int) -> None:
        answer: protocol.Jobs | protocol.People | protocol.Ended | protocol.Error
        try:
            answer = self._asked_by_hub(caller.line(), uid)
        except LabsteadError as error:
            answer = protocol.Error(error=str(error))
        caller.send(answer.model_dump_json().encode() + b"\n")

    def _asked_by_hub(self, line: bytes, uid: int) -> protocol.Jobs | protocol.People | protocol.Ended:
        try:
            request = protocol.request_adapter.validate_json(line)
        except ValidationError as error:
            raise BadInput(f"not a request: {error.errors(include_url=False)[0]['msg']}") from None
        if isinstance(request, protocol.Run):
            raise BadInput("the hub and root run Slurm's commands themselves")
        if isinstance(request, protocol.CountJobs):
            if request.user is None:
                return _everybody(self._for_hub.there(ROOT))
            return _counted(self._for_hub.there(self._people.whose_jobs(request.user, must_be_known=False)))
        person = self._people.whose_jobs(request.user, must_be_known=request.what == "all")
        ended = self._for_hub.end(person, request.what)
        if ended:
            log.info("uid %d ended %d jobs of %s (%s)", uid, ended, person.name, request.what)
        return protocol.Ended(ended=ended)

    # --- the journal

    def _say_done(self, command: str, person: Identity, outcome: Outcome, args: list[str], about: str = "") -> None:
        said = outcome.stdout if outcome.exit == 0 else outcome.stderr
        text = options.one_line(said[:200].decode("utf-8", "replace").strip())
        words = options.one_line(" ".join(args))[:_MOST_WORDS]
        log.info("%s of %s (uid %d)%s: %s -> %s", command, person.name, person.uid, about, words, text or outcome.exit)

    def _say_refused(self, uid: int, command: str, text: str) -> None:
        if self._refusals.is_one_to_say(uid):
            log.warning("refused: %s of uid %d: %s", command, uid, options.one_line(text)[:_MOST_WORDS])

    def _count(self, name: str) -> None:
        """Count a question; once a minute the journal gets the sums."""
        with self._lock:
            self._told[name] += 1
            is_time = time.monotonic() - self._told_since >= 60
        if is_time:
            self._say_told()

    def _say_told(self) -> None:
        with self._lock:
            told, self._told, self._told_since = self._told, Counter(), time.monotonic()
        if told:
            log.info("questions: %s", ", ".join(f"{name} {count}" for name, count in told.most_common(20)))


def _counted(jobs: Sequence[Job]) -> protocol.Jobs:
    return protocol.Jobs(jobs=len(jobs), dask=sum(job.is_dask for job in jobs))


def _everybody(jobs: Iterable[Job]) -> protocol.People:
    people: dict[str, list[Job]] = {}
    for job in jobs:
        people.setdefault(job.user, []).append(job)
    return protocol.People(people={name: _counted(theirs) for name, theirs in sorted(people.items())})


def main() -> None:
    """Run as the systemd service."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    compute, sessions = settings.load_compute(), settings.load_sessions()
    if sessions.compute is None:
        raise BadInput("sessions.yml says nothing of compute; see slurm_mode")
    os.chdir("/")
    people, hub_uid = People(Accounts(), sessions), pwd.getpwnam(peer.HUB_USER).pw_uid
    server = Server(compute, sessions.compute.images_root, people, hub_uid)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    server.serve(peer.socket_from_systemd())
