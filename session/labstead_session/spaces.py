"""What a person has on disk, the home, folders of groups and scratch, and how full each is.

The one rule: the hub's word counts, as it knows limits that file systems do not show. Where it does not answer, or
nobody can ask it, the file systems are asked themselves: what they say is true of them as a whole.
"""

import http.client
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labstead_session import notices, room
from labstead_session.notices import Amount, Kind, Level, percent, size

_HUB_SECONDS = 5
"""How long the hub may take to answer."""
_REMEMBERED_SECONDS = 4.0
"""How old an answer may be."""
_AWAY_SECONDS = 30.0
"""How long a hub that did not answer is not asked again."""
_LARGEST_ANSWER = 2**20


@dataclass(frozen=True)
class Space:
    """A home, a group's folder or somebody's scratch."""

    kind: Kind
    name: str
    """Of the person, or of the group."""
    path: str
    used_bytes: int | None = None
    used_files: int | None = None
    limit_bytes: int | None = None
    limit_files: int | None = None
    is_whole_disk: bool = False
    """The numbers are those of the file system, which others may fill, too."""
    is_out: bool = False
    """Nothing more fits, whatever the numbers say: they may be half a minute old, no file system gives its last block
    away, and all that somebody has on a disk may have a limit of its own."""

    @property
    def title(self) -> str:
        """Give what its owner calls it."""
        return notices.title(self.kind, self.name)

    @property
    def subject(self) -> str:
        """Give what a sentence about it begins with."""
        subject = notices.subject(self.kind, self.name)
        return notices.begin(f"the disk of {subject}" if self.is_whole_disk else subject)

    @property
    def amounts(self) -> list[Amount]:
        """Give what there is to say of it: bytes, and files where they are limited."""
        return notices.amounts(self.used_bytes, self.limit_bytes, self.used_files, self.limit_files)

    @property
    def fullest(self) -> Amount | None:
        """Give what is nearest to its limit; None without a limit."""
        return notices.fullest(self.amounts)

    @property
    def level(self) -> Level:
        """Tell how urgent it is."""
        if self.is_out:
            return "full"
        return self.fullest.level if self.fullest else ""

    @property
    def is_held_elsewhere(self) -> bool:
        """Tell whether nothing fits although there is room by its own numbers."""
        return self.is_out and (self.fullest is None or not self.fullest.level)

    @property
    def held_words(self) -> str:
        """Begin the sentence that nothing fits although there is room by its own numbers."""
        holds = "; ".join(amount.words for amount in self.amounts)
        return f"Nothing more fits into {notices.subject(self.kind, self.name)}" + (
            f", though it holds only {holds}" if holds else ""
        )

    @property
    def notice(self) -> str:
        """Tell its owner that it fills up; empty while there is room."""
        if self.is_held_elsewhere:
            return (
                f"{self.held_words}: it was filled within the last half minute, or all your files on its disk have "
                "reached together what you may have there, or the disk itself is full. Look at your scratch and the "
                "folders of your groups, too."
            )
        return notices.notice(self.subject, self.fullest, self.level)

    @property
    def nearest(self) -> str:
        """Write its bytes, or its files where those are about to be used up."""
        amounts = [self.fullest] if self.fullest and self.level else self.amounts
        return amounts[0].words if amounts and amounts[0] else ""

    @property
    def model(self) -> dict[str, Any]:
        """Give it as JSON has it, with the words for people."""
        return {
            **asdict(self),
            "title": self.title,
            "level": self.level,
            "notice": self.notice,
            "words": [amount.words for amount in self.amounts],
            "nearest": self.nearest,
            "percent": self.fullest.percent if self.fullest else None,
        }


# --- who says it


class Away(Exception):
    """The hub does not say it."""


