"""What the check of the settings accepts and refuses, and how it says so."""

import importlib.util
import time
from collections.abc import Mapping
from datetime import date, datetime
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
        (
            {"accounts_users": [{"name": "anna", "expire": "2027-09-30"}]},
            "accounts_users[1].expire: unknown key; did you mean expires?",
        ),
        (
            {"accounts_groups": [{"name": "ocean", "member": ["anna"]}]},
            "accounts_groups[1].member: unknown key; did you mean members?",
        ),
        ({"hub_oidc_client": "x"}, "hub_oidc_client: unknown setting; did you mean hub_oidc_client_id?"),
    ],
)
def test_a_misspelt_name_is_refused_on_each_level(variables: dict[str, Any], line: str) -> None:
    assert problems(variables) == [line]


_FILE = {"file": "/srv/homes.img", "size": "20G", "filesystem": "xfs", "holds": ["home"]}
_DEVICE = {"device": "/dev/sdb", "filesystem": "xfs", "holds": ["group", "scratch"]}


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"storage_disks": [_FILE, _DEVICE]}, None),
        ({"storage_home_quota": "none", "storage_scratch_quota": "1T", "storage_home_files": 0}, None),
        (
            {"storage_home_quota": "5 apples"},
            "storage_home_quota: '5 apples' is not a size; write a number and K, M, G or T, such as 4G, or none for no "
            "limit",
        ),
        (
            {"storage_home_files": "many"},
            "storage_home_files: 'many' is not a whole number; write it without quotes, such as 0",
        ),
        (
            {"accounts_users": [{"name": "anna", "quota": "5 apples"}]},
            "accounts_users[1].quota: '5 apples' is not a size; write a number and K, M, G or T, such as 4G, or none "
            "for no limit",
        ),
        (
            {"accounts_groups": [{"name": "ocean", "home_files": "5 apples"}]},
            "accounts_groups[1].home_files: '5 apples' is not a number of files; write one such as 100000, or none for "
            "no limit",
        ),
        ({"sessions_memory": "٤G"}, "sessions_memory: '٤G' is not a size; write a number and K, M, G or T, such as 4G"),
        ({"storage_home_quota": "8388607T", "storage_home_files": 2**63 - 1}, None),
        (
            {"storage_home_quota": "8388608T"},
            "storage_home_quota: '8388608T' is too large; the largest is 8388607T, or none for no limit",
        ),
        (
            {"sessions_tmp_size": "99999999999T"},
            "sessions_tmp_size: '99999999999T' is too large; the largest is 8388607T",
        ),
        (
            {"accounts_users": [{"name": "anna", "quota": 2**63}]},
            "accounts_users[1].quota: 9223372036854775808 is too large; the largest is 8388607T",
        ),
        (
            {"accounts_users": [{"name": "anna", "files": 10**30}]},
            f"accounts_users[1].files: {10**30} are too many files; the most are 9223372036854775807",
        ),
        (
            {"storage_home_files": 2**63},
            "storage_home_files: 9223372036854775808 is out of range; it has to be 0 to 9223372036854775807",
        ),
        ({"storage_soft_percent": 40}, "storage_soft_percent: 40 is out of range; it has to be 50 to 100"),
        ({"storage_grace_days": 0}, "storage_grace_days: 0 is out of range; it has to be 1 to 365"),
        ({"storage_scratch_days": -1}, "storage_scratch_days: -1 is out of range; it has to be 0 to 36500"),
        (
            {"storage_disks": [{**_FILE, "filesystem": "zfs"}]},
            "storage_disks[1].filesystem: 'zfs' is not one of xfs, ext4, btrfs; did you mean xfs?",
        ),
        (
            {"storage_disks": [{**_FILE, "holds": ["homes"]}]},
            "storage_disks[1].holds[1]: 'homes' is not one of home, group, scratch; did you mean home?",
        ),
        (
            {"storage_disks": [{**_FILE, "holds": []}]},
            "storage_disks[1].holds: empty; say what is on it: home, group, scratch",
        ),
        ({"storage_disks": [{**_FILE, "sise": "1G"}]}, "storage_disks[1].sise: unknown key; did you mean size?"),
        (
            {"storage_disks": [{**_DEVICE, "device": "sdb"}]},
            "storage_disks[1].device: 'sdb' is not a device; write one below /dev, such as /dev/disk/by-id/…",
        ),
        (
            {"storage_disks": [{**_FILE, "device": "/dev/sdb"}]},
            "storage_disks[1]: needs either a device or a file; give one of them",
        ),
        (
            {"storage_disks": [{"filesystem": "xfs", "holds": ["home"]}]},
            "storage_disks[1]: needs either a device or a file; give one of them",
        ),
        (
            {"storage_disks": [{**_DEVICE, "size": "1G"}]},
            "storage_disks[1].size: goes with a file, and only with that; add or remove it",
        ),
        (
            {"storage_disks": [_FILE, {**_DEVICE, "holds": ["home"]}]},
            "storage_disks[2].holds: home is on disk 1 already; keep one of them",
        ),
        (
            {"storage_disks": [_DEVICE], "storage_scratch_root": ""},
            "storage_disks[1].holds: there is no scratch without storage_scratch_root; set it",
        ),
        (
            {"storage_disks": [_FILE, {**_DEVICE, "device": "/dev/mapper/homes.img"}]},
            "storage_disks: homes.img stands there 2 times; disks and files need different names",
        ),
        (
            {"storage_scratch_root": "/data/scratch"},
            "storage_scratch_root: /data/scratch and the data root /data lie in each other; choose separate folders",
        ),
        (
            {"storage_home_root": "/srv/labstead/home"},
            "storage_home_root: '/srv/labstead/home' belongs to the system; choose a folder of its own, such as "
            "/srv/home",
        ),
        (
            {"storage_disks": [{**_FILE, "file": "/etc/homes.img"}]},
            "storage_disks[1].file: '/etc/homes.img' is not a usable file; write a path such as /srv/homes.img",
        ),
    ],
)
def test_disks_and_limits_that_cannot_be_are_refused(variables: dict[str, Any], line: str | None) -> None:
    assert problems(variables) == ([line] if line else [])


