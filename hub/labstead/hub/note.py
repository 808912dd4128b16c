"""A sentence that a page leaves for the next one: what was just done.

The one rule: it comes from the hub itself; a link cannot put words on a page.
"""

from jupyterhub.handlers import BaseHandler

_COOKIE = "labstead-note"


class Noted(BaseHandler):  # type: ignore[misc]
    """A handler that leaves and shows such sentences."""

    def leave_note(self, sentence: str) -> None:
        """Keep a sentence for the page that is shown next."""
        self.set_signed_cookie(
            _COOKIE,
            sentence,
            expires_days=None,
            path=self.hub.base_url,
            httponly=True,
            secure=self.request.protocol == "https",
            samesite="strict",
        )

    def take_note(self) -> str:
        """Give the sentence that was kept, once."""
        found: bytes | None = self.get_signed_cookie(_COOKIE, max_age_days=1)
        if found is not None:
            self.clear_cookie(_COOKIE, path=self.hub.base_url)
        return found.decode("utf-8", "replace") if found else ""
