"""What people have on disk and may have, as the accounts service says it, for pages and for sessions.

The one rule: whoever asks is told of their own spaces alone; and however often many ask, the service is asked for each
of them every few seconds at most, beside log-ins and never in their place.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Literal

from jupyterhub import orm
from jupyterhub.apihandlers import APIHandler
from tornado import web

from labstead import amounts, usage
from labstead.accounts.protocol import Space
from labstead.errors import LabsteadError
from labstead.names import CANARY
from labstead.settings import SpaceKind
from labstead_session.notices import NOTICE, WARNING

REMEMBERED_SECONDS = 3.0
"""How old an answer of the service may be."""
PATIENCE_SECONDS = 10.0
"""How long a page or a session waits for a disk that hangs."""
_THREADS = 2
_LEFT_BYTES = 2**20
"""A space at 95 % with less than this left is full: file systems, btrfs above all, set aside more than a file needs."""
_UNAVAILABLE = 503
_AWAY = "The hub cannot tell now how full the disks are: the accounts service does not say."

Level = Literal["", "notice", "warning", "full"]


def size(count: int | None) -> str:
    """Write a number of bytes for people."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value >= 9.95 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


@dataclass(frozen=True)
class Amount:
    """How much of something is used, and how much may be."""

    what: Literal["bytes", "files"]
    used: int
    limit: int | None
    low: ClassVar[int] = NOTICE - 1
    high: ClassVar[int] = WARNING - 1
    """A meter has other colours above these, in percent."""

    @property
    def percent(self) -> int | None:
        """Give the use in percent of the limit, rounded down; None without a limit."""
        return amounts.percent(self.used, self.limit)

    @property
    def level(self) -> Level:
        """Tell how urgent it is."""
        percent = self.percent
        if self.limit is None or percent is None or percent < NOTICE:
            return ""
        if percent < WARNING:
            return "notice"
        left = self.limit - self.used
        return "full" if left <= 0 or (self.what == "bytes" and left < _LEFT_BYTES) else "warning"

    @property
    def words(self) -> str:
        """Write it for people."""
        if self.what == "bytes":
            return f"{size(self.used)} of {size(self.limit)}" if self.limit else size(self.used)
        limit = f" of {self.limit:,}" if self.limit else ""
        return f"{self.used:,}{limit} files and folders"


def bytes_of(space: Space) -> Amount | None:
    """Give the bytes of a space; None where nobody knows them."""
    return None if space.used_bytes is None else Amount("bytes", space.used_bytes, space.limit_bytes)


def files_of(space: Space) -> Amount | None:
    """Give the files and folders of a space; None where nobody counts them."""
    return None if space.used_files is None else Amount("files", space.used_files, space.limit_files)


def amounts_of(space: Space) -> list[Amount]:
    """Give what there is to say of a space: bytes, and files where they are limited."""
    files = files_of(space)
    return [amount for amount in (bytes_of(space), files if files and files.limit else None) if amount]


def fullest(space: Space) -> Amount | None:
    """Give what is nearest to its limit, bytes or files; None without a limit."""
    return max(
        (amount for amount in amounts_of(space) if amount.percent is not None),
        key=lambda amount: amount.percent or 0,
        default=None,
    )


def level_of(space: Space) -> Level:
    """Tell how urgent it is."""
    amount = fullest(space)
    return amount.level if amount else ""


def title(space: Space) -> str:
    """Give what its owner calls a space."""
    titles: dict[SpaceKind, str] = {"home": "Home", "group": f"Group {space.name}", "scratch": "Scratch"}
    return titles[space.kind]


def notice_of(space: Space) -> str:
    """Tell the owner of a space that it fills up, and what to do; nothing while there is room."""
    amount = fullest(space)
    if amount is None or not amount.level:
        return ""
    whose: dict[SpaceKind, str] = {
        "home": "Your home",
        "group": f"The folder of the group {space.name}",
        "scratch": "Your scratch",
    }
    subject = whose[space.kind]
    if amount.level == "notice":
        return f"{subject} is {amount.percent} % full: {amount.words}."
    if amount.level == "warning":
        return f"{subject} is almost full: {amount.words}. Please delete what is no longer needed."
    words = f"{subject} is full: {amount.words}. Nothing more can be saved there."
    if space.kind == "home":
        words += (
            " Your server starts anyway: it shows what takes up most and lets you delete it, or use a terminal there."
            " If you need more room, ask an administrator."
        )
    return words


class Disks:
    """What the service says of spaces, remembered for a moment.

    :param ask: asks it for somebody's spaces, or for all
    :param clock: seconds that only grow
    """

    def __init__(
        self, ask: Callable[[str | None], tuple[Space, ...]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        # Not those with which log-ins are asked for: a disk that hangs must keep nobody out.
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="spaces")
        self._answers: dict[str | None, asyncio.Future[tuple[Space, ...]]] = {}
        self._answered: dict[str | None, float] = {}

    async def spaces(self, name: str | None = None) -> tuple[Space, ...]:
        """Give somebody's spaces with those of their groups, or all that there are.

        :raises LabsteadError: where the service is away, or slow
        """
        self._forget()
        answer = self._answers.get(name)
        if answer is None:
            answer = asyncio.get_running_loop().run_in_executor(self._pool, self._ask, name)
            self._answers[name] = answer
            answer.add_done_callback(lambda done: self._note(name, done))
        try:
            # Shielded: others may wait for the same answer.
            return await asyncio.wait_for(asyncio.shield(answer), PATIENCE_SECONDS)
        except TimeoutError:
            raise LabsteadError(f"no word of the accounts service in {PATIENCE_SECONDS:.0f} s on the disks") from None

    def _note(self, name: str | None, answer: asyncio.Future[tuple[Space, ...]]) -> None:
        self._answered[name] = self._clock()
        if not answer.cancelled():
            answer.exception()  # looked at, even if nobody waits for it any more

    def _forget(self) -> None:
        now = self._clock()
        for name in [name for name, when in self._answered.items() if now - when >= REMEMBERED_SECONDS]:
            del self._answered[name], self._answers[name]


async def known_spaces(disks: Disks, name: str | None = None) -> list[Space]:
    """Give spaces with what was measured where their file system cannot say; the self-check's home is nobody's.

    :raises LabsteadError: where the service is away, or slow
    """
    spaces = [space for space in await disks.spaces(name) if space.name != CANARY]
    return await asyncio.to_thread(usage.with_measured, spaces)


class SpacesHandler(APIHandler):  # type: ignore[misc]
    """Somebody's own spaces, for their session: `{"spaces": [{kind, name, path, …}]}`, see `protocol.Space`."""

    async def get(self) -> None:
        """Give them to who shows a token that may speak for a server of theirs, as each server's own token may.

        What a server is told of its visitors, their name, is not enough: the spaces are nobody else's business.
        """
        user = self.current_user
        if user is None:
            raise web.HTTPError(403, "Missing or invalid credentials.")
        if isinstance(user, orm.Service) or not self.has_scope(f"users:activity!user={user.name}"):
            raise web.HTTPError(403, "This token does not belong to a server of a person's.")
        try:
            spaces = await self.authenticator.disks.spaces(user.name)
        except LabsteadError as error:
            self.log.error("spaces of %s: %s", user.name, error)
            raise web.HTTPError(_UNAVAILABLE, _AWAY) from error
        fields = {"kind", "name", "path", "used_bytes", "used_files", "limit_bytes", "limit_files"}
        self.write({"spaces": [space.model_dump(include=fields) for space in spaces]})
