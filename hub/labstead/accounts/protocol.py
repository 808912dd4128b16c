"""What may be asked of the accounts service.

One connection to /run/labstead/accounts.sock carries one request and one reply, each a JSON object on one line, a
request of at most 64 KiB. A request names its operation in `op`; a reply has either `result` or `error` with `code` (a
word of `labstead.errors.Refusal`) and `message`. The caller is who the kernel says (SO_PEERCRED): root may ask for
all, the hub's user for what `HUB_OPERATIONS` lists, everybody on the machine for what `OWN_OPERATIONS` lists, as
themselves.

The one rule: requests say what somebody wants, never how; no path, uid or gid comes over the socket, but for the uid
of whom root wants to know the name.
"""

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from labstead.identity import Identity
from labstead.names import MAX_LENGTH
from labstead.settings import Door, SpaceKind

SOCKET = "/run/labstead/accounts.sock"
MAX_LINE = 64 * 1024

#: Longer than any name that could be right, so that a reply can still say what is wrong with it.
_Name = Annotated[str, Field(max_length=8 * MAX_LENGTH)]
_Text = Annotated[str, Field(max_length=512)]
_Amount = Annotated[int, Field(ge=0, lt=2**63)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# --- people


class Check(_Message):
    """Could somebody sign up with this name? Reply: `Problem`."""

    op: Literal["check"] = "check"
    name: _Name


class Create(_Message):
    """Make the Unix account of an approved sign-up. Reply: `Account`.

    A name that the ledger has is refused unless it is an account that labstead made for the door native, which only
    an earlier approval of the same log-in or root can have made, and root gives such an account its log-in first.
    What `Lock` closed is opened; an expired account is refused.
    """

    op: Literal["create"] = "create"
    name: _Name
    email: _Text = ""


class Add(_Message):
    """Make an account, or bring details of one up to date (root). Reply: `Account`, `changed` where it was not so.

    None leaves a detail as it is.
    """

    op: Literal["add"] = "add"
    name: _Name
    door: Door = "native"
    full_name: _Text | None = None
    email: _Text | None = None


class Link(_Message):
    """Let an existing Unix account be used by a hub user of that name, through this door (root). Reply: `Account`."""

    op: Literal["link"] = "link"
    name: _Name
    door: Door = "native"
    full_name: _Text | None = None
    email: _Text | None = None


class Expire(_Message):
    """Set the first day on which an account is closed, or none (root). Reply: `Account`.

    A date that has come locks at once (`locked: expired`); a later one, or none, opens what expiry had locked.
    """

    op: Literal["expire"] = "expire"
    name: _Name
    day: date | None


class Lock(_Message):
    """Close an account: no log-in, no new session, no ssh where the Unix account is labstead's. Reply: `Account`."""

    op: Literal["lock"] = "lock"
    name: _Name


class Unlock(_Message):
    """Open an account that `Lock` closed; an expired one is refused. Reply: `Account`."""

    op: Literal["unlock"] = "unlock"
    name: _Name


class Retire(_Message):
    """Remove an account for good (root): Unix account, memberships, session files. Reply: `Account`.

    Refused while processes of the uid run, and where the home of an account that labstead made is missing. The uid is
    never given again, and its owner comes back through root alone, whichever their door. Home and scratch of an account
    that labstead made are moved to `.removed-UID` beside their places, where the caller archives or deletes them
    (`labstead.archive`); a linked account keeps all but its limits.
    """

    op: Literal["retire"] = "retire"
    name: _Name
    home_may_be_missing: bool = False


class Show(_Message):
    """Tell about all accounts of the hub, or about one. Reply: `Accounts`."""

    op: Literal["show"] = "show"
    name: _Name | None = None
    retired: bool = False
    """Tell about those that were removed instead."""


class CheckPassword(_Message):
    """Let PAM check somebody's password (door pam). Reply: `Account`.

    An account that the ledger does not have is linked by the right password, its home made by policy. Refused for
    accounts of another door and for those that labstead made: their names may mean somebody else to a directory.
    """

    op: Literal["check-password"] = "check-password"
    name: _Name
    password: Annotated[str, Field(max_length=1024)]


class Arrive(_Message):
    """Let in somebody whom the OpenID Connect provider vouches for (door oidc). Reply: `Account`.

    The first arrival makes or links the account by policy and binds it to the subject; nobody else with the same name
    gets it later.
    """

    op: Literal["arrive"] = "arrive"
    name: _Name
    subject: Annotated[str, Field(min_length=1, max_length=512)]
    """Issuer and `sub` claim, with a blank between them."""
    full_name: _Text = ""
    email: _Text = ""


class OpenSession(_Message):
    """Prepare a session of this person: check them, write their passwd and group files. Reply: `Identity`."""

    op: Literal["open-session"] = "open-session"
    name: _Name


class Identify(_Message):
    """Tell who this person is on the machine, if their account is open now (root); changes nothing. Reply: `Identity`.

    Give either; a uid is the account's of the ledger as well as of the machine.
    """

    op: Literal["identify"] = "identify"
    uid: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    name: _Name | None = None

    @model_validator(mode="after")
    def _one(self) -> "Identify":
        if (self.uid is None) == (self.name is None):
            raise ValueError("give either uid or name")
        return self


class MakeCanary(_Message):
    """Make the self-check's account (root). Reply: `Account`."""

    op: Literal["make-canary"] = "make-canary"


class RemoveCanary(_Message):
    """Remove the self-check's account with home and scratch (root). Reply: `Problem` without one."""

    op: Literal["remove-canary"] = "remove-canary"


# --- groups


class SetGroup(_Message):
    """Make a group with its folder, or bring one up to date (root). Reply: `Group`.

    :param declared: members that the inventory names: they replace those that it named before, nobody else; None
        leaves them
    :param managers: all managers; None leaves them
    :param existing: a group that NSS knows: it only gets a folder
    """

    op: Literal["set-group"] = "set-group"
    name: _Name
    declared: tuple[_Name, ...] | None = None
    managers: tuple[_Name, ...] | None = None
    existing: bool = False


class ChangeMembers(_Message):
    """Add people to a group and remove people from it. Reply: `Group`.

    Root may always. Anybody else may for groups that they manage: the hub says in `manager` for whom it asks, for
    other callers the kernel says it. Whoever is a person of this machine (uid >= 1000) can be a member. Members that
    the inventory declares are refused to be removed.
    """

    op: Literal["change-members"] = "change-members"
    group: _Name
    add: tuple[_Name, ...] = ()
    remove: tuple[_Name, ...] = ()
    manager: _Name | None = None


class RemoveGroup(_Message):
    """Remove a group for good (root); its folder is moved to `.removed-GID` beside its place. Reply: `Group`.

    What its members have in the folder counts against them until the caller has archived or deleted it; how much they
    may own is not lowered until a `FollowLimits` finds it gone.
    """

    op: Literal["remove-group"] = "remove-group"
    name: _Name


class ShowGroups(_Message):
    """Tell about the groups with folders, or about one. Reply: `Groups`.

    Everybody but root and the hub is told only of groups that they are in or manage.
    """

    op: Literal["show-groups"] = "show-groups"
    name: _Name | None = None


# --- limits


class SetLimit(_Message):
    """Say how much a space may hold (root). Reply: `Spaces`, with those whose limits have changed.

    What is said of a person comes before what is said of their groups, of which the largest counts, and that before
    what accounts.yml says of all.

    :param name: of the person, or of the group
    :param of_members: the limit is that of each member's home or scratch, where `name` is a group
    :param bytes: 0 is no limit; None takes back what was said
    :param files: files and folders, likewise
    :param keep: what to leave as it is
    """

    op: Literal["set-limit"] = "set-limit"
    kind: SpaceKind
    name: _Name
    of_members: bool = False
    bytes: _Amount | None = None
    files: _Amount | None = None
    keep: tuple[Literal["bytes", "files"], ...] = ()


class FollowLimits(_Message):
    """Make the disks' limits what the ledger and accounts.yml say (root). Reply: `Spaces`, with those that changed.

    What is left on the disks of spaces that are gone is taken away.

    :param adopt: take in folders that were there before limits; that reads all of each once and may take hours
    :param check: only tell what would be changed
    """

    op: Literal["follow-limits"] = "follow-limits"
    adopt: bool = False
    check: bool = False


class ShowLimits(_Message):
    """Tell what was said of limits (root); `ShowSpaces` tells what holds. Reply: `Limits`."""

    op: Literal["show-limits"] = "show-limits"


class ShowSpaces(_Message):
    """Tell what homes, group folders and scratch hold and may hold. Reply: `Spaces`.

    Everybody but root and the hub is told only of their own and of those of their groups.

    :param name: only what this person has, groups' folders too
    """

    op: Literal["show-spaces"] = "show-spaces"
    name: _Name | None = None


Request = (
    Check
    | Create
    | Add
    | Link
    | Expire
    | Lock
    | Unlock
    | Retire
    | Show
    | CheckPassword
    | Arrive
    | OpenSession
    | Identify
    | MakeCanary
    | RemoveCanary
    | SetGroup
    | ChangeMembers
    | RemoveGroup
    | ShowGroups
    | SetLimit
    | FollowLimits
    | ShowLimits
    | ShowSpaces
)
HUB_OPERATIONS = (
    Check,
    Create,
    Lock,
    Unlock,
    Show,
    CheckPassword,
    Arrive,
    OpenSession,
    ChangeMembers,
    ShowGroups,
    ShowSpaces,
)
OWN_OPERATIONS = (ChangeMembers, ShowGroups, ShowSpaces)

request_adapter: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


# --- replies


class Problem(_Message):
    """Why a name cannot be had, or None."""

    problem: str | None


class Account(_Message):
    """One account of the hub as the ledger knows it."""

    name: str
    uid: int
    gid: int
    kind: Literal["created", "linked", "canary"]
    state: Literal["pending", "active", "retired"]
    door: Door = "native"
    """The only door through which its owner comes in."""
    locked: Literal["", "locked", "expired"] = ""
    """Why labstead keeps it closed; an administrator of the machine may have closed it beside that."""
    expires: date | None = None
    """First day on which it is closed."""
    full_name: str = ""
    email: str = ""
    created_at: str
    """UTC, ISO 8601."""
    changed: bool = False
    """Whether this request changed anything."""


class Accounts(_Message):
    """Several accounts, in order of their names."""

    accounts: tuple[Account, ...]


class Group(_Message):
    """One group with a folder."""

    name: str
    gid: int
    kind: Literal["created", "linked"]
    folder: str
    members: tuple[str, ...]
    """Who is in it now, in order of their names."""
    declared: tuple[str, ...]
    """Those of them whom the inventory names."""
    managers: tuple[str, ...]
    created_at: str
    """UTC, ISO 8601."""
    changed: bool = False
    """Whether this request changed anything."""


class Groups(_Message):
    """Several groups, in order of their names."""

    groups: tuple[Group, ...]


class Space(_Message):
    """A home, a group's folder or somebody's scratch: what it holds and may hold."""

    kind: SpaceKind
    name: str
    """Of the person, or of the group."""
    path: str
    used_bytes: int | None = None
    """None: its file system cannot say."""
    used_files: int | None = None
    """Files and folders; None: its file system cannot say."""
    limit_bytes: int | None = None
    """What its file system enforces; None: nothing."""
    limit_files: int | None = None
    """What its file system enforces; None: nothing."""
    said_by: Literal["site", "group", "own"] = "site"
    """Who says the limit of bytes: the site, a group of theirs, or what is said of this very space."""
    file_system: Literal["xfs", "ext4", "btrfs", "other"] = "other"

    @property
    def words(self) -> str:
        """Name it for people."""
        return f"folder of {self.name}" if self.kind == "group" else f"{self.kind} of {self.name}"


class Spaces(_Message):
    """Several spaces: homes, then folders of groups, then scratch, each in order of their names."""

    spaces: tuple[Space, ...]
    problems: tuple[str, ...] = ()
    """What could not be done, a line each."""
    advice: tuple[str, ...] = ()
    """What the site should know of limits that hold, a line each."""


class SaidLimit(_Message):
    """What was said of one space, or by a group of its members' spaces."""

    kind: SpaceKind
    name: str
    """Of the person, or of the group."""
    of_members: bool = False
    """It is that of each member's home or scratch."""
    bytes: int | None = None
    """0: no limit. None: nothing was said."""
    files: int | None = None
    """0: no limit. None: nothing was said."""


class Limits(_Message):
    """All that was said of limits, by kind and name."""

    limits: tuple[SaidLimit, ...]


class Error(_Message):
    """A refusal."""

    code: str
    message: str


class Reply(_Message):
    """What comes back: one of the two."""

    result: Problem | Account | Accounts | Group | Groups | Spaces | Limits | Identity | None = None
    error: Error | None = None
