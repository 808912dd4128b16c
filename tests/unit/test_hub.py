"""The hub's configuration and who may come in. Pages and sessions are tested on a host."""

import asyncio
import functools
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import bcrypt
import pytest
from jupyterhub import orm
from jupyterhub.app import JupyterHub
from nativeauthenticator.orm import UserInfo
from traitlets.config import Config, Configurable

from labstead.accounts.protocol import Account
from labstead.errors import AccountRefused, LabsteadError, Refusal
from labstead.hub import authenticator as authenticator_module
from labstead.hub import configure, database, logins
from labstead.hub.authenticator import LabsteadAuthenticator
from labstead.hub.doors import NotIn
from labstead.hub.login_protocol import SetLogin
from labstead.hub.oidc import OidcAuthenticator
from labstead.hub.spawner import LabsteadSpawner
from labstead.settings import Hub, Image, Oidc, Sessions

HUB = Hub(url="https://hub.example.org", address="172.31.240.1", admins=("carla",), signup="approval", failed_logins=3)
SESSIONS = Sessions(
    images=(Image(name="a", title="A", reference="x/a:1"), Image(name="b", title="B", reference="x/b:1"))
)
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use bcrypt with the fewest rounds it has."""
    monkeypatch.setattr(bcrypt, "gensalt", functools.partial(bcrypt.gensalt, 4))


OIDC = Oidc(issuer="https://id.example.org", client_id="hub")


@pytest.fixture(params=["native", "oidc"])
def configuration(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("LABSTEAD_SELFCHECK_TOKEN", "t")
    monkeypatch.setenv("LABSTEAD_OIDC_CLIENT_SECRET", "s")
    c = Config()
    with_provider = {"doors": ("oidc", "native"), "oidc": OIDC} if request.param == "oidc" else {}
    configure.apply(c, HUB.model_copy(update=with_provider), SESSIONS)
    return c


def test_every_trait_is_one_that_jupyterhub_knows(configuration: Config) -> None:
    """JupyterHub ignores a misspelt trait silently."""
    ours: list[type[Configurable]] = [LabsteadAuthenticator, OidcAuthenticator, LabsteadSpawner]
    classes: dict[str, type[Configurable]] = {cls.__name__: cls for cls in [*JupyterHub().classes, JupyterHub, *ours]}
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
        self.known = {"carla": account("carla")}
        self.away = False
        self.asked: list[str] = []

    def _answer(self, name: str, **changes: object) -> Account:
        if self.away:
            raise LabsteadError("the accounts service does not answer")
        if name not in self.known:
            raise AccountRefused(Refusal.UNKNOWN, f"{name} is not an account of the hub")
        self.known[name] = self.known[name].model_copy(update=changes)
        return self.known[name]

    def problem(self, name: str) -> str | None:
        return "The username ben is taken" if name == "ben" else None

    def accounts(self, name: str) -> tuple[Account, ...]:
        return (self._answer(name),)

    def create(self, name: str, email: str = "") -> Account:
        self.known.setdefault(name, account(name, email=email))
        return self._answer(name, locked="")

    def lock(self, name: str) -> Account:
        return self._answer(name, locked="locked")

    def unlock(self, name: str) -> Account:
        return self._answer(name, locked="")

    def check_password(self, name: str, password: str) -> Account:
        self.asked.append(name)
        if self.away:
            raise LabsteadError("the accounts service does not answer")
        if password == "the directory is away":
            raise AccountRefused(Refusal.FAILED, "PAM does not answer")
        if name != "lena" or password != PASSWORD:
            raise AccountRefused(Refusal.WRONG_PASSWORD, "wrong name or password")
        return self.known.setdefault(name, account(name, kind="linked", door="pam"))


def account(name: str, **changes: object) -> Account:
    fixed = {"uid": 20000, "gid": 20000, "kind": "created", "state": "active", "created_at": "2026-01-01T00:00:00Z"}
    return Account.model_validate({"name": name, **fixed, **changes})


def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> LabsteadAuthenticator:
    url = f"sqlite:///{tmp_path}/hub.sqlite"
    database.do([SetLogin(name="carla", password=PASSWORD)], url)
    monkeypatch.setattr(LabsteadAuthenticator, "accounts", Accounts())
    c = Config()
    configure.apply(c, hub, SESSIONS)
    return c.JupyterHub.authenticator_class(config=c, db=orm.new_session_factory(url)())


@pytest.fixture
def authenticator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabsteadAuthenticator:
    return make(tmp_path, monkeypatch, HUB)


@pytest.fixture
def two_doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabsteadAuthenticator:
    return make(tmp_path, monkeypatch, HUB.model_copy(update={"doors": ("pam", "native")}))


@dataclass
class Answer:
    """What came of a log-in."""

    name: str | None
    refusal: str


def answer(authenticator: LabsteadAuthenticator, name: str, password: str, door: str = "") -> Answer:
    handler = SimpleNamespace(refusal=None)
    data = {"username": name, "password": password} | ({"door": door} if door else {})
    return Answer(asyncio.run(authenticator.authenticate(handler, data)), handler.refusal or "")


def log_in(authenticator: LabsteadAuthenticator, name: str, password: str, door: str = "") -> str | None:
    return answer(authenticator, name, password, door).name


def sign_up(authenticator: LabsteadAuthenticator, name: str, password: str = PASSWORD, email: str = "") -> str | None:
    return asyncio.run(authenticator.problem_with_signup(name, password, password, email))


def decide(authenticator: LabsteadAuthenticator, decision: str, name: str) -> None:
    (mark,) = [signup.mark for signup in authenticator.signups() if signup.name == name]
    asyncio.run(getattr(authenticator, decision)(name, mark))


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
    asyncio.run(authenticator.sign_up("anna", PASSWORD, "anna@example.org"))
    for _ in range(HUB.failed_logins + 1):
        assert "waits for" in answer(authenticator, "anna", PASSWORD).refusal
    decide(authenticator, "approve", "anna")
    assert authenticator.accounts.known["anna"].email == "anna@example.org"
    assert log_in(authenticator, "anna", PASSWORD) == "anna"


def test_wrong_passwords_lock_a_name_for_a_while(authenticator: LabsteadAuthenticator) -> None:
    for _ in range(HUB.failed_logins):
        assert log_in(authenticator, "carla", "wrong") is None
    assert "Too many wrong passwords" in answer(authenticator, "carla", PASSWORD).refusal


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


def test_names_that_do_not_exist_are_not_counted(authenticator: LabsteadAuthenticator) -> None:
    for number in range(10):
        log_in(authenticator, f"nobody{number}", "wrong")
    assert authenticator.lockouts["native"].names() == 0


def test_a_failed_account_leaves_the_login_closed(
    authenticator: LabsteadAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(authenticator.sign_up("anna", PASSWORD))

    def fail(_name: str, _email: str) -> None:
        raise RuntimeError

    monkeypatch.setattr(authenticator.accounts, "create", fail)
    with pytest.raises(RuntimeError):
        decide(authenticator, "approve", "anna")
    assert log_in(authenticator, "anna", PASSWORD) is None


def test_a_locked_person_has_to_log_in_again_and_cannot(authenticator: LabsteadAuthenticator) -> None:
    asyncio.run(authenticator.sign_up("anna", PASSWORD))
    decide(authenticator, "approve", "anna")
    assert refresh(authenticator, "anna") == {"name": "anna", "admin": False}
    asyncio.run(authenticator.lock("anna"))
    assert refresh(authenticator, "anna") is False
    assert "is locked" in answer(authenticator, "anna", PASSWORD).refusal
    assert answer(authenticator, "anna", "wrong").refusal == "", "strangers learn nothing"
    asyncio.run(authenticator.unlock("anna"))
    assert log_in(authenticator, "anna", PASSWORD) == "anna"


def test_a_log_in_that_an_earlier_release_closed_opens_with_the_account(authenticator: LabsteadAuthenticator) -> None:
    authenticator.accounts.known["anna"] = account("anna", locked="locked")
    authenticator.db.add(UserInfo(username="anna", password=logins.hashed(PASSWORD), is_authorized=False))
    authenticator.db.commit()
    assert "is locked" in answer(authenticator, "anna", PASSWORD).refusal
    asyncio.run(authenticator.unlock("anna"))
    assert log_in(authenticator, "anna", PASSWORD) == "anna"


def test_an_account_that_expires_today_is_closed(authenticator: LabsteadAuthenticator) -> None:
    known = authenticator.accounts.known
    known["carla"] = account("carla", expires=date.today())
    assert "expired on" in answer(authenticator, "carla", PASSWORD).refusal
    known["carla"] = account("carla", expires=date.today() + timedelta(days=1))
    assert log_in(authenticator, "carla", PASSWORD) == "carla"


def refresh(authenticator: LabsteadAuthenticator, name: str) -> object:
    return asyncio.run(authenticator.refresh_user(SimpleNamespace(name=name), SimpleNamespace()))


def test_somebody_without_an_account_or_without_a_login_is_sent_out(authenticator: LabsteadAuthenticator) -> None:
    assert refresh(authenticator, "nobody-here") is False
    authenticator.accounts.known["anna"] = account("anna")
    assert refresh(authenticator, "anna") is False


def test_while_the_accounts_service_is_away_nobody_comes_in_and_whoever_is_in_stays(
    authenticator: LabsteadAuthenticator,
) -> None:
    authenticator.accounts.away = True
    assert "does not work now" in answer(authenticator, "carla", PASSWORD).refusal
    assert refresh(authenticator, "carla") == {"name": "carla", "admin": True}


def test_who_is_no_longer_an_administrator_loses_the_rights(authenticator: LabsteadAuthenticator) -> None:
    assert refresh(authenticator, "carla") == {"name": "carla", "admin": True}
    assert authenticator.is_admin(None, {"name": "carla"}) is True
    authenticator.admin_users = {"doro"}
    assert refresh(authenticator, "carla") == {"name": "carla", "admin": False}
    assert authenticator.is_admin(None, {"name": "carla"}) is False


def test_only_a_signup_that_waits_can_be_decided(authenticator: LabsteadAuthenticator) -> None:
    asyncio.run(authenticator.sign_up("anna", PASSWORD))
    assert [signup.name for signup in authenticator.signups()] == ["anna"]
    assert authenticator.waiting() == 1
    for decision in (authenticator.approve, authenticator.deny):
        with pytest.raises(LabsteadError, match="changed meanwhile"):
            asyncio.run(decision("carla", "x"))
    decide(authenticator, "deny", "anna")
    assert authenticator.signups() == []
    assert log_in(authenticator, "carla", PASSWORD) == "carla"


def test_an_approval_is_for_the_signup_that_was_seen(authenticator: LabsteadAuthenticator) -> None:
    """Denied and signed up anew by somebody else, between the look at the page and the button."""
    asyncio.run(authenticator.sign_up("anna", PASSWORD))
    (seen,) = authenticator.signups()
    decide(authenticator, "deny", "anna")
    asyncio.run(authenticator.sign_up("anna", PASSWORD))
    with pytest.raises(LabsteadError, match="changed meanwhile"):
        asyncio.run(authenticator.approve("anna", seen.mark))
    assert "anna" not in authenticator.accounts.known


def test_a_hub_user_who_is_deleted_keeps_the_log_in_while_there_is_an_account(
    authenticator: LabsteadAuthenticator,
) -> None:
    asyncio.run(authenticator.delete_user(SimpleNamespace(name="carla")))
    assert authenticator.has_login("carla")
    authenticator.accounts.known["carla"] = account("carla", state="retired")
    asyncio.run(authenticator.delete_user(SimpleNamespace(name="carla")))
    assert not authenticator.has_login("carla")


def test_a_password_that_was_looked_at_for_a_sign_up_does_not_open_what_root_made_of_the_name(
    authenticator: LabsteadAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(authenticator.sign_up("anna", PASSWORD))

    async def meanwhile(password: str, hashed: bytes) -> bool:
        logins.set_login(authenticator.db, "anna", logins.hashed("of another anna"), replace=False)
        authenticator.accounts.known["anna"] = account("anna")
        return bcrypt.checkpw(password.encode(), hashed)

    monkeypatch.setattr(authenticator_module, "matches", meanwhile)
    assert log_in(authenticator, "anna", PASSWORD) is None


# --- pam


def test_each_account_has_its_own_door(two_doors: LabsteadAuthenticator) -> None:
    assert log_in(two_doors, "lena", PASSWORD) == "lena", "the first door is the one where none is chosen"
    assert log_in(two_doors, "lena", PASSWORD, "pam") == "lena"
    assert log_in(two_doors, "lena", PASSWORD, "native") is None
    assert log_in(two_doors, "carla", PASSWORD, "native") == "carla"
    assert log_in(two_doors, "carla", PASSWORD, "pam") is None
    assert refresh(two_doors, "lena") == {"name": "lena", "admin": False}


def test_a_log_in_of_the_hubs_own_does_not_open_an_account_of_another_door(two_doors: LabsteadAuthenticator) -> None:
    two_doors.accounts.known["lena"] = account("lena", kind="linked", door="pam")
    two_doors.db.add(UserInfo(username="lena", password=logins.hashed("another word"), is_authorized=True))
    two_doors.db.commit()
    refused = answer(two_doors, "lena", "another word", "native")
    assert refused.name is None
    assert "not a guest account but an institute account" in refused.refusal


def test_a_door_that_is_not_open_is_not_gone_through(authenticator: LabsteadAuthenticator) -> None:
    assert log_in(authenticator, "lena", PASSWORD, "pam") is None
    assert log_in(authenticator, "lena", PASSWORD, "oidc") is None
    assert authenticator.accounts.asked == []


def test_an_account_of_a_door_that_was_closed_since_is_sent_out(authenticator: LabsteadAuthenticator) -> None:
    authenticator.accounts.known["lena"] = account("lena", kind="linked", door="pam")
    assert refresh(authenticator, "lena") is False


def test_wrong_passwords_count_at_the_door_pam_too(two_doors: LabsteadAuthenticator) -> None:
    for _ in range(HUB.failed_logins + 3):
        assert log_in(two_doors, "lena", "wrong", "pam") is None
    assert len(two_doors.accounts.asked) == HUB.failed_logins
    assert "Too many wrong passwords" in answer(two_doors, "lena", PASSWORD, "pam").refusal


def test_a_directory_that_is_away_locks_nobody_out_and_is_told(two_doors: LabsteadAuthenticator) -> None:
    for _ in range(HUB.failed_logins + 3):
        assert "PAM does not answer" in answer(two_doors, "lena", "the directory is away", "pam").refusal
    assert log_in(two_doors, "lena", PASSWORD, "pam") == "lena"
    two_doors.accounts.away = True
    assert "does not work now" in answer(two_doors, "lena", PASSWORD, "pam").refusal


@pytest.mark.parametrize(
    ("name", "password"), [("", PASSWORD), ("x" * 300, PASSWORD), ("lena", ""), ("lena", "x" * 2000)]
)
def test_what_cannot_be_right_is_not_asked(two_doors: LabsteadAuthenticator, name: str, password: str) -> None:
    assert log_in(two_doors, name, password, "pam") is None
    assert two_doors.accounts.asked == []


# --- passwords


def test_a_link_sets_a_password_once(authenticator: LabsteadAuthenticator) -> None:
    token = logins.invite(authenticator.db, "carla", 3)
    assert authenticator.invited(token) == "carla"
    assert authenticator.invited(token + "x") is None
    assert asyncio.run(authenticator.redeem(token, "another quiet otter")) == "carla"
    assert asyncio.run(authenticator.redeem(token, "a third quiet otter")) is None
    assert log_in(authenticator, "carla", "another quiet otter") == "carla"
    assert log_in(authenticator, "carla", PASSWORD) is None


def test_a_changed_password_makes_links_useless(authenticator: LabsteadAuthenticator) -> None:
    token = logins.invite(authenticator.db, "carla", 3)
    assert asyncio.run(authenticator.set_password("carla", "another quiet otter"))
    assert authenticator.invited(token) is None
    assert log_in(authenticator, "carla", "another quiet otter") == "carla"
    assert not asyncio.run(authenticator.set_password("nobody-here", "another quiet otter"))


def test_ones_own_password_is_not_to_be_guessed_either(authenticator: LabsteadAuthenticator) -> None:
    for _ in range(HUB.failed_logins):
        assert not asyncio.run(authenticator.is_own_password("carla", "wrong"))
    with pytest.raises(NotIn, match="Too many"):
        asyncio.run(authenticator.is_own_password("carla", PASSWORD))


# --- sign-up


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


@pytest.mark.parametrize(("email", "good"), [("anna@example.org", True), ("anna", False), ("a@b\nc.org", False)])
def test_an_address_at_the_sign_up_is_looked_at(authenticator: LabsteadAuthenticator, email: str, good: bool) -> None:
    assert (sign_up(authenticator, "anna", email=email) is None) is good
