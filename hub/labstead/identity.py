"""Who somebody is on this machine, as NSS tells it.

The one rule: nobody below uid 1000 and nobody without a login shell has a session, and no group below gid 1000
goes into one, nor its folder. Accounts service and gate both ask here, so that neither has to believe the hub.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from labstead.errors import AccountRefused, Refusal

FIRST_PERSON = 1000
"""Lowest uid and gid of people on Debian (adduser.conf(5)); below are the system's own."""

SESSIONS_DIR = Path("/run/labstead/sessions")
"""Where the accounts service puts each session's passwd and group files, a folder for each person."""

_NO_LOGIN = ("nologin", "false")


class Identity(BaseModel):
    """A person as the machine knows them: what a session runs as."""

    model_config = ConfigDict(frozen=True)

    name: str
    uid: int
    gid: int
    """Primary group; >= 1000."""
    groups: tuple[int, ...]
    """All their groups with gid >= 1000, the primary one too, in rising order."""
    home: Path
    shell: str
    folders: tuple[Path, ...] = ()
    """Folders of those groups, in order of their paths; see `with_folders`."""
    scratch: Path | None = None
    """Their scratch; None: there is none; see `with_folders`."""

    @property
    def runtime_dir(self) -> Path:
        """Folder for sockets, connection files and keys in their session, XDG_RUNTIME_DIR; it lives in memory."""
        return Path("/run/user", str(self.uid))


def look_up(name: str) -> Identity:
    """Give a person's identity.

    :raises AccountRefused: when NSS does not know them or a session as them would be wrong
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise AccountRefused(Refusal.UNKNOWN, f"{name} has no account on this machine") from None
    if entry.pw_uid < FIRST_PERSON or entry.pw_gid < FIRST_PERSON:
        raise AccountRefused(
            Refusal.NOT_ALLOWED, f"{name} is a system account (uid {entry.pw_uid}, gid {entry.pw_gid}): no session"
        )
    if Path(entry.pw_shell).name in _NO_LOGIN:
        raise AccountRefused(Refusal.LOCKED, f"{name} has no login shell ({entry.pw_shell}): no session")
    groups = {gid for gid in os.getgrouplist(name, entry.pw_gid) if gid >= FIRST_PERSON}
    return Identity(
        name=name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(sorted(groups)),
        home=Path(entry.pw_dir),
        shell=entry.pw_shell or "/bin/sh",
    )


def _folder(root: Path, name: str, uid: int, gid: int | None = None) -> Path | None:
    """Give the directory below a root that bears a name, if it belongs to whom it should."""
    # A directory service may have names that are no file names.
    if name.startswith(".") or "/" in name:
        return None
    path = root / name
    try:
        found = path.lstat()
    except OSError:
        return None
    return path if stat.S_ISDIR(found.st_mode) and found.st_uid == uid and gid in (None, found.st_gid) else None


def _is_roots_alone(folder: Path) -> bool:
    """Tell whether nobody else can put something else in the place of what is in a folder."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def with_folders(person: Identity, group_root: Path, scratch_root: Path | None = None) -> Identity:
    """Give a person together with the folders of their groups and their scratch.

    A group's folder is the directory below `group_root` that bears its name and belongs to root and to it; nothing else
    is, whoever put it there. Scratch is likewise the one below `scratch_root` that bears the person's name and belongs
    to them; there is none where others than root may write in `scratch_root`, and put a link there once we have looked.
    Hub and gate each look for themselves and find the same.
    """
    found = [_folder(group_root, entry.gr_name, 0, entry.gr_gid) for entry in named_groups(person.groups)]
    folders = tuple(sorted(folder for folder in found if folder is not None))
    scratch = None
    if scratch_root is not None and _is_roots_alone(scratch_root):
        scratch = _folder(scratch_root, person.name, person.uid)
    return person.model_copy(update={"folders": folders, "scratch": scratch})


def named_groups(gids: Iterable[int]) -> list[grp.struct_group]:
    """Give the groups that have a name; a person may be in some that have none."""
    found = []
    for gid in sorted(gids):
        try:
            found.append(grp.getgrgid(gid))
        except KeyError:
            continue
    return found
