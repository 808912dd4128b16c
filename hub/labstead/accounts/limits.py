"""How the disks are made to hold the limits, and what they count.

The one rule: whatever a disk has otherwise than the ledger and accounts.yml say is set, for all spaces or for one
person's, in the same way. A disk that is missing or cannot hold a limit is told of; it keeps nobody out.

Where a file system counts by user as well, somebody may own as much on it as all the spaces there may hold that they
write to: who gets a file out of the count of its folder gains nothing by it.
"""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labstead import disks, settings
from labstead.accounts import homes, protocol
from labstead.accounts.group_ledger import GroupRow
from labstead.accounts.ledger import Ledger
from labstead.accounts.protocol import Account
from labstead.accounts.spaces import KINDS, Census, Space, effective, root_of, total
from labstead.amounts import human_size
from labstead.disks.backend import NO_LIMIT, Backend, DiskError, Limit, Place, Report, Soft, Use
from labstead.errors import AccountRefused, Refusal
from labstead.settings import Accounts, SpaceKind

_PATIENCE_SECONDS = 20.0
"""How long somebody who comes in waits for limits of others that are being set."""
_MOST_PATIENCE_SECONDS = 600.0
_PROJECTS_TRIED = 24
"""How many projects are tried for a new place; as the steps double, that is more than sixteen million numbers."""
_MOST_NAMES = 3
_NOTHING = Use(0, 0)
_SLACK = 2**20
"""Bytes by which two counts of the same files may differ, as they are not read in one moment."""

_BUSY = protocol.Spaces(spaces=(), problems=("limits of others are still being set; what was said is noted",))

log = logging.getLogger("labstead.accounts")


@dataclass(frozen=True)
class _Person:
    """What somebody may own."""

    name: str
    spaces: Sequence[Space]
    """All that they may write to, wherever it lies."""
    has_left_files: bool
    """Files of theirs may lie in what is left of the folder of a group that was removed."""


@dataclass(frozen=True)
class _Disk:
    """A file system and the kinds of space that are on it."""

    backend: Backend
    kinds: frozenset[SpaceKind]
    problem: str | None

    def has(self, space: Space) -> bool:
        """Tell whether a space is on it."""
        return space.is_on_disk and space.kind in self.kinds

    def able(self, wanted: Limit) -> Limit:
        """Give of a limit what it can hold."""
        return wanted if self.backend.counts_files else Limit(wanted.bytes, None)


class _Problems(list[str]):
    """What could not be done, a line each."""

    @contextmanager
    def of(self, what: object) -> Iterator[None]:
        """Turn a disk's error into a line."""
        try:
            yield
        except (DiskError, OSError) as error:
            self.append(str(error) if isinstance(error, DiskError) else f"{what}: {error}")


def _told(space: Space, disk: _Disk | None, use: Use | None, limit: Limit) -> protocol.Space:
    return protocol.Space(
        kind=space.kind,
        name=space.name,
        path=str(space.path),
        used_bytes=use.bytes if use else None,
        used_files=use.files if use else None,
        limit_bytes=limit.bytes,
        limit_files=limit.files,
        said_by=space.said_by,
        file_system=disk.backend.kind if disk else "other",
    )


def _in_order(spaces: Collection[protocol.Space]) -> tuple[protocol.Space, ...]:
    return tuple(sorted(spaces, key=lambda space: (KINDS.index(space.kind), space.name)))


