"""Pages to set a password of the hub's own: one's own, somebody's as an administrator, or with a link that works once.

The one rule: passwords are only in the body of a POST, and a link shows whose password it sets before it sets one.
"""

from typing import Any

from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from labstead.hub.doors import NotIn

_BAD_REQUEST = 400
_GONE = 410


class _PasswordPage(BaseHandler):  # type: ignore[misc]
    """A page with two fields for a new password, and one for the old one where it is one's own."""

    async def _page(self, name: str, heading: str, **words: Any) -> None:
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.finish(
            await self.render_template(
                "password.html",
                person=name,
                heading=heading,
                minimum_length=self.authenticator.minimum_password_length,
                **{"ask_old": False, "problem": None, "done": None, "gone": False, "sign_in": False, **words},
            )
        )

    def _typed(self, field: str) -> str:
        text: str = self.get_body_argument(field, "", strip=False)
        return text

    def _problem(self, name: str) -> str | None:
        problem: str | None = self.authenticator.problem_with_new_password(
            name, self._typed("new_password"), self._typed("new_password_confirmation")
        )
        return problem


class ChangePasswordHandler(_PasswordPage):
    """Change one's own password."""

    _heading = "Change your password"

    def _name(self) -> str:
        name: str = self.current_user.name
        if not self.authenticator.has_login(name):
            raise web.HTTPError(404, "Your password is not kept here; change it where you got it.")
        return name

    @web.authenticated
    async def get(self) -> None:
        """Show the form."""
        await self._page(self._name(), self._heading, ask_old=True)

    @web.authenticated
    async def post(self) -> None:
        """Take the form."""
        name = self._name()
        problem = self._problem(name)
        try:
            if not problem and not await self.authenticator.is_own_password(name, self._typed("old_password")):
                problem = "The present password is not right."
        except NotIn as reason:
            problem = str(reason)
        if problem:
            self.set_status(_BAD_REQUEST)
            await self._page(name, self._heading, ask_old=True, problem=problem)
            return
        await self.authenticator.set_password(name, self._typed("new_password"))
        self.set_hub_cookie(self.current_user)  # all log-ins have ended, and this one goes on
        self.log.info("%s changed the password", name)
        await self._page(name, self._heading, done="Your password is changed.")


class ChangePasswordAdminHandler(_PasswordPage):
    """Set somebody's password, for administrators."""

    def _known(self, name: str) -> str:
        name = str(self.authenticator.normalize_username(name))
        if not self.authenticator.has_login(name):
            raise web.HTTPError(404, f"{name} has no password on this hub.")
        return name

    @web.authenticated
    @needs_scope("admin:users")  # type: ignore[untyped-decorator]
    async def get(self, name: str) -> None:
        """Show the form."""
        name = self._known(name)
        await self._page(name, f"Set the password of {name}")

    @web.authenticated
    @needs_scope("admin:users")  # type: ignore[untyped-decorator]
    async def post(self, name: str) -> None:
        """Take the form."""
        name = self._known(name)
        if problem := self._problem(name):
            self.set_status(_BAD_REQUEST)
            await self._page(name, f"Set the password of {name}", problem=problem)
            return
        await self.authenticator.set_password(name, self._typed("new_password"))
        self.log.info("%s set the password of %s", self.current_user.name, name)
        await self._page(name, f"Set the password of {name}", done=f"The password of {name} is set.")


class InvitationHandler(_PasswordPage):
    """Set a password with a link that works once."""

    _heading = "Choose your password"

    def initialize(self) -> None:
        """Keep the link out of every line of the log: who reads that must not be able to use it."""
        self.request.uri = self.hub.base_url + "set-password/-"

    async def _gone(self) -> None:
        self.set_status(_GONE)
        await self._page("", self._heading, gone=True)

    async def get(self, token: str) -> None:
        """Show the form, or that the link no longer works."""
        name = self.authenticator.invited(token)
        await (self._page(name, self._heading) if name else self._gone())

    async def post(self, token: str) -> None:
        """Take the form."""
        name = self.authenticator.invited(token)
        if name is None:
            await self._gone()
            return
        if problem := self._problem(name):
            self.set_status(_BAD_REQUEST)
            await self._page(name, self._heading, problem=problem)
            return
        if await self.authenticator.redeem(token, self._typed("new_password")) is None:
            await self._gone()
            return
        self.log.info("%s set the password with a link", name)
        await self._page(name, self._heading, done="Your password is set.", sign_in=True)
