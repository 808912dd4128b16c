"""How accounts come, close and go: lists of a class, links, expiry, archives, mail, and the commands for all that.

The rule: what became of somebody is looked for on the host (getent, find, tar) and in the mail that a relay got.
"""

import csv
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest

from support.commands import invite, labstead, set_password
from support.doors import SENT_OUT, assert_kept_out, ledger
from support.forms import words_of
from support.lab import Lab
from support.machine import Completed, wait_for
from support.person import PASSWORD, Person
from support.provision import ADMINS_MAIL, SENDER
from support.relay import Relay


@pytest.fixture(scope="module")
def relay(lab: Lab) -> Relay:
    relay = Relay(lab.machine)
    relay.start()
    return relay


def shown(lab: Lab, name: str) -> dict[str, object]:
    """Give what `labstead user show` tells."""
    found: dict[str, object] = json.loads(labstead(lab, "user", "show", name, "--json").stdout)
    return found


def day(days: int) -> str:
    """Give a day before or after today, as the host writes it."""
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def uid_of(lab: Lab, name: str) -> str:
    return lab.machine.out("id", "-u", name)


def exists(lab: Lab, path: str) -> bool:
    return lab.machine.run("test", "-e", path, check=False).returncode == 0


# --- mail


def test_a_sign_up_is_mailed_to_the_administrators_and_the_approval_to_the_person(
    lab: Lab, admin: Person, relay: Relay
) -> None:
    person = lab.somebody("mila")
    address = f"{person.name}@institute.test"
    assert person.sign_up(email=address).status_code == 200
    asked = relay.wait_for(person.name, ADMINS_MAIL)
    assert asked.sender == SENDER
    assert f"{lab.url}/hub/people" in asked.text
    assert address in admin.visit("/hub/people").text
    assert admin.decide("approve", person.name).status_code == 302
    told = relay.wait_for(person.name, address)
    assert f"{lab.url}/hub/login" in told.text
    for letter in relay.letters(person.name):
        assert person.password not in letter.text
    person.log_in()


@pytest.mark.parametrize(
    "address", ["a@b.test\nBcc: x@y.test", "nobody", "a b@c.test", "<a@b.test>", "x" * 300 + "@y.test"]
)
def test_an_address_that_is_none_is_refused(lab: Lab, relay: Relay, address: str) -> None:
    person, before = lab.somebody("mia"), lab.state()
    answer = person.sign_up(email=address)
    assert answer.status_code == 400
    assert "e-mail address" in words_of(answer.text)
    assert lab.state() == before
    assert relay.letters(person.name) == []


def test_without_the_relay_people_come_in_all_the_same(lab: Lab, admin: Person, relay: Relay) -> None:
    relay.stop()
    try:
        person = lab.somebody("mara")
        assert person.sign_up(email=f"{person.name}@institute.test").status_code == 200
        assert admin.decide("approve", person.name).status_code == 302
        person.log_in()

        def journal() -> bool:
            found = lab.machine.out("journalctl", "--unit=labstead-hub", "--since=-2min", "--output=cat", "--no-pager")
            return "mail" in found and "2525" in found

        wait_for("a line of the journal on the mail", journal, 40)
    finally:
        relay.start()


# --- one-time links


def test_a_link_sets_a_password_once(lab: Lab) -> None:
    person = lab.somebody("iris")
    labstead(lab, "user", "add", person.name)
    assert_kept_out(lab, person, person.try_to_log_in())
    link = invite(lab, person.name)
    assert link.startswith(f"{lab.url}/hub/set-password/")
    assert set_password(person, link, "short").status_code == 400
    assert set_password(person, link).ok
    lab.person(person.name).log_in()

    page = lab.person(person.name).visit(urlsplit(link).path)
    assert page.status_code in (403, 404, 410)
    token = link.rsplit("/", 1)[1]
    journal = lab.machine.run("journalctl", "--no-pager", "--output=cat", "--since=-5min", timeout=300).stdout
    assert token not in journal
    assert token not in lab.machine.sh("cat /var/log/nginx/*.log").stdout


