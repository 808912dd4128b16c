"""What a session's /etc/passwd and /etc/group say.

The one rule: names and numbers, nothing more. They name the system's fixed ids (Debian: 0-99 and nobody), the person,
the people of the hub and who shares a group with the person, so that `ls -l` shows names and `share` knows them; full
names and the members of other people's groups stay out.
"""

import grp
import pwd
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from labstead.accounts.group_ledger import GroupRow
from labstead.accounts.protocol import Account
from labstead.identity import Identity, named_groups

_FIXED = 100
_MOST_STRANGERS = 500
"""How many people of shared groups who are not the hub's are looked up; a directory's groups may be large."""

_SHELL = "/bin/sh"

_PASSWD, _GROUP = Path("/etc/passwd"), Path("/etc/group")


def entries(path: Path) -> list[list[str]]:
    """Give the entries of /etc/passwd or /etc/group, but for those of NIS (`+`) and broken ones."""
    fields = 7 if path == _PASSWD else 4
    lines = (line.split(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [line for line in lines if len(line) == fields and line[2].isdigit()]


def _strangers(groups: Iterable[grp.struct_group], known: Iterable[str]) -> Iterator[pwd.struct_passwd]:
    """Give those who share a group and are not the hub's."""
    names = sorted({member for group in groups for member in group.gr_mem} - set(known))
    for name in names[:_MOST_STRANGERS]:
        try:
            yield pwd.getpwnam(name)
        except KeyError:  # a member that no longer exists
            continue


def passwd_and_group(
    person: Identity, people: Iterable[Account], groups: Iterable[GroupRow], home_root: Path
) -> tuple[str, str]:
    """Write the two files.

    :param person: whose session it is
    :param people: accounts of the hub
    :param groups: groups with folders
    :return: their content, passwd(5) and group(5)
    """
    # What the machine itself has, from its own files: to ask a directory for each of many people would take too long.
    local = {name: (int(uid), int(gid), home) for name, _, uid, gid, _, home, _ in entries(_PASSWD)}
    own = named_groups(person.groups)
    users = {name: about for name, about in local.items() if about[0] < _FIXED or name == "nobody"}
    everybody = [account for account in people if account.state == "active"]
    for account in everybody:
        home = local[account.name][2] if account.name in local else str(home_root / account.name)
        users[account.name] = (account.uid, account.gid, home)
    for entry in _strangers(own, users):
        users[entry.pw_name] = (entry.pw_uid, entry.pw_gid, entry.pw_dir)
    users.pop(person.name, None)
    lines = [f"{name}:x:{uid}:{gid}::{home}:{_SHELL}\n" for name, (uid, gid, home) in users.items()]
    passwd = "".join(lines) + f"{person.name}:x:{person.uid}:{person.gid}::{person.home}:{person.shell}\n"

    # Members of other groups than one's own are no business of a session.
    names = {group.gr_gid: f"{group.gr_name}:x:{group.gr_gid}:{','.join(group.gr_mem)}" for group in own}
    for name, _, number, _ in entries(_GROUP):
        if int(number) < _FIXED or name == "nogroup":
            names.setdefault(int(number), f"{name}:x:{number}:")
    for row in groups:
        names.setdefault(row.gid, f"{row.name}:x:{row.gid}:")
    for account in everybody:
        if account.kind != "linked":
            names.setdefault(account.gid, f"{account.name}:x:{account.gid}:")
    for group in named_groups({gid for _, gid, _ in users.values()} - set(names)):
        names[group.gr_gid] = f"{group.gr_name}:x:{group.gr_gid}:"
    return passwd, "".join(f"{line}\n" for line in names.values())


def write(person: Identity, files: tuple[str, str], directory: Path) -> None:
    """Put a session's files in place.

    :param directory: folder of all sessions' files
    """
    folder = directory / person.name
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # the gate looks whether there is a session to start
    for name, content in zip(("passwd", "group"), files, strict=True):
        new = folder / f".{name}.new"
        new.write_text(content, encoding="utf-8")
        new.chmod(0o644)
        new.rename(folder / name)


def remove(name: str, directory: Path) -> None:
    """Remove somebody's files; without them the gate starts no session."""
    shutil.rmtree(directory / name, ignore_errors=True)
