"""Sign-up and approval: who is refused and how, who decides, and what has changed afterwards."""

import secrets as _random
from urllib.parse import urlencode

import pytest
import requests

from support.forms import words_of
from support.lab import Lab
from support.machine import wait_for
from support.person import PASSWORD, Person
from support.provision import ADMIN


@pytest.fixture(scope="module")
def on_the_host(lab: Lab) -> str:
    """Make an account on the host that has nothing to do with the hub."""
    name = "frida-of-the-host"
    lab.machine.sh('id "$1" >/dev/null 2>&1 || useradd --create-home "$1"', name)
    return name


@pytest.fixture(scope="module")
def group_of_the_host(lab: Lab) -> str:
    """Make a group on the host; a private group of that name could not be made."""
    name = "glaciology"
    lab.machine.sh('getent group "$1" >/dev/null || groupadd "$1"', name)
    return name


# Name → words of the sentence that explains.
NAMES = {
    "root": "reserved",
    "slurm": "reserved",
    "daemon": "reserved",
    "admin": "reserved",
    "labstead-canary": "reserved",
    "systemd-network": "reserved",
    "../x": "starts with a letter",
    "a/b": "starts with a letter",
    "-rf": "starts with a letter",
    "7up": "starts with a letter",
    "a b": "starts with a letter",
    "eve\n": "starts with a letter",
    "eve\x00": "starts with a letter",
    "<script>alert(1)</script>": "starts with a letter",
    "": "choose a username",
    "x" * 40: "at most 32",
    "Anna": "small letters",
    "änne": "starts with a letter",
}


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_bad_name_is_refused_with_a_sentence(lab: Lab, name: str) -> None:
    before = lab.state()
    answer = lab.person(name).sign_up()
    assert answer.status_code == 400
    assert NAMES[name] in words_of(answer.text)
    assert "<script>alert" not in answer.text
    assert lab.state() == before


PASSWORDS = {
    "of 100 bytes": ("q7" * 50, None, "at most 72 bytes"),
    "of 100 bytes in 50 letters": ("ß" * 50, None, "at most 72 bytes"),
    "too short": ("otters-swi", None, "at least 11"),
    "empty": ("", None, "at least 11"),
    "common": ("12345678910", None, "common"),
    "typed otherwise the second time": (PASSWORD, PASSWORD + "x", "not the same"),
    "like the name": ("hubertus-maria", None, "not your username"),
}


@pytest.mark.parametrize("kind", PASSWORDS)
def test_a_bad_password_is_refused_with_a_sentence(lab: Lab, kind: str) -> None:
    password, confirmation, sentence = PASSWORDS[kind]
    before = lab.state()
    answer = lab.person("hubertus-maria", password).sign_up(confirmation=confirmation or password)
    assert answer.status_code == 400
    assert sentence in words_of(answer.text)
    assert password in ("", "hubertus-maria") or password not in answer.text, "the page repeats the password"
    assert lab.state() == before


def test_a_name_that_the_machine_knows_is_refused(lab: Lab, on_the_host: str, group_of_the_host: str) -> None:
    before = lab.state()
    for name in (on_the_host, group_of_the_host):
        answer = lab.person(name).sign_up()
        assert answer.status_code == 400
        assert f"{name} is taken" in words_of(answer.text)
    assert lab.state() == before


def test_a_name_that_the_hub_knows_is_refused(lab: Lab, participant: Person) -> None:
    """An admin's name above all: whoever had it would be one."""
    before = lab.state()
    for name in (participant.name, ADMIN):
        answer = lab.person(name, "another quiet otter").sign_up()
        assert answer.status_code == 400
        assert "taken" in words_of(answer.text)
    assert lab.state() == before


def test_bytes_that_are_no_text_are_refused(lab: Lab) -> None:
    person, before = lab.person("nobody-yet"), lab.state()
    token = urlencode({"_xsrf": person.form("/hub/signup", "/hub/signup").fields["_xsrf"]}).encode()
    for fields in (
        b"username=%ff%fe&password=seven+quiet+otters&confirmation=seven+quiet+otters",
        b"username=eve&password=%ff%fe%fd%fc%fb%fa%f9%f8%f7%f6%f5%f4&confirmation=x",
    ):
        assert person.post("/hub/signup", token + b"&" + fields).status_code == 400
    assert lab.state() == before


