"""A home that fills up, seen in JupyterLab: told in time, nothing lost, nobody locked out, and room made there."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Page, expect

from support.browsing import START, Shoot, Visit, fill_in_log_in, run_in_first_cell, wait_for_lab
from support.lab import Lab
from support.machine import wait_for
from support.person import Person

LIMIT = 48
"""MiB of the homes."""
FILES = 400
"""Files of the home that has few; btrfs, on which the host's homes are, counts none."""
COUNTED = 90
"""Seconds in which what was written is counted and seen; btrfs counts each 30 s."""
LOOK = "Show what takes the space"

FILL = """
import errno, itertools, os, sys
folder, kind, most = sys.argv[1], sys.argv[2], float(sys.argv[3])
os.makedirs(folder, exist_ok=True)

def until_full(step):
    try:
        while step():
            pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise

def write(file, size):
    if os.fstat(file.fileno()).st_size >= most:
        return False
    file.write(os.urandom(size))
    os.fsync(file.fileno())
    return True

numbers = itertools.count(len(os.listdir(folder)))
def make():
    number = next(numbers)
    if number >= most:
        return False
    with open(f"{folder}/{number}.nc", "xb") as file:
        file.write(b"x" if kind == "bytes" else b"")
    return True

if kind == "bytes":
    for size in (2**20, 2**16, 2**12, 1):
        with open(f"{folder}/large.nc", "ab", buffering=0) as file:
            until_full(lambda: write(file, size))
if kind == "files" or most == float("inf"):
    until_full(make)
"""
"""Fills a folder with one file of so many bytes, or with so many files; `inf`: to the last byte or file."""


@dataclass(frozen=True)
class Home:
    """Somebody's home that has few bytes, or few files."""

    lab: Lab
    person: Person
    kind: str

    @property
    def path(self) -> str:
        return f"/home/{self.person.name}"

    def fill(self, part: float | None = None) -> None:
        """Let its owner fill a part of it, or all of it to the last."""
        whole = LIMIT * 2**20 if self.kind == "bytes" else FILES
        most = "inf" if part is None else str(int(part * whole))
        self.lab.machine.python(FILL, f"{self.path}/results", self.kind, most, user=self.person.name)
        self.lab.machine.run("sync", "--file-system", self.path)

    def notebook(self) -> str:
        """Give the source of the notebook's first cell on the disk; nothing broken may lie beside it."""
        wrong = ("-name", ".~*", "-o", "-name", ".labstead-room*", "-o", "-name", "*corrupt*")
        assert self.lab.machine.out("find", self.path, *wrong) == ""
        cells = json.loads(self.lab.machine.out("cat", f"{self.path}/work.ipynb"))["cells"]
        return "".join(cells[0]["source"])


def _cell(page: Page) -> Locator:
    return page.locator(".jp-NotebookPanel:visible .jp-Cell .cm-content").first


def _write(page: Page, words: str) -> None:
    _cell(page).click()
    page.keyboard.press("Control+End")
    # Pasted: thousands of keys take a minute.
    page.keyboard.insert_text(words)
    page.keyboard.press("Control+S")


def _minutes_later(page: Page, awaited: Locator) -> None:
    """Let minutes go by in the browser until something is there: JupyterLab looks each minute."""

    def is_there() -> bool:
        page.clock.fast_forward("01:01")
        return awaited.is_visible()

    wait_for("what JupyterLab sees by itself", is_there, COUNTED)


def _make_room(page: Page, shoot: Shoot, name: str) -> None:
    """Delete the largest thing with the keyboard alone."""
    banner = page.locator("#labstead-disk-banner")
    expect(banner).to_contain_text("Your home is full", timeout=COUNTED * 1000)
    shoot(page, f"{name}-banner")
    banner.get_by_role("button", name=LOOK).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="What takes the space")
    expect(dialog.get_by_role("row").nth(1)).to_contain_text("results")
    shoot(page, f"{name}-largest")
    dialog.get_by_role("row").nth(1).get_by_role("button", name=re.compile("^Delete results")).focus()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Keep")).to_be_focused()
    expect(dialog.get_by_role("status")).to_contain_text("cannot be brought back")
    shoot(page, f"{name}-sure")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("status")).to_contain_text("is deleted", timeout=COUNTED * 1000)
    shoot(page, f"{name}-deleted")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(banner).to_be_hidden(timeout=COUNTED * 1000)


