"""Who has which spaces, and how much they may hold.

The one rule: what is said of a space itself comes before what its owner's groups say of their members' spaces, of
which the largest counts, and that before what accounts.yml says; bytes and files each on their own.
"""

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from labstead import settings
from labstead.accounts import machine
from labstead.accounts.group_ledger import GroupRow
from labstead.accounts.ledger import Ledger
from labstead.accounts.protocol import Account
from labstead.disks import probe
from labstead.disks.backend import Limit, Place, rounded
from labstead.settings import Accounts, SpaceKind

SaidBy = Literal["site", "group", "own"]

KINDS: tuple[SpaceKind, ...] = ("home", "group", "scratch")


def _largest(amounts: Iterable[int | None]) -> int | None:
    """Give the largest of what was said; 0, no limit, is larger than all. None where nothing was."""
    said = [amount for amount in amounts if amount is not None]
    return None if not said else 0 if 0 in said else max(said)


def effective(own: settings.Limit, groups: Sequence[settings.Limit], site: settings.Limit) -> tuple[Limit, SaidBy]:
    """Give the limit that holds, and who says that of bytes.

    :param own: what is said of the space itself
    :param groups: what its owner's groups say
    :param site: what holds where nobody says anything
    """
    of_groups = settings.Limit(bytes=_largest(g.bytes for g in groups), files=_largest(g.files for g in groups))
    layers = (own, of_groups, site)
    size = next((layer.bytes for layer in layers if layer.bytes is not None), 0)
    files = next((layer.files for layer in layers if layer.files is not None), 0)
    said_by: SaidBy = "own" if own.bytes is not None else "group" if of_groups.bytes is not None else "site"
    return Limit(rounded(size) if size else None, files or None), said_by


def total(limits: Collection[Limit]) -> Limit:
    """Add limits up; with one that is none, there is none."""
    sizes, files = [limit.bytes for limit in limits], [limit.files for limit in limits]
    return Limit(
        bytes=None if None in sizes else sum(size or 0 for size in sizes),
        files=None if None in files else sum(number or 0 for number in files),
    )


@dataclass(frozen=True)
class Space:
    """A space that somebody has, or is to have."""

    kind: SpaceKind
    name: str
    number: int
    """uid, or gid of a group."""
    path: Path
    is_on_disk: bool
    """It lies on the disk of its kind, not on one that is mounted in its place, or somewhere else."""
    wanted: Limit
    said_by: SaidBy
    project: int | None
    """None: it has none yet."""

    def is_there(self) -> bool:
        """Tell whether its folder is there and theirs."""
        try:
            found = self.path.lstat()
        except OSError:
            return False
        owner = found.st_gid if self.kind == "group" else found.st_uid
        return stat.S_ISDIR(found.st_mode) and owner == self.number

    def place(self) -> Place | None:
        """Give it as its disk knows it; None where its disk cannot know it."""
        return Place(self.path, self.project) if self.is_on_disk and self.project is not None else None


def root_of(accounts: Accounts, kind: SpaceKind) -> Path | None:
    """Say in which folder the spaces of a kind are; None where there are none."""
    return {"home": accounts.home_root, "group": accounts.group_root, "scratch": accounts.scratch_root}[kind]


class Census:
    """Who has what, as the ledger says at one moment.

    :param accounts: accounts.yml
    :param ledger: the open ledger
    """

    def __init__(self, accounts: Accounts, ledger: Ledger) -> None:
        self._settings = accounts
        self._rows = {row.id: row for row in ledger.groups.all()}
        self._members = ledger.groups.memberships()
        self._member_limits = ledger.spaces.member_limits()
        self._known = ledger.spaces.all()
        self._were_in = ledger.spaces.writers()

    @cached_property
    def _mounts(self) -> set[Path]:
        roots = {root_of(self._settings, kind) for kind in KINDS}
        return {point for point in probe.mount_points() if point.parent in roots}

    def _space(
        self, kind: SpaceKind, name: str, number: int, path: Path, groups: Sequence[settings.Limit] = ()
    ) -> Space:
        row = self._known.get((kind, number))
        own = row.said if row is not None else settings.Limit()
        wanted, said_by = effective(own, groups, self._settings.quotas.of(kind))
        is_on_disk = path.parent == root_of(self._settings, kind) and path not in self._mounts
        return Space(kind, name, number, path, is_on_disk, wanted, said_by, row.project if row is not None else None)

    def folder(self, row: GroupRow) -> Space:
        """Give a group's folder."""
        return self._space("group", row.name, row.gid, self._settings.group_root / row.name)

    def own(self, account: Account) -> Iterator[Space]:
        """Give somebody's home and scratch."""
        limited = self._groups_of(account, [self._rows[i] for i in self._member_limits if i in self._rows])
        said = [self._member_limits[group_id] for group_id in limited]
        if (home := self._home(account)) is not None:
            limits = [limit["home"] for limit in said if "home" in limit]
            yield self._space("home", account.name, account.uid, home, limits)
        if (root := self._settings.scratch_root) is not None:
            limits = [limit["scratch"] for limit in said if "scratch" in limit]
            yield self._space("scratch", account.name, account.uid, root / account.name, limits)

    def _home(self, account: Account) -> Path | None:
        if account.kind != "linked":
            return self._settings.home_root / account.name
        entry = machine.user(account.name)
        return Path(os.path.normpath(entry.pw_dir)) if entry is not None else None

    def _groups_of(self, account: Account, rows: Collection[GroupRow]) -> set[int]:
        """Give the ids of those of the groups that somebody is in; of linked ones the machine says so."""
        own = self._members.get(account.name, set())
        found = {row.id for row in rows if row.kind == "created" and row.id in own}
        linked = [row for row in rows if row.kind == "linked"]
        if linked and (entry := machine.user(account.name)) is not None:
            gids = machine.gids_of(entry)
            found |= {row.id for row in linked if row.gid in gids}
        return found

    def is_in(self, account: Account, row: GroupRow) -> bool:
        """Tell whether somebody is in a group."""
        return row.id in self._groups_of(account, [row])

    def groups_of(self, account: Account) -> set[int]:
        """Give the ids of the groups with folders that somebody is in."""
        return self._groups_of(account, self._rows.values())

    def written(self, account: Account, is_in: Collection[int]) -> list[Space]:
        """Give the spaces that somebody may write to, and those of groups that they left: their files there stay."""
        ids = {*is_in, *self._were_in.get(account.uid, ())} & self._rows.keys()
        return [*self.own(account), *(self.folder(self._rows[group_id]) for group_id in sorted(ids))]
