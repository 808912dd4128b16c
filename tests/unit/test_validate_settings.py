"""What the check of the settings accepts and refuses, and how it says so."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> Any:
    path = ROOT / "ansible" / "action_plugins" / "validate_settings.py"
    spec = importlib.util.spec_from_file_location("validate_settings", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checks = _load()
SPECS = checks.load_specs(ROOT / "roles")
LEAST = {"hub_admins": ["jane"], "proxy_hostname": "hub.example.org"}


def problems(variables: Mapping[str, Any], files: tuple[str, ...] = ()) -> list[str]:
    """Give the lines that somebody with these variables, beside the two that are required, would read."""
    found = checks.problems_of({**LEAST, **variables}, SPECS, lambda file: file in files)
    return [f"{name}: {problem}" for name, problem in found]


def test_the_two_required_settings_are_enough() -> None:
    assert problems({}) == []


def test_missing_settings_are_named_with_what_they_are_for() -> None:
    found = checks.problems_of({}, SPECS, lambda _: True)
    assert [name for name, _ in found] == ["hub_admins", "proxy_hostname"]
    assert found[0][1] == "missing; set it: names of the administrators, who approve people"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"hub_admin": ["jane"]}, "hub_admin: unknown setting; did you mean hub_admins?"),
        ({"hubs_admins": ["jane"]}, "hubs_admins: unknown setting; did you mean hub_admins?"),
        ({"session_memory": "4G"}, "session_memory: unknown setting; did you mean sessions_memory?"),
        ({"proxy_zzz": 1}, "proxy_zzz: unknown setting; roles/proxy/README.md lists what there is"),
        (
            {"sessions_images": [{"name": "a", "titel": "A", "title": "A", "reference": "a:1"}]},
            "sessions_images[1].titel: unknown key; did you mean title?",
        ),
    ],
)
def test_a_misspelt_name_is_refused_on_each_level(variables: dict[str, Any], line: str) -> None:
    assert problems(variables) == [line]


@pytest.mark.parametrize("name", ["timezone", "ansible_user", "_hub_own", "monitoring_password"])
def test_the_sites_own_variables_are_left_alone(name: str) -> None:
    assert problems({name: 1}) == []


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"hub_admins": "jane"}, "hub_admins: 'jane' is not a list; write it as a list: [first, second]"),
        (
            {"sessions_pids": "1024"},
            "sessions_pids: '1024' is not a whole number; write it without quotes, such as 1024",
        ),
        ({"sessions_pids": True}, "sessions_pids: True is not a whole number; write it without quotes, such as 1024"),
        (
            {"selfcheck_enabled": "yes"},
            "selfcheck_enabled: 'yes' is not true or false; write it without quotes, such as true",
        ),
        ({"hub_title": 5}, "hub_title: 5 is not a text; write it in quotes"),
        (
            {"hub_title": None},
            "hub_title: empty; write a text, or remove the line to take the default, where it has one",
        ),
        (
            {"docker_daemon_settings": []},
            "docker_daemon_settings: [] is not a mapping of names to values; see the README of its role",
        ),
        ({"hub_admins": ["jane", 5]}, "hub_admins[2]: 5 is not a text; write it in quotes"),
    ],
)
def test_a_wrong_type_is_refused(variables: dict[str, Any], line: str) -> None:
    assert problems(variables) == [line]


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"sessions_memory": "5 apples"},
            "sessions_memory: '5 apples' is not a size; write a number and K, M, G or T, such as 4G",
        ),
        ({"sessions_memory": "0G"}, "sessions_memory: '0G' is not a size; write a number and K, M, G or T, such as 4G"),
        (
            {"sessions_memory": "4GB"},
            "sessions_memory: '4GB' is not a size; write a number and K, M, G or T, such as 4G",
        ),
        (
            {"proxy_upload_limit": "1T"},
            "proxy_upload_limit: '1T' is not a size; write a number and K, M or G, such as 2G",
        ),
        ({"sessions_cpus": 0}, "sessions_cpus: 0 is too small; it has to be more than 0"),
        ({"sessions_cpus": -1.5}, "sessions_cpus: -1.5 is too small; it has to be more than 0"),
        ({"hub_password_minimum_length": 6}, "hub_password_minimum_length: 6 is out of range; it has to be 8 to 64"),
        (
            {"proxy_login_rate": "fast"},
            "proxy_login_rate: 'fast' is not a rate; write requests a second or minute: 60r/m",
        ),
        (
            {"proxy_tls": "selfsigned"},
            "proxy_tls: 'selfsigned' is not one of self-signed, provided, acme; did you mean self-signed?",
        ),
        ({"hub_signup": "open"}, "hub_signup: 'open' is not one of approval, closed; choose one of them"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(variables: dict[str, Any], line: str) -> None:
    assert problems(variables) == [line]


@pytest.mark.parametrize(
    "subnet", ["172.31.240.0/33", "172.31.240.1/20", "172.31.240.0", "hub", "8.8.0.0/16", "10.0.0.0/8", "10.1.1.0/30"]
)
def test_a_network_that_cannot_be_the_sessions_is_refused(subnet: str) -> None:
    (line,) = problems({"docker_session_subnet": subnet})
    assert line.startswith(f"docker_session_subnet: {subnet!r} ")


@pytest.mark.parametrize("subnet", ["172.31.240.0/20", "10.250.0.0/16", "192.168.7.16/28"])
def test_a_private_network_is_accepted(subnet: str) -> None:
    assert problems({"docker_session_subnet": subnet}) == []


@pytest.mark.parametrize("hostname", ["hub.example.org", "hub", "198.51.100.7", "2001:db8::7"])
def test_names_and_addresses_are_host_names(hostname: str) -> None:
    assert problems({"proxy_hostname": hostname}) == []


@pytest.mark.parametrize(
    "hostname", ["", "https://hub.example.org", "hub.example.org/", "hub_1", "Hub.example.org", "300.1.1.1"]
)
def test_what_is_no_host_name_is_refused(hostname: str) -> None:
    (line,) = problems({"proxy_hostname": hostname})
    assert line.startswith(f"proxy_hostname: {hostname!r} is not a host name")


def test_a_hub_without_admin_is_refused() -> None:
    assert problems({"hub_admins": []}) == ["hub_admins: no admin, so nobody could approve anybody; name at least one"]


@pytest.mark.parametrize(
    ("admin", "reason"),
    [
        ("admin", "the username admin is reserved; please choose another one"),
        ("root", "the username root is reserved; please choose another one"),
        ("desk", "the username desk is reserved; please choose another one"),
        ("Jane", "a username has small letters only; choose another name"),
        ("", "please choose a username; choose another name"),
    ],
)
def test_an_admin_needs_a_name_that_a_person_may_have(admin: str, reason: str) -> None:
    assert problems({"hub_admins": [admin], "accounts_reserved_names": ["desk"]}) == [
        f"hub_admins: {admin!r}: {reason}"
    ]


def test_a_provided_certificate_has_to_be_there() -> None:
    missing = "missing; proxy_tls provided needs a PEM file of the machine Ansible runs on"
    assert problems({"proxy_tls": "provided"}) == [f"proxy_certificate: {missing}", f"proxy_certificate_key: {missing}"]
    files = {"proxy_tls": "provided", "proxy_certificate": "/a.pem", "proxy_certificate_key": "/a.key"}
    absent = "is not a file here; give a PEM file of the machine Ansible runs on"
    assert problems(files, files=("/a.pem",)) == [f"proxy_certificate_key: /a.key {absent}"]
    assert problems(files, files=("/a.pem", "/a.key")) == []


def test_a_certificate_that_would_not_be_used_is_refused() -> None:
    (line,) = problems({"proxy_certificate": "/a.pem"}, files=("/a.pem",))
    assert line == "proxy_certificate: not used with proxy_tls self-signed; remove it or set proxy_tls: provided"


def test_acme_needs_an_address_to_write_to_and_a_public_name() -> None:
    lines = problems({"proxy_tls": "acme", "proxy_hostname": "198.51.100.7"})
    assert [line.split(":")[0] for line in lines] == ["proxy_acme_email", "proxy_hostname"]
    assert problems({"proxy_tls": "acme", "proxy_acme_email": "it@example.org"}) == []


def test_a_registry_image_needs_its_digest() -> None:
    reference = f"docker.io/library/debian@sha256:{'0' * 64}"
    assert problems({"images_debian_source": "registry", "images_debian_reference": reference}) == []
    assert len(problems({"images_debian_source": "registry"})) == 1
    assert len(problems({"images_debian_source": "registry", "images_debian_reference": "debian:trixie"})) == 1


@pytest.mark.parametrize(
    "variables",
    [
        {"accounts_uid_min": 3000, "accounts_uid_max": 2000},
        {"images_build": []},
        {"images_build": ["nosuch"]},
        {"site_ca_certificates": ["/nosuch.crt"]},
        {"storage_home_root": "/data/home"},
        {"storage_home_root": "home"},
        {"storage_data_root": "/"},
        {"sessions_environment": {"A B": "c"}},
        {"site_http_proxy": "proxy:3128"},
    ],
)
def test_what_does_not_fit_together_is_one_line(variables: dict[str, Any]) -> None:
    (line,) = problems(variables)
    assert "; " in line
    assert "\n" not in line


PROXY_WITH_PASSWORD = (
    "the address has a user or a password, which everybody on the machine could read; use a proxy that asks for none"
)
NO_PROXY_ADDRESS = "is not a web address; write one such as http://proxy.example.org:3128"


@pytest.mark.parametrize("name", ["site_http_proxy", "site_https_proxy"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("http://jane:canary@proxy.example.org:3128", PROXY_WITH_PASSWORD),
        ("http://jane@proxy.example.org:3128", PROXY_WITH_PASSWORD),
        ("jane:canary%40@proxy", PROXY_WITH_PASSWORD),
        (
            "http://proxy%2e:3128",
            "'http://proxy%2e:3128' has a %, which systemd reads as the start of something else; "
            "write the address without",
        ),
        (
            'http://proxy:3128/"',
            "'http://proxy:3128/\"' has quotes or the like; write an address such as http://proxy.example.org:3128",
        ),
        ("proxy:3128", f"'proxy:3128' {NO_PROXY_ADDRESS}"),
        ("http://[::1", f"'http://[::1' {NO_PROXY_ADDRESS}"),
        ("http://proxy:99999", f"'http://proxy:99999' {NO_PROXY_ADDRESS}"),
    ],
)
def test_a_proxy_is_an_address_without_secrets(name: str, value: str, problem: str) -> None:
    (line,) = problems({name: value})
    assert line == f"{name}: {problem}"
    assert "canary" not in line


@pytest.mark.parametrize("value", ["", "http://proxy.example.org:3128", "http://proxy", "http://[2001:db8::7]:3128/"])
def test_the_address_of_a_proxy_is_accepted(value: str) -> None:
    assert problems({"site_http_proxy": value, "site_https_proxy": value}) == []


def _image(**changes: str) -> dict[str, Any]:
    return {"sessions_images": [{"name": "pangeo", "title": "Pangeo", "reference": "pangeo/notebook:1", **changes}]}


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            _image(name="Pangeo"),
            "sessions_images[1].name: 'Pangeo' is not a name; use small letters, digits and '-', "
            "beginning with a letter",
        ),
        (
            _image(name="1pangeo"),
            "sessions_images[1].name: '1pangeo' is not a name; use small letters, digits and '-', "
            "beginning with a letter",
        ),
        (
            _image(title=""),
            "sessions_images[1].title: '' is empty or has control characters; write a short name",
        ),
        (
            _image(reference=""),
            "sessions_images[1].reference: '' is no image; write what Docker knows it by, "
            "such as quay.io/pangeo/pangeo-notebook@sha256:…",
        ),
        (
            {"sessions_environment": {"THREADS": 4}},
            "sessions_environment: THREADS: 4 is not a text; write it in quotes",
        ),
        (
            {"sessions_environment": {"DEBUG": True}},
            "sessions_environment: DEBUG: True is not a text; write it in quotes",
        ),
        (
            {"docker_daemon_settings": {"live-restore": False}},
            "docker_daemon_settings: live-restore has to be true, as sessions outlive restarts of Docker; remove it",
        ),
        (
            {"accounts_shell": "/usr/sbin/nologin"},
            "accounts_shell: '/usr/sbin/nologin' lets nobody in, but sessions run it; write a shell, such as /bin/bash",
        ),
        (
            {"accounts_shell": "/bin/false"},
            "accounts_shell: '/bin/false' lets nobody in, but sessions run it; write a shell, such as /bin/bash",
        ),
        ({"accounts_shell": "bash"}, "accounts_shell: 'bash' is not a program; write its path, such as /bin/bash"),
        (
            {"accounts_uid_max": 60001},
            "accounts_uid_max: 60001 is out of range; it has to be 1000 to 60000, "
            "as Debian and systemd use those below and above",
        ),
        (
            {"accounts_uid_min": 999},
            "accounts_uid_min: 999 is out of range; it has to be 1000 to 60000, "
            "as Debian and systemd use those below and above",
        ),
        (
            {"images_debian_release": "bookworm"},
            "images_debian_release: 'bookworm' is not one of trixie; choose one of them",
        ),
        (
            {"proxy_hostname": "2001:DB8::7"},
            "proxy_hostname: '2001:DB8::7' is not how browsers write this address; write 2001:db8::7",
        ),
        (
            {"proxy_hostname": "2001:db8:0::7"},
            "proxy_hostname: '2001:db8:0::7' is not how browsers write this address; write 2001:db8::7",
        ),
        (
            {"proxy_hostname": "fe80::1%eth0"},
            "proxy_hostname: 'fe80::1%eth0' is an address of one network card; write one that people can reach",
        ),
    ],
)
def test_what_would_fail_later_is_refused_at_once(variables: dict[str, Any], line: str) -> None:
    assert problems(variables) == [line]


@pytest.mark.parametrize(
    "variables",
    [
        _image(),
        _image(name="pangeo-2"),
        {"sessions_environment": {"THREADS": "4"}},
        {"docker_daemon_settings": {"live-restore": True, "mtu": 1400}},
        {"accounts_shell": "/usr/bin/zsh"},
        {"accounts_uid_max": 60000},
    ],
)
def test_what_works_is_accepted(variables: dict[str, Any]) -> None:
    assert problems(variables) == []


@pytest.mark.parametrize("name", ["storage_home_root", "storage_data_root"])
@pytest.mark.parametrize(
    "folder",
    [
        *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp"),
        *("/usr", "/var", "/etc/", "/etc/home", "/usr/local/home", "/./etc", "/opt/labstead/home", "/var/lib/docker/x"),
    ],
)
def test_a_folder_of_the_system_holds_no_homes_and_no_data(name: str, folder: str) -> None:
    belongs = f"{name}: {folder!r} belongs to the system; choose a folder of its own, such as /srv/home"
    assert problems({name: folder}) == [belongs]


@pytest.mark.parametrize("name", ["storage_home_root", "storage_data_root"])
@pytest.mark.parametrize("folder", ["/srv/home", "/opt/site", "/var/site", "/etcetera", "/mnt/big/usr"])
def test_a_folder_of_its_own_is_accepted(name: str, folder: str) -> None:
    assert problems({name: folder}) == []


def test_all_mistakes_are_told_at_once() -> None:
    lines = problems({"hub_admins": [], "hub_tilte": "x", "sessions_memory": "lots", "proxy_hostname": "?"})
    assert [line.split(":")[0] for line in lines] == ["hub_tilte", "proxy_hostname", "sessions_memory", "hub_admins"]
