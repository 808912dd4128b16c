"""What the accounts service asks of the machine: NSS, and the system's own account tools.

The one rule: accounts are made, changed and removed with useradd(8) and its kin, so that subordinate ids, locks and
logs are as everywhere; and nothing is done to a name whose uid is not the one meant.
"""

import grp
import os
import pwd
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from labstead.accounts.protocol import Account
from labstead.errors import AccountRefused, Refusal

EXPIRED = "1"
"""Day of expiry of an account that labstead locked: 2 January 1970, as usermod(8) advises."""

PEOPLE_GROUP = "labstead-people"
"""Group of all whose account labstead made, where the machine has it."""

_NO_GROUP = 65534


def run(command: Sequence[str]) -> None:
    """Run one of the system's account tools; its own words go into the refusal."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise AccountRefused(Refusal.FAILED, f"{command[0]}: {words}")


def user(name: str) -> pwd.struct_passwd | None:
    """Give what NSS knows of a user."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def name_of(uid: int) -> str | None:
    """Give the name that NSS knows a uid by."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def group(name: str) -> grp.struct_group | None:
    """Give what NSS knows of a group."""
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None


def known(name: str) -> str | None:
    """Say what NSS knows by this name: a user, a group, or nothing."""
    if user(name):
        return "user"
    return "group" if group(name) else None


def number_taken(number: int) -> bool:
    """Tell whether the machine knows a number as uid or gid."""
    for look_up in (pwd.getpwuid, grp.getgrgid):
        try:
            look_up(number)
        except KeyError:
            continue
        return True
    return False


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def groups_that_name(name: str) -> tuple[str, ...]:
    """Give the groups that name somebody as a member, whether there is such a user or not."""
    return tuple(sorted(_group_name(gid) for gid in os.getgrouplist(name, _NO_GROUP) if gid != _NO_GROUP))


def gids_of(entry: pwd.struct_passwd) -> frozenset[int]:
    """Give the gids of all groups of a user, the primary one too."""
    return frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))


def groups_of(entry: pwd.struct_passwd) -> tuple[str, ...]:
    """Give all groups of a user, the primary one too."""
    return tuple(sorted(_group_name(gid) for gid in gids_of(entry)))


def own_entry(account: Account) -> pwd.struct_passwd | None:
    """Give the Unix account of an account of the ledger, or None.

    :raises AccountRefused: when the name is somebody else's here
    """
    entry = user(account.name)
    if entry is not None and entry.pw_uid != account.uid:
        raise AccountRefused(
            Refusal.TAKEN,
            f"{account.name} has uid {entry.pw_uid} here but {account.uid} in the ledger; mend one of them",
        )
    return entry


def make_user(account: Account, home: Path, shell: Path) -> None:
    """Make what is missing of somebody's private group and Unix account."""
    name, number = account.name, str(account.uid)
    private = group(name)
    if private is None:
        run(["groupadd", "--gid", number, "--", name])
    elif private.gr_gid != account.gid:
        raise AccountRefused(Refusal.TAKEN, f"group {name} has gid {private.gr_gid}, not {account.gid}")
    if own_entry(account) is None:
        # "*" is no password's hash: nobody can log in with one, and the account is not locked either.
        useradd = ["useradd", "--uid", number, "--gid", number, "--no-create-home", "--home-dir", str(home)]
        comment = ["--comment", account.full_name] if account.full_name else []
        people = ["--groups", PEOPLE_GROUP] if account.kind == "created" and group(PEOPLE_GROUP) else []
        run([*useradd, *comment, *people, "--shell", str(shell), "--password", "*", "--", name])


def remove_user(account: Account) -> None:
    """Remove somebody's Unix account and private group, as far as they are there."""
    if own_entry(account) is not None:
        run(["userdel", "--", account.name])
    private = group(account.name)
    if private is not None and private.gr_gid == account.gid:
        run(["groupdel", "--", account.name])


def set_full_name(account: Account) -> None:
    """Make the GECOS field of an account what the ledger says."""
    entry = own_entry(account)
    if entry is not None and entry.pw_gecos != account.full_name:
        run(["usermod", "--comment", account.full_name, "--", account.name])


def set_members(group: grp.struct_group, members: Collection[str]) -> bool:
    """Make a group have these members; those whom NSS does not know cannot be among them.

    :return: whether that was not so
    """
    wanted = sorted(name for name in members if user(name))
    if sorted(group.gr_mem) == wanted:
        return False
    run(["gpasswd", "--members", ",".join(wanted), group.gr_name])
    return True


def _shadow(name: str) -> tuple[str, str]:
    """Give password field and day of expiry of an account as shadow(5) has them; empty where there is no entry."""
    done = subprocess.run(["getent", "shadow", "--", name], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 2:  # no such key: a directory service that shows no shadow entries
        return "", ""
    if done.returncode:
        raise AccountRefused(Refusal.FAILED, f"getent shadow answers with exit code {done.returncode}")
    fields = done.stdout.rstrip("\n").split(":")
    return fields[1], fields[7]


def is_locked(name: str) -> bool:
    """Tell whether the Unix account is locked, by whomever.

    Locked is what `usermod --lock` or `--expiredate` in the past leaves. A password field of just `!` is an account
    that never had a password (keys only), which is not locked.
    """
    password, expires = _shadow(name)
    today = int(time.time() // 86400)
    return (expires != "" and int(expires) <= today) or (password.startswith("!") and password.strip("!") != "")


def was_locked_by_labstead(name: str) -> bool:
    """Tell whether the Unix account bears the mark of `follow_lock`."""
    return _shadow(name)[1] == EXPIRED


def adopt(name: str) -> bool:
    """Do for an account from before the ledger's version 2 what later ones have had from the start.

    :return: whether labstead had locked it
    """
    if user(name) is not None and group(PEOPLE_GROUP) is not None:
        run(["usermod", "--append", "--groups", PEOPLE_GROUP, "--", name])
    return was_locked_by_labstead(name)


def follow_lock(account: Account) -> bool:
    """Make a Unix account that labstead made as closed as the ledger says.

    A lock that an administrator of the machine set in another way stays.

    :return: whether that was not so
    """
    if account.kind != "created" or own_entry(account) is None:
        return False
    is_closed, should_be = was_locked_by_labstead(account.name), account.locked != ""
    if is_closed == should_be:
        return False
    # Expired, not only without a password: keys in ~/.ssh would still open it.
    run(["usermod", "--expiredate", EXPIRED if should_be else "", "--", account.name])
    return True


def processes_of(uid: int) -> tuple[int, ...]:
    """Give the processes that run as a uid, those in containers too."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it ended meanwhile
            continue
        line = next((line for line in status.splitlines() if line.startswith("Uid:")), "")
        if str(uid) in line.split()[1:]:
            found.append(int(entry.name))
    return tuple(sorted(found))
