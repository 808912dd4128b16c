"""The home page: JupyterHub's own, with one's disks and one's groups on it.

The one rule: what cannot be asked now is left out; the button that starts the server is always there.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from jupyterhub.handlers.pages import HomeHandler as HubHomeHandler
from tornado import web

from labstead.errors import LabsteadError
from labstead.hub.groups import groups_of
from labstead.hub.spaces import amounts_of, known_spaces, level_of, notice_of, title

_T = TypeVar("_T")


class HomeHandler(HubHomeHandler):  # type: ignore[misc]
    """The hub's home page."""

    async def _if_known(self, what: str, answer: Awaitable[_T]) -> _T | None:
        try:
            return await answer
        except LabsteadError as error:
            self.log.error("%s of %s: %s", what, self.current_user.name, error)
            return None

    @web.authenticated
    async def get(self) -> None:
        """Show it."""
        name, authenticator = self.current_user.name, self.authenticator
        groups, account, spaces = await asyncio.gather(
            self._if_known("groups", groups_of(authenticator, name)),
            self._if_known("account", authenticator.account(name)),
            self._if_known("spaces", known_spaces(authenticator.disks, name)),
        )
        self._own = {
            "groups": groups or [],
            "account": account,
            "spaces": [(space, amounts_of(space)) for space in spaces or [] if amounts_of(space)],
            "notice_of": notice_of,
            "level_of": level_of,
            "title_of": title,
        }
        await super().get()

    def render_template(self, name: str, **words: Any) -> Any:
        """Add what is one's own to what JupyterHub's page is given."""
        if name == "home.html":
            words |= self._own
        return super().render_template(name, **words)