_EMBEDDED: dict[str, Any] = {"slurm_mode": "embedded"}
_EXISTING: dict[str, Any] = {"slurm_mode": "existing"}


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (_EMBEDDED | {"slurm_cpus": 4, "slurm_memory": "8G", "slurm_max_time": "36:00:00"}, None),
        (_EXISTING | {"slurm_partition": "short", "slurm_commands": "/opt/slurm/bin", "slurm_conf": "/a/b.conf"}, None),
        # Switched off, with all else left as it was.
        ({"slurm_mode": "none", "slurm_cpus": 4, "slurm_partition": "short", "slurm_images_root": "/home/x"}, None),
        (
            {"slurm_mode": "embeded"},
            "slurm_mode: 'embeded' is not one of none, embedded, existing; did you mean embedded?",
        ),
        ({"slurm_mod": "none"}, "slurm_mod: unknown setting; did you mean slurm_mode?"),
        (
            _EMBEDDED | {"slurm_partition": "short"},
            "slurm_partition: not used with slurm_mode embedded; remove it or set slurm_mode: existing",
        ),
        (
            _EXISTING | {"slurm_memory": "8G"},
            "slurm_memory: not used with slurm_mode existing, where the site's Slurm says it; remove it",
        ),
        (
            _EMBEDDED | {"slurm_max_time": "11:59:59"},
            "slurm_worker_time: 12:00:00 is longer than slurm_max_time 11:59:59; lower it or raise that",
        ),
        (_EMBEDDED | {"slurm_max_time": "0-12:00:00"}, None),
        (
            # 12:00:00 without quotes.
            {"slurm_worker_time": 43200},
            "slurm_worker_time: without quotes YAML makes a number of this time; write it in quotes, such as "
            "'12:00:00'",
        ),
        (
            {"slurm_max_time": "12 hours"},
            "slurm_max_time: '12 hours' is not a time; write hours:minutes:seconds, with days before, such as "
            "'12:00:00' or 7-00:00:00",
        ),
        (
            {"slurm_worker_time": "0:00:00"},
            "slurm_worker_time: '0:00:00' is no time at all; write one such as '12:00:00'",
        ),
        (
            {"slurm_memory": "5 apples"},
            "slurm_memory: '5 apples' is not a size; write a number and K, M, G or T, such as 4G",
        ),
        (
            {"slurm_partition": "a b"},
            "slurm_partition: 'a b' is not a name; use letters, digits, '.', '-' and '_'",
        ),
        (
            {"slurm_commands": "bin"},
            "slurm_commands: 'bin' is not a path; write an absolute one of letters, digits and any of . _ - +, such as "
            "/opt/slurm/bin",
        ),
        (
            _EMBEDDED | {"slurm_images_root": "/home/compute"},
            "slurm_images_root: /home/compute and the home root /home lie in each other; choose separate folders",
        ),
        (
            {"slurm_images_root": "/var/lib/labstead/images"},
            "slurm_images_root: '/var/lib/labstead/images' belongs to the system; choose a folder of its own, such as "
            "/srv/home",
        ),
        ({"slurm_jobs_per_user": 0}, "slurm_jobs_per_user: 0 is out of range; it has to be 1 to 10000"),
        ({"sessions_idle_hours": 24}, None),
        ({"sessions_idle_hours": 100, "sessions_idle_hours_with_jobs": 0}, None),
        (
            {"sessions_idle_hours": 100},
            "sessions_idle_hours_with_jobs: 72.0 is below sessions_idle_hours 100; raise it, or set 0",
        ),
    ],
)
def test_slurm_that_cannot_be_is_refused(variables: dict[str, Any], line: str | None) -> None:
    assert problems(variables) == ([line] if line else [])


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
        (
            {"accounts_users": ["anna"]},
            "accounts_users[1]: 'anna' is not a mapping of names to values; see the README of its role",
        ),
        (
            {"accounts_groups": [{"name": "ocean", "members": "anna"}]},
            "accounts_groups[1].members: 'anna' is not a list; write it as a list: [first, second]",
        ),
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
        (
            {"accounts_shell": "/bin/../bin/bash"},
            "accounts_shell: '/bin/../bin/bash' is not a program; write its path, such as /bin/bash",
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


def _user(**changes: Any) -> dict[str, Any]:
    return {"accounts_users": [{"name": "anna", **changes}]}


def _group(**changes: Any) -> dict[str, Any]:
    return {"accounts_groups": [{"name": "ocean", **changes}]}


NO_DATE = "is no date; write year-month-day, such as 2027-09-30"
NO_FULL_NAME = "cannot be stored with an account; write it without : , = \\ and quotes"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (_user(name="root"), "accounts_users: 'root': the username root is reserved; please choose another one"),
        (_user(name="Anna"), "accounts_users: 'Anna': a username has small letters only; choose another name"),
        ({"accounts_users": [{"email": "a@example.org"}]}, "accounts_users[1].name: missing; add it"),
        (_user(expires="next year"), f"accounts_users[1].expires: 'next year' {NO_DATE}"),
        (_user(expires="2027-02-30"), f"accounts_users[1].expires: '2027-02-30' {NO_DATE}"),
        (_user(expires=20270230), f"accounts_users[1].expires: 20270230 {NO_DATE}"),
        (_user(expires=datetime(2027, 9, 30, 12)), f"accounts_users[1].expires: 2027-09-30 12:00:00 {NO_DATE}"),
        (_user(email="anna"), "accounts_users[1].email: 'anna' is not an e-mail address"),
        (_user(full_name="Anna: Berg"), f"accounts_users[1].full_name: 'Anna: Berg' {NO_FULL_NAME}"),
        (
            {"accounts_users": [{"name": "anna"}, {"name": "anna"}]},
            "accounts_users: 'anna' stands there 2 times; keep one of them",
        ),
        (
            _group(quota="5 apples"),
            "accounts_groups[1].quota: '5 apples' is not a size; write a number and K, M, G or T, such as 4G, or none "
            "for no limit",
        ),
        (_group(name="docker"), "accounts_groups: 'docker': the name docker is reserved; please choose another one"),
        (
            {**_user(), **_group(name="anna")},
            "accounts_groups: 'anna' is a person, whose own group has that name; choose another",
        ),
        (_group(name="jane"), "accounts_groups: 'jane' is a person, whose own group has that name; choose another"),
        (_group(members=["a/b"]), "accounts_groups: ocean: members: 'a/b' is nobody's name; remove it"),
        (_group(managers=["Jane"]), "accounts_groups: ocean: managers: 'Jane' is nobody's name; remove it"),
        (
            _user(name="x y", existing=True),
            "accounts_users: 'x y': a username starts with a letter a-z and goes on with letters a-z, digits, "
            "'-' or '_'; choose another name",
        ),
        (
            _group(existing=True, members=["anna"]),
            "accounts_groups: ocean: an existing group has its own members; remove `members`",
        ),
        (
            _group(existing=True, managers=["anna"]),
            "accounts_groups: ocean: an existing group has its own members; remove `managers`",
        ),
        ({"accounts_warn_days": -1}, "accounts_warn_days: -1 is out of range; it has to be 0 to 36500"),
        (
            {"accounts_oidc_accounts": "make"},
            "accounts_oidc_accounts: 'make' is not one of create, existing; choose one of them",
        ),
    ],
)
def test_people_and_groups_that_cannot_be_are_refused(variables: dict[str, Any], line: str) -> None:
    assert problems(variables) == [line]


