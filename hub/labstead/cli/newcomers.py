"""`labstead user add`, `link`, `approve` and `invite`: how people come to the hub.

The one rule: no password and no link to set one is ever printed; they go to a file that root alone reads, or by mail.
"""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import get_args

import click
from pydantic import ValidationError

from labstead import administration, classlist, mail, secrets
from labstead.administration import Invitation, Newcomer, Outcome, Site
from labstead.cli.base import Day, Names, SecretFile, complain, json_option, need_root
from labstead.cli.user import names_argument, report, user, waiting_signups
from labstead.errors import BadInput, LabsteadError
from labstead.settings import DeclaredUser, Door

# --- options that they share

_door = click.option(
    "--door",
    type=click.Choice(get_args(Door)),
    help="How they come in; default: native where it is a door of the hub, for `link` the hub's main door.",
)
_full_name = click.option("--full-name", default="", help="Name as people write it.")
_email = click.option("--email", default="", help="Where mail about the account goes.")
_invite = click.option("--invite", is_flag=True, help="Make links with which they set a password once.")
_output = click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="New file (0600) for passwords, or for links with --invite: CSV with the columns name and password or link.",
)
_password_file = click.option(
    "--password-file",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    help="File whose first line is the password; - for standard input.",
)


def _read_password(site: Site, file: Path) -> str:
    try:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    password = text.partition("\n")[0].rstrip("\r")
    shortest = site.hub.password_minimum_length
    if len(password) < shortest:
        raise BadInput(f"{file}: a password has at least {shortest} characters")
    if len(password.encode()) > secrets.MAX_PASSWORD_BYTES:
        raise BadInput(f"{file}: a password has at most {secrets.MAX_PASSWORD_BYTES} bytes")
    return password


def _require_good(newcomer: Newcomer) -> None:
    """Hold what was typed against the inventory's rules.

    :raises BadInput: with one line for each mistake
    """
    try:
        DeclaredUser(name=newcomer.name, full_name=newcomer.full_name, email=newcomer.email)
    except ValidationError as error:
        found = [(str(e["loc"][0]), e["type"], e["msg"]) for e in error.errors()]
        lines = [f"labstead: --{field.replace('_', '-')}: {classlist.words_of(field, *said)}" for field, *said in found]
        raise BadInput("\n".join(lines)) from None


# --- coming in


