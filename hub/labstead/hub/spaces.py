"""What people have on disk and may have, as the accounts service says it, for pages and for sessions.

The one rule: whoever asks is told of their own spaces alone; and however often many ask, the service is asked for each
of them every few seconds at most, beside log-ins and never in their place.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from jupyterhub import orm
from jupyterhub.apihandlers import APIHandler
from tornado import web

from labstead import usage
from labstead.accounts.protocol import Space
from labstead.errors import LabsteadError
from labstead.names import CANARY
from labstead_session import notices
from labstead_session.notices import Amount, Level

REMEMBERED_SECONDS = 3.0
"""How old an answer of the service may be."""
PATIENCE_SECONDS = 10.0
"""How long a page or a session waits for a disk that hangs."""
_THREADS = 2
_UNAVAILABLE = 503
_AWAY = "The hub cannot tell now how full the disks are: the accounts service does not say."


def bytes_of(space: Space) -> Amount | None:
    """Give the bytes of a space; None where nobody knows them."""
    return None if space.used_bytes is None else Amount("bytes", space.used_bytes, space.limit_bytes)


def files_of(space: Space) -> Amount | None:
    """Give the files and folders of a space; None where nobody counts them."""
    return None if space.used_files is None else Amount("files", space.used_files, space.limit_files)


def amounts_of(space: Space) -> list[Amount]:
    """Give what there is to say of a space: bytes, and files where they are limited."""
    return notices.amounts(space.used_bytes, space.limit_bytes, space.used_files, space.limit_files)


def fullest(space: Space) -> Amount | None:
    """Give what is nearest to its limit, bytes or files; None without a limit."""
    return notices.fullest(amounts_of(space))


def level_of(space: Space) -> Level:
    """Tell how urgent it is."""
    amount = fullest(space)
    return amount.level if amount else ""


def title(space: Space) -> str:
    """Give what its owner calls a space."""
    return notices.title(space.kind, space.name)


def notice_of(space: Space) -> str:
    """Tell the owner of a space that it fills up, and what to do; nothing while there is room."""
    level = level_of(space)
    words = notices.notice(notices.subject(space.kind, space.name), fullest(space), level)
    if space.kind == "home" and level == "full":
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
