"""What the accounts service does.

The one rule: an account that labstead did not make is never changed, and one that it made is never made twice.
Accounts are made with the system's own useradd(8), so that subordinate ids, locks and logs are as everywhere.
"""

import grp
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from labstead import identity
from labstead.accounts import protocol
from labstead.accounts.ledger import Kind, Ledger
from labstead.errors import AccountRefused, Refusal
from labstead.identity import SESSIONS_DIR, Identity
from labstead.names import CANARY, problem_with_name
from labstead.settings import Accounts

_EXPIRED = "1"
"""Day of expiry of an account that labstead locked: 2 January 1970, as usermod(8) advises."""


def _run(command: Sequence[str]) -> None:
    """Run one of the system's account tools; its own words go into the refusal."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise AccountRefused(Refusal.FAILED, f"{command[0]}: {words}")


def _known_to_nss(name: str) -> str | None:
    """Say what NSS knows by this name: a user, a group, or nothing."""
    for kind, look_up in (("user", pwd.getpwnam), ("group", grp.getgrnam)):
        try:
            look_up(name)
        except KeyError:
            continue
        return kind
    return None


def _number_taken(number: int) -> bool:
    for look_up in (pwd.getpwuid, grp.getgrgid):
        try:
            look_up(number)
        except KeyError:
            continue
        return True
    return False


def _shadow(name: str) -> tuple[str, str]:
    """Give password field and day of expiry of an account as shadow(5) has them; empty where there is no entry."""
    done = subprocess.run(["getent", "shadow", "--", name], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 2:  # no such key: a directory service that shows no shadow entries
        return "", ""
    if done.returncode:
        raise AccountRefused(Refusal.FAILED, f"getent shadow answers with exit code {done.returncode}")
    fields = done.stdout.rstrip("\n").split(":")
    return fields[1], fields[7]


def _is_locked(name: str) -> bool:
    """Tell whether an administrator locked the account.

    Locked is what `usermod --lock` or `--expiredate` in the past leaves. A password field of just `!` is an account
    that never had a password (keys only), which is not locked.
    """
    password, expires = _shadow(name)
    today = int(time.time() // 86400)
    return (expires != "" and int(expires) <= today) or (password.startswith("!") and password.strip("!") != "")


class Service:
    """The operations of `labstead.accounts.protocol`, one method each.

    :param settings: accounts.yml
    :param ledger: the open ledger
    :param sessions_dir: where sessions' passwd and group files go
    """

    def __init__(self, settings: Accounts, ledger: Ledger, sessions_dir: Path = SESSIONS_DIR) -> None:
        self._settings = settings
        self._ledger = ledger
        self._sessions_dir = sessions_dir

    def handle(self, request: protocol.Request) -> protocol.Problem | protocol.Account | protocol.Accounts | Identity:
        """Do what a request asks.

        :raises AccountRefused: when it cannot be done
        """
        match request:
            case protocol.Check(name=name):
                return protocol.Problem(problem=self._problem(name))
            case protocol.Create(name=name):
                return self._create(name)
            case protocol.Lock(name=name):
                return self._lock(name)
            case protocol.OpenSession(name=name):
                return self._open_session(name)
            case protocol.Link(name=name):
                return self._link(name)
            case protocol.Show(name=name):
                return self._show(name)
            case protocol.MakeCanary():
                return self._make(CANARY, "canary")
            case protocol.RemoveCanary():
                return self._remove_canary()

    def _problem(self, name: str) -> str | None:
        """Say why nobody can sign up with this name."""
        if problem := problem_with_name(name, self._settings.reserved_names):
            return problem
        # A name that the ledger knows or NSS knows is somebody's: only they or an administrator may use it.
        if self._ledger.find(name) or _known_to_nss(name):
            return f"The username {name} is taken; please choose another one."
        return None

    def _create(self, name: str) -> protocol.Account:
        if problem := problem_with_name(name, self._settings.reserved_names):
            raise AccountRefused(Refusal.BAD_NAME, problem)
        return self._make(name, "created")

    def _make(self, name: str, kind: Kind) -> protocol.Account:
        account = self._ledger.find(name)
        if account is None:
            if known := _known_to_nss(name):
                raise AccountRefused(Refusal.TAKEN, f"{name} is already a {known} of this machine")
            account = self._ledger.reserve(
                name, kind, self._settings.uid_min, self._settings.uid_max, taken=_number_taken
            )
        elif account.kind != kind and account.kind != "linked":
            raise AccountRefused(Refusal.TAKEN, f"{name} is already an account of the hub ({account.kind})")
        elif account.state == "active" and _known_to_nss(name) == "user":
            self._require_home(account)
            return self._unlock(account)
        elif account.kind == "linked":
            raise AccountRefused(Refusal.UNKNOWN, f"{name} no longer has the account that was linked")
        # Here the ledger row is ours and the account is missing or half made: a run that was cut off goes on.
        self._make_unix_account(account)
        self._ledger.set_state(account.uid, "active")
        return account.model_copy(update={"state": "active", "changed": True})

    def _lock(self, name: str) -> protocol.Account:
        account = self._ledger.find(name)
        if account is None:
            raise AccountRefused(Refusal.UNKNOWN, f"{name} is not an account of the hub")
        # Without these files the gate starts no session.
        shutil.rmtree(self._sessions_dir / name, ignore_errors=True)
        if account.kind != "created" or _shadow(name)[1] == _EXPIRED:
            return account
        # Expired, not only without a password: keys in ~/.ssh would still open it.
        _run(["usermod", "--expiredate", _EXPIRED, "--", name])
        return account.model_copy(update={"changed": True})

    def _unlock(self, account: protocol.Account) -> protocol.Account:
        """Open what `_lock` closed; a lock that an administrator of the machine set stays."""
        if account.kind != "created" or _shadow(account.name)[1] != _EXPIRED:
            return account
        _run(["usermod", "--expiredate", "", "--", account.name])
        return account.model_copy(update={"changed": True})

    def _require_home(self, account: protocol.Account) -> None:
        """Refuse an account whose number or home is not what the ledger says; a missing home is never made anew."""
        entry = pwd.getpwnam(account.name)
        if entry.pw_uid != account.uid:
            raise AccountRefused(
                Refusal.TAKEN,
                f"{account.name} has uid {entry.pw_uid} here but {account.uid} in the ledger; mend one of them",
            )
        home = Path(entry.pw_dir)
        if not home.is_dir():
            raise AccountRefused(Refusal.FAILED, f"the home {home} is missing; is its file system mounted?")
        if home.stat().st_uid != account.uid:
            raise AccountRefused(Refusal.TAKEN, f"{home} exists and belongs to somebody else; move it away first")

    def _make_unix_account(self, account: protocol.Account) -> None:
        name, number = account.name, str(account.uid)
        home = self._settings.home_root / name
        try:
            group = grp.getgrnam(name)
        except KeyError:
            _run(["groupadd", "--gid", number, "--", name])
        else:
            if group.gr_gid != account.gid:
                raise AccountRefused(Refusal.TAKEN, f"group {name} has gid {group.gr_gid}, not {account.gid}")
        if _known_to_nss(name) != "user":
            # "*" is no password's hash: nobody can log in with one, and the account is not locked either.
            useradd = ["useradd", "--uid", number, "--gid", number, "--no-create-home", "--home-dir", str(home)]
            _run([*useradd, "--shell", str(self._settings.shell), "--password", "*", "--", name])
        if not home.exists() and not home.is_symlink():
            self._make_home(home, account)
        self._require_home(account)

    def _make_home(self, home: Path, account: protocol.Account) -> None:
        """Make the home beside its place and move it there when it is whole."""
        new = home.with_name(f".{home.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        shutil.copytree(self._settings.skeleton, new, symlinks=True, dirs_exist_ok=True)
        for folder, _, files in os.walk(new):
            for path in (Path(folder), *(Path(folder, file) for file in files)):
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
        new.chmod(0o700)
        new.rename(home)

    def _link(self, name: str) -> protocol.Account:
        account = self._ledger.find(name)
        if account is not None:
            # One that labstead began to make is made to the end.
            return self._make(name, account.kind)
        person = identity.look_up(name)
        return self._ledger.link(name, person.uid, person.gid).model_copy(update={"changed": True})

    def _show(self, name: str | None) -> protocol.Accounts:
        if name is None:
            return protocol.Accounts(accounts=self._ledger.all())
        account = self._ledger.find(name)
        if account is None:
            raise AccountRefused(Refusal.UNKNOWN, f"{name} is not an account of the hub; see `labstead user list`")
        return protocol.Accounts(accounts=(account,))

    def _open_session(self, name: str) -> Identity:
        account = self._ledger.find(name)
        if account is None or account.state != "active":
            raise AccountRefused(Refusal.UNKNOWN, f"{name} is not an account of the hub; ask an administrator")
        try:
            person = self._person_for_session(account)
        except AccountRefused:
            # Without these files the gate starts no session.
            shutil.rmtree(self._sessions_dir / name, ignore_errors=True)
            raise
        self._write_session_files(person)
        return person

    def _person_for_session(self, account: protocol.Account) -> Identity:
        person = identity.look_up(account.name)
        self._require_home(account)
        if _is_locked(account.name):
            raise AccountRefused(Refusal.LOCKED, f"the account {account.name} is locked; ask an administrator")
        return person

    def _write_session_files(self, person: Identity) -> None:
        folder = self._sessions_dir / person.name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # the gate looks whether there is a session to start
        for name, content in zip(("passwd", "group"), identity.passwd_and_group(person), strict=True):
            new = folder / f".{name}.new"
            new.write_text(content, encoding="utf-8")
            new.chmod(0o644)
            new.rename(folder / name)

    def _remove_canary(self) -> protocol.Problem:
        """Remove the self-check's account; its uid stays its own for the next check."""
        if self._ledger.find(CANARY) is not None:
            if _known_to_nss(CANARY) == "user":
                _run(["userdel", "--", CANARY])
            if _known_to_nss(CANARY) == "group":
                _run(["groupdel", "--", CANARY])
            for folder in (self._settings.home_root / CANARY, self._sessions_dir / CANARY):
                if folder.exists():
                    shutil.rmtree(folder)
        return protocol.Problem(problem=None)
