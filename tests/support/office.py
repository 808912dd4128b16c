"""The `labstead` command with a site around it: real accounts service and real hub database, on stand-in accounts."""

import subprocess
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from labstead import administration, mail, settings, usage
from labstead.accounts import protocol
from labstead.accounts.client import Client
from labstead.accounts.ledger import Ledger
from labstead.accounts.service import Service
from labstead.cli import base, main
from labstead.hub import database, login_protocol
from labstead.settings import Accounts, Compute, Hub, Image, Mail, People, Quotas, SessionCompute, Sessions
from support.disk import Disk
from support.jobs import Queue
from support.unix import Unix

RELAY = Mail(relay="mail.example.org", sender="hub@example.org", admins=("admin@example.org",))


class Office:
    """A site whose administrator types commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unix = Unix(folder / "home")
        self.disk = Disk(folder)
        self.scratch_root: Path | None = None
        self.quotas = Quotas()
        for name in ("home", "skel", "groups"):
            (folder / name).mkdir()
        self.hub = Hub(url="https://hub.example.org", address="127.0.0.1", admins=("carla",))
        self.people = People()
        self.sessions = Sessions(images=(Image(name="a", title="A", reference="x/a:1"),))
        self.queue = Queue()
        self.db_url = f"sqlite:///{folder}/hub.sqlite"
        self.out_of_hub: list[str] = []
        self.mail: list[EmailMessage] = []
        self.asked: list[protocol.Request] = []
        self._make_service()

    def _make_service(self) -> None:
        self.accounts = Accounts(
            home_root=self.folder / "home",
            group_root=self.folder / "groups",
            archive_root=self.folder / "archive",
            skeleton=self.folder / "skel",
            scratch_root=self.scratch_root,
            quotas=self.quotas,
            doors=self.hub.doors,
        )
        self.service = Service(self.accounts, Ledger(self.folder / "ledger.sqlite"), self.folder / "sessions")

    def set_hub(self, **kwargs: Any) -> None:
        """Give the hub other settings."""
        self.hub = Hub(**{**self.hub.model_dump(exclude_unset=True), **kwargs})
        self._make_service()

    def set_quotas(self, **kwargs: Any) -> None:
        """Give the site limits for all."""
        self.quotas = Quotas.model_validate(kwargs)
        self._make_service()

    def set_up_slurm(self) -> None:
        """Give sessions Slurm."""
        self.sessions = self.sessions.model_copy(update={"compute": SessionCompute()})

    def declare(self, **kwargs: Any) -> None:
        """Write people.yml."""
        self.people = People(**kwargs)

    def add_staff(self, name: str, uid: int) -> None:
        """Let the machine have an account that labstead did not make."""
        self.unix.add_user(name, uid)
        home = self.folder / "home" / name
        home.mkdir()
        self.unix.chown(home, uid, uid)

    def run(self, *words: str, stdin: str = "", code: int = 0) -> Result:
        """Type a command."""
        result = CliRunner().invoke(main, list(words), input=stdin)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert code != 2 or result.stderr
        return result

    def logins(self) -> dict[str, bool]:
        """Give the hub's log-ins and whether each is open."""
        reply = database.do([login_protocol.Everybody()], self.db_url)[0]
        return {login.name: login.authorized for login in reply.logins}

    def account(self, name: str) -> protocol.Account:
        """Give an account of the ledger."""
        (account,) = Client().accounts(name)
        return account

    def group(self, name: str) -> protocol.Group:
        """Give a group of the ledger."""
        (group,) = Client().groups(name)
        return group

    def _ask(self, request: protocol.Request) -> Any:
        self.asked.append(request)
        return self.service.handle(request)

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the machine's place."""
        real = subprocess.run
        self.unix.stand_in(monkeypatch)
        self.disk.stand_in(monkeypatch)

        def run(command: list[str], **kwargs: Any) -> Any:
            return (self.unix.getent if command[0] == "getent" else real)(command, **kwargs)

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(base.os, "geteuid", lambda: 0)
        monkeypatch.setattr(Client, "_ask", lambda _self, request, _kind: self._ask(request))
        monkeypatch.setattr(login_protocol, "ask", lambda *requests: database.do(requests, self.db_url))
        monkeypatch.setattr(settings, "load_hub", lambda: self.hub)
        monkeypatch.setattr(settings, "load_accounts", lambda: self.accounts)
        monkeypatch.setattr(settings, "load_people", lambda: self.people)
        monkeypatch.setattr(settings, "load_sessions", lambda: self.sessions)
        monkeypatch.setattr(settings, "load_compute", lambda: Compute(mode="embedded"))
        monkeypatch.setattr(administration, "Relay", lambda: self.queue)
        monkeypatch.setattr(administration.Site, "put_out", lambda _self, name: self.out_of_hub.append(name))
        monkeypatch.setattr(administration.Site, "forget", lambda _self, name: self.out_of_hub.append(name))
        monkeypatch.setattr(mail, "send", lambda _mail, messages: self.mail.extend(messages))
        monkeypatch.setattr(usage, "FILE", self.folder / "usage.sqlite")
