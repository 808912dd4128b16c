"""From the people and groups that the inventory declares to what has to be done about them.

The one rule: the whole is compared and checked before anything is changed; what is as it should be is not touched,
and what is not declared is nobody's business here.
"""

import grp
import pwd
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from labstead import administration
from labstead.accounts.protocol import Account, Group, SaidLimit
from labstead.administration import Newcomer, Site
from labstead.amounts import limit_words
from labstead.errors import BadInput, LabsteadError
from labstead.names import problem_with_name
from labstead.settings import DeclaredGroup, DeclaredUser, People, SpaceKind


@dataclass(frozen=True)
class NewUser:
    """Somebody who has no account of the hub yet, or half of one."""

    newcomer: Newcomer

    @property
    def words(self) -> str:
        """Say what is done."""
        return f"user {self.newcomer.name}: {'linked' if self.newcomer.existing else 'made'}"


@dataclass(frozen=True)
class ChangedUser:
    """Details of an account that differ."""

    user: DeclaredUser
    account: Account
    details: tuple[str, ...]
    """Names of fields."""

    @property
    def words(self) -> str:
        """Say what is done."""
        said = [f"{field.replace('_', ' ')} {getattr(self.user, field) or 'never'}" for field in self.details]
        return f"user {self.user.name}: {', '.join(said)}"


@dataclass(frozen=True)
class SetGroup:
    """A group that is not there yet, or is not as declared."""

    group: DeclaredGroup
    members: tuple[str, ...]
    said: str

    @property
    def words(self) -> str:
        """Say what is done."""
        return f"group {self.group.name}: {self.said}"


@dataclass(frozen=True)
class SetLimit:
    """What is said otherwise of how much a space may hold."""

    kind: SpaceKind
    name: str
    of_members: bool
    given: Mapping[str, int | None]
    """Bytes, files or both; None takes back what was said."""

    @property
    def words(self) -> str:
        """Say what is done."""
        what = f"each member's {self.kind}" if self.of_members else "folder" if self.kind == "group" else self.kind
        said = [_words_of_limit(unit, amount) for unit, amount in self.given.items()]
        whose = "group" if self.of_members or self.kind == "group" else "user"
        return f"{whose} {self.name}: {what}: {', '.join(said)}"


def _words_of_limit(unit: str, amount: int | None) -> str:
    if not amount:
        return f"{unit} as for all" if amount is None else f"no limit of {unit}"
    return f"at most {limit_words(amount, None) if unit == 'bytes' else limit_words(None, amount)}"


Step = NewUser | ChangedUser | SetGroup | SetLimit


class _Machine:
    """What the machine's own files say now, read once."""

    def __init__(self) -> None:
        self._users = {entry.pw_name for entry in pwd.getpwall()}
        self._groups = {entry.gr_name: entry for entry in grp.getgrall()}

    def has_user(self, name: str) -> bool:
        """Tell whether NSS knows a user; a directory need not list all that it knows."""
        if name in self._users:
            return True
        try:
            pwd.getpwnam(name)
        except KeyError:
            return False
        return True

    def group(self, name: str) -> grp.struct_group | None:
        """Give a group as NSS knows it."""
        if name in self._groups:
            return self._groups[name]
        try:
            return grp.getgrnam(name)
        except KeyError:
            return None


def plan(people: People, site: Site, today: date | None = None) -> list[Step]:
    """Compare what is declared with what is.

    :raises BadInput: with a line for each declaration that cannot be
    """
    today = today or date.today()
    machine = _Machine()
    accounts = {account.name: account for account in site.accounts.accounts()}
    groups = {group.name: group for group in site.accounts.groups()}
    # Somebody whose account expired and was removed stays removed, for as long as they are declared with that date.
    gone = {u.name for u in people.users if u.expires and u.expires <= today and u.name not in accounts}
    users = [user for user in people.users if user.name not in gone]
    problems: list[str] = []
    steps: list[Step] = []
    for user in users:
        try:
            if step := _user_step(user, accounts.get(user.name), site, machine, today):
                steps.append(step)
        except ValueError as error:
            problems.append(f"accounts_users: {user.name}: {error}")
    known = accounts.keys() | {user.name for user in users}
    for group in people.groups:
        try:
            if group_step := _group_step(group, groups.get(group.name), known, gone, machine):
                steps.append(group_step)
        except ValueError as error:
            problems.append(f"accounts_groups: {group.name}: {error}")
    if problems:
        raise BadInput("\n".join(problems))
    said = {(s.kind, s.name, s.of_members): s for s in site.accounts.limits()}
    return [*steps, *_limit_steps(users, _OF_USER, said), *_limit_steps(people.groups, _OF_GROUP, said)]


