"""What people are told of their disks, and how often the accounts service is asked for it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from labstead.accounts.protocol import Space
from labstead.errors import LabsteadError
from labstead.hub import spaces
from labstead.hub.spaces import Disks, amounts_of, fullest, level_of, notice_of
from labstead_session.notices import Amount

G = 2**30


def space(name: str = "anna", **changes: object) -> Space:
    return Space.model_validate({"kind": "home", "name": name, "path": f"/home/{name}", **changes})


def test_a_space_is_as_full_as_what_runs_out_first() -> None:
    both = space(used_bytes=G, limit_bytes=10 * G, used_files=96, limit_files=100)
    assert [amount.what for amount in amounts_of(both)] == ["bytes", "files"]
    assert fullest(both) == Amount("files", 96, 100)
    assert level_of(both) == "warning"
    unlimited = space(used_bytes=G, used_files=96)
    assert [amount.what for amount in amounts_of(unlimited)] == ["bytes"]
    assert (fullest(unlimited), level_of(unlimited)) == (None, "")
    assert amounts_of(space()) == []


def test_the_owner_of_a_full_home_reads_that_the_server_starts_and_what_to_do() -> None:
    words = notice_of(space(used_bytes=G, limit_bytes=G))
    assert words.startswith("Your home is full: 1 of 1 GiB.")
    for what in ("starts anyway", "delete", "administrator"):
        assert what in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"used_bytes": 79, "limit_bytes": 100}, ""),
        ({"used_bytes": 8 * G, "limit_bytes": 10 * G}, "Your home is 80 % full: 8 of 10 GiB."),
        ({"used_files": 96, "limit_files": 100}, "Your home is almost full: 96 of 100 files and folders."),
        ({"kind": "scratch", "used_bytes": 95 * G, "limit_bytes": 100 * G}, "Your scratch is almost full"),
        (
            {"kind": "group", "name": "ocean", "used_bytes": 9, "limit_bytes": 9},
            "The folder of the group ocean is full",
        ),
    ],
)
def test_a_notice_says_what_fills_up(changes: dict[str, object], words: str) -> None:
    said = notice_of(space(**changes))
    assert said.startswith(words)
    assert bool(said) == bool(words)


# --- asking the service


class Service:
    """Stands for the accounts service: it notes who is asked for, and can be away or hang."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.away = False
        self.may_answer = threading.Event()
        self.may_answer.set()

    def spaces(self, name: str | None) -> tuple[Space, ...]:
        self.asked.append(name)
        assert self.may_answer.wait(30)
        if self.away:
            raise LabsteadError("the accounts service does not answer")
        return (space(name or "everybody"),)


@pytest.fixture
def service() -> Service:
    return Service()


def ask(service: Service, play: Callable[[Disks, list[float]], Any]) -> Any:
    """Run a scene with a clock that can be moved."""
    now = [0.0]

    async def scene() -> Any:
        return await play(Disks(service.spaces, clock=lambda: now[0]), now)

    return asyncio.run(scene())


def test_many_who_ask_at_once_are_one_question(service: Service) -> None:
    async def play(disks: Disks, _now: list[float]) -> None:
        answers = await asyncio.gather(*(disks.spaces("anna") for _ in range(50)), disks.spaces("bert"), disks.spaces())
        assert [answer[0].name for answer in answers] == ["anna"] * 50 + ["bert", "everybody"]

    ask(service, play)
    assert sorted(map(str, service.asked)) == ["None", "anna", "bert"]


def test_an_answer_is_remembered_for_a_few_seconds(service: Service) -> None:
    async def play(disks: Disks, now: list[float]) -> None:
        for now[0] in (0.0, 1.0, 2.9, 3.1, 4.0, 60.0):
            await disks.spaces("anna")

    ask(service, play)
    assert len(service.asked) == 3


def test_a_service_that_is_away_is_told_and_asked_again_later(service: Service) -> None:
    async def play(disks: Disks, now: list[float]) -> None:
        service.away = True
        for _ in range(2):
            with pytest.raises(LabsteadError, match="does not answer"):
                await disks.spaces("anna")
        service.away = False
        now[0] = 5.0
        assert (await disks.spaces("anna"))[0].name == "anna"

    ask(service, play)
    assert len(service.asked) == 2


def test_a_disk_that_hangs_holds_nobody_and_is_asked_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "PATIENCE_SECONDS", 0.05)

    async def play(disks: Disks, now: list[float]) -> None:
        service.may_answer.clear()
        for now[0] in (0.0, 10.0, 20.0):
            with pytest.raises(LabsteadError, match="no word"):
                await disks.spaces("anna")
        service.may_answer.set()
        monkeypatch.setattr(spaces, "PATIENCE_SECONDS", 30)
        assert (await disks.spaces("anna"))[0].name == "anna"

    ask(service, play)
    assert service.asked == ["anna"]


def test_what_is_remembered_does_not_grow(service: Service) -> None:
    async def play(disks: Disks, now: list[float]) -> int:
        for number in range(20):
            now[0] = 10.0 * number
            await disks.spaces(f"person{number}")
        return len(disks._answers)

    assert ask(service, play) == 1