class Limits:
    """What keeps limits.

    :param settings: accounts.yml
    :param ledger: the open ledger
    :param folders: a lock that is held while folders are made and taken away
    """

    def __init__(self, settings: Accounts, ledger: Ledger, folders: AbstractContextManager[Any] | None = None) -> None:
        self._settings = settings
        self._ledger = ledger
        self._folders = folders or nullcontext()
        self._soft = Soft(settings.quotas.soft_percent, settings.quotas.grace_days)
        #: Held while limits are computed and set, so that whoever sets them last has seen the newest ledger.
        self._lock = threading.Lock()

    def _disks(self, problems: _Problems) -> list[_Disk]:
        """Find the disks of all spaces, each once."""
        backends: dict[int, Backend] = {}
        kinds: dict[int, set[SpaceKind]] = {}
        for kind in KINDS:
            if (root := root_of(self._settings, kind)) is not None:
                with problems.of(root):
                    backend = disks.find(root)
                    backends.setdefault(backend.device, backend)
                    kinds.setdefault(backend.device, set()).add(kind)
        found = []
        for device, backend in backends.items():
            with problems.of(backend.root):
                found.append(_Disk(backend, frozenset(kinds[device]), backend.problem()))
        return found

    # --- making and forgetting

    def maker(self, kind: SpaceKind, number: int, wanted: Limit = NO_LIMIT) -> Callable[[Path], None]:
        """Give what makes the empty folder of a space, for root alone.

        :param wanted: its limit, where that is already known
        """

        def make(folder: Path) -> None:
            self.require_mounted(kind, wanted)
            place = Place(folder, self._ledger.spaces.ensure(kind, number).project)
            backend = _find(folder.parent)
            if folder.is_dir() and not folder.is_symlink():  # left by a run that was cut off
                homes.delete(folder)
                if backend is not None:
                    _forget(backend, place)
            if backend is not None:
                try:
                    backend.make(self._unused(backend, place, kind, number))
                except DiskError as error:
                    log.warning("%s has no limit of its own: %s", folder, error)
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    return
            folder.mkdir(mode=0o700)

        return make

    def require_mounted(self, kind: SpaceKind, wanted: Limit = NO_LIMIT) -> None:
        """Refuse to make a place with a limit where none can hold.

        Its disk is not mounted, most likely: what was made here would be hidden as soon as it is, and in its way.

        :param wanted: its limit, where that is already known
        """
        root = root_of(self._settings, kind)
        for_all, _ = effective(settings.Limit(), (), self._settings.quotas.of(kind))
        if root is None or (for_all, wanted) == (NO_LIMIT, NO_LIMIT):
            return
        try:
            problem = disks.find(root).problem()
        except (DiskError, OSError) as error:
            problem = str(error)
        if problem is not None:
            raise AccountRefused(
                Refusal.FAILED,
                f"nothing is made in {root}, which cannot hold its limit; is its file system mounted? ({problem})",
            )

    def _unused(self, backend: Backend, place: Place, kind: SpaceKind, number: int) -> Place:
        """Give a place a project that counts nothing yet.

        A ledger from a backup is older than the disk, and gives numbers that are there already; those of another
        person would be in both counts.
        """
        for tried in range(_PROJECTS_TRIED):
            if not backend.is_used(place.project):
                return place
            row = self._ledger.spaces.renumber(self._ledger.spaces.ensure(kind, number), 2**tried)
            place = Place(place.path, row.project)
        return place

    def _make_scratch(self, account: Account) -> None:
        """Make somebody's scratch where it is missing; what is in its place stays there, and is told of."""
        for space in Census(self._settings, self._ledger).own(account):
            # Looked at before the lock is taken: on a disk that hangs, nobody else has to wait.
            if space.kind != "scratch" or not space.path.parent.is_dir() or space.is_there():
                continue
            with self._folders:
                # Another session of theirs may have made it meanwhile, and they may have been removed.
                known = self._ledger.find(account.name)
                if known is None or known.uid != account.uid or space.is_there():
                    continue
                if os.path.lexists(space.path):
                    log.warning("%s is in the place of scratch that would be %s's", space.path, account.name)
                else:
                    make = self.maker("scratch", account.uid, space.wanted)
                    homes.make(space.path, account.uid, account.gid, None, make)

    def forget(self, kind: SpaceKind, number: int) -> None:
        """Take away what a disk keeps of a space whose folder was deleted; its number stays its own."""
        root, row = root_of(self._settings, kind), self._ledger.spaces.find(kind, number)
        if root is not None and row is not None and (backend := _able(root)) is not None:
            _forget(backend, Place(homes.removed(root, number), row.project))

    def _forget_gone(self) -> None:
        """Take away what disks keep of spaces of which nothing is left."""
        gids = self._ledger.spaces.writers_of_retired().keys()
        for gid in gids - self._may_be_left(gids):
            self._ledger.spaces.forget_writers(gid)
        spaces = self._ledger.spaces.all()
        # Read after the spaces: whose space was there then is in the ledger by now.
        accounts, groups = self._ledger.all(), self._ledger.groups.all()
        used = {(kind, account.uid) for account in accounts for kind in ("home", "scratch")}
        used |= {("group", group.gid) for group in groups}
        for kind in KINDS:
            root = root_of(self._settings, kind)
            gone = [row for key, row in spaces.items() if key[0] == kind and key not in used]
            if not gone or root is None or (backend := _able(root)) is None:
                continue
            if (owners := _owners(root, kind)) is None:
                continue
            for row in gone:
                if row.number not in owners and _forget(backend, Place(homes.removed(root, row.number), row.project)):
                    self._ledger.spaces.remove(row)

    def _may_be_left(self, gids: Collection[int]) -> set[int]:
        """Give those of removed groups of whose folders something may be left; see `homes.removed`.

        That is all of them where the disk is not mounted, or holds no limits: what is left may lie on it.
        """
        root = self._settings.group_root
        if not gids or _able(root) is None:
            return set(gids)
        try:
            names = [entry.name for entry in os.scandir(root) if entry.name.startswith(".")]
        except OSError as error:
            log.warning("%s: %s", root, error)
            return set(gids)
        return {gid for gid in gids if any(name.endswith(f"-{gid}") for name in names)}

    def release(self, account: Account) -> None:
        """Take away the limits of somebody who is no longer of the hub."""
        problems = _Problems()
        # What is still being set by a ledger with them in it comes first: nobody would take it away later. It is waited
        # for as long as the caller can; then this is done all the same.
        with self._alone(_PATIENCE_SECONDS):
            census = Census(self._settings, self._ledger)
            for disk in self._disks(problems):
                if disk.problem is not None:
                    continue
                places = [place for space in census.own(account) if disk.has(space) and (place := space.place())]
                users = {account.uid: NO_LIMIT} if disk.backend.counts_users else {}
                with problems.of(disk.backend.root):
                    there = {place: NO_LIMIT for place in places if _is_place(disk.backend, place)}
                    disk.backend.set_limits(there, users, self._soft)
        for line in problems:
            log.warning("%s", line)

    # --- following

    def follow_person(self, account: Account) -> None:
        """Make somebody's scratch, and limits for them what they should be; what fails is told in the log alone."""
        try:
            self._make_scratch(account)
        except (AccountRefused, DiskError, OSError) as error:
            log.warning("scratch of %s: %s", account.name, error)
        self.try_to_follow([account])

    def try_to_follow(self, accounts: Sequence[Account], groups: Sequence[GroupRow] = ()) -> None:
        """Do what `follow` does; what fails is told in the log alone."""
        try:
            problems = self.follow(accounts, groups).problems
        except (DiskError, OSError) as error:
            problems = (str(error),)
        except Exception:  # whatever it is: somebody wants to come in
            log.exception("limits were not set")
            return
        for line in problems:
            log.warning("%s", line)

    def members(self, row: GroupRow) -> list[Account]:
        """Give the accounts of those who are in a group."""
        census = Census(self._settings, self._ledger)
        return [account for account in self._ledger.all() if census.is_in(account, row)]

    def follow(self, accounts: Sequence[Account], groups: Sequence[GroupRow] = ()) -> protocol.Spaces:
        """Make the disks' limits for people and for the folders of groups what they should be.

        :return: what was changed
        """
        with self._alone(_PATIENCE_SECONDS) as is_alone:
            return self._follow(accounts, groups) if is_alone else _BUSY

    def follow_all(self, adopt: bool, check: bool) -> protocol.Spaces:
        """Make all limits what they should be; see `protocol.FollowLimits`."""
        unable = self._adopt() if adopt and not check else {}
        if not check:
            self._forget_gone()
        with self._alone(_MOST_PATIENCE_SECONDS) as is_alone:
            everybody, groups = self._ledger.all(), self._ledger.groups.all()
            return self._follow(everybody, groups, check, unable) if is_alone else _BUSY

    @contextmanager
    def _alone(self, seconds: float) -> Iterator[bool]:
        """Wait for one's turn, for a bounded time; tell whether it came."""
        is_alone = self._lock.acquire(timeout=seconds)
        try:
            yield is_alone
        finally:
            if is_alone:
                self._lock.release()

    def _follow(
        self,
        accounts: Sequence[Account],
        groups: Sequence[GroupRow],
        check: bool = False,
        unable: Mapping[Path, str] | None = None,
    ) -> protocol.Spaces:
        """Make limits what they should be.

        :param unable: why folders could not be taken in; None where not everybody's limits are set
        """
        census, problems = Census(self._settings, self._ledger), _Problems()
        is_in = {account.uid: census.groups_of(account) for account in accounts}
        if not check:
            self._ledger.spaces.note_writers(is_in)
        spaces = [census.folder(row) for row in groups] + [s for account in accounts for s in census.own(account)]
        left = self._ledger.spaces.writers_of_retired()
        with_left_files = {uid for gid in self._may_be_left(left.keys()) for uid in left[gid]}
        people = {
            account.uid: _Person(
                account.name, census.written(account, is_in[account.uid]), account.uid in with_left_files
            )
            for account in accounts
        }
        changed: list[protocol.Space] = []
        advice: list[str] = []
        for disk in self._disks(problems):
            here = [space for space in spaces if disk.has(space)]
            if disk.problem is None:
                with problems.of(disk.backend.root):
                    report = _report(disk, here)
                    changed += self._set(disk, here, report, people, check, unable or {}, problems)
                    if unable is not None and disk.backend.counts_users:
                        everybody = [people[account.uid] for account in accounts if account.kind != "canary"]
                        advice += _loose(disk, everybody)
                        advice += self._of_others(disk, here, report)
            elif any(space.wanted != NO_LIMIT for space in here):
                problems.append(f"limits do not hold: {disk.problem}")
        return protocol.Spaces(spaces=_in_order(changed), problems=tuple(problems), advice=tuple(advice))

    def _set(
        self,
        disk: _Disk,
        spaces: Sequence[Space],
        report: Report,
        people: Mapping[int, _Person],
        check: bool,
        unable: Mapping[Path, str],
        problems: _Problems,
    ) -> list[protocol.Space]:
        """Set what differs on one disk; give the spaces whose limits were others."""
        places: dict[Place, Limit] = {}
        changed = []
        for space in spaces:
            wanted, place = disk.able(space.wanted), space.place()
            use = report.places.get(place.project) if place else None
            if place is None or use is None:
                if wanted != NO_LIMIT and space.is_there():
                    default = f"{space.path}: its limit does not hold yet; `labstead apply` takes the folder in"
                    problems.append(unable.get(space.path, default))
                continue
            if space.path in unable:
                problems.append(unable[space.path])
            if use.limit != wanted:
                changed.append(_told(space, disk, use, wanted))
            if self._differs(disk, use, wanted):
                places[place] = wanted
        if any(disk.able(space.wanted) != space.wanted for space in spaces):
            problems.append(f"{disk.backend.root}: {disk.backend.kind} does not limit the number of files")
        users = {}
        if disk.backend.counts_users:
            uses = {uid: report.users.get(uid, _NOTHING) for uid in people}
            totals = {uid: _total(disk, person, uses[uid].limit) for uid, person in people.items()}
            users = {uid: t for uid, t in totals.items() if t is not None and self._differs(disk, uses[uid], t)}
        if not check:
            disk.backend.set_limits(places, users, self._soft)
        return changed

    def _differs(self, disk: _Disk, use: Use, wanted: Limit) -> bool:
        # btrfs has no soft limits.
        return use.limit != wanted or (disk.backend.kind != "btrfs" and use.soft != self._soft.of(wanted))

    def _of_others(self, disk: _Disk, spaces: Sequence[Space], report: Report) -> Iterator[str]:
        """Say in whose homes and scratch more is counted than they own: somebody gave files of theirs to it.

        On the machine itself the owner of a file may say that it counts for any project. It is advice, as what root put
        there is counted so too; and it is not seen where they own as much elsewhere on the disk.
        """
        roots = " ".join(str(root_of(self._settings, kind)) for kind in KINDS if kind in disk.kinds)
        for space in spaces:
            if space.kind == "group" or (use := report.places.get(space.project or 0)) is None:
                continue
            more = use.bytes - report.users.get(space.number, _NOTHING).bytes
            if more > _SLACK:
                yield (
                    f"{space.path}: {human_size(more)} that are counted there belong to others; `find {roots} -xdev "
                    f"-type f ! -uid {space.number} -exec lsattr -pd {{}} + | grep {space.project}` finds them"
                )

    def _adopt(self) -> dict[Path, str]:
        """Take in the folders that were there before limits; say why one could not be."""
        problems, unable = _Problems(), {}
        census = Census(self._settings, self._ledger)
        spaces = [census.folder(row) for row in self._ledger.groups.all()]
        spaces += [space for account in self._ledger.all() for space in census.own(account)]
        for disk in self._disks(problems):
            for space in spaces if disk.problem is None else ():
                if not disk.has(space) or not space.is_there():
                    continue
                place = Place(space.path, self._ledger.spaces.ensure(space.kind, space.number).project)
                try:
                    if disk.backend.counts_users and not disk.backend.is_place(place):
                        # With a limit that is left of an earlier folder, not all might be taken in.
                        disk.backend.set_limits({place: NO_LIMIT}, {}, self._soft)
                    if disk.backend.adopt(place):
                        log.info("%s: taken in, it is counted on its own now", space.path)
                except (DiskError, OSError) as error:
                    unable[space.path] = str(error)
        return unable

    # --- telling

    def show(self, accounts: Sequence[Account], groups: Sequence[GroupRow]) -> protocol.Spaces:
        """Tell what people's spaces and the folders of groups hold and may hold."""
        census, problems = Census(self._settings, self._ledger), _Problems()
        spaces = [census.folder(row) for row in groups]
        for account in accounts:
            spaces += [s for s in census.own(account) if s.kind == "home" or s.is_there()]
        told = [_told(space, None, None, NO_LIMIT) for space in spaces if not space.is_on_disk]
        for disk in self._disks(problems):
            here = [space for space in spaces if disk.has(space)]
            report = Report()
            if disk.problem is None:
                with problems.of(disk.backend.root):
                    report = _report(disk, here)
            for space in here:
                use = report.places.get(space.project) if space.project is not None else None
                told.append(_told(space, disk, use, use.limit if use else NO_LIMIT))
        return protocol.Spaces(spaces=_in_order(told), problems=tuple(problems))

    def said(self) -> protocol.Limits:
        """Tell all that was said of limits."""
        rows, member_limits = self._ledger.groups.all(), self._ledger.spaces.member_limits()
        names = {("group", row.gid): row.name for row in rows}
        names |= {(kind, account.uid): account.name for account in self._ledger.all() for kind in ("home", "scratch")}
        said = [
            protocol.SaidLimit(kind=row.kind, name=names[key], bytes=row.said.bytes, files=row.said.files)
            for key, row in self._ledger.spaces.all().items()
            if key in names and (row.said.bytes, row.said.files) != (None, None)
        ]
        said += [
            protocol.SaidLimit(kind=kind, name=row.name, of_members=True, bytes=limit.bytes, files=limit.files)
            for row in rows
            for kind, limit in member_limits.get(row.id, {}).items()
        ]
        said.sort(key=lambda limit: (KINDS.index(limit.kind), limit.of_members, limit.name))
        return protocol.Limits(limits=tuple(said))

    def require_able(self, request: protocol.SetLimit, account: Account | None = None) -> None:
        """Refuse a limit that its disk cannot hold.

        :param account: whose space it is, where it is one person's
        """
        if not (request.bytes or request.files):
            return
        root = root_of(self._settings, request.kind)
        if root is None:
            raise _refused("this site has no scratch; see storage_scratch_root")
        for space in Census(self._settings, self._ledger).own(account) if account is not None else ():
            if space.kind == request.kind and not space.is_on_disk:
                raise _refused(f"{space.path} is not on the disk of {root}: labstead sets no limit there")
        try:
            backend = disks.find(root)
            problem = backend.problem()
        except DiskError as error:
            raise _refused(str(error)) from None
        if problem is not None:
            raise _refused(problem)
        if request.files and not backend.counts_files:
            raise _refused(f"{root} is {backend.kind}, which does not limit the number of files; give bytes alone")


