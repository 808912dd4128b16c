"""The administrators' page of people: who waits, who is there, and what can be done about it.

The one rule: what changes something is a POST with the hub's XSRF token that names the sign-up or account it is meant
for, and what has changed meanwhile is refused.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from jupyterhub import orm
from jupyterhub.scopes import needs_scope
from jupyterhub.utils import new_token
from tornado import web
from tornado.escape import url_escape

from labstead.accounts.protocol import Account, Group, Space
from labstead.errors import LabsteadError
from labstead.hub import lists
from labstead.hub.authenticator import Signup
from labstead.hub.doors import is_expired
from labstead.hub.lists import PAGE_SIZE
from labstead.hub.note import Noted
from labstead.hub.spaces import bytes_of, known_spaces, level_of

_BAD_REQUEST = 400
_UNAVAILABLE = 503

State = Literal["active", "locked", "expired", "unfinished", "removed"]
STATES: tuple[State, ...] = ("active", "locked", "expired", "unfinished", "removed")


@dataclass(frozen=True)
class Person:
    """One account with what the hub and the machine know of it."""

    name: str
    full_name: str
    email: str
    door: str
    state: State
    expires: date | None
    groups: tuple[str, ...]
    last_seen: datetime | None
    """UTC."""
    home: Space | None
    """What it holds and may hold; None where nobody can say."""
    running: bool
    is_admin: bool
    has_login: bool

    def matches(self, words: Sequence[str]) -> bool:
        """Tell whether each of some words is in what the page shows of this person."""
        text = "\n".join((self.name, self.full_name, self.email, *self.groups)).casefold()
        return all(word in text for word in words)


def state_of(account: Account) -> State:
    """Give what the page says of an account."""
    if account.state == "retired":
        return "removed"
    if account.state == "pending":
        return "unfinished"
    return "expired" if is_expired(account) else "locked" if account.locked else "active"


def _groups_by_person(groups: Iterable[Group]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        for name in group.members:
            found[name].append(group.name)
    return {name: tuple(sorted(names)) for name, names in found.items()}


@dataclass(frozen=True)
class Seen:
    """What the hub's database knows of its users."""

    last: dict[str, datetime | None]
    running: frozenset[str]
    logins: frozenset[str]


def seen(db: Any, authorized: Iterable[str]) -> Seen:
    """Ask the hub's database: columns only, since a thousand objects take long."""
    last = dict(map(tuple, db.query(orm.User.name, orm.User.last_activity)))
    active = db.query(orm.User.name).join(orm.Spawner).filter(orm.Spawner.server_id.is_not(None))
    return Seen(last, frozenset(name for (name,) in active), frozenset(authorized))


def people_of(
    accounts: Iterable[Account], groups: Iterable[Group], spaces: Iterable[Space], hub: Seen, admins: Iterable[str]
) -> list[Person]:
    """Put together what is known of everybody, by name; the self-check's account is nobody."""
    memberships, administrators = _groups_by_person(groups), frozenset(admins)
    homes = {space.name: space for space in spaces if space.kind == "home"}
    return [
        Person(
            name=account.name,
            full_name=account.full_name,
            email=account.email,
            door=account.door,
            state=state_of(account),
            expires=account.expires,
            groups=memberships.get(account.name, ()) if account.state != "retired" else (),
            last_seen=hub.last.get(account.name) if account.state != "retired" else None,
            home=homes.get(account.name) if account.state != "retired" else None,
            running=account.state != "retired" and account.name in hub.running,
            is_admin=account.state != "retired" and account.name in administrators,
            has_login=account.state == "active" and account.name in hub.logins,
        )
        for account in sorted(accounts, key=lambda account: (account.name, account.state == "retired"))
        if account.kind != "canary"
    ]


@dataclass(frozen=True)
class Query:
    """What somebody looks for on the page."""

    text: str = ""
    state: str = ""
    number: int = 1

    @property
    def words(self) -> list[str]:
        """Give the words to look for."""
        return self.text.casefold().split()

    def people(self, everybody: Iterable[Person]) -> list[Person]:
        """Give those who are looked for."""
        shown = (self.state,) if self.state in STATES else STATES
        return [person for person in everybody if person.state in shown and person.matches(self.words)]

    def signups(self, waiting: Iterable[Signup]) -> list[Signup]:
        """Give the sign-ups that are looked for; looking for a state looks for accounts only."""
        if self.state in STATES:
            return []
        return [
            signup
            for signup in waiting
            if all(word in f"{signup.name}\n{signup.email}".casefold() for word in self.words)
        ]

    def url(self, path: str, number: int | None = None) -> str:
        """Give the address of the page that shows this."""
        return lists.address(path, {"q": self.text, "state": self.state, "page": str(number or self.number)})


