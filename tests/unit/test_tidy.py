"""What each day asks for, with a site that only notes what it is asked."""

import functools
import os
import pwd
import sys
from datetime import date, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from labstead import administration, archive, tidy, usage
from labstead.accounts import homes, machine
from labstead.accounts.protocol import Account, Group, Space, Spaces
from labstead.errors import LabsteadError
from labstead.settings import Accounts, Hub, Mail
from labstead.tidy import Tidying

TODAY = date(2026, 11, 20)
DAY = timedelta(days=1)


def person(name: str, uid: int, expires: date | None = None, **more: Any) -> Account:
    about = {"kind": "created", "state": "active", "created_at": "2026-01-01", "email": f"{name}@example.org", **more}
    return Account.model_validate({"name": name, "uid": uid, "gid": uid, "expires": expires, **about})


class Ledger:
    """What the accounts service would answer."""

    def __init__(self, *people: Account) -> None:
        self.people = {account.name: account for account in people}
        self.gone: list[Account] = []
        self.shared: tuple[Group, ...] = ()
        self.held: tuple[Space, ...] = ()
        self.followed = Spaces(spaces=())

    def make_homes(self, host: Path) -> None:
        for name in self.people:
            (host / "home" / name).mkdir(exist_ok=True)

    def spaces(self) -> tuple[Space, ...]:
        return self.held

    def follow_limits(self, adopt: bool) -> Spaces:
        assert adopt
        return self.followed

    def accounts(self, retired: bool = False) -> tuple[Account, ...]:
        return tuple(self.gone) if retired else tuple(self.people.values())

    def groups(self) -> tuple[Group, ...]:
        return self.shared

    def expire(self, name: str, day: date) -> Account:
        before = self.people[name]
        self.people[name] = before.model_copy(update={"locked": "expired", "expires": day})
        return self.people[name].model_copy(update={"changed": before.locked == ""})