def _find(folder: Path) -> Backend | None:
    """Give the disk of a folder; None where it cannot be found out."""
    try:
        return disks.find(folder)
    except (DiskError, OSError) as error:
        log.warning("%s: %s", folder, error)
        return None


def _able(folder: Path) -> Backend | None:
    """Give the disk of a folder if it can hold limits."""
    try:
        backend = disks.find(folder)
        return backend if backend.problem() is None else None
    except (DiskError, OSError) as error:
        log.warning("%s: %s", folder, error)
        return None


def _refused(words: str) -> AccountRefused:
    return AccountRefused(Refusal.NOT_ALLOWED, words)


def _total(disk: _Disk, person: _Person, now: Limit) -> Limit | None:
    """Give how much somebody may own on a disk; None where they have nothing there.

    :param now: how much they may own there now
    """
    here = [disk.able(space.wanted) for space in person.spaces if disk.has(space)]
    if not here:
        return None
    if any(space.kind == "home" and not space.is_on_disk for space in person.spaces):
        # That home may well lie on this disk, beside the place of homes: it would count, and lock its owner out.
        return NO_LIMIT
    wanted = total(here)
    if not person.has_left_files or "group" not in disk.kinds:
        return wanted
    return Limit(_larger(wanted.bytes, now.bytes), _larger(wanted.files, now.files))