def test_missing_fields_are_refused(lab: Lab) -> None:
    person, before = lab.person("nobody-yet"), lab.state()
    form = person.form("/hub/signup", "/hub/signup")
    assert person.post("/hub/signup", {"_xsrf": form.fields["_xsrf"]}).status_code == 400
    assert lab.state() == before


@pytest.mark.parametrize(("page", "action"), [("/hub/signup", "/hub/signup"), ("/hub/login", "/hub/login")])
def test_a_form_without_its_token_is_refused(lab: Lab, page: str, action: str) -> None:
    person, before = lab.somebody("tim"), lab.state()
    fields = {"username": person.name, "password": PASSWORD, "confirmation": PASSWORD}
    person.form(page, action)
    assert person.post(page, fields).status_code == 403
    assert person.post(page, {**fields, "_xsrf": "2|x|y"}).status_code == 403
    assert lab.state() == before


# --- waiting and approval


@pytest.fixture
def waiting(lab: Lab) -> Person:
    """Give somebody who has signed up and waits."""
    person = lab.somebody("wanda")
    answer = person.sign_up()
    assert answer.status_code == 200
    assert "administrator will look at your sign-up" in words_of(answer.text)
    return person


def _approved(lab: Lab, name: str) -> bool:
    found = {username: bool(authorized) for username, authorized in lab.state()["sign-ups"]}
    return found[name]


def test_who_waits_is_refused_with_the_reason_and_has_no_account(lab: Lab, waiting: Person) -> None:
    answer = waiting.try_to_log_in()
    assert answer.status_code == 403
    assert "waits for an administrator" in words_of(answer.text)
    wrong = waiting.try_to_log_in("not the right one")
    assert wrong.status_code == 403
    assert "waits" not in words_of(wrong.text), "whoever does not know the password learns that there is a sign-up"
    assert waiting.name not in lab.state()["users"]


def test_a_name_is_taken_while_it_waits(lab: Lab, waiting: Person) -> None:
    answer = lab.person(waiting.name, "another quiet otter").sign_up()
    assert answer.status_code == 400
    assert "taken" in words_of(answer.text)


def test_following_a_link_approves_nobody(lab: Lab, admin: Person, waiting: Person) -> None:
    before = lab.state()
    for query in ("", "?decision=approve"):
        answer = admin.visit(f"/hub/people/{waiting.name}{query}")
        assert answer.status_code in (403, 405)
    assert lab.state() == before


def test_an_approval_without_its_token_is_refused(lab: Lab, admin: Person, waiting: Person) -> None:
    before = lab.state()
    answer = admin.post(f"/hub/people/{waiting.name}", {"decision": "approve"})
    assert answer.status_code == 403
    assert lab.state() == before


def test_only_an_admin_sees_and_decides(lab: Lab, participant: Person, waiting: Person) -> None:
    before = lab.state()
    assert participant.visit("/hub/people").status_code == 403
    decision = {"decision": "approve", "_xsrf": participant.token("/hub/")}
    answer = participant.post(f"/hub/people/{waiting.name}", decision)
    assert answer.status_code == 403
    stranger = lab.person("stranger")
    assert stranger.visit("/hub/people", allow_redirects=False).status_code in (302, 403)
    assert lab.state() == before


def test_an_approval_makes_the_account_and_opens_the_log_in(lab: Lab, admin: Person, waiting: Person) -> None:
    assert admin.decide("approve", waiting.name).status_code == 302
    entry = lab.machine.out("getent", "passwd", waiting.name).split(":")
    assert int(entry[2]) >= 24000
    assert entry[2] == entry[3]
    assert entry[5:] == [f"/home/{waiting.name}", "/bin/bash"]
    assert [waiting.name, int(entry[2]), "active"] in lab.state()["ledger"]
    assert lab.machine.out("getent", "shadow", waiting.name).split(":")[1] in ("*", "!", "!*"), "a password of its own"
    waiting.log_in()


def test_an_approval_twice_changes_nothing(lab: Lab, admin: Person, waiting: Person) -> None:
    form = admin.form(f"/hub/people?q={waiting.name}", f"/hub/people/{waiting.name}")
    assert admin.post(form.action, {**form.fields, "decision": "approve"}).status_code == 302
    before = lab.state()
    assert admin.post(form.action, {**form.fields, "decision": "approve"}).status_code < 500
    assert lab.state() == before


