"""Who may come in: through which door, and whether the machine has an open account for them.

The one rule: whoever comes in has an account of the ledger that is open and whose door is the one they came through.
A password of the hub's own opens nothing without one, and nobody can be approved whom the machine cannot have as a
Unix user.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import EmailMessage
from functools import partial
from typing import Any, ParamSpec, TypeVar

import bcrypt
from nativeauthenticator import NativeAuthenticator
from nativeauthenticator.orm import UserInfo
from traitlets import Instance

from labstead import mail
from labstead.accounts.client import Client
from labstead.accounts.protocol import Account
from labstead.errors import AccountRefused, LabsteadError, Refusal
from labstead.hub import doors, logins
from labstead.hub.doors import NotIn, is_expired, problem_with_account, title
from labstead.hub.lockout import Lockout
from labstead.hub.spaces import Disks
from labstead.names import CANARY, MAX_LENGTH, problem_with_name
from labstead.secrets import MAX_PASSWORD_BYTES
from labstead.settings import Door, Hub, Mail

_MAX_PAM_PASSWORD = 1024
"""Characters that the accounts service takes."""
_PAM_AT_ONCE = 4
_PAM_QUEUE_SECONDS = 40
"""How many passwords PAM checks at once, and how long others wait for their turn: a directory that hangs must not keep
everybody else out."""
_THREADS = 8
"""Requests to the accounts service at once, those for PAM aside."""
CLOSED = "Log-in does not work now; please tell an administrator."
"""What people see while the accounts service is away."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def too_long(password: str) -> bool:
    """Tell whether bcrypt would not take the whole password."""
    return len(password.encode()) > MAX_PASSWORD_BYTES


#: A hash of nothing that anybody knows: names that do not exist take as long to refuse as those that do.
_NOBODYS_HASH = bcrypt.hashpw(bcrypt.gensalt(4), bcrypt.gensalt())


async def matches(password: str, hashed: bytes) -> bool:
    """Tell whether a password is the one that was hashed."""
    return not too_long(password) and await asyncio.to_thread(bcrypt.checkpw, password.encode(), hashed)


@dataclass(frozen=True)
class Signup:
    """A sign-up that waits for a decision.

    :param mark: tells it from an earlier or later one of the same name
    """

    name: str
    email: str
    mark: str


def _mark(info: UserInfo) -> str:
    # The hash is salted, so no two sign-ups have the same, and nobody learns anything from a hash of it.
    return hashlib.sha256(info.password).hexdigest()[:16]