class Site(administration.Site):
    """A site without a hub."""

    def __init__(self, ledger: Ledger, admins: tuple[str, ...] = ("boss",)) -> None:
        super().__init__(ledger)  # type: ignore[arg-type]
        self.mails: list[EmailMessage] = []
        self.put_outs: list[str] = []
        self.jobs_ended: list[str] = []
        self.relay_is_down = False
        self._admins = admins

    @functools.cached_property
    def hub(self) -> Hub:
        relay = Mail(relay="relay", sender="hub@example.org", admins=("boss@example.org",))
        return Hub(url="https://hub.example.org", address="127.0.0.1", admins=self._admins, mail=relay)

    def put_out(self, name: str) -> None:
        self.put_outs.append(name)

    def end_jobs(self, account: Account, seconds: float = 0) -> int:
        assert seconds == 0
        self.jobs_ended.append(account.name)
        return 0

    def send(self, messages: Any) -> str | None:
        if self.relay_is_down and messages:
            return "mail: relay is down"
        self.mails += messages
        return None

    def subjects(self, to: str) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails if mail["To"] == to]


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("home", "groups"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(machine, "processes_of", lambda _: ())
    monkeypatch.setattr(machine, "user", lambda _: None)
    monkeypatch.setattr(usage, "FILE", tmp_path / "usage.sqlite")
    monkeypatch.setattr(tidy, "HUB_USER", pwd.getpwuid(os.getuid()).pw_name)

    def remove(site: Site, account: Account) -> Account:
        gone = site.accounts.people.pop(account.name)  # type: ignore[attr-defined]
        site.accounts.gone.append(gone)  # type: ignore[attr-defined]
        homes.set_aside(tmp_path / "home" / account.name, account.uid)
        return account

    monkeypatch.setattr(administration, "remove", remove)
    return tmp_path


def settings(host: Path, **more: Any) -> Accounts:
    places = {"home_root": host / "home", "group_root": host / "groups", "archive_root": host / "archive"}
    return Accounts.model_validate({**places, **more})


def run(site: Site, host: Path, today: date = TODAY, check: bool = False, **more: Any) -> list[tidy.Line]:
    return list(Tidying(site, settings(host, **more), today, check, host / "tidy.json").run())


def test_a_day_without_anything_to_do_says_nothing(host: Path) -> None:
    site = Site(Ledger(person("anna", 20000), person("ben", 20001, TODAY + 100 * DAY)))
    assert run(site, host) == []
    assert site.mails == []
    assert (host / "usage.sqlite").is_file()


def test_people_are_warned_once(host: Path) -> None:
    site = Site(Ledger(person("anna", 20000, TODAY + 14 * DAY)))
    assert run(site, host, TODAY - DAY) == []
    assert [line.words for line in run(site, host)] == ["anna: closes on 2026-12-04, in 14 days"]
    assert site.subjects("anna@example.org") == ["labstead: your account closes on 2026-12-04"]
    assert len(site.subjects("boss@example.org")) == 1
    assert run(site, host, TODAY + DAY) == []
    # Another day is another warning.
    site.accounts.people["anna"] = person("anna", 20000, TODAY + 2 * DAY)  # type: ignore[attr-defined]
    assert [line.words for line in run(site, host, TODAY + DAY)] == ["anna: closes on 2026-11-22, tomorrow"]


def test_a_warning_that_was_not_sent_is_sent_the_next_day(host: Path) -> None:
    site = Site(Ledger(person("anna", 20000, TODAY + 5 * DAY)))
    site.relay_is_down = True
    assert [line.failed for line in run(site, host)] == [False, True, True, True]
    site.relay_is_down = False
    assert [line.words for line in run(site, host, TODAY + DAY)] == ["anna: closes on 2026-11-25, in 4 days"]


def test_an_account_is_closed_on_its_day_once_and_its_owner_told(host: Path) -> None:
    site = Site(Ledger(person("anna", 20000, TODAY)))
    assert [line.words for line in run(site, host)] == ["anna: closed, expired on 2026-11-20"]
    assert site.put_outs == site.jobs_ended == ["anna"]
    assert site.subjects("anna@example.org") == ["labstead: your account is closed"]
    assert run(site, host, TODAY + DAY) == []


def expired(name: str = "anna", uid: int = 20000, **more: Any) -> Account:
    return person(name, uid, TODAY - 30 * DAY, locked="expired", **more)


def test_a_closed_account_is_archived_and_the_archive_later_deleted(host: Path) -> None:
    (host / "home" / "anna").mkdir()
    (host / "home" / "anna" / "notes").write_text("x")
    site = Site(Ledger(expired()))
    assert run(site, host, TODAY - DAY, remove_after_days=10) == []
    (line,) = run(site, host, remove_after_days=10)
    file = host / "archive" / "anna-20000.tar.gz"
    assert line.words == f"anna: removed (uid 20000), expired on 2026-10-21; home in {file}"
    assert file.is_file()
    assert site.subjects("anna@example.org") == ["labstead: your account was removed"]
    assert run(site, host, TODAY + DAY, remove_after_days=10) == []
    os.utime(file, (1_000_000_000, 1_000_000_000))  # 9 September 2001
    assert run(site, host) == []  # never, unless the site says when
    (line,) = run(site, host, remove_after_days=10)
    assert "archive" in line.words
    assert "deleted" in line.words
    assert not file.exists()


@pytest.mark.parametrize(
    ("account", "days"), [(expired(kind="linked"), 30), (expired(), None), (person("anna", 20000, locked="locked"), 30)]
)
def test_what_is_not_labsteads_or_not_expired_is_not_removed(host: Path, account: Account, days: int | None) -> None:
    site = Site(Ledger(account))
    run(site, host, TODAY + 1000 * DAY, archive_after_days=days)
    assert site.accounts.gone == []  # type: ignore[attr-defined]


def test_who_has_no_home_at_this_moment_is_not_removed(host: Path) -> None:
    """The disk of homes did not come up, most likely; when it is back, nobody would know whose that home was."""
    site = Site(Ledger(expired()))
    for check in (True, False):
        (line,) = run(site, host, check=check)
        assert line.failed
        assert f"the home {host}/home/anna is missing; is its file system mounted?" in line.words
    assert "anna" in site.accounts.people  # type: ignore[attr-defined]
    assert site.subjects("anna@example.org") == []
    # One that a removal that was cut off has set aside is there.
    (host / "home" / ".removed-20000").mkdir()
    run(site, host)
    assert site.subjects("anna@example.org") == ["labstead: your account was removed"]


def test_nobody_is_told_of_an_archive_that_there_is_not(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(expired())
    ledger.make_homes(host)
    monkeypatch.setattr(archive, "archive_home", lambda *_: None)
    site = Site(ledger)
    (line,) = run(site, host)
    assert (line.words.endswith("; no home was theirs"), line.failed) == (True, False)
    assert site.subjects("anna@example.org") == []


def test_who_is_given_another_day_while_others_are_archived_stays(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does whoever has come anew under the name of somebody who was removed meanwhile."""
    ledger = Ledger(expired(), expired("bert", 20001), expired("carla", 20002), expired("doro", 20003))
    ledger.make_homes(host)
    archived: list[str] = []

    def archive_home(_: Accounts, account: Account, _seconds: float) -> None:
        archived.append(account.name)
        ledger.people["bert"] = person("bert", 20001, TODAY + 100 * DAY)
        ledger.people["carla"] = expired("carla", 20009)
        ledger.people.pop("doro", None)

    monkeypatch.setattr(archive, "archive_home", archive_home)
    lines = run(Site(ledger), host)
    assert [line.words.split(":")[0] for line in lines if "anna" not in line.words] == []
    assert archived == ["anna"]
    assert set(ledger.people) == {"bert", "carla"}


def test_one_that_fails_does_not_keep_the_others_from_being_done(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(expired("boss", 20001), expired("carla", 20002), expired())
    ledger.make_homes(host)
    site = Site(ledger)
    monkeypatch.setattr(machine, "processes_of", lambda uid: (4711,) if uid == 20002 else ())
    lines = run(site, host)
    assert [(line.words.split(":")[0], line.failed) for line in lines] == [
        ("boss", True),
        ("carla", True),
        ("anna", False),
    ]
    assert "is an administrator" in lines[0].words
    assert "4711" in lines[1].words


def test_only_saying_changes_nothing(host: Path) -> None:
    (host / "home" / "anna").mkdir()
    (host / "home" / ".removed-20007").mkdir()
    site = Site(Ledger(expired(), person("ben", 20001, TODAY), person("carla", 20002, TODAY + DAY)))
    site.accounts.gone.append(person("doro", 20007))  # type: ignore[attr-defined]
    words = [line.words for line in run(site, host, check=True)]
    assert words == [
        "ben: closed, expired on 2026-11-20",
        "carla: closes on 2026-11-21, tomorrow",
        "anna: removed (uid 20000), expired on 2026-10-21",
        "doro: home that was left of a removal",
    ]
    assert site.mails == site.put_outs == []
    assert sorted(path.name for path in host.iterdir()) == ["groups", "home"]
    assert (host / "home" / "anna").is_dir()


def test_what_a_cut_off_removal_left_is_archived(host: Path) -> None:
    (host / "home" / ".removed-20007").mkdir()
    (host / "home" / ".removed-20008").mkdir()
    (host / "groups" / ".removed-20009").mkdir()
    site = Site(Ledger())
    site.accounts.gone.append(person("doro", 20007))  # type: ignore[attr-defined]
    lines = run(site, host)
    assert [line.failed for line in lines] == [False, True, False]
    assert "does not know whose home" in lines[1].words
    assert (host / "archive" / "doro-20007.tar.gz").is_file()
    assert (host / "archive" / "groups" / "group-20009.tar.gz").is_file()


def me(host: Path) -> pwd.struct_passwd:
    own = pwd.getpwuid(os.getuid())
    return pwd.struct_passwd(("anna", "x", own.pw_uid, own.pw_gid, "", str(host / "home" / "anna"), "/bin/sh"))


def test_disk_use_is_measured(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("home/anna", "groups/ocean"):
        (host / folder).mkdir()
        (host / folder / "data").write_bytes(b"x" * 100_000)
    entry = me(host)
    monkeypatch.setattr(machine, "user", lambda _: entry)
    ledger = Ledger(person("anna", entry.pw_uid))
    ledger.shared = (
        Group(
            name="ocean",
            gid=20009,
            kind="created",
            folder=str(host / "groups" / "ocean"),
            members=(),
            declared=(),
            managers=(),
            created_at="",
        ),
    )
    mended: list[str] = []
    real = tidy._run_idle

    def run_idle(command: list[str], *args: Any, **kwargs: Any) -> bytes:
        if "labstead_session.groups" in command:
            mended.append(command[-1])
            return b""
        return real(command, *args, **kwargs)

    monkeypatch.setattr(tidy, "_run_idle", run_idle)
    ledger.held = (
        Space(kind="home", name="anna", path=str(host / "home" / "anna")),
        Space(kind="home", name="bert", path="/not/measured", used_bytes=7, used_files=3, limit_bytes=9),
        Space(kind="home", name="carla", path=str(host / "home" / "carla")),
        Space(kind="group", name="ocean", path=str(host / "groups" / "ocean")),
    )
    (host / "usage.json").touch()
    assert run(Site(ledger), host) == []
    assert mended == [str(host / "groups" / "ocean")]
    found = usage.latest(host / "usage.sqlite")
    assert set(found) == {("home", "anna"), ("home", "bert"), ("group", "ocean")}
    assert 100_000 <= found["home", "anna"].bytes < 200_000
    assert 100_000 <= found["group", "ocean"].bytes < 200_000
    assert found["home", "bert"] == usage.Sample(day=TODAY, kind="home", name="bert", bytes=7, files=3, limit_bytes=9)
    assert (host / "usage.sqlite").stat().st_mode & 0o777 == 0o640
    assert not (host / "usage.json").exists()


def held(kind: str, name: str, used: int, files: int = 0, **more: Any) -> Space:
    """A space that may hold 1000 bytes and 100 files."""
    about = {"path": f"/{kind}/{name}", "limit_bytes": 1000, "limit_files": 100, **more}
    return Space.model_validate({"kind": kind, "name": name, "used_bytes": used, "used_files": files, **about})


def test_people_are_told_once_that_a_space_fills_up(host: Path) -> None:
    ledger = Ledger(person("anna", 20000), person("bert", 20001), person("carla", 20002))
    ledger.shared = (
        Group(
            name="ocean",
            gid=20009,
            kind="created",
            folder="/nowhere",
            members=("anna",),
            declared=(),
            managers=("carla",),
            created_at="",
        ),
    )
    site = Site(ledger)

    def day(*spaces: Space) -> list[str]:
        ledger.held = spaces
        site.mails.clear()
        return [line.words for line in run(site, host)]

    assert day(held("home", "anna", 799), held("home", "bert", 0, 79)) == []
    assert day(held("home", "anna", 800), held("home", "bert", 0, 80), held("group", "ocean", 950)) == [
        "home of anna: 80% full, of 1000B, 100 files",
        "home of bert: 80% full, of 1000B, 100 files",
        "folder of ocean: 95% full, of 1000B, 100 files",
    ]
    assert site.subjects("anna@example.org") == ["labstead: the home of anna is 80% full"]
    assert site.subjects("bert@example.org") == ["labstead: the home of bert is 80% full"]
    assert site.subjects("carla@example.org") == ["labstead: the folder of ocean is 95% full"]
    (to_admins,) = (mail for mail in site.mails if mail["To"] == "boss@example.org")
    assert "Full, or nearly so:\n\nfolder of ocean: 95% full\n" in to_admins.get_content()
    # Nothing new; a little less and as much again is nothing new either.
    assert day(held("home", "anna", 949)) == day(held("home", "anna", 790)) == day(held("home", "anna", 810)) == []
    assert day(held("home", "anna", 950)) == ["home of anna: 95% full, of 1000B, 100 files"]
    assert day(held("home", "anna", 100)) == []
    assert day(held("home", "anna", 999)) == ["home of anna: 99% full, of 1000B, 100 files"]
    assert day(held("home", "anna", 999, limit_bytes=None, limit_files=None)) == []


def test_who_was_not_told_is_told_the_next_day(host: Path) -> None:
    ledger = Ledger(person("anna", 20000))
    ledger.held = (held("home", "anna", 960),)
    site = Site(ledger)
    site.relay_is_down = True
    assert [line.failed for line in run(site, host)] == [False, True, True, True]
    site.relay_is_down = False
    assert [line.failed for line in run(site, host)] == [False]
    assert run(site, host) == []


def test_limits_are_looked_after(host: Path) -> None:
    ledger = Ledger()
    ledger.followed = Spaces(
        spaces=(held("home", "anna", 0),), problems=tuple(f"/home/p{n}: a plain folder" for n in range(25))
    )
    lines = run(Site(ledger), host)
    assert (lines[0].words, lines[0].failed) == ("home of anna: 1000B, 100 files", False)
    assert lines[1].words == "/home/p0: a plain folder"
    assert lines[-1].words == "and 5 more limits that do not hold; see `labstead apply`"
    assert all(line.failed for line in lines[1:])
    assert len(lines) == 22


def test_scratch_that_a_cut_off_removal_left_is_deleted(host: Path) -> None:
    (host / "scratch" / ".removed-20007" / "data").mkdir(parents=True)
    site = Site(Ledger())
    (line,) = run(site, host, check=True, scratch_root=host / "scratch")
    assert line.words == "uid 20007: scratch that was left of a removal deleted"
    assert (host / "scratch" / ".removed-20007").exists()
    run(site, host, scratch_root=host / "scratch")
    assert list((host / "scratch").iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody")
def test_shares_are_ended_as_the_person_whose_they_are(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = host / "home" / "anna" / ".local/share/labstead/shares.json"
    shares.parent.mkdir(parents=True)
    shares.write_text("{}")
    program = host / "bin" / "share"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = expire ] && echo "$HOME $USER $(id -u) $(id -G) $(pwd)"\n')
    for path in (host / "bin", program):
        path.chmod(0o755)
    for parent in host.parents[:3]:
        parent.chmod(0o755)
    host.chmod(0o755)
    entry = pwd.struct_passwd(("anna", "x", 20000, 20000, "", str(host / "home" / "anna"), "/bin/sh"))
    monkeypatch.setattr(machine, "user", lambda _: entry)
    monkeypatch.setattr(sys, "executable", str(host / "bin" / "python"))
    monkeypatch.setattr(os, "getgrouplist", lambda _name, gid: [gid, 998, 20009])
    (line,) = run(Site(Ledger(person("anna", 20000))), host)
    assert line.words == f"shares of anna: {host}/home/anna anna 20000 20000 20009 /"
    program.write_text("#!/bin/sh\nprintf 'bad \\033[1mlist\\n' >&2; exit 1\n")
    (line,) = run(Site(Ledger(person("anna", 20000))), host)
    assert (line.words, line.failed) == ("shares of anna: not ended: bad ?[1mlist", False)


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody")
def test_what_somebody_puts_in_the_place_of_their_shares_hinders_nobody(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is too long is an error that `Path.exists` raises; an endless file takes memory."""
    entry = pwd.struct_passwd(("anna", "x", 20000, 20000, "", str(host / "home" / "anna"), "/bin/sh"))
    monkeypatch.setattr(machine, "user", lambda _: entry)
    folder = host / "home" / "anna" / ".local"
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to("a" * 300)
    assert run(Site(Ledger(person("anna", 20000))), host) == []
    assert (host / "usage.sqlite").is_file()
    with pytest.raises(LabsteadError, match="memory exhausted"):
        tidy._as_person(entry, ["dd", "if=/dev/zero", "of=/dev/null", "bs=2G", "count=1"])


def test_a_step_that_fails_takes_no_other_along(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise OSError("no\nway")

    site = Site(Ledger(person("anna", 20000)))
    monkeypatch.setattr(site.accounts, "groups", fail)
    monkeypatch.setattr(tidy.Tidying, "_homes", fail)
    lines = run(site, host)
    assert [(line.words, line.failed) for line in lines] == [("no way", True)] * 3


def test_errors_are_lines(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def fail(_settings: Accounts, account: Account, _seconds: float) -> None:
        tried.append(account.name)
        raise LabsteadError("tar: No space left\non device")

    monkeypatch.setattr(archive, "archive_home", fail)
    ledger = Ledger(expired())
    ledger.make_homes(host)
    (line,) = run(Site(ledger), host)
    assert (line.words, line.failed) == ("anna: tar: No space left on device", True)
    # The home that waits now is not tried a second time in the same night, but in the next one.
    assert (host / "home" / ".removed-20000").is_dir()
    assert tried == ["anna"]
    (line,) = run(Site(ledger), host, TODAY + DAY)
    assert line.words == f"{host}/home/.removed-20000: tar: No space left on device"


def test_what_administrators_were_not_told_is_told_with_the_next_mail(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(person("anna", 20000, TODAY + 5 * DAY, email=""), expired("bert", 20001))
    ledger.make_homes(host)
    site = Site(ledger)
    site.relay_is_down = True

    def archive_home(*_: object) -> Path:
        site.relay_is_down = False
        return host / "archive.tar.gz"

    monkeypatch.setattr(archive, "archive_home", archive_home)
    run(site, host)
    (told,) = (mail.get_content() for mail in site.mails if mail["To"] == "boss@example.org")
    for words in ("anna: closes on 2026-11-25", "mail: relay is down", "bert: removed"):
        assert told.count(words) == 1


def test_archives_come_last_and_take_a_bounded_time(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(expired(), expired("bert", 20001), person("carla", 20002, TODAY))
    ledger.held = (held("home", "carla", 960),)
    ledger.gone.append(person("doro", 20007))
    ledger.make_homes(host)
    (host / "home" / ".removed-20007").mkdir()
    (host / "groups" / ".removed-20009").mkdir()
    site = Site(ledger)
    begun: list[tuple[str, float]] = []
    now = 1000.0
    monkeypatch.setattr(tidy.time, "monotonic", lambda: now)

    def archive_home(_: Accounts, account: Account, seconds: float) -> Path:
        nonlocal now
        # All else was done and told.
        assert (host / "usage.sqlite").is_file()
        assert site.subjects("carla@example.org") == [
            "labstead: your account is closed",
            "labstead: the home of carla is 96% full",
        ]
        assert len(site.subjects("boss@example.org")) == 1
        begun.append((account.name, seconds))
        now += seconds
        raise LabsteadError("tar: still not done")

    monkeypatch.setattr(archive, "archive_home", archive_home)
    lines = run(site, host)
    assert begun == [("anna", 17 * 3600)]
    late = "not archived, as there was no time left for it today; tomorrow it is tried anew"
    assert [line.words for line in lines if line.failed] == [
        "anna: tar: still not done",
        f"bert: {late}",
        f"{host}/home/.removed-20007: {late}",
        f"{host}/groups/.removed-20009: {late}",
    ]
    assert "bert" in ledger.people  # their day is tomorrow
    first, second = (mail.get_content() for mail in site.mails if mail["To"] == "boss@example.org")
    assert ("carla" in first, "still not done" in first) == (True, False)
    assert ("carla" in second, "still not done" in second, late in second) == (False, True, True)


def test_each_home_that_is_left_is_the_first_one_some_day(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    for uid in (20007, 20008, 20009):
        (host / "home" / f".removed-{uid}").mkdir()
        ledger.gone.append(person(f"p{uid}", uid))
    tried: list[int] = []
    monkeypatch.setattr(archive, "archive_home", lambda _settings, account, _seconds: tried.append(account.uid))
    for day in range(3):
        run(Site(ledger), host, TODAY + day * DAY)
    assert {frozenset(tried[n : n + 3]) for n in (0, 3, 6)} == {frozenset((20007, 20008, 20009))}
    assert {tried[0], tried[3], tried[6]} == {20007, 20008, 20009}
