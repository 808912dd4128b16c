"""Log-ins made from the command line, in the hub's own database.

The one rule: it runs as the hub's user, like the hub itself, and takes passwords from standard input only; see
`labstead.hub.login_protocol` for what is asked and by whom.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from jupyterhub import dbutil, orm
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from labstead.hub import logins
from labstead.hub.login_protocol import (
    DIRECTORY,
    Authorize,
    DeleteLogin,
    Everybody,
    Invite,
    Reply,
    Request,
    SetLogin,
    replies_adapter,
    requests_adapter,
)

log = logging.getLogger("labstead.database")


def url(directory: Path = DIRECTORY) -> str:
    """Give the database's address, as JupyterHub's `db_url` has it by default."""
    return f"sqlite:///{directory}/jupyterhub.sqlite"


@contextmanager
def opened(db_url: str) -> Iterator[Session]:
    """Open the hub's database; a new release brings its own schema."""
    dbutil.upgrade_if_needed(db_url, log=log)
    session = orm.new_session_factory(db_url)()
    try:
        logins.make_tables(session.connection())
        session.commit()
        yield session
    finally:
        session.close()


def _hashes(requests: Sequence[Request]) -> list[bytes | None]:
    """Hash the passwords among the requests; bcrypt does not hold Python's lock."""
    words = [request.password if isinstance(request, SetLogin) else None for request in requests]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda word: None if word is None else logins.hashed(word), words))


def _do(session: Session, request: Request, password_hash: bytes | None) -> Reply:
    match request:
        case SetLogin(name=name, replace=replace):
            return Reply(changed=logins.set_login(session, name, password_hash, replace))
        case Authorize(name=name):
            return Reply(changed=logins.authorize(session, name))
        case DeleteLogin(name=name):
            return Reply(changed=logins.delete_login(session, name))
        case Invite(name=name, days=days):
            try:
                return Reply(changed=True, token=logins.invite(session, name, days))
            except KeyError:
                return Reply()
        case Everybody():
            return Reply(logins=logins.everybody(session))


def do(requests: Sequence[Request], db_url: str | None = None) -> list[Reply]:
    """Do what requests ask, one after the other."""
    hashes = _hashes(requests)
    with opened(db_url or url()) as session:
        return [_do(session, request, password) for request, password in zip(requests, hashes, strict=True)]


def set_login(name: str, password: str, replace: bool, db_url: str | None = None) -> bool:
    """Make an approved log-in; see `SetLogin`."""
    return do([SetLogin(name=name, password=password, replace=replace)], db_url)[0].changed


def main(db_url: str | None = None) -> int:
    """Do what is asked on standard input; what goes wrong in the database is one line."""
    try:
        replies = do(requests_adapter.validate_json(sys.stdin.buffer.read()), db_url)
    except DBAPIError as error:
        # Without the statement and its values: hashes of passwords are among them.
        sys.stderr.write(f"{type(error.orig).__name__}: {error.orig}\n")
        return 1
    sys.stdout.write(replies_adapter.dump_json(replies).decode() + "\n")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main())
