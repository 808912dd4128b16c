"""Secrets of the machine: made on it, by it, and kept in files that only root reads.

The one rule: a secret never passes through Ansible, an argument list or a log, and once made it is left alone.
"""

import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

DIRECTORY = Path("/etc/labstead/secrets")

COMMAND_TOKEN = "LABSTEAD_COMMAND_TOKEN"  # noqa: S105 - the name of an environment variable
"""With which root's commands ask the hub to stop servers and to forget people."""

MAX_PASSWORD_BYTES = 72
"""bcrypt reads no further; bcrypt 5 refuses longer ones with an exception."""

_TOKEN_BYTES = 32
#: Without letters and digits that look alike, since people type it once.
_LEGIBLE = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_PASSWORD_LENGTH = 20


def _write(path: Path, content: str) -> None:
    """Put a file in place whole, readable by root alone."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    new.rename(path)


def _read_environment(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _ensure_file(path: Path, wanted: Mapping[str, str]) -> bool:
    if _read_environment(path) == wanted:
        return False
    _write(path, "".join(f"{name}={value}\n" for name, value in wanted.items()))
    return True


def ensure(directory: Path = DIRECTORY) -> list[str]:
    """Make the tokens that the services share, where they are missing.

    :return: names of the files written
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    hub, proxy = directory / "hub.env", directory / "proxy.env"
    known = _read_environment(hub)
    tokens = {
        name: known.get(name) or secrets.token_hex(_TOKEN_BYTES)
        for name in ("CONFIGPROXY_AUTH_TOKEN", "LABSTEAD_SELFCHECK_TOKEN", COMMAND_TOKEN)
    }
    wanted = {hub: tokens, proxy: {"CONFIGPROXY_AUTH_TOKEN": tokens["CONFIGPROXY_AUTH_TOKEN"]}}
    return [path.name for path, variables in wanted.items() if _ensure_file(path, variables)]


def selfcheck_token(directory: Path = DIRECTORY) -> str:
    """Give the token with which the self-check asks the hub to remove its user."""
    return _read_environment(directory / "hub.env")["LABSTEAD_SELFCHECK_TOKEN"]


def command_token(directory: Path = DIRECTORY) -> str:
    """Give the token with which root's commands ask the hub; empty where site.yml has not made it yet."""
    return _read_environment(directory / "hub.env").get(COMMAND_TOKEN, "")


def of_site(name: str, directory: Path = DIRECTORY) -> str:
    """Give a secret that the inventory brought (site.env); empty where there is none that the caller may read."""
    try:
        text = (directory / "site.env").read_text(encoding="utf-8")
    except (FileNotFoundError, PermissionError):
        return ""
    words = dict(word.split("=", 1) for word in shlex.split(text, comments=True) if "=" in word)
    return words.get(name, "")


def new_password() -> str:
    """Make a password of about 116 bits."""
    return "".join(secrets.choice(_LEGIBLE) for _ in range(_PASSWORD_LENGTH))


def admin_password_file(name: str, directory: Path = DIRECTORY) -> Path:
    """Give the file that holds the first password of an administrator."""
    return directory / f"admin-{name}.password"


def keep_admin_password(name: str, password: str, directory: Path = DIRECTORY) -> None:
    """Store the first password of an administrator for whoever is root."""
    _write(admin_password_file(name, directory), password + "\n")
