"""Homes and scratch: made once, whole, and never over something that is there.

The one rule: a home that is missing though its account exists is not made anew; its file system is not mounted, most
likely.
"""

import errno
import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path

from labstead.accounts.protocol import Account
from labstead.errors import AccountRefused, Refusal


def require(entry: pwd.struct_passwd) -> None:
    """Refuse somebody whose home is missing or not theirs."""
    home = Path(entry.pw_dir)
    if not home.is_dir():
        raise AccountRefused(Refusal.FAILED, f"the home {home} is missing; is its file system mounted?")
    if home.stat().st_uid != entry.pw_uid:
        raise AccountRefused(Refusal.TAKEN, f"{home} exists and belongs to somebody else; move it away first")


def make(home: Path, uid: int, gid: int, skeleton: Path | None, make_folder: Callable[[Path], None]) -> None:
    """Make a home, or somebody's scratch, where nothing is: beside its place, and moved there when it is whole.

    :param skeleton: what it starts with
    :param make_folder: makes the empty folder, in place of what a run that was cut off left
    """
    if home.exists() or home.is_symlink():
        return
    new = home.with_name(f".{home.name}.new")
    make_folder(new)
    if skeleton is not None:
        shutil.copytree(skeleton, new, symlinks=True, dirs_exist_ok=True)
        new.chmod(0o700)
    # The folder itself last: from then on somebody else may come in.
    for folder, _, files in os.walk(new, topdown=False):
        for path in (*(Path(folder, file) for file in files), Path(folder)):
            os.chown(path, uid, gid, follow_symlinks=False)
    new.rename(home)


def removed(root: Path, number: int) -> Path:
    """Say where the home of a removed account waits to be archived or deleted, or the folder of a removed group."""
    return root / f".removed-{number}"


def require_for_removal(root: Path, account: Account) -> None:
    """Refuse to remove an account whose home is missing: it would be nobody's when it is back, and not be archived.

    One that a cut-off removal has set aside is not missing; an account that was never made whole may have none.
    """
    home = root / account.name
    is_whole = account.kind == "created" and account.state == "active"
    if is_whole and not home.is_dir() and not removed(root, account.uid).is_dir():
        raise AccountRefused(
            Refusal.FAILED,
            f"the home {home} is missing; is its file system mounted? If there is none any more: "
            f"labstead user remove {account.name} --delete-files",
        )


def require_room(root: Path, number: int) -> None:
    """Refuse where something is in the place of `removed`."""
    if (place := removed(root, number)).exists():
        raise AccountRefused(Refusal.FAILED, f"{place} is in the way; archive or delete it first")


def set_aside(folder: Path, number: int) -> None:
    """Move a home or a group's folder to `removed`, as far as it is there."""
    if folder.is_dir() and not folder.is_symlink():
        require_room(folder.parent, number)
        try:
            folder.rename(removed(folder.parent, number))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise AccountRefused(Refusal.FAILED, f"something is mounted at {folder}; unmount it first") from None


def delete(folder: Path) -> None:
    """Delete a folder that no longer belongs to anybody."""
    if folder.exists():
        shutil.rmtree(folder)
