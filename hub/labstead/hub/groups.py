"""The page of groups: one's groups with their folders, and members for those who manage them.

The one rule: who may change what is decided by the accounts service, which is told for whom the hub asks.
"""

import re
from typing import Any

from pydantic import ValidationError
from tornado import web

from labstead.accounts.protocol import Group
from labstead.errors import LabsteadError
from labstead.hub.note import Noted

_BAD_REQUEST = 400
_MAX_AT_ONCE = 200
"""People in one request to add members."""
_MAX_NAMED = 5
"""Names that fit into a sentence."""
AWAY = "Groups cannot be shown now; please tell an administrator."


async def groups_of(authenticator: Any, name: str) -> list[Group]:
    """Give the groups that somebody is in or manages.

    :raises LabsteadError: when the accounts service is away
    """
    found: tuple[Group, ...] = await authenticator.ask(authenticator.accounts.groups)
    return [group for group in found if name in group.members or name in group.managers]


class GroupsHandler(Noted):
    """One's groups, with the means to change the members of those that one manages."""

    async def _page(self, problem: str | None = None, typed: str = "", group: str = "") -> None:
        groups: list[Group] = []
        try:
            groups = await groups_of(self.authenticator, self.current_user.name)
        except LabsteadError as error:
            self.log.error("groups of %s: %s", self.current_user.name, error)
            problem = AWAY
        self.finish(
            await self.render_template(
                "groups.html",
                xsrf=self.xsrf_token.decode("ascii"),
                groups=groups,
                me=self.current_user.name,
                problem=problem,
                note=self.take_note(),
                typed=typed,
                typed_group=group,
            )
        )

    @web.authenticated
    async def get(self) -> None:
        """Show them."""
        await self._page()


class MembersHandler(GroupsHandler):
    """Change the members of one group."""

    def get(self, _name: str) -> None:
        """Lead to the page of all groups: following a link changes nothing."""
        self.redirect(self.hub.base_url + "groups")

    @web.authenticated
    async def post(self, group: str) -> None:
        """Add the people who are named in the form, or remove one."""
        removed = self.get_body_argument("remove", "")
        typed = "" if removed else self.get_body_argument("add", "")
        added = tuple(dict.fromkeys(filter(None, re.split(r"[\s,;]+", typed))))
        try:
            problem = await self._change(group, added, (removed,) if removed else ())
        except LabsteadError as error:
            problem = str(error)
        if problem:
            self.set_status(_BAD_REQUEST)
            await self._page(problem, typed=typed, group=group)
            return
        who = removed or (", ".join(added) if len(added) <= _MAX_NAMED else f"{len(added)} people")
        words = f"{who} removed from {group}" if removed else f"{who} added to {group}"
        self.log.info("%s: %s", self.current_user.name, words)
        self.leave_note(f"{words}; it counts from the next start of their session.")
        self.redirect(self.hub.base_url + "groups")

    async def _change(self, group: str, add: tuple[str, ...], remove: tuple[str, ...]) -> str | None:
        if not add and not remove:
            return "Please give the username of whom to add."
        if len(add) > _MAX_AT_ONCE:
            return f"Please add at most {_MAX_AT_ONCE} people at once."
        ask = self.authenticator.accounts.change_members
        try:
            await self.authenticator.ask(ask, group, add=add, remove=remove, manager=self.current_user.name)
        except ValidationError:
            return "That is not the name of a group or a person."
        return None
