"""The hub's configuration and who may come in. Pages and sessions are tested on a host."""

import asyncio
import functools
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import bcrypt
import pytest
from jupyterhub.app import JupyterHub
from nativeauthenticator.orm import UserInfo
from traitlets.config import Config, Configurable

from labstead.hub import authenticator as authenticator_module
from labstead.hub import configure, database
from labstead.hub.authenticator import LabsteadAuthenticator
from labstead.hub.spawner import LabsteadSpawner
from labstead.settings import Hub, Image, Sessions

HUB = Hub(url="https://hub.example.org", address="172.31.240.1", admins=("carla",), signup="approval", failed_logins=3)
SESSIONS = Sessions(
    images=(Image(name="a", title="A", reference="x/a:1"), Image(name="b", title="B", reference="x/b:1"))
)
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use bcrypt with the fewest rounds it has."""
    monkeypatch.setattr(bcrypt, "gensalt", functools.partial(bcrypt.gensalt, 4))


@pytest.fixture
def configuration(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("LABSTEAD_SELFCHECK_TOKEN", "t")
    c = Config()
    configure.apply(c, HUB, SESSIONS)
    return c


def test_every_trait_is_one_that_jupyterhub_knows(configuration: Config) -> None:
    """JupyterHub ignores a misspelt trait silently."""
    classes: dict[str, type[Configurable]] = {
        cls.__name__: cls for cls in [*JupyterHub().classes, JupyterHub, LabsteadAuthenticator, LabsteadSpawner]
    }
    unknown = [
        f"{section}.{name}"
        for section, traits in configuration.items()
        for name in traits
        if section not in classes or name not in classes[section].class_trait_names(config=True)
    ]
    assert unknown == []


def test_servers_and_proxy_outlive_the_hub(configuration: Config) -> None:
    assert configuration.JupyterHub.cleanup_servers is False
    assert configuration.JupyterHub.cleanup_proxy is False
    assert configuration.ConfigurableHTTPProxy.should_start is False


def test_the_configuration_file_stays_small() -> None:
    """DESIGN: under 30 lines."""
    text = Path(configure.__file__).with_name("jupyterhub_config.py").read_text()
    assert len(text.splitlines()) < 30


class Accounts:
    """Stands for the accounts service, of which a host test asks the real one."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self.locked: list[str] = []

    def problem(self, name: str) -> str | None:
        return "The username ben is taken" if name == "ben" else None

    def create(self, name: str) -> None:
        self.created.append(name)

    def lock(self, name: str) -> None:
        self.locked.append(name)


@pytest.fixture
def authenticator(tmp_path: Path, configuration: Config, monkeypatch: pytest.MonkeyPatch) -> LabsteadAuthenticator:
    url = f"sqlite:///{tmp_path}/hub.sqlite"
    database.set_login("carla", PASSWORD, replace=False, db_url=url)
    monkeypatch.setattr(LabsteadAuthenticator, "accounts", Accounts())
    from jupyterhub import orm

    return LabsteadAuthenticator(config=configuration, db=orm.new_session_factory(url)())


def log_in(authenticator: LabsteadAuthenticator, name: str, password: str) -> str | None:
    handler = SimpleNamespace(refusal=None)
    return asyncio.run(authenticator.authenticate(handler, {"username": name, "password": password}))


def sign_up(authenticator: LabsteadAuthenticator, name: str, password: str = PASSWORD) -> str | None:
    return asyncio.run(authenticator.problem_with_signup(name, password, password))


def test_a_seeded_administrator_logs_in(authenticator: LabsteadAuthenticator) -> None:
    assert log_in(authenticator, "carla", PASSWORD) == "carla"
    assert log_in(authenticator, "carla", PASSWORD + "x") is None


@pytest.mark.parametrize("password", ["", "x" * 100, "ü" * 40, "\x00"])
def test_a_password_that_bcrypt_would_not_take_is_a_wrong_one(
    authenticator: LabsteadAuthenticator, password: str
) -> None:
    assert log_in(authenticator, "carla", password) is None


def test_nobody_comes_in_before_approval_and_waiting_does_not_lock_them_out(
    authenticator: LabsteadAuthenticator,
) -> None:
    asyncio.run(authenticator.sign_up("anna", PASSWORD))
    for _ in range(HUB.failed_logins + 1):
        assert log_in(authenticator, "anna", PASSWORD) is None
    asyncio.run(authenticator.approve("anna"))
    assert authenticator.accounts.created == ["anna"]
    assert log_in(authenticator, "anna", PASSWORD) == "anna"


def test_wrong_passwords_lock_a_name_for_a_while(authenticator: LabsteadAuthenticator) -> None:
    for _ in range(HUB.failed_logins):
        assert log_in(authenticator, "carla", "wrong") is None
    assert log_in(authenticator, "carla", PASSWORD) is None
    assert authenticator.is_blocked("carla")


