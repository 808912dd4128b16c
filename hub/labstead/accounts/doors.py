"""People who come in through PAM or through an OpenID Connect provider.

The one rule: every account has one door and one owner. Nobody gets an account by bearing its name: PAM's password is
checked for accounts of the door pam alone, and an account of the door oidc is bound to the provider's own number for
a person. Whoever was removed comes back through an administrator only.
"""

import re
import threading
from collections.abc import Callable

from labstead import identity
from labstead.accounts import machine, pam, protocol
from labstead.accounts.ledger import Ledger
from labstead.accounts.making import Making
from labstead.accounts.protocol import Account
from labstead.errors import AccountRefused, Refusal
from labstead.identity import FIRST_PERSON
from labstead.names import problem_with_name
from labstead.settings import Accounts, Door

ROOT_LIKE = frozenset(
    ("root", "sudo", "wheel", "admin", "adm", "shadow", "disk", "kmem", "docker", "lxd", "incus-admin", "libvirt")
)
"""Groups whose members are or can become root: their accounts are not taken in on a provider's word alone."""

_PAM_AT_A_TIME = 8
_PAM_PATIENCE_SECONDS = 30.0

_UNFIT = re.compile(r"[:,=\\\"\x00-\x1f\x7f-\x9f]+")
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f-\x9f]+@[^\s@\x00-\x1f\x7f-\x9f]+")


def _refused(text: str) -> AccountRefused:
    return AccountRefused(Refusal.NOT_ALLOWED, text)


class Doors:
    """What lets people in.

    :param settings: accounts.yml
    :param ledger: the open ledger
    :param making: what makes accounts
    :param lock: held by whatever changes something
    :param require_open: refuses a closed account
    """

    def __init__(
        self,
        settings: Accounts,
        ledger: Ledger,
        making: Making,
        lock: threading.RLock,
        require_open: Callable[[Account], None],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._making = making
        self._lock = lock
        self._require_open = require_open
        self._pam_places = threading.BoundedSemaphore(_PAM_AT_A_TIME)

    def _require_door(self, door: Door) -> None:
        if door not in self._settings.doors:
            raise _refused(f"the hub has no door {door}; see hub_doors")

    # --- pam

    def check_password(self, name: str, password: str) -> Account:
        """Let PAM check somebody's password; the first right one takes in their account."""
        self._require_door("pam")
        self._require_may_ask_pam(name)
        if not self._pam_places.acquire(timeout=_PAM_PATIENCE_SECONDS):
            raise AccountRefused(Refusal.FAILED, "too many people log in at this moment; please try again")
        try:
            pam.check(name, password)
        finally:
            self._pam_places.release()
        with self._lock:
            # PAM takes its time: the account may have been made, closed or removed meanwhile.
            self._require_may_ask_pam(name)
            account = self._ledger.find(name)
            if account is None:
                account = self._making.link(name, "pam", needs_home=True)
            self._require_open(account)
            identity.look_up(name)
            machine.own_entry(account)
            return account

    def _require_may_ask_pam(self, name: str) -> None:
        account = self._ledger.find(name)
        if account is not None:
            # A directory's "bert" is not the guest "bert".
            if account.kind != "linked" or account.door != "pam":
                raise _refused(f"{name} comes in another way; please choose it on the log-in page")
        elif problem := problem_with_name(name, self._settings.reserved_names):
            raise AccountRefused(Refusal.BAD_NAME, problem)
        entry = machine.user(name)
        if entry is None:
            return  # PAM says no, after as long as it takes for those who exist
        if entry.pw_uid < FIRST_PERSON or entry.pw_gid < FIRST_PERSON:
            raise _refused(f"{name} is a system account: no log-in")
        if account is None and self._ledger.was_removed(name, entry.pw_uid):
            raise _refused(f"{name} was removed from the hub; please ask an administrator")

    # --- oidc

    def arrive(self, request: protocol.Arrive) -> Account:
        """Let in somebody whom the provider vouches for; the first arrival makes or takes in their account."""
        self._require_door("oidc")
        name, subject = request.name, request.subject
        bound = self._ledger.find_subject(subject)
        if bound is not None and bound.name != name:
            raise _refused(f"you come in as {bound.name} here, and the provider now says {name}; ask an administrator")
        account = self._ledger.find(name)
        account = self._first(name, subject) if account is None else self._again(account, subject)
        self._require_open(account)
        return self._fill_in(account, request)

    def _first(self, name: str, subject: str) -> Account:
        if problem := problem_with_name(name, self._settings.reserved_names):
            raise AccountRefused(Refusal.BAD_NAME, problem)
        if self._ledger.subject_was_removed(subject):
            raise _refused(f"{name} was removed from the hub; please ask an administrator")
        if self._settings.oidc_accounts == "create":
            return self._making.make(name, "created", "oidc", subject)
        entry = machine.user(name)
        if entry is None:
            raise AccountRefused(Refusal.UNKNOWN, f"{name} has no account on this machine; ask an administrator")
        if self._ledger.was_removed(name, entry.pw_uid):
            raise _refused(f"{name} was removed from the hub; please ask an administrator")
        if powers := ROOT_LIKE.intersection(machine.groups_of(entry)):
            raise _refused(
                f"{name} is in the group {', '.join(sorted(powers))} of this machine; an administrator must allow "
                f"this log-in first: labstead user link {name} --door oidc"
            )
        return self._making.link(name, "oidc", subject, needs_home=True)

    def _again(self, account: Account, subject: str) -> Account:
        if account.door != "oidc" or account.kind == "canary":
            raise _refused(f"{account.name} comes in another way; please choose it on the log-in page")
        known = self._ledger.subject(account.name)
        if known is not None and known != subject:
            raise _refused(f"{account.name} is the account of somebody else of the same name; ask an administrator")
        self._require_open(account)
        if known is None:
            self._ledger.bind(account.name, subject)
        finished = self._making.finish(account)
        return finished.model_copy(update={"changed": finished.changed or known is None})

    def _fill_in(self, account: Account, request: protocol.Arrive) -> Account:
        """Note name in full and address where the ledger has none; what the site says is not overwritten."""
        full_name = " ".join(_UNFIT.sub(" ", request.full_name).split())[:100]
        email = request.email if _EMAIL.fullmatch(request.email) else ""
        filled = self._making.set_details(account, account.full_name or full_name, account.email or email)
        return filled.model_copy(update={"changed": filled.changed or account.changed})
