"""The log-in page, with all doors of the hub on it.

The one rule: whoever does not come in reads why on this page, wherever they come from.
"""

from typing import Any

from jupyterhub.handlers import BaseHandler
from tornado.httputil import url_concat

from labstead.hub.doors import title


class LoginPage(BaseHandler):  # type: ignore[misc]
    """A handler that can answer with the log-in page."""

    refusal: str | None = None
    """What the authenticator has to say beyond "wrong"."""

    def _render(self, login_error: str | None = None, username: str | None = None, **kwargs: Any) -> Any:
        authenticator, site = self.authenticator, self.authenticator.site
        chosen = self.get_body_argument("door", "") if self.request.method == "POST" else ""
        next_page = self.get_argument("next", "")
        doors = [door for door in site.doors if door != "oidc"]
        return self.render_template(
            "login.html",
            **{
                "username": username or "",
                "login_error": self.refusal or login_error,
                "authenticator_login_url": url_concat(self.hub.base_url + "login", {"next": next_page}),
                "provider_url": url_concat(self.hub.base_url + "oauth_login", {"next": next_page}),
                "provider_title": site.oidc.title if site.oidc else "",
                "doors": [(door, title(door, site)) for door in doors],
                "chosen": chosen if chosen in doors else next(iter(doors), ""),
                "authenticator": authenticator,
                "xsrf": self.xsrf_token.decode("ascii"),
                **kwargs,
            },
        )

    async def refuse(self, sentence: str, status: int) -> None:
        """Answer with the log-in page and a sentence."""
        self.refusal = sentence
        self.set_status(status)
        self.finish(await self._render())
