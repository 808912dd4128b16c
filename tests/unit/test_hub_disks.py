"""The pages of disks: who is shown what, and what a session may ask."""

import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from labstead import usage
from labstead.accounts.protocol import Space
from labstead.hub.disks import Query, Total, in_order, totals
from labstead.usage import Sample
from support.forms import words_of
from support.pages import Accounts, Site, site

G = 2**30


def space(kind: str, name: str, used: int | None, limit: int | None = None, **changes: object) -> Space:
    root = {"home": "/home", "group": "/groups", "scratch": "/scratch"}[kind]
    fixed = {"kind": kind, "name": name, "path": f"{root}/{name}", "used_bytes": used, "limit_bytes": limit}
    return Space.model_validate({**fixed, "file_system": "xfs", **changes})


EVERYTHING = (
    space("home", "anna", 5 * G, 10 * G, used_files=96, limit_files=100),
    space("home", "bert", 10 * G, 10 * G, said_by="own"),
    space("home", "carla", 50 * G),
    space("home", "dora", 8 * G, 10 * G, used_files=7),
    space("group", "ocean", 30 * G, 100 * G, said_by="group"),
    space("scratch", "anna", None, file_system="other"),
)


def names(spaces: list[Space]) -> list[str]:
    return [f"{one.kind}:{one.name}" for one in spaces]


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("percent", ["home:bert", "home:anna", "home:dora", "group:ocean", "home:carla", "scratch:anna"]),
        ("use", ["home:carla", "group:ocean", "home:bert", "home:dora", "home:anna", "scratch:anna"]),
        ("files", ["home:anna", "home:dora", "home:carla"]),
        ("name", ["home:anna", "scratch:anna", "home:bert", "home:carla", "home:dora", "group:ocean"]),
    ],
)
def test_the_most_comes_first_and_names_from_a_to_z(order: str, first: list[str]) -> None:
    assert names(in_order(EVERYTHING, order))[: len(first)] == first  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query("ANNA", order="name"), ["home:anna", "scratch:anna"]),
        (Query("anna scratch"), ["scratch:anna"]),
        (Query("ocean anna"), []),
        (Query(kind="group"), ["group:ocean"]),
        (Query(kind="<script>", text="ocean"), ["group:ocean"]),
        (Query(least=80), ["home:bert", "home:anna", "home:dora"]),
        (Query(least=95), ["home:bert", "home:anna"]),
        (Query(".*"), []),
    ],
)
def test_a_search_looks_at_names_kinds_and_how_full(query: Query, found: list[str]) -> None:
    assert names(query.spaces(EVERYTHING)) == found


def test_the_address_keeps_what_was_looked_for() -> None:
    assert Query().url("/hub/disks") == "/hub/disks"
    query = Query("a&b", "home", 95, "use", 3, "home:anna")
    assert query.url("/hub/disks") == "/hub/disks?q=a%26b&kind=home&least=95&sort=use&of=home%3Aanna&page=3"


@pytest.mark.parametrize(
    ("of", "chosen"),
    [("", None), ("home:anna", ("home", "anna")), ("home:", None), ("anna", None), ("x:anna", None)],
)
def test_a_history_is_of_a_kind_and_a_name(of: str, chosen: tuple[str, str] | None) -> None:
    assert Query(of=of).chosen == chosen


def test_what_there_is_is_added_up_by_kind_and_file_system() -> None:
    assert totals(EVERYTHING) == [
        Total("home", "xfs", 4, 73 * G, 30 * G, 1),
        Total("group", "xfs", 1, 30 * G, 100 * G, 0),
        Total("scratch", "other", 1, 0, 0, 1),
    ]
    assert totals([]) == []


# --- the pages themselves


@pytest.fixture(scope="module")
def accounts() -> Accounts:
    found = Accounts("hubadmin", "anna", "bert")
    found.group["ocean"] = ("anna",)
    return found


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, accounts: Accounts) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("hub"), accounts) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch, accounts: Accounts, tmp_path: Path) -> None:
    """Let each test say what is on the disks, and what was."""
    monkeypatch.setattr("labstead.hub.spaces.REMEMBERED_SECONDS", -1)
    monkeypatch.setattr(usage, "FILE", tmp_path / "usage.sqlite")
    accounts.disks, accounts.disks_are_away = EVERYTHING, False
    usage.add([Sample(day=date.today(), kind="scratch", name="anna", bytes=3 * G)], tmp_path.stat().st_gid)


def test_a_person_sees_what_is_theirs_before_the_server_starts(hub: Site) -> None:
    page = hub.visit(hub.log_in("anna"), "/hub/home")
    words = words_of(page.text)
    assert "Your home is almost full: 96 of 100 files and folders." in words
    assert "Home /home/anna almost full 5 of 10 GiB 50 %" in words
    assert "Group ocean /groups/ocean 30 of 100 GiB 30 %" in words
    assert "Scratch /scratch/anna 3 GiB no limit" in words
    assert page.text.count("<meter ") == 3
    assert "bert" not in words
    assert "carla" not in words


def test_a_full_home_is_told_with_a_way_out(hub: Site) -> None:
    page = hub.visit(hub.log_in("bert"), "/hub/home")
    assert "Your home is full: 10 of 10 GiB." in words_of(page.text)
    assert "Your server starts anyway" in words_of(page.text)
    assert "Start" in words_of(page.text)


def test_the_home_page_is_there_without_the_service(hub: Site, accounts: Accounts) -> None:
    accounts.disks_are_away = True
    page = hub.visit(hub.log_in("anna"), "/hub/home")
    assert page.status_code == 200
    assert "Your disk space" not in page.text
    assert "Your groups" in page.text