def test_a_new_link_ends_the_one_before(lab: Lab) -> None:
    person = lab.somebody("ines")
    labstead(lab, "user", "add", person.name)
    first, second = (invite(lab, person.name) for _ in range(2))
    assert first != second
    assert lab.person(person.name).visit(urlsplit(first).path).status_code in (403, 404, 410)
    assert set_password(person, second).ok


def test_a_link_that_nobody_sent_is_none(lab: Lab) -> None:
    for token in ("x", "../../etc/passwd", "%00", "A" * 43):
        assert lab.person("nobody").visit(f"/hub/set-password/{token}").status_code in (400, 403, 404, 410)


# --- a class


CLASS = "/root/class.csv"
OUTPUT = "/root/class-log-ins.csv"


def class_of(lab: Lab, rows: str) -> None:
    """Write the list of a class, as a spreadsheet saves it."""
    lab.machine.sh('rm -f "$2"; cat >"$1"', CLASS, OUTPUT, stdin="\ufeff" + rows)


def test_a_class_comes_in_from_a_list(lab: Lab) -> None:
    names = [lab.somebody("pupil").name for _ in range(3)]
    labstead(lab, "group", "add", f"class-{names[0]}")
    rows = [
        f'{name},"Pupil, Number {i}",{name}@school.test,{day(100)},class-{names[0]}' for i, name in enumerate(names)
    ]
    class_of(lab, "\r\n".join(["name,full_name,email,expires,groups", *[row.replace(", N", " N") for row in rows], ""]))
    done = labstead(lab, "user", "add", "--from", CLASS, "--output", OUTPUT)
    assert lab.machine.out("stat", "--format=%U:%G %a", OUTPUT) == "root:root 600"
    table = list(csv.DictReader(lab.machine.out("cat", OUTPUT).splitlines()))
    assert [row["name"] for row in table] == names
    for row in table:
        password = row["password"]
        assert len(password) >= 11
        assert password not in done.stdout + done.stderr
        lab.person(row["name"], password).log_in()
        assert f"class-{names[0]}" in lab.machine.out("id", "-Gn", row["name"]).split()
        assert shown(lab, row["name"])["expires"] == day(100)
    assert len({row["password"] for row in table}) == len(names)


