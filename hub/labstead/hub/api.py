"""What root's commands ask of the running hub, over its REST API.

The one rule: it only takes away: servers, tokens, users. What somebody may do is decided in the ledger and in the
hub's database before it is asked, so that what was taken away cannot come back meanwhile.
"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests
from pydantic import BaseModel, ConfigDict, ValidationError

from labstead import secrets
from labstead.errors import LabsteadError
from labstead.settings import Hub

_REQUEST_SECONDS = 30
_GONE_SECONDS = 90
"""How long a server may take to start or to stop before it is given up."""
_NOT_FOUND = 404
_PAGE = 200
"""People to be told of in one answer; JupyterHub's own most."""


class HubAway(LabsteadError):
    """The hub did not do it; a server may still run."""


class Server(BaseModel):
    """A server of somebody's: their session."""

    model_config = ConfigDict(frozen=True)

    last_activity: datetime | None = None
    """When the hub last heard of it, from the proxy or from itself."""
    started: datetime | None = None
    ready: bool = False
    """Whether it runs: neither starts nor stops at this moment."""

    @property
    def used(self) -> datetime | None:
        """When it was last used, as far as the hub knows; None where it knows nothing."""
        return max((at for at in (self.last_activity, self.started) if at is not None), default=None)


class Api:
    """The running hub.

    :param hub: hub.yml
    :param token: that of the service `command`
    """

    def __init__(self, hub: Hub, token: str | None = None) -> None:
        # The hub's own address: nginx and the proxy may be down, or their certificate be out of date.
        host = f"[{hub.address}]" if ":" in hub.address else hub.address
        self._api = f"http://{host}:{hub.port}{hub.base_url}hub/api"
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Authorization"] = f"token {secrets.command_token() if token is None else token}"

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        """Ask once; a 404 is an answer.

        :raises HubAway: when there is no answer or a refusal
        """
        try:
            answer = self._http.request(
                method, self._api + path, timeout=_REQUEST_SECONDS, allow_redirects=False, **more
            )
        except requests.RequestException as error:
            words = f"the hub does not answer ({type(error).__name__}); see `systemctl status labstead-hub`"
            raise HubAway(words) from None
        if answer.status_code in (401, 403):
            raise HubAway("the hub does not take the commands' token; run site.yml, or restart labstead-hub")
        return answer

    @staticmethod
    def _user(name: str) -> str:
        return f"/users/{quote(name, safe='')}"

    def _model(self, name: str) -> dict[str, Any] | None:
        """Give what the hub knows of somebody; None where it does not know them."""
        answer = self._ask("GET", self._user(name))
        if answer.status_code == _NOT_FOUND:
            return None
        if not answer.ok:
            raise HubAway(f"the hub answers {answer.status_code} when asked for {name}")
        model: dict[str, Any] = answer.json()
        return model

    def _wait(self, what: str, attempt: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while not attempt():
            if time.monotonic() > deadline:
                raise HubAway(f"{what}: still not after {_GONE_SECONDS} s; see `journalctl -u labstead-hub`")
            time.sleep(0.5)

    def _stop_servers(self, name: str) -> bool:
        """Ask for the end of somebody's servers; tell whether none is left."""
        model = self._model(name)
        servers = model.get("servers", {}) if model else {}
        for server in servers:
            # 202: stopping; 400: starting or stopping at this moment. Both are asked again.
            path = f"/servers/{quote(server, safe='')}" if server else "/server"
            self._ask("DELETE", self._user(name) + path)
        return not servers

    def _users(self) -> Iterator[dict[str, Any]]:
        """Give everybody who has a server."""
        offset: int | None = 0
        while offset is not None:
            answer = self._ask(
                "GET",
                "/users",
                params={"state": "active", "sort": "name", "offset": offset, "limit": _PAGE},
                headers={"Accept": "application/jupyterhub-pagination+json"},
            )
            if not answer.ok:
                raise HubAway(f"the hub answers {answer.status_code} when asked who has a session")
            page = answer.json()
            yield from page["items"]
            following = page["_pagination"]["next"]
            offset = following["offset"] if following else None

    def servers(self) -> dict[str, Server]:
        """Give the servers that there are, also those that start or stop, by their owners.

        :raises HubAway: when the hub did not tell
        """
        return {user["name"]: server for user in self._users() if (server := _server(user)) is not None}

    def server(self, name: str) -> Server | None:
        """Give somebody's server; None where they have none.

        :raises HubAway: when the hub did not tell
        """
        model = self._model(name)
        return _server(model) if model else None

    def stop(self, name: str) -> None:
        """Stop somebody's servers.

        :raises HubAway: when the hub did not do it
        """
        self._wait(f"stop of the server of {name}", lambda: self._stop_servers(name))

    def put_out(self, name: str) -> None:
        """Stop somebody's servers and take their tokens.

        Their log-in in a browser ends when the hub next looks whether they may come in.

        :raises HubAway: when the hub did not do it
        """
        if self._model(name) is None:
            return
        self.stop(name)
        answer = self._ask("GET", f"{self._user(name)}/tokens")
        for token in answer.json().get("api_tokens", []) if answer.ok else []:
            self._ask("DELETE", f"{self._user(name)}/tokens/{token['id']}")

    def forget(self, name: str) -> None:
        """Stop somebody's servers and forget them: tokens, cookies, state.

        :raises HubAway: when the hub did not do it
        """
        if self._model(name) is None:
            return
        self.stop(name)
        answer = self._ask("DELETE", self._user(name))
        if not answer.ok and answer.status_code != _NOT_FOUND:
            raise HubAway(f"the hub answers {answer.status_code} when told to forget {name}")


def _server(user: dict[str, Any]) -> Server | None:
    """Read what the hub says of somebody's server; named servers are not allowed, so there is one at most."""
    servers = user.get("servers", {})
    if not servers:
        return None
    try:
        return Server.model_validate(next(iter(servers.values())))
    except ValidationError:
        raise HubAway(f"the hub says of the server of {user['name']} what labstead does not read") from None
