"""The door `oidc`, with guests beside it, and a real OpenID Connect provider; people of the directory are there too.

The rule: people go through the provider's own pages as a browser does; what they are comes from the host.
"""

import json
import secrets as _random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from support.authority import Authority
from support.directory import STAFF, Directory, Entry
from support.doors import SENT_OUT, assert_kept_out, ledger, open_doors
from support.forms import words_of
from support.lab import Lab
from support.machine import wait_for
from support.person import Person
from support.provider import CLIENT, Provider, come_in
from support.provision import ADMIN

SECRET = "the-hub-at-the-provider-7f3a91c0d2"
SETTINGS: dict[str, Any] = {
    "hub_doors": ["oidc", "native"],
    "hub_oidc_client_id": CLIENT,
    "hub_oidc_client_secret": SECRET,
    "hub_oidc_title": "institute single sign-on",
    "hub_oidc_scopes": ["openid", "profile", "email", "groups"],
    "hub_oidc_username_domain": "institute.test",
    "hub_oidc_allowed_groups": ["hub-people"],
}


@pytest.fixture(scope="module")
def provider(bookworm: Lab, authority: Authority) -> Provider:
    """Start the provider and open the doors; accounts are made for people who are new."""
    # The provider runs with the node of the hub's proxy, so that the host is a hub already when it starts.
    if bookworm.machine.run("test", "-d", "/opt/labstead/proxy", check=False).returncode:
        open_doors(bookworm, authority, {}, "before-the-provider.log")
    provider = Provider(bookworm.machine)
    provider.set_up(authority, SECRET, f"{bookworm.url}/hub/oauth_callback")
    return provider


@pytest.fixture(scope="module")
def lab(bookworm: Lab, authority: Authority, provider: Provider, measured: list[str]) -> Lab:
    """Give the Debian 12 host with the doors oidc and native."""
    settings = {**SETTINGS, "hub_oidc_issuer": provider.issuer}
    result = open_doors(bookworm, authority, settings, "doors-oidc.log", "-vvv")
    measured.append(f"site.yml with the doors oidc and native: {result.seconds:.0f} s")
    return bookworm


Comer = Callable[..., tuple[Person, requests.Response]]


def claims_of(name: Any, **claims: Any) -> dict[str, Any]:
    """Give the claims of somebody who may come in, but for those that are given."""
    good = {"preferred_username": name, "name": "Some Body", "email": "some@institute.test", "email_verified": True}
    return {**good, "groups": ["hub-people", "glaciology"], **claims}


@pytest.fixture(scope="module")
def comes(lab: Lab, provider: Provider, authority: Authority) -> Comer:
    """Give what lets somebody log in at the provider: a browser of their own, and the page on which that ended."""
    bundle = lab.folder / "bundle.crt"
    bundle.write_text(lab.ca.read_text() + authority.certificate, encoding="utf-8")
    people: dict[str, dict[str, Any]] = {}

    def come(name: str, sub: str, claims: dict[str, Any]) -> tuple[Person, requests.Response]:
        people[sub] = claims
        provider.set_people(people)
        person = lab.person(name)
        person.http.verify = str(bundle)
        return person, come_in(person, provider, sub, "/hub/oauth_login?next=%2Fhub%2Fhome")

    return come


def fresh(stem: str) -> str:
    """Give a name that nobody had before."""
    return f"{stem}-{_random.token_hex(3)}"


def assert_in(person: Person, answer: requests.Response) -> Person:
    """Check that somebody is in, under their name."""
    assert answer.ok, f"{answer.status_code} {answer.url} {words_of(answer.text)[:300]}"
    home = person.visit("/hub/home")
    assert home.url.endswith("/hub/home"), f"home led to {home.url}"
    return person


# --- who comes in


def test_the_log_in_page_has_a_button_and_a_form(lab: Lab) -> None:
    page = lab.person("nobody").visit("/hub/login")
    text = words_of(page.text)
    assert "institute single sign-on" in text
    assert "guest account" in text
    assert "/hub/oauth_login" in page.text


