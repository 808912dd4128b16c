"""Who may come in: NativeAuthenticator with the accounts service behind it.

The one rule: nobody can be approved whom the machine cannot have as a Unix user, and nobody comes in who was not
approved.
"""

import asyncio
from typing import Any

import bcrypt
from jupyterhub.auth import Authenticator
from nativeauthenticator import NativeAuthenticator
from nativeauthenticator.orm import UserInfo

from labstead.accounts.client import Client
from labstead.names import problem_with_name

MAX_PASSWORD_BYTES = 72
"""bcrypt reads no further; bcrypt 5 refuses longer ones with an exception."""


def too_long(password: str) -> bool:
    """Tell whether bcrypt would not take the whole password."""
    return len(password.encode()) > MAX_PASSWORD_BYTES


async def matches(password: str, hashed: bytes) -> bool:
    """Tell whether a password is the one that was hashed."""
    return not too_long(password) and await asyncio.to_thread(bcrypt.checkpw, password.encode(), hashed)


class LabsteadAuthenticator(NativeAuthenticator):  # type: ignore[misc]
    """Sign-up with approval, where approval makes the Unix account."""

    accounts = Client()

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:  # noqa: ARG002
        """Give the pages: ours where NativeAuthenticator's would not do, see `labstead.hub.handlers`."""
        from labstead.hub import handlers  # it needs this module

        return handlers.PAGES

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:  # noqa: ARG002
        """Check name and password; None where they are wrong or the person was not approved.

        Unlike NativeAuthenticator's, this checks passwords beside the event loop, since bcrypt takes long,
        and does not count the right password of somebody who waits for approval as a wrong one.
        """
        name = str(self.normalize_username(data.get("username", "")))
        info = self.get_user(name)
        if info is None or self.is_blocked(name):
            return None
        if not await matches(data.get("password", ""), info.password):
            self.add_login_attempt(name)
            return None
        if not info.is_authorized:
            return None
        self.successful_login(name)
        return name

    async def refresh_user(self, user: Any, handler: Any = None) -> bool:  # noqa: ARG002
        """Send somebody whose approval was taken back to the log-in page."""
        info = self.get_user(user.name)
        return info is None or bool(info.is_authorized)

    def is_password_strong(self, password: str) -> bool:
        """Tell whether somebody may have this password."""
        return self.problem_with_password(password) is None

    def problem_with_password(self, password: str) -> str | None:
        """Say why nobody should have this password; None where it is good."""
        if len(password) < self.minimum_password_length:
            return f"A password has at least {self.minimum_password_length} characters."
        if too_long(password):
            return f"A password has at most {MAX_PASSWORD_BYTES} bytes."
        if self.check_common_password and self.is_password_common(password):
            return "This password is among the most common ones; please choose another one."
        return None

    async def problem_with_signup(self, name: str, password: str, confirmation: str) -> str | None:
        """Say why this sign-up cannot be; None where it can."""
        # Who signs up first with an administrator's name must not become one, even before the account exists.
        if name in self.admin_users or self.user_exists(name):
            return f"The username {name} is taken; please choose another one."
        # The service looks at the name too; what is wrong with its text needs no asking.
        if problem := problem_with_name(name) or await asyncio.to_thread(self.accounts.problem, name):
            return problem
        if problem := self.problem_with_password(password):
            return problem
        if password == name:
            return "Please choose a password that is not your username."
        if password != confirmation:
            return "The two passwords are not the same."
        return None

    async def approve(self, name: str) -> None:
        """Let somebody in: make their Unix account, then open their log-in.

        :raises AccountRefused: when there cannot be such an account; the log-in stays closed
        """
        await asyncio.to_thread(self.accounts.create, name)
        self._set_authorized(name, True)

    def revoke(self, name: str) -> None:
        """Close somebody's log-in; account and files stay."""
        self._set_authorized(name, False)

    def _set_authorized(self, name: str, authorized: bool) -> None:
        info = self.get_user(name)
        if info is not None:
            info.is_authorized = authorized
            self.db.commit()

    def deny(self, name: str) -> None:
        """Forget a sign-up that was not approved."""
        info = self.get_user(name)
        if info is not None and not info.is_authorized:
            self.db.delete(info)
            self.db.commit()

    def signups(self) -> list[UserInfo]:
        """Give all who signed up, the waiting ones first, by name."""
        return sorted(UserInfo.all_users(self.db), key=lambda info: (bool(info.is_authorized), info.username))

    def validate_username(self, username: str) -> bool:
        """Tell whether JupyterHub may know this name; the accounts service is stricter at sign-up."""
        return bool(Authenticator.validate_username(self, username)) and not set(username) & set(", /")