@user.command("add")
@click.argument("name", required=False)
@_full_name
@_email
@click.option("--expires", type=Day(), help="First day on which the account is closed.")
@click.option("--groups", type=Names(), default=(), help="Groups to be in, with commas between them.")
@_door
@click.option("--from", "source", type=click.Path(path_type=Path, dir_okay=False), help="CSV file with many people.")
@click.option("--skip-existing", is_flag=True, help="With --from: leave out those who have an account already.")
@_password_file
@_invite
@_output
@json_option
def add(
    name: str | None,
    full_name: str,
    email: str,
    expires: date | str | None,
    groups: tuple[str, ...],
    door: Door | None,
    source: Path | None,
    skip_existing: bool,
    password_file: Path | None,
    invite: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Make the account NAME, or those of a whole class.

    A log-in with a password gets it from --password-file, a new one in the --output file, or by a link (--invite) that
    goes by mail or to the --output file. Without these nobody knows the password until `labstead user invite`.

    The CSV file has a row with names of columns, then a row for each person: name, and if you like full_name, email,
    expires (2026-12-31) and groups (with blanks between them). All rows are checked before anybody is made.

    \b
    Examples:
      labstead user add anna --full-name "Anna Adam" --output /root/anna.csv
      labstead user add bert --email bert@example.org --invite --expires 2026-12-31
      labstead user add --from class.csv --output /root/passwords.csv
      labstead user add --from class.csv --invite
    """
    need_root()
    site = Site()
    chosen = door or administration.guest_door(site.hub)
    if (name is None) == (source is None):
        raise BadInput("labstead: give a NAME, or --from FILE")
    if source is not None:
        if full_name or email or expires or groups or password_file:
            raise BadInput("labstead: with --from the names, addresses, dates and groups stand in the file")
        newcomers = classlist.read(source, chosen, site, skip_existing)
    else:
        assert name is not None  # noqa: S101 - for mypy; the check is above
        newcomer = Newcomer(
            name=name,
            full_name=full_name,
            email=email,
            expires=expires if isinstance(expires, date) else None,
            groups=groups,
            door=chosen,
        )
        newcomers = [_check(site, newcomer)]
    _bring_in(site, newcomers, _Opening(password_file, invite, output), as_json)


@user.command("link")
@click.argument("name")
@_full_name
@_email
@_door
@_password_file
@_invite
@_output
@json_option
def link(
    name: str,
    full_name: str,
    email: str,
    door: Door | None,
    password_file: Path | None,
    invite: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Let the owner of an account that the machine has come in to the hub.

    labstead never changes such an account, and leaves it and its home as they are when it is removed from the hub. An
    account that is linked already gets the door that is given.

    \b
    Examples:
      labstead user link carla
      labstead user link dora --door native --invite --email dora@example.org
    """
    need_root()
    site = Site()
    newcomer = Newcomer(name=name, full_name=full_name, email=email, door=door or site.hub.doors[0], existing=True)
    _bring_in(site, [_check(site, newcomer)], _Opening(password_file, invite, output), as_json)


@dataclass(frozen=True)
class _Opening:
    """What people will open their log-ins with."""

    password_file: Path | None
    invite: bool
    output: Path | None

    def require_sense(self, newcomers: Sequence[Newcomer]) -> None:
        """Refuse options that do not go together, or with these people's door."""
        given = self.password_file or self.invite or self.output
        if given and any(newcomer.door != "native" for newcomer in newcomers):
            raise BadInput("labstead: only the door native has passwords of the hub; leave out options about them")
        if self.password_file and (self.invite or self.output):
            raise BadInput("labstead: give one of --password-file, --invite and --output")
        if given and not self.invite and (known := [newcomer.name for newcomer in newcomers if newcomer.known]):
            raise BadInput(
                f"labstead: {known[0]} has a log-in; `labstead user invite {known[0]}` gives it a new password"
            )

    def password(self, site: Site) -> str | None:
        """Give the next person's password; None where nobody is to know it yet."""
        if self.password_file:
            return _read_password(site, self.password_file)
        return secrets.new_password() if self.output and not self.invite else None


def _bring_in(site: Site, newcomers: Sequence[Newcomer], opening: _Opening, as_json: bool) -> None:
    """Make log-ins, then the file with what they open with, then accounts, then mail; all has been checked."""
    opening.require_sense(newcomers)
    _can_be_told(site, opening, [(newcomer.name, newcomer.email) for newcomer in newcomers])
    newcomers = [newcomer.model_copy(update={"password": opening.password(site)}) for newcomer in newcomers]
    native = [newcomer for newcomer in newcomers if newcomer.door == "native"]
    replaced = waiting_signups(site).keys() & {newcomer.name for newcomer in native} if native else set()
    with _secret_file(opening.output) as file:
        invitations = administration.make_logins(site, newcomers, opening.invite)
        if opening.invite:
            file.write(_csv("link", [(invitation.name, invitation.link) for invitation in invitations]))
        else:
            file.write(_csv("password", [(newcomer.name, newcomer.password or "") for newcomer in native]))
    for name in sorted(replaced):
        complain(f"{name}: the sign-up of that name that waited is gone; this account is in its place")
    outcomes = administration.make_accounts(site, newcomers)
    made = {outcome.name for outcome in outcomes if outcome.account}
    _send(site, [invitation for invitation in invitations if invitation.name in made], outcomes)
    report(outcomes, as_json, "linked" if all(newcomer.existing for newcomer in newcomers) else "made")
    if native and not as_json and opening == _Opening(None, False, None):
        who = native[0].name if len(native) == 1 else "NAME"
        click.echo(f"No password is known yet: `labstead user invite {who}` makes a link to set one.", err=True)


class _Nowhere:
    """Stands for the file that nobody asked for."""

    def write(self, text: str) -> None:
        """Forget it."""


@contextmanager
def _secret_file(path: Path | None) -> Iterator[SecretFile | _Nowhere]:
    """Open the file for passwords or links, before anything is made; it is gone if what they are for is not made."""
    if path is None:
        yield _Nowhere()
        return
    file = SecretFile(path)
    try:
        yield file
    except BaseException:
        file.discard()
        raise


def _check(site: Site, newcomer: Newcomer) -> Newcomer:
    """Refuse what was typed wrong."""
    _require_good(newcomer)
    accounts = {account.name: account for account in site.accounts.accounts()}
    groups = {group.name for group in site.accounts.groups()} if newcomer.groups else set()
    account = accounts.get(newcomer.name)
    if newcomer.existing and account is not None and account.kind == "linked":
        # Linked anew, by another door or with other details.
        newcomer = newcomer.model_copy(update={"known": account.door == newcomer.door})
        accounts.pop(newcomer.name)
    if problem := administration.problem_with_newcomer(site, newcomer, accounts, groups):
        raise BadInput(f"labstead: {problem}")
    return newcomer


def _can_be_told(site: Site, opening: _Opening, people: Sequence[tuple[str, str]]) -> None:
    """Refuse to make links that would reach nobody."""
    if not opening.invite or opening.output:
        return
    if site.hub.mail is None:
        raise BadInput("labstead: no mail relay is set (hub_mail_relay), so links need a file: give --output FILE")
    if without := [name for name, email in people if not email or mail.problem_with_address(email)]:
        raise BadInput(f"labstead: no e-mail address of {', '.join(without)} is known; give --output FILE")


def _csv(what: str, rows: Sequence[tuple[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", what))
    writer.writerows(rows)
    return text.getvalue()


def _send(site: Site, invitations: Sequence[Invitation], outcomes: list[Outcome]) -> None:
    if problem := site.send(administration.invitation_mail(site, invitations)):
        outcomes.append(Outcome(name="", problem=f"{problem}; `labstead user invite` makes new links"))


def _complete_waiting(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    try:
        need_root()
        return [name for name in sorted(waiting_signups(Site())) if name.startswith(incomplete)]
    except LabsteadError:
        return []


@user.command("approve")
@click.argument("names", nargs=-1, required=True, shell_complete=_complete_waiting)
@json_option
def approve(names: tuple[str, ...], as_json: bool) -> None:
    """Let in people who signed up and wait.

    \b
    Examples:
      labstead user list --state waiting
      labstead user approve anna bert
    """
    need_root()
    site = Site()
    waiting = waiting_signups(site)
    if missing := [name for name in names if name not in waiting]:
        raise BadInput(f"labstead: no sign-up of {', '.join(missing)} waits; see `labstead user list --state waiting`")
    outcomes = []
    for name in dict.fromkeys(names):
        try:
            account, problem = administration.approve(site, name, waiting[name].email)
            outcomes.append(Outcome(name=name, account=account, problem=problem or ""))
        except LabsteadError as error:
            outcomes.append(Outcome(name=name, problem=f"{name}: {error}"))
    report(outcomes, as_json, "approved")


@user.command("invite")
@names_argument
@_output
@json_option
def invite(names: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Make a link with which each of NAMES sets a password once; earlier links no longer work.

    The links go by mail, or to the --output file.

    \b
    Examples:
      labstead user invite anna
      labstead user invite anna bert --output /root/links.csv
    """
    need_root()
    site = Site()
    accounts = administration.find_accounts(site, names)
    if "native" not in site.hub.doors:
        raise BadInput("labstead: the hub has no passwords of its own; native is not among hub_doors")
    for account in accounts:
        if account.door != "native":
            raise BadInput(
                f"labstead: {account.name} comes in by the door {account.door}, which has passwords of its own"
            )
        if account.locked:
            raise BadInput(f"labstead: {account.name} is {account.locked}; open the account first")
    _can_be_told(site, _Opening(None, True, output), [(account.name, account.email) for account in accounts])
    with _secret_file(output) as file:
        invitations = administration.invite(site, accounts)
        file.write(_csv("link", [(invitation.name, invitation.link) for invitation in invitations]))
    if output is None and (problem := site.send(administration.invitation_mail(site, invitations))):
        raise LabsteadError(problem)
    where = str(output) if output else "mail"
    if as_json:
        click.echo(json.dumps([{"name": i.name, "email": i.email, "sent_to": where} for i in invitations], indent=2))
        return
    for invitation in invitations:
        click.echo(f"{invitation.name}: link {f'in {where}' if output else f'sent to {invitation.email}'}")