def _checked(item: Any) -> Space:
    if not isinstance(item, dict) or item.get("kind") not in ("home", "group", "scratch"):
        raise Away("the hub's answer is none")
    numbers = [item.get(key) for key in ("used_bytes", "used_files", "limit_bytes", "limit_files")]
    if not all(value is None or (isinstance(value, int) and value >= 0) for value in numbers):
        raise Away("the hub's answer is none")
    used_bytes, used_files, limit_bytes, limit_files = numbers
    name, path = str(item.get("name", "")), str(item.get("path", ""))
    return Space(item["kind"], name, path, used_bytes, used_files, limit_bytes, limit_files)


def ask_hub(environment: Mapping[str, str]) -> list[Space]:
    """Ask the hub, as the session whose variables these are.

    :raises Away: when it does not answer, or nobody can ask it from here
    """
    url, token = environment.get("JUPYTERHUB_API_URL"), environment.get("JUPYTERHUB_API_TOKEN")
    if not url or not token:
        raise Away("there is no hub to ask here")
    if not url.startswith(("http://", "https://")):
        raise Away("JUPYTERHUB_API_URL is no address")
    request = urllib.request.Request(  # noqa: S310 - checked above
        f"{url}/labstead/spaces", headers={"Authorization": f"token {token}", "Accept": "application/json"}
    )
    # The hub is next door; a proxy for the world outside does not know it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_HUB_SECONDS) as answer:
            found = json.loads(answer.read(_LARGEST_ANSWER))["spaces"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise Away(f"the hub does not say it ({error})") from None
    if not isinstance(found, list):
        raise Away("the hub's answer is none")
    return [_checked(item) for item in found]


def of_disk(space: Space) -> Space:
    """Fill in what the file system says, as df does; a project's limit is shown by XFS and ext4, not by btrfs."""
    try:
        found, above = os.statvfs(space.path), os.statvfs(os.path.dirname(space.path) or "/")  # noqa: PTH120
    except OSError:
        return space
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    return replace(
        space,
        used_bytes=used,
        limit_bytes=used + found.f_bavail * found.f_frsize,
        used_files=found.f_files - found.f_ffree if found.f_files else None,
        limit_files=found.f_files or None,
        # A limit of the folder's own makes it look another size than the folder above it.
        is_whole_disk=(found.f_blocks, found.f_files) == (above.f_blocks, above.f_files),
    )


def ask_disks(environment: Mapping[str, str], *, is_doubted: bool = False) -> list[Space]:
    """Ask the file systems of all spaces that a session's variables name, see `ask`."""
    user = environment.get("USER", "")
    spaces = [Space("home", user, os.fspath(Path.home()))]
    folders = [Path(path) for path in environment.get("GROUP_FOLDERS", "").split(":") if path]
    spaces += [Space("group", path.name, os.fspath(path)) for path in folders]
    if scratch := environment.get("SCRATCH"):
        spaces.append(Space("scratch", user, scratch))
    return [_tried(of_disk(space), is_doubted=is_doubted) for space in spaces]


def _completed(space: Space) -> Space:
    """Say what only the file system knows: how full it is where nobody else says it, and that others filled it."""
    disk = of_disk(space)
    return disk if space.used_bytes is None or (disk.level == "full" and space.level != "full") else space


def _tried(space: Space, *, is_doubted: bool) -> Space:
    """Try whether anything fits into a home that is almost full, or of which that is doubted."""
    if space.kind != "home" or not (is_doubted or space.level == "warning") or space.level == "full":
        return space
    return replace(space, is_out=room.is_lack(room.tried(Path(space.path))))


@dataclass(frozen=True)
class Spaces:
    """All of somebody's spaces."""

    spaces: tuple[Space, ...]
    problem: str = ""
    """Why the hub did not say it; empty where it did."""

    @property
    def home(self) -> Space | None:
        """Give the home."""
        return next((space for space in self.spaces if space.kind == "home"), None)

    @property
    def is_out(self) -> bool:
        """Tell whether nothing fits into the home, whatever the numbers say."""
        return self.home is not None and self.home.is_out

    def of(self, path: Path) -> Space | None:
        """Give the space that a file lies in."""
        inside = [space for space in self.spaces if path == Path(space.path) or Path(space.path) in path.parents]
        return max(inside, key=lambda space: len(space.path), default=None)

    def refusal(self, path: Path, *, is_open: bool) -> str:
        """Say why a file was not written, what became of it, and what to do.

        It holds no percent sign: tornado takes that for a place to fill in.

        :param is_open: it was there before, and somebody has it open
        """
        space = self.of(path)
        reason = f"The disk of {path.parent} is full" if space is None else _reason(space)
        fate = f"{path.name} was not written."
        if is_open:
            fate = f"{path.name} was not saved. It is still open here, and the file is as you last saved it."
        return f"{reason}: {fate} Delete something, then save again."

    @property
    def model(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {"spaces": [space.model for space in self.spaces], "problem": self.problem}


def _reason(space: Space) -> str:
    """Say why something did not fit into a space."""
    if space.is_held_elsewhere:
        return space.held_words
    full = [amount.words for amount in space.amounts if amount.level == "full"]
    full = full or ([space.nearest] if space.is_out else [])
    used = "; ".join(full or [amount.words for amount in space.amounts])
    reason = f"{space.subject} {'is full' if full or not used else 'has too little room left'}"
    return f"{reason} ({used})" if used else reason


def ask(environment: Mapping[str, str], *, is_doubted: bool = False) -> Spaces:
    """Ask the hub, else the file systems.

    :param is_doubted: try whether anything fits into the home, however much room it seems to have
    """
    try:
        found, problem = ask_hub(environment), ""
    except Away as error:
        return Spaces(tuple(ask_disks(environment, is_doubted=is_doubted)), str(error))
    if not any(space.kind == "home" for space in found):
        found = [Space("home", environment.get("USER", ""), os.fspath(Path.home())), *found]
    return Spaces(tuple(_tried(_completed(space), is_doubted=is_doubted) for space in found), problem)


class Memory:
    """What was said lately, so that neither pages nor saves ask more often than every few seconds."""

    def __init__(self, look: Callable[[bool], Spaces]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._found: Spaces | None = None
        self._until = 0.0

    def look(self, *, fresh: bool = False, is_doubted: bool = False) -> Spaces:
        """Give what is known; it takes as long as the hub does.

        :param fresh: something has just changed
        :param is_doubted: something was just refused; see `ask`
        """
        with self._lock:
            # Where nothing fitted it is tried until something does: the numbers may never tell.
            is_doubted = is_doubted or (self._found is not None and self._found.is_out)
            if self._found is None or time.monotonic() > self._until or (fresh and not self._found.problem):
                self._found = self._look(is_doubted)
                self._until = time.monotonic() + (_AWAY_SECONDS if self._found.problem else _REMEMBERED_SECONDS)
            elif self._found.problem:
                # The hub is left alone; disks are asked each time.
                self._found = replace(self._found, spaces=tuple(ask_disks(os.environ, is_doubted=is_doubted)))
            return self._found


here = Memory(lambda is_doubted: ask(os.environ, is_doubted=is_doubted))
"""The spaces of this session."""


def lines(found: Iterable[Space]) -> list[str]:
    """Write spaces as a table."""
    rows = [["SPACE", "USED", "LIMIT", "USE", "FILES", "LIMIT", "USE", "PATH"]]
    for space in found:
        cells = []
        for used, limit, write in (
            (space.used_bytes, space.limit_bytes, size),
            (space.used_files, space.limit_files, "{:,}".format),
        ):
            full = percent(used, limit)
            cells += ["-" if used is None else write(used), write(limit) if limit else "-"]
            cells.append("-" if full is None else f"{full} %")
        rows.append([space.title, *cells, space.path])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in (0, len(widths) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
