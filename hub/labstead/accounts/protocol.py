"""What may be asked of the accounts service.

One connection to /run/labstead/accounts.sock carries one request and one reply, each a JSON object on one line
of at most 64 KiB. A request names its operation in `op`; a reply has either `result` or `error` with `code` (a word
of `labstead.errors.Refusal`) and `message`. The caller is who the kernel says (SO_PEERCRED): root may ask for all, the
hub's user for what `HUB_OPERATIONS` lists, anybody else for nothing.

The one rule: requests say what somebody wants, never how; no path, uid or group comes over the socket.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from labstead.identity import Identity
from labstead.names import MAX_LENGTH

SOCKET = "/run/labstead/accounts.sock"
MAX_LINE = 64 * 1024

#: Longer than any name that could be right, so that a reply can still say what is wrong with it.
_Name = Annotated[str, Field(max_length=8 * MAX_LENGTH)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(_Message):
    """Could somebody sign up with this name? Reply: `Problem`."""

    op: Literal["check"] = "check"
    name: _Name


class Create(_Message):
    """Make the Unix account of an approved sign-up, or open the one that `Lock` closed. Reply: `Account`."""

    op: Literal["create"] = "create"
    name: _Name


class Lock(_Message):
    """Close the Unix account of somebody whose approval was taken back; `Create` opens it again. Reply: `Account`."""

    op: Literal["lock"] = "lock"
    name: _Name


class OpenSession(_Message):
    """Prepare a session of this person: check them, write their passwd and group files. Reply: `Identity`."""

    op: Literal["open-session"] = "open-session"
    name: _Name


class Link(_Message):
    """Let an existing Unix account be used by a hub user of that name. Reply: `Account`."""

    op: Literal["link"] = "link"
    name: _Name


class Show(_Message):
    """Tell about all accounts of the hub, or about one. Reply: `Accounts`."""

    op: Literal["show"] = "show"
    name: _Name | None = None


class MakeCanary(_Message):
    """Make the self-check's account. Reply: `Account`."""

    op: Literal["make-canary"] = "make-canary"


class RemoveCanary(_Message):
    """Remove the self-check's account with its home. Reply: `Problem` without one."""

    op: Literal["remove-canary"] = "remove-canary"


Request = Check | Create | Lock | OpenSession | Link | Show | MakeCanary | RemoveCanary
HUB_OPERATIONS = (Check, Create, Lock, OpenSession)

request_adapter: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


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
    created_at: str
    """UTC, ISO 8601."""
    changed: bool = False
    """Whether this request changed anything."""


class Accounts(_Message):
    """Several accounts, in order of their names."""

    accounts: tuple[Account, ...]


class Error(_Message):
    """A refusal."""

    code: str
    message: str


class Reply(_Message):
    """What comes back: one of the two."""

    result: Problem | Account | Accounts | Identity | None = None
    error: Error | None = None
