"""The hub's pages without a machine: JupyterHub itself with labstead's settings, its accounts service a stand-in.

The rule: it is the hub as `jupyterhub_config.py` makes it, without proxy and sessions; what needs them is tested on a
host.
"""

import asyncio
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from jupyterhub.app import JupyterHub
from tornado.httpserver import HTTPServer
from traitlets.config import Config

from labstead.accounts.protocol import Account, Group, Space
from labstead.errors import LabsteadError
from labstead.hub import configure, database
from labstead.hub.authenticator import LabsteadAuthenticator
from labstead.hub.login_protocol import SetLogin
from labstead.settings import Hub, Image, Sessions
from support.forms import forms_of

PASSWORD = "correct horse battery"
_SECONDS = 30


class Accounts:
    """Stands for the accounts service: people, groups and what they have on disk."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.group: dict[str, tuple[str, ...]] = {}
        self.disks: tuple[Space, ...] = ()
        self.disks_are_away = False

    def accounts(self, name: str | None = None, retired: bool = False) -> tuple[Account, ...]:
        """List the people, or the one."""
        fixed: dict[str, Any] = {"kind": "created", "state": "active", "created_at": "2026-01-01T00:00:00Z"}
        return tuple(
            Account(name=one, uid=20000 + i, gid=20000 + i, **fixed)
            for i, one in enumerate(self.names)
            if not retired and name in (None, one)
        )

    def groups(self, name: str | None = None) -> tuple[Group, ...]:
        """List the groups, or the one."""
        return tuple(
            Group(
                name=one,
                gid=30000,
                kind="created",
                folder=f"/groups/{one}",
                members=members,
                declared=(),
                managers=(),
                created_at="2026-01-01T00:00:00Z",
            )
            for one, members in self.group.items()
            if name in (None, one)
        )

    def spaces(self, name: str | None = None) -> tuple[Space, ...]:
        """List the spaces, or somebody's."""
        if self.disks_are_away:
            raise LabsteadError("the accounts service does not answer")

        def is_theirs(space: Space) -> bool:
            return name in self.group.get(space.name, ()) if space.kind == "group" else space.name == name

        return tuple(space for space in self.disks if name is None or is_theirs(space))


class Site:
    """A hub that runs.

    :param hub: its application, which belongs to another thread
    """

    def __init__(self, hub: JupyterHub, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self._hub = hub
        self._loop = loop
        self._visitors: dict[str, requests.Session] = {}
        self.url = url

    def log_in(self, name: str) -> requests.Session:
        """Give somebody's browser, logged in."""
        if name not in self._visitors:
            self._visitors[name] = self._log_in(name)
        return self._visitors[name]

    def _log_in(self, name: str) -> requests.Session:
        visitor = requests.Session()
        visitor.trust_env = False
        page = visitor.get(f"{self.url}/hub/login", headers=_VISIT, timeout=_SECONDS)
        (form,) = (form for form in forms_of(page.text) if "password" in form.fields)
        filled = {**form.fields, "username": name, "password": PASSWORD}
        done = visitor.post(f"{self.url}/hub/login", filled, headers=_VISIT, timeout=_SECONDS, allow_redirects=False)
        assert done.status_code == 302, done.text
        return visitor

    def visit(self, visitor: requests.Session, path: str) -> requests.Response:
        """Open a page."""
        return visitor.get(self.url + path, headers=_VISIT, timeout=_SECONDS, allow_redirects=False)

    def api(self, path: str, token: str = "") -> requests.Response:
        """Ask as a program with a token does."""
        headers = {"Authorization": f"token {token}"} if token else {}
        with requests.Session() as program:
            program.trust_env = False
            return program.get(self.url + path, headers=headers, timeout=_SECONDS)

    def token(self, name: str, *scopes: str, role: str = "") -> str:
        """Give somebody a token with scopes, or with those of a role, such as `server`."""

        async def make() -> str:
            user = self._hub.users[name]
            return str(user.new_api_token(roles=[role] if role else None, scopes=list(scopes) if scopes else None))

        self.log_in(name)  # with which the hub gets to know them
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(_SECONDS)


_VISIT = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}


def _configuration(folder: Path, port: int, admin: str) -> Config:
    c = Config()
    url = f"http://127.0.0.1:{port}"
    image = Image(name="a", title="A", reference="x/a:1")
    configure.apply(c, Hub(url=url, address="127.0.0.1", port=port, admins=(admin,)), Sessions(images=(image,)))
    c.JupyterHub.db_url = database.url(folder)
    c.JupyterHub.spawner_class = "simple"
    c.JupyterHub.cookie_secret = secrets.token_bytes(32)
    c.JupyterHub.bind_url = c.JupyterHub.hub_bind_url = url
    c.JupyterHub.log_level = "WARN"
    c.ConfigurableHTTPProxy.auth_token = "none"
    return c


@contextmanager
def site(folder: Path, accounts: Accounts) -> Iterator[Site]:
    """Run a hub whose people can log in; the first of them is its administrator.

    :param folder: for its database
    """
    database.do([SetLogin(name=name, password=PASSWORD) for name in accounts.names], database.url(folder))
    LabsteadAuthenticator.accounts, real = accounts, LabsteadAuthenticator.accounts
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        hub = JupyterHub(config=_configuration(folder, port, accounts.names[0]))
        loop = asyncio.new_event_loop()

        async def start() -> HTTPServer:
            await hub.initialize([])
            server = HTTPServer(hub.tornado_application)
            listener.setblocking(False)
            server.add_socket(listener)
            return server

        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            server = asyncio.run_coroutine_threadsafe(start(), loop).result(_SECONDS)
            yield Site(hub, f"http://127.0.0.1:{port}", loop)
            loop.call_soon_threadsafe(server.stop)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_SECONDS)
            loop.close()
            hub.db.close()
            LabsteadAuthenticator.accounts = real
