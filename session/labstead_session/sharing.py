"""Sharing: from what somebody shares to the rights of their files, and back.

The one rule: the rights of a file are a pure function of those that it had before and of the shares; nothing is opened
that no share asks for, and what no share asks for any more is as it was.

A share lets somebody

- read its path and all below it, and what is put there later (a default list on each folder);
- pass through the folders on the way (the right to search, not to read), as far as they could not before.

A folder that is opened to pass through would lay bare what lies in it: mode 0664 in a home of mode 0700 is read by
nobody else, until somebody may pass through the home. So what lies in such a folder loses the rights of all who could
not pass before, what is made in it later starts without them, and both end with the last share.
"""

import datetime
import errno
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from labstead_session import files, people
from labstead_session.acl import READ, SEARCH, Acl
from labstead_session.errors import Hindered, Mistake
from labstead_session.files import Change, Node
from labstead_session.people import Who
from labstead_session.store import Record, Rights, Share, State, Store

_FLEETING = ("/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys")  # noqa: S108 - they are refused
_ALL = 7


@dataclass
class Report:
    """What was changed for one share, to be told to its owner."""

    share: Share
    files: int = 0
    folders: int = 0
    """That somebody may read, new or not."""
    passed: list[Path] = field(default_factory=list)
    """Folders that they may pass through, and could not by their own rights."""
    closed: list[Path] = field(default_factory=list)
    """What lies in these and lost rights for others."""
    changed: int = 0
    """Files and folders whose rights were changed."""
    kept: bool = True
    """Whether it is a share now; it is none where they could read it before, and where it has ended."""
    others: int = 0
    """Files of other people, left alone."""
    hard_links: int = 0
    """Files with several names, left alone."""
    links: int = 0
    """Symbolic links and the like, not followed."""
    unread: int = 0
    """Folders that the owner cannot read."""


# --- what the shares ask of a file


@dataclass(frozen=True)
class _Wish:
    grants: tuple[Who, ...]
    passes: tuple[Who, ...]


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder if folder.endswith("/") else folder + "/")


class _Wishes:
    """What shares ask of each path."""

    def __init__(self, shares: Iterable[Share]) -> None:
        self._shares = [(os.fspath(share.path), share.who) for share in shares]

    def of(self, path: Path) -> _Wish:
        name = os.fspath(path)
        grants = {who for top, who in self._shares if top == name or _is_below(name, top)}
        passes = {who for top, who in self._shares if _is_below(top, name)} - grants
        return _Wish(tuple(sorted(grants)), tuple(sorted(passes)))


# --- the rights of one file


def _merged(now: Acl, before: Acl, after: Acl) -> Acl:
    """Take back from a list, which its owner may have changed since, what turned `before` into `after`."""
    now, before, after = now.settled(), before.settled(), after.settled()

    def entries(current: dict[int, int], old: dict[int, int], new: dict[int, int]) -> dict[int, int]:
        result = dict(current)
        for ident in old.keys() | new.keys():
            if current.get(ident) == new.get(ident):
                result.pop(ident, None)
                if ident in old:
                    result[ident] = old[ident]
        return result

    def class_(current: int, old: int, new: int) -> int:
        if current != new:
            return current
        # Nobody knows whether `chmod` took the rest of a class as well: then nothing is given back.
        return old & new if is_set_anew else old

    is_set_anew = (now.owner, now.group, now.other) != (after.owner, after.group, after.other)
    return replace(
        now,
        mask=None,
        group=class_(now.group, before.group, after.group),
        other=class_(now.other, before.other, after.other),
        users=entries(now.users, before.users, after.users),
        groups=entries(now.groups, before.groups, after.groups),
    ).settled()


def _has_entry(acl: Acl, who: Who) -> bool:
    return (who.kind == "user" and who.id in acl.users) or (who.kind == "group" and who.id in acl.groups)


def _without(acl: Acl, whos: Iterable[Who]) -> Acl:
    for who in whos:
        if _has_entry(acl, who):
            acl = people.without(acl, who)
    return acl


