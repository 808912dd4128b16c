"""What people do in a browser on the hub's pages and in JupyterLab.

The rule: what is clicked or filled in is found by what a person sees or a screen reader says, where there is such a
thing.
"""

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from support.person import PASSWORD

Shoot = Callable[[Page, str], None]
"""Keep a picture of a page under a name."""
Visit = Callable[[], Page]
"""Open a page for somebody new."""

START = 120_000
"""Milliseconds that a session and JupyterLab may take to open."""


def fill_in_sign_up(page: Page, name: str, password: str = PASSWORD) -> None:
    """Fill in the sign-up page that is open, and send it."""
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_label("Password, once more").fill(password)
    page.get_by_role("button", name="Sign up").click()


def fill_in_log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    """Fill in the log-in page that is open, and send it."""
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def look_for(people_page: Page, words: str) -> None:
    """Search on the administrators' page of people."""
    people_page.get_by_label("Search").fill(words)
    people_page.keyboard.press("Enter")
    expect(people_page.get_by_label("Search")).to_have_value(words)
    expect(people_page.get_by_role("link", name="Show all")).to_be_visible()


def wait_for_lab(page: Page, name: str) -> None:
    """Wait until JupyterLab has opened."""
    page.wait_for_url(re.compile(rf"/user/{name}/lab"), timeout=START)
    expect(page.locator("#jp-main-dock-panel")).to_be_visible(timeout=START)
    expect(page.locator("#jupyterlab-splash")).to_have_count(0, timeout=START)


def run_in_first_cell(page: Page, code: str) -> Locator:
    """Type code into the first cell of the notebook that is open, run it and give the place of what it prints."""
    cell = page.locator(".jp-NotebookPanel:visible .jp-Cell").first
    # JupyterLab drops a run that comes while it still picks the kernel.
    expect(page.get_by_text("Python 3 | Idle")).to_be_visible(timeout=START)
    cell.locator(".cm-content").click()
    page.keyboard.type(code)
    expect(cell.locator(".cm-content")).to_have_text(code)
    page.keyboard.press("Shift+Enter")
    return cell.locator(".jp-OutputArea-output pre")
