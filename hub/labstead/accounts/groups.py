"""Groups with folders: what the accounts service does about them.

The one rule: the ledger says who is in a group that labstead made, /etc/group and the folder are made to follow; of a
group that was there before, labstead only makes the folder.
"""

import errno
import logging
import os
import struct
from collections.abc import Callable, Collection
from pathlib import Path

from labstead.accounts import homes, machine, protocol
from labstead.accounts.group_ledger import GroupRow
from labstead.accounts.ledger import Ledger
from labstead.accounts.limits import Limits
from labstead.errors import AccountRefused, Refusal
from labstead.identity import FIRST_PERSON
from labstead.names import is_unix_name, problem_with_name
from labstead.settings import Accounts

_MODE = 0o2770

#: acl(5) as the kernel keeps it in an extended attribute: version 2, then tag, permission and id of each entry. What
#: is made in the folder is writable for the group whatever umask its program has.
_ACL_USER, _ACL_GROUP, _ACL_OTHER, _NO_ID = 0x01, 0x04, 0x20, 0xFFFFFFFF
DEFAULT_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permission, _NO_ID)
    for tag, permission in ((_ACL_USER, 7), (_ACL_GROUP, 7), (_ACL_OTHER, 0))
)

_NOBODY = 65534
"""uid of nobody (Debian's base-passwd), as whom services run."""

log = logging.getLogger("labstead.accounts")


def make_folder(folder: Path, gid: int, make: Callable[[Path], None]) -> None:
    """Make a group's folder beside its place and move it there when it is whole.

    :param make: makes the empty folder, in place of what a run that was cut off left
    """
    new = folder.with_name(f".{folder.name}.new")
    make(new)
    try:
        os.setxattr(new, "system.posix_acl_default", DEFAULT_ACL)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        log.warning("%s has no ACLs: members must not use a umask that is stricter than 0007 there", folder.parent)
    os.chown(new, 0, gid)
    new.chmod(_MODE)
    new.rename(folder)


