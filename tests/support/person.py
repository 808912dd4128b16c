"""Somebody with a browser: cookies, forms, XSRF tokens, and the headers by which a browser says what it is doing."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import requests

from support.forms import Form, forms_of, words_of
from support.kernel import Kernel
from support.machine import wait_for

PASSWORD = "seven quiet otters swim"
_SECONDS = 60
_VISIT = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "document"}
_SCRIPT = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "empty"}


class Person:
    """A participant or an administrator at the hub's public address.

    :param url: the hub
    :param ca: file with the authority to trust
    """

    door = "native"
    """Which of the log-in page's choices they take, where it gives a choice."""

    def __init__(self, url: str, ca: Path, name: str, password: str = PASSWORD) -> None:
        self.url, self.ca, self.name, self.password = url, ca, name, password
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.verify = os.fspath(ca)

    # --- pages

    def visit(self, path: str, **kwargs: Any) -> requests.Response:
        """Open a page, following redirects."""
        return self.http.get(urljoin(self.url, path), headers=_VISIT, timeout=_SECONDS, **kwargs)

    def form(self, path: str, action: str) -> Form:
        """Give the form of a page that goes to an address which ends in `action`."""
        page = self.visit(path)
        assert page.status_code == 200, f"GET {path}: {page.status_code} {words_of(page.text)[:300]}"
        for form in forms_of(page.text):
            if urlsplit(form.action).path.endswith(action):
                assert form.method == "post"
                return form
        raise AssertionError(f"{path} has no form to {action}: {words_of(page.text)[:300]}")

    def post(self, path: str, data: Mapping[str, str] | bytes, **kwargs: Any) -> requests.Response:
        """Send a form as it is, without following the redirect."""
        headers = {**_VISIT, "Origin": self.url, "Content-Type": "application/x-www-form-urlencoded"}
        return self.http.post(
            urljoin(self.url, path), data=data, headers=headers, timeout=_SECONDS, allow_redirects=False, **kwargs
        )

    def submit(self, page: str, action: str, **fields: str) -> requests.Response:
        """Open a page, fill in one of its forms and send it."""
        form = self.form(page, action)
        unknown = fields.keys() - form.fields.keys() - {name for name, _ in form.buttons}
        assert not unknown, f"the form of {page} has no field {', '.join(unknown)}"
        return self.post(form.action, {**form.fields, **fields})

    def sign_up(self, **fields: str) -> requests.Response:
        """Fill in the sign-up form."""
        filled = {"username": self.name, "password": self.password, "confirmation": self.password, **fields}
        return self.submit("/hub/signup", "/hub/signup", **filled)

    def try_to_log_in(self, password: str | None = None) -> requests.Response:
        """Fill in the log-in form and give the answer, which is a redirect if it went well."""
        form = self.form("/hub/login", "/hub/login")
        choice = {"door": self.door} if "door" in form.fields else {}
        filled = {"username": self.name, "password": password or self.password, **choice}
        return self.post(form.action, {**form.fields, **filled})

    def log_in(self) -> "Person":
        """Log in."""
        answer = self.try_to_log_in()
        assert answer.status_code == 302, f"log-in of {self.name}: {answer.status_code} {words_of(answer.text)[:300]}"
        home = self.visit("/hub/home")
        assert home.url.endswith("/hub/home"), f"after the log-in of {self.name}, home led to {home.url}"
        return self

    def decide(self, decision: str, name: str) -> requests.Response:
        """Press a button of the page of people, as an administrator, having searched for them."""
        return self.submit(f"/hub/people?q={quote(name)}", f"/hub/people/{name}", decision=decision)

    # --- scripts of pages

    def token(self, path: str) -> str:
        """Give the XSRF token whose cookie is the nearest to a path."""
        cookies = [c for c in self.http.cookies if c.name == "_xsrf" and path.startswith(c.path)]
        assert cookies, f"{self.name} has no XSRF cookie for {path}"
        return max(cookies, key=lambda cookie: len(cookie.path)).value or ""

    def api(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Make a request as a page's script does."""
        headers = {**_SCRIPT, "Origin": self.url, "X-XSRFToken": self.token(path)}
        return self.http.request(method, self.url + path, headers=headers, timeout=_SECONDS, **kwargs)

    # --- the session

    def server(self) -> dict[str, Any]:
        """Give the hub's idea of this person's server; empty where there is none."""
        model = self.api("GET", f"/hub/api/users/{self.name}")
        assert model.ok, f"user model of {self.name}: {model.status_code} {model.text[:300]}"
        found: dict[str, Any] = model.json()["servers"].get("", {})
        return found

    def start(self) -> "Person":
        """Start a session and wait until JupyterLab opens."""
        answer = self.api("POST", f"/hub/api/users/{self.name}/server")
        assert answer.status_code in (201, 202), f"start of {self.name}: {answer.status_code} {answer.text[:300]}"

        def is_ready() -> bool:
            server = self.server()
            if not server:
                raise RuntimeError(f"the session of {self.name} failed to start")
            return bool(server["ready"])

        wait_for(f"session of {self.name}", is_ready, 120)
        self.open()
        return self

    def open(self) -> None:
        """Open JupyterLab in the running session."""
        page = self.visit(f"/user/{self.name}/lab")
        assert page.status_code == 200, f"JupyterLab of {self.name}: {page.status_code} {words_of(page.text)[:300]}"
        assert urlsplit(page.url).path.startswith(f"/user/{self.name}/lab"), f"JupyterLab led to {page.url}"

    def stop(self) -> None:
        """Stop the session and wait until it is gone."""
        answer = self.api("DELETE", f"/hub/api/users/{self.name}/server")
        assert answer.status_code in (202, 204), f"stop of {self.name}: {answer.status_code} {answer.text[:300]}"
        wait_for(f"end of the session of {self.name}", lambda: not self.server(), 60)

    def kernel(self) -> Kernel:
        """Start a kernel in the running session."""
        answer = self.api("POST", f"/user/{self.name}/api/kernels", json={"name": "python3"})
        assert answer.status_code == 201, f"kernel of {self.name}: {answer.status_code} {answer.text[:300]}"
        return Kernel(self, answer.json()["id"])