@pytest.mark.parametrize(
    "variables",
    [
        _user(expires=date(2027, 9, 30)),
        _user(expires=None),
        _user(expires="2027-09-30", full_name="Änne O'Berg-Å", email="anna@example.org", existing=True),
        _group(members=["anna", "bert"], managers=["carla"], quota="500G"),
        _group(existing=True, quota="1T"),
        _group(name="data", existing=True),
        _user(name="debian", existing=True),
    ],
)
def test_people_and_groups_are_accepted(variables: dict[str, Any]) -> None:
    assert problems(variables) == []


def test_the_check_takes_no_longer_for_each_person_where_there_are_many() -> None:
    def seconds(people: int) -> float:
        users = [{"name": f"person{number}", "expires": "2027-09-30"} for number in range(people)]
        groups = [{"name": f"group{number}", "members": [user["name"] for user in users[:20]]} for number in range(200)]
        variables = {"accounts_users": users, "accounts_groups": groups}
        start = time.process_time()
        assert problems(variables) == []
        return time.process_time() - start

    # 10 times the people take less than 10 times as long; 100 times, where each is compared with each.
    assert min(seconds(5000) for _ in range(3)) < 40 * min(seconds(500) for _ in range(3))


OIDC = {
    "hub_doors": ["oidc"],
    "hub_oidc_issuer": "https://login.example.org/realms/institute",
    "hub_oidc_client_id": "labstead",
    "hub_oidc_client_secret": "canary",
}
MAIL = {"hub_mail_relay": "mail.example.org", "hub_mail_sender": "hub@example.org"}
DOOR_SETS = "give native, pam or oidc, or native with one of the others"


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"hub_doors": ["ldap"]}, "hub_doors[1]: 'ldap' is not one of native, pam, oidc; choose one of them"),
        ({"hub_doors": ["pma"]}, "hub_doors[1]: 'pma' is not one of native, pam, oidc; did you mean pam?"),
        ({"hub_doors": []}, f"hub_doors: [] does not work; {DOOR_SETS}"),
        ({"hub_doors": ["pam", "pam"]}, f"hub_doors: [pam, pam] does not work; {DOOR_SETS}"),
        ({**OIDC, "hub_doors": ["pam", "oidc"]}, f"hub_doors: [pam, oidc] does not work; {DOOR_SETS}"),
        (
            {"hub_doors": ["pam"], "hub_signup": "approval"},
            "hub_signup: nobody can sign up without the door native; add it to hub_doors or set closed",
        ),
        ({**OIDC, "hub_oidc_issuer": ""}, "hub_oidc_issuer: missing; the door oidc needs it"),
        ({**OIDC, "hub_oidc_client_secret": ""}, "hub_oidc_client_secret: missing; the door oidc needs it"),
        (
            {"hub_oidc_client_id": "labstead"},
            "hub_oidc_client_id: not used without the door oidc; remove it or add oidc to hub_doors",
        ),
        (
            {**OIDC, "hub_oidc_issuer": "login.example.org"},
            "hub_oidc_issuer: 'login.example.org' is not a web address; "
            "write one such as https://login.example.org/realms/institute",
        ),
        (
            {**OIDC, "hub_oidc_issuer": "https://a.org/.well-known/openid-configuration"},
            "hub_oidc_issuer: 'https://a.org/.well-known/openid-configuration' is the address of its description; "
            "write it without /.well-known/openid-configuration",
        ),
        (
            {**OIDC, "hub_oidc_scopes": ["email"]},
            "hub_oidc_scopes: has no openid, without which a provider tells nobody's name; add it",
        ),
        (
            {**OIDC, "hub_oidc_username_domain": "@example.org"},
            "hub_oidc_username_domain: '@example.org' is not a domain; "
            "write what stands behind the @ in small letters, such as example.org",
        ),
        (
            {"hub_mail_relay": "smtp://mail.example.org"},
            "hub_mail_relay: 'smtp://mail.example.org' is not a host name; "
            "write it without port, such as mail.example.org",
        ),
        ({**MAIL, "hub_mail_sender": ""}, "hub_mail_sender: missing; mail needs an address that it comes from"),
        (
            {"hub_mail_admins": ["it@example.org"]},
            "hub_mail_admins: not used without hub_mail_relay; remove it or name the relay",
        ),
        ({**MAIL, "hub_mail_admins": ["it"]}, "hub_mail_admins[1]: 'it' is not an e-mail address"),
        (
            {**MAIL, "hub_mail_user": "hub", "hub_mail_password": "canary"},
            "hub_mail_security: none would send the password where others can read it; choose starttls or tls",
        ),
        (
            {**MAIL, "hub_mail_password": "canary"},
            "hub_mail_password: hub_mail_user and hub_mail_password go together; set both or none",
        ),
        ({"hub_invitation_days": 0}, "hub_invitation_days: 0 is out of range; it has to be 1 to 90"),
    ],
)
def test_doors_and_mail_that_would_not_work_are_refused(variables: dict[str, Any], line: str) -> None:
    assert problems(variables) == [line]


