"""Which sessions are stopped and which jobs end, with a hub and a Slurm that only note what they are told."""

import functools
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from labstead import administration, cull, settings
from labstead.accounts.protocol import Account
from labstead.cull import Culling
from labstead.hub.api import HubAway, Server
from labstead.relay.client import Jobs
from labstead.settings import Compute, Image, SessionCompute, Sessions
from support.jobs import Queue

IMAGES = (Image(name="a", title="A", reference="x/a:1"),)
BOTH = Jobs(3, 2)
"""Two workers of Dask, and another job."""


def ago(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


def idle(hours: float, **more: Any) -> Server:
    return Server(last_activity=ago(hours), ready=True, **more)


class FakeHub:
    """What the hub would answer."""

    def __init__(self, **running: Server) -> None:
        self.running = running
        self.stopped: list[str] = []
        self.is_away = False
        self.used_meanwhile: set[str] = set()
        """Whose sessions are used again after all were asked for."""

    def servers(self) -> dict[str, Server]:
        if self.is_away:
            raise HubAway("the hub does not answer")
        return dict(self.running)

    def server(self, name: str) -> Server | None:
        return idle(0) if name in self.used_meanwhile else self.running.get(name)

    def stop(self, name: str) -> None:
        self.stopped.append(name)
        del self.running[name]


class Ledger:
    def __init__(self, *people: Account) -> None:
        self.people = people

    def accounts(self) -> tuple[Account, ...]:
        return self.people


def person(name: str, **more: Any) -> Account:
    about = {"kind": "created", "state": "active", "created_at": "2026-01-01", "uid": 20000, "gid": 20000, **more}
    return Account.model_validate({"name": name, **about})


class Site(administration.Site):
    def __init__(self, queue: Queue, sessions: Sessions, *people: Account) -> None:
        super().__init__(Ledger(*people))  # type: ignore[arg-type]
        self._queue = queue
        self._sessions = sessions

    @functools.cached_property
    def sessions(self) -> Sessions:
        return self._sessions

    @functools.cached_property
    def relay(self) -> Any:
        return self._queue


class Machine:
    """A hub, Slurm, people, and a program that looks after them."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "cull.json"
        self.hub = FakeHub()
        self.queue = Queue()
        self.people = [person("anna"), person("bert")]
        self.hours: dict[str, float] = {"idle_hours": 8, "idle_hours_with_jobs": 72}
        self.has_slurm = True

    def run(self, patience: float = 0, check: bool = False) -> list[str]:
        sessions = Sessions.model_validate(
            {"images": IMAGES, "compute": SessionCompute() if self.has_slurm else None, **self.hours}
        )
        site = Site(self.queue, sessions, *self.people)
        lines = Culling(site, self.hub, check, patience, self.state).run()  # type: ignore[arg-type]
        return [("! " if line.failed else "") + line.words for line in lines]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(settings, "load_compute", lambda: Compute(mode="embedded"))
    monkeypatch.setattr(cull, "_START_SECONDS", 0)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return Machine(tmp_path)


def let_pass(machine: Machine, minutes: float) -> None:
    """Have earlier runs be so long ago."""
    found = json.loads(machine.state.read_text()) if machine.state.exists() else {}
    machine.state.write_text(json.dumps({what: since - 60 * minutes for what, since in found.items()}))


# --- sessions


def test_a_session_that_nobody_uses_is_stopped(machine: Machine) -> None:
    machine.hub.running = {"anna": idle(8.1), "bert": idle(7.9)}
    assert machine.run() == ["anna: session idle for 8.1 h, stopped"]
    assert machine.hub.stopped == ["anna"]


@pytest.mark.parametrize(("hours", "is_stopped"), [(71.9, False), (72.1, True)])
def test_one_whose_owner_has_jobs_may_be_idle_for_longer(machine: Machine, hours: float, is_stopped: bool) -> None:
    """Any job counts: that a notebook waits for it is not for this program to deny."""
    machine.hub.running = {"anna": idle(hours), "bert": idle(71.9)}
    machine.queue.people = {"anna": Jobs(1, 0)}
    machine.run()
    assert machine.hub.stopped == (["anna", "bert"] if is_stopped else ["bert"])


@pytest.mark.parametrize(
    ("idle_hours", "with_jobs", "stopped"), [(0, 72, []), (0, 0, []), (8, 0, ["bert"]), (8, 72, ["anna", "bert"])]
)
def test_zero_is_never(machine: Machine, idle_hours: float, with_jobs: float, stopped: list[str]) -> None:
    machine.hours = {"idle_hours": idle_hours, "idle_hours_with_jobs": with_jobs}
    machine.hub.running = {"anna": idle(1000), "bert": idle(1000)}
    machine.queue.people = {"anna": BOTH}
    machine.run()
    assert machine.hub.stopped == stopped


def test_a_session_that_starts_or_stops_is_left_alone(machine: Machine) -> None:
    machine.hub.running = {"anna": Server(last_activity=ago(9), ready=False)}
    assert machine.run() == []


def test_a_start_counts_as_activity(machine: Machine) -> None:
    machine.hub.running = {"anna": idle(1000, started=ago(1)), "bert": Server(ready=True)}
    assert machine.run() == []


def test_a_session_used_meanwhile_is_left_alone(machine: Machine) -> None:
    machine.hub.running = {"anna": idle(9)}
    machine.hub.used_meanwhile = {"anna"}
    assert machine.run() == []
    assert machine.hub.stopped == []


def test_where_slurm_does_not_answer_everybody_is_taken_to_have_jobs(machine: Machine) -> None:
    machine.hub.running = {"anna": idle(9), "bert": idle(73)}
    machine.queue.is_away = True
    assert machine.run(patience=10) == ["! the Slurm relay does not answer"]
    let_pass(machine, 11)
    assert machine.run(patience=10) == ["! the Slurm relay does not answer", "bert: session idle for 73.0 h, stopped"]


def answers_once(monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    """Have the relay answer the question for everybody's jobs and then no more, or the other way round."""
    everybody = Queue.everybody

    def then_turn(queue: Queue) -> dict[str, Jobs]:
        queue.is_away = not first
        try:
            return everybody(queue)
        finally:
            queue.is_away = first

    monkeypatch.setattr(Queue, "everybody", then_turn)


@pytest.mark.parametrize("first", [True, False])
def test_once_is_enough_for_that(machine: Machine, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    answers_once(monkeypatch, first)
    machine.hub.running = {"anna": idle(9)}
    machine.run()
    assert machine.hub.stopped == []


def test_without_slurm_nobody_is_asked_for_jobs(machine: Machine) -> None:
    machine.has_slurm, machine.queue.is_away = False, True
    machine.hub.running = {"anna": idle(9)}
    assert machine.run() == ["anna: session idle for 9.0 h, stopped"]


def test_one_that_does_not_stop_keeps_no_other_from_it(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(hub: FakeHub, name: str) -> None:
        if name == "anna":
            raise HubAway("still not after 90 s")
        hub.stopped.append(name)

    monkeypatch.setattr(FakeHub, "stop", stop)
    machine.hub.running = {"anna": idle(9), "bert": idle(9)}
    assert machine.run()[0] == "! anna: session idle for 9.0 h, but not stopped: still not after 90 s"
    assert machine.hub.stopped == ["bert"]


# --- patience


def test_what_is_found_once_is_looked_at_again(machine: Machine) -> None:
    """A hub that has just started does not know yet who worked while it was down."""
    machine.hub.running = {"anna": idle(9)}
    assert machine.run(patience=10) == []
    let_pass(machine, 9)
    assert machine.run(patience=10) == []
    let_pass(machine, 2)
    assert machine.run(patience=10) == ["anna: session idle for 9.0 h, stopped"]


def test_use_in_between_starts_it_anew(machine: Machine) -> None:
    for session in (idle(9), idle(0), idle(9)):
        machine.hub.running = {"anna": session}
        assert machine.run(patience=10) == []
        let_pass(machine, 11)


def test_a_hub_that_was_away_starts_it_anew(machine: Machine) -> None:
    machine.hub.running = {"anna": idle(9)}
    machine.run(patience=10)
    machine.hub.is_away = True
    let_pass(machine, 11)
    assert machine.run(patience=10) == ["! the hub does not answer"]
    machine.hub.is_away = False
    assert machine.run(patience=10) == []


def test_a_hub_that_comes_up_meanwhile_starts_it_anew(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.hub.running = {"anna": idle(9)}
    machine.run(patience=10)
    let_pass(machine, 11)
    monkeypatch.setattr(cull, "_START_SECONDS", 60)
    machine.hub.is_away = True
    monkeypatch.setattr(time, "sleep", lambda _: setattr(machine.hub, "is_away", False))
    assert machine.run(patience=10) == []


def test_a_slurm_that_comes_up_meanwhile_is_asked_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.hub.running = {"anna": idle(9), "bert": idle(9)}
    machine.queue.people = {"anna": BOTH}
    machine.queue.is_away = True
    monkeypatch.setattr(cull, "_START_SECONDS", 60)
    monkeypatch.setattr(time, "sleep", lambda _: setattr(machine.queue, "is_away", False))
    assert machine.run() == ["bert: session idle for 9.0 h, stopped"]


def test_a_restart_of_the_machine_starts_it_anew(machine: Machine) -> None:
    machine.state.write_text(json.dumps({"idle: anna": time.clock_gettime(time.CLOCK_BOOTTIME) + 1e6}))
    machine.hub.running = {"anna": idle(9)}
    assert machine.run(patience=10) == []
    let_pass(machine, 11)
    assert machine.run(patience=10) != []


@pytest.mark.parametrize("text", ["", "[1]", "{", "\0"])
def test_a_note_that_is_spoilt_is_none(machine: Machine, text: str) -> None:
    machine.state.write_text(text)
    machine.hub.running = {"anna": idle(9)}
    assert machine.run(patience=10) == []
    assert machine.run() != []


def test_where_nothing_is_found_no_note_is_left(machine: Machine) -> None:
    machine.hub.running = {"anna": idle(9)}
    assert machine.run(patience=10) == []
    assert machine.state.exists()
    machine.hub.running = {"anna": idle(0)}
    machine.run(patience=10)
    assert not machine.state.exists()


def test_a_check_changes_nothing(machine: Machine) -> None:
    machine.hub.running = {"anna": idle(9)}
    machine.queue.people = {"bert": BOTH}
    told = machine.run(patience=10, check=True)
    assert told == [
        "anna: session idle for 9.0 h; to be stopped in 10 min",
        "bert: 2 jobs of Dask without a session; to be ended in 10 min",
    ]
    assert machine.run(check=True)[0] == "anna: session idle for 9.0 h; to be stopped"
    assert (machine.hub.stopped, machine.queue.asked, machine.state.exists()) == ([], [], False)


# --- jobs


def test_dask_jobs_without_a_session_end_and_no_others(machine: Machine) -> None:
    machine.hub.running = {"bert": idle(0)}
    machine.queue.people = {"anna": BOTH, "bert": BOTH}
    assert machine.run(patience=10) == []
    let_pass(machine, 11)
    assert machine.run(patience=10) == ["anna: 2 jobs of Dask without a session; 2 ended"]
    assert machine.queue.asked == [("anna", "dask")]
    assert machine.queue.people["anna"] == Jobs(1, 0)
    assert machine.run(patience=10) == []


def test_those_of_a_session_that_has_just_started_live(machine: Machine) -> None:
    machine.queue.people = {"anna": BOTH}
    machine.hub.used_meanwhile = {"anna"}
    assert machine.run() == []
    assert machine.queue.asked == []


def test_jobs_of_people_that_are_not_the_hubs_are_nobodys_business(machine: Machine) -> None:
    machine.queue.people = {"chemist": BOTH}
    assert machine.run() == []
    assert machine.queue.asked == []


@pytest.mark.parametrize("locked", ["locked", "expired"])
def test_all_jobs_of_closed_accounts_end_at_once(machine: Machine, locked: str) -> None:
    machine.people = [person("anna", locked=locked), person("bert")]
    machine.hub.running = {"bert": idle(0)}
    machine.queue.people = {"anna": Jobs(1, 0), "bert": Jobs(1, 0)}
    assert machine.run(patience=10, check=True) == [f"anna: {locked}, but has 1 job in Slurm; to be ended"]
    assert machine.run(patience=10) == [f"anna: {locked}, but has 1 job in Slurm; 1 ended"]
    assert machine.queue.asked == [("anna", "all")]


def test_on_the_sites_slurm_only_dask_jobs_of_its_own_people_end(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have come from elsewhere."""
    monkeypatch.setattr(settings, "load_compute", lambda: Compute(mode="existing"))
    machine.people = [
        person("anna", locked="locked", kind="linked"),
        person("bert", locked="locked", kind="linked"),
        person("carl", locked="locked"),
    ]
    machine.queue.people = {"anna": BOTH, "bert": Jobs(1, 0), "carl": BOTH}
    assert [line.partition(":")[0] for line in machine.run(check=True)] == ["anna", "carl"]
    assert machine.run() == [
        "anna: locked, but has 2 jobs in Slurm; 2 ended",
        "carl: locked, but has 3 jobs in Slurm; 3 ended",
    ]
    assert machine.queue.people == {"anna": Jobs(1, 0), "bert": Jobs(1, 0)}


def test_on_labsteads_own_slurm_all_jobs_of_closed_accounts_end(machine: Machine) -> None:
    machine.people = [person("anna", locked="locked", kind="linked")]
    machine.queue.people = {"anna": BOTH}
    assert machine.run() == ["anna: locked, but has 3 jobs in Slurm; 3 ended"]


def test_a_relay_that_fails_in_between_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.people = [person("anna", locked="locked"), person("bert")]
    machine.queue.people = {"anna": BOTH, "bert": BOTH}
    answers_once(monkeypatch, first=True)
    assert machine.run() == [
        "! anna: locked, but has 3 jobs in Slurm, not ended: the Slurm relay does not answer",
        "! bert: 2 jobs of Dask without a session, not ended: the Slurm relay does not answer",
    ]


@pytest.mark.parametrize(
    ("idle_hours", "has_slurm", "is_needed"), [(0, False, False), (0.5, False, True), (0, True, True)]
)
def test_it_is_needed_where_something_may_be_idle_or_left(idle_hours: float, has_slurm: bool, is_needed: bool) -> None:
    sessions = Sessions(images=IMAGES, idle_hours=idle_hours, compute=SessionCompute() if has_slurm else None)
    assert cull.is_needed(sessions) is is_needed
