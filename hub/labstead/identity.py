"""Who somebody is on this machine, as NSS tells it.

The one rule: nobody below uid 1000 and nobody without a login shell has a session, and no group below gid 1000
goes into one. Accounts service and gate both ask here, so that neither has to believe the hub.
"""

import grp
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from labstead.errors import AccountRefused, Refusal

FIRST_PERSON = 1000
"""Lowest uid and gid of people on Debian (adduser.conf(5)); below are the system's own."""

SESSIONS_DIR = Path("/run/labstead/sessions")
"""Where the accounts service puts each session's passwd and group files, a folder for each person."""

_NO_LOGIN = ("nologin", "false")


class Identity(BaseModel):
    """A person as the machine knows them: what a session runs as."""

    model_config = ConfigDict(frozen=True)

    name: str
    uid: int
    gid: int
    """Primary group; >= 1000."""
    groups: tuple[int, ...]
    """All their groups with gid >= 1000, the primary one too, in rising order."""
    home: Path
    shell: str


def look_up(name: str) -> Identity:
    """Give a person's identity.

    :raises AccountRefused: when NSS does not know them or a session as them would be wrong
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise AccountRefused(Refusal.UNKNOWN, f"{name} has no account on this machine") from None
    if entry.pw_uid < FIRST_PERSON or entry.pw_gid < FIRST_PERSON:
        raise AccountRefused(
            Refusal.NOT_ALLOWED, f"{name} is a system account (uid {entry.pw_uid}, gid {entry.pw_gid}): no session"
        )
    if Path(entry.pw_shell).name in _NO_LOGIN:
        raise AccountRefused(Refusal.LOCKED, f"{name} has no login shell ({entry.pw_shell}): no session")
    groups = {gid for gid in os.getgrouplist(name, entry.pw_gid) if gid >= FIRST_PERSON}
    return Identity(
        name=name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(sorted(groups)),
        home=Path(entry.pw_dir),
        shell=entry.pw_shell or "/bin/sh",
    )


def _people(groups: Iterable[grp.struct_group], person: Identity) -> list[pwd.struct_passwd]:
    names = {member for group in groups for member in group.gr_mem} | {person.name}
    entries = []
    for name in sorted(names):
        try:
            entries.append(pwd.getpwnam(name))
        except KeyError:  # a member that no longer exists
            continue
    return entries


def _named(gids: Iterable[int]) -> list[grp.struct_group]:
    """Give the groups that have a name; a person may be in some that have none."""
    found = []
    for gid in sorted(gids):
        try:
            found.append(grp.getgrgid(gid))
        except KeyError:
            continue
    return found


def passwd_and_group(person: Identity) -> tuple[str, str]:
    """Write what a session's /etc/passwd and /etc/group say.

    They name the system's fixed ids (Debian: 0-99 and nobody), the person, their groups, and the people who
    share those groups, so that `ls -l` in a group folder shows names. Nobody else is listed.

    :return: the two files' content, passwd(5) and group(5)
    """
    fixed_users = [entry for entry in pwd.getpwall() if entry.pw_uid < 100 or entry.pw_name == "nobody"]
    fixed_groups = [entry for entry in grp.getgrall() if entry.gr_gid < 100 or entry.gr_name == "nogroup"]
    groups = _named(person.groups)
    people = _people(groups, person)
    private = _named({entry.pw_gid for entry in people} - set(person.groups))
    passwd = "".join(
        f"{e.pw_name}:x:{e.pw_uid}:{e.pw_gid}:{e.pw_gecos}:{e.pw_dir}:{e.pw_shell}\n" for e in [*fixed_users, *people]
    )
    group = "".join(f"{g.gr_name}:x:{g.gr_gid}:{','.join(g.gr_mem)}\n" for g in [*groups, *private])
    # Members of system groups are no business of a session.
    system = "".join(f"{g.gr_name}:x:{g.gr_gid}:\n" for g in fixed_groups)
    return passwd, system + group
