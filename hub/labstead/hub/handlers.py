"""Pages of the hub for coming in: log-in, sign-up, and the administrators' page of people.

The one rule: what changes something is a POST with the hub's XSRF token, and what was typed wrong is answered with a
sentence on the same page.
"""

from typing import Any

from jupyterhub.handlers import BaseHandler
from jupyterhub.handlers.login import LoginHandler as HubLoginHandler
from jupyterhub.scopes import needs_scope
from nativeauthenticator.handlers import ChangePasswordAdminHandler as NativeChangePasswordAdminHandler
from nativeauthenticator.handlers import ChangePasswordHandler as NativeChangePasswordHandler
from tornado import web

from labstead.errors import LabsteadError
from labstead.hub.authenticator import MAX_PASSWORD_BYTES, too_long

_BAD_REQUEST = 400
_UNAVAILABLE = 503


class LoginHandler(HubLoginHandler):  # type: ignore[misc]
    """The hub's own log-in page, which also tells people that they wait for approval or have to wait.

    NativeAuthenticator's handler needs `statsd`, which JupyterHub 6 no longer has.
    """

    def _render(self, login_error: str | None = None, username: str | None = None, **kwargs: Any) -> Any:
        if login_error is not None and self.request.method == "POST":
            login_error = self._why_refused(username or "") or login_error
        return super()._render(login_error=login_error, username=username, **kwargs)

    def _why_refused(self, name: str) -> str | None:
        name = self.authenticator.normalize_username(name)
        info = self.authenticator.get_user(name)
        if info is None:
            return None
        if self.authenticator.is_blocked(name):
            minutes = -(-self.authenticator.seconds_before_next_try // 60)
            return f"Too many wrong passwords for {name}. Please try again in {minutes} minutes."
        password = self.get_body_argument("password", "", strip=False)
        if not info.is_authorized and not too_long(password) and info.is_valid_password(password):
            return f"Your sign-up as {name} waits for an administrator's approval."
        return None


class SignUpHandler(BaseHandler):  # type: ignore[misc]
    """Ask for an account."""

    async def _page(self, **kwargs: Any) -> None:
        self.finish(
            await self.render_template(
                "signup.html",
                xsrf=self.xsrf_token.decode("ascii"),
                minimum_length=self.authenticator.minimum_password_length,
                **{"username": "", "problem": None, "done": False, **kwargs},
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
        try:
            problem = await self.authenticator.problem_with_signup(name, password, confirmation)
        except LabsteadError as error:
            self.log.error("sign-up: %s", error)
            self.set_status(_UNAVAILABLE)
            await self._page(username=name, problem="Sign-up does not work now; please tell an administrator.")
            return
        if problem is None and self.authenticator.create_user(name, password) is None:
            problem = "This sign-up was not possible; please try another username."
        if problem:
            self.set_status(_BAD_REQUEST)
            await self._page(username=name, problem=problem)
            return
        self.log.info("sign-up of %s waits for approval", name)
        await self._page(username=name, done=True)


class PeopleHandler(BaseHandler):  # type: ignore[misc]
    """Who signed up, for administrators."""

    async def _page(self, problem: str | None = None) -> None:
        self.finish(
            await self.render_template(
                "people.html",
                xsrf=self.xsrf_token.decode("ascii"),
                signups=self.authenticator.signups(),
                admins=self.authenticator.admin_users,
                problem=problem,
            )
        )

    @web.authenticated
    @needs_scope("admin:users")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Show the list."""
        await self._page()


class DecisionHandler(PeopleHandler):
    """Approve, deny or revoke one sign-up."""

    def get(self, _name: str) -> None:
        """Refuse: following a link decides nothing."""
        raise web.HTTPError(405)

    @needs_scope("admin:users")  # type: ignore[untyped-decorator]
    async def post(self, name: str) -> None:
        """Take the decision named in the form."""
        decision = self.get_body_argument("decision", "")
        if self.authenticator.get_user(name) is None:
            raise web.HTTPError(404, f"Nobody called {name} signed up.")
        try:
            if decision == "approve":
                await self.authenticator.approve(name)
            elif decision == "deny":
                self.authenticator.deny(name)
            elif decision == "revoke" and name not in self.authenticator.admin_users:
                self.authenticator.revoke(name)
            else:
                raise web.HTTPError(400, f"There is no decision {decision!r} for {name}.")
        except LabsteadError as error:
            self.set_status(_BAD_REQUEST)
            await self._page(problem=str(error))
            return
        self.log.info("%s: %s of the sign-up %s", self.current_user.name, decision, name)
        self.redirect(self.hub.base_url + "authorize")


class _LongPasswords:
    """Keep passwords that bcrypt does not take away from NativeAuthenticator, which would answer 500."""

    def prepare(self: Any) -> Any:
        """Refuse them."""
        for field in ("old_password", "new_password"):
            if too_long(self.get_body_argument(field, "", strip=False)):
                raise web.HTTPError(400, f"A password has at most {MAX_PASSWORD_BYTES} bytes.")
        return super().prepare()  # type: ignore[misc]


class ChangePasswordHandler(_LongPasswords, NativeChangePasswordHandler):  # type: ignore[misc]
    """Change one's own password."""


class ChangePasswordAdminHandler(_LongPasswords, NativeChangePasswordAdminHandler):  # type: ignore[misc]
    """Set somebody's password, for administrators."""


PAGES: list[tuple[str, type]] = [
    (r"/login", LoginHandler),
    (r"/signup", SignUpHandler),
    (r"/authorize", PeopleHandler),
    (r"/authorize/([^/]+)", DecisionHandler),
    (r"/change-password", ChangePasswordHandler),
    (r"/change-password/([^/]+)", ChangePasswordAdminHandler),
]
