"""Settings files: right as a whole or refused as a whole."""

from typing import Any

import pytest
import yaml

from labstead.errors import BadInput
from labstead.settings import KINDS, Hub, Sessions, parse, parse_size

GOOD: dict[str, dict[str, Any]] = {
    "accounts": {"uid_min": 20000, "uid_max": 29999},
    "sessions": {"images": [{"name": "base", "title": "Base", "reference": "labstead/base:1"}]},
    "hub": {"url": "https://hub.example.org", "address": "172.31.240.1", "admins": ["carla"]},
    "people": {"users": [{"name": "anna", "expires": "2027-03-31"}], "groups": [{"name": "ocean", "quota": "5G"}]},
}
OIDC = {"issuer": "https://id.example.org", "client_id": "hub"}


def problems(kind: str, **changes: object) -> list[str]:
    with pytest.raises(BadInput) as caught:
        parse(KINDS[kind], yaml.safe_dump(GOOD[kind] | changes), f"{kind}.yml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_good_settings_are_read(kind: str) -> None:
    parse(KINDS[kind], yaml.safe_dump(GOOD[kind]), "x")


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("512M", 536870912),
        ("4G", 4294967296),
        ("1T", 1099511627776),
        ("7", 7),
        (4096, 4096),
        ("8388607T", 2**63 - 2**40),
    ],
)
def test_sizes_are_powers_of_1024(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["5 apples", "", "G", "-1G", "1.5G", "4GB", "0", 0, -3, True, None, [1], "٠٠", "٤G"])
def test_a_size_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size; write a number and K, M, G or T"):
        parse_size(value)


@pytest.mark.parametrize("value", ["8388608T", "9223372036854775807", 2**63 - 1, "9" * 5000])
def test_a_size_that_no_limit_can_be_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is too large a size; the largest is 8388607T"):
        parse_size(value)


@pytest.mark.parametrize(
    ("kind", "changes", "line"),
    [
        ("accounts", {"uid_mim": 3}, "accounts.yml: uid_mim: unknown key; did you mean uid_min?"),
        ("hub", {"admin": ["x"]}, "hub.yml: admin: unknown key; did you mean admins?"),
        ("sessions", {"memry": "4G"}, "sessions.yml: memry: unknown key; did you mean memory?"),
        (
            "sessions",
            {"images": [{"name": "a", "title": "A", "reference": "r", "titel": "B"}]},
            "sessions.yml: images.0.titel: unknown key; did you mean title?",
        ),
        (
            "people",
            {"groups": [{"name": "ocean"}, {"name": "ice", "membres": ["anna"]}]},
            "people.yml: groups.1.membres: unknown key; did you mean members?",
        ),
        (
            "hub",
            {"doors": ["oidc"], "oidc": {**OIDC, "tilte": "x"}},
            "hub.yml: oidc.tilte: unknown key; did you mean title?",
        ),
        ("accounts", {"frobnicate": 3}, "accounts.yml: frobnicate: unknown key; remove it"),
    ],
)
def test_a_misspelt_key_at_any_level_is_refused_with_a_hint(kind: str, changes: dict[str, Any], line: str) -> None:
    assert problems(kind, **changes) == [line]


@pytest.mark.parametrize("doors", [["native"], ["pam"], ["pam", "native"], ["native", "pam"]])
def test_native_may_stand_beside_another_door(doors: list[str]) -> None:
    assert parse(Hub, yaml.safe_dump(GOOD["hub"] | {"doors": doors}), "x").doors == tuple(doors)


def test_each_mistake_has_a_line() -> None:
    found = problems("hub", url="hub.example.org", port=0, admins=[])
    assert len(found) == 3
    assert all(line.startswith("hub.yml: ") for line in found)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("accounts", {"uid_min": 500}, "uid_min"),
        ("accounts", {"uid_min": 3000, "uid_max": 2000}, "uid_max 2000 is below uid_min 3000"),
        ("accounts", {"home_root": "home"}, "not an absolute path"),
        ("accounts", {"home_root": "/home/../etc"}, "not an absolute path"),
        ("accounts", {"scratch_root": "/scratch*"}, "has '*' in it"),
        ("accounts", {"scratch_root": '/scratch"'}, "has '\"' in it"),
        ("sessions", {"home_root": "/my home"}, "has ' ' in it"),
        ("sessions", {"images": []}, "images"),
        ("sessions", {"memory": "5 apples"}, "memory: '5 apples' is not a size"),
        ("sessions", {"cpus": 0}, "cpus"),
        ("hub", {"admins": ["root"]}, "The username root is reserved"),
        ("hub", {"address": "hub"}, "address"),
        ("hub", {"signup": "open"}, "signup"),
        ("hub", {"base_url": "hub"}, "base_url"),
        ("hub", {"doors": []}, "doors"),
        ("hub", {"doors": ["ldap"]}, "doors.0"),
        ("hub", {"doors": ["pam", "oidc"], "oidc": OIDC}, "doors: give one of native, pam and oidc"),
        ("hub", {"doors": ["native", "native"]}, "doors: give one of native, pam and oidc"),
        ("hub", {"doors": ["oidc"]}, "oidc: needed with the door oidc"),
        ("hub", {"oidc": OIDC}, "oidc: needed with the door oidc, and only with it"),
        ("hub", {"doors": ["pam"], "signup": "approval"}, "signup: people can only sign up where one of the doors"),
        ("hub", {"mail": {"relay": "smtp://mx", "sender": "hub@example.org"}}, "mail.relay"),
        ("people", {"users": [{"name": "anna"}, {"name": "anna"}]}, "users: anna stands there more than once"),
        ("people", {"users": [{"name": "anna", "expires": "soon"}]}, "users.0.expires"),
        ("people", {"users": [{"name": "anna", "full_name": "An:na"}]}, "users.0.full_name"),
        ("people", {"groups": [{"name": "ocean", "quota": "5 apples"}]}, "groups.0.quota: '5 apples' is not a size"),
        (
            "people",
            {"groups": [{"name": "ocean", "quota": "8388608T"}]},
            "groups.0.quota: 8388608T is too large a size",
        ),
    ],
)
def test_a_wrong_value_is_refused(kind: str, changes: dict[str, Any], words: str) -> None:
    (line,) = problems(kind, **changes)
    assert words in line


@pytest.mark.parametrize(("text", "words"), [("a: [", "not YAML"), ("- a", "expected `key: value`"), ("", "expected")])
def test_a_file_that_is_no_mapping_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(Hub, text, "hub.yml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_allowed_images_are_found() -> None:
    sessions = parse(Sessions, yaml.safe_dump(GOOD["sessions"]), "x")
    assert sessions.image("labstead/base:1").name == "base"
    with pytest.raises(BadInput, match="not one of the allowed images"):
        sessions.image("alpine")