def test_only_administrators_see_the_disks(hub: Site) -> None:
    anna = hub.log_in("anna")
    assert hub.visit(anna, "/hub/disks").status_code == 403
    assert "/hub/disks" not in hub.visit(anna, "/hub/home").text
    assert "/hub/disks" in hub.visit(hub.log_in("hubadmin"), "/hub/home").text


def test_the_page_of_disks_tells_who_uses_what(hub: Site) -> None:
    page = hub.visit(hub.log_in("hubadmin"), "/hub/disks")
    words = words_of(page.text)
    assert "2 at 95 % or more: bert (home, 100 %) , anna (home, 96 %)" in words
    assert "bert home 10 GiB 10 GiB itself 100 % full" in words
    assert "ocean group 30 GiB 100 GiB a group 30 %" in words
    assert "carla home 50 GiB none" in words
    assert "1 to 6 of 6." in words
    assert "Homes xfs 4 73 GiB 30 GiB, 1 without" in words


def test_what_is_typed_into_the_page_of_disks_is_text(hub: Site) -> None:
    typed = "?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&kind=%3Cb%3E&least=1e9&sort=x&page=-1&of=home:%3Cscript%3E"
    page = hub.visit(hub.log_in("hubadmin"), "/hub/disks" + typed)
    assert page.status_code == 200
    assert "Nothing found." in page.text
    assert "<script>alert" not in page.text
    assert "home of <script>" not in page.text


def test_the_chart_is_a_picture_with_words(hub: Site, tmp_path: Path) -> None:
    today = date.today()
    usage.add(
        [
            Sample(day=today - timedelta(days=age), kind=kind, name=name, bytes=count * G, limit_bytes=limit)
            for age, kind, name, count, limit in [
                (2, "home", "anna", 1, 10 * G),
                (1, "home", "anna", 4, 10 * G),
                (1, "home", "bert", 5, None),
                (1, "group", "ocean", 7, None),
            ]
        ],
        tmp_path.stat().st_gid,
    )
    admin = hub.log_in("hubadmin")

    def shown(path: str) -> tuple[list[str], str]:
        page = hub.visit(admin, path).text
        (drawing,) = re.findall(r'<svg id="chart"[^>]* role="img".*?</svg>', page, re.DOTALL)
        return re.findall(r'<path class="(\w+)"', drawing), words_of(page)

    lines, words = shown("/hub/disks")
    assert lines == ["home", "group", "scratch"]
    two, one = today - timedelta(days=2), today - timedelta(days=1)
    assert f"Homes: 1 GiB on {two}, 9 GiB on {one}, at most 9 GiB." in words
    lines, words = shown("/hub/disks?of=home:anna")
    assert lines == ["home", "limit"]
    assert f"Used: 1 GiB on {two}, 4 GiB on {one}, at most 4 GiB. Limit: 10 GiB" in words


def test_the_page_of_disks_says_when_the_service_is_away(hub: Site, accounts: Accounts) -> None:
    accounts.disks_are_away = True
    page = hub.visit(hub.log_in("hubadmin"), "/hub/disks")
    assert page.status_code == 503
    assert "cannot be shown now: the accounts service does not answer" in words_of(page.text)
    people = hub.visit(hub.log_in("hubadmin"), "/hub/people")
    assert people.status_code == 200
    assert "1 to 3 of 3." in words_of(people.text)


def test_the_page_of_people_shows_use_and_limit(hub: Site) -> None:
    words = words_of(hub.visit(hub.log_in("hubadmin"), "/hub/people").text)
    assert "10 of 10 GiB full" in words


# --- what a session may ask

API = "/hub/api/labstead/spaces"


def test_a_session_is_told_of_its_owners_spaces_alone(hub: Site) -> None:
    answer = hub.api(API, hub.token("anna", role="server"))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json() == {
        "spaces": [
            {
                "kind": kind,
                "name": name,
                "path": path,
                "used_bytes": used,
                "used_files": files,
                "limit_bytes": limit,
                "limit_files": limit_files,
            }
            for kind, name, path, used, files, limit, limit_files in [
                ("home", "anna", "/home/anna", 5 * G, 96, 10 * G, 100),
                ("group", "ocean", "/groups/ocean", 30 * G, None, 100 * G, None),
                ("scratch", "anna", "/scratch/anna", None, None, None, None),
            ]
        ]
    }
    assert {one["name"] for one in hub.api(API, hub.token("bert", role="server")).json()["spaces"]} == {"bert"}


def test_an_administrators_session_is_told_of_its_owners_spaces_too(hub: Site) -> None:
    assert hub.api(API, hub.token("hubadmin", role="server")).json() == {"spaces": []}
    assert hub.api(API + "?name=anna", hub.token("hubadmin")).json() == {"spaces": []}


@pytest.mark.parametrize("token", ["", "x", "0" * 64])
def test_nobody_is_told_without_a_token(hub: Site, token: str) -> None:
    answer = hub.api(API, token)
    assert answer.status_code == 403
    assert "spaces" not in answer.json()


def test_what_others_servers_know_of_a_visitor_is_not_enough(hub: Site) -> None:
    """A server whom somebody visits gets a token of theirs, which says who they are."""
    answer = hub.api(API, hub.token("anna", "read:users:name!user", "read:users:groups!user"))
    assert answer.status_code == 403
    assert "spaces" not in answer.json()


def test_a_session_is_told_when_the_service_is_away(hub: Site, accounts: Accounts) -> None:
    accounts.disks_are_away = True
    answer = hub.api(API, hub.token("anna", role="server"))
    assert answer.status_code == 503
    assert answer.json() == {
        "status": 503,
        "message": "The hub cannot tell now how full the disks are: the accounts service does not say.",
    }
