"""The ledger gives a uid once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from labstead.accounts.ledger import Ledger
from labstead.errors import AccountRefused


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def reserve(ledger: Ledger, name: str, taken: tuple[int, ...] = (), uid_max: int = 20009) -> int:
    return ledger.reserve(name, "created", 20000, uid_max, taken=lambda number: number in taken).uid


def test_numbers_rise_from_the_first_of_the_range(ledger: Ledger) -> None:
    assert [reserve(ledger, name) for name in ("anna", "ben", "carla")] == [20000, 20001, 20002]


def test_a_number_that_the_machine_uses_is_passed_over(ledger: Ledger) -> None:
    assert reserve(ledger, "anna", taken=(20000, 20001)) == 20002


def test_a_retired_number_is_not_given_again_even_to_the_same_name(ledger: Ledger) -> None:
    first = reserve(ledger, "anna")
    ledger.set_state(first, "retired")
    assert ledger.find("anna") is None
    assert reserve(ledger, "anna") == 20001
    assert reserve(ledger, "ben") == 20002


def test_a_name_has_one_account_at_a_time(ledger: Ledger) -> None:
    reserve(ledger, "anna")
    with pytest.raises(Exception, match="UNIQUE"):
        reserve(ledger, "anna")


def test_a_full_range_says_so(ledger: Ledger) -> None:
    for number in range(3):
        reserve(ledger, f"p{number}", uid_max=20002)
    with pytest.raises(AccountRefused, match="raise accounts_uid_max"):
        reserve(ledger, "late", uid_max=20002)


def test_a_range_moved_down_does_not_give_a_number_twice(ledger: Ledger) -> None:
    assert reserve(ledger, "anna") == 20000
    account = ledger.reserve("ben", "created", 19999, 20009, taken=lambda _: False)
    assert account.uid == 20001


def test_an_account_is_pending_until_it_exists(ledger: Ledger) -> None:
    uid = reserve(ledger, "anna")
    found = ledger.find("anna")
    assert found is not None
    assert found.state == "pending"
    ledger.set_state(uid, "active")
    found = ledger.find("anna")
    assert found is not None
    assert found.state == "active"


def test_a_linked_account_keeps_its_number_and_nobody_else_gets_it(ledger: Ledger) -> None:
    ledger.link("doro", 20000, 100)
    assert reserve(ledger, "anna") == 20001
    with pytest.raises(AccountRefused, match="was given to doro before"):
        ledger.link("impostor", 20000, 100)


def test_the_file_survives_and_is_for_root_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    first = Ledger(path)
    reserve(first, "anna")
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Ledger(path)
    assert [account.name for account in again.all()] == ["anna"]
    again.close()