WRONG = {
    "a bad name": ("name\nanna-{x}\nBad Name\n", ["row 3", "small letters"]),
    "three mistakes": ("name,expires\nanna-{x},tomorrow\nroot,\n7up,\n", ["row 2", "row 3", "row 4"]),
    "a name twice": ("name\nanna-{x}\nanna-{x}\n", ["row 3", "row 2"]),
    "a day that is over": ("name,expires\nanna-{x},2020-01-01\n", ["row 2", "2020-01-01"]),
    "no such group": ("name,groups\nanna-{x},nowhere-{x}\n", ["row 2", "nowhere-{x}"]),
    "a bad address": ("name,email\nanna-{x},here\n", ["row 2", "mail"]),
    "a misspelt column": ("name,expire\nanna-{x},\n", ["expire", "did you mean expires?"]),
    "no column of names": ("full_name\nAnna\n", ["name"]),
    "too many fields": ("name\nanna-{x},more\n", ["row 2"]),
    "a quote that does not end": ('name\n"anna-{x}\n', ["row"]),
    "nothing": ("", ["empty"]),
    "a name of the host": ("name\nanna-{x}\nhubadmin\n", ["row 3", "hubadmin"]),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_list_with_mistakes_makes_nobody(lab: Lab, mistake: str) -> None:
    rows, words = WRONG[mistake]
    mark = lab.somebody("x").name.split("-")[1]
    class_of(lab, rows.replace("{x}", mark))
    before = lab.state()
    refused = labstead(lab, "user", "add", "--from", CLASS, "--output", OUTPUT, code=2)
    for word in words:
        assert any(word.replace("{x}", mark) in line for line in refused.stderr.splitlines()), refused.stderr
    assert lab.state() == before
    assert not exists(lab, OUTPUT)


# --- closing


def test_an_account_whose_day_has_come_is_closed_and_can_be_opened_again(lab: Lab, admin: Person) -> None:
    person = lab.join("erna", admin).start()
    labstead(lab, "user", "expire", person.name, day(0))
    assert shown(lab, person.name)["state"] == "expired"
    wait_for("end of the session", lambda: f"labstead-session-{person.name}" not in lab.machine.containers(), 60)
    wait_for("end of the log-in", lambda: "/hub/login" in person.visit("/hub/home").url, SENT_OUT)
    again = lab.person(person.name)
    assert_kept_out(lab, again, again.try_to_log_in(), "expired")
    # shadow(5): with a day of expiry neither ssh nor su nor cron open the account.
    assert lab.machine.out("getent", "shadow", person.name).split(":")[7] == "1"
    assert exists(lab, f"/home/{person.name}")

    labstead(lab, "user", "expire", person.name, day(30))
    lab.person(person.name).log_in()
    assert lab.machine.out("getent", "shadow", person.name).split(":")[7] == ""
    labstead(lab, "user", "expire", person.name, "never")
    assert shown(lab, person.name)["expires"] is None


def test_a_day_that_has_passed_is_a_mistake(lab: Lab, admin: Person) -> None:
    """The wrong year would close an account at once and archive it the next night."""
    person = lab.join("edda", admin)
    refused = labstead(lab, "user", "expire", person.name, day(-1), code=2)
    assert day(-1) in refused.stderr
    assert shown(lab, person.name)["state"] == "active"
    assert shown(lab, person.name)["expires"] is None
    lab.person(person.name).log_in()


def test_locking_ends_all_that_somebody_has_open(lab: Lab, admin: Person) -> None:
    person = lab.join("lea", admin).start()
    token = person.api("POST", f"/hub/api/users/{person.name}/tokens", json={"note": "of a script"}).json()["token"]
    as_script = {"Authorization": f"token {token}"}
    assert person.http.get(f"{lab.url}/hub/api/user", headers=as_script, timeout=30).ok
    labstead(lab, "user", "lock", person.name)
    wait_for("end of the session", lambda: f"labstead-session-{person.name}" not in lab.machine.containers(), 60)
    person.http.cookies.clear()
    assert person.http.get(f"{lab.url}/hub/api/user", headers=as_script, timeout=30).status_code == 403
    assert_kept_out(lab, person, person.try_to_log_in(), "locked")
    labstead(lab, "user", "unlock", person.name)
    person.log_in()


@pytest.fixture(scope="module")
def clock(lab: Lab) -> None:
    """Install what lets a program see another day."""
    lab.machine.sh(
        "command -v faketime >/dev/null || "
        "DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --no-install-recommends faketime >/dev/null",
        timeout=300,
    )


def tidy(lab: Lab, *words: str, days: int = 0) -> str:
    """Run what the timer runs every day, as on a day to come; all else on the host stays in the present."""
    later = ("faketime", "-f", f"+{days}d") if days else ()
    done = lab.machine.run(*later, "labstead", "tidy", *words, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_timer_runs_tidy_every_day(lab: Lab) -> None:
    timers = lab.machine.out("systemctl", "list-timers", "--all", "--no-legend", "--no-pager", "labstead-tidy.timer")
    assert "labstead-tidy.service" in timers
    lab.machine.run("systemctl", "start", "labstead-tidy.service", timeout=600)
    assert lab.machine.out("systemctl", "show", "--property=Result", "--value", "labstead-tidy.service") == "success"


def test_an_expiry_is_told_once_before_its_day(lab: Lab, admin: Person, relay: Relay) -> None:
    person = lab.somebody("wiebke")
    address = f"{person.name}@institute.test"
    labstead(lab, "user", "add", person.name, "--email", address, "--expires", day(5))
    before = lab.state()
    assert person.name in tidy(lab, "--check")
    assert relay.letters(person.name) == []

    tidy(lab)
    told = relay.wait_for(person.name, address)
    assert day(5) in told.text
    assert relay.wait_for(person.name, ADMINS_MAIL)
    assert lab.state() == before
    count = len(relay.letters(person.name))
    assert person.name not in tidy(lab)
    assert len(relay.letters(person.name)) == count
    assert day(5) in admin.visit(f"/hub/people?q={person.name}").text


def files_of(lab: Lab, uid: str) -> str:
    """Find all that belongs to a number, in the places where people may leave files."""
    return lab.machine.sh(
        'find /home /groups /tmp /var/tmp /var/mail /var/spool /run/labstead -xdev "(" -uid "$1" -o -gid "$1" ")" '
        "2>/dev/null || true",
        uid,
    ).stdout.strip()


@pytest.mark.usefixtures("clock")
def test_long_after_its_day_a_home_goes_into_an_archive_and_later_away(lab: Lab, admin: Person, relay: Relay) -> None:
    person = lab.somebody("arne")
    address = f"{person.name}@institute.test"
    assert person.sign_up(email=address).status_code == 200
    admin.decide("approve", person.name)
    person.log_in().start()
    kernel = person.kernel()
    kernel.sh("mkdir -p work/deep; echo rock > work/deep/data; ln -s /etc/passwd link; umask 077; echo s > own")
    kernel.sh("setfacl -m u:1:r work/deep/data || true")
    person.stop()
    uid = uid_of(lab, person.name)
    archive = f"/var/lib/labstead/archive/{person.name}-{uid}.tar.gz"

    labstead(lab, "user", "expire", person.name, day(0))
    assert person.name not in tidy(lab, days=19)
    assert exists(lab, f"/home/{person.name}")
    assert person.name in tidy(lab, "--check", days=21)
    assert exists(lab, f"/home/{person.name}"), "--check has done it"
    assert person.name in tidy(lab, days=21)

    assert lab.machine.run("getent", "passwd", person.name, check=False).returncode == 2
    assert lab.machine.run("getent", "group", person.name, check=False).returncode == 2
    assert not exists(lab, f"/home/{person.name}")
    assert files_of(lab, uid) == ""
    assert lab.machine.out("stat", "--format=%U:%G %a", archive) == "root:root 600"
    listed = lab.machine.out("tar", "--list", "--verbose", "--numeric-owner", "--gzip", "--file", archive)
    owners = {line.split()[1] for line in listed.splitlines()}
    assert owners == {f"{uid}/{uid}"}
    assert re.search(r"work/deep/data$", listed, re.MULTILINE)
    assert re.search(r"link -> /etc/passwd$", listed, re.MULTILINE)
    assert re.search(r"-rw------- .* \S*own$", listed, re.MULTILINE)
    content = lab.machine.sh('tar --extract --to-stdout --wildcards --gzip --file "$1" "*work/deep/data"', archive)
    assert content.stdout == "rock\n"
    assert any("archive" in letter.text for letter in relay.letters(person.name) if address in letter.to)
    assert_kept_out(lab, person, lab.person(person.name).try_to_log_in())
    assert person.name not in tidy(lab, days=22), "done again the next day"

    tidy(lab, days=59)
    assert exists(lab, archive)
    assert person.name in tidy(lab, "--check", days=61)
    assert exists(lab, archive), "--check has deleted it"
    assert person.name in tidy(lab, days=61)
    assert not exists(lab, archive)
    assert any("deleted" in letter.text for letter in relay.letters(person.name) if ADMINS_MAIL in letter.to)


def test_somebody_of_the_same_name_inherits_nothing(lab: Lab, admin: Person) -> None:
    person = lab.join("karin", admin)
    group = f"heirs-{person.name.split('-')[1]}"
    labstead(lab, "group", "add", group, "--members", person.name, "--managers", person.name)
    person.start()
    kernel = person.kernel()
    kernel.sh(f"echo secret > ~/secret; chmod 644 ~/secret; echo mine > /groups/{group}/mine")
    token = person.api("POST", f"/hub/api/users/{person.name}/tokens", json={"note": "old"}).json()["token"]
    old, uid = person.http, uid_of(lab, person.name)
    labstead(lab, "user", "remove", person.name, "--delete-files", "--yes")
    assert not exists(lab, f"/home/{person.name}")
    assert f"labstead-session-{person.name}" not in lab.machine.containers()

    labstead(lab, "user", "add", person.name)
    link = invite(lab, person.name)
    heir = lab.person(person.name, "another quiet otter")
    assert set_password(heir, link).ok
    assert uid_of(lab, person.name) != uid
    assert lab.person(person.name, PASSWORD).try_to_log_in().status_code == 403, "the old password opens"
    assert (
        old.get(f"{lab.url}/hub/api/user", headers={"Authorization": f"token {token}"}, timeout=30).status_code == 403
    )
    page = old.get(f"{lab.url}/hub/home", timeout=30)
    assert "/hub/login" in page.url, "an old cookie opens"
    kernel = heir.log_in().start().kernel()
    assert kernel.out("find ~ -name secret") == ""
    assert group not in kernel.out("id -Gn").split()
    assert kernel.sh(f"ls /groups/{group}", check=False).returncode != 0
    assert lab.machine.out("stat", "--format=%u", f"/groups/{group}/mine") == uid, "the group's file stays as it was"
    refused = heir.api("POST", "/hub/groups", json={})
    assert refused.status_code in (400, 403, 404, 405)
    heir.stop()


def test_removing_keeps_an_archive_unless_told_otherwise(lab: Lab) -> None:
    person = lab.somebody("ruth")
    labstead(lab, "user", "add", person.name)
    uid = uid_of(lab, person.name)
    refused = labstead(lab, "user", "remove", person.name, code=2)
    assert "--yes" in refused.stderr
    assert uid_of(lab, person.name) == uid
    labstead(lab, "user", "remove", person.name, "--yes")
    assert exists(lab, f"/var/lib/labstead/archive/{person.name}-{uid}.tar.gz")
    assert not exists(lab, f"/home/{person.name}")
    assert ledger(lab)[person.name] == (int(uid), "retired")


# --- groups by command


def test_members_come_and_go_and_the_folder_stays(lab: Lab, admin: Person) -> None:
    first, second, manager = lab.join("gesa", admin), lab.join("gero", admin), lab.join("gitte", admin)
    group = lab.somebody("ice").name
    labstead(lab, "group", "add", group, "--members", f"{first.name}", "--managers", manager.name, "--quota", "500G")
    entry = lab.machine.out("getent", "group", group).split(":")
    folder = f"/groups/{group}"
    assert entry[3] == first.name
    assert lab.machine.out("stat", "--format=%U %g %a", folder) == f"root {entry[2]} 2770"
    assert "default:group::rwx" in lab.machine.out("getfacl", "--absolute-names", folder)
    kernel = first.start().kernel()
    kernel.sh(f"echo ice > {folder}/core")
    assert group in words_of(first.visit("/hub/home").text)

    labstead(lab, "group", "members", group, "--add", second.name, "--remove", first.name)
    assert lab.machine.out("getent", "group", group).split(":")[3] == second.name
    first.stop()
    assert first.start().kernel().sh(f"cat {folder}/core", check=False).returncode != 0
    assert second.start().kernel().out(f"cat {folder}/core") == "ice"
    first.stop()
    second.stop()


def test_a_manager_changes_members_of_her_group_only(lab: Lab, admin: Person) -> None:
    """By command on the host, as herself."""
    manager, member = lab.join("gitte", admin), lab.join("gesa", admin)
    mine, other = lab.somebody("ice").name, lab.somebody("ice").name
    labstead(lab, "group", "add", mine, "--managers", manager.name)
    labstead(lab, "group", "add", other)

    def as_her(*words: str) -> Completed:
        return lab.machine.run("runuser", "-u", manager.name, "--", "labstead", *words, check=False)

    done = as_her("group", "members", mine, "--add", member.name)
    assert done.returncode == 0, done.stderr
    assert lab.machine.out("getent", "group", mine).split(":")[3] == member.name
    before = lab.state()
    for words in (
        ("group", "members", other, "--add", member.name),
        ("group", "members", mine, "--add", "root"),
        ("group", "members", "sudo", "--add", member.name),
        ("group", "add", "mine-too"),
        ("group", "managers", mine, "--add", member.name),
        ("user", "add", "mine-too"),
        ("user", "lock", member.name),
    ):
        refused = as_her(*words)
        assert refused.returncode in (1, 2), words
        assert refused.stderr.strip()
        assert "Traceback" not in refused.stderr
        assert lab.state() == before, words


# --- all commands


COMMANDS = [
    *(
        ("user", verb)
        for verb in ("add", "list", "show", "approve", "link", "lock", "unlock", "expire", "invite", "remove")
    ),
    *(("group", verb) for verb in ("add", "list", "show", "members", "managers", "remove")),
    *(("apply",), ("tidy",)),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_explains_itself_and_refuses_what_is_wrong(lab: Lab, command: tuple[str, ...]) -> None:
    text = labstead(lab, *command, "--help").stdout
    assert re.search(r"Examples?:", text), text
    assert f"labstead {' '.join(command)}" in text.split("Example", 1)[1], "no example with the command itself"
    assert "--json" in text
    before = lab.state()
    refused = labstead(lab, *command, "--no-such-option", code=2)
    assert "--no-such-option" in refused.stderr
    assert lab.state() == before


NOBODY = [
    ("user", "show", "nobody-here"),
    ("user", "lock", "nobody-here"),
    ("user", "unlock", "nobody-here"),
    ("user", "approve", "nobody-here"),
    ("user", "link", "nobody-here"),
    ("user", "invite", "nobody-here"),
    ("user", "expire", "nobody-here", "2040-01-01"),
    ("user", "remove", "nobody-here", "--yes"),
    ("user", "add", "root"),
    ("user", "add", "../x"),
    ("user", "link", "root"),
    ("user", "link", "daemon"),
    ("group", "add", "sudo"),
    ("group", "add", "../x"),
    ("group", "show", "nowhere"),
    ("group", "members", "nowhere", "--add", "hubadmin"),
    ("group", "add", "some-group", "--members", "nobody-here"),
    ("group", "add", "some-group", "--quota", "5 apples"),
    ("group", "remove", "nowhere", "--yes"),
]


@pytest.mark.parametrize("words", NOBODY, ids=" ".join)
def test_what_cannot_be_is_told_in_lines_and_changes_nothing(lab: Lab, words: tuple[str, ...]) -> None:
    before = lab.state()
    done = lab.machine.run("labstead", *words, check=False)
    assert done.returncode in (1, 2), done.stdout
    assert done.stdout == ""
    assert 1 <= len(done.stderr.strip().splitlines()) <= 4, done.stderr
    assert "Traceback" not in done.stderr
    assert lab.state() == before


@pytest.mark.parametrize("words", [("user", "list"), ("group", "list"), ("apply", "--check"), ("tidy", "--check")])
def test_json_is_json(lab: Lab, words: tuple[str, ...]) -> None:
    json.loads(labstead(lab, *words, "--json").stdout)


COMPLETE = """
    set +eu
    source /usr/share/bash-completion/bash_completion
    function_of() { complete -p "$@" | sed 's/.*-F \\([^ ]*\\).*/\\1/'; }
    "$(function_of -D)" labstead  # what bash calls for a command that it has no function for yet
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
    "$(function_of labstead)" labstead "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(lab: Lab, *words: str) -> list[str]:
    """Press Tab after the last word, as bash does."""
    return lab.machine.sh(COMPLETE, *words).stdout.split()


def test_tab_completes_commands_names_and_groups(lab: Lab, admin: Person) -> None:
    person = lab.join("tabea", admin)
    group = lab.somebody("tabs").name
    labstead(lab, "group", "add", group)
    assert {"user", "group", "apply", "tidy"} <= set(complete(lab, "labstead", ""))
    assert {"lock", "list", "link"} == set(complete(lab, "labstead", "user", "l"))
    assert complete(lab, "labstead", "user", "lock", person.name[:-1]) == [person.name]
    assert complete(lab, "labstead", "group", "show", group[:-1]) == [group]


@pytest.fixture(autouse=True, scope="module")
def nobody_is_lost(lab: Lab) -> Iterator[None]:
    """Numbers are given once, whatever these tests did, and nothing half-removed is left."""
    before = lab.state()["ledger"]
    yield
    after = lab.state()["ledger"]
    uids = [uid for _, uid, _ in after]
    assert len(set(uids)) == len(uids)
    assert {uid for _, uid, _ in before} <= set(uids)
    left = lab.machine.out("find", "/home", "/groups", "-maxdepth", "1", "-name", ".removed-*")
    assert PurePosixPath(left or ".").name == ""
