"""Pages of the hub for coming in, and the list of all pages that are labstead's.

The one rule: what changes something is a POST with the hub's XSRF token, and what was typed wrong is answered with a
sentence on the same page.
"""

from typing import Any

from jupyterhub.handlers import BaseHandler
from jupyterhub.handlers.login import LoginHandler as HubLoginHandler
from tornado import web

from labstead.errors import LabsteadError
from labstead.hub.disks import DisksHandler
from labstead.hub.groups import GroupsHandler, MembersHandler
from labstead.hub.home import HomeHandler
from labstead.hub.loginpage import LoginPage
from labstead.hub.passwords import ChangePasswordAdminHandler, ChangePasswordHandler, InvitationHandler
from labstead.hub.people import DecisionHandler, OldPeopleHandler, PeopleHandler
from labstead.hub.spaces import SpacesHandler
from labstead.hub.tokens import TokensHandler

_BAD_REQUEST = 400
_UNAVAILABLE = 503


class LoginHandler(LoginPage, HubLoginHandler):  # type: ignore[misc]
    """The hub's own way of logging in, on our page.

    NativeAuthenticator's handler needs `statsd`, which JupyterHub 6 no longer has.
    """


class SignUpHandler(BaseHandler):  # type: ignore[misc]
    """Ask for an account."""

    async def _page(self, **kwargs: Any) -> None:
        self.finish(
            await self.render_template(
                "signup.html",
                xsrf=self.xsrf_token.decode("ascii"),
                minimum_length=self.authenticator.minimum_password_length,
                ask_email=self.authenticator.site.mail is not None,
                **{"username": "", "email": "", "problem": None, "done": False, **kwargs},
            )
        )

    def prepare(self) -> Any:
        """Answer 404 where sign-up is closed."""
        if not self.authenticator.enable_signup:
            raise web.HTTPError(404)
        return super().prepare()

    async def get(self) -> None:
        """Show the form."""
        await self._page()

    async def post(self) -> None:
        """Take the form."""
        name = self.get_body_argument("username", "", strip=False)
        password = self.get_body_argument("password", "", strip=False)
        confirmation = self.get_body_argument("confirmation", "", strip=False)
        asks_email = self.authenticator.site.mail is not None
        email = self.get_body_argument("email", "") if asks_email else ""
        try:
            problem = await self.authenticator.problem_with_signup(name, password, confirmation, email)
        except LabsteadError as error:
            self.log.error("sign-up: %s", error)
            self.set_status(_UNAVAILABLE)
            sentence = "Sign-up does not work now; please tell an administrator."
            await self._page(username=name, email=email, problem=sentence)
            return
        if problem is None and not await self.authenticator.sign_up(name, password, email):
            problem = f"The username {name} is taken; please choose another one."
        if problem:
            self.set_status(_BAD_REQUEST)
            await self._page(username=name, email=email, problem=problem)
            return
        self.log.info("sign-up of %s waits for approval", name)
        await self._page(username=name, email=email, done=True)


PAGES: list[tuple[str, type]] = [
    (r"/login", LoginHandler),
    (r"/signup", SignUpHandler),
    (r"/home", HomeHandler),
    (r"/people", PeopleHandler),
    (r"/people/([^/]+)", DecisionHandler),
    (r"/authorize", OldPeopleHandler),
    (r"/disks", DisksHandler),
    (r"/api/labstead/spaces", SpacesHandler),
    (r"/api/users/([^/]+)/tokens", TokensHandler),
    (r"/groups", GroupsHandler),
    (r"/groups/([^/]+)", MembersHandler),
    (r"/change-password", ChangePasswordHandler),
    (r"/change-password/([^/]+)", ChangePasswordAdminHandler),
    (r"/set-password/([^/]+)", InvitationHandler),
]
