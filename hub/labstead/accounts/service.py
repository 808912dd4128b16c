"""What the accounts service does about people, and who is answered what.

The one rule: an account that labstead did not make is never changed, and one that it made is never made twice. The
ledger is written first and the machine made to follow, so that a request that was cut off can be asked again.
"""

import threading
from collections.abc import Callable, Collection
from datetime import date
from pathlib import Path

from pydantic import ValidationError

from labstead import identity
from labstead.accounts import homes, machine, protocol, session_files
from labstead.accounts.doors import Doors
from labstead.accounts.group_ledger import GroupRow
from labstead.accounts.groups import Groups
from labstead.accounts.ledger import Ledger, Locked
from labstead.accounts.limits import Limits
from labstead.accounts.making import Making
from labstead.errors import AccountRefused, Refusal
from labstead.identity import SESSIONS_DIR, Identity
from labstead.names import CANARY, is_unix_name, problem_with_name
from labstead.settings import Accounts, DeclaredUser, Door, Limit

Result = (
    protocol.Problem
    | protocol.Account
    | protocol.Accounts
    | protocol.Group
    | protocol.Groups
    | protocol.Spaces
    | protocol.Limits
    | Identity
)


def _unknown(name: str) -> AccountRefused:
    return AccountRefused(Refusal.UNKNOWN, f"{name} is not an account of the hub; see `labstead user list`")


def _kept(request: protocol.SetLimit, before: Limit) -> Limit:
    """Give what is said from now on."""
    return Limit(
        bytes=before.bytes if "bytes" in request.keep else request.bytes,
        files=before.files if "files" in request.keep else request.files,
    )


