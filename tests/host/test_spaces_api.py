"""What a session is told by the hub of its owner's disks: asked from within the session, with its own token."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from support.kernel import Kernel
from support.lab import Lab
from support.machine import wait_for
from support.person import Person

API = "/hub/api/labstead/spaces"
ASK = """
import json, os, urllib.error, urllib.request
request = urllib.request.Request(
    os.environ["JUPYTERHUB_API_URL"] + "/labstead/spaces" + {query!r},
    headers={{"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"]}},
)
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(json.dumps([answer.status, json.load(answer)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""


@pytest.fixture(scope="module")
def kernel(participant: Person) -> Kernel:
    return participant.kernel()


def ask(kernel: Kernel, query: str = "") -> tuple[int, Any]:
    """Ask the hub from within a session."""
    status, answer = json.loads(kernel.run(ASK.format(query=query)))
    return status, answer


def get(lab: Lab, token: str = "", **headers: str) -> requests.Response:
    """Ask the hub from elsewhere."""
    if token:
        headers["Authorization"] = f"token {token}"
    return requests.get(lab.url + API, headers=headers, timeout=30, verify=str(lab.ca))


def test_a_session_learns_of_its_owners_home_and_of_nobody_elses(
    lab: Lab, participant: Person, neighbour: Person, kernel: Kernel
) -> None:
    for query in ("", f"?name={neighbour.name}"):
        status, answer = ask(kernel, query)
        assert status == 200
        (home,) = [one for one in answer["spaces"] if one["kind"] == "home"]
        assert (home["name"], home["path"]) == (participant.name, f"/home/{participant.name}")
        groups = set(lab.machine.out("id", "-Gn", participant.name).split())
        assert all(one["name"] == participant.name for one in answer["spaces"] if one["kind"] != "group")
        assert {one["name"] for one in answer["spaces"] if one["kind"] == "group"} <= groups


def test_an_administrators_token_is_told_of_the_administrators_own(lab: Lab, admin: Person) -> None:
    made = admin.api("POST", f"/hub/api/users/{admin.name}/tokens", json={"expires_in": 300})
    assert made.ok
    answer = get(lab, made.json()["token"])
    assert answer.status_code == 200
    assert {one["name"] for one in answer.json()["spaces"] if one["kind"] != "group"} <= {admin.name}


@pytest.mark.parametrize("token", ["", "0" * 32])
def test_nobody_is_told_without_a_token(lab: Lab, token: str) -> None:
    answer = get(lab, token)
    assert answer.status_code == 403
    assert "spaces" not in answer.json()


def test_a_page_of_another_site_cannot_ask_with_somebodys_cookies(lab: Lab, participant: Person) -> None:
    headers = {"Origin": "https://elsewhere.test", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    answer = participant.http.get(lab.url + API, headers=headers, timeout=30)
    assert answer.status_code == 403
    assert "spaces" not in answer.json()


@pytest.fixture
def without_service(lab: Lab) -> Iterator[None]:
    """Take the accounts service away for a while."""
    units = ("labstead-accounts.socket", "labstead-accounts.service")
    lab.machine.run("systemctl", "stop", *units)
    yield
    lab.machine.run("systemctl", "start", units[0])


@pytest.mark.usefixtures("without_service")
def test_a_session_is_told_when_nobody_can_say(participant: Person, kernel: Kernel) -> None:
    # What was said a moment ago may be said again; then it is the truth.
    status, answer = ask(kernel)
    if status == 200:
        wait_for("the end of what is remembered", lambda: ask(kernel)[0] != 200, 30)
        status, answer = ask(kernel)
    assert status == 503
    assert "the accounts service does not say" in answer["message"]
    home = participant.visit("/hub/home")
    assert home.status_code == 200
    assert "Your disk space" not in home.text
