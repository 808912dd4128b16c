"""The end of a session, as JupyterHub comes to it, with a relay that only notes what it is told."""

import asyncio
import logging
import threading
from typing import Any

import pytest
from jupyterhub import orm
from jupyterhub.user import User
from traitlets.config import Config

from labstead.hub import configure, spawner
from labstead.hub.spawner import LabsteadSpawner
from labstead.relay.client import Jobs
from labstead.settings import Hub, Image, SessionCompute, Sessions
from support.jobs import Queue

HUB = Hub(url="https://hub.example.org", address="172.31.240.1", admins=("carla",))
BOTH = Jobs(3, 2)
"""Two workers of Dask, and another job."""


class Spawner(LabsteadSpawner):
    """One without Docker."""

    status: str | int | None = None
    """What `docker inspect` would say; None: it runs."""
    docker_answers = True

    async def poll(self) -> Any:
        return self.status

    async def stop(self, now: bool = False) -> None:  # noqa: ARG002
        if not self.docker_answers:
            raise RuntimeError("Docker does not answer")
        self.status = 0


def make(has_slurm: bool = True) -> User:
    """Give somebody whose session runs."""
    sessions = Sessions(
        images=(Image(name="a", title="A", reference="x/a:1"),), compute=SessionCompute() if has_slurm else None
    )
    c = Config()
    configure.apply(c, HUB, sessions)
    db = orm.new_session_factory("sqlite:///:memory:")()
    anna = orm.User(name="anna")
    db.add(anna)
    db.commit()
    return User(anna, {"spawner_class": Spawner, "config": c})


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue(anna=BOTH, bert=BOTH)
    monkeypatch.setattr(LabsteadSpawner, "relay", queue)
    return queue


def test_a_session_that_is_stopped_leaves_no_dask_jobs_and_all_others(queue: Queue) -> None:
    asyncio.run(make().stop())
    assert queue.people == {"anna": Jobs(1, 0), "bert": BOTH}


@pytest.mark.parametrize("status", [0, "ExitCode=137, Error='', FinishedAt=…"])
def test_one_that_died_by_itself_leaves_none_either(queue: Queue, status: str | int) -> None:
    """JupyterHub does not call the spawner's stop then."""
    user = make()
    user.spawners[""].status = status
    user.spawners[""].docker_answers = False
    asyncio.run(user.stop())
    assert queue.people["anna"] == Jobs(1, 0)


def test_nor_does_one_that_docker_did_not_stop(queue: Queue) -> None:
    user = make()
    user.spawners[""].docker_answers = False
    with pytest.raises(RuntimeError, match="Docker"):
        asyncio.run(user.stop())
    assert queue.people["anna"] == Jobs(1, 0)


def test_no_session_starts_before_the_jobs_of_the_last_have_ended(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one's would end with them."""
    user = make()
    its_spawner = user.spawners[""]
    pending: list[str] = []
    end = queue.end

    def note(name: str, what: str) -> int:
        pending.append(its_spawner.pending)
        return end(name, what)

    monkeypatch.setattr(queue, "end", note)
    asyncio.run(user.stop())
    assert pending == ["stop"]


def test_without_slurm_no_relay_is_asked(queue: Queue) -> None:
    asyncio.run(make(has_slurm=False).stop())
    assert queue.asked == []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    log = logging.Logger("hub", logging.INFO)
    log.addHandler(handler)
    monkeypatch.setattr(Spawner, "log", log)
    return lines


def test_a_relay_that_fails_keeps_no_session_from_ending(queue: Queue, told: list[str]) -> None:
    queue.is_away = True
    user = make()
    asyncio.run(user.stop())
    assert user.spawners == {}
    assert told == ["Dask jobs of anna may still run: the Slurm relay does not answer"]


def test_a_relay_that_hangs_keeps_no_session_for_long(
    queue: Queue, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setattr(queue, "end", lambda _name, _what: over.wait(60))
    monkeypatch.setattr(spawner, "_RELAY_SECONDS", 0.05)
    user = make()
    try:
        asyncio.run(asyncio.wait_for(user.stop(), 30))
    finally:
        over.set()
    assert user.spawners == {}
    assert told == ["Dask jobs of anna may still run: the relay did not answer in 0 s"]
