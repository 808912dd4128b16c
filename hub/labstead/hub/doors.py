"""The doors of the hub, and whether an account opens one.

The one rule: an account has one door and lets nobody in through another, whatever they can prove there.
"""

from datetime import date

from labstead.accounts.protocol import Account
from labstead.errors import LabsteadError
from labstead.settings import Door, Hub


class NotIn(LabsteadError):
    """Why somebody does not come in, as a sentence for them."""


def title(door: Door, hub: Hub) -> str:
    """Give what people call a door, such as "institute account"."""
    titles: dict[Door, str] = {"native": hub.native_title, "pam": hub.pam_title}
    return hub.oidc.title if door == "oidc" and hub.oidc else titles[door]


def is_expired(account: Account) -> bool:
    """Tell whether the day of an account's expiry has come."""
    return account.locked == "expired" or (account.expires is not None and account.expires <= date.today())


def problem_with_account(name: str, account: Account | None, door: Door, hub: Hub) -> str | None:
    """Say why this account lets nobody in through this door; None where it does."""
    if account is None or account.state != "active":
        return f"There is no account {name} on this machine; please ask an administrator."
    if account.kind == "canary":
        return None if door == "native" else f"The account {name} belongs to the self-check."
    if is_expired(account):
        when = f" on {account.expires.isoformat()}" if account.expires else ""
        return f"The account {name} expired{when}; please ask an administrator."
    if account.locked:
        return f"The account {name} is locked; please ask an administrator."
    if account.door != door:
        if account.door not in hub.doors:
            return f"The account {name} cannot be used on this hub; please ask an administrator."
        is_not, is_one = (with_article(title(which, hub)) for which in (door, account.door))
        return f"{name} is not {is_not} but {is_one}; please sign in as such."
    return None


def with_article(words: str) -> str:
    """Put "a" or "an" before what people call a door."""
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words}"
