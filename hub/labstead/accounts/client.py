"""How the hub and the command line ask the accounts service.

The one rule: a refusal arrives as the same exception that the service raised.
"""

import socket
from typing import TypeVar

from pydantic import BaseModel

from labstead.accounts import protocol
from labstead.errors import AccountRefused, LabsteadError, Refusal
from labstead.identity import Identity

_TIMEOUT_SECONDS = 90.0
"""Longer than the service may need for one account tool (60 s)."""

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
                connection.settimeout(_TIMEOUT_SECONDS)
                connection.connect(self._path)
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

    def problem(self, name: str) -> str | None:
        """Say why nobody could sign up with this name; None where they could."""
        return self._ask(protocol.Check(name=name), protocol.Problem).problem

    def create(self, name: str) -> protocol.Account:
        """Make somebody's Unix account, if it is not there yet."""
        return self._ask(protocol.Create(name=name), protocol.Account)

    def lock(self, name: str) -> protocol.Account:
        """Close somebody's Unix account, if labstead made it; `create` opens it again."""
        return self._ask(protocol.Lock(name=name), protocol.Account)

    def link(self, name: str) -> protocol.Account:
        """Let an existing account be used from the hub (root only)."""
        return self._ask(protocol.Link(name=name), protocol.Account)

    def open_session(self, name: str) -> Identity:
        """Prepare a session and tell what it runs as."""
        return self._ask(protocol.OpenSession(name=name), Identity)

    def accounts(self, name: str | None = None) -> tuple[protocol.Account, ...]:
        """List the hub's accounts, or the one (root only)."""
        return self._ask(protocol.Show(name=name), protocol.Accounts).accounts

    def make_canary(self) -> protocol.Account:
        """Make the self-check's account (root only)."""
        return self._ask(protocol.MakeCanary(), protocol.Account)

    def remove_canary(self) -> None:
        """Remove the self-check's account and its home (root only)."""
        self._ask(protocol.RemoveCanary(), protocol.Problem)
