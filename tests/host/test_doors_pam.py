"""The doors `pam` and `native` beside each other, on a host whose people are in a real LDAP directory.

The rule: what is expected comes from slapd (ldapsearch), from the host (getent, id, stat) and never from the hub.
"""

import secrets as _random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.authority import Authority
from support.directory import STAFF, Directory, Entry
from support.doors import SENT_OUT, assert_kept_out, ledger, open_doors
from support.forms import words_of
from support.kernel import Kernel
from support.lab import Lab
from support.machine import wait_for
from support.person import Person
from support.provision import ADMIN

LENA = Entry("lena-ldap", 41001, STAFF, "lena likes granite", full_name="Lena Lund")
NILS = Entry("nils-ldap", 41002, STAFF, "nils likes basalt", full_name="Nils Nordli")
PAULA = Entry("paula-ldap", 41003, STAFF, "paula likes gneiss", full_name="Paula Pihl")
ROOTS = ("sudo", "docker", "disk")
"""Groups of the host that own it; Lena is in them, for her work as an administrator."""

SETTINGS = {
    "hub_doors": ["pam", "native"],
    "hub_pam_title": "account of the institute",
    "hub_native_title": "account of a guest",
    "hub_admins": [ADMIN, PAULA.name],
    "accounts_users": [{"name": NILS.name, "existing": True}],
    "accounts_groups": [
        {"name": "glacier-ldap", "existing": True},
        {"name": "survey", "members": [NILS.name], "managers": [LENA.name]},
    ],
}


@pytest.fixture(scope="module")
def lab(bookworm: Lab, authority: Authority, directory: Directory, measured: list[str]) -> Lab:
    """Provision the Debian 12 host with the directory, and the doors pam and native."""
    directory.add(LENA, NILS, PAULA)
    directory.add_group("glacier-ldap", 42001, LENA.name, NILS.name)
    directory.add_group("moraine-ldap", 42002, LENA.name)
    directory.add_group("printing-ldap", 300, LENA.name)
    directory.wait_for(LENA.name)
    for group in ROOTS:
        bookworm.machine.sh('getent group "$2" >/dev/null && gpasswd --add "$1" "$2" || true', LENA.name, group)
    result = open_doors(bookworm, authority, SETTINGS, "doors-pam.log")
    # The first run makes the group docker.
    bookworm.machine.run("gpasswd", "--add", LENA.name, "docker")
    measured.append(f"site.yml with the doors pam and native: {result.seconds:.0f} s")
    return bookworm


@pytest.fixture(scope="module")
def admin(lab: Lab) -> Person:
    return lab.admin()


def of_the_directory(lab: Lab, entry: Entry) -> Person:
    """Give somebody of the directory in front of the log-in page."""
    person = lab.person(entry.name, entry.password)
    person.door = "pam"
    return person


@pytest.fixture(scope="module")
def lena(lab: Lab) -> Iterator[Person]:
    person = of_the_directory(lab, LENA).log_in()
    if person.server():  # of a run that was cut off
        person.stop()
    yield person.start()
    person.stop()


@pytest.fixture(scope="module")
def desk(lena: Person) -> Kernel:
    """Give a kernel in Lena's session."""
    return lena.kernel()


def newcomer(stem: str, name: str = "") -> Entry:
    """Give an entry of which nobody knew before.

    :param name: in place of one that begins with `stem`
    """
    return Entry(
        name or f"{stem}-{_random.token_hex(3)}", 50000 + _random.randbelow(9000), STAFF, f"{stem} likes slate"
    )


def numbers(directory: Directory, name: str) -> set[int]:
    """Ask slapd for the numbers of somebody's groups."""
    own = directory.ask(f"(uid={name})", "gidNumber")
    return {int(gid) for gid in own + directory.ask(f"(&(objectClass=posixGroup)(memberUid={name}))", "gidNumber")}


# --- the institute's people


def test_the_log_in_page_says_which_door_is_which(lab: Lab) -> None:
    page = lab.person("nobody").visit("/hub/login")
    text = words_of(page.text)
    assert "account of the institute" in text
    assert "account of a guest" in text


