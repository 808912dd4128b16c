"""What root's commands ask of the running hub; the hub of these tests is a real socket."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest
from traitlets.config import Config

from labstead.errors import LabsteadError
from labstead.hub import api, configure, login_protocol
from labstead.hub.api import Api, HubAway
from labstead.secrets import COMMAND_TOKEN
from labstead.settings import Hub


class FakeHub(ThreadingHTTPServer):
    """As much of JupyterHub's REST API as is asked for; a server takes two requests to stop."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.users: dict[str, dict[str, Any]] = {"anna": {"servers": {"": {}}, "tokens": ["a1", "a2"], "stopping": 2}}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_args: object) -> None:
        """Say nothing."""

    def _answer(self, code: int, content: object = None) -> None:
        self.send_response(code)
        body = json.dumps(content).encode() if content is not None else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _do(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.headers["Authorization"] != "token right":
            self._answer(403)
            return
        path, _, query = self.path.partition("?")
        if path == "/base/hub/api/users":
            self._list(parse_qs(query))
            return
        name, *rest = path.removeprefix("/base/hub/api/users/").split("/")
        user = self.server.users.get(name)
        if user is None:
            self._answer(404)
        elif self.command == "GET":
            tokens = [{"id": token} for token in user["tokens"]]
            self._answer(200, {"api_tokens": tokens} if rest else {"name": name, "servers": user["servers"]})
        elif rest == ["server"]:
            user["stopping"] -= 1
            if user["stopping"] == 0:
                user["servers"] = {}
            self._answer(202 if user["servers"] else 204)
        elif rest:
            user["tokens"].remove(rest[1])
            self._answer(204)
        else:
            del self.server.users[name]
            self._answer(204)

    def _list(self, query: dict[str, list[str]]) -> None:
        """As UserListAPIHandler does it: those with a server, some at a time, to who asks for pages."""
        assert self.headers["Accept"] == "application/jupyterhub-pagination+json"
        assert query["state"] == ["active"]
        active = [{"name": name, "servers": user["servers"]} for name, user in self.server.users.items()]
        active = [user for user in active if user["servers"]]
        offset, limit = int(query["offset"][0]), min(int(query["limit"][0]), 2)
        following = {"offset": offset + limit, "limit": limit} if offset + limit < len(active) else None
        self._answer(200, {"items": active[offset : offset + limit], "_pagination": {"next": following}})

    do_GET = do_DELETE = _do  # noqa: N815 - names that the library asks for


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with FakeHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def settings(port: int) -> Hub:
    return Hub(url="https://x.org", base_url="/base/", address="127.0.0.1", port=port, admins=("carla",))


@pytest.fixture
def client(fake: FakeHub) -> Api:
    return Api(settings(fake.server_address[1]), token="right")


def test_who_is_put_out_has_no_server_and_no_token(fake: FakeHub, client: Api) -> None:
    client.put_out("anna")
    assert fake.users["anna"]["servers"] == {}
    assert fake.users["anna"]["tokens"] == []


def test_who_is_forgotten_is_gone_after_their_server(fake: FakeHub, client: Api) -> None:
    client.forget("anna")
    assert fake.users == {}
    assert fake.asked[-1] == "DELETE /base/hub/api/users/anna"


def test_whom_the_hub_does_not_know_is_put_out_already(fake: FakeHub, client: Api) -> None:
    client.put_out("bert")
    client.forget("bert")
    assert {asked.split()[0] for asked in fake.asked} == {"GET"}


def test_servers_are_told_with_when_they_were_used(fake: FakeHub, client: Api) -> None:
    def server(last_activity: str | None, started: str, ready: bool = True) -> dict[str, Any]:
        more = {"name": "", "pending": None if ready else "spawn", "ready": ready, "user_options": {}}
        return {"servers": {"": {"last_activity": last_activity, "started": started, **more}}, "tokens": []}

    fake.users = {
        "anna": server("2026-11-20T09:00:00.000000Z", "2026-11-19T08:00:00.000000Z"),
        "bert": server("2026-11-20T09:00:00.000000Z", "2026-11-20T10:00:00.000000Z"),
        "carl": server(None, "2026-11-20T10:00:00.000000Z", ready=False),
        "dora": {"servers": {}, "tokens": []},
        "emil": server(None, "2026-11-20T11:00:00.000000Z"),
        "fred": server(None, "2026-11-20T12:00:00.000000Z"),
    }
    found = client.servers()
    assert {name: server.used.hour for name, server in found.items() if server.used} == {
        "anna": 9,
        "bert": 10,
        "carl": 10,
        "emil": 11,
        "fred": 12,
    }
    assert [name for name, server in found.items() if not server.ready] == ["carl"]
    assert client.server("anna") == found["anna"]
    assert client.server("dora") is client.server("nobody") is None


def test_a_server_that_is_stopped_keeps_its_owners_tokens(fake: FakeHub, client: Api) -> None:
    client.stop("anna")
    assert (fake.users["anna"]["servers"], fake.users["anna"]["tokens"]) == ({}, ["a1", "a2"])


def test_a_server_that_does_not_stop_is_told(fake: FakeHub, client: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.users["anna"]["stopping"] = 10_000
    monkeypatch.setattr(api, "_GONE_SECONDS", 0.1)
    with pytest.raises(HubAway, match="stop of the server of anna"):
        client.forget("anna")
    assert "anna" in fake.users


def test_a_token_that_the_hub_does_not_take_is_told(fake: FakeHub) -> None:
    with pytest.raises(HubAway, match=r"run site\.yml"):
        Api(settings(fake.server_address[1]), token="wrong").put_out("anna")


def test_a_hub_that_is_down_is_told() -> None:
    with pytest.raises(HubAway, match="does not answer") as away:
        Api(settings(1), token="right").put_out("anna")
    assert "\n" not in str(away.value)


def test_the_commands_may_only_take_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND_TOKEN, "secret")
    c = Config()
    configure.apply_command(c)
    (role,) = c.JupyterHub.load_roles
    assert role["scopes"] == ["delete:users", "delete:servers", "list:users", "read:servers", "tokens"]
    assert c.JupyterHub.services[0]["api_token"] == "secret"


# --- the hub's database, as root asks it


def test_what_goes_wrong_in_the_hubs_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **kwargs: Any) -> Any:
        assert kwargs["user"] == kwargs["group"] == "labstead"
        assert kwargs["extra_groups"] == []
        return SimpleNamespace(returncode=1, stderr=b"Traceback\n  more\nOperationalError: disk\n", stdout=b"")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(LabsteadError, match=r"^the hub's database: OperationalError: disk$"):
        login_protocol.set_login("anna", "correct horse battery", replace=False)


def test_a_password_is_in_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note(*args: object, **kwargs: Any) -> Any:
        seen.append((args, kwargs["env"]))
        assert b"correct horse" in kwargs["input"]
        return SimpleNamespace(returncode=0, stderr=b"", stdout=b'a word of a library\n[{"changed": true}]\n')

    monkeypatch.setattr(subprocess, "run", note)
    assert login_protocol.set_login("anna", "correct horse battery", replace=False)
    assert "correct horse" not in str(seen)


def test_a_process_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_args: object, timeout: float, **_kwargs: object) -> None:
        raise subprocess.TimeoutExpired(["x"], timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(LabsteadError, match="nothing came of it in 121 s"):
        login_protocol.set_login("anna", "correct horse battery", replace=False)
