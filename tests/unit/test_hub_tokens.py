"""Tokens that people ask the hub for: as many and as long as one needs."""

from pathlib import Path

import pytest
import requests

from labstead.hub import tokens
from support.pages import Accounts, Site, site


def ask(hub: Site, method: str, path: str, token: str, **body: object) -> requests.Response:
    with requests.Session() as program:
        program.trust_env = False
        headers = {"Authorization": f"token {token}"}
        return program.request(method, hub.url + path, json=body or None, headers=headers, timeout=30)


def test_nobody_fills_the_hubs_database_with_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_TOKENS", 4)
    with site(tmp_path, Accounts("carla", "anna", "bert")) as hub:
        anna, bert = hub.token("anna"), hub.token("bert")
        path = "/hub/api/users/anna/tokens"

        long = ask(hub, "POST", path, anna, note="x" * 10_000)
        assert long.status_code == 413
        assert "shorten its note" in long.text
        made = [ask(hub, "POST", path, anna, note="for a script") for _ in range(3)]
        assert [answer.status_code for answer in made] == [201] * 3
        assert made[0].json()["note"] == "for a script"

        refused = ask(hub, "POST", path, anna)
        assert refused.status_code == 403
        assert "anna has 4 tokens; revoke some at /hub/token" in refused.text
        # One's own are counted, and may go.
        assert ask(hub, "POST", "/hub/api/users/bert/tokens", bert).status_code == 201
        assert ask(hub, "DELETE", f"{path}/{made[0].json()['id']}", anna).status_code == 204
        assert ask(hub, "POST", path, anna).status_code == 201
        # And nobody asks for others.
        assert ask(hub, "POST", path, bert).status_code == 403