def test_somebody_of_the_directory_has_their_uid_and_groups_in_the_session(directory: Directory, desk: Kernel) -> None:
    assert desk.out("id -u") == directory.ask(f"(uid={LENA.name})", "uidNumber")[0] == "41001"
    assert desk.out("id -g") == directory.ask(f"(uid={LENA.name})", "gidNumber")[0]
    known = numbers(directory, LENA.name)
    assert {300, STAFF, 42001, 42002} == known, "the directory of the test is not what it should be"
    assert {int(gid) for gid in desk.out("id -G").split()} == {gid for gid in known if gid >= 1000}
    assert desk.out("id -un") == LENA.name
    assert set(desk.out("id -Gn").split()) == {"staff-ldap", "glacier-ldap", "moraine-ldap"}


def test_groups_that_own_the_host_stay_outside(lab: Lab, desk: Kernel) -> None:
    on_the_host = set(lab.machine.out("id", "-Gn", LENA.name).split())
    assert set(ROOTS) <= on_the_host, "she is not in them on the host: this test shows nothing"
    status = desk.out("cat /proc/self/status")
    groups = next(line for line in status.splitlines() if line.startswith("Groups:")).split()[1:]
    assert all(int(gid) >= 1000 for gid in groups)
    assert not set(ROOTS) & set(desk.out("id -Gn").split())


def test_the_home_was_made_for_its_owner_alone(lab: Lab, desk: Kernel) -> None:
    home = lab.machine.out("getent", "passwd", LENA.name).split(":")[5]
    assert lab.machine.out("stat", "--format=%u %g %a", home) == f"41001 {STAFF} 700"
    desk.run("open('from-the-session', 'w').write('granite')")
    assert lab.machine.out("cat", f"{home}/from-the-session") == "granite"
    assert lab.machine.out("stat", "--format=%u %g", f"{home}/from-the-session") == f"41001 {STAFF}"


def test_members_write_to_the_folder_of_a_group_of_the_directory(lab: Lab, desk: Kernel) -> None:
    folder = "/groups/glacier-ldap"
    assert lab.machine.out("stat", "--format=%U %g %a", folder) == "root 42001 2770"
    desk.run(f"open('{folder}/survey.txt', 'w').write('by lena\\n')")
    assert lab.machine.out("stat", "--format=%u %g", f"{folder}/survey.txt") == "41001 42001"
    # Nils is at the host, as a job of Slurm's would be.
    lab.machine.run("runuser", "-u", NILS.name, "--", "sh", "-c", f"umask 022; echo by nils >>{folder}/survey.txt")
    assert desk.out(f"cat {folder}/survey.txt") == "by lena\nby nils"
    outsider = lab.machine.run("runuser", "-u", PAULA.name, "--", "cat", f"{folder}/survey.txt", check=False)
    assert outsider.returncode != 0
    assert "Permission denied" in outsider.stderr


def test_a_group_of_labsteads_may_have_members_of_the_directory(lab: Lab) -> None:
    gid = lab.machine.out("getent", "group", "survey").split(":")[2]
    assert (
        NILS.name in lab.machine.out("id", "-Gn", NILS.name).split()
        or gid in lab.machine.out("id", "-G", NILS.name).split()
    )
    nils = of_the_directory(lab, NILS).log_in().start()
    nils.kernel().run("open('/groups/survey/note', 'w').write('by nils')")
    assert lab.machine.out("stat", "--format=%u %g", "/groups/survey/note") == f"41002 {gid}"
    nils.stop()


def test_an_admin_of_the_directory_is_one_with_her_own_password(lab: Lab) -> None:
    paula = of_the_directory(lab, PAULA).log_in()
    assert paula.visit("/hub/people").status_code == 200
    lena = of_the_directory(lab, LENA).log_in()
    assert lena.visit("/hub/people").status_code == 403


# --- guests beside them


