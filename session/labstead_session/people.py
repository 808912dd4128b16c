"""With whom something is shared: a person, a group, or everyone.

The one rule: a name means somebody only where the machine knows them as a person or a group of people; the numbers of
the system's own are nobody's to share with.
"""

import grp
import os
import pwd
from dataclasses import dataclass, replace
from functools import cache, cached_property, reduce
from operator import and_, or_

from labstead_session.acl import WRITE, Acl
from labstead_session.errors import Mistake

EVERYONE = "everyone"
_FIRST_PERSON = 1000
"""Lowest uid and gid of people on Debian (adduser.conf(5))."""


@dataclass(frozen=True, order=True)
class Who:
    """Somebody with whom something is shared."""

    kind: str
    """user, group or everyone."""
    id: int
    """uid or gid; 0 for everyone."""
    name: str

    def __str__(self) -> str:
        return f"group {self.name}" if self.kind == "group" else self.name

    @cached_property
    def known_groups(self) -> frozenset[int]:
        """Give the groups of a person as far as this machine, or the list of a session, tells."""
        try:
            return frozenset(os.getgrouplist(self.name, pwd.getpwnam(self.name).pw_gid))
        except KeyError:
            return frozenset()

    def is_in(self, other: "Who") -> bool:
        """Tell whether what another one may do is theirs too."""
        if other.kind == EVERYONE:
            return True
        return self.kind == "user" and other.kind == "group" and other.id in self.known_groups


def _user(name: str) -> Who | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    if entry.pw_uid < _FIRST_PERSON or entry.pw_name == "nobody":
        raise Mistake(f"{name} is an account of the system; give the name of a person, of a group, or {EVERYONE}")
    if entry.pw_uid == os.getuid():
        raise Mistake(f"{name} is you; give the name of somebody else")
    return Who("user", entry.pw_uid, entry.pw_name)


def _group(name: str) -> Who | None:
    try:
        entry = grp.getgrnam(name)
    except KeyError:
        return None
    if entry.gr_gid < _FIRST_PERSON or entry.gr_name == "nogroup":
        raise Mistake(f"{name} is a group of the system; give the name of a person, of a group, or {EVERYONE}")
    return Who("group", entry.gr_gid, entry.gr_name)


def resolve(name: str) -> Who:
    """Find who is meant by a name; `user:NAME` and `group:NAME` say which kind where there are both.

    :raises Mistake: when there is nobody of that name
    """
    if name == EVERYONE:
        return Who(EVERYONE, 0, EVERYONE)
    kind, colon, rest = name.partition(":")
    if colon and kind not in ("user", "group"):
        raise Mistake(f"{name}: write user:NAME or group:NAME, or the name alone")
    found = None
    if not colon or kind == "user":
        found = _user(rest if colon else name)
    if found is None and (not colon or kind == "group"):
        found = _group(rest if colon else name)
    if found is None:
        raise Mistake(f"nobody here is called {rest if colon else name}; look at `getent passwd` and `getent group`")
    return found


@cache
def is_private(gid: int) -> bool:
    """Tell whether a group is the caller's alone, as their own group of their own name is."""
    try:
        me = pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    if gid != me.pw_gid:
        return False
    try:
        entry = grp.getgrgid(gid)
    except KeyError:
        return gid == me.pw_uid
    return entry.gr_name == me.pw_name and set(entry.gr_mem) <= {me.pw_name}


def _by_entries(who: Who, acl: Acl, gid: int) -> int | None:
    """Give what the entries for somebody and for their groups say of a settled list; None where there is none."""
    groups = dict(acl.groups)
    if not is_private(gid):
        groups[gid] = groups.get(gid, 0) | acl.group
    if who.kind == "user":
        if who.id in acl.users:
            return acl.users[who.id]
        found = [rights for group, rights in groups.items() if group in who.known_groups]
    else:
        found = [groups[who.id]] if who.id in groups else []
    return reduce(or_, found) if found else None


def rights_of(who: Who, acl: Acl, gid: int) -> int:
    """Give what somebody else may do with a file, by acl(5); groups that are not known to be theirs do not count.

    :param gid: the file's group
    """
    acl = acl.settled()
    if who.kind == EVERYONE:
        everybody = [*acl.users.values(), *acl.groups.values(), *([] if is_private(gid) else [acl.group])]
        return reduce(and_, everybody, acl.other)
    rights = _by_entries(who, acl, gid)
    return acl.other if rights is None else rights


def with_rights(acl: Acl, who: Who, rights: int, gid: int, explicit: bool, anew: bool) -> Acl:
    """Give a settled list in which somebody has these rights beside those that they had.

    :param gid: the file's group
    :param explicit: by an entry of theirs or of their groups, where they have the rights like everyone already
    :param anew: what the list gave them as one of many they could never use, and are not to have now
    """
    acl = acl.settled()
    if anew:
        had = (acl.users.get(who.id, 0) if who.kind == "user" else acl.groups.get(who.id, 0)) & ~WRITE
    else:
        had = rights_of(who, acl, gid)
        is_own = who.kind == EVERYONE or _by_entries(who, acl, gid) is not None
        if had & rights == rights and (is_own or not explicit):
            return acl
    # An entry of their own hides what they have through others.
    if who.kind == "user":
        return replace(acl, mask=None, users={**acl.users, who.id: had | rights}).settled()
    if who.kind == "group":
        return replace(acl, mask=None, groups={**acl.groups, who.id: had | rights}).settled()
    return replace(
        acl,
        mask=None,
        other=acl.other | rights,
        group=acl.group if is_private(gid) else acl.group | rights,
        users={uid: old | rights for uid, old in acl.users.items()},
        groups={group: old | rights for group, old in acl.groups.items()},
    ).settled()


def without(acl: Acl, who: Who) -> Acl:
    """Give a settled list without somebody's own entry."""
    acl = acl.settled()
    users = {uid: rights for uid, rights in acl.users.items() if who.kind != "user" or uid != who.id}
    groups = {gid: rights for gid, rights in acl.groups.items() if who.kind != "group" or gid != who.id}
    return replace(acl, mask=None, users=users, groups=groups).settled()
