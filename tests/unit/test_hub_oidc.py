"""What is made of what an OpenID Connect provider says. Log-ins through a real one are tested on a host."""

from typing import Any

import pytest

from labstead.hub.doors import NotIn
from labstead.hub.oidc import Addresses, arrival_of, name_of
from labstead.settings import Oidc

ISSUER = "https://id.example.org/realm"
CLAIMS = {"sub": "17", "preferred_username": "anna", "name": "Anna A", "email": "anna@example.org"}


def oidc(**changes: Any) -> Oidc:
    return Oidc.model_validate({"issuer": ISSUER, "client_id": "hub", **changes})


def test_somebody_is_bound_to_issuer_and_subject() -> None:
    arrival = arrival_of(CLAIMS, oidc(issuer=ISSUER + "/"))
    assert (arrival.name, arrival.subject) == ("anna", f"{ISSUER} 17")
    assert (arrival.full_name, arrival.email) == ("Anna A", "anna@example.org")


@pytest.mark.parametrize(
    ("full_name", "kept"),
    [("Anna: A,b=c", "Anna Abc"), ("Anna\nroot:x:0", "Annarootx0"), ("Änne Ö", "Änne Ö"), (7, ""), (None, "")],
)
def test_a_full_name_is_safe_for_the_passwd_file(full_name: object, kept: str) -> None:
    assert arrival_of({**CLAIMS, "name": full_name}, oidc()).full_name == kept


def test_an_address_that_is_none_is_left_out() -> None:
    assert arrival_of({**CLAIMS, "email": "anna@x, root@y"}, oidc()).email == ""


@pytest.mark.parametrize("subject", [None, "", 17, "x" * 600])
def test_nobody_comes_in_without_a_subject(subject: object) -> None:
    with pytest.raises(NotIn, match="who you are"):
        arrival_of({**CLAIMS, "sub": subject}, oidc())


@pytest.mark.parametrize(
    ("settings", "claims", "name"),
    [
        ({}, {"preferred_username": "anna"}, "anna"),
        ({}, {"preferred_username": "Anna"}, "anna"),
        ({"username_claim": "uid"}, {"preferred_username": "x", "uid": "anna"}, "anna"),
        ({"username_claim": "unix.name"}, {"unix": {"name": "anna"}}, "anna"),
        ({"username_claim": "https://x.org/name"}, {"https://x.org/name": "anna"}, "anna"),
        ({"username_claim": "email", "username_domain": "example.org"}, {"email": "Anna@Example.org"}, "anna"),
        ({"username_claim": "email", "username_domain": "@example.org"}, {"email": "anna@example.org"}, "anna"),
    ],
)
def test_the_name_is_mapped(settings: dict[str, Any], claims: dict[str, Any], name: str) -> None:
    assert name_of(claims, oidc(**settings)) == name


@pytest.mark.parametrize(
    ("settings", "claims", "words"),
    [
        ({}, {}, "your username"),
        ({}, {"preferred_username": ["anna"]}, "your username"),
        ({}, {"preferred_username": ""}, "your username"),
        ({}, {"preferred_username": "x" * 300}, "more than"),
        ({}, {"preferred_username": "\u212aim"}, "other than a-z"),  # the sign for Kelvin: a small one is k
        ({"username_domain": "example.org"}, {"preferred_username": "a\u00f1a@example.org"}, "other than a-z"),
        ({"username_domain": "example.org"}, {"preferred_username": "anna"}, "Only accounts of example.org"),
        ({"username_domain": "example.org"}, {"preferred_username": "anna@evil.org"}, "Only accounts of"),
        ({"username_domain": "example.org"}, {"preferred_username": "a@b.example.org"}, "Only accounts of"),
        ({"username_claim": "email"}, {"email": "a@example.org", "email_verified": False}, "not verified"),
        ({"username_claim": "email"}, {"email": "a@example.org", "email_verified": "false"}, "not verified"),
    ],
)
def test_what_does_not_map_is_refused(settings: dict[str, Any], claims: dict[str, Any], words: str) -> None:
    with pytest.raises(NotIn, match=words):
        name_of(claims, oidc(**settings))


@pytest.mark.parametrize("name", ["root", "a/b", "../x", "a b", "-rf"])
def test_names_are_left_to_the_accounts_service(name: str) -> None:
    """It refuses what nobody may have; nothing here makes one of these into something else."""
    assert name_of({"preferred_username": name}, oidc()) == name


@pytest.mark.parametrize("groups", [["lab", "x"], "lab x", "lab"])
def test_members_of_an_allowed_group_come_in(groups: object) -> None:
    assert arrival_of({**CLAIMS, "groups": groups}, oidc(allowed_groups=("lab", "other"))).name == "anna"


@pytest.mark.parametrize("groups", [None, [], "", ["labs"], "lab-x", {"lab": True}, [["lab"]], 7])
def test_others_do_not(groups: object) -> None:
    with pytest.raises(NotIn, match="none of the groups"):
        arrival_of({**CLAIMS, "groups": groups}, oidc(allowed_groups=("lab",)))


def test_groups_may_be_in_a_nested_claim() -> None:
    settings = oidc(groups_claim="realm_access.roles", allowed_groups=("lab",))
    assert arrival_of({**CLAIMS, "realm_access": {"roles": ["lab"]}}, settings).name == "anna"


def test_addresses_are_taken_as_they_are() -> None:
    """A slash at the end belongs to an address."""
    found = Addresses.model_validate(
        {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize/",
            "token_endpoint": f"{ISSUER}/token/",
            "userinfo_endpoint": f"{ISSUER}/userinfo/",
        }
    )
    assert found.token_endpoint.endswith("/token/")
    assert found.token_endpoint_auth_methods_supported == ("client_secret_basic",)


@pytest.mark.parametrize("address", ["javascript:alert(1)", "", None])
def test_an_address_that_is_none_is_refused(address: object) -> None:
    good = f"{ISSUER}/x"
    words = {"issuer": ISSUER, "authorization_endpoint": address, "token_endpoint": good, "userinfo_endpoint": good}
    with pytest.raises(ValueError, match="authorization_endpoint"):
        Addresses.model_validate(words)
