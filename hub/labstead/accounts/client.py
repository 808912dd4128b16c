"""How the hub and the command line ask the accounts service.

The one rule: a refusal arrives as the same exception that the service raised.
"""

import socket
import struct
from datetime import date
from typing import Literal, TypeVar

from pydantic import BaseModel

from labstead.accounts import protocol
from labstead.errors import AccountRefused, LabsteadError, Refusal
from labstead.identity import Identity
from labstead.settings import Door, SpaceKind

_TIMEOUT_SECONDS = 90.0
"""Longer than the service may need for one account tool (60 s)."""

_ADOPT_SECONDS = 6 * 3600.0
"""How long the service may need to take in all folders that were there before limits."""

_CONNECT_SECONDS = 30
"""How long to wait for a place among those who want to be heard."""

_T = TypeVar("_T", bound=BaseModel)


class Client:
    """A caller of the accounts service.

    :param path: its socket
    """

    def __init__(self, path: str = protocol.SOCKET) -> None:
        self._path = path

    def _ask(self, request: protocol.Request, kind: type[_T]) -> _T:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                # Python's own timeout would not wait where many others are being heard, but fail at once.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _CONNECT_SECONDS, 0))
                connection.connect(self._path)
                is_long = isinstance(request, protocol.FollowLimits) and request.adopt
                connection.settimeout(_ADOPT_SECONDS if is_long else _TIMEOUT_SECONDS)
                connection.sendall(request.model_dump_json().encode() + b"\n")
                with connection.makefile("rb") as stream:
                    line = stream.readline()
        except OSError as error:
            raise LabsteadError(
                f"the accounts service does not answer at {self._path} ({error}); "
                "see `systemctl status labstead-accounts.socket`"
            ) from error
        if not line:
            raise LabsteadError("the accounts service hung up; see `journalctl -u labstead-accounts`")
        reply = protocol.Reply.model_validate_json(line)
        if reply.error is not None:
            raise AccountRefused(Refusal(reply.error.code), reply.error.message)
        if not isinstance(reply.result, kind):
            raise LabsteadError(
                f"the accounts service answered {request.op} with something else; is it another version?"
            )
        return reply.result

    # --- people

    def problem(self, name: str) -> str | None:
        """Say why nobody could sign up with this name; None where they could."""
        return self._ask(protocol.Check(name=name), protocol.Problem).problem

    def create(self, name: str, email: str = "") -> protocol.Account:
        """Make the Unix account of an approved sign-up, if it is not there yet."""
        return self._ask(protocol.Create(name=name, email=email), protocol.Account)

    def add(
        self, name: str, door: Door = "native", full_name: str | None = None, email: str | None = None
    ) -> protocol.Account:
        """Make an account or bring its details up to date (root only)."""
        return self._ask(protocol.Add(name=name, door=door, full_name=full_name, email=email), protocol.Account)

    def link(
        self, name: str, door: Door = "native", full_name: str | None = None, email: str | None = None
    ) -> protocol.Account:
        """Let an existing account be used from the hub (root only)."""
        return self._ask(protocol.Link(name=name, door=door, full_name=full_name, email=email), protocol.Account)

    def expire(self, name: str, day: date | None) -> protocol.Account:
        """Set the first day on which an account is closed (root only)."""
        return self._ask(protocol.Expire(name=name, day=day), protocol.Account)

    def lock(self, name: str) -> protocol.Account:
        """Close somebody's account; `unlock` opens it again."""
        return self._ask(protocol.Lock(name=name), protocol.Account)

    def unlock(self, name: str) -> protocol.Account:
        """Open an account that `lock` closed."""
        return self._ask(protocol.Unlock(name=name), protocol.Account)

    def retire(self, name: str, home_may_be_missing: bool = False) -> protocol.Account:
        """Remove an account for good (root only); see `protocol.Retire` for what becomes of the home."""
        return self._ask(protocol.Retire(name=name, home_may_be_missing=home_may_be_missing), protocol.Account)

    def accounts(self, name: str | None = None, retired: bool = False) -> tuple[protocol.Account, ...]:
        """List the hub's accounts, or the one; or those of them that were removed."""
        return self._ask(protocol.Show(name=name, retired=retired), protocol.Accounts).accounts

    def check_password(self, name: str, password: str) -> protocol.Account:
        """Let PAM check a password; refused where it is wrong (`Refusal.WRONG_PASSWORD`)."""
        return self._ask(protocol.CheckPassword(name=name, password=password), protocol.Account)

    def arrive(self, name: str, subject: str, full_name: str = "", email: str = "") -> protocol.Account:
        """Let in somebody whom the OpenID Connect provider vouches for."""
        request = protocol.Arrive(name=name, subject=subject, full_name=full_name, email=email)
        return self._ask(request, protocol.Account)

    def open_session(self, name: str) -> Identity:
        """Prepare a session and tell what it runs as."""
        return self._ask(protocol.OpenSession(name=name), Identity)

    def identify(self, uid: int | None = None, name: str | None = None) -> Identity:
        """Tell who a uid or a name is, if their account is open now (root only); nothing is written."""
        return self._ask(protocol.Identify(uid=uid, name=name), Identity)

    def make_canary(self) -> protocol.Account:
        """Make the self-check's account (root only)."""
        return self._ask(protocol.MakeCanary(), protocol.Account)

    def remove_canary(self) -> None:
        """Remove the self-check's account and its home (root only)."""
        self._ask(protocol.RemoveCanary(), protocol.Problem)

    # --- groups

    def set_group(
        self,
        name: str,
        declared: tuple[str, ...] | None = None,
        managers: tuple[str, ...] | None = None,
        existing: bool = False,
    ) -> protocol.Group:
        """Make a group with its folder or bring it up to date (root only); see `protocol.SetGroup`."""
        request = protocol.SetGroup(name=name, declared=declared, managers=managers, existing=existing)
        return self._ask(request, protocol.Group)

    def change_members(
        self, group: str, add: tuple[str, ...] = (), remove: tuple[str, ...] = (), manager: str | None = None
    ) -> protocol.Group:
        """Add and remove members of a group, as root or for one of its managers."""
        request = protocol.ChangeMembers(group=group, add=add, remove=remove, manager=manager)
        return self._ask(request, protocol.Group)

    def remove_group(self, name: str) -> protocol.Group:
        """Remove a group for good (root only)."""
        return self._ask(protocol.RemoveGroup(name=name), protocol.Group)

    def groups(self, name: str | None = None) -> tuple[protocol.Group, ...]:
        """List the groups with folders that the caller may see, or the one."""
        return self._ask(protocol.ShowGroups(name=name), protocol.Groups).groups

    # --- limits

    def set_limit(
        self,
        kind: SpaceKind,
        name: str,
        bytes: int | None = None,  # noqa: A002 - as in the protocol
        files: int | None = None,
        of_members: bool = False,
        keep: tuple[Literal["bytes", "files"], ...] = (),
    ) -> protocol.Spaces:
        """Say how much a space may hold (root only); see `protocol.SetLimit`."""
        request = protocol.SetLimit(kind=kind, name=name, of_members=of_members, bytes=bytes, files=files, keep=keep)
        return self._ask(request, protocol.Spaces)

    def follow_limits(self, adopt: bool = False, check: bool = False) -> protocol.Spaces:
        """Make the disks' limits what they should be (root only); see `protocol.FollowLimits`."""
        return self._ask(protocol.FollowLimits(adopt=adopt, check=check), protocol.Spaces)

    def limits(self) -> tuple[protocol.SaidLimit, ...]:
        """List all that was said of limits (root only)."""
        return self._ask(protocol.ShowLimits(), protocol.Limits).limits

    def spaces(self, name: str | None = None) -> tuple[protocol.Space, ...]:
        """List what the spaces that the caller may see hold, or those of one person."""
        return self._ask(protocol.ShowSpaces(name=name), protocol.Spaces).spaces
