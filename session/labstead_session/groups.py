"""Group folders: what is put into one belongs to the group, whatever program put it there.

The one rule: in a group folder the group may do what the owner may. Folders with the bit setgid and a default list do
that for what programs make in them, but not for what comes with rights of its own: `mv` from a home (which keeps group
and mode), `cp` of a file that its group cannot write, a temporary file of mode 0600 that is renamed to its place.
Samba calls the same `force group` and `force create mode`.

In a session its owner's files are mended as they come (`Watch`). Each night root mends the rest, as of jobs on the host
(`python -m labstead_session.groups FOLDER …`), but for what is closed to the group altogether: that may be meant so.
"""

import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from labstead_session import acl, files
from labstead_session.acl import Acl
from labstead_session.files import Node

_ALL = 7
_PAUSE = 2.0
"""Seconds between two looks."""
_SHARE_OF_TIME = 50
"""A look may take one part in so many of the time: on a slow file system they are fewer."""
_TOO_MANY = 20_000
"""Folders; from there on the night has to do."""

log = logging.getLogger("labstead.groups")


def _as_the_owner(value: Acl) -> Acl:
    value = value.settled()
    if value.group & value.owner == value.owner:
        return value
    return replace(value, mask=None, group=value.group | value.owner).settled()


def mended(node: Node, folder: Acl | None) -> tuple[Acl, Acl | None]:
    """Give the lists that a file of the group is to have.

    :param folder: default list of the folder in which it lies
    """
    if not node.is_folder:
        return _as_the_owner(node.access), None
    return _as_the_owner(node.access), _as_the_owner(node.default or folder or Acl(_ALL, _ALL, 0))


def mend(node: Node, gid: int, folder: Acl | None) -> bool:
    """Give a file to the group; tell whether anything had to be done.

    Links, files with several names, files of others and programs that run as somebody else are left alone.
    """
    if not node.is_folder and (node.links > 1 or node.mode & (stat.S_ISUID | stat.S_ISGID)):
        return False
    access, default = mended(node, folder)
    setgid = node.is_folder and not node.mode & stat.S_ISGID
    if node.gid == gid and access == node.access.settled() and default == node.default and not setgid:
        return False
    try:
        with files.opened(node.path) as fd:
            if files.id_of(fd) != node.id:
                return False
            place = f"/proc/self/fd/{fd}"
            if node.gid != gid:
                os.chown(place, -1, gid)
            if default != node.default:
                acl.set_default(fd, default)
            acl.set_access(fd, access)
            if node.is_folder:
                mode = stat.S_IMODE(os.fstat(fd).st_mode)
                if not mode & stat.S_ISGID:
                    Path(place).chmod(mode | stat.S_ISGID)
    except OSError as error:
        log.debug("%s is left as it is: %s", node.path, error)
        return False
    return True


def _is_closed(node: Node) -> bool:
    return node.access.settled().group == 0


def sweep(top: Path) -> int:
    """Mend all that is in a group folder, but for what is closed to its group; give the number of files mended."""
    own, count, folders = files.look(top), 0, [top]
    while folders:
        folder = folders.pop()
        try:
            default, nodes = files.look(folder).default, list(files.children(folder))
        except OSError:  # it has just gone
            continue
        nodes = [node for node in nodes if node.device == own.device]
        count += sum(mend(node, own.gid, default) for node in nodes if node.gid != own.gid or not _is_closed(node))
        folders += [node.path for node in nodes if node.is_folder]
    return count


@dataclass
class _Seen:
    """A folder as it was when it was looked through."""

    changed: int
    """Nanoseconds; 0 where another look is needed whatever it says."""
    names: dict[str, str] = field(default_factory=dict)
    """Which file has which name."""


class Watch:
    """Mend the caller's own files in group folders as they come."""

    def __init__(self, tops: list[Path]) -> None:
        self._tops = tops
        self._seen: dict[Path, _Seen] = {}

    def look(self) -> int:
        """Look through the folders that have changed; give the number of files mended."""
        count = 0
        for top in self._tops:
            try:
                node = files.look(top)
            except OSError:
                continue
            is_first = top not in self._seen
            count += sum(self._look(folder, node.gid, is_first) for folder in self._changed(top))
        return count

    def _changed(self, top: Path) -> Iterator[Path]:
        if top not in self._seen:
            yield top
            return
        for folder in [path for path in self._seen if path == top or top in path.parents]:
            try:
                status = folder.lstat()
            except OSError:
                del self._seen[folder]
                continue
            if status.st_mtime_ns != self._seen[folder].changed:
                yield folder

    def _look(self, folder: Path, gid: int, is_first: bool) -> int:
        """Look through a folder and those below it that were not seen before.

        :param is_first: what is in there was there before, rather than put there meanwhile
        """
        old = self._seen.get(folder, _Seen(0)).names
        try:
            own = files.look(folder)
            changed = folder.lstat().st_mtime_ns
            nodes = [node for node in files.children(folder) if node.device == own.device]
        except OSError:
            self._seen.pop(folder, None)
            return 0
        # A clock ticks some hundred times a second: what came in the same tick is looked at once more.
        settled = changed < time.time_ns() - 10**9
        names = {node.path.name: node.id for node in nodes}
        self._seen[folder] = _Seen(changed if settled else 0, names)
        count = 0
        for node in nodes:
            is_new = not is_first and old.get(node.path.name) != node.id
            if node.is_mine and (is_new or (is_first and (node.gid != gid or not _is_closed(node)))):
                count += mend(node, gid, own.default)
            if node.is_folder and node.path not in self._seen:
                if len(self._seen) >= _TOO_MANY:
                    raise TooMany
                count += self._look(node.path, gid, is_first)
        return count

    def run(self) -> None:
        """Look for as long as the process lives."""
        try:
            while True:
                begin = time.monotonic()
                self.look()
                time.sleep(max(_PAUSE, (time.monotonic() - begin) * _SHARE_OF_TIME))
        except TooMany:
            log.warning("more than %d folders in the group folders: new files are mended each night only", _TOO_MANY)


class TooMany(Exception):
    """There are more folders than a session should watch."""


def start_watch() -> None:
    """Watch the group folders of this session, if it has any, beside what else the process does."""
    tops = [Path(path) for path in os.environ.get("GROUP_FOLDERS", "").split(":") if path]
    if tops:
        threading.Thread(target=Watch(tops).run, name="group folders", daemon=True).start()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        sweep(Path(name))
