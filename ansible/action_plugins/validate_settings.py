"""Check every setting of a host before anything is changed.

The rule: all mistakes are found in one go, each told in one line that says where, what is wrong and what to do.
The checks are functions over plain data; only ActionModule knows Ansible.

What a role accepts is in its meta/argument_specs.yml. What a text has to look like (a size, a network, a path)
is in FORMATS below, what has to fit together is in `rule_problems`.
"""

from __future__ import annotations

import difflib
import importlib.util
import ipaddress
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

REPOSITORY = Path(__file__).resolve().parents[2]
OLDEST_ANSIBLE = (2, 19)

Spec = Mapping[str, Any]
Problem = tuple[str, str]
"""Setting and what is wrong with it; what to do."""

# Names that are no settings: Ansible's own, and those that a site keeps for itself with a leading underscore.
_ANSIBLE_NAMES = re.compile(
    r"_|ansible_|(ansible|environment|group_names|groups|hostvars|inventory_(dir|file|hostname|hostname_short)|"
    r"module_setup|omit|play_hosts|playbook_dir|role_(name|names|path)|vars)$"
)


# --- what texts have to look like -------------------------------------------------------------------------------


_MOST_BYTES, _MOST_FILES = 2**63 - 2**40, 2**63 - 1
"""No limit of the kernel's is larger."""
_TOO_LARGE = f"is too large; the largest is {_MOST_BYTES // 2**40}T"
_DIGITS = 30
"""How long a number may be that is looked at; Python refuses very long ones."""


def _size(value: str) -> str | None:
    match = re.fullmatch(r"([1-9][0-9]*)([KMGT]?)", value)
    if match is None:
        return "is not a size; write a number and K, M, G or T, such as 4G"
    factor = 1024 ** " KMGT".index(match[2] or " ")
    return _TOO_LARGE if len(match[1]) > _DIGITS or int(match[1]) * factor > _MOST_BYTES else None


def _size_or_none(value: str) -> str | None:
    if value == "none" or (problem := _size(value)) is None:
        return None
    return f"{problem}, or none for no limit"


def _said_size(value: object) -> str | None:
    if type(value) is int and value >= 0:
        return _TOO_LARGE if value > _MOST_BYTES else None
    return _size_or_none(value) if isinstance(value, str) else _size_or_none("")


def _said_files(value: object) -> str | None:
    if type(value) is int and value > _MOST_FILES:
        return f"are too many files; the most are {_MOST_FILES}"
    if value == "none" or (type(value) is int and value >= 0):
        return None
    return "is not a number of files; write one such as 100000, or none for no limit"


def _upload_size(value: str) -> str | None:
    # nginx knows no T.
    return (
        None if re.fullmatch(r"[1-9][0-9]*[KMG]?", value) else "is not a size; write a number and K, M or G, such as 2G"
    )


def _network(value: str) -> str | None:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        return "is not a network; write address/prefix with no host bits, such as 172.31.240.0/20"
    if not network.is_private or not 16 <= network.prefixlen <= 28:
        return "does not suit; take a private network (10/8, 172.16/12, 192.168/16) of size /16 to /28"
    return None


def _folder(value: str) -> str | None:
    path = Path(value)
    if value.startswith("//") or not path.is_absolute() or path == Path("/") or ".." in path.parts:
        return "is not a usable folder; write an absolute path, such as /home"
    # The same as in the package's settings: in units, fstab and tmpfiles.d they mean something else.
    if re.search(r"""[\s*?\[\]{}"'\\$%:,;#]""", value):
        return "is not a usable folder; write a path of letters, digits and any of . _ - +, such as /home"
    if path in _SHARED_SYSTEM_FOLDERS or any(system in (path, *path.parents) for system in _SYSTEM_FOLDERS):
        return "belongs to the system; choose a folder of its own, such as /srv/home"
    return None


