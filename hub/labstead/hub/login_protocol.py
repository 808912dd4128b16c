"""What root's commands ask of the hub's database, and how they ask.

The one rule: root never opens the database. A process of the hub's user does (`labstead.hub.database`), and takes
passwords from its standard input only; the hub may be running or not.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from labstead.errors import LabsteadError
from labstead.peer import HUB_USER

DIRECTORY = Path("/var/lib/labstead/hub")
"""The hub's working directory."""

_TIMEOUT_SECONDS = 120
_SECONDS_EACH = 1
"""Bounds: for the process, and more for each password to hash."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SetLogin(_Message):
    """Make an approved log-in; `changed` where anything was written."""

    op: Literal["set-login"] = "set-login"
    name: str
    password: str | None
    """None: nobody's, for somebody who will be invited to set one."""
    replace: bool = False
    """Whether an existing one gets the new password; else it is left as it is."""


class Authorize(_Message):
    """Open the log-in of somebody who signed up; `changed` where it was closed."""

    op: Literal["authorize"] = "authorize"
    name: str


class DeleteLogin(_Message):
    """Forget log-in, sign-up and invitations of a name; `changed` where there were any."""

    op: Literal["delete-login"] = "delete-login"
    name: str


class Invite(_Message):
    """Give a token with which this person sets a password once; empty where they have no approved log-in."""

    op: Literal["invite"] = "invite"
    name: str
    days: int


class Everybody(_Message):
    """Give all log-ins and sign-ups."""

    op: Literal["everybody"] = "everybody"


Request = SetLogin | Authorize | DeleteLogin | Invite | Everybody


class Login(_Message):
    """One log-in, or a sign-up that waits."""

    name: str
    authorized: bool
    """Whether it opens the door; a sign-up that waits does not."""
    email: str = ""
    """As given at the sign-up; whose account exists has the address in the ledger."""


class Reply(_Message):
    """What came of one request."""

    changed: bool = False
    token: str = ""
    logins: tuple[Login, ...] = ()


requests_adapter: TypeAdapter[list[Request]] = TypeAdapter(list[Annotated[Request, Field(discriminator="op")]])
replies_adapter: TypeAdapter[list[Reply]] = TypeAdapter(list[Reply])


def ask(*requests: Request) -> list[Reply]:
    """Have requests done one after the other, as root.

    :raises LabsteadError: when the process that does them fails
    """
    if not requests:
        return []
    try:
        done = subprocess.run(
            # -I and a folder of root's: nothing that the hub's user may have left lying about is imported. A session of
            # its own: the child does not reach the terminal of the administrator who called.
            [sys.executable, "-I", "-m", "labstead.hub.database"],
            start_new_session=True,
            input=requests_adapter.dump_json(list(requests)),
            capture_output=True,
            timeout=_TIMEOUT_SECONDS + _SECONDS_EACH * len(requests),
            check=False,
            user=HUB_USER,
            group=HUB_USER,
            extra_groups=[],
            cwd="/",
            umask=0o077,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(DIRECTORY)},
        )
    except subprocess.TimeoutExpired as error:
        raise LabsteadError(f"the hub's database: nothing came of it in {error.timeout:.0f} s") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise LabsteadError(f"the hub's database: {words[-1]}")
    return replies_adapter.validate_json(done.stdout.splitlines()[-1])


def set_login(name: str, password: str, replace: bool) -> bool:
    """Make an approved log-in; see `SetLogin`."""
    return ask(SetLogin(name=name, password=password, replace=replace))[0].changed
