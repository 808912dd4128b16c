"""What the administrators' page of people shows of whom."""

from datetime import date, datetime, timedelta

import pytest

from labstead.accounts.protocol import Account, Group, Space
from labstead.hub.authenticator import Signup
from labstead.hub.lists import page_number, page_of
from labstead.hub.people import Person, Query, Seen, people_of

WHEN = datetime(2026, 1, 2, 3, 4)
HOME = Space(kind="home", name="anna", path="/home/anna", used_bytes=5, limit_bytes=10)
SCRATCH = Space(kind="scratch", name="bert", path="/scratch/bert", used_bytes=7)


def account(name: str, **changes: object) -> Account:
    fixed = {"uid": 20000, "gid": 20000, "kind": "created", "state": "active", "created_at": "2026-01-01T00:00:00Z"}
    return Account.model_validate({"name": name, **fixed, **changes})


def group(name: str, *members: str) -> Group:
    folder = f"/groups/{name}"
    return Group(
        name=name, gid=1, kind="created", folder=folder, members=members, declared=(), managers=(), created_at=""
    )


def people(*accounts: Account) -> list[Person]:
    hub = Seen({"anna": WHEN, "bert": None}, frozenset({"anna"}), frozenset({"anna", "carla"}))
    groups = [group("ocean", "anna", "bert"), group("air", "anna")]
    return people_of(accounts, groups, [SCRATCH, HOME], hub, {"carla"})


def test_what_is_known_of_somebody_is_put_together() -> None:
    anna, bert, carla = people(account("carla"), account("bert"), account("anna", full_name="Anna Ä", email="a@b.org"))
    assert anna.groups == ("air", "ocean")
    assert (anna.last_seen, anna.home, anna.running, anna.has_login) == (WHEN, HOME, True, True)
    assert (bert.groups, bert.last_seen, bert.home, bert.running, bert.has_login) == (
        ("ocean",),
        None,
        None,
        False,
        False,
    )
    assert carla.is_admin
    assert not anna.is_admin


def test_the_self_checks_account_is_nobody() -> None:
    assert people(account("labstead-canary", kind="canary")) == []


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "active"),
        ({"locked": "locked"}, "locked"),
        ({"locked": "expired"}, "expired"),
        ({"expires": date.today()}, "expired"),
        ({"expires": date.today() + timedelta(days=1)}, "active"),
        ({"state": "pending"}, "unfinished"),
        ({"state": "retired"}, "removed"),
    ],
)
def test_the_state_of_an_account_is_told(changes: dict[str, object], state: str) -> None:
    (person,) = people(account("anna", **changes))
    assert person.state == state


@pytest.mark.parametrize("name", ["anna", "carla"])
def test_who_was_removed_does_not_look_like_who_has_the_name_now(name: str) -> None:
    (person,) = people(account(name, state="retired"))
    assert not person.is_admin
    assert (person.groups, person.last_seen, person.home, person.has_login) == ((), None, None, False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["anna", "bert"]),
        ("ANN", ["anna"]),
        ("müller", ["bert"]),
        ("ocean", ["anna"]),
        ("ocean müller", []),
        ("  müller   be ", ["bert"]),
        (".*", []),
        ("example.org", ["anna"]),
    ],
)
def test_a_search_looks_at_names_addresses_and_groups(text: str, found: list[str]) -> None:
    known = people_of(
        [account("anna", email="x@example.org"), account("bert", full_name="Bert Müller")],
        [group("ocean", "anna")],
        [],
        Seen({}, frozenset(), frozenset()),
        (),
    )
    assert [person.name for person in Query(text).people(known)] == found


def test_a_search_for_a_state_leaves_sign_ups_out() -> None:
    waiting = [Signup("anna", "a@example.org", "1"), Signup("bert", "", "2")]
    assert Query("example").signups(waiting) == waiting[:1]
    assert Query("", "locked").signups(waiting) == []
    assert Query("", "no such state").signups(waiting) == waiting


def test_pages_cover_everybody_once() -> None:
    known = people(*(account(f"person{number:03}") for number in range(101)))
    pages = [page_of(known, number) for number in (1, 2, 3)]
    assert [len(page.items) for page in pages] == [50, 50, 1]
    assert [person for page in pages for person in page.items] == known
    assert [page.first for page in pages] == [1, 51, 101]
    assert page_of(known, 9).number == 3
    assert page_of(known, -1).number == 1
    assert page_of([], 1).pages == 1


def test_the_address_of_a_page_keeps_what_was_looked_for() -> None:
    assert Query("a&b", "locked", 3).url("/hub/people") == "/hub/people?q=a%26b&state=locked&page=3"
    assert Query("", "", 3).url("/hub/people", 1) == "/hub/people"


@pytest.mark.parametrize(
    ("typed", "number"), [("3", 3), ("", 1), ("-1", 1), ("x", 1), ("9" * 7, 1), ("²", 1), ("999999", 999999)]
)
def test_what_is_no_number_of_a_page_is_the_first(typed: str, number: int) -> None:
    assert page_number(typed) == number