_SYSTEM_FOLDERS = tuple(
    Path("/", name)
    for name in (
        *("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "root", "run", "sbin", "sys", "tmp"),
        *("usr", "opt/jupyter", "opt/labstead", "srv/labstead"),
        *("var/lib/containerd", "var/lib/docker", "var/lib/labstead"),
    )
)
"""Neither they nor anything below may hold homes or data."""
_SHARED_SYSTEM_FOLDERS = (Path("/opt"), Path("/var"), Path("/var/lib"))
"""Folders of their own below are fine."""


def _device(value: str) -> str | None:
    if re.fullmatch(r"/dev/[\w.:+/-]+", value) and ".." not in value:
        return None
    return "is not a device; write one below /dev, such as /dev/disk/by-id/…"


def _disk_file(value: str) -> str | None:
    if value.startswith("/var/lib/labstead/disks/") and ".." not in value and re.fullmatch(r"[\w./+-]+[^/]", value):
        return None
    return "is not a usable file; write a path such as /srv/homes.img" if _folder(value) else None


def _space(value: str) -> str | None:
    if value in _SPACES:
        return None
    guess = _guess(value, [*_SPACES], 0.6)
    return f"is not one of {', '.join(_SPACES)}; {f'did you mean {guess}?' if guess else 'choose one of them'}"


_SPACES = ("home", "group", "scratch")


def _shell(value: str) -> str | None:
    if not re.fullmatch(r"(/[\w.-]+)+", value) or ".." in Path(value).parts:
        return "is not a program; write its path, such as /bin/bash"
    if Path(value).name in ("nologin", "false"):
        return "lets nobody in, but sessions run it; write a shell, such as /bin/bash"
    return None


def _hostname(value: str) -> str | None:
    try:
        address = ipaddress.ip_address(value)
        if value != str(address):
            return f"is not how browsers write this address; write {address}"
        if "%" in value:
            return "is an address of one network card; write one that people can reach"
    except ValueError:
        label = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
        if len(value) > 253 or re.fullmatch(r"[\d.]+", value) or not re.fullmatch(rf"{label}(\.{label})*", value):
            return "is not a host name; write what is in people's address bar in small letters, such as hub.example.org"
    return None


def _url(value: str) -> str | None:
    try:
        address = urlsplit(value)
        # Asking for the port finds one that is none.
        if address.scheme in ("http", "https") and address.hostname and address.port != 0:
            return None if value.isprintable() and " " not in value else "has blanks; write it without"
    except ValueError:
        pass
    return "is not a web address; write one such as http://proxy.example.org:3128"


def _proxy_or_empty(value: str) -> str | None:
    if "@" in value:
        return "has a user or a password, which everybody on the machine could read; use a proxy that asks for none"
    if "%" in value:
        return "has a %, which systemd reads as the start of something else; write the address without"
    if re.search(r"[\"'\\$;,]", value):
        return "has quotes or the like; write an address such as http://proxy.example.org:3128"
    return _url(value) if value else None


def _rate(value: str) -> str | None:
    return (
        None if re.fullmatch(r"[1-9][0-9]*r/[sm]", value) else "is not a rate; write requests a second or minute: 60r/m"
    )


def _word(value: str) -> str | None:
    if re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", value):
        return None
    return "is not a name; use letters, digits, '.', '-' and '_'"


def _image_name(value: str) -> str | None:
    if re.fullmatch(r"[a-z][a-z0-9-]*", value):
        return None
    return "is not a name; use small letters, digits and '-', beginning with a letter"


def _image_reference(value: str) -> str | None:
    if value and value.isprintable() and " " not in value:
        return None
    return "is no image; write what Docker knows it by, such as quay.io/pangeo/pangeo-notebook@sha256:…"


def _digest_or_empty(value: str) -> str | None:
    if not value or re.fullmatch(r"[^\s@]+@sha256:[0-9a-f]{64}", value):
        return None
    return "names no fixed image; write it with its digest, such as docker.io/library/debian@sha256:…"


def _email(value: str) -> str | None:
    return None if re.fullmatch(r"[^\s@]+@[^\s@]+", value) else "is not an e-mail address"


def _email_or_empty(value: str) -> str | None:
    return _email(value) if value else None


def _archive_folder(value: str) -> str | None:
    return None if value == "/var/lib/labstead/archive" else _folder(value)


def _images_folder(value: str) -> str | None:
    return None if value == "/var/lib/labstead/compute" else _folder(value)


def _place_or_empty(value: str) -> str | None:
    """Check the path of what is the site's own, wherever it lies."""
    path = Path(value)
    if not value or (path.is_absolute() and ".." not in path.parts and re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", value)):
        return None
    return "is not a path; write an absolute one of letters, digits and any of . _ - +, such as /opt/slurm/bin"


def _size_or_empty(value: str) -> str | None:
    return _size(value) if value else None


def _partition_or_empty(value: str) -> str | None:
    return _word(value) if value else None


def _seconds(value: str) -> int | None:
    """Read a time of Slurm's; None where it is none."""
    match = re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,2}):([0-9]{2}):([0-9]{2})", value)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _slurm_time(value: str) -> str | None:
    if _seconds(value) is None:
        return "is not a time; write hours:minutes:seconds, with days before, such as '12:00:00' or 7-00:00:00"
    return None if _seconds(value) else "is no time at all; write one such as '12:00:00'"