def test_a_guest_comes_in_beside_the_institutes_people(lab: Lab, admin: Person) -> None:
    guest = lab.join("gast", admin)
    uid = lab.machine.out("id", "-u", guest.name)
    assert int(uid) >= 24000
    assert lab.machine.out("getent", "passwd", guest.name).split(":")[5] == f"/home/{guest.name}"
    assert guest.start().kernel().out("id -u") == uid
    guest.stop()


def test_each_comes_in_through_their_own_door_only(lab: Lab, admin: Person) -> None:
    guest = lab.join("gast", admin)
    other = lab.person(guest.name, guest.password)
    other.door = "pam"
    assert_kept_out(lab, other, other.try_to_log_in())
    lena = lab.person(LENA.name, LENA.password)
    lena.door = "native"
    answer = lena.try_to_log_in()
    assert answer.status_code in (401, 403)
    assert "/hub/login" in lena.visit("/hub/home").url


# --- wrong passwords


def test_a_wrong_password_is_refused(lab: Lab, directory: Directory) -> None:
    entry = newcomer("wilma")
    directory.add(entry)
    person = of_the_directory(lab, entry)
    for password in ("wilma", "x" * 2000, "ß\x00"):
        assert_kept_out(lab, person, person.try_to_log_in(password))
    assert entry.name not in ledger(lab)
    person.log_in()
    assert ledger(lab)[entry.name] == (entry.uid, "active")


def test_too_many_wrong_passwords_make_a_name_wait(lab: Lab, directory: Directory) -> None:
    entry = newcomer("wanja")
    directory.add(entry)
    person = of_the_directory(lab, entry)
    for _ in range(4):
        assert_kept_out(lab, person, person.try_to_log_in("not the right one"))
    assert_kept_out(lab, person, person.try_to_log_in(), "Too many wrong passwords")


def test_a_password_is_never_in_a_log(lab: Lab) -> None:
    """Those of people who came in, and of one who did not."""
    journal = lab.machine.run("journalctl", "--no-pager", "--output=cat", timeout=300).stdout
    assert LENA.name in journal, "the journal does not even have her name"
    for secret in (LENA.password, NILS.password, "not the right one"):
        assert secret not in journal


# --- take-overs


# Entry of the directory → nothing may come of it, whatever the password.
SYSTEM = {
    "uid 0": Entry("zoe-ldap", 0, STAFF, "zoe likes marble"),
    "uid below 1000": Entry("lowell-ldap", 900, STAFF, "lowell likes marble"),
    "gid 0": Entry("zack-ldap", 41030, 0, "zack likes marble"),
    "gid below 1000": Entry("logan-ldap", 41031, 300, "logan likes marble"),
    "no log-in shell": Entry("nora-ldap", 41032, STAFF, "nora likes marble", login_shell="/usr/sbin/nologin"),
    "reserved name": Entry("slurm", 41033, STAFF, "slurm likes marble"),
    "odd name": Entry("a.b", 41034, STAFF, "ab likes marble"),
}


@pytest.mark.parametrize("kind", SYSTEM)
def test_an_entry_that_is_no_persons_does_not_come_in(lab: Lab, directory: Directory, kind: str) -> None:
    entry = SYSTEM[kind]
    directory.add(entry)
    person = of_the_directory(lab, entry)
    assert_kept_out(lab, person, person.try_to_log_in())
    assert entry.name not in ledger(lab)
    assert lab.machine.run("test", "-e", f"/home/{entry.name}", check=False).returncode == 1


def test_an_account_of_the_host_with_uid_0_does_not_come_in(lab: Lab) -> None:
    """With the right password: a control shows that PAM takes it."""
    name, password = "zorro-of-the-host", "zorro likes marble"
    script = 'id "$1" 2>/dev/null || useradd --non-unique --uid 0 --gid 0 --no-create-home "$1"; chpasswd'
    lab.machine.sh(script, name, stdin=f"{name}:{password}\n")
    assert lab.machine.out("id", "-u", name) == "0"
    person = lab.person(name, password)
    person.door = "pam"
    assert_kept_out(lab, person, person.try_to_log_in())
    assert name not in ledger(lab)