@pytest.mark.parametrize(
    "variables",
    [
        {"hub_doors": ["pam"]},
        {"hub_doors": ["pam", "native"], "hub_signup": "approval"},
        OIDC,
        {**OIDC, "hub_doors": ["oidc", "native"], "hub_signup": "approval", "hub_oidc_username_domain": "example.org"},
        MAIL,
        {**MAIL, "hub_mail_security": "tls", "hub_mail_user": "hub", "hub_mail_password": 'with " and \\'},
    ],
)
def test_doors_and_mail_that_work_are_accepted(variables: dict[str, Any]) -> None:
    assert problems(variables) == []


@pytest.mark.parametrize("name", ["hub_oidc_client_secret", "hub_mail_password"])
@pytest.mark.parametrize("value", ["canary\n", ["canary"], {"canary": 1}])
def test_a_secret_that_is_refused_is_not_shown(name: str, value: Any) -> None:
    lines = problems({**OIDC, **MAIL, "hub_mail_security": "tls", "hub_mail_user": "hub", name: value})
    assert any(line.startswith(f"{name}: the value ") for line in lines)
    assert "canary" not in "".join(lines)


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"storage_home_root": "/srv/home", "storage_group_root": "/home/groups"},
            "storage_group_root: '/home/groups' lies below /home, which the services do not see; "
            "choose a folder such as /srv/groups",
        ),
        (
            {"storage_group_root": "/home"},
            "storage_group_root: /home and the home root /home lie in each other; choose separate folders",
        ),
        (
            {"storage_data_root": "/groups/data"},
            "storage_group_root: /groups and the data root /groups/data lie in each other; choose separate folders",
        ),
        (
            {"storage_archive_root": "/home/archive"},
            "storage_archive_root: /home/archive and the home root /home lie in each other; choose separate folders",
        ),
    ],
)
def test_folders_do_not_lie_in_each_other(variables: dict[str, Any], line: str) -> None:
    assert problems(variables) == [line]


