"""The ledger gives a uid once."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from labstead.accounts.ledger import Ledger
from labstead.errors import AccountRefused
from labstead.settings import Limit


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
    ledger.retire("anna")
    assert first == 20000
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
    reserve(ledger, "anna")
    found = ledger.find("anna")
    assert found is not None
    assert found.state == "pending"
    ledger.set_state("anna", "active")
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


VERSION_1 = """
CREATE TABLE account (
    uid INTEGER PRIMARY KEY,
    gid INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('created', 'linked', 'canary')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'retired')),
    created_at TEXT NOT NULL
);
CREATE UNIQUE INDEX account_name ON account (name) WHERE state != 'retired';
INSERT INTO account VALUES (20000, 20000, 'anna', 'created', 'active', '2026-01-01T00:00:00+00:00');
INSERT INTO account VALUES (20001, 20001, 'ben', 'created', 'retired', '2026-01-01T00:00:00+00:00');
INSERT INTO account VALUES (20002, 20002, 'ben', 'created', 'active', '2026-01-01T00:00:00+00:00');
INSERT INTO account VALUES (1000, 1000, 'doro', 'linked', 'active', '2026-01-01T00:00:00+00:00');
INSERT INTO account VALUES (20003, 20003, 'carla', 'created', 'pending', '2026-01-01T00:00:00+00:00');
PRAGMA user_version = 1;
"""


def test_a_ledger_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    old = sqlite3.connect(path)
    old.executescript(VERSION_1)
    old.close()
    for _ in range(2):
        ledger = Ledger(path, was_locked=lambda name: name == "ben")
        accounts = [(a.name, a.uid, a.kind, a.state, a.door, a.locked) for a in ledger.all()]
        assert accounts == [
            ("anna", 20000, "created", "active", "native", ""),
            ("ben", 20002, "created", "active", "native", "locked"),
            ("carla", 20003, "created", "pending", "native", ""),
            ("doro", 1000, "linked", "active", "native", ""),
        ]
        assert [account.uid for account in ledger.retired("ben")] == [20001]
        ledger.close()
    ledger = Ledger(path)
    assert reserve(ledger, "emil") == 20004
    ledger.close()


VERSION_2 = """
CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('created', 'linked', 'canary')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'retired')),
    door TEXT NOT NULL CHECK (door IN ('native', 'pam', 'oidc')),
    subject TEXT,
    locked TEXT NOT NULL DEFAULT '' CHECK (locked IN ('', 'locked', 'expired')),
    expires TEXT,
    full_name TEXT NOT NULL DEFAULT '',
    email TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL,
    retired_at TEXT
);
CREATE UNIQUE INDEX account_name ON account (name) WHERE state != 'retired';
CREATE UNIQUE INDEX account_uid ON account (uid) WHERE state != 'retired';
CREATE UNIQUE INDEX account_uid_given ON account (uid) WHERE kind != 'linked';
CREATE UNIQUE INDEX account_subject ON account (subject) WHERE subject IS NOT NULL AND state != 'retired';
CREATE TABLE folder_group (
    id INTEGER PRIMARY KEY,
    gid INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('created', 'linked')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'retired')),
    quota INTEGER,
    created_at TEXT NOT NULL,
    retired_at TEXT
);
CREATE UNIQUE INDEX group_name ON folder_group (name) WHERE state != 'retired';
CREATE UNIQUE INDEX group_gid ON folder_group (gid) WHERE state != 'retired';
CREATE UNIQUE INDEX group_gid_given ON folder_group (gid) WHERE kind = 'created';
CREATE TABLE member (
    group_id INTEGER NOT NULL REFERENCES folder_group (id),
    name TEXT NOT NULL,
    declared INTEGER NOT NULL DEFAULT 0,
    added INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (group_id, name)
);
CREATE TABLE manager (
    group_id INTEGER NOT NULL REFERENCES folder_group (id),
    name TEXT NOT NULL,
    PRIMARY KEY (group_id, name)
);
INSERT INTO account VALUES
  (1, 20000, 20000, 'anna', 'created', 'active', 'native', NULL, '', NULL, '', '', '2026-01-01T00:00:00+00:00', NULL);
INSERT INTO folder_group VALUES
  (1, 20001, 'ocean', 'created', 'active', 536870912000, '2026-01-01T00:00:00+00:00', NULL),
  (2, 5001, 'physics', 'linked', 'retired', 1024, '2026-01-01T00:00:00+00:00', '2026-02-01T00:00:00+00:00'),
  (3, 5001, 'physics', 'linked', 'active', 2048, '2026-03-01T00:00:00+00:00', NULL),
  (4, 20002, 'ice', 'created', 'active', NULL, '2026-01-01T00:00:00+00:00', NULL);
