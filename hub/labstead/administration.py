"""What root's commands do to people: ledger, the hub's database, the running hub, Slurm and mail, in the right order.

The one rule: a log-in is made before its account and taken away after it was closed, so that there is no moment in
which somebody else's password opens an account.
"""

import functools
import pwd
import time
from collections.abc import Collection, Sequence
from datetime import date
from email.message import EmailMessage
from typing import Literal

from pydantic import BaseModel, ConfigDict

from labstead import identity, mail, settings
from labstead.accounts import homes
from labstead.accounts.client import Client
from labstead.accounts.protocol import Account
from labstead.errors import AccountRefused, BadInput, LabsteadError
from labstead.hub import login_protocol
from labstead.hub.api import Api, HubAway
from labstead.hub.login_protocol import Authorize, DeleteLogin, Everybody, Invite, Login, Reply, Request, SetLogin
from labstead.names import problem_with_name
from labstead.relay.client import Client as Relay
from labstead.settings import Door, Hub, Sessions

_JOBS_SECONDS = 60
"""How long jobs may take to end: Slurm kills after 30 s what does not end when told to (KillWait)."""


class Newcomer(BaseModel):
    """Somebody who is to get an account, or whose account is to be let in."""

    model_config = ConfigDict(frozen=True)

    name: str
    full_name: str = ""
    email: str = ""
    expires: date | None = None
    groups: tuple[str, ...] = ()
    door: Door = "native"
    existing: bool = False
    """An account that the machine knows already."""
    password: str | None = None
    """None: nobody's, until they are invited to set one."""
    known: bool = False
    """The ledger has the account, but the machine lacks it: a log-in that is there is theirs."""


class Invitation(BaseModel):
    """A link with which somebody sets a password once."""

    model_config = ConfigDict(frozen=True)

    name: str
    email: str
    link: str


class Outcome(BaseModel):
    """What became of one newcomer."""

    model_config = ConfigDict(frozen=True)

    name: str
    account: Account | None = None
    problem: str = ""
    """One line; empty where all went well."""


class Site:
    """The parts of a running hub, each asked only when it is needed.

    :param accounts: the accounts service
    """

    def __init__(self, accounts: Client | None = None) -> None:
        self.accounts = accounts or Client()

    @functools.cached_property
    def hub(self) -> Hub:
        """Give hub.yml."""
        return settings.load_hub()

    @functools.cached_property
    def sessions(self) -> Sessions:
        """Give sessions.yml."""
        return settings.load_sessions()

    @functools.cached_property
    def relay(self) -> Relay:
        """Give the way to Slurm; it is asked only where `sessions.compute` is set."""
        return Relay()

    def ask_logins(self, *requests: Request) -> list[Reply]:
        """Ask the hub's database; see `labstead.hub.login_protocol`."""
        return login_protocol.ask(*requests)

    def logins(self) -> dict[str, Login]:
        """Give all log-ins and sign-ups."""
        return {login.name: login for login in self.ask_logins(Everybody())[0].logins}

    def put_out(self, name: str) -> None:
        """Stop somebody's servers and take their tokens; :raises HubAway: when the hub did not do it."""
        Api(self.hub).put_out(name)

    def forget(self, name: str) -> None:
        """Have the hub forget somebody; :raises HubAway: when the hub did not do it."""
        Api(self.hub).forget(name)

    def jobs_of(self, account: Account) -> Literal["all", "dask"]:
        """Say which of somebody's jobs are the hub's to end.

        Who had an account before may have jobs on the site's Slurm that did not come from here, and goes on to have
        that account: of theirs only Dask's.
        """
        return "dask" if account.kind == "linked" and settings.load_compute().mode == "existing" else "all"

    def end_jobs(self, account: Account, seconds: float = 0) -> int:
        """End what somebody has in Slurm, as far as it is the hub's.

        :param seconds: how long to wait until none is left; 0: not at all
        :return: how many were ended
        :raises LabsteadError: when the relay did not do it, or some are left
        """
        if self.sessions.compute is None:
            return 0
        what = self.jobs_of(account)
        ended = self.relay.end(account.name, what)
        deadline = time.monotonic() + seconds
        while ended and seconds:
            jobs = self.relay.jobs(account.name)
            left = jobs.dask if what == "dask" else jobs.all
            if not left:
                break
            if time.monotonic() > deadline:
                raise LabsteadError(f"jobs in Slurm have not ended after {seconds:.0f} s ({left} left); see `squeue`")
            time.sleep(0.5)
        return ended

    def send(self, messages: Sequence[EmailMessage]) -> str | None:
        """Send mail; say in one line what went wrong, None where nothing did."""
        if self.hub.mail is None or not messages:
            return None
        try:
            mail.send(self.hub.mail, messages)
        except mail.MailFailed as error:
            return str(error)
        return None


