"""Passwords that the machine itself checks, through PAM (service `labstead`).

The one rule: PAM and its modules run in a process of their own, which is ended when it takes too long; what they load
or break is gone with it. The password goes to it on standard input.
"""

import json
import os
import signal
import subprocess
import sys
from enum import IntEnum

from labstead.errors import AccountRefused, Refusal

SERVICE = "labstead"
"""Name of the file in /etc/pam.d."""

_SECONDS = 20.0
"""How long a check may take, with a directory that is asked over the network."""


class _Code(IntEnum):
    """Return values of PAM that mean something to people (security/_pam_types.h)."""

    SUCCESS = 0
    PERM_DENIED = 6
    AUTH_ERR = 7
    AUTHINFO_UNAVAIL = 9
    USER_UNKNOWN = 10
    MAXTRIES = 11
    NEW_AUTHTOK_REQD = 12
    ACCT_EXPIRED = 13
    ANOTHER_NAME = 1000
    """Not PAM's: a module changed the name."""


_WRONG = "Wrong name or password."

_MEANING = {
    _Code.PERM_DENIED: (Refusal.NOT_ALLOWED, "The institute's account {name} is closed, or may not come in here."),
    _Code.AUTH_ERR: (Refusal.WRONG_PASSWORD, _WRONG),
    _Code.USER_UNKNOWN: (Refusal.WRONG_PASSWORD, _WRONG),
    _Code.MAXTRIES: (Refusal.WRONG_PASSWORD, "Too many wrong passwords for {name}; please try again later."),
    _Code.NEW_AUTHTOK_REQD: (
        Refusal.LOCKED,
        "The password of {name} has run out; please change it where the institute's accounts are kept.",
    ),
    _Code.ACCT_EXPIRED: (Refusal.LOCKED, "The institute's account {name} has expired."),
    _Code.ANOTHER_NAME: (Refusal.NOT_ALLOWED, "The machine knows {name} by another name; please use that one."),
}


def check(name: str, password: str) -> None:
    """Check a password.

    :raises AccountRefused: when it is wrong, or when PAM does not let this person in
    """
    # Some stacks let in without a password whoever has none.
    if not password or "\0" in password:
        raise AccountRefused(Refusal.WRONG_PASSWORD, _WRONG)
    returncode, output, errors = _run(json.dumps({"name": name, "password": password}))
    if returncode is None:
        raise AccountRefused(
            Refusal.FAILED, f"PAM gave no answer about {name} in {_SECONDS:.0f} s; does the directory answer?"
        )
    if returncode:
        words = errors.strip().splitlines() or [f"exit code {returncode}"]
        raise AccountRefused(Refusal.FAILED, f"PAM could not be asked: {words[-1]}")
    answer = json.loads(output.splitlines()[-1])
    code, text = int(answer["code"]), str(answer["text"])
    if code == _Code.SUCCESS:
        return
    if code in set(_Code) and _Code(code) in _MEANING:
        refusal, sentence = _MEANING[_Code(code)]
        raise AccountRefused(refusal, sentence.format(name=name))
    raise AccountRefused(Refusal.FAILED, f"PAM says of {name}: {text} ({code}); see /etc/pam.d/{SERVICE}")


def _run(request: str) -> tuple[int | None, str, str]:
    """Run this module as a program, in a process group of its own.

    :return: exit code, or None where it took too long, and what it printed
    """
    with subprocess.Popen(
        [sys.executable, "-I", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(request, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # modules may have started programs
            return None, "", ""
        return process.returncode, output, errors


def _ask(name: str, password: str) -> tuple[int, str]:
    """Ask PAM, in this process.

    :return: what it answers, as a number and in words
    """
    # It loads libpam, which the service itself has no use for.
    import pamela

    # PAM calls it for as long as the handle is used: it must not be collected before.
    conversation = pamela.new_simple_password_conv((password,), "utf-8")
    handle = pamela.pam_start(SERVICE, name, conv_func=conversation)
    # Neither credentials nor a session are wanted: both would be for this process.
    if code := int(pamela.PAM_AUTHENTICATE(handle, 0)):
        return code, str(pamela.pam_strerror(handle, code))
    # The user's name is an item that modules may change, and whoever that is has proved nothing about `name`.
    if handle.get_item(pamela.PAM_USER) != name:
        return int(_Code.ANOTHER_NAME), "another name"
    code = int(pamela.PAM_ACCT_MGMT(handle, 0))
    # The password was right; where all is denied in the end, PAM has forgotten why (pam_deny).
    return int(_Code.PERM_DENIED) if code == _Code.AUTH_ERR else code, str(pamela.pam_strerror(handle, code))


if __name__ == "__main__":
    _code, _text = _ask(**json.load(sys.stdin))
    sys.stdout.write(json.dumps({"code": _code, "text": _text}) + "\n")