def _group_folder(value: str) -> str | None:
    # systemd's ProtectHome hides it from the hub and the gate, which look which group folders there are.
    if Path("/home") in Path(value).parents:
        return "lies below /home, which the services do not see; choose a folder such as /srv/groups"
    return _folder(value)


def _scratch_folder(value: str) -> str | None:
    return _group_folder(value) if value else None


def _day(value: object) -> str | None:
    """YAML makes a date of 2027-09-30 and a text of it where it has quotes; both will do."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return None
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            date.fromisoformat(value)
            return None
    except ValueError:
        pass
    return "is no date; write year-month-day, such as 2027-09-30"


def _full_name(value: str) -> str | None:
    # What the GECOS field cannot hold, or what would end it.
    if value.isprintable() and not re.search(r'[:,=\\"]', value):
        return None
    return "cannot be stored with an account; write it without : , = \\ and quotes"


def _door(value: str) -> str | None:
    if value in _DOORS:
        return None
    guess = _guess(value, [*_DOORS], 0.6)
    return f"is not one of {', '.join(_DOORS)}; {f'did you mean {guess}?' if guess else 'choose one of them'}"


_DOORS = ("native", "pam", "oidc")


def _issuer_or_empty(value: str) -> str | None:
    if not value:
        return None
    if problem := _url(value):
        return problem.replace("http://proxy.example.org:3128", "https://login.example.org/realms/institute")
    address = urlsplit(value)
    if address.query or address.fragment or "@" in address.netloc:
        return "is more than an issuer; write what the provider calls `issuer`, without user, ? and #"
    if value.endswith("/.well-known/openid-configuration"):
        return "is the address of its description; write it without /.well-known/openid-configuration"
    return None


def _claim(value: str) -> str | None:
    return None if value and value.isprintable() and " " not in value else "is not the name of a claim or scope"


def _domain_or_empty(value: str) -> str | None:
    if not value or ("." in value and _hostname(value) is None):
        return None
    return "is not a domain; write what stands behind the @ in small letters, such as example.org"


def _secret(value: str) -> str | None:
    return None if value.isprintable() else "has control characters or line breaks; write it on one line"


def _relay_or_empty(value: str) -> str | None:
    if not value or re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", value):
        return None
    return "is not a host name; write it without port, such as mail.example.org"


def _user_or_empty(value: str) -> str | None:
    return None if value.isprintable() else "has control characters; write the name that the relay knows"


def _title(value: str) -> str | None:
    return None if value.strip() and value.isprintable() else "is empty or has control characters; write a short name"


def _at_least(minimum: int) -> Callable[[float], str | None]:
    return lambda value: None if value >= minimum else f"is too small; it has to be at least {minimum}"


def _between(low: int, high: int) -> Callable[[float], str | None]:
    return lambda value: None if low <= value <= high else f"is out of range; it has to be {low} to {high}"


def _uid(value: int) -> str | None:
    if 1000 <= value <= 60000:
        return None
    return "is out of range; it has to be 1000 to 60000, as Debian and systemd use those below and above"


def _positive(value: float) -> str | None:
    return None if value > 0 else "is too small; it has to be more than 0"


_DAYS = _between(0, 36500)

FORMATS: dict[str, Callable[[Any], str | None]] = {
    "accounts_archive_after_days": _DAYS,
    "accounts_groups[].files": _said_files,
    "accounts_groups[].home_files": _said_files,
    "accounts_groups[].home_quota": _said_size,
    "accounts_groups[].quota": _said_size,
    "accounts_groups[].scratch_quota": _said_size,
    "accounts_remove_after_days": _DAYS,
    "accounts_shell": _shell,
    "accounts_uid_max": _uid,
    "accounts_uid_min": _uid,
    "accounts_users[].email": _email_or_empty,
    "accounts_users[].expires": _day,
    "accounts_users[].files": _said_files,
    "accounts_users[].full_name": _full_name,
    "accounts_users[].quota": _said_size,
    "accounts_users[].scratch_quota": _said_size,
    "accounts_warn_days": _DAYS,
    "docker_package": _word,
    "docker_session_network": _word,
    "docker_session_subnet": _network,
    "hub_doors[]": _door,
    "hub_failed_logins": _at_least(1),
    "hub_invitation_days": _between(1, 90),
    "hub_lockout_seconds": _at_least(1),
    "hub_mail_admins[]": _email,
    "hub_mail_password": _secret,
    "hub_mail_port": _between(1, 65535),
    "hub_mail_relay": _relay_or_empty,
    "hub_mail_sender": _email_or_empty,
    "hub_mail_user": _user_or_empty,
    "hub_native_title": _title,
    "hub_oidc_client_secret": _secret,
    "hub_oidc_groups_claim": _claim,
    "hub_oidc_issuer": _issuer_or_empty,
    "hub_oidc_scopes[]": _claim,
    "hub_oidc_title": _title,
    "hub_oidc_username_claim": _claim,
    "hub_oidc_username_domain": _domain_or_empty,
    "hub_pam_title": _title,
    "hub_password_minimum_length": _between(8, 64),
    "hub_title": _title,
    "images_build[]": _image_name,
    "images_debian_reference": _digest_or_empty,
    "labstead_releases_kept": _at_least(2),
    "preflight_minimum_disk_gb": _at_least(1),
    "preflight_minimum_memory_gb": _at_least(1),
    "proxy_acme_email": _email_or_empty,
    "proxy_acme_server": _url,
    "proxy_hostname": _hostname,
    "proxy_login_rate": _rate,
    "proxy_upload_limit": _upload_size,
    "sessions_cpus": _positive,
    "sessions_idle_hours": _between(0, 8760),
    "sessions_idle_hours_with_jobs": _between(0, 8760),
    "sessions_images[].name": _image_name,
    "sessions_images[].reference": _image_reference,
    "sessions_images[].title": _title,
    "sessions_memory": _size,
    "sessions_pids": _at_least(64),
    "sessions_start_timeout": _between(10, 3600),
    "sessions_tmp_size": _size,
    "site_http_proxy": _proxy_or_empty,
    "site_https_proxy": _proxy_or_empty,
    "slurm_clusters_per_user": _between(1, 64),
    "slurm_commands": _place_or_empty,
    "slurm_conf": _place_or_empty,
    "slurm_cpus": _at_least(0),
    "slurm_idle_minutes": _between(0, 10080),
    "slurm_images_root": _images_folder,
    "slurm_jobs_per_user": _between(1, 10000),
    "slurm_max_time": _slurm_time,
    "slurm_memory": _size_or_empty,
    "slurm_partition": _partition_or_empty,
    "slurm_worker_cores": _at_least(1),
    "slurm_worker_memory": _size,
    "slurm_worker_time": _slurm_time,
    "storage_archive_root": _archive_folder,
    "storage_data_root": _folder,
    "storage_disks[].device": _device,
    "storage_disks[].file": _disk_file,
    "storage_disks[].holds[]": _space,
    "storage_disks[].size": _size,
    "storage_grace_days": _between(1, 365),
    "storage_group_files": _between(0, _MOST_FILES),
    "storage_group_quota": _size_or_none,
    "storage_group_root": _group_folder,
    "storage_home_files": _between(0, _MOST_FILES),
    "storage_home_quota": _size_or_none,
    "storage_home_root": _folder,
    "storage_scratch_days": _DAYS,
    "storage_scratch_files": _between(0, _MOST_FILES),
    "storage_scratch_quota": _size_or_none,
    "storage_scratch_root": _scratch_folder,
    "storage_soft_percent": _between(50, 100),
}
"""What a value of the right type has to look like; `name[]` is an element of a list, `name[].key` a key of one."""


# --- specs and names --------------------------------------------------------------------------------------------


def load_specs(roles: Path) -> dict[str, dict[str, Spec]]:
    """Read what each role accepts: role → setting → spec, from roles/*/meta/argument_specs.yml."""
    specs = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        specs[path.parents[1].name] = document["argument_specs"]["main"].get("options", {})
    return specs


def settings_of(specs: Mapping[str, Mapping[str, Spec]]) -> dict[str, Spec]:
    """Put the settings of all roles in one mapping."""
    return {name: spec for options in specs.values() for name, spec in options.items()}


def _guess(name: str, known: Iterator[str] | list[str], cutoff: float) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return near[0] if near else ""


def name_problems(names: Iterator[str] | list[str], specs: Mapping[str, Mapping[str, Spec]]) -> list[Problem]:
    """Find names that no role knows.

    A name that begins like a role has to be one of its settings. Other names are the site's own, unless they are
    nearly a setting: then somebody has mistyped it.
    """
    known = settings_of(specs)
    problems = []
    for name in sorted(names):
        if name in known or _ANSIBLE_NAMES.match(name):
            continue
        role = name.split("_", 1)[0]
        if role in specs:
            guess = _guess(name, [*specs[role], *known], 0.7)
            advice = f"did you mean {guess}?" if guess else f"roles/{role}/README.md lists what there is"
            problems.append((name, f"unknown setting; {advice}"))
        elif guess := _guess(name, [*known], 0.85):
            problems.append((name, f"unknown setting; did you mean {guess}?"))
    return problems


# --- values -----------------------------------------------------------------------------------------------------

_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "raw": (lambda _: True, "a value"),
    "str": (lambda value: isinstance(value, str), "a text"),
    "path": (lambda value: isinstance(value, str), "a path"),
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "float": (lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "list": (lambda value: isinstance(value, list | tuple), "a list"),
    "dict": (lambda value: isinstance(value, Mapping), "a mapping of names to values"),
}


def value_problems(name: str, value: Any, spec: Spec, form: str | None = None) -> Iterator[Problem]:
    """Check one value against its spec: type, choices, elements, keys, and its format.

    :param form: key in FORMATS, where it is not the name itself
    """
    form = form or name
    fits, kind = _TYPES[spec.get("type", "str")]
    if value is None and spec.get("type") == "raw":
        return
    if value is None:
        yield name, f"empty; write {kind}, or remove the line to take the default, where it has one"
    elif FORMATS.get(form) is _slurm_time and type(value) is int:
        yield name, "without quotes YAML makes a number of this time; write it in quotes, such as '12:00:00'"
    elif not fits(value):
        yield name, f"{'the value' if spec.get('no_log') else _shown(value)} is not {kind}; {_advice(spec)}"
    elif "choices" in spec and value not in spec["choices"]:
        choices = [str(choice) for choice in spec["choices"]]
        guess = _guess(str(value), choices, 0.6)
        hint = f"did you mean {guess}?" if guess else "choose one of them"
        yield name, f"{_shown(value)} is not one of {', '.join(choices)}; {hint}"
    elif isinstance(value, list | tuple):
        element: dict[str, Any] = {"type": spec.get("elements", "str")}
        element.update({key: spec[key] for key in ("options",) if key in spec})
        for number, item in enumerate(value, 1):
            yield from value_problems(f"{name}[{number}]", item, element, f"{form}[]")
    elif isinstance(value, Mapping):
        yield from _key_problems(name, value, spec.get("options"), form)
    elif form in FORMATS and (problem := FORMATS[form](value)):
        # What is or may hold a password is not shown.
        secret = FORMATS[form] is _proxy_or_empty and "@" in value
        shown = "the value" if spec.get("no_log") else "the address" if secret else _shown(value)
        yield name, f"{shown} {problem}"


def _key_problems(
    name: str, value: Mapping[str, Any], options: Mapping[str, Spec] | None, form: str
) -> Iterator[Problem]:
    if options is None:
        return
    for key in sorted(set(value) - set(options), key=str):
        guess = _guess(str(key), [*options], 0.6)
        hint = f"did you mean {guess}?" if guess else f"there are {', '.join(options)}"
        yield f"{name}.{key}", f"unknown key; {hint}"
    for key, spec in options.items():
        if key in value:
            yield from value_problems(f"{name}.{key}", value[key], spec, f"{form}.{key}")
        elif spec.get("required"):
            yield f"{name}.{key}", "missing; add it"


def _shown(value: Any) -> str:
    if isinstance(value, date):
        return str(value)
    text = repr(value) if not isinstance(value, str) else repr(str(value))
    return text if len(text) <= 60 else text[:57] + "…"


def _advice(spec: Spec) -> str:
    if spec.get("type") == "list":
        return "write it as a list: [first, second]"
    if spec.get("type") in ("int", "float", "bool"):
        return f"write it without quotes, such as {str(spec.get('default', 1)).lower()}"
    return "write it in quotes" if spec.get("type", "str") in ("str", "path") else "see the README of its role"


# --- rules across settings --------------------------------------------------------------------------------------


def _names_module() -> Any:
    """Load the package's own rule for names, so that there is one list of reserved names."""
    spec = importlib.util.spec_from_file_location("labstead_names", REPOSITORY / "hub" / "labstead" / "names.py")
    if spec is None or spec.loader is None:
        raise AnsibleError("hub/labstead/names.py is missing; run from a whole checkout of labstead")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rule_problems(values: Mapping[str, Any], exists: Callable[[str], bool]) -> Iterator[Problem]:
    """Check what has to fit together; `values` are of the right type, settings with a mistake are absent.

    :param exists: tells whether a file of the controller is there
    """
    yield from _admin_problems(values)
    yield from _tls_problems(values, exists)
    if values.get("accounts_uid_min", 0) > values.get("accounts_uid_max", 2**31):
        yield "accounts_uid_max", f"below accounts_uid_min {values['accounts_uid_min']}; write a larger number"
    if values.get("images_debian_source") == "registry" and values.get("images_debian_reference") == "":
        yield "images_debian_reference", "missing; images_debian_source registry needs the image with its digest"
    if "images_build" in values and "sessions_images" in values:
        if not values["images_build"] and not values["sessions_images"]:
            yield "sessions_images", "no image to start; name one here or in images_build"
        for name in values["images_build"]:
            if not (REPOSITORY / "images" / name / "Dockerfile").is_file():
                yield "images_build", f"there is no images/{name}/Dockerfile; name a folder of images/"
    for file in values.get("site_ca_certificates", []):
        if not exists(file):
            yield "site_ca_certificates", f"{file} is not a file here; give certificates of the machine Ansible runs on"
    yield from _folder_problems(values)
    yield from _disk_problems(values)
    yield from _people_problems(values)
    yield from _door_problems(values)
    yield from _mail_problems(values)
    yield from _slurm_problems(values)
    # Sessions have to outlive restarts of dockerd.
    if values.get("docker_daemon_settings", {}).get("live-restore", True) is not True:
        yield "docker_daemon_settings", "live-restore has to be true, as sessions outlive restarts of Docker; remove it"
    for key, value in values.get("sessions_environment", {}).items():
        if not isinstance(value, str):
            yield "sessions_environment", f"{key}: {_shown(value)} is not a text; write it in quotes"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(key)):
            yield "sessions_environment", f"{_shown(key)} is not the name of a variable; use letters, digits and '_'"


def _admin_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    if "hub_admins" not in values:
        return
    if not values["hub_admins"]:
        yield "hub_admins", "no admin, so nobody could approve anybody; name at least one"
    names = _names_module()
    for name in values["hub_admins"]:
        if problem := names.problem_with_name(name, tuple(values.get("accounts_reserved_names", ()))):
            yield "hub_admins", f"{_shown(name)}: {_as_clause(problem)}"


def _as_clause(sentence: str) -> str:
    text = sentence.rstrip(".")
    return text[:1].lower() + text[1:] + ("" if ";" in text else "; choose another name")


def _folder_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    roots = {
        "storage_home_root": "home root",
        "storage_data_root": "data root",
        "storage_group_root": "group root",
        "storage_archive_root": "archive root",
        "storage_scratch_root": "scratch root",
    }
    if not values.get("storage_scratch_root"):
        del roots["storage_scratch_root"]
    if values.get("slurm_mode") in ("embedded", "existing"):
        roots["slurm_images_root"] = "images root"
    for (first, kind), (second, _) in itertools.combinations(roots.items(), 2):
        one, other = (Path(str(values.get(name, name))) for name in (first, second))
        if one == other or one in other.parents or other in one.parents:
            yield second, f"{other} and the {kind} {one} lie in each other; choose separate folders"


def _disk_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    holders: dict[str, int] = {}
    for number, disk in enumerate(values.get("storage_disks", ()), start=1):
        name = f"storage_disks[{number}]"
        if ("device" in disk) == ("file" in disk):
            yield name, "needs either a device or a file; give one of them"
        elif ("file" in disk) != ("size" in disk):
            yield f"{name}.size", "goes with a file, and only with that; add or remove it"
        if not disk["holds"]:
            yield f"{name}.holds", "empty; say what is on it: home, group, scratch"
        for kind in disk["holds"]:
            if kind in holders:
                yield f"{name}.holds", f"{kind} is on disk {holders[kind]} already; keep one of them"
            holders.setdefault(kind, number)
            if values.get(f"storage_{kind}_root") == "":
                yield f"{name}.holds", f"there is no {kind} without storage_{kind}_root; set it"
    disks = [disk.get("device") or disk.get("file") for disk in values.get("storage_disks", ())]
    for place, times in Counter(Path(place).name for place in disks if place).items():
        if times > 1:
            yield "storage_disks", f"{place} stands there {times} times; disks and files need different names"


def _people_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Check the names that are declared; whether the machine knows them is seen by `labstead apply`."""
    users, groups = values.get("accounts_users", ()), values.get("accounts_groups", ())
    reserved = tuple(values.get("accounts_reserved_names", ()))
    names = _names_module()
    for setting, items in (("accounts_users", users), ("accounts_groups", groups)):
        for name, times in Counter(item["name"] for item in items).items():
            if times > 1:
                yield setting, f"{_shown(name)} stands there {times} times; keep one of them"
        for item in items:
            # What the machine has already may have a name that labstead would not give.
            known = item.get("existing") and names.is_unix_name(item["name"])
            if not known and (problem := names.problem_with_name(item["name"], reserved)):
                kind = "name" if setting == "accounts_groups" else "username"
                yield setting, f"{_shown(item['name'])}: {_as_clause(problem.replace('username', kind))}"
    people = {item["name"] for item in users} | set(values.get("hub_admins", ()))
    for group in groups:
        if group["name"] in people:
            yield (
                "accounts_groups",
                f"{_shown(group['name'])} is a person, whose own group has that name; choose another",
            )
        for role in ("members", "managers"):
            if group.get("existing") and group.get(role):
                yield "accounts_groups", f"{group['name']}: an existing group has its own members; remove `{role}`"
                continue
            for name in group.get(role, ()):
                if not names.is_unix_name(name):
                    yield "accounts_groups", f"{group['name']}: {role}: {_shown(name)} is nobody's name; remove it"


def _door_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    doors = values.get("hub_doors")
    if doors is None:
        return
    if not doors or len(set(doors)) != len(doors) or {"pam", "oidc"} <= set(doors):
        yield (
            "hub_doors",
            f"[{', '.join(doors)}] does not work; give native, pam or oidc, or native with one of the others",
        )
        return
    if values.get("hub_signup") == "approval" and "native" not in doors:
        yield "hub_signup", "nobody can sign up without the door native; add it to hub_doors or set closed"
    for name in ("hub_oidc_issuer", "hub_oidc_client_id", "hub_oidc_client_secret"):
        if "oidc" in doors and values.get(name) == "":
            yield name, "missing; the door oidc needs it"
        elif "oidc" not in doors and values.get(name):
            yield name, "not used without the door oidc; remove it or add oidc to hub_doors"
    if "oidc" in doors and "openid" not in values.get("hub_oidc_scopes", ("openid",)):
        yield "hub_oidc_scopes", "has no openid, without which a provider tells nobody's name; add it"


def _mail_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    relay = values.get("hub_mail_relay")
    if relay == "":
        for name in ("hub_mail_user", "hub_mail_password", "hub_mail_sender", "hub_mail_admins"):
            if values.get(name):
                yield name, "not used without hub_mail_relay; remove it or name the relay"
    if not relay:
        return
    if values.get("hub_mail_sender") == "":
        yield "hub_mail_sender", "missing; mail needs an address that it comes from"
    if (values.get("hub_mail_user") == "") != (values.get("hub_mail_password") == ""):
        yield "hub_mail_password", "hub_mail_user and hub_mail_password go together; set both or none"
    elif values.get("hub_mail_password") and values.get("hub_mail_security") == "none":
        yield "hub_mail_security", "none would send the password where others can read it; choose starttls or tls"


def _slurm_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Check what can be seen without the machine; what it has and what the site's Slurm says, preflight looks at."""
    mode = values.get("slurm_mode")
    if mode == "embedded":
        for name in ("slurm_commands", "slurm_conf", "slurm_partition"):
            if values.get(name):
                yield name, "not used with slurm_mode embedded; remove it or set slurm_mode: existing"
        worker, longest = (values.get(name, "") for name in ("slurm_worker_time", "slurm_max_time"))
        if worker and longest and (_seconds(worker) or 0) > (_seconds(longest) or 0):
            yield "slurm_worker_time", f"{worker} is longer than slurm_max_time {longest}; lower it or raise that"
    elif mode == "existing":
        for name in ("slurm_cpus", "slurm_memory"):
            if values.get(name):
                yield name, "not used with slurm_mode existing, where the site's Slurm says it; remove it"
    idle, with_jobs = values.get("sessions_idle_hours", 0), values.get("sessions_idle_hours_with_jobs", 0)
    if 0 < with_jobs < idle:
        yield "sessions_idle_hours_with_jobs", f"{with_jobs} is below sessions_idle_hours {idle}; raise it, or set 0"


def _tls_problems(values: Mapping[str, Any], exists: Callable[[str], bool]) -> Iterator[Problem]:
    tls = values.get("proxy_tls")
    for name in ("proxy_certificate", "proxy_certificate_key"):
        file = values.get(name)
        if tls == "provided" and file == "":
            yield name, "missing; proxy_tls provided needs a PEM file of the machine Ansible runs on"
        elif file and tls != "provided":
            yield name, f"not used with proxy_tls {tls}; remove it or set proxy_tls: provided"
        elif file and not exists(file):
            yield name, f"{file} is not a file here; give a PEM file of the machine Ansible runs on"
    if tls == "acme":
        if values.get("proxy_acme_email") == "":
            yield "proxy_acme_email", "missing; the certificate authority writes there before a certificate ends"
        hostname = str(values.get("proxy_hostname", ""))
        if re.fullmatch(r"[\d.]+|.*:.*", hostname):
            yield "proxy_hostname", f"{hostname} is an address; a certificate by ACME needs a public name"


def problems_of(
    variables: Mapping[str, Any], specs: Mapping[str, Mapping[str, Spec]], exists: Callable[[str], bool]
) -> list[Problem]:
    """Find all mistakes in the variables of one host.

    :param variables: names and values as the inventory gives them
    :param specs: what `load_specs` read
    """
    known = settings_of(specs)
    problems = name_problems(list(variables), specs)
    good = {}
    for name, spec in known.items():
        if name in variables:
            found = list(value_problems(name, variables[name], spec))
            problems += found
            if not found:
                good[name] = variables[name]
        elif spec.get("required"):
            first = spec["description"][0] if isinstance(spec["description"], list) else spec["description"]
            problems.append((name, f"missing; set it: {first[:1].lower()}{first[1:].rstrip('.')}"))
        elif "default" in spec:
            good[name] = spec["default"]
    return problems + list(rule_problems(good, exists))


class _AnyTag(yaml.SafeLoader):
    """Reads dates and numbers as YAML means them, and lets Ansible's own tags stand for nothing."""


_AnyTag.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def source_problems(sources: Iterable[str]) -> Iterator[str]:
    """Find inventory files that cannot be read: Ansible itself only warns and goes on without them.

    :param sources: what `-i` names; whatever is no YAML file is left to Ansible
    """
    for source in map(Path, sources):
        if source.suffix not in (".yml", ".yaml") or not source.is_file():
            continue
        try:
            yaml.load(source.read_text(encoding="utf-8"), Loader=_AnyTag)  # noqa: S506 - it is a SafeLoader
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
            yield f"{source}: not YAML: {' '.join(str(error).split())}; mend it"


class ActionModule(ActionBase):
    """Check the settings of one host on the controller."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with a short message after one line for each mistake; touch no host.

        With the argument `sources` only those files are looked at.
        """
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        if sources := self._task.args.get("sources"):
            lines = list(source_problems(sources))
            for line in lines:
                Display().error(f"inventory: {line}", wrap_text=False)
            if lines:
                result.update(failed=True, msg="the inventory cannot be read; nothing was changed")
            return result
        host = task_vars["inventory_hostname"]
        specs = load_specs(REPOSITORY / "roles")
        variables: dict[str, Any] = dict.fromkeys(task_vars)
        problems: list[Problem] = []
        for name in settings_of(specs):
            if name in task_vars:
                try:
                    variables[name] = self._templar.template(task_vars[name])
                except AnsibleError as error:
                    del variables[name]
                    reason = " ".join(str(error).split())
                    problems.append((name, f"cannot be worked out: {reason}; mend the expression"))
        version = task_vars["ansible_version"]
        if (version["major"], version["minor"]) < OLDEST_ANSIBLE:
            problems.append(("ansible", f"{version['full']} is too old; use the one that `make venv` installs"))
        mentioned = {name for name, _ in problems}
        problems += [
            problem
            for problem in problems_of(variables, specs, lambda file: Path(file).is_file())
            if problem[0] not in mentioned
        ]
        for name, problem in problems:
            Display().error(f"inventory: {host}: {name}: {problem}", wrap_text=False)
        if problems:
            count = f"{len(problems)} settings are" if len(problems) > 1 else "1 setting is"
            result.update(failed=True, msg=f"{count} wrong; nothing was changed")
        return result
