"""Pages for when something is not as it should be: a sentence for people, on the site's own page, never a trace."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from support.browsing import Shoot, Visit, fill_in_log_in
from support.lab import Lab
from support.machine import wait_for
from support.person import Person


@pytest.fixture
def page(participant: Person, visitor: Visit) -> Page:
    """Give a participant's page, logged in, with her server running."""
    page = visitor()
    page.goto("/hub/login?next=/hub/home")
    fill_in_log_in(page, participant.name)
    expect(page.get_by_role("button", name="Stop My Server")).to_be_visible()
    return page


def _is_readable(page: Page, *sentences: str) -> None:
    """Look for what a person has to see, and for what no person should."""
    for sentence in sentences:
        expect(page.get_by_text(re.compile(sentence, re.IGNORECASE)).first).to_be_visible()
    text = page.inner_text("body")
    for word in ("Traceback", "None", "scope", "configurable-http-proxy", "upstream"):
        assert word not in text, text
    assert page.title().strip()


def test_not_found(page: Page, shoot: Shoot) -> None:
    answer = page.goto("/hub/no-such-page")
    assert answer is not None
    assert answer.status == 404
    _is_readable(page, "not found")
    expect(page.get_by_role("link", name="Home").first).to_be_visible()
    shoot(page, "30-not-found")


def test_not_allowed(page: Page, shoot: Shoot) -> None:
    answer = page.goto("/hub/people")
    assert answer is not None
    assert answer.status == 403
    _is_readable(page, "not allowed", "administrator")
    shoot(page, "31-not-allowed")
    expect(page.get_by_role("link", name="People")).to_have_count(0)


def test_somebody_elses_server(page: Page, neighbour: Person, shoot: Shoot) -> None:
    answer = page.goto(f"/user/{neighbour.name}/lab")
    assert answer is not None
    assert answer.status in (403, 404)
    _is_readable(page, "not allowed", "permission|ask")
    shoot(page, "32-somebody-elses-server")


@contextmanager
def _stopped(lab: Lab, unit: str) -> Iterator[None]:
    lab.machine.run("systemctl", "stop", unit)
    try:
        yield
    finally:
        lab.machine.run("systemctl", "start", unit)
        lab.wait_until_healthy()


@pytest.mark.parametrize("unit", ["labstead-proxy", "labstead-hub"])
def test_the_hub_is_down(lab: Lab, page: Page, shoot: Shoot, unit: str) -> None:
    with _stopped(lab, unit):
        answer = page.goto("/hub/home")
        assert answer is not None
        assert answer.status in (502, 503)
        shoot(page, f"33-down-{unit}")
        _is_readable(page, "does not answer")


def test_the_page_of_a_hub_that_is_down_tries_again(lab: Lab, page: Page) -> None:
    with _stopped(lab, "labstead-proxy"):
        page.goto("/hub/home")
        expect(page.get_by_text("does not answer").first).to_be_visible()
    expect(page.get_by_role("button", name="Stop My Server")).to_be_visible(timeout=60_000)


def test_a_session_goes_on_while_the_hub_is_down(lab: Lab, participant: Person) -> None:
    wait_for("the session", lambda: participant.visit(f"/user/{participant.name}/api/status").ok, 60)
    with _stopped(lab, "labstead-hub"):
        assert participant.kernel().value("6 * 7") == 42
    wait_for("the hub", lambda: participant.server()["ready"], 60)


def test_the_server_of_somebody_that_does_not_run(lab: Lab, admin: Person, visitor: Visit, shoot: Shoot) -> None:
    person, page = lab.join("ole", admin), visitor()
    page.goto("/hub/login?next=/hub/home")
    fill_in_log_in(page, person.name)
    page.goto(f"/user/{person.name}/lab")
    expect(page.get_by_text("not running").first).to_be_visible()
    shoot(page, "34-not-running")


def test_pages_fit_a_telephone(visitor: Visit, shoot: Shoot) -> None:
    page = visitor()
    page.set_viewport_size({"width": 360, "height": 700})
    for path, name in (("/hub/login", "40-telephone-log-in"), ("/hub/signup", "41-telephone-sign-up")):
        page.goto(path)
        shoot(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        expect(page.get_by_role("button", name="Sign")).to_be_visible()