def test_a_name_of_the_directory_cannot_be_signed_up(lab: Lab, directory: Directory) -> None:
    """Neither one who comes in every day, nor one who was never here."""
    entry = newcomer("never")
    directory.add(entry)
    for name in (LENA.name, entry.name):
        answer = lab.person(name).sign_up()
        assert answer.status_code == 400
        assert "taken" in words_of(answer.text)


def test_a_guest_is_not_approved_once_the_directory_has_the_name(lab: Lab, directory: Directory, admin: Person) -> None:
    """Somebody signs up with the name of a colleague who comes next week."""
    guest = lab.somebody("race")
    assert guest.sign_up().status_code == 200
    entry = newcomer("real", guest.name)
    directory.add(entry)
    directory.wait_for(entry.name)
    answer = admin.decide("approve", guest.name)
    assert answer.status_code == 400, words_of(answer.text)[:300]
    assert guest.name not in ledger(lab)
    assert_kept_out(lab, guest, guest.try_to_log_in())

    real = of_the_directory(lab, entry).log_in()
    assert ledger(lab)[entry.name] == (entry.uid, "active")
    answer = guest.try_to_log_in()
    assert answer.status_code in (401, 403), "the guest came in as the colleague"
    assert "/hub/login" in guest.visit("/hub/home").url
    assert real.start().kernel().out("id -u") == str(entry.uid)
    real.stop()


def test_two_admins_approve_at_the_same_time(lab: Lab, admin: Person) -> None:
    guest = lab.somebody("twice")
    assert guest.sign_up().status_code == 200
    admins = [admin, lab.admin(), of_the_directory(lab, PAULA).log_in()]
    with ThreadPoolExecutor(len(admins)) as pool:
        answers = list(pool.map(lambda one: one.decide("approve", guest.name), admins))
    assert all(answer.status_code < 500 for answer in answers), answers
    assert [name for name in lab.state()["users"] if name == guest.name] == [guest.name]
    guest.log_in()


def test_the_directory_does_not_get_a_guests_account(lab: Lab, directory: Directory, admin: Person) -> None:
    """A colleague comes who has a guest's name: the guest's files stay the guest's."""
    guest = lab.join("gast", admin)
    entry = newcomer("colleague", guest.name)
    directory.add(entry)
    colleague = of_the_directory(lab, entry)
    assert_kept_out(lab, colleague, colleague.try_to_log_in())
    uid = lab.machine.out("id", "-u", guest.name)
    assert uid != str(entry.uid)
    assert guest.start().kernel().out("id -u") == uid
    guest.stop()


def test_the_directory_does_not_get_a_guests_number(lab: Lab, directory: Directory, admin: Person) -> None:
    """An entry with the uid of a guest would own the guest's files."""
    guest = lab.join("gast", admin)
    uid = int(lab.machine.out("id", "-u", guest.name))
    entry = Entry("twin-ldap", uid, STAFF, "twin likes slate")
    directory.add(entry)
    twin = of_the_directory(lab, entry)
    assert_kept_out(lab, twin, twin.try_to_log_in())
    assert entry.name not in ledger(lab)
    directory.remove(entry.name)


def test_a_number_that_the_directory_has_is_not_given_to_a_guest(lab: Lab, directory: Directory, admin: Person) -> None:
    first = lab.join("gast", admin)
    following = int(lab.machine.out("id", "-u", first.name)) + 1
    directory.add(Entry("inrange-ldap", following, STAFF, "inrange likes slate"))
    directory.add_group("inrange-group-ldap", following + 1)
    directory.wait_for("inrange-ldap")
    second = lab.join("gast", admin)
    entry = lab.machine.out("getent", "passwd", second.name).split(":")
    assert int(entry[2]) not in (following, following + 1)
    assert int(entry[3]) not in (following, following + 1)
    directory.remove("inrange-ldap")