class _Plan:
    """The rights of files before and after the shares change.

    :param state: what there is now
    :param shares: what is to be shared
    """

    def __init__(self, state: State, shares: tuple[Share, ...]) -> None:
        self._records = dict(state.records)
        self._old, self._new = _Wishes(state.shares), _Wishes(shares)
        self._before = state.records
        self._bases: dict[str, Rights] = {}
        self._seen: set[str] = set()
        self._folders: dict[Path, Node] = {}
        self._reach: dict[tuple[str, Who | None], bool] = {}

    def know(self, folders: Iterable[Node]) -> None:
        """Take note of folders, those that lead to the others before them."""
        self._folders |= {node.path: node for node in folders}

    def base(self, node: Node) -> Rights:
        """Give the rights that a file has without any share."""
        if node.id not in self._bases:
            self._bases[node.id] = self._base(node)
        return self._bases[node.id]

    def _base(self, node: Node) -> Rights:
        if record := self._before.get(node.id):
            before, after = record.before, record.after
            access = before.access
            if node.access != after.access:
                access = _merged(node.access, before.access, after.access)
            return Rights(access, before.default if node.default == after.default else node.default)
        wish = self._old.of(node.path)
        access = _without(node.access, (*wish.grants, *wish.passes))
        # Whatever list a folder had before that is not ours to take has a record.
        opened = node.is_folder and self._is_opened(node, wish, access)
        return Rights(access, None if (wish.grants and node.is_folder) or opened else node.default)

    def _reaches(self, who: Who | None, node: Node, access: Acl | None = None) -> bool:
        """Tell whether somebody could pass through a folder without any share, and get there; None: anybody else.

        :param access: its rights without any share, where they are not known yet
        """
        key = node.id, who
        if key not in self._reach:
            acl = self.base(node).access if access is None else access
            rights = acl.other if who is None else people.rights_of(who, acl, node.gid)
            outer = self._folders.get(node.path.parent) if node.path.name else None
            self._reach[key] = bool(rights & SEARCH) and (outer is None or self._reaches(who, outer))
        return self._reach[key]

    def _is_opened(self, node: Node, wish: _Wish, access: Acl | None = None) -> bool:
        return node.is_mine and any(not self._reaches(who, node, access) for who in wish.passes)

    def is_opened(self, node: Node) -> bool:
        """Tell whether somebody passes through a folder who could not get there without the shares."""
        return self._is_opened(node, self._new.of(node.path))

    def was_opened(self, node: Node) -> bool:
        """Tell whether that was so before."""
        return self._is_opened(node, self._old.of(node.path))

    def _closed(self, acl: Acl, gid: int, folder: Node, keep: int = 0) -> Acl:
        """Take from the list of a file what nobody could use before its folder was opened.

        :param keep: rights that are not taken
        """
        acl = acl.settled()

        def left(group: int, rights: int) -> int:
            return rights if self._reaches(Who("group", group, ""), folder) else rights & keep

        def left_to(uid: int, rights: int) -> int:
            return rights if self._reaches(Who("user", uid, _name(uid)), folder) else rights & keep

        return replace(
            acl,
            mask=None,
            other=acl.other if self._reaches(None, folder) else acl.other & keep,
            group=acl.group if people.is_private(gid) else left(gid, acl.group),
            users={uid: left_to(uid, rights) for uid, rights in acl.users.items()},
            groups={group: left(group, rights) for group, rights in acl.groups.items()},
        ).settled()

    def _given(self, acl: Acl, node: Node, who: Who, rights: int, explicit: bool) -> Acl:
        """Give the list in which somebody has these rights, and no others that they could not use before."""
        folder = self._folders.get(node.path.parent)
        anew = folder is not None and not self._reaches(who, folder)
        if anew and folder is not None and who.kind != "user":
            # Many come at once, some of them perhaps with rights to write through other groups.
            acl = self._closed(acl, node.gid, folder, keep=READ | SEARCH)
        return people.with_rights(acl, who, rights, node.gid, explicit, anew)

    def change(self, node: Node, folder: Node | None) -> Change:
        """Find the new rights of one of the caller's files.

        :param folder: the folder in which it lies, where that matters: one that is opened or was
        """
        base, wish = self.base(node), self._new.of(node.path)
        guard = folder if folder is not None and self.is_opened(folder) else None
        access = self._access(node, base, wish, guard)
        default = self._default(node, base, wish, access) if node.is_folder else None
        self._note(node, base, Rights(access, default), wish)
        return Change(node, access, default)

    def _access(self, node: Node, base: Rights, wish: _Wish, guard: Node | None) -> Acl:
        acl = base.access
        if guard is not None:
            acl = self._closed(acl, node.gid, guard)
        runs = node.is_folder or acl.owner & SEARCH
        for who in wish.grants:
            acl = self._given(acl, node, who, READ | (SEARCH if runs else 0), explicit=True)
        for who in wish.passes if node.is_folder else ():
            rights = READ | SEARCH if any(who.is_in(other) for other in wish.grants) else SEARCH
            acl = self._given(acl, node, who, rights, explicit=False)
        # What comes to the same stays as it was written.
        return base.access if acl == base.access.settled() else acl

    def _default(self, node: Node, base: Rights, wish: _Wish, access: Acl) -> Acl | None:
        is_opened = self.is_opened(node)
        if not wish.grants and not is_opened:
            return base.default
        private = people.is_private(node.gid)
        own = base.default or Acl(_ALL, _ALL if private else base.access.settled().group, access.other)
        acl = self._closed(own, node.gid, node) if is_opened else own.settled()
        for who in wish.grants:
            acl = self._given(acl, node, who, READ | SEARCH, explicit=True)
        return acl

    def _note(self, node: Node, base: Rights, new: Rights, wish: _Wish) -> None:
        """Keep a record where the rule by which shares are taken back would not lead to what there was."""
        self._seen.add(node.id)
        wanted = node.is_folder and (wish.grants or self.is_opened(node))
        undone = Rights(_without(new.access, (*wish.grants, *wish.passes)), None if wanted else new.default)
        if undone == base:
            self._records.pop(node.id, None)
        else:
            self._records[node.id] = Record(node.path, base, new)

    def is_settled(self, node: Node) -> bool:
        """Tell whether a file has been given its rights before, which its owner may have changed since."""
        self._seen.add(node.id)
        wish = self._new.of(node.path)
        whos = (*wish.grants, *wish.passes)
        return node.id in self._records or (bool(whos) and all(_has_entry(node.access, who) for who in whos))

    def records(self, scanned: set[Path]) -> dict[str, Record]:
        """Give all records but those of files that are no longer in the folders that were looked through."""
        return {
            ident: record
            for ident, record in self._records.items()
            if ident in self._seen or record.path.parent not in scanned
        }