def test_an_approval_fails_readably_where_the_machine_has_the_name_by_now(
    lab: Lab, admin: Person, waiting: Person
) -> None:
    lab.machine.run("useradd", "--create-home", waiting.name)
    before = lab.state()
    answer = admin.decide("approve", waiting.name)
    assert answer.status_code == 400
    assert f"{waiting.name} is already" in words_of(answer.text)
    assert lab.state() == before
    assert waiting.try_to_log_in().status_code == 403


def test_a_denied_sign_up_is_forgotten(lab: Lab, admin: Person, waiting: Person) -> None:
    assert admin.decide("deny", waiting.name).status_code == 302
    assert waiting.name not in [name for name, _ in lab.state()["sign-ups"]]
    assert waiting.try_to_log_in().status_code == 403
    assert waiting.sign_up().status_code == 200


def test_a_locked_account_closes_the_log_in_and_keeps_what_there_is(lab: Lab, admin: Person) -> None:
    person = lab.join("rita", admin).start()
    assert _containers(lab, person) != ""
    assert admin.decide("lock", person.name).status_code == 302
    assert person.name in lab.state()["users"]
    refused = lab.person(person.name).try_to_log_in()
    assert refused.status_code == 403
    assert "is locked" in words_of(refused.text)
    assert "/hub/login" in person.visit("/hub/home").url, "the log-in that was open stays open"
    wait_for("end of the session", lambda: _containers(lab, person) == "", 30)
    # shadow(5): the day of expiry; with it ssh keys do not open the account either.
    assert lab.machine.out("getent", "shadow", person.name).split(":")[7] == "1"

    assert admin.decide("unlock", person.name).status_code == 302
    assert lab.machine.out("getent", "shadow", person.name).split(":")[7] == ""
    lab.person(person.name).log_in()


def test_an_administrator_is_not_locked_from_the_page(lab: Lab, admin: Person) -> None:
    before = lab.state()
    answer = admin.post(f"/hub/people/{ADMIN}", {"decision": "lock", "_xsrf": admin.token("/hub/")})
    assert answer.status_code == 400
    assert "is an administrator" in words_of(answer.text)
    assert lab.state() == before


def test_an_approval_is_for_the_sign_up_that_was_seen(lab: Lab, admin: Person, waiting: Person) -> None:
    """Denied meanwhile, and signed up anew by somebody else."""
    form = admin.form(f"/hub/people?q={waiting.name}", f"/hub/people/{waiting.name}")
    assert admin.decide("deny", waiting.name).status_code == 302
    assert lab.person(waiting.name, "another quiet otter").sign_up().status_code == 200
    before = lab.state()
    answer = admin.post(form.action, {**form.fields, "decision": "approve"})
    assert answer.status_code == 400
    assert "changed meanwhile" in words_of(answer.text)
    assert lab.state() == before


def test_the_old_address_of_the_page_leads_to_it(admin: Person) -> None:
    assert admin.visit("/hub/authorize").url.endswith("/hub/people")


def test_a_session_that_starts_while_the_account_is_locked_ends(lab: Lab, admin: Person) -> None:
    person = lab.join("ria", admin)
    # The person's own configuration keeps the server from answering for a while.
    script = 'd=/home/$1/.jupyter; mkdir -p $d; echo "import time; time.sleep(8)" > $d/jupyter_server_config.py'
    lab.machine.sh(script + '; chown -R "$1:" $d', person.name)
    assert person.api("POST", f"/hub/api/users/{person.name}/server").status_code in (201, 202)
    wait_for("the container", lambda: _containers(lab, person) != "", 30)
    assert admin.decide("lock", person.name).status_code == 302
    wait_for("end of the session", lambda: _containers(lab, person) == "", 60)


def _containers(lab: Lab, person: Person) -> str:
    return lab.machine.out("docker", "ps", "--quiet", f"--filter=label=org.labstead.user={person.name}")


def test_a_user_whom_only_jupyterhub_knows_gets_no_session(lab: Lab, admin: Person) -> None:
    """JupyterHub's own page and API can make users; only the ledger has people."""
    name = lab.somebody("ghost").name
    assert admin.api("POST", f"/hub/api/users/{name}").status_code == 201
    assert admin.api("POST", f"/hub/api/users/{name}/server").status_code == 403
    assert name not in lab.machine.sh("docker ps --all --format '{{.Names}}'").stdout
    assert admin.api("DELETE", f"/hub/api/users/{name}").status_code == 204


