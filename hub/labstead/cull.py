"""Sessions that nobody uses are stopped, and jobs in Slurm that nobody is left for are ended.

A session is idle for as long as JupyterHub has heard of no activity: nothing went through the proxy to or from it, no
kernel printed anything, no terminal moved. Where Slurm is, a session whose owner has jobs there may be idle for longer:
its notebook may wait for them.

The end of a session ends its Dask jobs; see `labstead.hub.spawner`. What came through that, as the relay was away or
the machine was restarted, ends here, and so does what people have in Slurm whose accounts are closed.

The one rule: what cannot be known for sure is left as it is. What was found is found again some minutes later, and just
before something is ended, as a hub that starts knows for a moment only what was so when it went down.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from labstead.accounts.protocol import Account
from labstead.administration import Site
from labstead.errors import LabsteadError
from labstead.hub.api import Api, HubAway, Server
from labstead.relay.client import Jobs
from labstead.settings import Sessions
from labstead.tidy import Line

STATE = Path("/run/labstead/cull.json")
"""Since when something is found so, in seconds since the machine's start, by its name for this program."""
PATIENCE_MINUTES = 10.0
"""For how long something has to be found so before anything is done about it."""

_START_SECONDS = 60
"""How long hub and Slurm may take to answer, as they do right after a start."""

_T = TypeVar("_T")


def run(site: Site, api: Api, *, check: bool = False, patience: float = PATIENCE_MINUTES) -> Iterator[Line]:
    """Stop idle sessions and end jobs that nobody is left for; give what was done, as it is done.

    :param check: only tell what would be done
    :param patience: minutes for which something has to be found so, by this program's earlier runs
    """
    return Culling(site, api, check, patience).run()


def is_needed(sessions: Sessions) -> bool:
    """Tell whether there is anything that this program might do."""
    return sessions.idle_hours > 0 or sessions.compute is not None


