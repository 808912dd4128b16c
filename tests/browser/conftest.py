"""Chromium, one for all browser tests, and pages in contexts of their own: each a person with their own cookies.

The rule: Chromium accepts the very key that the host's certificate has, no other. That the certificate itself is good
is tested without a browser, in tests/host/test_provisioning.py.
"""

import base64
import hashlib
import re
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, Page, expect, sync_playwright

from support.browsing import Shoot, Visit, fill_in_log_in
from support.lab import Lab
from support.provision import ADMIN

SCREENSHOTS = Path(__file__).parent / "screenshots"
STEADY = Path(__file__).parent / "steady_chromium.py"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 30_000
"""Milliseconds that an element may take to appear."""


def _key_of(address: str) -> str:
    """Hash the public key of a server's certificate as Chromium's command line wants it."""
    certificate = x509.load_pem_x509_certificate(ssl.get_server_certificate((address, 443), timeout=10).encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


@pytest.fixture(scope="package")
def browser(lab: Lab) -> Iterator[Browser]:
    """Start Chromium."""
    if shutil.which("chromium") is None:
        pytest.fail("chromium is missing; apt-get install --no-install-recommends chromium", pytrace=False)
    # Playwright's own 5 s are little for JupyterLab on a machine that does something else, too.
    expect.set_options(timeout=PATIENCE)
    key = _key_of(urlsplit(lab.url).netloc)
    with sync_playwright() as playwright:
        arguments = [*ARGUMENTS, f"--ignore-certificate-errors-spki-list={key}"]
        browser = playwright.chromium.launch(executable_path=STEADY, headless=True, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shoot() -> Shoot:
    """Give the function that keeps a picture of a page."""
    SCREENSHOTS.mkdir(exist_ok=True)

    def save(page: Page, name: str) -> None:
        page.screenshot(path=SCREENSHOTS / f"{name}.png")

    return save


@pytest.fixture
def visitor(request: pytest.FixtureRequest, browser: Browser, lab: Lab, shoot: Shoot) -> Iterator[Visit]:
    """Give the function that opens a page for somebody new; a failed test leaves pictures and consoles of all."""
    pages: list[Page] = []
    consoles: list[str] = []
    failed = request.session.testsfailed

    def open_page() -> Page:
        context = browser.new_context(base_url=lab.url, viewport={"width": 1280, "height": 800}, locale="en-GB")
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: consoles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: consoles.append(f"page error: {error}"))
        pages.append(page)
        return page

    yield open_page
    name = re.sub(r"\W+", "-", request.node.name)
    for number, page in enumerate(pages):
        if request.session.testsfailed > failed:
            shoot(page, f"failed-{name}-{number}")
            print(f"page {number} is at {page.url}; picture: {SCREENSHOTS}/failed-{name}-{number}.png")
            print(page.inner_text("body")[:2000])
        page.context.close()
    if request.session.testsfailed > failed:
        print("\n".join(consoles[-40:]))


@pytest.fixture
def people_page(lab: Lab, visitor: Visit) -> Page:
    """Give the administrator's page of people, reached as they would: by its address, through the log-in."""
    page = visitor()
    page.goto("/hub/people")
    fill_in_log_in(page, ADMIN, lab.machine.out("cat", f"/etc/labstead/secrets/admin-{ADMIN}.password"))
    expect(page.get_by_role("heading", name="People", exact=True)).to_be_visible()
    return page