@pytest.mark.parametrize("number", ["of a guest", "below 1000"])
def test_a_number_that_has_changed_in_the_directory_opens_nothing(
    lab: Lab, directory: Directory, admin: Person, number: str
) -> None:
    guest = lab.join("gast", admin)
    uid = int(lab.machine.out("id", "-u", guest.name)) if number == "of a guest" else 900
    entry = newcomer("mover")
    directory.add(entry)
    person = of_the_directory(lab, entry).log_in()
    directory.set_uid(entry.name, uid)
    wait_for("the new uid", lambda: lab.machine.out("id", "-u", entry.name) == str(uid), 30)
    answer = person.api("POST", f"/hub/api/users/{person.name}/server")
    if answer.status_code in (201, 202):
        wait_for("refusal", lambda: not person.server(), 60)
    found = lab.machine.out("docker", "ps", "--all", "--quiet", f"--filter=label=org.labstead.user={person.name}")
    assert found == ""
    again = of_the_directory(lab, entry)
    assert_kept_out(lab, again, again.try_to_log_in())
    directory.remove(entry.name)


def test_a_locked_account_does_not_come_in_with_the_right_password(lab: Lab, directory: Directory) -> None:
    entry = newcomer("locke")
    directory.add(entry)
    person = of_the_directory(lab, entry).log_in()
    lab.machine.run("labstead", "user", "lock", entry.name)
    again = of_the_directory(lab, entry)
    assert_kept_out(lab, again, again.try_to_log_in(), "locked")
    wait_for("end of the log-in", lambda: "/hub/login" in person.visit("/hub/home").url, SENT_OUT)
    lab.machine.run("labstead", "user", "unlock", entry.name)
    of_the_directory(lab, entry).log_in()


# --- the directory is away


@pytest.fixture
def without_the_directory(lab: Lab) -> Iterator[None]:
    lab.machine.run("systemctl", "stop", "sssd")
    try:
        yield
    finally:
        lab.machine.run("systemctl", "start", "sssd")
        wait_for("SSSD", lambda: lab.machine.run("id", LENA.name, check=False).returncode == 0, 30)


@pytest.mark.usefixtures("without_the_directory")
def test_without_the_directory_its_people_read_why_and_guests_come_in(lab: Lab, admin: Person) -> None:
    lena = of_the_directory(lab, LENA)
    answer = lena.try_to_log_in()
    assert answer.status_code in (401, 403), words_of(answer.text)[:300]
    assert "/hub/login" in lena.visit("/hub/home").url
    guest = lab.join("gast", admin)
    assert guest.start().kernel().value("6 * 7") == 42
    guest.stop()


# --- the directory alone


@pytest.fixture(scope="module")
def guest_of_before(lab: Lab, admin: Person) -> Person:
    return lab.join("gast", admin)


@pytest.fixture(scope="module")
def alone(lab: Lab, authority: Authority, guest_of_before: Person) -> Lab:
    """Close the door of guests: an institute's own hub, self-check included."""
    assert guest_of_before.visit("/hub/home").url.endswith("/hub/home")
    settings = {**SETTINGS, "hub_doors": ["pam"], "hub_admins": [PAULA.name], "hub_signup": "closed"}
    open_doors(lab, authority, settings, "doors-pam-alone.log", "--tags", "labstead,accounts,hub,selfcheck")
    return lab


def test_the_directory_alone_may_be_the_door(alone: Lab) -> None:
    page = words_of(alone.person("nobody").visit("/hub/login").text)
    assert "account of a guest" not in page
    assert alone.person("nobody").visit("/hub/signup").status_code in (403, 404)
    assert of_the_directory(alone, PAULA).log_in().visit("/hub/people").status_code == 200
    assert of_the_directory(alone, LENA).log_in().visit("/hub/people").status_code == 403


def test_guests_do_not_come_in_once_their_door_is_closed(alone: Lab, guest_of_before: Person) -> None:
    """Whatever they send for a door, and with the cookie that they have."""
    for door in ("native", "pam", ""):
        person = alone.person(guest_of_before.name, guest_of_before.password)
        form = person.form("/hub/login", "/hub/login")
        fields = {**form.fields, "username": person.name, "password": person.password, "door": door}
        assert_kept_out(alone, person, person.post(form.action, fields))
    wait_for("end of the log-in", lambda: "/hub/login" in guest_of_before.visit("/hub/home").url, SENT_OUT)