class LabsteadAuthenticator(NativeAuthenticator):  # type: ignore[misc]
    """The doors with a password: `native`, with sign-up and approval, and `pam`."""

    site = Instance(Hub, help="The hub's settings, hub.yml.").tag(config=True)

    accounts = Client()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with_password: tuple[Door, ...] = ("native", "pam")
        self.lockouts = {door: Lockout(self.site.failed_logins, self.site.lockout_seconds) for door in with_password}
        self._service = ThreadPoolExecutor(_THREADS, thread_name_prefix="accounts")
        self._pam = ThreadPoolExecutor(_PAM_AT_ONCE, thread_name_prefix="pam")
        self._pam_turns = asyncio.Semaphore(_PAM_AT_ONCE)
        self.disks = Disks(lambda name: self.accounts.spaces(name))
        self._deciding = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def add_new_table(self) -> None:
        """Make the tables that JupyterHub does not know."""
        super().add_new_table()
        logins.make_tables(self.db.connection())
        self.db.commit()

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:  # noqa: ARG002
        """Give the pages: ours where NativeAuthenticator's would not do, see `labstead.hub.handlers`."""
        from labstead.hub import handlers  # it needs this module

        return handlers.PAGES

    async def ask(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Ask the accounts service beside the event loop.

        :raises AccountRefused: where it refuses
        :raises LabsteadError: where it is away
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._service, partial(call, *args, **kwargs))

    # --- log-in

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | dict[str, Any] | None:
        """Check name and password; None where they are wrong or the person may not come in.

        Unlike NativeAuthenticator's, this checks passwords beside the event loop, since bcrypt takes long,
        and does not count the right password of somebody who waits for approval as a wrong one. Where more can be
        said than "wrong", it is left for the log-in page in the handler's `refusal`.
        """
        typed = [data.get(field, "") for field in ("username", "password", "door")]
        if not all(isinstance(word, str) for word in typed):  # JupyterHub's API takes JSON
            return None
        name, password = str(self.normalize_username(typed[0])), typed[1]
        door = self.door_of(name, typed[2])
        checks: dict[Door, Callable[[str, str], Awaitable[str | None]]] = {
            "native": self._through_native,
            "pam": self._through_pam,
        }
        if door not in checks:
            handler.refusal = "Please use the button to sign in."
            return None
        found = await self.let_in(handler, checks[door](name, password))
        said = getattr(handler, "refusal", None)
        if found is None and said is None and {"native", "pam"} <= set(self.site.doors):
            # Not by whether there is such an account elsewhere: strangers would learn which names there are.
            handler.refusal = f"Invalid username or password. Is it {doors.with_article(title(door, self.site))}?"
        return found

    async def let_in(self, handler: Any, check: Awaitable[_T | None]) -> _T | None:
        """Wait for what a door says; where it says why not, leave that in the handler's `refusal`."""
        try:
            return await check
        except NotIn as reason:
            self.log.info("not let in: %s", reason)
            handler.refusal = str(reason)
        except LabsteadError as error:
            self.log.error("log-in: %s", error)
            handler.refusal = CLOSED
        return None

    def door_of(self, name: str, chosen: str) -> Door:
        """Give the door that a form goes to: the chosen one, if it is open and takes passwords, or the first."""
        if name == CANARY:
            return "native"
        with_password: list[Door] = [door for door in self.site.doors if door != "oidc"]
        return next((door for door in with_password if door == chosen), (*with_password, "oidc")[0])

    def _check_turn(self, door: Door, name: str) -> Lockout:
        lockout = self.lockouts[door]
        if lockout.waits(name):
            minutes = -(-self.site.lockout_seconds // 60)
            raise NotIn(f"Too many wrong passwords for {name}. Please try again in {minutes} minutes.")
        lockout.count(name)
        return lockout

    async def _through_native(self, name: str, password: str) -> str | None:
        info = self.get_user(name)
        if info is None:
            await matches(password, _NOBODYS_HASH)
            return None
        hashed = info.password
        # The session reads rows anew only when nobody holds them any more, and root may change this one meanwhile.
        del info
        lockout = self._check_turn("native", name)
        if not await matches(password, hashed):
            return None
        lockout.forgive(name)
        account = await self.account(name)
        info = self.get_user(name)
        if info is None or info.password != hashed:
            return None  # somebody else's by now: the password was looked at for what is no longer there
        if not info.is_authorized:
            if account is not None and account.door == "native" and (account.locked or is_expired(account)):
                raise NotIn(problem_with_account(name, account, "native", self.site) or CLOSED)
            raise NotIn(f"Your sign-up as {name} waits for an administrator's approval.")
        if problem := problem_with_account(name, account, "native", self.site):
            raise NotIn(problem)
        return name

    async def _through_pam(self, name: str, password: str) -> str | None:
        if not name or len(name) > MAX_LENGTH or not password or len(password) > _MAX_PAM_PASSWORD:
            return None
        lockout = self._check_turn("pam", name)
        try:
            account = await self._check_password(name, password)
        except AccountRefused as refused:
            if refused.code in (Refusal.WRONG_PASSWORD, Refusal.BAD_NAME, Refusal.UNKNOWN):
                return None
            if refused.code is Refusal.FAILED:
                lockout.take_back(name)
            raise NotIn(_sentence(refused)) from refused
        except LabsteadError:
            lockout.take_back(name)
            raise
        lockout.forgive(name)
        if problem := problem_with_account(name, account, "pam", self.site):
            raise NotIn(problem)
        return account.name

    async def _check_password(self, name: str, password: str) -> Account:
        try:
            async with asyncio.timeout(_PAM_QUEUE_SECONDS):
                await self._pam_turns.acquire()
        except TimeoutError:
            raise AccountRefused(
                Refusal.FAILED, "Passwords cannot be checked at the moment; please try again in a minute"
            ) from None
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pam, self.accounts.check_password, name, password)
        finally:
            self._pam_turns.release()

    # --- who may be in

    async def account(self, name: str) -> Account | None:
        """Give somebody's account; None where there is none.

        :raises LabsteadError: when the accounts service is away
        """
        if not 0 < len(name) <= MAX_LENGTH:
            return None
        try:
            (found,) = await self.ask(self.accounts.accounts, name)
        except AccountRefused as refused:
            if refused.code is Refusal.UNKNOWN:
                return None
            raise
        return found

    async def problem_with(self, name: str) -> str | None:
        """Say why somebody who is in may not be; None where they may.

        :raises LabsteadError: when the accounts service is away
        """
        account = await self.account(name)
        door: Door = account.door if account is not None and account.kind != "canary" else "native"
        if problem := problem_with_account(name, account, door, self.site):
            return problem
        if name != CANARY and door not in self.site.doors:
            return f"The account {name} cannot be used on this hub; please ask an administrator."
        if door == "native" and not self.has_login(name):
            return f"The account {name} has no log-in; please ask an administrator."
        return None

    def logins(self) -> list[str]:
        """Give the names of all who have a password of the hub's own that opens the door."""
        return [name for (name,) in self.db.query(UserInfo.username).filter(UserInfo.is_authorized.is_(True))]

    def has_login(self, name: str) -> bool:
        """Tell whether somebody has a password of the hub's own that opens the door."""
        login = logins.find(self.db, name)
        return login is not None and login.authorized

    def is_admin(self, handler: Any, authentication: dict[str, Any]) -> bool:  # noqa: ARG002
        """Tell whether somebody is an administrator now; JupyterHub itself would never take that back."""
        return authentication["name"] in self.admin_users

    async def refresh_user(self, user: Any, handler: Any = None) -> bool | dict[str, Any]:
        """Send somebody whose account was closed to the log-in page; tell JupyterHub who is an administrator.

        While the accounts service is away whoever is in stays in: a session cannot start without it anyway.
        """
        try:
            problem = await self.problem_with(user.name)
        except LabsteadError as error:
            self.log.error("%s stays in unasked: %s", user.name, error)
            problem = None
        if problem:
            self.log.info("%s is sent out: %s", user.name, problem)
            # JupyterHub 6.1 reads this of the handler now, and sets it only where there was a token: it would answer
            # 500 to whoever has a cookie.
            if handler is not None and not hasattr(handler, "_token_authenticated"):
                handler._token_authenticated = False
            return False
        return {"name": user.name, "admin": user.name in self.admin_users}

    async def delete_user(self, user: Any) -> None:
        """Forget somebody's log-in along with the hub's user, unless there is still an account to log in to."""
        try:
            account = await self.account(user.name)
        except LabsteadError as error:
            self.log.error("the log-in of %s is kept: %s", user.name, error)
            return
        if account is not None and account.state == "active" and account.kind != "canary":
            return
        logins.delete_login(self.db, user.name)

    # --- passwords of the hub's own

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

    def problem_with_new_password(self, name: str, password: str, confirmation: str) -> str | None:
        """Say why this person cannot have this password, typed twice; None where they can."""
        if problem := self.problem_with_password(password):
            return problem
        if password == name:
            return "Please choose a password that is not your username."
        if password != confirmation:
            return "The two passwords are not the same."
        return None

    async def is_own_password(self, name: str, password: str) -> bool:
        """Tell whether this is somebody's password, counting wrong ones as at the log-in.

        :raises NotIn: after too many wrong ones
        """
        info = self.get_user(name)
        if info is None:
            return False
        hashed = info.password
        del info
        lockout = self._check_turn("native", name)
        if not await matches(password, hashed):
            return False
        lockout.forgive(name)
        return True

    async def set_password(self, name: str, password: str) -> bool:
        """Give somebody who has a log-in a new password; links to set one no longer work, and log-ins elsewhere end.

        :return: False where there is no such log-in
        """
        hashed = await asyncio.to_thread(logins.hashed, password)
        info = self.get_user(name)
        if info is None:
            return False
        info.password = hashed
        logins.cancel_invitations(self.db, name)
        self.db.commit()
        logins.end_logins(self.db, name)
        self.lockouts["native"].forgive(name)
        return True

    def invited(self, token: str) -> str | None:
        """Give the name of whom a link to set a password was given to; None where it does not work any more."""
        return logins.invited(self.db, token)

    async def redeem(self, token: str, password: str) -> str | None:
        """Set the password of whom a link was given to; None where it does not work any more."""
        hashed = await asyncio.to_thread(logins.hashed, password)
        name = logins.redeem(self.db, token, hashed)
        if name is not None:
            logins.end_logins(self.db, name)
            self.lockouts["native"].forgive(name)
        return name

    # --- sign-up

    async def problem_with_signup(self, name: str, password: str, confirmation: str, email: str = "") -> str | None:
        """Say why this sign-up cannot be; None where it can."""
        # The service looks at the name too; what is wrong with its text needs no asking.
        if problem := problem_with_name(name):
            return problem
        # Who signs up first with an administrator's name must not become one, even before the account exists.
        if name in self.admin_users or self.user_exists(name):
            return f"The username {name} is taken; please choose another one."
        if problem := await self.ask(self.accounts.problem, name):
            return problem
        if problem := self.problem_with_new_password(name, password, confirmation):
            return problem
        return _problem_with_address(email) if email else None

    async def sign_up(self, name: str, password: str, email: str = "") -> bool:
        """Note a sign-up that waits for approval; `problem_with_signup` has found nothing wrong with it.

        :return: False if somebody else took the name meanwhile
        """
        hashed = await asyncio.to_thread(logins.hashed, password)
        if not logins.sign_up(self.db, name, hashed, email):
            return False
        self.send(mail.signed_up(self.site, name, email))
        return True

    def signups(self) -> list[Signup]:
        """Give all sign-ups that were not approved, the oldest first."""
        rows = self.db.query(UserInfo).filter(UserInfo.is_authorized.is_not(True)).order_by(UserInfo.id)
        return [Signup(info.username, info.email or "", _mark(info)) for info in rows]

    def waiting(self) -> int:
        """Count the sign-ups that wait."""
        return int(self.db.query(UserInfo.id).filter(UserInfo.is_authorized.is_not(True)).count())

    def _signup(self, name: str, mark: str) -> Signup:
        info = self.get_user(name)
        if info is None or info.is_authorized or _mark(info) != mark:
            raise LabsteadError(f"The sign-up of {name} has changed meanwhile; please look again.")
        return Signup(name, info.email or "", mark)

    async def approve(self, name: str, mark: str) -> None:
        """Let somebody in: make their Unix account, then open their log-in.

        :param mark: of the sign-up that the administrator saw
        :raises AccountRefused: when there cannot be such an account; the log-in stays closed
        """
        async with self._deciding:
            signup = self._signup(name, mark)
            await self.ask(self.accounts.create, name, signup.email)
            self._signup(name, mark)
            logins.authorize(self.db, name)
        self.send(mail.approved(self.site, name, signup.email))

    async def deny(self, name: str, mark: str) -> None:
        """Forget a sign-up that was never approved."""
        async with self._deciding:
            self._signup(name, mark)
            logins.delete_login(self.db, name)

    async def lock(self, name: str) -> None:
        """Close somebody's account; account and files stay."""
        await self.ask(self.accounts.lock, name)

    async def unlock(self, name: str) -> None:
        """Open an account that was locked."""
        account = await self.ask(self.accounts.unlock, name)
        if account.kind == "created" and account.door == "native":
            # Earlier releases closed the log-in as well.
            logins.authorize(self.db, name)

    # --- mail

    def send(self, messages: Sequence[EmailMessage]) -> None:
        """Send mail beside the event loop; a failure is only logged, the pages show the same."""
        if self.site.mail is None or not messages:
            return
        task = asyncio.ensure_future(self._send(self.site.mail, messages))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, relay: Mail, messages: Sequence[EmailMessage]) -> None:
        try:
            await asyncio.to_thread(mail.send, relay, messages)
        except LabsteadError as error:
            self.log.error("%s", error)


def _sentence(error: LabsteadError) -> str:
    text = str(error)
    return text if text.endswith(".") else f"{text}."


def _problem_with_address(email: str) -> str | None:
    if problem := mail.problem_with_address(email):
        return problem
    try:
        UserInfo(email=email)
    except AssertionError:  # NativeAuthenticator's own idea of an address
        return "This is not an e-mail address."
    return None