def test_a_name_is_mapped_and_gets_an_account(lab: Lab, comes: Comer) -> None:
    name = fresh("carla")
    person = assert_in(*comes(name, f"sub-{name}", claims_of(f"{name}@institute.test")))
    entry = lab.machine.out("getent", "passwd", name).split(":")
    assert int(entry[2]) >= 24000
    assert ledger(lab)[name] == (int(entry[2]), "active")
    kernel = person.start().kernel()
    assert kernel.out("id -u") == entry[2]
    kernel.run("open('carlas', 'w').write('x')")
    assert lab.machine.out("stat", "--format=%U", f"/home/{name}/carlas") == name
    person.stop()
    # The next day, in another browser.
    assert_in(*comes(name, f"sub-{name}", claims_of(f"{name}@institute.test")))
    assert lab.machine.out("id", "-u", name) == entry[2]


def test_guests_and_the_administrator_come_in_beside_them(lab: Lab) -> None:
    admin = lab.admin()
    guest = lab.join("gast", admin)
    assert int(lab.machine.out("id", "-u", guest.name)) >= 24000
    assert guest.start().kernel().value("6 * 7") == 42
    guest.stop()


def test_the_secret_of_the_provider_is_in_no_log(lab: Lab) -> None:
    assert SECRET in lab.inventory.read_text(), "this test shows nothing"
    assert "module_args" in (lab.folder / "doors-oidc.log").read_text(), "that run was not verbose"
    for log in lab.folder.glob("doors-oidc*.log"):
        assert SECRET not in log.read_text()
    assert SECRET not in lab.machine.run("journalctl", "--no-pager", "--output=cat", timeout=300).stdout
    assert SECRET not in lab.machine.out("ps", "-eo", "args")
    found = lab.machine.sh(
        "runuser -u nobody -- grep --recursive --devices=skip --fixed-strings --files-with-matches --file=- "
        "/etc /opt/labstead /run /var/lib/labstead /var/log 2>/dev/null || true",
        stdin=SECRET + "\n",
        timeout=300,
    ).stdout
    assert found == ""


# --- who does not


# What is wrong → claims that differ from good ones.
DENIED: dict[str, dict[str, Any]] = {
    "another group": {"groups": ["visitors"]},
    "no group": {"groups": []},
    "no claim of groups": {"groups": None},
    "groups that only look alike": {"groups": ["hub-people-2", "hub", "HUB-PEOPLE"]},
}


@pytest.mark.parametrize("kind", DENIED)
def test_a_denied_claim_is_told_in_a_sentence(lab: Lab, comes: Comer, kind: str) -> None:
    name = fresh("dieter")
    person, answer = comes(name, f"sub-{name}", claims_of(f"{name}@institute.test", **DENIED[kind]))
    assert_kept_out(lab, person, answer, "institute single sign-on", "group")
    assert name not in ledger(lab)
    assert name not in lab.state()["users"]


