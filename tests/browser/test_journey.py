"""From sign-up to a running notebook, as people do it: with a mouse and a keyboard, in a browser."""

import re

from playwright.sync_api import Page, expect

from support.browsing import (
    START,
    Shoot,
    Visit,
    fill_in_log_in,
    fill_in_sign_up,
    look_for,
    run_in_first_cell,
    wait_for_lab,
)
from support.lab import Lab
from support.person import PASSWORD


def test_a_participants_first_day(lab: Lab, visitor: Visit, people_page: Page, shoot: Shoot) -> None:
    page, name = visitor(), lab.somebody("mia").name

    page.goto("/")
    expect(page.get_by_role("heading", name="Institute of Tests")).to_be_visible()
    shoot(page, "01-log-in")
    page.get_by_role("link", name="Sign up").click()
    shoot(page, "02-sign-up")
    fill_in_sign_up(page, name)
    expect(page.get_by_role("status")).to_contain_text(f"Thank you, {name}")
    shoot(page, "03-signed-up")

    page.get_by_role("link", name="sign in").first.click()
    fill_in_log_in(page, name)
    expect(page.get_by_text("waits for an administrator's approval")).to_be_visible()
    shoot(page, "04-refused-before-approval")

    people_page.reload()
    waiting = people_page.get_by_role("table", name="Waiting for approval")
    expect(waiting.get_by_role("row", name=name)).to_be_visible()
    shoot(people_page, "05-people-waiting")
    people_page.get_by_role("button", name=f"Approve {name}").click()
    expect(people_page.get_by_role("status").first).to_contain_text(f"{name} is approved")
    look_for(people_page, name)
    expect(people_page.get_by_role("table", name="Accounts").get_by_role("row", name=name)).to_contain_text("active")
    shoot(people_page, "06-people-approved")

    fill_in_log_in(page, name)
    wait_for_lab(page, name)
    page.locator(".jp-LauncherCard", has_text="Python 3").first.click()
    output = run_in_first_cell(page, "import os; print(os.getuid())")
    expect(output).to_have_text(lab.machine.out("id", "-u", name), timeout=START)
    shoot(page, "07-notebook")
    page.keyboard.press("Control+S")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("first-day.ipynb")
    dialog.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("listitem").filter(has_text="first-day.ipynb")).to_be_visible()
    assert lab.machine.out("stat", "--format=%U", f"/home/{name}/first-day.ipynb") == name

    page.goto("/hub/home")
    shoot(page, "08-home-running")
    page.get_by_role("button", name="Stop My Server").click()
    expect(page.get_by_role("button", name="Start My Server")).to_be_visible(timeout=60_000)
    shoot(page, "09-home-stopped")
    assert f"labstead-session-{name}" not in lab.machine.containers()

    page.get_by_role("button", name="Logout").or_(page.get_by_role("link", name="Logout")).click()
    expect(page.get_by_label("Username")).to_be_visible()
    page.goto("/hub/home")
    expect(page.get_by_label("Username")).to_be_visible()

    fill_in_log_in(page, name)
    page.wait_for_url(re.compile(r"/hub/home"))
    page.get_by_role("button", name="Start My Server").click()
    wait_for_lab(page, name)
    item = page.get_by_role("listitem").filter(has_text="first-day.ipynb")
    expect(item).to_be_visible()
    item.dblclick()
    # Not by place: JupyterLab puts the cells of a long page into the document as it gets to them.
    expect(page.locator(".jp-NotebookPanel:visible .jp-Cell").filter(has_text="os.getuid()")).to_be_visible()
    shoot(page, "10-next-day")


def test_sign_up_and_log_in_with_the_keyboard_alone(lab: Lab, visitor: Visit, people_page: Page, shoot: Shoot) -> None:
    page, name = visitor(), lab.somebody("kim").name

    def tab_to(what: str) -> None:
        focused = "() => document.activeElement.innerText || document.activeElement.value || ''"
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate(focused).strip() == what:
                return
        raise AssertionError(f"the tab key does not lead to {what!r}")

    page.goto("/hub/login")
    tab_to("Sign up")
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/signup")
    expect(page.get_by_label("Username")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    expect(page.get_by_label("E-mail address")).to_be_focused()
    page.keyboard.type(f"{name}@institute.test")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    shoot(page, "20-keyboard-sign-up")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Sign up")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text(f"Thank you, {name}")
    tab_to("sign in")
    page.keyboard.press("Enter")
    page.wait_for_url("**/hub/login*")

    people_page.reload()
    people_page.get_by_role("button", name=f"Approve {name}").focus()
    people_page.keyboard.press("Enter")
    expect(people_page.get_by_role("status").first).to_be_focused()
    expect(people_page.get_by_role("status").first).to_contain_text(f"{name} is approved")

    expect(page.get_by_label("Username")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/hub/(home|spawn)|/user/"), timeout=START)
    assert lab.machine.out("id", "-un", name) == name


def test_a_refused_sign_up_says_why_on_the_same_page(visitor: Visit, shoot: Shoot) -> None:
    page = visitor()
    page.goto("/hub/signup")
    fill_in_sign_up(page, "root")
    expect(page.get_by_role("alert")).to_have_text("The username root is reserved; please choose another one.")
    expect(page.get_by_label("Username")).to_have_value("root")
    expect(page.get_by_label("Password", exact=True)).to_have_value("")
    shoot(page, "21-sign-up-refused")