def test_a_user_whom_jupyterhub_forgets_keeps_the_log_in(lab: Lab, admin: Person) -> None:
    person = lab.join("dana", admin)
    assert admin.api("DELETE", f"/hub/api/users/{person.name}").status_code == 204
    assert "/hub/login" in person.visit("/hub/home").url
    lab.person(person.name).log_in()


def test_numbers_are_given_once(lab: Lab, admin: Person) -> None:
    """Two people in a row never share a uid, nor does one come back into use."""
    uids = [uid for _, uid, _ in lab.state()["ledger"]]
    person = lab.join("nora", admin)
    uid = int(lab.machine.out("id", "-u", person.name))
    assert uid not in uids
    assert len(set(uids)) == len(uids)


# --- log-in


def test_a_name_has_to_wait_after_too_many_wrong_passwords(lab: Lab, admin: Person) -> None:
    """Four are allowed by the inventory, then 90 seconds, which are told as 2 minutes."""
    person = lab.join("lotte", admin)
    fresh = lab.person(person.name)
    for _ in range(4):
        answer = fresh.try_to_log_in("not the right one")
        assert answer.status_code == 403
    locked = fresh.try_to_log_in()
    assert locked.status_code == 403
    assert "Too many wrong passwords" in words_of(locked.text)
    assert "2 minutes" in words_of(locked.text)
    assert lab.person(ADMIN, admin.password).try_to_log_in().status_code == 302, "others have to wait as well"


@pytest.mark.parametrize("password", ["", "x" * 100, "x" * 100_000, "\x00", "ß" * 60])
def test_an_odd_password_is_just_wrong(lab: Lab, password: str) -> None:
    """Each from a name of its own, so that nobody is locked out."""
    assert lab.somebody("odd").try_to_log_in(password or " ").status_code == 403


def test_a_long_password_for_a_real_name_is_just_wrong(lab: Lab, participant: Person) -> None:
    assert lab.person(participant.name).try_to_log_in("x" * 100).status_code == 403
    assert lab.person(participant.name).try_to_log_in().status_code == 302


def test_log_in_does_not_lead_to_another_site(lab: Lab, participant: Person) -> None:
    person = lab.person(participant.name)
    form = person.form("/hub/login?next=https://example.org/", "/hub/login")
    answer = person.post(form.action, {**form.fields, "username": person.name, "password": person.password})
    assert answer.status_code == 302
    assert "example.org" not in answer.headers["Location"]


ATTEMPTS = 150


@pytest.mark.parametrize(
    "path", ["/hub/login", "/hub/signup", "/hub/api/users/anna/tokens", "/hub/api/users/a%2Fb/tokens"]
)
def test_attempts_from_one_address_are_limited(lab: Lab, path: str) -> None:
    """From addresses of the host itself, so that no other test has to wait. A class of 40 may come at once."""
    source = f"127.{_random.randbelow(200) + 10}.{_random.randbelow(250)}.7"
    address = lab.machine.info()["address"]
    script = """
        curl --silent --parallel --parallel-max "$4" --parallel-immediate --max-time 60 \
            --interface "$1" --connect-to "$2:443:127.0.0.1:443" --cacert /etc/labstead/tls/ca.crt \
            --data '{"auth": {"username": "x", "password": "y"}}' --output /dev/null --write-out '%{http_code}\\n' "https://$2$3?[1-$4]"
    """
    codes = lab.machine.sh(script, source, address, path, str(ATTEMPTS)).stdout.split()
    assert len(codes) == ATTEMPTS
    assert set(codes) <= {"403", "429"}
    assert codes.count("403") >= 30
    assert codes.count("429") >= 30


def test_looking_at_the_log_in_page_is_not_limited(lab: Lab) -> None:
    somebody = requests.Session()
    somebody.trust_env = False
    somebody.verify = str(lab.ca)
    assert {somebody.get(f"{lab.url}/hub/login", timeout=30).status_code for _ in range(80)} == {200}


def test_jupyterhubs_own_page_of_users_leads_to_the_page_of_people(admin: Person) -> None:
    """It would make users without an account."""
    page = admin.visit("/hub/admin")
    assert page.ok
    assert 'href="/hub/people"' in page.text
    assert "react-admin-hook" not in page.text
