"""Log-ins in the hub's database, and the links with which people set a password once."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import bcrypt
import pytest
from jupyterhub import orm
from nativeauthenticator.orm import UserInfo
from sqlalchemy import text
from sqlalchemy.orm import Session

from labstead.hub import database, logins
from labstead.hub.login_protocol import Authorize, DeleteLogin, Everybody, Invite, Login, Reply, SetLogin, ask

PASSWORD = "correct horse battery"


pytestmark = pytest.mark.usefixtures("quick_hashes")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/hub.sqlite"


@pytest.fixture
def db(url: str) -> Iterator[Session]:
    with database.opened(url) as session:
        yield session


def opens(db: Session, name: str, password: str) -> bool:
    """Ask bcrypt and the mark of approval, as the authenticator does."""
    info = UserInfo.find(db, name)
    db.refresh(info)
    return bool(info.is_authorized) and bcrypt.checkpw(password.encode(), info.password)


def wait_for_approval(db: Session, name: str, email: str = "") -> None:
    db.add(UserInfo(username=name, password=logins.hashed("a squatter's word"), email=email))
    db.commit()


def test_a_login_is_made_once_and_replaced_only_when_asked(db: Session) -> None:
    assert logins.set_login(db, "anna", logins.hashed(PASSWORD), replace=False)
    assert not logins.set_login(db, "anna", logins.hashed("another one"), replace=False)
    assert opens(db, "anna", PASSWORD)
    assert logins.set_login(db, "anna", logins.hashed("another one"), replace=True)
    assert opens(db, "anna", "another one")
    assert [login.name for login in logins.everybody(db)] == ["anna"]


def test_a_squatters_password_does_not_survive(db: Session) -> None:
    wait_for_approval(db, "anna")
    assert logins.set_login(db, "anna", None, replace=False)
    assert not opens(db, "anna", "a squatter's word")
    assert logins.everybody(db) == (Login(name="anna", authorized=True),)


def test_approval_opens_the_signup_as_it_is(db: Session) -> None:
    wait_for_approval(db, "anna", "anna@example.org")
    assert logins.find(db, "anna") == Login(name="anna", authorized=False, email="anna@example.org")
    assert logins.authorize(db, "anna")
    assert not logins.authorize(db, "anna")
    assert not logins.authorize(db, "bert")
    assert opens(db, "anna", "a squatter's word")


def test_a_link_sets_a_password_once(db: Session) -> None:
    logins.set_login(db, "anna", None, replace=False)
    token = logins.invite(db, "anna", days=1)
    assert logins.invited(db, token) == "anna"
    assert logins.redeem(db, token, logins.hashed(PASSWORD)) == "anna"
    assert opens(db, "anna", PASSWORD)
    assert logins.invited(db, token) is None
    assert logins.redeem(db, token, logins.hashed("of a thief")) is None
    assert opens(db, "anna", PASSWORD)


def test_only_the_last_link_works(db: Session) -> None:
    logins.set_login(db, "anna", None, replace=False)
    first, second = logins.invite(db, "anna", days=1), logins.invite(db, "anna", days=1)
    assert logins.invited(db, first) is None
    assert logins.invited(db, second) == "anna"


def test_a_link_ends_with_its_time(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    logins.set_login(db, "anna", None, replace=False)
    token = logins.invite(db, "anna", days=2)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86400 - 10)
    assert logins.invited(db, token) == "anna"
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86400 + 1)
    assert logins.redeem(db, token, logins.hashed(PASSWORD)) is None
    assert not opens(db, "anna", PASSWORD)


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "ü", "%", "' OR 1=1 --"])
def test_a_guess_is_no_link(db: Session, token: str) -> None:
    logins.set_login(db, "anna", None, replace=False)
    logins.invite(db, "anna", days=1)
    assert logins.redeem(db, token, logins.hashed(PASSWORD)) is None


def test_a_link_does_not_outlive_the_login_or_its_approval(db: Session) -> None:
    logins.set_login(db, "anna", None, replace=False)
    token = logins.invite(db, "anna", days=1)
    UserInfo.find(db, "anna").is_authorized = False
    db.commit()
    assert logins.redeem(db, token, logins.hashed(PASSWORD)) is None
    assert logins.delete_login(db, "anna")
    logins.set_login(db, "anna", None, replace=False)  # somebody else of that name
    assert logins.invited(db, token) is None
    assert logins.delete_login(db, "bert") is False


def test_nobody_is_invited_who_waits(db: Session) -> None:
    wait_for_approval(db, "anna")
    for name in ("anna", "bert"):
        with pytest.raises(KeyError):
            logins.invite(db, name, days=1)


def test_the_database_tells_no_token(db: Session, url: str) -> None:
    logins.set_login(db, "anna", None, replace=False)
    token = logins.invite(db, "anna", days=1)
    rows = db.execute(text("SELECT * FROM labstead_invitations")).all()
    assert len(rows) == 1
    assert token not in str(rows)
    assert token.encode() not in Path(url.removeprefix("sqlite:///")).read_bytes()


def test_of_two_who_use_a_link_at_once_one_succeeds(db: Session, url: str) -> None:
    logins.set_login(db, "anna", None, replace=False)
    token = logins.invite(db, "anna", days=1)
    with database.opened(url) as other:
        # Both have looked, then both set.
        assert logins.invited(db, token) == logins.invited(other, token) == "anna"
        results = [logins.redeem(db, token, logins.hashed("one")), logins.redeem(other, token, logins.hashed("two"))]
    assert results == ["anna", None]
    assert opens(db, "anna", "one")


def test_requests_are_done_in_order(url: str) -> None:
    replies = database.do(
        [
            SetLogin(name="bert", password=PASSWORD),
            SetLogin(name="anna", password=None),
            Invite(name="anna", days=3),
            Invite(name="nobody", days=3),
            Authorize(name="bert"),
            DeleteLogin(name="bert"),
            Everybody(),
        ],
        url,
    )
    assert [reply.changed for reply in replies] == [True, True, True, False, False, True, False]
    assert len(replies[2].token) > 40
    assert replies[3] == Reply()
    assert replies[6].logins == (Login(name="anna", authorized=True),)


def test_asking_for_nothing_starts_no_process() -> None:
    assert ask() == []


def test_a_name_stands_once_however_many_sign_up(db: Session) -> None:
    assert logins.sign_up(db, "anna", logins.hashed(PASSWORD), "anna@example.org")
    assert not logins.sign_up(db, "anna", logins.hashed("a squatter's word"), "")
    (login,) = logins.everybody(db)
    assert (login.authorized, login.email) == (False, "anna@example.org")


@pytest.mark.parametrize("approved", ["first", "second", None])
def test_names_that_an_older_release_let_stand_twice_are_sorted_out(url: str, approved: str | None) -> None:
    with database.opened(url) as session:
        session.execute(text("DROP INDEX labstead_one_login"))
        for word in ("first", "second"):
            info = UserInfo(username="anna", password=logins.hashed(word), is_authorized=word == approved)
            session.add(info)
            session.flush()
        session.commit()
    with database.opened(url) as session:
        (info,) = session.query(UserInfo).all()
        assert bcrypt.checkpw((approved or "first").encode(), info.password)


def test_a_new_password_ends_the_log_ins_of_browsers_and_no_others(db: Session) -> None:
    user = orm.User(name="anna")
    db.add(user)
    db.commit()
    before = user.cookie_id
    for note, ident in (("browser", "1"), ("program", None)):
        db.add(orm.APIToken(user=user, note=note, session_id=ident, prefix=note[:4], hashed=note))
    db.commit()
    logins.end_logins(db, "anna")
    logins.end_logins(db, "nobody-of-that-name")
    assert user.cookie_id != before
    assert [token.note for token in db.query(orm.APIToken)] == ["program"]


# --- the process that root's commands ask


def test_what_fails_in_the_database_is_one_line_without_the_statement(
    db: Session, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    db.execute(text("CREATE TRIGGER full BEFORE INSERT ON users_info BEGIN SELECT RAISE(ABORT, 'no room'); END"))
    db.commit()
    asked = [{"op": "set-login", "name": "anna", "password": PASSWORD, "replace": True}]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(json.dumps(asked).encode())))
    assert database.main(url) == 1
    assert capsys.readouterr().err == "IntegrityError: no room\n"
