"""`labstead user`: people of the hub, from the list of them to their leaving; how they come is in `newcomers`.

The one rule: who is closed or removed is put out of the hub as well, and a command that could not do that fails.
"""

from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path
from typing import Literal, get_args

import click
from pydantic import BaseModel, ConfigDict

from labstead import administration, settings, usage
from labstead.accounts.protocol import Account, Group
from labstead.administration import Outcome, Site
from labstead.amounts import human_size
from labstead.cli.base import (
    Day,
    Failed,
    complain,
    complete_group,
    complete_user,
    confirm,
    json_option,
    need_root,
    print_fields,
    print_json,
    print_table,
    yes_option,
)
from labstead.errors import AccountRefused, BadInput, LabsteadError, Refusal
from labstead.hub.login_protocol import DeleteLogin, Login

State = Literal["waiting", "unfinished", "active", "locked", "expired", "archived"]


class Person(BaseModel):
    """One line of the list: an account, a sign-up that waits, or what is left of an account."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: State
    uid: int | None = None
    kind: str = ""
    door: str = ""
    expires: date | None = None
    full_name: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()
    since: str = ""


@click.group()
def user() -> None:
    """People of the hub."""


# --- options that several commands share

name_argument = click.argument("name", shell_complete=complete_user)
names_argument = click.argument("names", nargs=-1, required=True, shell_complete=complete_user)


def waiting_signups(site: Site) -> dict[str, Login]:
    """Give the sign-ups that nobody approved, by name."""
    return {name: login for name, login in site.logins().items() if not login.authorized}


def report(outcomes: Sequence[Outcome], as_json: bool, done: str = "made") -> None:
    """Tell what became of each, mistakes on standard error.

    :raises Failed: when something did not come out right
    """
    accounts = [outcome.account for outcome in outcomes if outcome.account is not None]
    if as_json:
        print_json(accounts)
    else:
        for account in accounts:
            click.echo(f"{account.name}: {done if account.changed else 'as it was'} (uid {account.uid})")
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    for problem in problems:
        complain(problem)
    if problems:
        raise Failed


# --- looking


def _person(account: Account, groups: Sequence[Group]) -> Person:
    state: State = account.locked or ("unfinished" if account.state == "pending" else "active")
    return Person(
        name=account.name,
        state=state,
        uid=account.uid,
        kind=account.kind,
        door=account.door,
        expires=account.expires,
        full_name=account.full_name,
        email=account.email,
        groups=tuple(group.name for group in groups if account.name in group.members),
        since=account.created_at,
    )


def _people(site: Site, state: str | None) -> list[Person]:
    groups = site.accounts.groups()
    people = [_person(account, groups) for account in site.accounts.accounts() if account.kind != "canary"]
    if state in (None, "waiting"):
        people += _waiting(site, {person.name for person in people})
    return sorted(people, key=lambda person: (person.state != "waiting", person.name))


def _waiting(site: Site, known: Collection[str]) -> list[Person]:
    """Give the sign-ups of people who have no account; none where the hub's database cannot be asked."""
    try:
        signups = waiting_signups(site).values()
    except LabsteadError as error:
        complain(f"sign-ups that wait are not listed: {error}")
        return []
    return [Person(name=s.name, state="waiting", door="native", email=s.email) for s in signups if s.name not in known]


@user.command("list")
@click.option("--state", type=click.Choice(get_args(State)), help="Only those in this state.")
@click.option("--group", shell_complete=complete_group, help="Only members of this group.")
@json_option
def list_users(state: State | None, group: str | None, as_json: bool) -> None:
    """List people: accounts, and sign-ups that wait.

    `archived` are accounts that were removed and whose home is in an archive; they are listed only when asked for.

    \b
    Examples:
      labstead user list
      labstead user list --state waiting
      labstead user list --group ocean --json
    """
    need_root()
    site = Site()
    if state == "archived":
        _list_archives(as_json)
        return
    if group is not None:
        site.accounts.groups(group)  # refuses one that is not there
    people = [
        person
        for person in _people(site, state)
        if (state is None or person.state == state) and (group is None or group in person.groups)
    ]
    if as_json:
        print_json(people)
        return
    print_table(
        ("NAME", "STATE", "UID", "DOOR", "EXPIRES", "GROUPS", "FULL NAME", "E-MAIL"),
        [(p.name, p.state, p.uid, p.door, p.expires, ",".join(p.groups), p.full_name, p.email) for p in people],
    )


