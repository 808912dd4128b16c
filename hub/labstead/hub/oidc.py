"""The door `oidc`: an OpenID Connect provider says who somebody is, the accounts service which account that is.

The one rule: what a provider says is a claim. The name is taken from one claim by the site's mapping and nothing else,
the account is bound to issuer and subject, and whatever does not fit is a sentence on the log-in page.

OAuthenticator speaks the protocol: state in a signed cookie, PKCE, code for token, user info. What it leaves out is
here: the provider's addresses from its discovery document, and that ID token and user info speak of the same person
(OpenID Connect Core 1.0, 5.3.2).
"""

import base64
import json
import time
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote_plus

import jwt
from oauthenticator.generic import GenericOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler, OAuthLoginHandler
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tornado import web
from tornado.httpclient import HTTPClientError

from labstead import mail
from labstead.accounts.protocol import Account
from labstead.errors import AccountRefused, LabsteadError, Refusal
from labstead.hub.authenticator import LabsteadAuthenticator
from labstead.hub.doors import NotIn, problem_with_account
from labstead.hub.loginpage import LoginPage
from labstead.names import MAX_LENGTH
from labstead.settings import Oidc

SECRET_VARIABLE = "LABSTEAD_OIDC_CLIENT_SECRET"  # noqa: S105 - the name of an environment variable
"""Where the secret is that the provider knows this hub by."""
CALLBACK = "hub/oauth_callback"
"""Where the provider sends people back to, below the public address."""

_Endpoint = Annotated[str, Field(pattern=r"^https?://")]
_DISCOVERY = "/.well-known/openid-configuration"
_DISCOVERY_SECONDS = 3600
"""How long the provider's addresses are taken to stay what they are."""
REQUEST_SECONDS = 20
_MAX_SUBJECT = 512
_MAX_TEXT = 512
"""What the accounts service takes."""


class Addresses(BaseModel):
    """What a provider's discovery document says, as far as it matters here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    issuer: str
    authorization_endpoint: _Endpoint
    token_endpoint: _Endpoint
    userinfo_endpoint: _Endpoint
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


@dataclass(frozen=True)
class Arrival:
    """Whom a provider vouches for."""

    name: str
    subject: str
    full_name: str
    email: str


def _claim(claims: dict[str, Any], name: str) -> Any:
    """Give a claim; dots lead into nested ones where there is none with just this name."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def groups_of(claims: dict[str, Any], oidc: Oidc) -> frozenset[str]:
    """Give somebody's groups at the provider."""
    found = _claim(claims, oidc.groups_claim)
    if isinstance(found, str):
        return frozenset(found.split())
    return frozenset(item for item in found if isinstance(item, str)) if isinstance(found, list) else frozenset()


def name_of(claims: dict[str, Any], oidc: Oidc) -> str:
    """Give the Unix name that a claim maps to.

    :raises NotIn: where there is none
    """
    value = _claim(claims, oidc.username_claim)
    if not isinstance(value, str) or not value:
        raise NotIn(
            f"The provider does not say your username (claim {oidc.username_claim}); please tell an administrator."
        )
    if oidc.username_claim == "email" and claims.get("email_verified", True) not in (True, "true"):
        raise NotIn("Your e-mail address is not verified at the provider; please verify it there first.")
    if not value.isascii():
        # Letters that become others when they are made small, such as the sign for Kelvin, are another person's name.
        raise NotIn("Your name at the provider cannot be a username here: it has letters other than a-z.")
    name = value.lower()
    if oidc.username_domain:
        name, at, domain = name.rpartition("@")
        if not at or domain != oidc.username_domain.lower().lstrip("@"):
            raise NotIn(f"Only accounts of {oidc.username_domain.lstrip('@')} can be used here.")
    if len(name) > MAX_LENGTH:
        raise NotIn(f"Your name at the provider cannot be a username here: it has more than {MAX_LENGTH} letters.")
    return name


