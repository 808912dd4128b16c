"""Disks on the hub's pages: one's own before the server starts, everybody's for administrators."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from support.browsing import Shoot, Visit, fill_in_log_in, look_for
from support.lab import Lab
from support.machine import wait_for
from support.person import Person

LIMIT = 40
"""MiB of the home of this test's person."""
COUNTED = 60
"""Seconds in which what was written is counted; btrfs counts with each of its commits, every 30 s."""

WRITE = """
import os, sys
path, most = sys.argv[1], int(sys.argv[2])
try:
    with open(path, "ab") as stream:
        while stream.tell() < most:
            stream.write(os.urandom(64 * 1024))
            stream.flush()
            os.fsync(stream.fileno())
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture(scope="module")
def person(lab: Lab, admin: Person) -> Iterator[Person]:
    """Give somebody whose home holds little."""
    person = lab.join("uma", admin)
    lab.machine.run("labstead", "quota", "set", person.name, f"{LIMIT}M")
    yield person
    if lab.machine.exists():
        lab.machine.run("rm", "-f", f"/home/{person.name}/results")


def _write(lab: Lab, person: Person, mebibytes: int) -> str:
    """Let a file in the home grow to a size, as its owner, and say what stopped it."""
    path = f"/home/{person.name}/results"
    done = lab.machine.python(WRITE, path, str(mebibytes * 2**20), user=person.name)
    lab.machine.run("sync", "--file-system", f"/home/{person.name}")
    return str(done.stdout).strip()


def _reload_until(page: Page, what: str, found: Locator) -> None:
    def is_there() -> bool:
        page.reload()
        return found.count() > 0

    wait_for(what, is_there, COUNTED)
    expect(found).to_be_visible()


def test_people_see_their_disk_space_before_the_server_starts(
    lab: Lab, person: Person, visitor: Visit, shoot: Shoot
) -> None:
    _write(lab, person, 10)
    page = visitor()
    page.goto("/hub/login?next=/hub/home")
    fill_in_log_in(page, person.name)
    expect(page.get_by_role("button", name="Start My Server")).to_be_visible()
    mine = page.get_by_role("region", name="Your disk space")
    meter = mine.get_by_role("meter", name="Home, size")
    _reload_until(page, "10 MiB", meter.and_(page.get_by_text(re.compile(rf"1\d(\.\d)? of {LIMIT} MiB"))))
    expect(mine.get_by_role("listitem").filter(has_text="Home /home/")).to_contain_text(re.compile(r"2\d %"))
    expect(mine.get_by_text("Your home is")).to_have_count(0)
    shoot(page, "70-home-with-disk-space")

    _write(lab, person, 34)
    _reload_until(page, "80 %", mine.get_by_text(re.compile(r"Your home is 8\d % full")))
    shoot(page, "71-home-fills-up")

    assert _write(lab, person, 2 * LIMIT) in ("Disk quota exceeded", "No space left on device")
    _reload_until(page, "a full home", mine.get_by_text(re.compile(r"Your home is full: .* Your server starts anyway")))
    expect(page.get_by_role("button", name="Start My Server")).to_be_visible()
    shoot(page, "72-home-is-full")
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    shoot(page, "73-telephone-home-is-full")


@pytest.fixture
def disks_page(people_page: Page) -> Page:
    """Give the administrator's page of disks, reached through the navigation."""
    people_page.get_by_role("link", name="Disks", exact=True).click()
    expect(people_page.get_by_role("heading", name="Disks", exact=True)).to_be_visible()
    return people_page


def _row(page: Page, name: str) -> Locator:
    return page.get_by_role("table", name="Who uses what").get_by_role("row", name=f"{name} home")


def test_an_administrator_finds_who_has_no_room_left(lab: Lab, person: Person, disks_page: Page, shoot: Shoot) -> None:
    _write(lab, person, 2 * LIMIT)
    _reload_until(disks_page, "who is almost full", disks_page.get_by_text(f"{person.name} (home,"))
    disks_page.get_by_role("link", name="Show them").click()
    expect(_row(disks_page, person.name)).to_contain_text(re.compile(rf"{LIMIT} MiB.*itself.*9\d %.*full", re.DOTALL))
    expect(_row(disks_page, person.name).get_by_role("meter")).to_be_visible()
    _row(disks_page, person.name).scroll_into_view_if_needed()
    shoot(disks_page, "74-disks-almost-full")

    disks_page.goto("/hub/disks")
    look_for(disks_page, person.name)
    expect(_row(disks_page, person.name)).to_have_count(1)
    heading = disks_page.get_by_role("table", name="Who uses what").get_by_role("columnheader", name="Used")
    heading.get_by_role("link").focus()
    disks_page.keyboard.press("Enter")
    disks_page.wait_for_url(re.compile("sort=use"))
    expect(heading).to_have_attribute("aria-sort", "descending")
    expect(disks_page.get_by_label("Search")).to_have_value(person.name)
    look_for(disks_page, "nobody-has-this-name")
    expect(disks_page.get_by_role("status")).to_have_text("Nothing found.")

    disks_page.goto(f"/hub/people?q={person.name}")
    row = disks_page.get_by_role("table", name="Accounts").get_by_role("row", name=person.name)
    expect(row).to_contain_text(re.compile(rf"\d\d(\.\d)? of {LIMIT} MiB"))
    expect(row).to_contain_text("full")


def test_an_administrator_sees_how_use_grew(lab: Lab, person: Person, disks_page: Page, shoot: Shoot) -> None:
    # What it cannot mail, without a relay, is measured all the same.
    lab.machine.run("labstead", "tidy", check=False, timeout=300)
    disks_page.reload()
    chart = disks_page.get_by_role("img", name="Last 90 days")
    expect(chart).to_be_visible()
    expect(disks_page.get_by_text(re.compile(r"Homes: .* on 20\d\d-\d\d-\d\d"))).to_be_visible()
    shoot(disks_page, "75-disks")
    disks_page.get_by_text("The same in numbers").click()
    expect(disks_page.get_by_role("columnheader", name="Homes")).to_be_visible()

    look_for(disks_page, person.name)
    disks_page.get_by_role("link", name=f"History of the home of {person.name}").click()
    expect(disks_page.get_by_role("heading", name=f"Last 90 days: home of {person.name}")).to_be_visible()
    expect(disks_page.get_by_text(re.compile(rf"Used: .*Limit: {LIMIT} MiB"))).to_be_visible()
    shoot(disks_page, "76-disks-of-one")


def test_the_page_of_disks_fits_a_telephone_and_the_dark(disks_page: Page, shoot: Shoot) -> None:
    disks_page.emulate_media(color_scheme="dark")
    disks_page.reload()
    shoot(disks_page, "77-disks-dark")
    disks_page.emulate_media(color_scheme="light")
    disks_page.set_viewport_size({"width": 360, "height": 700})
    disks_page.reload()
    assert disks_page.evaluate("document.documentElement.scrollWidth") <= 360
    shoot(disks_page, "78-telephone-disks")
