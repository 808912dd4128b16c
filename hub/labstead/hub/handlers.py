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

    refusal: str | None = None
    """What the authenticator has to say beyond "wrong"."""

    def _render(self, login_error: str | None = None, username: str | None = None, **kwargs: Any) -> Any:
        if login_error is not None and self.refusal is not None:
            login_error = self.refusal
        return super()._render(login_error=login_error, username=username, **kwargs)


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
        if problem is None and not await self.authenticator.sign_up(name, password):
            problem = f"The username {name} is taken; please choose another one."
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
        name = self.authenticator.normalize_username(name)
        if self.authenticator.get_user(name) is None:
            raise web.HTTPError(404, f"Nobody called {name} signed up.")
        try:
            if decision == "approve":
                await self.authenticator.approve(name)
            elif decision == "deny":
                self.authenticator.deny(name)
            elif decision == "revoke" and name not in self.authenticator.admin_users:
                try:
                    await self.authenticator.revoke(name)
                finally:  # also where the Unix account could not be locked
                    await self._put_out(name)
            else:
                raise web.HTTPError(400, f"There is no decision {decision!r} for {name}.")
        except LabsteadError as error:
            self.set_status(_BAD_REQUEST)
            await self._page(problem=str(error))
            return
        self.log.info("%s: %s of the sign-up %s", self.current_user.name, decision, name)
        self.redirect(self.hub.base_url + "authorize")

    async def _put_out(self, name: str) -> None:
        """Stop somebody's servers and take their tokens; a log-in that is open ends with its next request."""
        user = self.find_user(name)
        if user is None:
            return
        active = [server for server, spawner in user.spawners.items() if spawner.active and not spawner.pending]
        for server in active:
            await self.stop_single_user(user, server)
        for token in user.api_tokens:
            self.db.delete(token)
        self.db.commit()
        user._auth_refreshed = None  # JupyterHub's own mark of when it last asked


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