def _list_archives(as_json: bool) -> None:
    from labstead import archive

    found = archive.archives(settings.load_accounts())
    if as_json:
        print_json(found)
        return
    print_table(
        ("NAME", "UID", "SIZE", "ARCHIVED", "DELETED ON", "FILE"),
        [(a.name, a.uid, human_size(a.size), a.archived_on, a.delete_on, a.file) for a in found],
    )


class Details(Person):
    """All that is known of one person."""

    gid: int | None = None
    home_bytes: int | None = None
    home_limit: int | None = None
    manages: tuple[str, ...] = ()


@user.command("show")
@name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one person: account, groups, disk use.

    Example: labstead user show anna
    """
    need_root()
    site = Site()
    account = administration.find_account(site, name)
    groups = site.accounts.groups()
    home = next((space for space in usage.with_measured(site.accounts.spaces(name)) if space.kind == "home"), None)
    details = Details(
        **_person(account, groups).model_dump(),
        gid=account.gid,
        home_bytes=home.used_bytes if home else None,
        home_limit=home.limit_bytes if home else None,
        manages=tuple(group.name for group in groups if name in group.managers),
    )
    if as_json:
        print_json(details)
        return
    print_fields(
        (
            ("name", details.name),
            ("full name", details.full_name),
            ("e-mail", details.email),
            ("state", details.state),
            ("expires", details.expires),
            ("door", details.door),
            ("account", f"{details.kind}, uid {details.uid}, gid {details.gid}"),
            ("groups", ", ".join(details.groups)),
            ("manages", ", ".join(details.manages)),
            ("home", human_size(details.home_bytes)),
            ("limit", human_size(details.home_limit)),
            ("since", details.since),
        )
    )


# --- opening and closing


def _change(accounts: Sequence[Account], problems: Sequence[str | None], as_json: bool, words: str) -> None:
    outcomes = [
        Outcome(name=account.name, account=account, problem=problem or "")
        for account, problem in zip(accounts, problems, strict=True)
    ]
    report(outcomes, as_json, words)


@user.command("lock")
@names_argument
@json_option
def lock(names: tuple[str, ...], as_json: bool) -> None:
    """Close accounts: no log-in, no session, and servers that run are stopped. Files stay.

    \b
    Examples:
      labstead user lock anna
      labstead user lock anna bert --json
    """
    need_root()
    site = Site()
    found = administration.find_accounts(site, names)
    accounts = [site.accounts.lock(account.name) for account in found]
    _change(accounts, [administration.close(site, account) for account in accounts], as_json, "locked")


@user.command("unlock")
@names_argument
@json_option
def unlock(names: tuple[str, ...], as_json: bool) -> None:
    """Open accounts that `lock` closed; one that expired needs a new date, see `expire`.

    Example: labstead user unlock anna
    """
    need_root()
    site = Site()
    found = administration.find_accounts(site, names)
    accounts = [site.accounts.unlock(account.name) for account in found]
    _change(accounts, [None for _ in accounts], as_json, "unlocked")


@user.command("expire")
@name_argument
@click.argument("day", metavar="DATE|never", type=Day())
@json_option
def expire(name: str, day: date | str, as_json: bool) -> None:
    """Set the first day on which an account is closed, or take the date away.

    Today's date closes it at once. Later the home is put into an archive and the account removed;
    accounts_archive_after_days says when.

    \b
    Examples:
      labstead user expire anna 2026-12-31
      labstead user expire anna never
    """
    need_root()
    site = Site()
    if isinstance(day, date) and day < date.today():
        # A year typed wrong would have the account closed, archived and removed by the next tidying, with no warning.
        raise BadInput(f"labstead: {day} has passed; to close the account at once give today's date, {date.today()}")
    account = site.accounts.expire(name, day if isinstance(day, date) else None)
    words = "never expires" if account.expires is None else f"expires on {account.expires}"
    _change([account], [administration.close(site, account)], as_json, words)


# --- leaving


@user.command("remove")
@name_argument
@click.option(
    "--archive/--delete-files", "archive", default=True, help="Put the home into an archive (default), or delete it."
)
@yes_option
@json_option
def remove(name: str, archive: bool, yes: bool, as_json: bool) -> None:
    """Remove an account, or a sign-up that waits.

    Nobody ever gets its uid again. The home of an account that labstead made goes into an archive, or is deleted, and
    its scratch is deleted; an account that was linked keeps all, and only leaves the hub. Where the home is missing, as
    its disk is not mounted, nothing is removed, unless files are to be deleted.

    \b
    Examples:
      labstead user remove anna
      labstead user remove anna --delete-files --yes
    """
    need_root()
    site = Site()
    account = _account(site, name)
    if account is None:
        if not _go_on(site, name, archive, as_json):
            _deny(site, name, yes, as_json)
        return
    if name in site.hub.admins:
        raise BadInput(f"labstead: {name} is an administrator; take the name out of hub_admins and run site.yml first")
    if _is_declared(name):
        complain(f"{name} stands in accounts_users: take the name out, or the next site.yml makes a new account")
    made_here = account.kind == "created"
    home = f"its home goes into {'an archive' if archive else 'nothing: it is DELETED'}"
    files = f"{home}, and what it has in scratch is deleted" if made_here else "its home stays"
    confirm(f"Remove the account {name} (uid {account.uid})? Nobody gets its uid again, and {files}.", yes)
    account = administration.remove(site, account, home_may_be_missing=not archive)
    _tell_removed(account, _put_away(site, account, archive) if made_here else None, as_json)


def _is_declared(name: str) -> bool:
    try:
        return any(declared.name == name for declared in settings.load_people().users)
    except BadInput:  # nothing is declared on this machine, or nothing that could be read
        return False


def _tell_removed(account: Account, kept: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(Removed(name=account.name, uid=account.uid, archive=kept))
    else:
        click.echo(f"{account.name}: removed" + (f", home in {kept}" if kept else ""))


def _go_on(site: Site, name: str, keep: bool, as_json: bool) -> bool:
    """Put away what a removal that was cut off left of a home; tell whether there was anything."""
    from labstead import archive

    where = settings.load_accounts()
    left = {*archive.leftovers(where.home_root), *archive.leftovers(where.scratch_root)}
    found = [account for account in site.accounts.accounts(name, retired=True) if account.uid in left]
    for account in found:
        _tell_removed(account, _put_away(site, account, keep), as_json)
    return bool(found)


class Removed(BaseModel):
    """What is left of somebody."""

    model_config = ConfigDict(frozen=True)

    name: str
    uid: int | None = None
    archive: Path | None = None


def _account(site: Site, name: str) -> Account | None:
    try:
        return administration.find_account(site, name)
    except AccountRefused as refused:
        if refused.code is not Refusal.UNKNOWN:
            raise
        return None


def _deny(site: Site, name: str, yes: bool, as_json: bool) -> None:
    """Forget a sign-up that waits."""
    if name not in waiting_signups(site):
        raise BadInput(f"labstead: {name} is not an account of the hub, and no sign-up; see `labstead user list`")
    confirm(f"Forget the sign-up of {name}?", yes)
    site.ask_logins(DeleteLogin(name=name))
    if as_json:
        print_json(Removed(name=name))
    else:
        click.echo(f"{name}: sign-up forgotten")


def _put_away(site: Site, account: Account, keep: bool) -> Path | None:
    """Archive or delete the home of an account that was removed; give the archive."""
    from labstead import archive

    where, kept = settings.load_accounts(), None
    if keep:
        kept = archive.archive_home(where, account)
    else:
        archive.delete_home(where, account)
    site.accounts.follow_limits()  # what the disks keep of it goes
    return kept