NAMES: dict[str, Any] = {
    "root": "root@institute.test",
    "a slash": "carla/../../root@institute.test",
    "only dots and slashes": "../..@institute.test",
    "a system account": "daemon@institute.test",
    "a service": "slurm@institute.test",
    "the self-check": "labstead-canary@institute.test",
    "an option": "-rf@institute.test",
    "a line": "eve\nroot@institute.test",
    "a blank": "eve root@institute.test",
    "a colon": "eve:0:0@institute.test",
    "a zero byte": "eve\x00@institute.test",
    "script": "<script>alert(1)</script>@institute.test",
    "no ASCII": "änne@institute.test",
    "a letter that looks like another": "r\u043e\u043et@institute.test",
    "too long": "x" * 60 + "@institute.test",
    "nothing before the sign": "@institute.test",
    "another domain": "carla@example.org",
    "a domain that ends alike": "carla@evil-institute.test",
    "two domains": "root@institute.test@example.org",
    "no domain": "carla",
    "empty": "",
    "missing": None,
    "a number": 0,
    "a list": ["root@institute.test"],
    "an object": {"name": "root"},
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_claim_that_is_no_name_does_not_come_in(lab: Lab, comes: Comer, kind: str) -> None:
    before = lab.state()
    person, answer = comes("root", f"sub-{abs(hash(kind))}", claims_of(NAMES[kind]))
    assert_kept_out(lab, person, answer)
    assert "<script>alert" not in answer.text
    assert lab.state() == before


def test_a_claim_that_is_an_account_of_the_machine_does_not_get_it(
    lab: Lab, directory: Directory, comes: Comer
) -> None:
    """Accounts of the host and of the directory, with uid 0 too, a guest's, the administrator's."""
    lab.machine.sh('id "$1" 2>/dev/null || useradd --create-home "$1"', "hanna-of-the-host")
    lab.machine.sh(
        'id "$1" 2>/dev/null || useradd --non-unique --uid 0 --gid 0 --no-create-home "$1"', "hugo-of-the-host"
    )
    directory.add(Entry("greta-ldap", 41101, STAFF, "greta likes slate"))
    directory.add(Entry("gerd-ldap", 900, STAFF, "gerd likes slate"))
    for name in ("greta-ldap", "gerd-ldap"):
        directory.wait_for(name)
    admin = lab.admin()
    guest = lab.join("gast", admin)
    before = lab.state()
    machines = ["hanna-of-the-host", "hugo-of-the-host", "greta-ldap", "gerd-ldap"]
    for name in [*machines, guest.name, ADMIN]:
        person, answer = comes(name, f"sub-of-a-stranger-{name}", claims_of(f"{name}@institute.test"))
        assert_kept_out(lab, person, answer)
        assert lab.state() == before, name
    assert lab.person(guest.name, guest.password).log_in().visit("/hub/home").ok


def test_a_guest_who_waits_does_not_get_the_account_of_whom_the_provider_vouches_for(lab: Lab, comes: Comer) -> None:
    """The approval race: sign-up, the administrator looks at it, the owner of the name arrives, then the approval."""
    guest, admin = lab.somebody("race"), lab.admin()
    assert guest.sign_up().status_code == 200
    form = admin.form(f"/hub/people?q={guest.name}", f"/hub/people/{guest.name}")
    owner, answer = comes(guest.name, f"sub-{guest.name}", claims_of(f"{guest.name}@institute.test"))
    if answer.ok:
        assert_in(owner, answer)
    else:
        assert_kept_out(lab, owner, answer)
    decided = admin.post(form.action, {**form.fields, "decision": "approve"})
    assert decided.status_code < 500
    came_in = guest.try_to_log_in().status_code == 302
    assert answer.ok != came_in, "both came in, or neither"


def test_a_name_that_was_given_again_is_not_the_same_person(lab: Lab, comes: Comer) -> None:
    name = fresh("rena")
    first = assert_in(*comes(name, f"sub-first-{name}", claims_of(f"{name}@institute.test")))
    first.start().kernel().run("open('private', 'w').write('of the first')")
    first.stop()
    second, answer = comes(name, f"sub-second-{name}", claims_of(f"{name}@institute.test"))
    assert_kept_out(lab, second, answer)
    capitals, answer = comes(name, f"sub-third-{name}", claims_of(f"{name.upper()}@institute.test"))
    assert_kept_out(lab, capitals, answer)
    assert_in(*comes(name, f"sub-first-{name}", claims_of(f"{name}@institute.test")))


def test_somebody_of_the_provider_has_no_password_here(lab: Lab, comes: Comer) -> None:
    name = fresh("pia")
    assert_in(*comes(name, f"sub-{name}", claims_of(f"{name}@institute.test")))
    guest = lab.person(name)
    answer = guest.sign_up()
    assert answer.status_code == 400
    assert "taken" in words_of(answer.text)
    assert_kept_out(lab, guest, guest.try_to_log_in())


def test_a_locked_account_does_not_come_in(lab: Lab, comes: Comer) -> None:
    name = fresh("lukas")
    person = assert_in(*comes(name, f"sub-{name}", claims_of(f"{name}@institute.test")))
    lab.machine.run("labstead", "user", "lock", name)
    wait_for("end of the log-in", lambda: "/hub/login" in person.visit("/hub/home").url, SENT_OUT)
    again, answer = comes(name, f"sub-{name}", claims_of(f"{name}@institute.test"))
    assert_kept_out(lab, again, answer)
    lab.machine.run("labstead", "user", "unlock", name)
    assert_in(*comes(name, f"sub-{name}", claims_of(f"{name}@institute.test")))


def test_a_removed_account_does_not_come_back_by_itself(lab: Lab, comes: Comer) -> None:
    name = fresh("erik")
    assert_in(*comes(name, f"sub-{name}", claims_of(f"{name}@institute.test")))
    lab.machine.run("labstead", "user", "remove", name, "--yes")
    again, answer = comes(name, f"sub-{name}", claims_of(f"{name}@institute.test"))
    assert_kept_out(lab, again, answer)
    assert name not in lab.state()["users"]


# --- what is not of the provider


@pytest.mark.parametrize("query", ["", "?code=x", "?code=x&state=y", "?error=access_denied", "?state=&code="])
def test_a_return_that_was_not_sent_out_is_refused(lab: Lab, query: str) -> None:
    somebody = lab.person("nobody")
    assert_kept_out(lab, somebody, somebody.visit(f"/hub/oauth_callback{query}"))


@pytest.fixture
def without_the_provider(lab: Lab, provider: Provider) -> Iterator[None]:
    provider.stop()
    # What the hub knows of the provider, it has to learn again.
    lab.machine.run("systemctl", "restart", "labstead-hub")
    lab.wait_until_healthy()
    try:
        yield
    finally:
        provider.start()


@pytest.mark.usefixtures("without_the_provider")
def test_without_the_provider_people_read_why_and_guests_come_in(lab: Lab) -> None:
    somebody = lab.person("nobody")
    answer = somebody.visit("/hub/oauth_login")
    assert answer.status_code in (400, 403, 502, 503)
    assert "institute single sign-on does not work now" in words_of(answer.text)
    assert "guest account" in words_of(answer.text)
    lab.admin()


# --- only people whom the machine knows


@pytest.fixture(scope="module")
def existing(lab: Lab, authority: Authority, provider: Provider) -> Lab:
    """Run site.yml with the other policy: nobody gets a new account."""
    settings = {**SETTINGS, "hub_oidc_issuer": provider.issuer, "accounts_oidc_accounts": "existing"}
    open_doors(lab, authority, settings, "doors-oidc-existing.log", "--tags", "labstead,accounts,hub")
    return lab


def test_somebody_of_the_directory_comes_in_through_the_provider(
    existing: Lab, directory: Directory, comes: Comer
) -> None:
    directory.add(Entry("mona-ldap", 41110, STAFF, "mona likes slate"))
    directory.wait_for("mona-ldap")
    person = assert_in(*comes("mona-ldap", "sub-mona", claims_of("mona-ldap@institute.test")))
    kernel = person.start().kernel()
    assert kernel.out("id -u") == directory.ask("(uid=mona-ldap)", "uidNumber")[0] == "41110"
    person.stop()
    other, answer = comes("mona-ldap", "sub-not-mona", claims_of("mona-ldap@institute.test"))
    assert_kept_out(existing, other, answer)


def test_whom_the_machine_does_not_know_does_not_come_in(existing: Lab, comes: Comer) -> None:
    name = fresh("udo")
    person, answer = comes(name, f"sub-{name}", claims_of(f"{name}@institute.test"))
    assert_kept_out(existing, person, answer)
    assert name not in existing.state()["users"]


@pytest.mark.parametrize(("name", "uid", "gid"), [("mini-ldap", 900, STAFF), ("maxi-ldap", 41111, 100)])
def test_a_system_account_of_the_directory_does_not_come_in(
    existing: Lab, directory: Directory, comes: Comer, name: str, uid: int, gid: int
) -> None:
    directory.add(Entry(name, uid, gid, "likes slate"))
    directory.wait_for(name)
    person, answer = comes(name, f"sub-{name}", claims_of(f"{name}@institute.test"))
    assert_kept_out(existing, person, answer)
    assert name not in ledger(existing)


@pytest.mark.parametrize(("group", "uid"), [("sudo", 41121), ("docker", 41122), ("disk", 41123)])
def test_who_owns_the_machine_is_linked_by_root_only(
    existing: Lab, directory: Directory, comes: Comer, group: str, uid: int
) -> None:
    """Whoever may set a claim would own the host otherwise."""
    name = f"power-{group}-ldap"
    directory.add(Entry(name, uid, STAFF, "likes slate"))
    directory.wait_for(name)
    existing.machine.run("gpasswd", "--add", name, group)
    person, answer = comes(name, f"sub-{name}", claims_of(f"{name}@institute.test"))
    assert_kept_out(existing, person, answer)

    existing.machine.run("labstead", "user", "link", name)
    person = assert_in(*comes(name, f"sub-{name}", claims_of(f"{name}@institute.test")))
    groups = person.start().kernel().out("id -Gn").split()
    assert group not in groups
    person.stop()


def test_who_came_in_before_still_does(existing: Lab, comes: Comer) -> None:
    listed = json.loads(existing.machine.out("labstead", "user", "list", "--json"))
    names = [account["name"] for account in listed if account["name"].startswith("carla-")]
    assert names, "nobody came in before: this test shows nothing"
    assert_in(*comes(names[0], f"sub-{names[0]}", claims_of(f"{names[0]}@institute.test")))
    wait_for("the hub", lambda: existing.person("nobody").visit("/hub/health").ok)