def arrival_of(claims: dict[str, Any], oidc: Oidc) -> Arrival:
    """Read what a provider says of somebody.

    :raises NotIn: where they may not come in, or cannot be told from others
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(f"{oidc.issuer} {subject}") > _MAX_SUBJECT:
        raise NotIn("The provider does not say who you are (claim sub); please tell an administrator.")
    if oidc.allowed_groups and not groups_of(claims, oidc) & set(oidc.allowed_groups):
        raise NotIn("You are in none of the groups that may use this hub; please ask an administrator.")
    email = _text(claims.get("email"))
    return Arrival(
        name=name_of(claims, oidc),
        subject=f"{oidc.issuer} {subject}",
        full_name=_text(claims.get("name")),
        email="" if mail.problem_with_address(email) else email,
    )


def _text(value: object) -> str:
    """Give a claim as a line that may stand in the passwd file."""
    text = value if isinstance(value, str) else ""
    return "".join(sign for sign in text if sign.isprintable() and sign not in ':,=\\"')[:_MAX_TEXT]


class OidcAuthenticator(LabsteadAuthenticator, GenericOAuthenticator):  # type: ignore[misc]
    """The door `oidc`, and those with a password beside it."""

    _addresses: Addresses | None = None
    _discovered = 0.0

    def login_url(self, base_url: str) -> str:
        """Give the log-in page, which has the button; OAuthenticator would skip it."""
        return f"{base_url.rstrip('/')}/login"

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Give the pages, with those that lead to the provider and back."""
        return [*super().get_handlers(app), (r"/oauth_login", LeaveHandler), (r"/oauth_callback", ReturnHandler)]

    @property
    def provider(self) -> Oidc:
        """Give the provider's settings."""
        if self.site.oidc is None:  # settings.py does not let it happen
            raise LabsteadError("hub.yml: oidc is missing")
        return self.site.oidc

    async def discover(self) -> None:
        """Learn the provider's addresses, where they are not known or old.

        :raises NotIn: when the provider does not answer or answers with something else
        """
        if self._addresses is not None and time.monotonic() - self._discovered < _DISCOVERY_SECONDS:
            return
        document = await self.httpfetch(self.provider.issuer + _DISCOVERY, label="discovering the provider")
        found = Addresses.model_validate(document)
        if found.issuer.rstrip("/") != self.provider.issuer:
            raise ValueError(f"{self.provider.issuer} says that it is the issuer {found.issuer}; see hub_oidc_issuer")
        self.authorize_url = found.authorization_endpoint
        self.token_url = found.token_endpoint
        self.userdata_url = found.userinfo_endpoint
        # OpenID Connect Discovery 1.0, 3: this is the default, and what most providers register.
        self.basic_auth = "client_secret_basic" in found.token_endpoint_auth_methods_supported
        self._addresses, self._discovered = found, time.monotonic()

    async def authenticate(self, handler: Any, data: dict[str, str] | None = None, **kwargs: Any) -> Any:
        """Check who comes back from the provider, or a name and a password."""
        if not isinstance(handler, ReturnHandler):
            return await super().authenticate(handler, data or {})
        return await self.let_in(handler, GenericOAuthenticator.authenticate(self, handler, data, **kwargs))

    def build_token_info_request_headers(self) -> dict[str, str]:
        """Give the headers of the request for a token; id and secret are encoded as RFC 6749, 2.3.1, wants it."""
        headers: dict[str, str] = super().build_token_info_request_headers()
        if self.basic_auth:
            words = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
        return headers

    async def token_to_user(self, token_info: dict[str, Any]) -> dict[str, Any]:
        """Give all claims: the ID token's and, where both have one, user info's.

        The ID token's signature is not needed: it came from the provider itself (OpenID Connect Core 1.0, 3.1.3.7).
        """
        info = await super().token_to_user(token_info)
        if not isinstance(info, dict) or not isinstance(token_info.get("id_token"), str):
            raise ValueError("the provider gives no ID token or no user info; is openid among the scopes?")
        token: dict[str, Any] = jwt.decode(
            token_info["id_token"],
            audience=self.client_id,
            options={"verify_signature": False, "verify_aud": True, "verify_exp": True},
            leeway=60,
        )
        if str(token.get("iss", "")).rstrip("/") != self.provider.issuer or token.get("sub") != info.get("sub"):
            raise ValueError("ID token and user info are of different issuers or people")
        return {**token, **info}

    def user_info_to_username(self, user_info: dict[str, Any]) -> str:
        """Give the Unix name that the claims map to."""
        return arrival_of(user_info, self.provider).name

    async def update_auth_model(self, auth_model: dict[str, Any]) -> dict[str, Any]:
        """Have the accounts service find, make or refuse the account of whom the provider vouches for."""
        arrival = arrival_of(auth_model["auth_state"][self.user_auth_state_key], self.provider)
        account = await self._arrive(arrival)
        if problem := problem_with_account(arrival.name, account, "oidc", self.site):
            raise NotIn(problem)
        return {"name": account.name, "admin": account.name in self.admin_users}

    async def _arrive(self, arrival: Arrival) -> Account:
        try:
            return await self.ask(self.accounts.arrive, arrival.name, arrival.subject, arrival.full_name, arrival.email)
        except AccountRefused as refused:
            if refused.code is Refusal.FAILED:
                raise
            self.log.warning("%s as %s is refused: %s", arrival.subject, arrival.name, refused)
            raise NotIn(f"Your account at the provider cannot be used here: {str(refused).rstrip('.')}.") from refused


_FAULTS = (HTTPClientError, OSError, ValueError, KeyError, json.JSONDecodeError, jwt.PyJWTError, ValidationError)
"""What a provider that is away, or answers with something else, leads to."""


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class LeaveHandler(OAuthLoginHandler, LoginPage):  # type: ignore[misc]
    """Send somebody to the provider."""

    async def get(self) -> None:
        """Redirect, or say on the log-in page that the provider is away."""
        try:
            await self.authenticator.discover()
        except _FAULTS as error:
            self.log.error("the provider %s: %s", self.authenticator.provider.issuer, _reason(error))
            title = self.authenticator.provider.title
            await self.refuse(f"Sign-in with {title} does not work now; please try again later.", 503)
            return
        super().get()


class ReturnHandler(OAuthCallbackHandler, LoginPage):  # type: ignore[misc]
    """Take somebody who comes back from the provider."""

    async def get(self) -> None:
        """Let them in, or say on the log-in page why not."""
        title = self.authenticator.provider.title
        try:
            if self.get_argument("error", ""):
                self.check_state()
                self.log.info("the provider says %r", self.get_argument("error")[:200])
                await self.refuse(f"Sign-in with {title} was refused or cancelled there.", 403)
                return
            self.check_arguments()
            await self.authenticator.discover()
            user = await self.login_user()
        except web.HTTPError as error:
            self.log.warning("back from the provider: %s", str(error.log_message)[:200])
            await self.refuse(f"Sign-in with {title} took too long or was interrupted; please try again.", 400)
        except _FAULTS as error:
            self.log.error("the provider %s: %s", self.authenticator.provider.issuer, _reason(error))
            await self.refuse(f"Sign-in with {title} does not work now; please try again later.", 503)
        else:
            if user is None:
                await self.refuse(self.refusal or "You may not use this hub; please ask an administrator.", 403)
            else:
                self._jupyterhub_user = user
                self.redirect(self.get_next_url(user))
