"""Errors that people read.

The one rule: a message says what is wrong, where, and what to do, in one line, so that whoever catches it can
print it as it is.
"""

import enum


class LabsteadError(Exception):
    """An error whose text is meant for a person: one line, no traceback needed."""


class BadInput(LabsteadError):
    """What was asked for is wrong; nothing has been changed. The command exits with 2."""


class Refusal(enum.StrEnum):
    """Why the accounts service refuses, for programs; the message beside it is for people."""

    BAD_NAME = "bad-name"
    TAKEN = "taken"
    UNKNOWN = "unknown"
    LOCKED = "locked"
    NOT_ALLOWED = "not-allowed"
    WRONG_PASSWORD = "wrong-password"  # noqa: S105 - a word of the protocol
    FAILED = "failed"


class AccountRefused(LabsteadError):
    """The accounts service will not do it.

    :param code: the reason as a word of `Refusal`, the same over the socket
    :param message: the reason as a sentence
    """

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(message)
        self.code = code