INSERT INTO member VALUES (1, 'anna', 1, 0);
INSERT INTO manager VALUES (1, 'anna');
PRAGMA user_version = 2;
"""
"""The tables as version 2 made them."""


def test_a_ledger_of_the_second_version_keeps_the_limits_of_groups(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    old = sqlite3.connect(path)
    old.executescript(VERSION_2)
    old.close()
    for _ in range(2):
        ledger = Ledger(path)
        assert [(group.name, group.gid) for group in ledger.groups.all()] == [
            ("ice", 20002),
            ("ocean", 20001),
            ("physics", 5001),
        ]
        said = {key: row.said for key, row in ledger.spaces.all().items()}
        assert said == {("group", 20001): Limit(bytes=536870912000), ("group", 5001): Limit(bytes=2048)}
        ocean = ledger.groups.find("ocean")
        assert ocean is not None
        assert ledger.groups.members(ocean) == ledger.groups.managers(ocean) == ("anna",)
        assert [account.name for account in ledger.all()] == ["anna"]
        ledger.close()


def test_a_second_migration_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    old = sqlite3.connect(path)
    old.executescript(VERSION_2)
    old.execute("CREATE TABLE writer (x)")  # in the way of the last step but one
    old.close()
    with pytest.raises(sqlite3.OperationalError):
        Ledger(path)
    old = sqlite3.connect(path)
    assert old.execute("PRAGMA user_version").fetchone() == (2,)
    assert old.execute("SELECT count(quota) FROM folder_group").fetchone() == (3,)
    old.execute("DROP TABLE writer")
    old.close()
    ledger = Ledger(path)
    assert len(ledger.spaces.all()) == 2
    ledger.close()


def test_a_project_is_given_once(ledger: Ledger) -> None:
    first, second = (ledger.spaces.ensure("home", uid).project for uid in (20000, 20001))
    assert (first, second) == (1_000_000_001, 1_000_000_002)
    assert ledger.spaces.ensure("home", 20000).project == first
    ledger.spaces.remove(ledger.spaces.ensure("home", 20001))
    assert ledger.spaces.ensure("scratch", 20001).project == 1_000_000_003
    assert ledger.spaces.ensure("home", 20001).project == 1_000_000_004


def test_what_was_said_of_somebody_who_left_is_forgotten(ledger: Ledger) -> None:
    uid = reserve(ledger, "anna")
    ledger.spaces.set_limit("home", uid, Limit(bytes=5, files=7))
    project = ledger.spaces.ensure("home", uid).project
    ledger.retire("anna")
    assert ledger.spaces.said("home", uid) == Limit()
    assert ledger.spaces.ensure("home", uid).project == project
    ledger.reserve_group("ocean", 20000, 20009, taken=lambda _: False)
    group = ledger.groups.find("ocean")
    assert group is not None
    ledger.spaces.set_limit("group", group.gid, Limit(bytes=5))
    ledger.spaces.set_member_limit(group, "home", Limit(files=0))
    ledger.spaces.note_writers({uid: [group.id]})
    ledger.groups.retire(group)
    assert ledger.spaces.said("group", group.gid) == Limit()
    assert ledger.spaces.member_limits() == {}
    # Their files in its folder are theirs until that is gone.
    assert ledger.spaces.writers_of_retired() == {group.gid: {uid}}
    ledger.spaces.forget_writers(group.gid)
    assert ledger.spaces.writers_of_retired() == ledger.spaces.writers() == {}


def test_a_space_gets_a_project_above_all_that_were_given(ledger: Ledger) -> None:
    ledger.spaces.set_limit("home", 20000, Limit(bytes=5, files=7))
    ledger.spaces.remove(ledger.spaces.ensure("home", 20001))
    moved = ledger.spaces.renumber(ledger.spaces.ensure("home", 20000), 4)
    assert moved == ledger.spaces.find("home", 20000)
    assert (moved.project, moved.said) == (1_000_000_006, Limit(bytes=5, files=7))
    ledger.spaces.remove(moved)
    assert ledger.spaces.ensure("home", 20000).project == 1_000_000_007


def test_a_migration_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    old = sqlite3.connect(path)
    old.executescript(VERSION_1)
    old.close()

    def cut_off(_name: str) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ledger(path, was_locked=cut_off)
    ledger = Ledger(path)
    assert len(ledger.all()) == 4
    ledger.close()


def test_a_ledger_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(RuntimeError, match="newer labstead"):
        Ledger(path)


def test_groups_and_people_share_the_numbers(ledger: Ledger) -> None:
    reserve(ledger, "anna")
    ledger.reserve_group("ocean", 20000, 20009, taken=lambda _: False)
    assert reserve(ledger, "ben") == 20002
    group = ledger.groups.find("ocean")
    assert group is not None
    ledger.groups.retire(group)
    ledger.reserve_group("ocean", 20000, 20009, taken=lambda _: False)
    assert ledger.groups.numbers() == {20001, 20003}


def test_a_linked_account_can_be_linked_again_but_a_given_number_never(ledger: Ledger) -> None:
    ledger.link("doro", 5001, 5001)
    ledger.retire("doro")
    assert ledger.link("doro", 5001, 5001).uid == 5001
    given = reserve(ledger, "anna")
    ledger.retire("anna")
    with pytest.raises(AccountRefused, match="was given to anna before"):
        ledger.link("impostor", given, given)


def test_what_is_known_of_somebody_who_left_is_a_number(ledger: Ledger) -> None:
    uid = reserve(ledger, "anna")
    ledger.set_details("anna", "Anna", "anna@example.org")
    ledger.bind("anna", "issuer 1")
    ledger.retire("anna")
    (gone,) = ledger.retired()
    assert (gone.name, gone.uid, gone.full_name, gone.email) == ("anna", uid, "", "")
    assert ledger.find_subject("issuer 1") is None
    assert ledger.subject_was_removed("issuer 1")
    assert ledger.was_removed("anna", uid)