@pytest.mark.parametrize("name", [f"storage_{kind}_root" for kind in ("home", "data", "group", "archive", "scratch")])
@pytest.mark.parametrize("letter", [*" *?[]{}\"'\\$%:,;#", "\n"])
def test_a_folder_that_would_mean_something_else_in_fstab_or_units_is_refused(name: str, letter: str) -> None:
    folder = f"/srv/a{letter}b"
    assert problems({name: folder}) == [
        f"{name}: {folder!r} is not a usable folder; write a path of letters, digits and any of . _ - +, such as /home"
    ]


@pytest.mark.parametrize("folder", ["/var/lib/labstead/archive", "/srv/archive", "/mnt/tape"])
def test_archives_may_lie_beside_the_state(folder: str) -> None:
    assert problems({"storage_archive_root": folder}) == []


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("all:\n  vars:\n    day: 2027-02-30\n", "day is out of range"),
        ("all: [", "not YAML"),
        ("a: b\n c: d\n", "line 2"),
    ],
)
def test_an_inventory_that_cannot_be_read_is_told_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "site.yml"
    file.write_text(text, encoding="utf-8")
    (line,) = checks.source_problems([str(file), "host,", str(tmp_path / "none.yml")])
    assert line.startswith(f"{file}: not YAML: ")
    assert words in line
    assert "\n" not in line


def test_an_inventory_with_a_vaulted_secret_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "site.yml"
    file.write_text(
        "all:\n  vars:\n    secret: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      00\n", encoding="utf-8"
    )
    assert list(checks.source_problems([str(file)])) == []
