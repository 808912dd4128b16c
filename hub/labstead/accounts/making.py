"""Making accounts, and taking in those that were there before.

The one rule: the number is in the ledger before anything is made with it; what a cut-off run left is made to the end.
"""

import os
import pwd
from pathlib import Path

from labstead import identity
from labstead.accounts import homes, machine
from labstead.accounts.ledger import Kind, Ledger
from labstead.accounts.limits import Limits
from labstead.accounts.protocol import Account
from labstead.errors import AccountRefused, Refusal
from labstead.settings import Accounts, Door


class Making:
    """What makes accounts.

    :param settings: accounts.yml
    :param ledger: the open ledger
    :param limits: what makes homes
    """

    def __init__(self, settings: Accounts, ledger: Ledger, limits: Limits) -> None:
        self._settings = settings
        self._ledger = ledger
        self._limits = limits

    def in_use(self, name: str) -> str | None:
        """Say as what this machine uses a name, or None."""
        if known := machine.known(name):
            return f"{name} is already a {known} of this machine"
        # Left over from somebody who is gone: whoever got the name would be in these groups.
        if groups := machine.groups_that_name(name):
            return f"{name} is still named as a member of {', '.join(groups)}; take the name out of there first"
        return None

    def make(self, name: str, kind: Kind, door: Door, subject: str | None = None) -> Account:
        """Make an account, or what is missing of it.

        :param subject: whom the provider's log-in must be for, or None
        :raises AccountRefused: when the name is somebody else's
        """
        account = self._ledger.find(name)
        if account is None:
            if self._ledger.groups.find(name):
                raise AccountRefused(Refusal.TAKEN, f"{name} is already a group of the hub")
            if problem := self.in_use(name):
                raise AccountRefused(Refusal.TAKEN, problem)
            home = self._settings.home_root / name
            if home.exists() or home.is_symlink():
                raise AccountRefused(Refusal.TAKEN, f"{home} exists and belongs to somebody else; move it away first")
            self._limits.require_mounted("home")
            first, last = self._settings.uid_min, self._settings.uid_max
            account = self._ledger.reserve(name, kind, first, last, machine.number_taken, door, subject)
        elif account.kind != kind or account.door != door:
            raise AccountRefused(
                Refusal.TAKEN, f"{name} is already an account of the hub ({account.kind}, door {account.door})"
            )
        return self.finish(account)

    def finish(self, account: Account) -> Account:
        """Make what is missing of an account that the ledger has."""
        entry = machine.own_entry(account)
        if account.state == "active" and entry is not None:
            homes.require(entry)
            return account
        if account.kind == "linked":
            raise AccountRefused(Refusal.UNKNOWN, f"{account.name} no longer has the account that was linked")
        # Here the ledger row is ours and the account is missing or half made: a run that was cut off goes on.
        home = self._settings.home_root / account.name
        machine.make_user(account, home, self._settings.shell)
        self._make_home(home, account.uid, account.gid)
        entry = machine.own_entry(account)
        if entry is None:
            raise AccountRefused(Refusal.FAILED, f"{account.name} was made but this machine does not know it")
        homes.require(entry)
        self._ledger.set_state(account.name, "active")
        return account.model_copy(update={"state": "active", "changed": True})

    def link(self, name: str, door: Door, subject: str | None = None, needs_home: bool = False) -> Account:
        """Take in an account that was there before.

        :param needs_home: whether a missing home is a reason to refuse, where it is not made
        """
        person = identity.look_up(name)
        entry = pwd.getpwnam(name)
        if self._may_make_home(entry):
            self._make_home(Path(entry.pw_dir), entry.pw_uid, entry.pw_gid)
        if needs_home:
            homes.require(entry)
        return self._ledger.link(name, person.uid, person.gid, door, subject).model_copy(update={"changed": True})

    def _make_home(self, home: Path, uid: int, gid: int) -> None:
        homes.make(home, uid, gid, self._settings.skeleton, self._limits.maker("home", uid))

    def _may_make_home(self, entry: pwd.struct_passwd) -> bool:
        home = Path(entry.pw_dir)
        return (
            self._settings.linked_homes == "make"
            and home == Path(os.path.normpath(home))
            and home.parent == self._settings.home_root
            and not home.name.startswith(".")
        )

    def set_details(self, account: Account, full_name: str | None, email: str | None) -> Account:
        """Note what somebody is called and where mail goes; None leaves it.

        :return: the account, `changed` where it was not so
        """
        wanted = account.model_copy(
            update={
                "full_name": account.full_name if full_name is None else full_name,
                "email": account.email if email is None else email,
                "changed": False,
            }
        )
        if (wanted.full_name, wanted.email) == (account.full_name, account.email):
            return wanted
        self._ledger.set_details(account.name, wanted.full_name, wanted.email)
        if account.kind == "created" and wanted.full_name != account.full_name:
            machine.set_full_name(wanted)
        return wanted.model_copy(update={"changed": True})