class Service:
    """The operations of `labstead.accounts.protocol`.

    :param settings: accounts.yml
    :param ledger: the open ledger
    :param sessions_dir: where sessions' passwd and group files go
    :param today: gives the day
    """

    def __init__(
        self,
        settings: Accounts,
        ledger: Ledger,
        sessions_dir: Path = SESSIONS_DIR,
        today: Callable[[], date] = date.today,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._sessions_dir = sessions_dir
        self._today = today
        #: Held by whatever changes something. What takes long and changes nothing (PAM, look-ups) is outside.
        self._lock = threading.RLock()
        self._limits = Limits(settings, ledger, self._lock)
        self._groups = Groups(settings, ledger, self._limits)
        self._making = Making(settings, ledger, self._limits)
        self._doors = Doors(settings, ledger, self._making, self._lock, self._require_open)

    def handle(self, request: protocol.Request, person: str | None = None, is_root: bool = True) -> Result:
        """Do what a request asks.

        :param person: who asks, where it is neither root nor the hub
        :param is_root: whether root asks
        :raises AccountRefused: when it cannot be done
        """
        match request:
            case protocol.Check(name=name):
                return protocol.Problem(problem=self._problem(name))
            case protocol.Show():
                return self._show(request)
            case protocol.ShowGroups(name=name):
                return self._groups.show(name, person)
            case protocol.OpenSession(name=name):
                return self._open_session(name)
            case protocol.Identify(uid=uid, name=identified):
                return self._identify(uid, identified)
            case protocol.CheckPassword(name=name, password=password):
                return self._settled(self._doors.check_password(name, password))
            case protocol.ShowSpaces(name=name):
                return self._show_spaces(name, person)
            case protocol.ShowLimits():
                return self._limits.said()
            case protocol.SetLimit():
                return self._set_limit(request)
            case protocol.FollowLimits(adopt=adopt, check=check):
                return self._limits.follow_all(adopt, check)
            case protocol.SetGroup(name=name) | protocol.ChangeMembers(group=name):
                before = self._members(name)
                with self._lock:
                    group = self._change(request, person, is_root)
                self._follow_group(name, before)
                return group
            case _:
                with self._lock:
                    result = self._change(request, person, is_root)
                return self._settled(result) if isinstance(result, protocol.Account) else result

    def _change(self, request: protocol.Request, person: str | None, is_root: bool) -> Result:
        match request:
            case protocol.Create(name=name, email=email):
                return self._create(name, email)
            case protocol.Add():
                return self._add(request)
            case protocol.Link():
                return self._link(request)
            case protocol.Expire(name=name, day=day):
                return self._expire(name, day)
            case protocol.Lock(name=name):
                return self._set_locked(self._find_person(name), "locked")
            case protocol.Unlock(name=name):
                account = self._find(name)
                self._require_not_expired(account)
                return self._set_locked(account, "")
            case protocol.Retire():
                return self._retire(request)
            case protocol.Arrive():
                return self._doors.arrive(request)
            case protocol.MakeCanary():
                return self._making.make(CANARY, "canary", "native")
            case protocol.RemoveCanary():
                return self._remove_canary()
            case protocol.SetGroup():
                return self._groups.set(request)
            case protocol.ChangeMembers():
                return self._groups.change_members(request, self._manager(request, person, is_root))
            case protocol.RemoveGroup(name=name):
                return self._groups.remove(name)
            case _:  # the others were answered before
                raise TypeError(request.op)

    # --- telling

    def _find(self, name: str) -> protocol.Account:
        account = self._ledger.find(name)
        if account is None:
            raise _unknown(name)
        return account

    def _find_person(self, name: str) -> protocol.Account:
        account = self._find(name)
        if account.kind == "canary":
            raise AccountRefused(Refusal.NOT_ALLOWED, f"{name} belongs to the self-check")
        return account

    def _seen(self, account: protocol.Account) -> protocol.Account:
        """Say that an account is closed on its day, even where nobody has written that down yet."""
        has_come = account.expires is not None and account.expires <= self._today()
        return account.model_copy(update={"locked": "expired"}) if has_come and not account.locked else account

    def _settled(self, account: protocol.Account) -> protocol.Account:
        """Have the disks follow where an account was made, taken in or removed; they are set outside of the lock."""
        if account.changed:
            if account.state == "retired":
                self._limits.release(account)
            else:
                self._limits.follow_person(account)
        return self._seen(account)

    def _show(self, request: protocol.Show) -> protocol.Accounts:
        if request.retired:
            return protocol.Accounts(accounts=self._ledger.retired(request.name))
        if request.name is not None:
            return protocol.Accounts(accounts=(self._seen(self._find(request.name)),))
        return protocol.Accounts(accounts=tuple(self._seen(account) for account in self._ledger.all()))

    def _problem(self, name: str) -> str | None:
        """Say why nobody can sign up with this name."""
        if problem := problem_with_name(name, self._settings.reserved_names):
            return problem
        # A name that the ledger knows or the machine knows is somebody's: only they or an administrator may use it.
        if self._ledger.find(name) or self._ledger.groups.find(name) or self._making.in_use(name):
            return f"The username {name} is taken; please choose another one."
        return None

    # --- making

    def _require_good(self, name: str, full_name: str | None, email: str | None) -> None:
        """Refuse details that the inventory could not give either."""
        try:
            DeclaredUser(name=name, full_name=full_name or "", email=email or "")
        except ValidationError as error:
            wrong = error.errors()[0]
            raise AccountRefused(Refusal.BAD_NAME, f"{wrong['input']!r} cannot be the {wrong['loc'][0]}") from None

    def _require_door(self, account: protocol.Account, door: Door) -> None:
        if account.door != door:
            raise AccountRefused(
                Refusal.TAKEN, f"{account.name} already comes in through the door {account.door}, not {door}"
            )

    def _create(self, name: str, email: str) -> protocol.Account:
        if problem := problem_with_name(name, self._settings.reserved_names):
            raise AccountRefused(Refusal.BAD_NAME, problem)
        self._require_good(name, None, email)
        account = self._making.make(name, "created", "native")
        self._require_not_expired(account)
        opened = self._set_locked(account, "")
        return self._details(opened, None, opened.email or email)

    def _add(self, request: protocol.Add) -> protocol.Account:
        if problem := problem_with_name(request.name, self._settings.reserved_names):
            raise AccountRefused(Refusal.BAD_NAME, problem)
        self._require_good(request.name, request.full_name, request.email)
        if self._ledger.find(request.name) is None:
            if request.door == "pam":
                raise AccountRefused(
                    Refusal.NOT_ALLOWED,
                    "labstead keeps no passwords for the door pam; make the account where the institute's accounts are"
                    f" kept, or in Debian's way, and then: labstead user link {request.name} --door pam",
                )
            if request.door not in self._settings.doors:
                raise AccountRefused(Refusal.NOT_ALLOWED, f"the hub has no door {request.door}; see hub_doors")
        account = self._making.make(request.name, "created", request.door)
        return self._details(account, request.full_name, request.email)

    def _link(self, request: protocol.Link) -> protocol.Account:
        name = request.name
        if not is_unix_name(name) or name == CANARY:
            raise AccountRefused(Refusal.BAD_NAME, f"{name} cannot be the name of an account of the hub")
        self._require_good(request.name, request.full_name, request.email)
        account = self._ledger.find(name)
        if account is None:
            account = self._making.link(name, request.door)
        else:
            if account.kind != "linked":
                self._require_door(account, request.door)
            # One that labstead began to make is made to the end.
            account = self._making.finish(account)
            if account.door != request.door:
                self._ledger.set_door(name, request.door)
                account = account.model_copy(update={"door": request.door, "changed": True})
        return self._details(account, request.full_name, request.email)

    def _details(self, account: protocol.Account, full_name: str | None, email: str | None) -> protocol.Account:
        changed = self._making.set_details(account, full_name, email)
        return changed.model_copy(update={"changed": changed.changed or account.changed})

    # --- closing and opening

    def _require_not_expired(self, account: protocol.Account) -> None:
        if account.expires is not None and account.expires <= self._today():
            raise AccountRefused(
                Refusal.LOCKED,
                f"{account.name} expired on {account.expires}; set another day first: "
                f"labstead user expire {account.name} never",
            )

    def _require_open(self, account: protocol.Account) -> None:
        """Refuse somebody whose account the ledger closes."""
        locked = self._seen(account).locked
        if locked == "expired":
            raise AccountRefused(
                Refusal.LOCKED, f"the account {account.name} expired on {account.expires}; ask an administrator"
            )
        if locked:
            raise AccountRefused(Refusal.LOCKED, f"the account {account.name} is locked; ask an administrator")

    def _set_locked(self, account: protocol.Account, locked: Locked) -> protocol.Account:
        self._ledger.set_locked(account.name, locked)
        return self._follow_lock(account, account.model_copy(update={"locked": locked}))

    def _follow_lock(self, before: protocol.Account, account: protocol.Account) -> protocol.Account:
        if account.locked:
            session_files.remove(account.name, self._sessions_dir)
        followed = machine.follow_lock(account)
        is_other = (before.locked, before.expires) != (account.locked, account.expires)
        return account.model_copy(update={"changed": before.changed or followed or is_other})

    def _expire(self, name: str, day: date | None) -> protocol.Account:
        account = self._find_person(name)
        locked: Locked = account.locked
        if locked != "locked":
            locked = "expired" if day is not None and day <= self._today() else ""
        self._ledger.set_expiry(name, day, locked)
        return self._follow_lock(account, account.model_copy(update={"expires": day, "locked": locked}))

    # --- removing

    def _retire(self, request: protocol.Retire) -> protocol.Account:
        name = request.name
        account = self._find(name)
        if account.kind == "canary":
            raise AccountRefused(Refusal.NOT_ALLOWED, f"{name} belongs to the self-check, which removes it itself")
        if account.kind == "created":
            self._require_removable(account, request.home_may_be_missing)
        session_files.remove(name, self._sessions_dir)
        if account.kind == "created" and self._is_own(account):
            # Closed first: if what follows is cut off, nobody comes in meanwhile.
            account = self._set_locked(account, account.locked or "locked")
            # Before the Unix account goes: what cannot be moved keeps its owner.
            for folder in self._folders(account):
                homes.set_aside(folder, account.uid)
            machine.remove_user(account)
        left = self._ledger.groups.of_member(name)
        self._ledger.retire(name)
        self._groups.follow_person(left)
        return account.model_copy(update={"state": "retired", "changed": True})

    def _is_own(self, account: protocol.Account) -> bool:
        """Tell whether the machine's account of this name, if any, is the ledger's; another one is left alone."""
        entry = machine.user(account.name)
        return entry is None or entry.pw_uid == account.uid

    def _require_removable(self, account: protocol.Account, home_may_be_missing: bool) -> None:
        """Refuse what could not be removed whole, before anything is changed."""
        if processes := machine.processes_of(account.uid):
            count, first = len(processes), ", ".join(str(number) for number in processes[:5])
            raise AccountRefused(
                Refusal.FAILED, f"{count} processes of {account.name} still run ({first}); stop their session and jobs"
            )
        if not home_may_be_missing:
            homes.require_for_removal(self._settings.home_root, account)
        for folder in self._folders(account):
            homes.require_room(folder.parent, account.uid)

    def _folders(self, account: protocol.Account) -> list[Path]:
        """Give home and scratch of an account, as far as the folders of its name are its."""
        roots = [root for root in (self._settings.home_root, self._settings.scratch_root) if root is not None]
        folders = [root / account.name for root in roots]
        return [f for f in folders if f.is_dir() and not f.is_symlink() and f.stat().st_uid == account.uid]

    def _remove_canary(self) -> protocol.Problem:
        """Remove the self-check's account; its uid stays its own for the next check."""
        account = self._ledger.find(CANARY)
        if account is not None:
            machine.remove_user(account)
            for folder in self._folders(account):
                homes.delete(folder)
            for kind in ("home", "scratch"):
                self._limits.forget(kind, account.uid)
            session_files.remove(CANARY, self._sessions_dir)
        return protocol.Problem(problem=None)

    # --- limits

    def _show_spaces(self, name: str | None, person: str | None) -> protocol.Spaces:
        if person is not None and name not in (None, person):
            raise AccountRefused(Refusal.NOT_ALLOWED, f"{person} may not see what others have")
        whose = name if person is None else person
        if whose is None:
            accounts = [account for account in self._ledger.all() if account.kind != "canary"]
            return self._limits.show(accounts, self._ledger.groups.all())
        account = self._ledger.find(whose)
        if account is None and person is None:
            raise _unknown(whose)
        return self._limits.show([account] if account is not None else [], self._groups.of(whose))

    def _set_limit(self, request: protocol.SetLimit) -> protocol.Spaces:
        name, spaces = request.name, self._ledger.spaces
        with self._lock:
            if request.kind == "group" or request.of_members:
                accounts, groups = self._set_limit_of_group(request)
            else:
                account = self._find_person(name)
                self._limits.require_able(request, account)
                spaces.set_limit(request.kind, account.uid, _kept(request, spaces.said(request.kind, account.uid)))
                accounts, groups = [account], []
        return self._limits.follow(accounts, groups)

    def _set_limit_of_group(self, request: protocol.SetLimit) -> tuple[list[protocol.Account], list[GroupRow]]:
        """Note what is said of a group's folder or of its members' spaces; give whose limits follow from that."""
        row = self._ledger.groups.find(request.name)
        if row is None:
            raise AccountRefused(
                Refusal.UNKNOWN, f"{request.name} is not a group of the hub; see `labstead group list`"
            )
        self._limits.require_able(request)
        spaces = self._ledger.spaces
        if request.kind == "group":
            spaces.set_limit("group", row.gid, _kept(request, spaces.said("group", row.gid)))
        else:
            before = spaces.member_limits().get(row.id, {}).get(request.kind, Limit())
            spaces.set_member_limit(row, request.kind, _kept(request, before))
        return self._limits.members(row), [row]

    def _members(self, name: str) -> set[str]:
        row = self._ledger.groups.find(name)
        return set(self._ledger.groups.members(row)) if row is not None else set()

    def _follow_group(self, name: str, before: Collection[str]) -> None:
        """Have the disks follow where people came into a group or left it."""
        row = self._ledger.groups.find(name)
        if row is None:
            return
        changed = self._members(name).symmetric_difference(before)
        accounts = [account for account in self._ledger.all() if account.name in changed]
        self._limits.try_to_follow(accounts if row.kind == "created" else self._limits.members(row), [row])

    # --- sessions

    def _find_open(self, name: str) -> protocol.Account:
        account = self._ledger.find(name)
        if account is None or account.state != "active":
            raise AccountRefused(Refusal.UNKNOWN, f"{name} is not an account of the hub; ask an administrator")
        self._require_open(account)
        return account

    def _identify(self, uid: int | None, name: str | None) -> Identity:
        if uid is not None:
            name = machine.name_of(uid)
        if name is None:
            raise AccountRefused(Refusal.UNKNOWN, f"uid {uid} has no name on this machine")
        account = self._find_open(name)
        if uid not in (None, account.uid):
            raise AccountRefused(Refusal.TAKEN, f"uid {uid} is {name} here, but not in the ledger; mend one of them")
        return self._person(account)

    def _open_session(self, name: str) -> Identity:
        try:
            account = self._find_open(name)
            person = self._person(account)
            groups = self._ledger.groups.all()
            files = session_files.passwd_and_group(person, self._ledger.all(), groups, self._settings.home_root)
            # The look-ups above may take long; meanwhile somebody may have closed the account.
            with self._lock:
                again = self._ledger.find(name)
                if again is None or again.uid != account.uid:
                    raise AccountRefused(Refusal.UNKNOWN, f"{name} is not an account of the hub; ask an administrator")
                self._require_open(again)
                session_files.write(person, files, self._sessions_dir)
        except AccountRefused:
            if is_unix_name(name):
                session_files.remove(name, self._sessions_dir)
            raise
        self._limits.follow_person(account)
        return person

    def _person(self, account: protocol.Account) -> Identity:
        person = identity.look_up(account.name)
        entry = machine.own_entry(account)
        if entry is None:
            raise AccountRefused(Refusal.UNKNOWN, f"{account.name} has no account on this machine")
        if account.kind == "linked" and self._ledger.was_given(person.gid):
            raise AccountRefused(Refusal.TAKEN, f"gid {person.gid} of {account.name} is another group's in the ledger")
        homes.require(entry)
        if machine.is_locked(account.name):
            raise AccountRefused(Refusal.LOCKED, f"the account {account.name} is locked; ask an administrator")
        return person

    # --- groups

    def _manager(self, request: protocol.ChangeMembers, person: str | None, is_root: bool) -> str | None:
        """Say for whom a change of members is asked; None for root."""
        if person is not None:
            if request.manager not in (None, person):
                raise AccountRefused(Refusal.NOT_ALLOWED, f"{person} may not speak for {request.manager}")
            manager = person
        elif request.manager is not None:
            manager = request.manager
        elif is_root:
            return None
        else:
            raise AccountRefused(Refusal.NOT_ALLOWED, "the hub must say for which manager it asks")
        account = self._ledger.find(manager)
        if account is not None:
            self._require_open(account)
            machine.own_entry(account)
        return manager
