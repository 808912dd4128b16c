"""Log-ins of the door `native` in the hub's database: names, hashes of passwords, and links to set a password once.

The one rule: nobody's password is known to anybody but its owner. Who gets a log-in without one gets the hash of
something that was thrown away, and a link to set a password is kept as a hash and works once.

The functions take an open session of the hub's database: the hub has one, `labstead.hub.database` opens one for root.
"""

import functools
import hashlib
import secrets
import time

import bcrypt
from jupyterhub import orm
from nativeauthenticator.orm import UserInfo
from sqlalchemy import Connection, String, delete, insert, inspect, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from labstead.hub.login_protocol import Login

_TOKEN_BYTES = 32
_DAY_SECONDS = 86400


class Invitation(orm.Base):  # type: ignore[misc]
    """A link with which one person sets a password once."""

    __tablename__ = "labstead_invitations"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the token; who reads the database cannot use it."""
    username: Mapped[str] = mapped_column(String(128), index=True)
    expires_at: Mapped[int]
    """Second since 1970 from which on it no longer works."""


def make_tables(connection: Connection) -> None:
    """Make the tables that JupyterHub does not know, and see to it that a name stands in them once.

    NativeAuthenticator's table lets a name stand twice, and of two sign-ups at the same moment the one that is approved
    need not be the one that logs in.
    """
    present = inspect(connection)
    for table in (UserInfo.__table__, Invitation.__table__):
        if not present.has_table(table.name):
            table.create(connection)
    # Where an older release let it happen, an approved row is the right one, and of others the first.
    connection.execute(
        text(
            "DELETE FROM users_info WHERE id NOT IN (SELECT id FROM (SELECT id, ROW_NUMBER() OVER"
            " (PARTITION BY username ORDER BY COALESCE(is_authorized, 0) DESC, id) AS place FROM users_info)"
            " WHERE place = 1)"
        )
    )
    connection.execute(text("CREATE UNIQUE INDEX IF NOT EXISTS labstead_one_login ON users_info (username)"))


def hashed(password: str) -> bytes:
    """Hash a password with bcrypt, which takes a quarter of a second: not in the hub's event loop."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt())


@functools.cache
def nobodys_hash() -> bytes:
    """Give a hash that no password opens and that takes as long to refuse as others."""
    return hashed(secrets.token_hex(_TOKEN_BYTES))


def _login(info: UserInfo) -> Login:
    return Login(name=info.username, authorized=bool(info.is_authorized), email=info.email or "")


def find(db: Session, name: str) -> Login | None:
    """Give the log-in or the waiting sign-up of this name."""
    info = UserInfo.find(db, name)
    return None if info is None else _login(info)


def everybody(db: Session) -> tuple[Login, ...]:
    """Give all log-ins and sign-ups, by name."""
    return tuple(_login(info) for info in db.scalars(select(UserInfo).order_by(UserInfo.username)))


def sign_up(db: Session, name: str, password_hash: bytes, email: str) -> bool:
    """Note a sign-up that waits for approval.

    :return: False if the name has a log-in or a sign-up
    """
    values = {"username": name, "password": password_hash, "email": email or None, "is_authorized": False}
    done = db.execute(insert(UserInfo).prefix_with("OR IGNORE").values(**values))
    db.commit()
    return bool(done.rowcount)  # type: ignore[attr-defined]


def end_logins(db: Session, name: str) -> None:
    """End what was logged in as somebody: the hub's cookies, and the browsers' tokens for their sessions.

    The token of a running session itself stays, and those that its owner asked for.
    """
    user = orm.User.find(db, name)
    if user is None:
        return
    user.cookie_id = orm.new_token()
    for token in list(user.api_tokens):
        if token.session_id:
            db.delete(token)
    db.commit()


def set_login(db: Session, name: str, password_hash: bytes | None, replace: bool) -> bool:
    """Make an approved log-in.

    :param password_hash: None: nobody's, for somebody who will be invited to set one
    :param replace: whether an existing one gets the new password; else it is left as it is
    :return: whether anything was written
    """
    info = UserInfo.find(db, name)
    if info is not None and info.is_authorized and not replace:
        return False
    # A sign-up that nobody approved is not this person's: its password must not open the log-in.
    _forget(db, name)
    db.add(UserInfo(username=name, password=password_hash or nobodys_hash(), is_authorized=True))
    db.commit()
    return True


def authorize(db: Session, name: str) -> bool:
    """Open the log-in of somebody who signed up and whose account is made; tell whether it was closed."""
    info = UserInfo.find(db, name)
    if info is None or info.is_authorized:
        return False
    info.is_authorized = True
    db.commit()
    return True


def delete_login(db: Session, name: str) -> bool:
    """Forget log-in, sign-up and invitations of a name; tell whether there were any."""
    forgotten = _forget(db, name)
    db.commit()
    return forgotten


def _forget(db: Session, name: str) -> bool:
    # What writes first has the database to itself: no sign-up of that name comes between the look and the deletion.
    had_links = cancel_invitations(db, name)
    rows = db.scalars(select(UserInfo).where(UserInfo.username == name)).all()
    for row in rows:
        db.delete(row)
    db.flush()
    return bool(had_links or rows)


# --- links to set a password once


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def invite(db: Session, name: str, days: int) -> str:
    """Give a token with which this person sets a password; earlier ones no longer work.

    :param days: how long it works
    :raises KeyError: when there is no approved log-in of this name
    """
    info = UserInfo.find(db, name)
    if info is None or not info.is_authorized:
        raise KeyError(name)
    now = int(time.time())
    # Those that nobody used are no longer of use to anybody.
    db.execute(delete(Invitation).where(Invitation.expires_at <= now))
    cancel_invitations(db, name)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    db.add(Invitation(digest=_digest(token), username=name, expires_at=now + days * _DAY_SECONDS))
    db.commit()
    return token


def invited(db: Session, token: str) -> str | None:
    """Give the name of the person whom a token lets set a password; None where it does not work, or no longer."""
    row = db.execute(
        select(Invitation.username).where(Invitation.digest == _digest(token), Invitation.expires_at > time.time())
    ).first()
    if row is None:
        return None
    login = find(db, row.username)
    return login.name if login is not None and login.authorized else None


def redeem(db: Session, token: str, password_hash: bytes) -> str | None:
    """Set the password of the person whom a token belongs to; the token works this once.

    :return: the person's name; None where the token does not work, or no longer
    """
    name = invited(db, token)
    if name is None:
        return None
    # Of two that come at the same moment only one deletes it.
    if not db.execute(delete(Invitation).where(Invitation.digest == _digest(token))).rowcount:  # type: ignore[attr-defined]
        db.rollback()
        return None
    cancel_invitations(db, name)
    UserInfo.find(db, name).password = password_hash
    db.commit()
    return name


def cancel_invitations(db: Session, name: str) -> bool:
    """Make the links that were given to somebody useless; the caller commits. Tell whether there were any."""
    return bool(db.execute(delete(Invitation).where(Invitation.username == name)).rowcount)  # type: ignore[attr-defined]
