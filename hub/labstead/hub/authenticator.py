"""Who may come in: NativeAuthenticator with the accounts service behind it.

The one rule: nobody can be approved whom the machine cannot have as a Unix user, and nobody comes in who was not
approved.
"""

import asyncio
import pwd
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import bcrypt
from nativeauthenticator import NativeAuthenticator
from nativeauthenticator.orm import UserInfo

from labstead.accounts.client import Client
from labstead.names import problem_with_name

MAX_PASSWORD_BYTES = 72
"""bcrypt reads no further; bcrypt 5 refuses longer ones with an exception."""


def too_long(password: str) -> bool:
    """Tell whether bcrypt would not take the whole password."""
    return len(password.encode()) > MAX_PASSWORD_BYTES


#: A hash of nothing that anybody knows: names that do not exist take as long to refuse as those that do.
_NOBODYS_HASH = bcrypt.hashpw(bcrypt.gensalt(4), bcrypt.gensalt())


@dataclass(frozen=True)
class Signup:
    """Somebody who signed up or was made an administrator."""

    name: str
    state: Literal["waiting", "revoked", "approved", "administrator"]


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

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """Check name and password; None where they are wrong or the person was not approved.

        Unlike NativeAuthenticator's, this checks passwords beside the event loop, since bcrypt takes long,
        and does not count the right password of somebody who waits for approval as a wrong one. Where more can be
        said than "wrong", it is left for the log-in page in the handler's `refusal`.
        """
        name, password = str(self.normalize_username(data.get("username", ""))), data.get("password", "")
        info = self.get_user(name)
        if info is None:
            await matches(password, _NOBODYS_HASH)
            return None
        if self.is_blocked(name):
            minutes = -(-self.seconds_before_next_try // 60)
            handler.refusal = f"Too many wrong passwords for {name}. Please try again in {minutes} minutes."
            return None
        # Counted before it is checked: of many guesses sent at the same moment only so many are looked at.
        self.add_login_attempt(name)
        if not await matches(password, info.password):
            return None
        self.successful_login(name)
        if not info.is_authorized:
            handler.refusal = (
                f"Your sign-up as {name} waits for an administrator's approval."
                if self._state(info) == "waiting"
                else f"The approval of {name} was taken back; please ask an administrator."
            )
            return None
        return name

    def is_blocked(self, username: str) -> bool:
        """Tell whether a name has to wait after too many wrong passwords in a row."""
        attempts = self.login_attempts.get(username)
        if attempts is None:
            return False
        if (datetime.now() - attempts["time"]).total_seconds() > self.seconds_before_next_try:
            self.successful_login(username)
            return False
        return bool(attempts["count"] >= self.allowed_failed_logins)

    def is_admin(self, handler: Any, authentication: dict[str, Any]) -> bool:  # noqa: ARG002
        """Tell whether somebody is an administrator now; JupyterHub itself would never take that back."""
        return authentication["name"] in self.admin_users

    async def refresh_user(self, user: Any, handler: Any = None) -> bool | dict[str, Any]:  # noqa: ARG002
        """Send somebody whose approval was taken back to the log-in page; tell JupyterHub who is an administrator."""
        if not self.may_come_in(user.name):
            return False
        return {"name": user.name, "admin": user.name in self.admin_users}

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

    async def sign_up(self, name: str, password: str) -> bool:
        """Note a sign-up that waits for approval; `problem_with_signup` has found nothing wrong with it.

        :return: False if somebody else took the name meanwhile
        """
        hashed = await asyncio.to_thread(bcrypt.hashpw, password.encode(), bcrypt.gensalt())
        if self.user_exists(name):
            return False
        self.db.add(UserInfo(username=name, password=hashed))
        self.db.commit()
        return True

    async def approve(self, name: str) -> None:
        """Let somebody in: make their Unix account, then open their log-in.

        :raises AccountRefused: when there cannot be such an account; the log-in stays closed
        """
        await asyncio.to_thread(self.accounts.create, name)
        self._set_authorized(name, True)

    async def revoke(self, name: str) -> None:
        """Close somebody's log-in and lock their Unix account; account and files stay."""
        self._set_authorized(name, False)
        await asyncio.to_thread(self.accounts.lock, name)

    def may_come_in(self, name: str) -> bool:
        """Tell whether somebody is approved now."""
        info = self.get_user(name)
        return info is not None and bool(info.is_authorized)

    def _set_authorized(self, name: str, authorized: bool) -> None:
        info = self.get_user(name)
        if info is not None:
            info.is_authorized = authorized
            self.db.commit()

    def deny(self, name: str) -> None:
        """Forget a sign-up that was never approved."""
        info = self.get_user(name)
        if info is not None and self._state(info) == "waiting":
            self.db.delete(info)
            self.db.commit()

    def signups(self) -> list[Signup]:
        """Give all who signed up, the waiting ones first, then by name."""
        found = [Signup(info.username, self._state(info)) for info in UserInfo.all_users(self.db)]
        return sorted(found, key=lambda signup: (signup.state != "waiting", signup.name))

    def _state(self, info: UserInfo) -> Literal["waiting", "revoked", "approved", "administrator"]:
        if info.is_authorized:
            return "administrator" if info.username in self.admin_users else "approved"
        try:
            pwd.getpwnam(info.username)
        except KeyError:
            return "waiting"
        return "revoked"  # there is an account, so there was an approval