def _name_list(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


class Groups:
    """The operations about groups.

    :param settings: accounts.yml
    :param ledger: the open ledger
    :param limits: what makes their folders
    """

    def __init__(self, settings: Accounts, ledger: Ledger, limits: Limits) -> None:
        self._settings = settings
        self._ledger = ledger
        self._limits = limits
        self._rows = ledger.groups

    def folder(self, name: str) -> Path:
        """Say where a group's folder is."""
        return self._settings.group_root / name

    def _told(self, row: GroupRow, changed: bool = False) -> protocol.Group:
        members: tuple[str, ...]
        if row.kind == "created":
            members = self._rows.members(row)
        else:
            entry = machine.group(row.name)
            members = tuple(sorted(entry.gr_mem)) if entry else ()
        return protocol.Group(
            name=row.name,
            gid=row.gid,
            kind=row.kind,
            folder=str(self.folder(row.name)),
            members=members,
            declared=self._rows.declared(row),
            managers=self._rows.managers(row),
            created_at=row.created_at,
            changed=changed,
        )

    def _find(self, name: str) -> GroupRow:
        row = self._rows.find(name)
        if row is None:
            raise AccountRefused(Refusal.UNKNOWN, f"{name} is not a group of the hub; see `labstead group list`")
        return row

    # --- telling

    def show(self, name: str | None, person: str | None) -> protocol.Groups:
        """Tell about all groups or one; only about a person's own where there is one."""
        rows = self._rows.all() if person is None else self.of(person)
        if name is not None:
            rows = tuple(row for row in rows if row.name == name)
            if not rows:
                raise AccountRefused(Refusal.UNKNOWN, f"{name} is not a group of the hub; see `labstead group list`")
        return protocol.Groups(groups=tuple(self._told(row) for row in rows))

    def of(self, person: str) -> tuple[GroupRow, ...]:
        """Give the groups that somebody is in or manages."""
        entry = machine.user(person)
        unix = set(machine.groups_of(entry)) if entry else set()
        own = {row.name for row in self._rows.of_member(person)}
        return tuple(row for row in self._rows.all() if row.name in own or (row.kind == "linked" and row.name in unix))

    # --- making

    def set(self, request: protocol.SetGroup) -> protocol.Group:
        """Make a group with its folder, or bring one up to date."""
        self._check_people(request.declared or (), request.managers or ())
        row = self._rows.find(request.name)
        if row is not None and (row.kind == "linked") is not request.existing:
            how = "one that was there before" if row.kind == "linked" else "one that labstead made"
            raise AccountRefused(Refusal.TAKEN, f"the group {row.name} is {how}; say so in `existing`")
        if request.existing and (request.declared or request.managers):
            raise AccountRefused(
                Refusal.NOT_ALLOWED,
                f"the group {request.name} was there before: who is in it or manages it is not labstead's business",
            )
        if row is None:
            row = self._link(request.name) if request.existing else self._reserve(request.name)
        before = self._told(row)
        if not request.existing:
            if request.declared is not None:
                self._rows.declare(row, request.declared)
            if request.managers is not None:
                self._rows.set_managers(row, request.managers)
        followed = self._follow(row)
        after = self._told(self._find(row.name))
        return after.model_copy(update={"changed": followed or after != before})

    def _reserve(self, name: str) -> GroupRow:
        if problem := problem_with_name(name, self._settings.reserved_names):
            text = problem.replace("username", "group name").replace("A user", "A group")
            raise AccountRefused(Refusal.BAD_NAME, text)
        known = machine.known(name)
        if self._ledger.find(name) or known:
            raise AccountRefused(
                Refusal.TAKEN,
                f"{name} is already a {known or 'user'} of this machine"
                + ("; to give it a folder, say that it is an existing group" if known == "group" else ""),
            )
        self._require_room(name)
        first, last = self._settings.uid_min, self._settings.uid_max
        self._ledger.reserve_group(name, first, last, machine.number_taken)
        return self._find(name)

    def _link(self, name: str) -> GroupRow:
        if not is_unix_name(name):
            raise AccountRefused(Refusal.BAD_NAME, f"{name} cannot be the name of a folder for a group")
        entry = machine.group(name)
        if entry is None:
            raise AccountRefused(Refusal.UNKNOWN, f"this machine knows no group {name}")
        if entry.gr_gid < FIRST_PERSON:
            raise AccountRefused(Refusal.NOT_ALLOWED, f"{name} is a system group (gid {entry.gr_gid}): no folder")
        self._require_room(name)
        self._rows.insert(entry.gr_gid, name, "linked", "pending")
        return self._find(name)

    def _require_room(self, name: str) -> None:
        folder = self.folder(name)
        if folder.exists() or folder.is_symlink():
            raise AccountRefused(Refusal.TAKEN, f"{folder} exists; move it away first")
        self._limits.require_mounted("group")

    def _follow(self, row: GroupRow) -> bool:
        """Make Unix group and folder what the ledger says.

        :return: whether that was not so
        """
        changed = row.state == "pending"
        if row.kind == "created":
            entry = machine.group(row.name)
            if entry is None:
                machine.run(["groupadd", "--gid", str(row.gid), "--", row.name])
                entry = machine.group(row.name)
                changed = True
            if entry is None or entry.gr_gid != row.gid:
                here = entry.gr_gid if entry else "no gid"
                raise AccountRefused(
                    Refusal.TAKEN, f"the group {row.name} has {here} here but gid {row.gid} in the ledger"
                )
            changed |= machine.set_members(entry, self._rows.members(row))
        folder = self.folder(row.name)
        if row.state == "pending" and not folder.exists():
            make_folder(folder, row.gid, self._limits.maker("group", row.gid))
        self._require_folder(folder, row.gid)
        self._rows.activate(row)
        return changed

    def _require_folder(self, folder: Path, gid: int) -> None:
        if folder.is_symlink() or not folder.is_dir():
            raise AccountRefused(Refusal.FAILED, f"the folder {folder} is missing; is its file system mounted?")
        found = folder.stat()
        if (found.st_uid, found.st_gid) != (0, gid):
            raise AccountRefused(Refusal.TAKEN, f"{folder} belongs to somebody else; its owner must be root:{gid}")

    # --- members

    def _check_people(self, *lists: Collection[str]) -> None:
        """Refuse names that are nobody's on this machine."""
        names = {name for names in lists for name in names}
        unknown = {name for name in names if not self._is_person(name)}
        if unknown:
            raise AccountRefused(Refusal.UNKNOWN, f"no people of this machine: {_name_list(unknown)}")

    def _is_person(self, name: str) -> bool:
        if not is_unix_name(name):
            return False
        entry = machine.user(name)
        return entry is not None and FIRST_PERSON <= entry.pw_uid != _NOBODY

    def change_members(self, request: protocol.ChangeMembers, manager: str | None) -> protocol.Group:
        """Add people to a group and remove people from it.

        :param manager: for whom it is asked; None for root
        """
        row = self._rows.find(request.group)
        if manager is not None:
            row = self._managed(row, request.group, manager)
        if row is None:
            row = self._find(request.group)
        if row.kind == "linked":
            raise AccountRefused(
                Refusal.NOT_ALLOWED, f"the group {row.name} was there before: who is in it is not labstead's business"
            )
        self._check_people(request.add)
        if both := set(request.add) & set(request.remove):
            raise AccountRefused(Refusal.NOT_ALLOWED, f"both to be added and to be removed: {_name_list(both)}")
        if declared := set(request.remove) & set(self._rows.declared(row)):
            raise AccountRefused(
                Refusal.NOT_ALLOWED, f"the site's settings say that they are in {row.name}: {_name_list(declared)}"
            )
        before = self._rows.members(row)
        self._rows.change(row, request.add, request.remove)
        followed = self._follow(row)
        return self._told(row, changed=followed or self._rows.members(row) != before)

    def _managed(self, row: GroupRow | None, name: str, manager: str) -> GroupRow:
        if row is None or manager not in self._rows.managers(row):
            # The same words whether there is such a group or not.
            raise AccountRefused(Refusal.NOT_ALLOWED, f"{manager} does not manage a group {name}")
        return row

    # --- removing

    def remove(self, name: str) -> protocol.Group:
        """Remove a group for good; its folder is set aside."""
        row = self._find(name)
        told = self._told(row, changed=True)
        entry = machine.group(name)
        if row.kind == "created" and entry is not None and entry.gr_gid == row.gid:
            machine.run(["groupdel", "--", name])
        homes.set_aside(self.folder(name), row.gid)
        self._rows.retire(row)
        return told

    def follow_person(self, rows: Collection[GroupRow]) -> None:
        """Make the Unix groups follow after somebody left these."""
        for row in rows:
            entry = machine.group(row.name)
            if row.kind == "created" and entry is not None and entry.gr_gid == row.gid:
                machine.set_members(entry, self._rows.members(row))