#: Field of the inventory → kind of space, whether it is that of members, and what is limited.
_OF_USER: dict[str, tuple[SpaceKind, bool, str]] = {
    "quota": ("home", False, "bytes"),
    "files": ("home", False, "files"),
    "scratch_quota": ("scratch", False, "bytes"),
}
_OF_GROUP: dict[str, tuple[SpaceKind, bool, str]] = {
    "quota": ("group", False, "bytes"),
    "files": ("group", False, "files"),
    "home_quota": ("home", True, "bytes"),
    "home_files": ("home", True, "files"),
    "scratch_quota": ("scratch", True, "bytes"),
}


def _limit_steps(
    declared: Iterable[DeclaredUser | DeclaredGroup],
    fields: Mapping[str, tuple[SpaceKind, bool, str]],
    said: Mapping[tuple[SpaceKind, str, bool], SaidLimit],
) -> Iterator[SetLimit]:
    """Compare what is declared of limits; what is not declared is left as it is."""
    for item in declared:
        given: dict[tuple[SpaceKind, bool], dict[str, int | None]] = {}
        for field, (kind, of_members, unit) in fields.items():
            now = said.get((kind, item.name, of_members))
            if field in item.model_fields_set and getattr(item, field) != (getattr(now, unit) if now else None):
                given.setdefault((kind, of_members), {})[unit] = getattr(item, field)
        yield from (SetLimit(kind, item.name, of_members, units) for (kind, of_members), units in given.items())


def _user_step(user: DeclaredUser, account: Account | None, site: Site, machine: _Machine, today: date) -> Step | None:
    """Compare one person; :raises ValueError: when they cannot be as declared."""
    if account is None:
        _require_right_kind(user, machine)
        return NewUser(_newcomer(user, site))
    if user.existing != (account.kind == "linked"):
        raise ValueError(
            "labstead made this account; leave out `existing`"
            if user.existing
            else "this account was the machine's before; write `existing: true`"
        )
    if account.state == "pending" or not (user.existing or machine.has_user(user.name)):
        return NewUser(_newcomer(user, site, account))
    # What is not said is left as it is; `expires: null` says never.
    said = [field for field in ("full_name", "email") if getattr(user, field)]
    said += ["expires"] if "expires" in user.model_fields_set else []
    details = tuple(field for field in said if getattr(user, field) != getattr(account, field))
    if "expires" in details and user.expires is not None and user.expires < today:
        raise ValueError(f"expires {user.expires} has passed; give a day from today on, or null")
    return ChangedUser(user, account, details) if details else None


def _require_right_kind(user: DeclaredUser, machine: _Machine) -> None:
    there = machine.has_user(user.name)
    if there and not user.existing:
        raise ValueError("an account of this machine; write `existing: true` to let it in, or choose another name")
    if user.existing and not there:
        raise ValueError("not an account of this machine; leave out `existing`, and labstead makes it")


def _newcomer(user: DeclaredUser, site: Site, account: Account | None = None) -> Newcomer:
    door = account.door if account else site.hub.doors[0] if user.existing else administration.guest_door(site.hub)
    newcomer = Newcomer(
        name=user.name,
        full_name=user.full_name,
        email=user.email,
        expires=user.expires,
        door=door,
        existing=user.existing,
        known=account is not None,
    )
    # One of whom the ledger knows already was checked when its row was made.
    if account is None and (problem := administration.problem_with_newcomer(site, newcomer, (), ())):
        raise ValueError(problem.removeprefix(f"{user.name}: "))
    return newcomer


def _group_step(
    declared: DeclaredGroup, group: Group | None, known: Collection[str], gone: Collection[str], machine: _Machine
) -> SetGroup | None:
    """Compare one group; :raises ValueError: when it cannot be as declared."""
    members = tuple(name for name in declared.members if name not in gone)
    if declared.existing and (declared.members or declared.managers):
        raise ValueError("who is in an existing group is not labstead's; leave out `members` and `managers`")
    named = dict.fromkeys((*members, *declared.managers))
    if missing := [name for name in named if name not in known and not machine.has_user(name)]:
        raise ValueError(f"nobody is called {', '.join(missing)}; declare them in accounts_users, or mend the name")
    if group is None:
        _require_free_name(declared, known, machine)
        return SetGroup(declared, members, "linked" if declared.existing else "made")
    if declared.existing != (group.kind == "linked"):
        raise ValueError(
            "labstead made this group; leave out `existing`"
            if declared.existing
            else "this group was the machine's before; write `existing: true`"
        )
    said = [*_differences(declared, members, group), *_damage(group, members, machine)]
    return SetGroup(declared, members, ", ".join(said)) if said else None


