"""Log-ins made from the command line, in the hub's own database.

The one rule: it runs as the hub's user, like the hub itself, and takes passwords from standard input only. Root
calls it through `run_as_hub`; the hub may be running or not.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bcrypt
from jupyterhub import dbutil, orm
from nativeauthenticator.orm import UserInfo
from sqlalchemy import inspect

from labstead.errors import LabsteadError
from labstead.peer import HUB_USER

DIRECTORY = Path("/var/lib/labstead/hub")
"""The hub's working directory."""

_TIMEOUT_SECONDS = 120


def url(directory: Path = DIRECTORY) -> str:
    """Give the database's address, as JupyterHub's `db_url` has it by default."""
    return f"sqlite:///{directory}/jupyterhub.sqlite"


def _open(db_url: str) -> Any:
    dbutil.upgrade_if_needed(db_url)
    session = orm.new_session_factory(db_url)()
    if not inspect(session.bind).has_table(UserInfo.__tablename__):
        UserInfo.__table__.create(session.bind)
    return session


def set_login(name: str, password: str, replace: bool, db_url: str | None = None) -> bool:
    """Make an approved log-in.

    :param replace: whether an existing one gets the new password; else it is left as it is
    :return: whether anything was written
    """
    session = _open(db_url or url())
    try:
        info = UserInfo.find(session, name)
        if info is not None and info.is_authorized and not replace:
            return False
        if info is not None:
            # A sign-up that nobody approved is not this person's: its password must not open the log-in.
            session.delete(info)
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt())
        session.add(UserInfo(username=name, password=hashed, is_authorized=True))
        session.commit()
        return True
    finally:
        session.close()


def run_as_hub(name: str, password: str, replace: bool) -> bool:
    """Call `set_login` in a process of the hub's user.

    :raises LabsteadError: when that process fails
    """
    done = subprocess.run(
        # -I and a folder of root's: nothing that the hub's user may have left lying about is imported. A session of its
        # own: the child does not reach the terminal of the administrator who called.
        [sys.executable, "-I", "-m", "labstead.hub.database"],
        start_new_session=True,
        input=json.dumps({"name": name, "password": password, "replace": replace}),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
        user=HUB_USER,
        group=HUB_USER,
        extra_groups=[],
        cwd="/",
        umask=0o077,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(DIRECTORY)},
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise LabsteadError(f"the hub's database: {words[-1]}")
    return bool(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(set_login(**json.load(sys.stdin))) + "\n")