class Culling:
    """One run.

    :param state: file in which it is noted since when something is found so
    """

    def __init__(self, site: Site, api: Api, check: bool, patience: float, state: Path = STATE) -> None:
        self._site = site
        self._api = api
        self._check = check
        self._patience = patience
        self._state = state
        self._before = _read(state)
        self._found: dict[str, float] = {}

    def run(self) -> Iterator[Line]:
        """Do it; give what was done, and what could not be done."""
        try:
            servers = self._ask(self._servers)
        except HubAway as away:
            self._write({})  # nobody knows whether it is so still
            yield Line(words=str(away), failed=True)
            return
        jobs: dict[str, Jobs] | None = {}
        if self._site.sessions.compute is not None:
            try:
                jobs = self._ask(self._site.relay.everybody)
            except LabsteadError as error:
                jobs = None
                yield Line(words=str(error), failed=True)
        yield from self._stop_idle(servers, jobs)
        if jobs:
            # On the site's own Slurm there are others, too.
            people = [account for account in self._site.accounts.accounts() if account.name in jobs]
            yield from self._end_of_closed(people, jobs)
            yield from self._end_left([a.name for a in people if not a.locked and a.name not in servers], jobs)
        self._write(self._found)

    def _servers(self) -> dict[str, Server]:
        try:
            return self._api.servers()
        except HubAway:
            self._before = {}  # a hub that has just started does not know yet who worked meanwhile
            raise

    def _ask(self, question: Callable[[], _T]) -> _T:
        """Ask the hub or the relay, again for a while where there is no answer."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return question()
            except LabsteadError:
                if self._check or time.monotonic() > deadline:
                    raise
            time.sleep(1)

    # --- what is found, and for how long already

    def _minutes_left(self, what: str) -> float:
        """Note that something is found so; say for how many minutes it has to be so still."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        # A clock of an earlier start of the machine is ahead of this one.
        since = min(self._before.get(what, now), now)
        self._found[what] = since
        return self._patience - (now - since) / 60

    def _write(self, found: dict[str, float]) -> None:
        if self._check:
            return
        if not found:
            self._state.unlink(missing_ok=True)
            return
        new = self._state.with_name(f".{self._state.name}.new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            json.dump(found, stream)
        new.rename(self._state)

    # --- sessions that nobody uses

    def _stop_idle(self, servers: dict[str, Server], jobs: dict[str, Jobs] | None) -> Iterator[Line]:
        for name, server in sorted(servers.items()):
            has_jobs = jobs is None or name in jobs
            if not self._is_idle(server, has_jobs):
                continue
            left = self._minutes_left(f"idle: {name}")
            words = f"{name}: session idle for {_hours(server)}"
            if self._check:
                yield Line(words=words + (f"; to be stopped in {left:.0f} min" if left > 0 else "; to be stopped"))
            elif left <= 0:
                try:
                    if self._stop(name):
                        yield Line(words=f"{words}, stopped")
                except LabsteadError as error:
                    yield Line(words=f"{words}, but not stopped: {error}", failed=True)

    def _is_idle(self, server: Server, has_jobs: bool) -> bool:
        sessions = self._site.sessions
        hours = sessions.idle_hours_with_jobs if has_jobs else sessions.idle_hours
        # Without a limit for those without jobs there is none for the others.
        if not sessions.idle_hours or not hours or not server.ready or server.used is None:
            return False
        return datetime.now(UTC) - server.used > timedelta(hours=hours)

    def _stop(self, name: str) -> bool:
        """Stop somebody's session, unless it is used again; tell whether it was stopped."""
        server = self._api.server(name)
        # Those before may have taken minutes.
        if server is None or not self._is_idle(server, self._has_jobs(name)):
            return False
        self._api.stop(name)
        return True

    def _has_jobs(self, name: str) -> bool:
        if self._site.sessions.compute is None:
            return False
        with suppress(LabsteadError):
            return self._site.relay.jobs(name).all > 0
        return True  # nobody knows

    # --- jobs that nobody is left for

    def _end_of_closed(self, people: Iterable[Account], jobs: dict[str, Jobs]) -> Iterator[Line]:
        """End the jobs of people whose accounts are closed: closing ended them once, and jobs may submit jobs."""
        for account in people:
            count = jobs[account.name].all if self._site.jobs_of(account) == "all" else jobs[account.name].dask
            if not account.locked or not count:
                continue
            words = f"{account.name}: {account.locked}, but has {_count(count)} in Slurm"
            if self._check:
                yield Line(words=f"{words}; to be ended")
                continue
            try:
                if ended := self._site.end_jobs(account):
                    yield Line(words=f"{words}; {ended} ended")
            except LabsteadError as error:
                yield Line(words=f"{words}, not ended: {error}", failed=True)

    def _end_left(self, names: Iterable[str], jobs: dict[str, Jobs]) -> Iterator[Line]:
        """End Dask's jobs of people who have no session: their scheduler was in it."""
        for name in names:
            if not jobs[name].dask:
                continue
            left = self._minutes_left(f"left: {name}")
            words = f"{name}: {_count(jobs[name].dask)} of Dask without a session"
            if self._check:
                yield Line(words=words + (f"; to be ended in {left:.0f} min" if left > 0 else "; to be ended"))
            elif left <= 0:
                try:
                    if self._api.server(name) is None and (ended := self._site.relay.end(name, "dask")):
                        yield Line(words=f"{words}; {ended} ended")
                except LabsteadError as error:
                    yield Line(words=f"{words}, not ended: {error}", failed=True)


def _read(state: Path) -> dict[str, float]:
    try:
        found = json.loads(state.read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(what): float(since) for what, since in found.items()} if isinstance(found, dict) else {}


def _hours(server: Server) -> str:
    hours = (datetime.now(UTC) - (server.used or datetime.now(UTC))).total_seconds() / 3600
    return f"{hours:.1f} h"


def _count(jobs: int) -> str:
    return f"{jobs} job" if jobs == 1 else f"{jobs} jobs"