def test_guesses_sent_at_the_same_moment_are_counted_too(
    authenticator: LabsteadAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    async def slow(password: str, _hashed: bytes) -> bool:
        checked.append(password)
        await asyncio.sleep(0)
        return False

    async def guess() -> None:
        handler = SimpleNamespace(refusal=None)
        data = [{"username": "carla", "password": str(number)} for number in range(30)]
        await asyncio.gather(*(authenticator.authenticate(handler, words) for words in data))

    monkeypatch.setattr(authenticator_module, "matches", slow)
    asyncio.run(guess())
    assert len(checked) == HUB.failed_logins


def test_a_locked_name_may_try_again_after_its_time(authenticator: LabsteadAuthenticator) -> None:
    for _ in range(HUB.failed_logins):
        log_in(authenticator, "carla", "wrong")
    authenticator.login_attempts["carla"]["time"] -= timedelta(seconds=HUB.lockout_seconds + 1, days=1)
    assert log_in(authenticator, "carla", PASSWORD) == "carla"


def test_names_that_do_not_exist_are_not_counted(authenticator: LabsteadAuthenticator) -> None:
    for number in range(10):
        log_in(authenticator, f"nobody{number}", "wrong")
    assert authenticator.login_attempts == {}


def test_a_failed_account_leaves_the_login_closed(
    authenticator: LabsteadAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(authenticator.sign_up("anna", PASSWORD))

    def fail(_name: str) -> None:
        raise RuntimeError

    monkeypatch.setattr(authenticator.accounts, "create", fail)
    with pytest.raises(RuntimeError):
        asyncio.run(authenticator.approve("anna"))
    assert log_in(authenticator, "anna", PASSWORD) is None


def test_a_revoked_person_has_to_log_in_again_and_cannot(authenticator: LabsteadAuthenticator) -> None:
    asyncio.run(authenticator.sign_up("anna", PASSWORD))
    asyncio.run(authenticator.approve("anna"))
    asyncio.run(authenticator.revoke("anna"))
    assert authenticator.accounts.locked == ["anna"]
    assert refresh(authenticator, "anna") is False
    assert log_in(authenticator, "anna", PASSWORD) is None


def refresh(authenticator: LabsteadAuthenticator, name: str) -> object:
    return asyncio.run(authenticator.refresh_user(SimpleNamespace(name=name)))


def test_somebody_without_a_login_has_no_session_either(authenticator: LabsteadAuthenticator) -> None:
    assert refresh(authenticator, "nobody-here") is False


def test_who_is_no_longer_an_administrator_loses_the_rights(authenticator: LabsteadAuthenticator) -> None:
    assert refresh(authenticator, "carla") == {"name": "carla", "admin": True}
    assert authenticator.is_admin(None, {"name": "carla"}) is True
    authenticator.admin_users = {"doro"}
    assert refresh(authenticator, "carla") == {"name": "carla", "admin": False}
    assert authenticator.is_admin(None, {"name": "carla"}) is False


@pytest.mark.parametrize(("name", "words"), [("anna", "waits for"), ("nobody", "was taken back")])
def test_who_may_not_come_in_is_told_why(authenticator: LabsteadAuthenticator, name: str, words: str) -> None:
    """An account of "nobody" is on every Debian, as is that of somebody whose approval was taken back."""
    asyncio.run(authenticator.sign_up(name, PASSWORD))
    handler = SimpleNamespace(refusal=None)
    data = {"username": name, "password": PASSWORD}
    assert asyncio.run(authenticator.authenticate(handler, data)) is None
    assert words in handler.refusal


def test_only_a_signup_that_was_never_approved_can_be_denied(authenticator: LabsteadAuthenticator) -> None:
    # "nobody" has an account on every Debian, as somebody whose approval was taken back has.
    for name in ("anna", "nobody"):
        asyncio.run(authenticator.sign_up(name, PASSWORD))
    states = {signup.name: signup.state for signup in authenticator.signups()}
    assert states == {"anna": "waiting", "carla": "administrator", "nobody": "revoked"}
    for name in states:
        authenticator.deny(name)
    assert {signup.name for signup in authenticator.signups()} == {"carla", "nobody"}


@pytest.mark.parametrize(
    ("name", "password", "words"),
    [
        ("carla", PASSWORD, "taken"),
        ("ben", PASSWORD, "taken"),
        ("Anna", PASSWORD, "small letters"),
        ("", PASSWORD, "choose a username"),
        ("anna", "short", "at least 10"),
        ("anna", "x" * 100, "at most 72 bytes"),
        ("anna", "ü" * 40, "at most 72 bytes"),
        ("anna", "qwertyuiop", "most common"),
        ("annabella-maria", "annabella-maria", "not your username"),
    ],
)
def test_a_signup_is_refused_with_the_reason(
    authenticator: LabsteadAuthenticator, name: str, password: str, words: str
) -> None:
    assert words in str(sign_up(authenticator, name, password))


def test_of_two_signups_at_once_for_a_name_one_is_told_that_it_is_taken(authenticator: LabsteadAuthenticator) -> None:
    async def both() -> list[bool]:
        return list(await asyncio.gather(*(authenticator.sign_up("anna", word) for word in (PASSWORD, "another word"))))

    assert sorted(asyncio.run(both())) == [False, True]


def test_an_admins_name_makes_nobody_an_admin(authenticator: LabsteadAuthenticator) -> None:
    authenticator.admin_users = {"carla", "doro"}
    assert "taken" in str(sign_up(authenticator, "doro"))


def test_a_signup_for_a_seeded_login_does_not_open_it(tmp_path: Path) -> None:
    """A waiting sign-up under a name that is made an administrator later: its password must not be theirs."""
    url = f"sqlite:///{tmp_path}/hub.sqlite"
    database.set_login("x", PASSWORD, replace=False, db_url=url)
    from jupyterhub import orm

    session = orm.new_session_factory(url)()
    session.query(UserInfo).update({"is_authorized": False})
    session.commit()
    session.close()
    assert database.set_login("x", "another password", replace=False, db_url=url) is True
    session = orm.new_session_factory(url)()
    (info,) = UserInfo.all_users(session)
    assert info.is_authorized
    assert info.is_valid_password("another password")
    assert not info.is_valid_password(PASSWORD)
    session.close()
