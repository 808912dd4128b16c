"""The `labstead` command, as an administrator types it."""

import csv
import json
import os
import tarfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import bcrypt
import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from nativeauthenticator.orm import UserInfo

from labstead import administration, cull, disks, mail, secrets, tidy, usage
from labstead.accounts.client import Client
from labstead.amounts import human_size
from labstead.cli import base, main
from labstead.cli import user as cli_user
from labstead.disks.backend import NO_LIMIT, DiskError, Limit, NotNow
from labstead.errors import LabsteadError
from labstead.hub import database, logins
from labstead.hub.api import HubAway
from labstead.relay.client import Jobs
from support.office import RELAY, Office

TOMORROW = date.today() + timedelta(days=1)


def opens(office: Office, name: str, password: str) -> bool:
    with database.opened(office.db_url) as db:
        info = UserInfo.find(db, name)
        return bool(info.is_authorized) and bcrypt.checkpw(password.encode(), info.password)


def sign_up(office: Office, name: str, email: str = "") -> None:
    with database.opened(office.db_url) as db:
        db.add(UserInfo(username=name, password=logins.hashed("a stranger's word"), email=email))
        db.commit()


def read_csv(file: Path) -> list[dict[str, str]]:
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open() as stream:
        return list(csv.DictReader(stream))


class _Disks:
    """Three file systems: one whose limits hold, one that is too full to try them, one where they do not hold."""

    def __init__(self) -> None:
        self.tried: list[Path] = []

    def find(self, path: Path) -> "_Disks._One":
        return _Disks._One(path, self.tried)

    class _One:
        def __init__(self, path: Path, tried: list[Path]) -> None:
            self.path = path
            self.tried = tried
            self.device = str(path).split("/")[1]

        def prove(self) -> None:
            self.tried.append(self.path)
            if self.device == "full":
                raise NotNow("/full: too full")
            if self.device == "open":
                raise DiskError("/open: does not hold")


def test_a_disk_that_cannot_be_tried_now_is_told_of(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _Disks()
    monkeypatch.setattr(disks, "find", found.find)
    assert office.run("disk", "prove", "/good/a", "/good/b").stderr == ""
    assert found.tried == [Path("/good/a")]
    said = office.run("disk", "prove", "/full", "/good", "--json", code=1)
    assert json.loads(said.stdout) == [{"path": "/full", "holds": None}, {"path": "/good", "holds": True}]
    assert said.stderr == "labstead: /full: too full\n"
    # For site.yml, which may be the run that brings more room.
    assert office.run("disk", "prove", "--may-wait", "/full", "/good").stderr == "labstead: /full: too full\n"
    assert "does not hold" in office.run("disk", "prove", "--may-wait", "/full", "/open", code=2).stderr


# --- every command


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(_commands(main))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_has_help_with_an_example_and_json(words: tuple[str, ...], office: Office) -> None:
    text = office.run(*words, "--help").stdout
    assert f"labstead {' '.join(words)}" in text.partition("Example")[2]
    assert "--json" in text or words == ("completion",)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_unknown_option_is_bad_input(words: tuple[str, ...], office: Office) -> None:
    told = office.run(*words, "--nonsense", code=2).stderr
    assert "--nonsense" in told
    assert f"see `main {' '.join(words)} --help`" in told
    assert len(told.splitlines()) == 1


def test_what_there_is_is_told_where_a_word_is_missing_or_unknown(office: Office) -> None:
    assert office.run("user", "frob", code=2).stderr == "main user: No such command 'frob'; see `main user --help`\n"
    assert (
        office.run("user", "show", code=2).stderr
        == "main user show: Missing argument 'NAME'; see `main user show --help`\n"
    )
    assert "Commands:" in office.run("user", code=2).output


FOR_ALL = {("completion",), ("config", "check"), ("unit-outdated",)}
FOR_EVERYBODY = {*(("group", word) for word in ("list", "show", "members", "managers")), ("quota", "show")}


@pytest.mark.parametrize("words", sorted(COMMANDS.keys() - FOR_ALL - FOR_EVERYBODY), ids=" ".join)
def test_others_than_root_are_told_to_use_sudo(
    words: tuple[str, ...], office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.os, "geteuid", lambda: 1000)
    arguments = ["2026-12-31" if p.name == "day" else "x" for p in COMMANDS[words].params if p.required]
    assert "use sudo" in office.run(*words, *arguments, code=2).stderr
    assert office.asked == []


def tab(*words: str) -> list[str]:
    """Give what Tab offers for the last word."""
    *before, last = words
    return [item.value for item in ShellComplete(main, {}, "labstead", "_X").get_completions(before, last)]


def test_tab_completes_commands_options_and_names(office: Office) -> None:
    for name in ("anna", "anton", "bert"):
        office.run("user", "add", name)
    office.run("group", "add", "ocean")
    sign_up(office, "dora")
    assert tab("us") == ["user"]
    assert "--full-name" in tab("user", "add", "--f")
    assert tab("user", "show", "an") == ["anna", "anton"]
    assert tab("user", "lock", "anna", "an") == ["anton"]
    assert tab("user", "approve", "") == ["dora"]
    assert tab("user", "expire", "anna", "n") == ["never"]
    assert tab("user", "list", "--state", "wa") == ["waiting"]
    assert tab("user", "list", "--group", "o") == ["ocean"]
    assert tab("group", "show", "") == ["ocean"]
    assert tab("quota", "set", "an") == ["anna", "anton"]
    assert tab("quota", "set", "--group", "o") == ["ocean"]
    assert tab("quota", "set", "anna", "d") == ["default"]
    assert tab("group", "members", "ocean", "--add", "bert,a") == ["bert,anna", "bert,anton"]
    assert tab("hub") == []


def test_the_completion_script_is_bashs() -> None:
    assert "_LABSTEAD_COMPLETE=bash_complete" in CliRunner().invoke(main, ["completion", "bash"]).stdout


@pytest.mark.usefixtures("office")
def test_completion_is_silent_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: object) -> None:
        raise LabsteadError("away")

    monkeypatch.setattr("labstead.accounts.client.Client._ask", away)
    assert tab("group", "show", "") == []