def _larger(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _loose(disk: _Disk, people: Iterable[_Person]) -> Iterator[str]:
    """Say whose limits a disk holds by projects alone, as something that they write to there has none.

    What somebody may fill by an administrator's word for them alone is left out.
    """
    kinds = {"home": "homes", "group": "folders of groups", "scratch": "scratch"}
    names, reasons = [], set()
    for person in people:
        here = [space for space in person.spaces if disk.has(space)]
        free = [space for space in here if space.wanted.bytes is None]
        found = {
            kinds[space.kind] if space.said_by == "site" else f"the folder of {space.name}"
            for space in free
            if space.said_by == "site" or space.kind == "group"
        }
        if found and len(free) < len(here):
            names.append(person.name)
            reasons |= found
    if names:
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        yield (
            f"{disk.backend.root}: limits of {', '.join(names[:_MOST_NAMES])}{more} hold in sessions alone, as on the "
            f"same disk there is no limit for {', '.join(sorted(reasons))}"
        )


def _is_place(backend: Backend, place: Place) -> bool:
    """Tell whether a folder is a place; one that cannot be looked at is none."""
    try:
        return backend.is_place(place)
    except OSError as error:
        log.warning("%s: %s", place.path, error)
        return False


def _forget(backend: Backend, place: Place) -> bool:
    try:
        backend.forget(place)
    except (DiskError, OSError) as error:
        log.warning("what is left of the limit of %s stays: %s", place.path, error)
        return False
    return True


def _owners(root: Path, kind: SpaceKind) -> set[int] | None:
    """Give the uids, or gids, whose folders are in a folder; None where one of them does not say it.

    Somebody may have put a file system of their own (FUSE) over theirs, which root may not look into.
    """
    try:
        found = [Path(entry).lstat() for entry in os.scandir(root)]
    except OSError as error:
        log.warning("what is left of old limits below %s stays: %s", root, error)
        return None
    return {status.st_gid if kind == "group" else status.st_uid for status in found}


def _report(disk: _Disk, spaces: Sequence[Space]) -> Report:
    return disk.backend.report([place for space in spaces if (place := space.place())])