def _require_free_name(declared: DeclaredGroup, known: Collection[str], machine: _Machine) -> None:
    there = machine.group(declared.name)
    if declared.name in known:
        raise ValueError("somebody has this name, and a group of their own with it; choose another one")
    if not declared.existing and (problem := problem_with_name(declared.name)):
        raise ValueError(problem.replace("username", "group name").replace("A user", "A group"))
    if declared.existing and there is None:
        raise ValueError("not a group of this machine; leave out `existing`, and labstead makes it")
    if not declared.existing and there is not None:
        raise ValueError("a group of this machine; write `existing: true` to give it a folder, or choose another name")


def _differences(declared: DeclaredGroup, members: Sequence[str], group: Group) -> Iterable[str]:
    """Say what the ledger has otherwise."""
    if not declared.existing:
        yield from (f"+{name}" for name in members if name not in group.declared)
        yield from (f"-{name}" for name in group.declared if name not in members)
    if "managers" in declared.model_fields_set and set(declared.managers) != set(group.managers):
        yield f"managers {', '.join(declared.managers) or 'none'}"


def _damage(group: Group, members: Sequence[str], machine: _Machine) -> Iterable[str]:
    """Say what the machine lacks of what the ledger has."""
    there = machine.group(group.name)
    if there is None:
        yield "group made anew"
    elif group.kind == "created" and set(members) - set(there.gr_mem):
        yield "members put back"
    folder = Path(group.folder)
    try:
        found = folder.lstat()
    except OSError:
        yield "folder missing"
    else:
        if found.st_gid != group.gid:
            yield "folder of another group"


# --- doing it


def carry_out(steps: Sequence[Step], site: Site) -> tuple[list[str], list[str]]:
    """Do what was planned; what fails for one does not keep the others.

    :return: what was changed and what went wrong, a line each
    """
    newcomers = [step.newcomer for step in steps if isinstance(step, NewUser)]
    done: list[str] = []
    problems: list[str] = []
    if newcomers:
        administration.make_logins(site, newcomers, invite=False)
        outcomes = administration.make_accounts(site, newcomers)
        words = {step.newcomer.name: step.words for step in steps if isinstance(step, NewUser)}
        done += [words[outcome.name] for outcome in outcomes if outcome.account is not None]
        problems += [outcome.problem for outcome in outcomes if outcome.problem]
    for step in steps:
        try:
            if isinstance(step, ChangedUser):
                problems += _change_user(step, site)
                done.append(step.words)
            elif isinstance(step, SetLimit):
                _set_limit(step, site)
                done.append(step.words)
            elif isinstance(step, SetGroup) and _set_group(step, site):
                done.append(step.words)
        except LabsteadError as error:
            problems.append(f"{step.words}: {error}")
    return done, problems


def _change_user(step: ChangedUser, site: Site) -> list[str]:
    user, problems = step.user, []
    if {"full_name", "email"} & set(step.details):
        change = site.accounts.link if user.existing else site.accounts.add
        change(user.name, step.account.door, user.full_name or None, user.email or None)
    if "expires" in step.details:
        account = site.accounts.expire(user.name, user.expires)
        if problem := administration.close(site, account):
            problems.append(problem)
    return problems


def _set_group(step: SetGroup, site: Site) -> bool:
    declared, given = step.group, step.group.model_fields_set
    return site.accounts.set_group(
        declared.name,
        declared=None if declared.existing else step.members,
        managers=declared.managers if "managers" in given else None,
        existing=declared.existing,
    ).changed


def _set_limit(step: SetLimit, site: Site) -> None:
    units: tuple[Literal["bytes", "files"], ...] = ("bytes", "files")
    site.accounts.set_limit(
        step.kind,
        step.name,
        bytes=step.given.get("bytes"),
        files=step.given.get("files"),
        of_members=step.of_members,
        keep=tuple(unit for unit in units if unit not in step.given),
    )
