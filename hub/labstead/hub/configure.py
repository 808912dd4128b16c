"""From labstead's settings to JupyterHub's configuration.

The one rule: each function sets one concern from its arguments, so that a test can load the whole and find a trait
that JupyterHub does not know.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from traitlets.config import Config

from labstead import mail
from labstead.contract import PORT
from labstead.hub import oidc
from labstead.hub.authenticator import LabsteadAuthenticator
from labstead.hub.spawner import GATE_SOCKET, LabsteadSpawner
from labstead.names import CANARY
from labstead.secrets import COMMAND_TOKEN
from labstead.settings import Hub, Oidc, Sessions

TEMPLATES = Path(__file__).parent / "templates"


def apply(c: Config, hub: Hub, sessions: Sessions) -> None:
    """Configure JupyterHub."""
    apply_addresses(c, hub)
    apply_people(c, hub)
    apply_sessions(c, sessions)
    apply_selfcheck(c)
    apply_command(c)
    apply_pages(c, hub)


def apply_addresses(c: Config, hub: Hub) -> None:
    """Set who listens where, and that hub, proxy and servers live independently of each other."""
    c.JupyterHub.bind_url = hub.proxy_url + hub.base_url
    c.JupyterHub.hub_bind_url = f"http://{hub.address}:{hub.port}"
    c.JupyterHub.public_url = f"{urlsplit(hub.url).scheme}://{urlsplit(hub.url).netloc}{hub.base_url}"
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = hub.proxy_api_url
    # The hub looks for routes that a restarted proxy has lost as often as for activity: at most so long (s) are
    # sessions out of reach. JupyterHub's own 300 s are for proxies that never restart.
    c.JupyterHub.last_activity_interval = 10
    # A new release brings its own schema; JupyterHub keeps a copy of the old database beside the new one.
    c.JupyterHub.upgrade_db = True


def apply_people(c: Config, hub: Hub) -> None:
    """Set who may log in and who is an administrator."""
    c.JupyterHub.authenticator_class = oidc.OidcAuthenticator if "oidc" in hub.doors else LabsteadAuthenticator
    c.LabsteadAuthenticator.site = hub
    # NativeAuthenticator's own gate is the approval; without this it would refuse those whom it approved.
    c.Authenticator.allow_all = True
    c.Authenticator.admin_users = set(hub.admins)
    c.Authenticator.refresh_pre_spawn = True
    # An account may be closed by a command on the machine, too: seconds until a cookie of before is no longer good.
    c.Authenticator.auth_refresh_age = 30
    # Without it a token outlives the approval of its owner.
    c.Authenticator.auth_refresh_strict = True
    c.LabsteadAuthenticator.enable_signup = hub.signup == "approval"
    c.LabsteadAuthenticator.open_signup = False
    c.LabsteadAuthenticator.check_common_password = True
    c.LabsteadAuthenticator.minimum_password_length = hub.password_minimum_length
    if hub.oidc is not None:
        apply_provider(c, hub, hub.oidc)


def apply_provider(c: Config, hub: Hub, provider: Oidc) -> None:
    """Set what the OpenID Connect provider is told; its addresses are asked for when they are needed."""
    c.OidcAuthenticator.client_id = provider.client_id
    c.OidcAuthenticator.client_secret = os.environ.get(oidc.SECRET_VARIABLE, "")
    c.OidcAuthenticator.oauth_callback_url = mail.public(hub, oidc.CALLBACK)
    c.OidcAuthenticator.login_service = provider.title
    c.OidcAuthenticator.scope = list(dict.fromkeys(["openid", *provider.scopes]))
    c.OidcAuthenticator.http_request_kwargs = {"request_timeout": oidc.REQUEST_SECONDS}


def apply_sessions(c: Config, sessions: Sessions) -> None:
    """Set what a session is started with."""
    c.JupyterHub.spawner_class = LabsteadSpawner
    c.LabsteadSpawner.sessions = sessions
    c.LabsteadSpawner.client_kwargs = {"base_url": f"unix://{GATE_SOCKET}"}
    c.LabsteadSpawner.image = sessions.images[0].reference
    # With a single image there is nothing to choose, and an empty list makes no form.
    several = len(sessions.images) > 1
    c.LabsteadSpawner.allowed_images = {image.title: image.reference for image in sessions.images} if several else []
    c.LabsteadSpawner.pull_policy = "skip"
    c.LabsteadSpawner.network_name = sessions.network
    c.LabsteadSpawner.use_internal_ip = True
    c.LabsteadSpawner.remove = True
    c.LabsteadSpawner.port = PORT
    c.LabsteadSpawner.cmd = ["jupyterhub-singleuser"]
    c.LabsteadSpawner.default_url = "/lab"
    # Group folders, colleagues' homes and data are in JupyterLab's file browser at the same paths as everywhere else;
    # it opens in one's own home, see the spawner.
    c.LabsteadSpawner.notebook_dir = "/"
    c.LabsteadSpawner.start_timeout = sessions.start_timeout
    c.LabsteadSpawner.http_timeout = sessions.start_timeout
    # These two only tell the session its limits; the contract sets them.
    c.LabsteadSpawner.mem_limit = sessions.memory
    c.LabsteadSpawner.cpu_limit = sessions.cpus
    if sessions.compute is not None:
        c.LabsteadSpawner.post_stop_hook = LabsteadSpawner.end_dask


def _add_service(c: Config, name: str, token: str, description: str, scopes: list[str]) -> None:
    """Let a program of root's ask the hub for what these scopes allow."""
    c.JupyterHub.services = [
        *c.JupyterHub.get("services", []),
        {"name": name, "api_token": token, "display": False},
    ]
    c.JupyterHub.load_roles = [
        *c.JupyterHub.get("load_roles", []),
        {"name": name, "description": description, "scopes": scopes, "services": [name]},
    ]


def apply_selfcheck(c: Config) -> None:
    """Let the self-check remove the user it made, and do nothing else."""
    if token := os.environ.get("LABSTEAD_SELFCHECK_TOKEN"):
        scopes = ("delete:users", "delete:servers", "read:users:name", "read:servers")
        only_canary = [f"{scope}!user={CANARY}" for scope in scopes]
        _add_service(c, "selfcheck", token, "Remove the canary of the self-check", only_canary)


def apply_command(c: Config) -> None:
    """Let root's commands stop idle servers, and put people out: stop theirs, take their tokens, forget them."""
    if token := os.environ.get(COMMAND_TOKEN):
        scopes = ["delete:users", "delete:servers", "list:users", "read:servers", "tokens"]
        _add_service(c, "command", token, "Stop idle servers, and put out people whom root locks or removes", scopes)


def apply_pages(c: Config, hub: Hub) -> None:
    """Set what the hub's pages look like."""
    c.JupyterHub.template_paths = [str(TEMPLATES)]
    c.JupyterHub.template_vars = {
        "site_title": hub.title,
        "signup_open": hub.signup == "approval",
        "guests": hub.native_title if len(hub.doors) > 1 else "",
        "has_login": _has_login,
        "waiting": _waiting,
    }


def _has_login(user: Any) -> bool:
    """Tell whether somebody has a password here that they can change."""
    return user is not None and bool(user.authenticator.has_login(user.name))


def _waiting(user: Any) -> int:
    """Count the sign-ups that wait, for those who decide."""
    return user.authenticator.waiting() if user is not None and user.admin else 0
