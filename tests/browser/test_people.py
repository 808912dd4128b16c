"""The page of people, groups and their managers, and passwords: with a mouse, a keyboard, a telephone."""

import csv
import io
import re

import pytest
from playwright.sync_api import Page, expect

from support.browsing import START, Shoot, Visit, fill_in_log_in, look_for, run_in_first_cell, wait_for_lab
from support.lab import Lab
from support.person import PASSWORD, Person

NEW_PASSWORD = "eight quiet otters dive"


@pytest.fixture
def person(lab: Lab, admin: Person) -> Person:
    """Give somebody who is approved."""
    return lab.join("pia", admin)


def _row(page: Page, name: str) -> str:
    row = page.get_by_role("table", name="Accounts").get_by_role("row", name=name)
    expect(row).to_have_count(1)
    return str(row.inner_text())


def test_an_administrator_finds_and_locks_somebody_with_the_keyboard_alone(
    person: Person, people_page: Page, visitor: Visit, shoot: Shoot
) -> None:
    page = visitor()
    page.goto("/hub/login?next=/hub/home")
    fill_in_log_in(page, person.name)
    expect(page.get_by_role("link", name="Groups")).to_be_visible()
    expect(page.get_by_role("link", name="People")).to_have_count(0)

    look_for(people_page, person.name)
    assert "active" in _row(people_page, person.name)
    asked: list[str] = []
    people_page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    people_page.get_by_role("button", name=f"Lock {person.name}").focus()
    people_page.keyboard.press("Enter")
    assert f"Lock {person.name}?" in asked[0]
    assert "active" in _row(people_page, person.name)
    people_page.once("dialog", lambda dialog: dialog.accept())
    people_page.keyboard.press("Enter")
    expect(people_page.get_by_role("status").first).to_contain_text(f"{person.name} is locked")
    expect(people_page.get_by_role("status").first).to_be_focused()
    assert "locked" in _row(people_page, person.name)
    shoot(people_page, "50-people-locked")

    page.reload()
    expect(page.get_by_label("Username")).to_be_visible()
    fill_in_log_in(page, person.name)
    expect(page.get_by_role("alert")).to_contain_text("is locked")
    shoot(page, "51-log-in-locked")

    people_page.get_by_role("button", name=f"Unlock {person.name}").click()
    expect(people_page.get_by_role("status").first).to_contain_text(f"{person.name} is unlocked")
    fill_in_log_in(page, person.name)
    page.wait_for_url(re.compile(r"/hub/home"))