class PeopleHandler(Noted):
    """Who signed up and who has an account, for administrators."""

    def _query(self) -> Query:
        return Query(
            text=self.get_argument("q", "")[:200].strip(),
            state=self.get_argument("state", ""),
            number=lists.page_number(self.get_argument("page", "1")),
        )

    async def _spaces(self) -> list[Space]:
        """Give all spaces; none where nobody can say, which is no reason to show nobody."""
        try:
            return await known_spaces(self.authenticator.disks)
        except LabsteadError as error:
            self.log.error("people: %s", error)
            return []

    async def _people(self, removed: bool) -> tuple[list[Person], list[Signup]]:
        authenticator = self.authenticator
        accounts, groups, spaces = await asyncio.gather(
            authenticator.ask(authenticator.accounts.accounts, retired=removed),
            authenticator.ask(authenticator.accounts.groups),
            self._spaces(),
        )
        people = people_of(accounts, groups, spaces, seen(self.db, authenticator.logins()), authenticator.admin_users)
        # Earlier releases closed the log-in of a locked account too: that is no sign-up.
        locked = {person.name for person in people if person.state in ("locked", "expired")}
        return people, [signup for signup in authenticator.signups() if signup.name not in locked]

    async def _page(self, problem: str | None = None, status: int = 200) -> None:
        query = self._query()
        people: list[Person] = []
        waiting: list[Signup] = []
        try:
            people, waiting = await self._people(query.state == "removed")
        except LabsteadError as error:
            self.log.error("people: %s", error)
            problem, status = "The accounts service does not answer; see its journal on the machine.", _UNAVAILABLE
        address = self.hub.base_url + "people"
        page = lists.page_of(query.people(people), query.number)
        signups = query.signups(waiting)
        self.set_status(status)
        self.finish(
            await self.render_template(
                "people.html",
                xsrf=self.xsrf_token.decode("ascii"),
                query=query,
                states=STATES,
                page=page,
                page_url=lambda number: query.url(address, number),
                action_url=lambda name: query.url(f"{address}/{url_escape(name)}"),
                signups=signups[:PAGE_SIZE],
                signups_found=len(signups),
                everybody=len(people),
                several_doors=len(self.authenticator.site.doors) > 1,
                bytes_of=bytes_of,
                level_of=level_of,
                problem=problem,
                note=self.take_note(),
            )
        )

    @web.authenticated
    @needs_scope("admin:users")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Show the page."""
        await self._page()


class OldPeopleHandler(PeopleHandler):
    """The address that the page had before."""

    def get(self) -> None:
        """Lead to the page."""
        self.redirect(self.hub.base_url + "people", permanent=True)


class DecisionHandler(PeopleHandler):
    """Do one thing about one sign-up or one account."""

    def get(self, _name: str) -> None:
        """Refuse: following a link decides nothing."""
        raise web.HTTPError(405)

    @needs_scope("admin:users")  # type: ignore[untyped-decorator]
    async def post(self, name: str) -> None:
        """Take the decision named in the form."""
        decision = self.get_body_argument("decision", "")
        name = str(self.authenticator.normalize_username(name))
        decisions = {
            "approve": self._approve,
            "deny": self._deny,
            "lock": self._lock,
            "unlock": self._unlock,
            "stop": self._stop,
        }
        if decision not in decisions:
            raise web.HTTPError(400, f"There is no decision {decision!r}.")
        try:
            done = await decisions[decision](name)
        except LabsteadError as error:
            await self._page(problem=str(error), status=_BAD_REQUEST)
            return
        self.log.info("%s: %s %s", self.current_user.name, decision, name)
        self.leave_note(done)
        self.redirect(self._query().url(self.hub.base_url + "people"))

    async def _approve(self, name: str) -> str:
        await self.authenticator.approve(name, self.get_body_argument("signup", ""))
        return f"{name} is approved and can log in."

    async def _deny(self, name: str) -> str:
        await self.authenticator.deny(name, self.get_body_argument("signup", ""))
        return f"The sign-up of {name} is denied and forgotten."

    async def _lock(self, name: str) -> str:
        if name in self.authenticator.admin_users:
            raise LabsteadError(f"{name} is an administrator; take the name out of hub_admins first.")
        try:
            await self.authenticator.lock(name)
        finally:  # also where the Unix account could not be locked
            await self._put_out(name)
        return f"{name} is locked: no log-in and no session, files stay."

    async def _unlock(self, name: str) -> str:
        await self.authenticator.unlock(name)
        return f"{name} is unlocked."

    async def _stop(self, name: str) -> str:
        stopped = await self._stop_servers(name)
        return f"The server of {name} is stopped." if stopped else f"{name} has no server that runs."

    async def _stop_servers(self, name: str) -> int:
        user = self.find_user(name)
        if user is None:
            return 0
        active = [server for server, spawner in user.spawners.items() if spawner.active and not spawner.pending]
        for server in active:
            await self.stop_single_user(user, server)
        return len(active)

    async def _put_out(self, name: str) -> None:
        """Stop somebody's servers, take their tokens, and make the cookies of log-ins that are open useless."""
        user = self.find_user(name)
        if user is None:
            return
        await self._stop_servers(name)
        for token in user.api_tokens:
            self.db.delete(token)
        user.orm_user.cookie_id = new_token()
        self.db.commit()
        user._auth_refreshed = None  # JupyterHub's own mark of when it last asked
