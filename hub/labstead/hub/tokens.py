"""Tokens that people ask for.

The one rule: nobody fills the hub's database, which is on the system's disk: tokens are few, and what is written with
each is short.
"""

from http import HTTPStatus
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.users import UserTokenListAPIHandler
from tornado.web import HTTPError

MOST_TOKENS = 100
"""That somebody may have at a time; the page of tokens takes them away."""
MOST_BYTES = 8192
"""Of a request for a token: note, scopes and roles."""


class TokensHandler(UserTokenListAPIHandler):  # type: ignore[misc]
    """JupyterHub's own, with bounds."""

    async def post(self, user_name: str) -> None:
        """Give a token; :raises HTTPError: 413 when the request is too long, 403 when there are too many tokens."""
        if len(self.request.body) > MOST_BYTES:
            raise HTTPError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a request for a token may have {MOST_BYTES} bytes; shorten its note",
            )
        if self._count(user_name) >= MOST_TOKENS:
            raise HTTPError(
                HTTPStatus.FORBIDDEN,
                f"{user_name} has {MOST_TOKENS} tokens; revoke some at {self.hub.base_url}token",
            )
        await super().post(user_name)

    def _count(self, name: str) -> int:
        # Those of browsers, which end by themselves, are of other clients.
        tokens: Any = self.db.query(orm.APIToken).join(orm.User, orm.APIToken.user_id == orm.User.id)
        return int(tokens.filter(orm.User.name == name, orm.APIToken.client_id == "jupyterhub").count())