def test_a_search_without_result_and_a_state_say_so(people_page: Page) -> None:
    look_for(people_page, "nobody-has-this-name")
    expect(people_page.get_by_role("status")).to_have_text("Nobody found.")
    people_page.get_by_role("link", name="Show all").click()
    people_page.get_by_label("State").select_option("active")
    people_page.get_by_role("button", name="Search").click()
    expect(people_page.get_by_role("status")).to_contain_text("1 to ")
    people_page.goto("/hub/people?page=4711&state=%3Cscript%3E&q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    expect(people_page.get_by_role("status")).to_have_text("Nobody found.")
    expect(people_page.get_by_label("Search")).to_have_value('"><script>alert(1)</script>')


def test_a_manager_adds_and_removes_members_who_see_the_folder(
    lab: Lab, admin: Person, person: Person, visitor: Visit, shoot: Shoot
) -> None:
    colleague, group = lab.join("quentin", admin), f"reef-{person.name[-6:]}"
    lab.machine.run("labstead", "group", "add", group, "--members", person.name, "--managers", person.name)
    page = visitor()
    page.goto("/hub/login?next=/hub/home")
    fill_in_log_in(page, person.name)
    expect(page.get_by_role("region", name="Your groups")).to_contain_text(f"/groups/{group}")
    shoot(page, "52-home-with-groups")

    page.get_by_role("link", name="Groups", exact=True).click()
    field = page.get_by_label(f"Add people to {group}")
    field.fill("nobody-has-this-name")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("nobody-has-this-name")
    expect(field).to_have_value("nobody-has-this-name")
    field.fill(colleague.name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text(f"{colleague.name} added to {group}")
    shoot(page, "53-group")
    assert colleague.name in lab.machine.out("getent", "group", group)

    theirs = visitor()
    theirs.goto("/hub/login")
    fill_in_log_in(theirs, colleague.name)
    wait_for_lab(theirs, colleague.name)
    theirs.locator(".jp-LauncherCard", has_text="Python 3").first.click()
    output = run_in_first_cell(
        theirs, f"open('/groups/{group}/a','w'); import os; print(os.stat('/groups/{group}/a').st_gid)"
    )
    expect(output).to_have_text(lab.machine.out("getent", "group", group).split(":")[2], timeout=START)

    # Whoever does not manage the group sees it and cannot change it.
    theirs.goto("/hub/groups")
    expect(theirs.get_by_role("heading", name=group)).to_be_visible()
    expect(theirs.get_by_label(f"Add people to {group}")).to_have_count(0)
    expect(theirs.get_by_role("button", name="Remove")).to_have_count(0)
    token = colleague.token("/hub/")
    answer = colleague.post(f"/hub/groups/{group}", {"add": "hubadmin", "_xsrf": token})
    assert answer.status_code == 400
    assert "hubadmin" not in lab.machine.out("getent", "group", group)

    page.get_by_role("button", name=f"Remove {colleague.name} from {group}").click()
    expect(page.get_by_role("status")).to_contain_text(f"{colleague.name} removed from {group}")
    assert colleague.name not in lab.machine.out("getent", "group", group)


def test_one_changes_ones_own_password(lab: Lab, person: Person, visitor: Visit, shoot: Shoot) -> None:
    page = visitor()
    page.goto("/hub/login?next=/hub/change-password")
    fill_in_log_in(page, person.name)

    def fill_in(old: str, new: str, again: str) -> None:
        page.get_by_label("Present password").fill(old)
        page.get_by_label("New password", exact=True).fill(new)
        page.get_by_label("New password, once more").fill(again)
        page.get_by_role("button", name="Set password").click()

    fill_in("not the right one", NEW_PASSWORD, NEW_PASSWORD)
    expect(page.get_by_role("alert")).to_contain_text("present password is not right")
    fill_in(PASSWORD, NEW_PASSWORD, NEW_PASSWORD + "x")
    expect(page.get_by_role("alert")).to_contain_text("not the same")
    fill_in(PASSWORD, "x" * 100, "x" * 100)
    expect(page.get_by_role("alert")).to_contain_text("at most 72 bytes")
    shoot(page, "54-password-refused")
    fill_in(PASSWORD, NEW_PASSWORD, NEW_PASSWORD)
    expect(page.get_by_role("status")).to_contain_text("is changed")
    assert lab.person(person.name).try_to_log_in().status_code == 403
    assert lab.person(person.name).try_to_log_in(NEW_PASSWORD).status_code == 302


def test_a_link_to_set_a_password_works_once(lab: Lab, person: Person, visitor: Visit, shoot: Shoot) -> None:
    lab.machine.run("labstead", "user", "invite", person.name, "--output", "/root/links.csv")
    (row,) = csv.DictReader(io.StringIO(lab.machine.sh("cat /root/links.csv; rm /root/links.csv").stdout))
    page = visitor()
    page.goto(row["link"])
    expect(page.get_by_role("heading", name=person.name)).to_be_visible()
    expect(page.get_by_label("New password", exact=True)).to_be_focused()
    page.keyboard.type("short")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("at least 11")
    page.get_by_label("New password", exact=True).fill(NEW_PASSWORD)
    page.get_by_label("New password, once more").fill(NEW_PASSWORD)
    shoot(page, "55-invitation")
    page.get_by_role("button", name="Set password").click()
    expect(page.get_by_role("status")).to_contain_text("is set")
    page.get_by_role("link", name="sign in").click()
    expect(page.get_by_label("Username")).to_have_value(person.name)
    page.get_by_label("Password").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile(r"/hub/(home|spawn)|/user/"), timeout=START)

    again = visitor().goto(row["link"])
    assert again is not None
    assert again.status == 410
    token = row["link"].rpartition("/")[2]
    assert token not in lab.machine.sh("journalctl --unit=labstead-hub; cat /var/log/nginx/labstead.log").stdout


def test_pages_of_people_and_groups_fit_a_telephone(people_page: Page, shoot: Shoot) -> None:
    people_page.set_viewport_size({"width": 360, "height": 700})
    for path in ("people", "groups", "home", "change-password"):
        people_page.goto(f"/hub/{path}")
        assert people_page.evaluate("document.documentElement.scrollWidth") <= 360
        shoot(people_page, f"56-telephone-{path}")