@pytest.fixture(params=["bytes", "files"])
def home(request: pytest.FixtureRequest, lab: Lab, admin: Person) -> Iterator[Home]:
    """Give somebody's home that has few bytes, or few files."""
    home = Home(lab, lab.join("fay", admin), request.param)
    name = home.person.name
    if home.kind == "bytes":
        lab.machine.run("labstead", "quota", "set", name, f"{LIMIT}M")
    else:
        uid, gid = (lab.machine.out("id", option, name) for option in ("--user", "--group"))
        options = f"nr_inodes={FILES},size={LIMIT}m,mode=700,uid={uid},gid={gid}"
        lab.machine.run("mount", "-t", "tmpfs", "-o", options, "tmpfs", home.path)
    yield home
    if lab.machine.exists():
        if home.person.server():
            home.person.stop()
        if home.kind == "files":
            lab.machine.run("umount", "--lazy", home.path)
        else:
            lab.machine.run("rm", "-rf", f"{home.path}/results")


def test_a_home_fills_up_and_locks_nobody_out(home: Home, visitor: Visit, shoot: Shoot) -> None:
    page, person, name = visitor(), home.person, f"60-disk-{home.kind}"
    person.start()
    page.clock.install()
    page.goto(f"/hub/login?next=/user/{person.name}/lab")
    fill_in_log_in(page, person.name)
    wait_for_lab(page, person.name)
    item = page.locator(".labstead-disk-item")
    expect(item).to_have_text(re.compile(rf"^Home .* of {LIMIT} MiB$"), timeout=START)
    expect(item).to_have_attribute("data-level", "")
    page.locator(".jp-LauncherCard", has_text="Python 3").first.click()
    run_in_first_cell(page, "x = 1")
    page.keyboard.press("Control+S")
    rename = page.get_by_role("dialog")
    rename.get_by_role("textbox").fill("work.ipynb")
    rename.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("listitem").filter(has_text="work.ipynb")).to_be_visible()
    shoot(page, f"{name}-room")

    home.fill(0.85)
    _minutes_later(page, page.get_by_role("alert").filter(has_text=re.compile(r"Your home is \d\d % full")))
    expect(item).to_have_attribute("data-level", "notice")
    expect(page.get_by_role("alert").get_by_role("button", name=LOOK)).to_be_visible()
    shoot(page, f"{name}-notice")
    page.get_by_role("menuitem", name="Settings").click()
    page.get_by_text("Theme", exact=True).hover()
    page.get_by_role("menuitem", name="JupyterLab Dark", exact=True).click()
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "false")

    home.fill()
    _write(page, f"\n# {'y' * 5000}")
    refused = page.get_by_role("dialog").filter(has_text="work.ipynb was not saved")
    expect(refused).to_contain_text(re.compile(r"Your home (is full|has too little room left) \(.*of.*\)"))
    expect(refused).to_contain_text("It is still open here")
    shoot(page, f"{name}-refused")
    refused.get_by_role("button", name="Close").click()
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_be_visible()
    assert home.notebook() == "x = 1"
    _make_room(page, shoot, f"{name}-first")
    _write(page, "\n# saved")
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)
    assert home.notebook().endswith("# saved")

    # The next day.
    person.stop()
    home.fill()
    page.goto("about:blank")
    person.start()
    page.goto(f"/user/{person.name}/lab/tree{home.path}/work.ipynb")
    wait_for_lab(page, person.name)
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    expect(page.locator("#labstead-disk-banner")).to_contain_text("Your home is full", timeout=COUNTED * 1000)
    expect(_cell(page)).to_contain_text("# saved", timeout=START)
    expect(page.get_by_text("Python 3 | Idle")).to_be_visible(timeout=START)
    _cell(page).click()
    page.keyboard.press("Control+End")
    page.keyboard.type("\nprint(6 * 7)")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output pre")).to_have_text("42", timeout=START)
    shoot(page, f"{name}-next-day")
    _make_room(page, shoot, f"{name}-second")
    page.keyboard.press("Control+S")
    expect(page.locator(".lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)
    assert "print(6 * 7)" in home.notebook()
