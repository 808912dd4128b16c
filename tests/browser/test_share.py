"""Share… in JupyterLab's file browser: found by right-click, done with the keyboard, seen by the colleague."""

from playwright.sync_api import expect

from support.browsing import START, Shoot, Visit, fill_in_log_in, wait_for_lab
from support.lab import Lab
from support.person import Person


def test_a_folder_is_shared_and_stopped_in_jupyterlab(lab: Lab, admin: Person, visitor: Visit, shoot: Shoot) -> None:
    owner, reader = lab.join("olaf", admin), lab.join("ruth", admin)
    lab.machine.sh('runuser -u "$1" -- sh -c "mkdir /home/$1/results; echo 42 >/home/$1/results/answer"', owner.name)
    theirs = reader.start().kernel()

    def can_read() -> bool:
        return theirs.sh(f"cat /home/{owner.name}/results/answer", check=False).returncode == 0

    assert not can_read()
    page = visitor()
    page.goto("/hub/login")
    fill_in_log_in(page, owner.name)
    wait_for_lab(page, owner.name)
    page.get_by_role("listitem").filter(has_text="results").click(button="right", timeout=START)
    shoot(page, "30-share-menu")
    page.get_by_role("menuitem", name="Share…").click()
    dialog = page.get_by_role("dialog", name="Share")
    expect(dialog.get_by_text("With nobody.")).to_be_visible()
    expect(dialog.get_by_label("With a person")).to_be_focused()
    page.keyboard.type(reader.name)
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("status")).to_contain_text(f"Open for {reader.name}: /home/{owner.name}/results")
    expect(dialog.get_by_role("listitem")).to_contain_text([reader.name])
    shoot(page, "31-shared")
    assert can_read()

    dialog.get_by_label("With a person").fill("nobody-at-all")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("nobody here is called nobody-at-all")
    shoot(page, "32-share-refused")

    stop = dialog.get_by_role("button", name=f"Stop sharing with {reader.name}")
    stop.focus()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("status")).to_contain_text(f"No longer shared with {reader.name}")
    expect(dialog.get_by_text("With nobody.")).to_be_visible()
    assert not can_read()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert lab.machine.out("stat", "--format=%a", f"/home/{owner.name}") == "700"
    owner.stop()
    reader.stop()