# --- all files that a share concerns


@dataclass
class _Work:
    around: list[Change] = field(default_factory=list)
    """What lies beside the way."""
    tree: list[Change] = field(default_factory=list)
    """What is shared, from the top."""
    way: list[Change] = field(default_factory=list)
    """Folders on the way, from the nearest."""
    scanned: set[Path] = field(default_factory=set)

    def in_order(self, opening: bool) -> Iterator[Change]:
        """Give what is to be changed so that at no moment more is open than before or after."""
        if opening:
            yield from self.around
            yield from reversed(self.tree)
            yield from self.way
        else:
            yield from reversed(self.way)
            yield from self.tree
            yield from self.around


@cache
def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _way(path: Path) -> list[Node]:
    """Look at the folders on the way to a path, from the nearest."""
    found = []
    for folder in path.parents:
        try:
            found.append(files.look(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def _refuse_closed_way(way: list[Node], who: Who, path: Path) -> None:
    """Refuse where somebody else's folder keeps them out."""
    for node in way:
        if node.is_mine or (who.kind == "user" and who.id == node.uid):
            continue
        if not people.rights_of(who, node.access, node.gid) & SEARCH:
            raise Mistake(
                f"{who} cannot get to {path}: {node.path} is {_name(node.uid)}'s and closed to them. Put what you "
                "want to share into your home"
            )


def _counted(node: Node, report: Report) -> bool:
    """Count one file of a tree and tell whether its rights are to be set."""
    if not node.is_mine:
        report.others += 1
        return False
    if not node.is_folder and node.links > 1:
        report.hard_links += 1
        return False
    if node.is_folder:
        report.folders += 1
    else:
        report.files += 1
    return True


def _find(plan: _Plan, top: Path, report: Report, fresh: bool, moved: bool) -> _Work:
    """Find all changes that come with other shares, for one path.

    :param fresh: only what came since; what the owner changed meanwhile stays
    :param moved: it is not where it was shared: the folders on its way have nothing to do with that
    """
    work, way = _Work(), [] if moved else _way(top)
    on_the_way = {node.path: node for node in way}
    plan.know(reversed(way))
    opened = [node for node in way if plan.is_opened(node)]
    report.passed = [node.path for node in reversed(opened)]

    tree = files.below(top) if _is_there(top) else files.Below([])
    report.links, report.unread = tree.links, tree.unread
    folders = on_the_way | {node.path: node for node in tree.nodes if node.is_folder}
    plan.know(folders.values())
    for node in tree.nodes:
        if node.is_folder:
            work.scanned.add(node.path)
        if _counted(node, report) and not (fresh and plan.is_settled(node)):
            work.tree.append(plan.change(node, folders.get(node.path.parent)))
    for folder in (*opened, *(node for node in way if node not in opened and plan.was_opened(node))):
        work.scanned.add(folder.path)
        for node in files.children(folder.path):
            beside = node.path != top and node.path not in on_the_way
            if beside and node.is_mine and not (fresh and plan.is_settled(node)):
                work.around.append(plan.change(node, folder))
    for node in way:
        if node.is_mine and not (fresh and plan.is_settled(node)):
            work.way.append(plan.change(node, on_the_way.get(node.path.parent)))
    return work


def _is_there(path: Path) -> bool:
    try:
        files.look(path)
    except OSError:
        return False
    return True


def _carry_out(
    store: Store,
    state: State,
    shares: tuple[Share, ...],
    report: Report,
    fresh: bool = False,
    moved: bool = False,
) -> State:
    """Let the rights of files follow other shares, for the path of one of them; give what is stored then."""
    plan = _Plan(state, shares)
    work = _find(plan, report.share.path, report, fresh, moved)
    opening = report.share in shares
    new = State(shares, plan.records(work.scanned))
    changes = [change for change in work.in_order(opening) if change.is_one]
    report.changed = len(changes)
    had = _Wishes(state.shares).of(report.share.path).grants
    report.kept = opening and (bool(changes) or report.share.who in had)
    if opening and not report.kept:
        return state
    if opening:
        report.closed = [change.node.path for change in work.around if change.access != change.node.access]
        store.write(new)
    for number, change in enumerate(changes):
        try:
            files.apply(change)
        except OSError as error:
            for done in reversed(changes[:number]):
                files.apply(done.undone())
            store.write(state)
            raise Hindered(_why_not(error, change.node.path)) from None
    if not opening:
        store.write(new)
    return new


def _why_not(error: OSError, path: Path) -> str:
    if error.errno == errno.EOPNOTSUPP:
        return f"{path} is on a file system without access control lists (ACL); nothing was changed"
    return f"{path}: its rights could not be changed ({error.strerror}); all is as it was"


# --- what is asked for


def absolute(name: str) -> Path:
    """Give the path of a name, links on the way resolved, the last part as it is."""
    path = Path(name).expanduser().absolute()
    return path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()


def _target(name: str) -> Path:
    """Find what is to be shared.

    :raises Mistake: when it is missing, a link, not the caller's or not to be shared
    """
    path = absolute(name)
    if path.is_symlink():
        raise Mistake(f"{name} is a link to {path.resolve()}; share that instead")
    try:
        node = files.look(path)
    except (FileNotFoundError, NotADirectoryError):
        raise Mistake(f"{name}: there is no such file or folder") from None
    except PermissionError:
        raise Mistake(f"{name}: you cannot get there yourself") from None
    if not (stat.S_ISREG(node.mode) or node.is_folder):
        raise Mistake(f"{name} is neither a file nor a folder")
    if any(path.is_relative_to(place) for place in _FLEETING):
        raise Mistake(f"{name} lies in {path.parts[1]}, which others do not see; put it into your home")
    if not node.is_mine:
        raise Mistake(f"{name} is {_name(node.uid)}'s, who alone can share it")
    if Path.home().resolve().is_relative_to(path):
        raise Mistake(f"{name} holds all you have, keys and passwords among it; share a folder in it")
    return path


def _followed(state: State) -> State:
    """Give the state with shares that follow what was renamed in its folder, or replaced under its name."""
    shares = []
    for share in state.shares:
        try:
            node = files.look(share.path)
            shares.append(replace(share, id=node.id) if node.is_mine else share)
        except (FileNotFoundError, NotADirectoryError):
            shares.append(_renamed(share, share.path.parent))
        except OSError:
            shares.append(share)
    return state.with_shares(tuple(shares))


def _renamed(share: Share, folder: Path) -> Share:
    try:
        found = next((node for node in files.children(folder) if node.id == share.id), None)
    except OSError:
        return share
    return share if found is None else replace(share, path=found.path)


def _moved(share: Share) -> Share:
    """Look for what was shared in all of the caller's home."""
    if _is_there(share.path):
        return share
    found = next((node for node in files.below(Path.home().resolve()).nodes if node.id == share.id), None)
    return share if found is None else replace(share, path=found.path)


def check(name: str, who: Who) -> Path:
    """Give the path that a name means, if it can be shared with somebody; :raises Mistake: if not."""
    path = _target(name)
    _refuse_closed_way(_way(path), who, path)
    return path


def share(store: Store, name: str, who: Who, until: datetime.date | None, now: datetime.datetime) -> Report:
    """Let somebody read a path and what is below it.

    :param until: last day
    :param now: UTC
    :raises Mistake: when it cannot be shared; nothing is changed then
    """
    path = check(name, who)
    state = _followed(store.read())
    same = next((old for old in state.shares if old.path == path and old.who == who), None)
    since = same.since if same else now.isoformat(timespec="seconds")
    wanted = Share(path, files.look(path).id, who, until, since)
    others = tuple(old for old in state.shares if old is not same)
    report = Report(wanted)
    _carry_out(store, state, (*others, wanted), report)
    return report


def stop(store: Store, name: str | None, who: Who | None) -> list[Report]:
    """End shares: of a path, or all; with somebody, or with everybody.

    :return: what was ended; empty where nothing was shared
    """
    state = _followed(store.read())
    path = None if name is None else _path_of(name, state)
    ended = [old for old in state.shares if (path is None or old.path == path) and (who is None or old.who == who)]
    return _end(store, state, ended)


def _path_of(name: str, state: State) -> Path:
    path = absolute(name)
    if not path.exists() and all(old.path != path for old in state.shares):
        raise Mistake(f"{name}: there is no such file or folder, and none of that name is shared; see `share list`")
    return path


def _end(store: Store, state: State, ended: list[Share]) -> list[Report]:
    reports = []
    for old in ended:
        rest = tuple(share for share in state.shares if share is not old)
        moved = _moved(old)
        if moved != old:
            state = state.with_shares((*rest, old, moved))
            state = _carry_out(store, state, (*rest, old), Report(moved), moved=True)
        report = Report(old)
        state = _carry_out(store, state, rest, report)
        reports.append(report)
    return reports


def expire(store: Store, today: datetime.date) -> list[Report]:
    """End the shares whose last day has gone, and let the others hold for what was moved to their places since."""
    state = _followed(store.read())
    if not state.shares:
        return []
    reports = _end(store, state, [old for old in state.shares if old.is_over(today)])
    state = _followed(store.read())
    for old in state.shares:
        if _is_there(old.path):
            state = _carry_out(store, state, state.shares, Report(old), fresh=True)
    return reports


@dataclass(frozen=True)
class Listed:
    """A share and whether there still is what was shared."""

    share: Share
    is_there: bool


def listing(store: Store) -> list[Listed]:
    """Give all shares in order of their paths."""
    shares = sorted(_followed(store.read()).shares, key=lambda share: (share.path, share.who))
    return [Listed(share, _is_there(share.path)) for share in shares]