# --- coming in


def guest_door(hub: Hub) -> Door:
    """Give the door of accounts that labstead makes: `native` where there is one, else the main one."""
    return "native" if "native" in hub.doors else hub.doors[0]


def _is_person(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def problem_with_newcomer(
    site: Site, newcomer: Newcomer, taken: Collection[str], groups: Collection[str]
) -> str | None:
    """Say what keeps somebody from coming in, before anything is made; None where nothing does.

    :param taken: names that the ledger has
    :param groups: groups that there are
    """
    name, door = newcomer.name, newcomer.door
    if name in taken:
        return f"{name} has an account of the hub already; see `labstead user show {name}`"
    if door not in site.hub.doors:
        return f"{name}: the door {door} is not open; hub_doors are {', '.join(site.hub.doors)}"
    if newcomer.existing:
        if not _is_person(name):
            return f"{name} is not an account of this machine; `labstead user add {name}` makes one"
        try:
            identity.look_up(name)
        except AccountRefused as refused:
            return str(refused)
    elif door == "pam":
        return f"{name}: labstead makes no accounts for the door pam; make it in the directory, or give --door native"
    elif _is_person(name) and problem_with_name(name) is None:
        return f"{name} is an account of this machine; `labstead user link {name}` lets its owner in"
    elif problem := problem_with_name(name) or site.accounts.problem(name):
        return f"{name}: {problem}"
    if newcomer.email and (problem := mail.problem_with_address(newcomer.email)):
        return f"{name}: {newcomer.email!r}: {problem}"
    if newcomer.expires and newcomer.expires <= date.today():
        return f"{name}: {newcomer.expires} has come already; a new account expires on a later day"
    if missing := [group for group in newcomer.groups if group not in groups]:
        return f"{name}: there is no group with a folder called {', '.join(missing)}; see `labstead group list`"
    return None


def make_logins(site: Site, newcomers: Sequence[Newcomer], invite: bool) -> list[Invitation]:
    """Make the log-ins of people who come in by a password of the hub's, in place of sign-ups of their names.

    The accounts come after: until then these log-ins open nothing.
    """
    native = [newcomer for newcomer in newcomers if newcomer.door == "native"]
    requests: list[Request] = [SetLogin(name=n.name, password=n.password, replace=not n.known) for n in native]
    if invite:
        requests += [Invite(name=n.name, days=site.hub.invitation_days) for n in native]
    replies = site.ask_logins(*requests)
    tokens = [reply.token for reply in replies[len(native) :]]
    return [_invitation(site, n.name, n.email, token) for n, token in zip(native, tokens, strict=invite)]


def _invitation(site: Site, name: str, email: str, token: str) -> Invitation:
    return Invitation(name=name, email=email, link=mail.public(site.hub, f"hub/set-password/{token}"))


def make_accounts(site: Site, newcomers: Sequence[Newcomer]) -> list[Outcome]:
    """Make the accounts of newcomers whose log-ins are made; what fails for one does not keep the others out."""
    outcomes = [_make_account(site, newcomer) for newcomer in newcomers]
    # A log-in without an account opens nothing, but it keeps the name from whoever signs up next.
    failed = {outcome.name for outcome in outcomes if outcome.account is None}
    site.ask_logins(*(DeleteLogin(name=n.name) for n in newcomers if n.name in failed and not n.known))
    there = {outcome.name for outcome in outcomes if outcome.account is not None}
    problems = _add_to_groups(site, [newcomer for newcomer in newcomers if newcomer.name in there])
    return [
        outcome.model_copy(update={"problem": problems[outcome.name]}) if outcome.name in problems else outcome
        for outcome in outcomes
    ]


def _make_account(site: Site, newcomer: Newcomer) -> Outcome:
    make = site.accounts.link if newcomer.existing else site.accounts.add
    account = None
    try:
        account = make(newcomer.name, newcomer.door, newcomer.full_name or None, newcomer.email or None)
        if newcomer.expires is not None:
            account = site.accounts.expire(newcomer.name, newcomer.expires)
    except LabsteadError as error:
        return Outcome(name=newcomer.name, account=account, problem=f"{newcomer.name}: {error}")
    return Outcome(name=newcomer.name, account=account)


def _add_to_groups(site: Site, newcomers: Sequence[Newcomer]) -> dict[str, str]:
    """Add newcomers to their groups, each group once; give what went wrong, by person."""
    problems: dict[str, str] = {}
    for group in sorted({group for newcomer in newcomers for group in newcomer.groups}):
        members = tuple(newcomer.name for newcomer in newcomers if group in newcomer.groups)
        try:
            site.accounts.change_members(group, add=members)
        except LabsteadError as error:
            problems |= {name: f"{name}: group {group}: {error}" for name in members}
    return problems


def approve(site: Site, name: str, email: str) -> tuple[Account, str | None]:
    """Let in somebody who signed up: account first, whose name may be had no more, then the log-in, then mail.

    :return: the account, and what went wrong with the mail
    """
    account = site.accounts.create(name, email)
    site.ask_logins(Authorize(name=name))
    return account, site.send(mail.approved(site.hub, name, email))


def invite(site: Site, accounts: Sequence[Account]) -> list[Invitation]:
    """Give people links with which they set a password; earlier links no longer work.

    Somebody who has no log-in, such as one whom the inventory declared on an earlier release, gets one.
    """
    logins: list[Request] = [SetLogin(name=account.name, password=None) for account in accounts]
    links: list[Request] = [Invite(name=account.name, days=site.hub.invitation_days) for account in accounts]
    replies = site.ask_logins(*logins, *links)[len(logins) :]
    return [_invitation(site, a.name, a.email, r.token) for a, r in zip(accounts, replies, strict=True)]


def invitation_mail(site: Site, invitations: Sequence[Invitation]) -> list[EmailMessage]:
    """Write the mail that carries the links."""
    days = site.hub.invitation_days
    return [m for i in invitations for m in mail.invitation(site.hub, i.name, i.email, i.link, days)]


# --- leaving


def close(site: Site, account: Account) -> str | None:
    """Put somebody out of the hub and of Slurm whose account is closed now.

    :return: what went wrong, in one line; None where nothing did
    """
    if not account.locked:
        return None
    problems = []
    try:
        site.put_out(account.name)
    except LabsteadError as error:
        problems.append(f"a server of theirs may still run: {error}")
    # After the server, from which new ones could come.
    try:
        site.end_jobs(account)
    except LabsteadError as error:
        problems.append(f"jobs of theirs may still run: {error}")
    if not problems:
        return None
    return f"{account.name} is {account.locked} and cannot log in, but {', and '.join(problems)}"


def remove(site: Site, account: Account, home_may_be_missing: bool = False) -> Account:
    """Remove an account for good; the home, where labstead made it, is left for `labstead.archive`.

    Each step can be done again: a removal that was cut off is gone on with by the same command.

    :param home_may_be_missing: whether it is removed even where no home of it is there
    :raises LabsteadError: when a step fails; the account is closed then
    """
    if not home_may_be_missing:
        # The service looks too, but the log-in would be gone by then.
        homes.require_for_removal(settings.load_accounts().home_root, account)
    if not account.locked:
        site.accounts.lock(account.name)
    try:
        site.forget(account.name)
    except HubAway as error:
        raise HubAway(f"{account.name} is locked, but not removed yet: {error}; then run this again") from None
    try:
        # What still runs would keep the account from going, and write into its home.
        site.end_jobs(account, _JOBS_SECONDS)
    except LabsteadError as error:
        raise LabsteadError(f"{account.name} is locked, but not removed yet: {error}; then run this again") from None
    site.ask_logins(DeleteLogin(name=account.name))
    return site.accounts.retire(account.name, home_may_be_missing)


def find_account(site: Site, name: str) -> Account:
    """Give the account of a name; :raises AccountRefused: when the hub has none."""
    (account,) = site.accounts.accounts(name)
    return account


def find_accounts(site: Site, names: Sequence[str]) -> list[Account]:
    """Give the accounts of several people.

    :raises BadInput: with one line for each whom the hub does not know
    """
    found, problems = [], []
    for name in dict.fromkeys(names):
        try:
            found.append(find_account(site, name))
        except AccountRefused as refused:
            problems.append(f"labstead: {refused}")
    if problems:
        raise BadInput("\n".join(problems))
    return found