# --- coming in


def test_an_account_is_made_with_a_password_from_a_file(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse battery\n")
    result = office.run("user", "add", "anna", "--full-name", "Anna Adam", "--password-file", str(file))
    assert result.stdout == "anna: made (uid 20000)\n"
    assert office.account("anna").full_name == "Anna Adam"
    assert opens(office, "anna", "correct horse battery")


def test_a_password_may_come_from_standard_input(office: Office) -> None:
    office.run("user", "add", "anna", "--password-file", "-", stdin="correct horse battery\n")
    assert opens(office, "anna", "correct horse battery")


@pytest.mark.parametrize("password", ["short", "x" * 73, ""])
def test_a_bad_password_makes_nothing(office: Office, password: str) -> None:
    office.run("user", "add", "anna", "--password-file", "-", stdin=password + "\n", code=2)
    assert office.logins() == {}
    assert "anna" not in office.unix.users


def test_a_new_password_goes_to_a_file_and_not_to_the_screen(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    result = office.run("user", "add", "anna", "--output", str(file))
    (row,) = read_csv(file)
    assert row["name"] == "anna"
    assert opens(office, "anna", row["password"])
    assert row["password"] not in result.output


def test_without_a_password_nobody_knows_one_until_the_invitation(office: Office, tmp_path: Path) -> None:
    assert "labstead user invite anna" in office.run("user", "add", "anna").stderr
    assert office.logins() == {"anna": True}
    file = tmp_path / "links.csv"
    result = office.run("user", "invite", "anna", "--output", str(file))
    (row,) = read_csv(file)
    assert row["link"].startswith("https://hub.example.org/hub/set-password/")
    token = row["link"].rpartition("/")[2]
    assert token not in result.output
    with database.opened(office.db_url) as db:
        assert logins.redeem(db, token, logins.hashed("correct horse battery")) == "anna"
    assert opens(office, "anna", "correct horse battery")


def test_an_invitation_is_only_for_who_can_use_it(office: Office, tmp_path: Path) -> None:
    office.run("user", "add", "anna")
    office.run("user", "lock", "anna")
    words = ("user", "invite", "anna", "--output", str(tmp_path / "links.csv"))
    assert "is locked" in office.run(*words, code=2).stderr
    office.run("user", "unlock", "anna")
    office.set_hub(doors=("pam",))
    assert "not among hub_doors" in office.run(*words, code=2).stderr
    assert not (tmp_path / "links.csv").exists()


def test_an_account_whose_date_could_not_be_set_keeps_its_login(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise LabsteadError("the disk is full")

    monkeypatch.setattr("labstead.accounts.client.Client.expire", fail)
    result = office.run("user", "add", "anna", "--expires", str(TOMORROW), code=1)
    assert "the disk is full" in result.stderr
    assert office.logins() == {"anna": True}


def test_an_existing_file_is_never_overwritten(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    file.write_text("keep")
    assert "already" in office.run("user", "add", "anna", "--output", str(file), code=2).stderr
    assert file.read_text() == "keep"
    assert office.logins() == {}


def test_a_link_goes_by_mail_where_there_is_a_relay(office: Office) -> None:
    office.set_hub(mail=RELAY)
    result = office.run("user", "add", "anna", "--email", "anna@example.org", "--invite")
    (message,) = office.mail
    assert message["To"] == "anna@example.org"
    (line,) = [line for line in message.get_content().splitlines() if "/hub/set-password/" in line]
    assert line.rpartition("/")[2] not in result.output


def test_a_link_that_would_reach_nobody_makes_nothing(office: Office) -> None:
    assert "hub_mail_relay" in office.run("user", "add", "anna", "--invite", code=2).stderr
    office.set_hub(mail=RELAY)
    assert "address of anna" in office.run("user", "add", "anna", "--invite", code=2).stderr
    assert office.logins() == {}


def test_mail_that_fails_is_told_and_the_account_stays(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise mail.MailFailed("mail: no relay")

    office.set_hub(mail=RELAY)
    monkeypatch.setattr(mail, "send", fail)
    result = office.run("user", "add", "anna", "--email", "anna@example.org", "--invite", code=1)
    assert "mail: no relay; `labstead user invite` makes new links" in result.stderr
    assert office.account("anna").state == "active"


def test_a_squatters_signup_does_not_become_the_accounts_login(office: Office) -> None:
    sign_up(office, "anna")
    assert "is gone" in office.run("user", "add", "anna").stderr
    assert not opens(office, "anna", "a stranger's word")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Anna"], "small letters"),
        (["root"], "reserved"),
        (["../x"], "starts with a letter"),
        (["anna", "--full-name", "a:b"], "--full-name"),
        (["anna", "--email", "nowhere"], "--email"),
        (["anna", "--expires", "31.12.2026"], "2026-12-31"),
        (["anna", "--expires", "2020-01-01"], "has come already"),
        (["anna", "--groups", "ocean"], "there is no group with a folder called ocean"),
        (["anna", "--groups", "a,,b"], "commas"),
        (["anna", "--door", "pam"], "not open"),
        (["staffer"], "labstead user link staffer"),
        ([], "give a NAME"),
        (["anna", "--from", "x.csv"], "give a NAME"),
        (["--from", "/nowhere.csv"], "/nowhere.csv"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(office: Office, arguments: list[str], words: str) -> None:
    office.unix.add_user("staffer", 5000)
    result = office.run("user", "add", *arguments, code=2)
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert office.logins() == {}
    assert office.unix.users.keys() == {"staffer"}


def test_somebody_who_is_there_is_not_made_again(office: Office, tmp_path: Path) -> None:
    office.run("user", "add", "anna", "--password-file", "-", stdin="correct horse battery\n")
    result = office.run("user", "add", "anna", "--output", str(tmp_path / "out.csv"), code=2)
    assert "has an account of the hub already" in result.stderr
    assert opens(office, "anna", "correct horse battery")
    assert not (tmp_path / "out.csv").exists()


def test_a_failed_account_leaves_no_login(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office.service, "_add", lambda _: (_ for _ in ()).throw(OSError("the disk is full")))
    monkeypatch.setattr("labstead.administration.LabsteadError", (LabsteadError, OSError))
    assert "the disk is full" in office.run("user", "add", "anna", code=1).stderr
    assert office.logins() == {}


def test_an_account_of_the_machine_is_linked_by_the_main_door(office: Office) -> None:
    office.add_staff("staffer", 5000)
    office.set_hub(doors=("pam", "native"))
    assert office.run("user", "link", "staffer").stdout == "staffer: linked (uid 5000)\n"
    assert (office.account("staffer").door, office.account("staffer").kind) == ("pam", "linked")
    assert office.logins() == {}
    assert "not an account of this machine" in office.run("user", "link", "nobody2", code=2).stderr


def test_accounts_of_the_system_are_not_linked(office: Office) -> None:
    office.unix.add_user("root", 0)
    office.unix.add_user("staffer", 5000)
    office.unix.users["staffer"].pw_shell = "/usr/sbin/nologin"
    assert "system account" in office.run("user", "link", "root", code=2).stderr
    assert "no login shell" in office.run("user", "link", "staffer", code=2).stderr
    assert office.logins() == {}


def test_a_linked_account_can_get_another_door(office: Office) -> None:
    office.add_staff("staffer", 5000)
    office.set_hub(doors=("pam", "native"))
    office.run("user", "link", "staffer")
    office.run("user", "link", "staffer", "--door", "native", "--password-file", "-", stdin="correct horse battery\n")
    assert office.account("staffer").door == "native"
    assert "as it was" in office.run("user", "link", "staffer", "--door", "native").stdout
    again = ("user", "link", "staffer", "--door", "native", "--password-file", "-")
    assert "user invite staffer" in office.run(*again, stdin="another password\n", code=2).stderr
    assert opens(office, "staffer", "correct horse battery")


def test_guests_come_in_by_the_native_door_beside_another(office: Office) -> None:
    office.set_hub(doors=("pam", "native"))
    office.run("user", "add", "anna")
    assert office.account("anna").door == "native"
    office.set_hub(doors=("pam",))
    assert "labstead makes no accounts for the door pam" in office.run("user", "add", "bert", code=2).stderr


# --- a class


CLASS = """name,full_name,email,expires,groups
anna,Anna Adam,anna@example.org,2099-12-31,ocean
bert,Bert Bauer,,,ocean lake

dora,"Dora, of D",,,
"""


def test_a_class_is_made_from_a_file(office: Office, tmp_path: Path) -> None:
    for name in ("ocean", "lake"):
        office.run("group", "add", name)
    source, out = tmp_path / "class.csv", tmp_path / "out.csv"
    source.write_text(CLASS.replace('"Dora, of D"', "Dora"))
    result = office.run("user", "add", "--from", str(source), "--output", str(out))
    rows = read_csv(out)
    assert [row["name"] for row in rows] == ["anna", "bert", "dora"]
    assert len({row["password"] for row in rows}) == 3
    assert all(opens(office, row["name"], row["password"]) for row in rows)
    assert not any(row["password"] in result.output for row in rows)
    assert office.account("anna").expires == date(2099, 12, 31)
    assert office.group("ocean").members == ("anna", "bert")
    assert office.group("lake").members == ("bert",)


def test_each_mistake_of_a_file_is_told_with_its_row_and_nothing_is_made(office: Office, tmp_path: Path) -> None:
    office.unix.add_user("staffer", 5000)
    office.run("user", "add", "here")
    source = tmp_path / "class.csv"
    source.write_text(
        "name,full_name,email,expires,groups\n"
        "anna,Anna,,,\n"
        "Bert,,,,\n"
        "anna,,,,\n"
        "dora,,nowhere,,\n"
        "emil,,,31.12.2026,\n"
        "fred,,,,mountains\n"
        "staffer,,,,\n"
        "here,,,,\n"
        "gina,,\n"
        ",Nobody,,,\n"
    )
    result = office.run("user", "add", "--from", str(source), "--output", str(tmp_path / "out.csv"), code=2)
    lines = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == [f"row {number}" for number in range(3, 12)]
    expected = (
        "small letters",
        "row 2 already",
        "email",
        "2026-12-31",
        "mountains",
        "link",
        "already",
        "3 fields",
        "name",
    )
    for line, words in zip(lines, expected, strict=True):
        assert words in line
    assert office.logins() == {"here": True}
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("anna\nbert\n", "column name is missing"),
        ("name,fullname\nanna,Anna\n", "did you mean full_name?"),
        ("name,name\nanna,anna\n", "more than once"),
        ('name\n"anna\n', "row"),
    ],
)
def test_a_file_that_is_no_list_is_told_so(office: Office, tmp_path: Path, text: str, words: str) -> None:
    source = tmp_path / "class.csv"
    source.write_text(text)
    assert words in office.run("user", "add", "--from", str(source), code=2).stderr


def test_a_spreadsheets_file_is_read_too(office: Office, tmp_path: Path) -> None:
    """A mark at the beginning, semicolons, and lines that end as Windows ends them."""
    source = tmp_path / "class.csv"
    source.write_bytes("\ufeffName;Full_Name\r\nanna;Ännchen\r\n".encode())
    office.run("user", "add", "--from", str(source))
    assert office.account("anna").full_name == "Ännchen"
    source.write_bytes("name,full_name\nbert,J\xf6rg\n".encode("latin-1"))
    assert "not UTF-8" in office.run("user", "add", "--from", str(source), code=2).stderr


def test_a_file_can_be_gone_on_with(office: Office, tmp_path: Path) -> None:
    source = tmp_path / "class.csv"
    source.write_text("name\nanna\nbert\n")
    office.run("user", "add", "anna")
    out = tmp_path / "out.csv"
    office.run("user", "add", "--from", str(source), "--skip-existing", "--output", str(out))
    assert [row["name"] for row in read_csv(out)] == ["bert"]


# --- approval


def test_approval_makes_the_account_then_opens_the_login_then_sends_mail(office: Office) -> None:
    office.set_hub(mail=RELAY)
    sign_up(office, "anna", "anna@example.org")
    assert "anna" in office.run("user", "list", "--state", "waiting").stdout
    office.run("user", "approve", "anna")
    assert opens(office, "anna", "a stranger's word")
    assert office.account("anna").email == "anna@example.org"
    assert [message["To"] for message in office.mail] == ["anna@example.org"]
    assert "no sign-up of anna" in office.run("user", "approve", "anna", code=2).stderr


def test_a_signup_named_like_an_account_is_not_approved(office: Office) -> None:
    sign_up(office, "staffer")
    office.unix.add_user("staffer", 5000)
    assert "already a user" in office.run("user", "approve", "staffer", code=1).stderr
    assert office.logins() == {"staffer": False}


# --- looking


def test_the_list_shows_everybody_and_json_is_the_same(office: Office) -> None:
    office.run("group", "add", "ocean")
    office.run("user", "add", "anna", "--groups", "ocean", "--expires", str(TOMORROW))
    office.run("user", "add", "bert")
    office.run("user", "lock", "bert")
    sign_up(office, "dora")
    table = office.run("user", "list").stdout.splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["dora", "waiting"], ["anna", "active"], ["bert", "locked"]]
    people = {person["name"]: person for person in json.loads(office.run("user", "list", "--json").stdout)}
    assert people["anna"]["groups"] == ["ocean"]
    assert people["anna"]["expires"] == str(TOMORROW)
    assert people["dora"]["uid"] is None
    assert [p["name"] for p in json.loads(office.run("user", "list", "--group", "ocean", "--json").stdout)] == ["anna"]
    office.run("user", "list", "--group", "lake", code=2)


def test_one_person_is_shown(office: Office) -> None:
    office.run("user", "add", "anna", "--full-name", "Anna Adam")
    office.run("group", "add", "ocean", "--managers", "anna")
    text = office.run("user", "show", "anna").stdout
    assert "Anna Adam" in text
    assert json.loads(office.run("user", "show", "anna", "--json").stdout)["manages"] == ["ocean"]
    assert "labstead user list" in office.run("user", "show", "bert", code=2).stderr


# --- opening and closing


def test_who_is_locked_is_put_out_of_the_hub(office: Office) -> None:
    office.run("user", "add", "anna")
    assert "anna: locked" in office.run("user", "lock", "anna").stdout
    assert office.out_of_hub == ["anna"]
    office.run("user", "unlock", "anna")
    assert office.account("anna").locked == ""


def test_a_lock_that_the_hub_did_not_follow_is_a_failure(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_self: object, _name: str) -> None:
        raise HubAway("the hub does not answer")

    office.run("user", "add", "anna")
    monkeypatch.setattr(administration.Site, "put_out", away)
    assert "may still run" in office.run("user", "lock", "anna", code=1).stderr
    assert office.account("anna").locked == "locked"


@pytest.mark.parametrize(
    "words", [("lock", "anna"), ("expire", "anna", str(date.today())), ("remove", "anna", "--yes")]
)
def test_whose_account_is_closed_has_no_jobs(office: Office, words: tuple[str, ...]) -> None:
    office.run("user", "add", "anna")
    office.set_up_slurm()
    office.queue.people = {"anna": Jobs(3, 2), "bert": Jobs(1, 1)}
    office.run("user", *words)
    assert office.queue.people == {"bert": Jobs(1, 1)}


def test_who_gets_a_date_to_come_keeps_their_jobs(office: Office) -> None:
    office.run("user", "add", "anna")
    office.set_up_slurm()
    office.queue.people = {"anna": Jobs(3, 2)}
    office.run("user", "expire", "anna", str(TOMORROW))
    assert office.queue.asked == []


def test_without_slurm_nobody_asks_for_jobs(office: Office) -> None:
    office.queue.is_away = True
    office.run("user", "add", "anna")
    office.run("user", "lock", "anna")


def test_a_lock_that_slurm_did_not_follow_is_a_failure(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_self: object, _name: str) -> None:
        raise HubAway("the hub does not answer")

    office.run("user", "add", "anna")
    office.set_up_slurm()
    office.queue.is_away = True
    told = office.run("user", "lock", "anna", code=1).stderr
    assert "cannot log in, but jobs of theirs may still run: the Slurm relay does not answer" in told
    assert (office.account("anna").locked, office.out_of_hub) == ("locked", ["anna"])
    monkeypatch.setattr(administration.Site, "put_out", away)
    told = office.run("user", "lock", "anna", code=1).stderr
    assert "a server of theirs may still run: the hub does not answer, and jobs of theirs may" in told


def test_nobody_is_removed_while_their_jobs_run(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would go on with a uid that nobody has, and write into a home that is being archived."""
    office.run("user", "add", "anna")
    office.set_up_slurm()
    office.queue.people = {"anna": Jobs(1, 0)}
    office.queue.keeps_jobs = True
    monkeypatch.setattr(administration, "_JOBS_SECONDS", 0.01)
    told = office.run("user", "remove", "anna", "--yes", code=1).stderr
    assert "anna is locked, but not removed yet: jobs in Slurm have not ended" in told
    assert office.account("anna").locked == "locked"
    office.queue.keeps_jobs = False
    office.run("user", "remove", "anna", "--yes")
    assert office.queue.people == {}


def test_of_several_names_one_that_is_wrong_changes_nothing(office: Office) -> None:
    office.run("user", "add", "anna")
    office.run("user", "lock", "anna", "nobody2", code=2)
    assert office.account("anna").locked == ""


def test_a_date_closes_and_never_opens(office: Office) -> None:
    office.run("user", "add", "anna")
    assert f"expires on {TOMORROW}" in office.run("user", "expire", "anna", str(TOMORROW)).stdout
    assert office.out_of_hub == []
    assert "give today's date" in office.run("user", "expire", "anna", "2020-01-01", code=2).stderr
    assert office.account("anna").expires == TOMORROW
    office.run("user", "expire", "anna", str(date.today()))
    assert office.account("anna").locked == "expired"
    assert office.out_of_hub == ["anna"]
    assert "expire" in office.run("user", "unlock", "anna", code=2).stderr
    assert "never expires" in office.run("user", "expire", "anna", "never").stdout
    assert office.account("anna").locked == ""
    office.run("user", "expire", "anna", "soon", code=2)


# --- leaving


def home(office: Office, name: str) -> Path:
    return office.folder / "home" / name


def test_a_removed_account_leaves_an_archive_and_its_number(office: Office) -> None:
    office.run("group", "add", "ocean")
    office.run("user", "add", "anna", "--groups", "ocean")
    (home(office, "anna") / "work").write_text("results")
    assert "give --yes" in office.run("user", "remove", "anna", code=2).stderr
    assert office.account("anna").locked == ""
    told = json.loads(office.run("user", "remove", "anna", "--yes", "--json").stdout)
    file = office.folder / "archive" / "anna-20001.tar.gz"
    assert told == {"name": "anna", "uid": 20001, "archive": str(file)}
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as content:
        assert content.extractfile("./work").read() == b"results"  # type: ignore[union-attr]
    assert not home(office, "anna").exists()
    assert "anna" not in office.unix.users
    assert office.logins() == {}
    assert office.out_of_hub == ["anna"]
    assert office.group("ocean").members == ()
    assert str(file) in office.run("user", "list", "--state", "archived").stdout
    (archived,) = json.loads(office.run("user", "list", "--state", "archived", "--json").stdout)
    assert (archived["name"], archived["uid"]) == ("anna", 20001)
    office.run("user", "add", "anna")
    assert office.account("anna").uid == 20002
    assert list(home(office, "anna").iterdir()) == []


def test_files_are_deleted_only_when_asked(office: Office) -> None:
    office.run("user", "add", "anna")
    office.run("user", "remove", "anna", "--delete-files", "--yes")
    assert not home(office, "anna").exists()
    assert not (office.folder / "archive").exists()


@pytest.mark.parametrize(("words", "home"), [((), "into an archive"), (("--delete-files",), "it is DELETED")])
def test_who_removes_somebody_is_asked_with_what_becomes_of_their_files(
    office: Office, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], home: str
) -> None:
    office.run("user", "add", "anna")
    asked: list[str] = []
    monkeypatch.setattr(cli_user, "confirm", lambda question, _yes: asked.append(question))
    office.run("user", "remove", "anna", *words)
    (question,) = asked
    assert home in question
    assert "what it has in scratch is deleted" in question


def test_who_has_no_home_at_this_moment_is_removed_only_with_delete_files(office: Office) -> None:
    office.run("user", "add", "anna")
    home(office, "anna").rename(office.folder / "away")
    assert "is its file system mounted?" in office.run("user", "remove", "anna", "--yes", code=1).stderr
    # All is as it was.
    assert office.account("anna").locked == ""
    assert set(office.logins()) == {"anna"}
    assert office.out_of_hub == []
    assert "anna: removed" in office.run("user", "remove", "anna", "--delete-files", "--yes").stdout


def test_a_linked_account_keeps_its_home(office: Office) -> None:
    office.add_staff("staffer", 5000)
    office.run("user", "link", "staffer")
    office.run("user", "remove", "staffer", "--yes")
    assert home(office, "staffer").is_dir()
    assert "staffer" in office.unix.users
    assert office.logins() == {}


def test_an_administrator_is_not_removed(office: Office) -> None:
    office.run("user", "add", "carla")
    assert "hub_admins" in office.run("user", "remove", "carla", "--yes", code=2).stderr


def test_who_is_declared_would_come_back_and_that_is_told(office: Office) -> None:
    office.declare(users=[{"name": "anna"}])
    office.run("apply")
    assert "accounts_users" in office.run("user", "remove", "anna", "--yes").stderr


def test_a_signup_is_forgotten(office: Office) -> None:
    sign_up(office, "anna")
    office.run("user", "remove", "anna", "--yes")
    assert office.logins() == {}
    assert "no sign-up" in office.run("user", "remove", "anna", "--yes", code=2).stderr


def test_a_removal_that_was_cut_off_is_gone_on_with(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from labstead import archive

    office.run("user", "add", "anna")
    with monkeypatch.context() as patch:
        patch.setattr(archive, "archive_home", lambda *_: (_ for _ in ()).throw(LabsteadError("the disk is full")))
        assert "the disk is full" in office.run("user", "remove", "anna", "--yes", code=1).stderr
    assert "anna-20000.tar.gz" in office.run("user", "remove", "anna", "--yes").stdout


def test_nothing_is_removed_where_the_hub_does_not_answer(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_self: object, _name: str) -> None:
        raise HubAway("the hub does not answer")

    office.run("user", "add", "anna")
    with monkeypatch.context() as patch:
        patch.setattr(administration.Site, "forget", away)
        assert "does not answer" in office.run("user", "remove", "anna", "--yes", code=1).stderr
    assert office.account("anna").locked == "locked"
    office.run("user", "remove", "anna", "--yes")


def test_a_removed_group_leaves_an_archive(office: Office) -> None:
    office.run("group", "add", "ocean")
    (office.folder / "groups" / "ocean" / "work").write_text("results")
    assert "give --yes" in office.run("group", "remove", "ocean", code=2).stderr
    assert "ocean-20000.tar.gz" in office.run("group", "remove", "ocean", "--yes").stdout
    assert "ocean" not in office.unix.groups
    assert not (office.folder / "groups" / "ocean").exists()
    office.run("group", "show", "ocean", code=2)
    office.run("group", "add", "lake")
    office.run("group", "remove", "lake", "--delete-files", "--yes")
    assert [file.name for file in (office.folder / "archive" / "groups").iterdir()] == ["ocean-20000.tar.gz"]


# --- the day's work


def test_tidying_tells_each_line_and_fails_where_one_did(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [tidy.Line(words="anna: closed"), tidy.Line(words="bert: no disk", failed=True)]
    monkeypatch.setattr(tidy, "run", lambda check: lines if check else lines[:1])
    assert office.run("tidy").stdout == "anna: closed\n"
    result = office.run("tidy", "--check", code=1)
    assert (result.stdout, result.stderr) == ("anna: closed\n", "labstead: bert: no disk\n")
    assert json.loads(office.run("tidy", "--json").stdout) == [{"words": "anna: closed", "failed": False}]


def test_culling_looks_only_where_there_is_something_to_do(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, float]] = []

    def run(_site: object, _api: object, *, check: bool, patience: float) -> list[tidy.Line]:
        asked.append((check, patience))
        return [tidy.Line(words="anna: session stopped")]

    monkeypatch.setattr(cull, "run", run)
    assert office.run("cull").stdout == ""
    assert json.loads(office.run("cull", "--json").stdout) == []
    assert asked == []
    office.set_up_slurm()
    assert office.run("cull").stdout == "anna: session stopped\n"
    assert json.loads(office.run("cull", "--json", "--check", "--patience", "0").stdout)[0]["failed"] is False
    assert asked == [(False, 10), (True, 0)]
    assert "patience" in office.run("cull", "--patience", "-1", code=2).stderr


# --- groups


@pytest.mark.parametrize(
    ("size", "words"),
    [(None, ""), (0, "0B"), (1023, "1023B"), (1536, "1.5K"), (5 * 2**30, "5G"), (2**40, "1T"), (3 * 2**50, "3072T")],
)
def test_sizes_are_written_for_people(size: int | None, words: str) -> None:
    assert human_size(size) == words


def test_a_group_is_made_with_members_and_managers(office: Office) -> None:
    for name in ("anna", "bert", "carl"):
        office.run("user", "add", name)
    office.run("group", "add", "ocean", "--members", "anna,bert", "--managers", "carl", "--quota", "500G")
    group = office.group("ocean")
    assert (group.members, group.managers) == (("anna", "bert"), ("carl",))
    assert office.disk.limit(office.folder / "groups" / "ocean") == Limit(bytes=500 * 2**30)
    assert office.run("group", "members", "ocean").stdout == "anna\nbert\n"
    assert "500G" in office.run("group", "list").stdout
    assert json.loads(office.run("group", "show", "ocean", "--json").stdout)["managers"] == ["carl"]


def test_a_group_of_nobody_is_not_made(office: Office) -> None:
    result = office.run("group", "add", "ocean", "--members", "anna,bert", code=2)
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["anna", "bert"]
    assert "ocean" not in office.unix.groups


def test_members_and_managers_change(office: Office) -> None:
    for name in ("anna", "bert", "carl"):
        office.run("user", "add", name)
    office.run("group", "add", "ocean", "--members", "anna")
    office.run("group", "members", "ocean", "--add", "bert,carl", "--remove", "anna")
    assert office.group("ocean").members == ("bert", "carl")
    office.run("group", "managers", "ocean", "--add", "anna,bert")
    office.run("group", "managers", "ocean", "--remove", "bert")
    assert office.run("group", "managers", "ocean").stdout == "anna\n"
    assert "either" in office.run("group", "members", "ocean", "--add", "anna", "--remove", "anna", code=2).stderr
    office.run("group", "managers", "ocean", "--remove", "carl", code=2)
    office.run("group", "members", "ocean", "--add", "nobody2", code=2)


def test_a_limit_is_set_and_taken_away(office: Office) -> None:
    office.run("group", "add", "ocean")
    folder = office.folder / "groups" / "ocean"
    assert office.run("quota", "set", "ocean", "1T", "--group").stdout == "folder of ocean: 1T\n"
    assert office.disk.limit(folder) == Limit(bytes=2**40)
    assert office.run("quota", "set", "ocean", "1T", "--group").stdout == "ocean: as it was\n"
    office.disk.fill(folder, 3 * 2**30)
    assert "used:          3G\nquota:         1T\n" in office.run("group", "show", "ocean").stdout
    office.run("quota", "set", "ocean", "none", "--group")
    assert office.disk.limit(folder) == NO_LIMIT
    assert "is not a size" in office.run("quota", "set", "ocean", "much", "--group", code=2).stderr
    office.run("group", "add", "ocean", code=2)


# --- limits


def test_use_and_limits_are_a_table(office: Office) -> None:
    office.set_quotas(home={"bytes": "10G"})
    for name in ("anna", "bert"):
        office.run("user", "add", name)
    office.run("group", "add", "ocean", "--members", "anna")
    office.run("quota", "set", "bert", "20G", "--files", "500k")
    office.disk.fill(office.folder / "home" / "anna", 8 * 2**30, 12)
    lines = office.run("quota", "show").stdout.splitlines()
    assert [" ".join(line.split()[:9]) for line in lines] == [
        "SPACE NAME USED LIMIT % FILES LIMIT % SAID",
        "home anna 8G 10G 80% 12 - - site",
        "home bert 0B 20G 0% 1 500000 0% own",
        "group ocean 0B - - 1 - - -",
    ]
    assert [line.split()[1] for line in office.run("quota", "show", "anna").stdout.splitlines()[1:]] == [
        *("anna", "ocean")
    ]
    (told,) = json.loads(office.run("quota", "show", "ocean", "--group", "--json").stdout)
    assert (told["kind"], told["path"]) == ("group", str(office.folder / "groups" / "ocean"))
    for wrong in (("nobody2",), ("ice", "--group"), ("--group",)):
        assert len(office.run("quota", "show", *wrong, code=2).stderr.splitlines()) == 1


def test_what_no_disk_counts_is_of_last_night(office: Office) -> None:
    office.run("user", "add", "anna")
    office.disk.broken = "no quotas"
    assert office.run("quota", "show", "anna").stdout.splitlines()[1].split()[2] == "-"
    usage.add([usage.Sample(day=date.today(), kind="home", name="anna", bytes=3 * 2**30)], os.getgid())
    assert office.run("quota", "show", "anna").stdout.splitlines()[1].split()[2] == "3G"
    assert json.loads(office.run("user", "show", "anna", "--json").stdout)["home_bytes"] == 3 * 2**30


def test_a_limit_is_said_and_taken_back(office: Office) -> None:
    office.set_quotas(home={"bytes": "10G", "files": 100})
    office.run("user", "add", "anna")
    office.run("group", "add", "ocean", "--members", "anna")
    home = office.folder / "home" / "anna"
    assert office.run("quota", "set", "anna", "20G").stdout == "home of anna: 20G, 100 files\n"
    assert office.run("quota", "set", "anna", "20G").stdout == "anna: as it was\n"
    assert office.run("quota", "set", "anna", "--files", "2M").stdout == "home of anna: 20G, 2000000 files\n"
    assert office.disk.limit(home) == Limit(20 * 2**30, 2_000_000)
    assert office.run("quota", "set", "ocean", "50G", "--members").stdout == (
        "ocean: noted; no limit is another one for that\n"
    )
    assert office.run("quota", "show", "ocean", "--group").stdout.splitlines()[-1] == "each member's home: 50G"
    assert office.run("quota", "set", "anna", "none", "--files", "default").stdout == "home of anna: 100 files\n"
    assert office.run("quota", "set", "anna", "8388607T", "--files", "9223372036854775807").stdout == (
        "home of anna: 8388607T, 9223372036854775807 files\n"
    )
    (told,) = json.loads(office.run("quota", "set", "anna", "default", "--json").stdout)
    assert (told["limit_bytes"], told["limit_files"], told["said_by"]) == (50 * 2**30, 100, "group")
    assert office.disk.limit(home) == Limit(50 * 2**30, 100)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("anna", "5 apples"), "'5 apples' is not a size; write a number and K, M, G or T, like 4G, or none"),
        (("anna", "5X"), "'5X' is not a size"),
        (("anna", "-5G"), "No such option"),
        (("anna", "0"), "'0' is not a size"),
        (("anna", "5G", "--files", "many"), "'many' is not a number of files; write it like 500k, or none"),
        (("anna", "8388608T"), "8388608T is too large a size; the largest is 8388607T, or none"),
        (("anna", "9" * 5000), "9 is too large a size"),
        (("anna", "5G", "--files", "9223372036855M"), "9223372036855M are too many files; the most are 9223372036854M"),
        (("anna", "5G", "--files", "9" * 5000), "is not a number of files"),
        (("anna", "5G", "--files", "٥٠٠k"), "is not a number of files"),
        (("anna", "٠٠"), "is not a size"),
        (("anna",), "give a size like 20G, or --files"),
        (("nobody2", "5G"), "nobody2 is not an account"),
        (("ice", "5G", "--group"), "ice is not a group"),
        (("ice", "5G", "--members"), "ice is not a group"),
        (("anna", "5G", "--scratch"), "no scratch"),
        (("ocean", "5G", "--group", "--scratch"), "a group has no scratch"),
    ],
)
def test_a_limit_that_is_none_changes_nothing(office: Office, words: tuple[str, ...], told: str) -> None:
    office.run("user", "add", "anna")
    office.run("group", "add", "ocean")
    before = dict(office.disk.limits)
    said = office.run("quota", "set", *words, code=2).stderr
    assert told in said
    assert len(said.splitlines()) == 1
    assert office.disk.limits == before
    assert Client().limits() == ()


# --- administrators


@pytest.fixture(autouse=True)
def admin_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(secrets, "admin_password_file", lambda name: tmp_path / name)
    monkeypatch.setattr(secrets, "keep_admin_password", lambda name, word: (tmp_path / name).write_text(word + "\n"))
    return tmp_path


def test_a_new_administrator_gets_a_password_of_the_hubs(office: Office, admin_files: Path) -> None:
    sign_up(office, "carla")
    assert office.run("admin", "seed", "carla").stdout == "created carla\n"
    assert opens(office, "carla", (admin_files / "carla").read_text().strip())
    assert office.run("admin", "seed", "carla").stdout == ""


def test_an_administrator_of_the_institute_comes_in_by_the_main_door(office: Office) -> None:
    office.add_staff("carla", 5000)
    office.set_hub(doors=("pam", "native"))
    assert office.run("admin", "seed", "carla").stdout == "created carla\n"
    assert office.account("carla").door == "pam"
    assert office.logins() == {}
    assert office.run("admin", "seed", "carla").stdout == ""
    office.set_hub(doors=("native",))
    assert office.run("admin", "seed", "carla").stdout == "created carla\n"
    assert (office.account("carla").door, office.logins()) == ("native", {"carla": True})


def test_an_administrator_whose_door_is_closed_is_told(office: Office) -> None:
    office.run("user", "add", "carla")
    office.set_hub(doors=("pam",))
    assert "not among hub_doors" in office.run("admin", "seed", "carla", code=2).stderr
    assert "only door is pam" in office.run("admin", "seed", "doris", code=2).stderr
