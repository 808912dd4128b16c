"""The settings files under /etc/labstead and what each key means.

The one rule: a file is either right as a whole or refused as a whole, with a line for every mistake; unknown keys
are mistakes. Ansible writes the files and has them checked by `labstead config check` before it puts them in place.
"""

import difflib
import ipaddress
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from labstead.errors import BadInput
from labstead.names import problem_with_name

CONFIG_DIR = Path("/etc/labstead")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C where there is one: a thousand people are read in 0.03 s rather than in half a second."""

_SIZE = re.compile(r"([0-9]+)([KMGT]?)")
_FACTOR = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MOST = 2**63 - 2**40
"""Bytes; the kernel's limits end just before 8388608T, whatever the file system."""
_DIGITS = 30
"""How long a number may be that is looked at; Python refuses very long ones."""


def parse_size(value: object) -> int:
    """Turn `512M` or `4G` into bytes; K, M, G and T are powers of 1024, a plain number is bytes.

    :raises ValueError: when it is neither, or more than a limit can be
    """
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    match = _SIZE.fullmatch(text)
    if match is None or not match[1].strip("0"):
        raise ValueError(f"{value!r} is not a size; write a number and K, M, G or T, like 4G")
    size = int(match[1]) * _FACTOR[match[2]] if len(match[1]) <= _DIGITS else _MOST + 1
    if size > _MOST:
        raise ValueError(f"{text[:_DIGITS]} is too large a size; the largest is {_MOST // 2**40}T")
    return size


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{str(path)!r} is not an absolute path")
    # They go into units, fstab and tmpfiles.d too, where these mean something else.
    if found := re.search(r"""[\s*?\[\]{}"'\\$%:,;#]""", str(path)):
        raise ValueError(f"{str(path)!r} has {found[0]!r} in it; name a folder with letters, digits and any of . _ - +")
    return path


def _web_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+(:\d+)?(/\S*)?", value):
        raise ValueError(f"{value!r} is not an http(s) address")
    return value.rstrip("/")


def _ip_address(value: str) -> str:
    return str(ipaddress.ip_address(value))


def _ip_network(value: str) -> str:
    return str(ipaddress.ip_network(value))


def _parse_limit(value: object) -> object:
    """Turn `none` into 0, which is no limit."""
    return 0 if value == "none" else value


def _parse_size_limit(value: object) -> int:
    return 0 if value in ("none", 0) and not isinstance(value, bool) else parse_size(value)


Size = Annotated[int, BeforeValidator(parse_size)]
SizeLimit = Annotated[int, BeforeValidator(_parse_size_limit)]
"""A size in bytes, or `none`: 0."""
FilesLimit = Annotated[int, Field(strict=True, ge=0, lt=2**63), BeforeValidator(_parse_limit)]
"""A number of files and folders, or `none`: 0."""
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
IpNetwork = Annotated[str, AfterValidator(_ip_network)]
Port = Annotated[int, Field(ge=1, le=65535)]
SlurmTime = Annotated[str, Field(pattern=r"^([0-9]+-)?[0-9]{1,2}:[0-9]{2}:[0-9]{2}$")]
"""A time as Slurm writes it, such as 12:00:00 or 7-00:00:00."""
Days = Annotated[int, Field(ge=0, le=36500)]

Door = Literal["native", "pam", "oidc"]
"""How somebody proves who they are: a password of the hub's own, one that PAM checks, or an OpenID Connect provider."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


SpaceKind = Literal["home", "group", "scratch"]
"""What a limit is about: somebody's home, a group's folder, somebody's scratch."""


class Limit(_Settings):
    """How much one space may hold."""

    bytes: SizeLimit | None = None
    """Bytes; 0 is no limit. None: nothing is said here."""
    files: FilesLimit | None = None
    """Files and folders; 0 is no limit. None: nothing is said here."""


class Quotas(_Settings):
    """What holds for whom nothing else is said."""

    home: Limit = Limit()
    group: Limit = Limit()
    scratch: Limit = Limit()
    soft_percent: Annotated[int, Field(ge=50, le=100)] = 100
    """Soft limit, in percent of the limit; 100 is none. Above it, its owner has `grace_days` to clean up."""
    grace_days: Annotated[int, Field(ge=1, le=365)] = 7
    """Days above a soft limit after which nothing more can be written."""

    def of(self, kind: SpaceKind) -> Limit:
        """Give the limit of a kind of space."""
        return {"home": self.home, "group": self.group, "scratch": self.scratch}[kind]


class Accounts(_Settings):
    """accounts.yml: how the accounts service makes Unix accounts."""

    uid_min: Annotated[int, Field(ge=1000)] = 20000
    """First uid (and gid) that labstead gives out; never change it once people have accounts."""
    uid_max: Annotated[int, Field(le=2**31 - 1)] = 29999
    """Last uid (and gid) that labstead gives out; may grow."""
    home_root: AbsolutePath = Path("/home")
    """Folder in which homes are made."""
    skeleton: AbsolutePath = Path("/etc/labstead/skel")
    """Folder whose content a new home starts with."""
    shell: AbsolutePath = Path("/bin/bash")
    """Login shell of new accounts."""
    reserved_names: tuple[str, ...] = ()
    """Names that nobody may sign up with, beside the built-in ones."""
    group_root: AbsolutePath = Path("/groups")
    """Folder in which group folders are made."""
    archive_root: AbsolutePath = Path("/var/lib/labstead/archive")
    """Folder of the archives of homes and group folders that were removed; for root alone."""
    scratch_root: AbsolutePath | None = None
    """Folder in which everybody's scratch is made; None: there is none."""
    quotas: Quotas = Quotas()
    """Limits of homes, group folders and scratch where nothing is said of a person or group."""
    doors: Annotated[tuple[Door, ...], Field(min_length=1)] = ("native",)
    """Doors of the hub, the main one first; the service answers only for those that are open."""
    oidc_accounts: Literal["create", "existing"] = "create"
    """Whom an OpenID Connect log-in may be: somebody for whom labstead makes an account, or one whom NSS knows."""
    linked_homes: Literal["make", "require"] = "make"
    """What to do when somebody with an account of the machine's comes in first and has no home: make it, or refuse."""
    warn_days: Days = 14
    """Days before an account expires from which on its owner and the administrators are told."""
    archive_after_days: Days | None = 30
    """Days after its expiry when a home is put into an archive and its account removed; None: never."""
    remove_after_days: Days | None = None
    """Days after that when the archive is deleted; None: never."""

    @model_validator(mode="after")
    def _range(self) -> "Accounts":
        if self.uid_max < self.uid_min:
            raise ValueError(f"uid_max {self.uid_max} is below uid_min {self.uid_min}")
        return self


class Cluster(_Settings):
    """How compute nodes elsewhere reach sessions on this machine."""

    address: IpAddress
    """This machine's address in the cluster's network; ports of sessions are published there and nowhere else."""
    network: IpNetwork
    """Network of the compute nodes; nobody else reaches those ports."""
    first_port: Port = 31000
    """First of the ports that are given to sessions."""
    last_port: Port = 32999
    """Last of them."""

    @model_validator(mode="after")
    def _range(self) -> "Cluster":
        if self.last_port < self.first_port:
            raise ValueError(f"last_port {self.last_port} is below first_port {self.first_port}")
        return self


class SessionCompute(_Settings):
    """What a session has of Slurm; a part of sessions.yml, as hub and gate build containers from it."""

    images_root: AbsolutePath = Path("/var/lib/labstead/compute")
    """Folder of the flattened images and of what runs jobs in them, at the same path on every compute node."""
    clusters_per_user: Annotated[int, Field(ge=1, le=64)] = 4
    """Dask clusters that a session may have at the same time; with `cluster`, as many ports are kept for it."""
    cluster: Cluster | None = None
    """Compute nodes elsewhere; None: all jobs run on this machine."""


class Image(_Settings):
    """One image that people may start."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    """Short name, as in images/NAME."""
    title: Annotated[str, Field(min_length=1)]
    """What people see when they choose."""
    reference: Annotated[str, Field(min_length=1)]
    """What Docker knows it by: repository:tag or repository@sha256:…"""


class Sessions(_Settings):
    """sessions.yml: the container contract's settings; the hub builds sessions from them, the gate checks them."""

    images: Annotated[tuple[Image, ...], Field(min_length=1)]
    """Images that people may start; the first is the default."""
    network: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")] = "labstead"
    """Docker network of the sessions."""
    memory: Size = 4 * 2**30
    """Memory limit of a session; without swap."""
    cpus: Annotated[float, Field(gt=0)] = 2.0
    """CPU limit of a session, in cores."""
    pids: Annotated[int, Field(ge=64)] = 1024
    """Limit of processes and threads of a session."""
    tmp_size: Size = 2**30
    """Size of a session's /tmp; it lives in memory and counts towards `memory`."""
    home_root: AbsolutePath = Path("/home")
    """Folder of all homes, seen read-only around one's own."""
    group_root: AbsolutePath = Path("/groups")
    """Folder of the group folders; those of a person's groups are in their sessions, writable."""
    data_root: AbsolutePath = Path("/data")
    """Data cache, read-only."""
    scratch_root: AbsolutePath | None = None
    """Folder of everybody's scratch; one's own is in the session, writable. None: there is none."""
    scratch_days: Days = 7
    """Days after which what was not used in scratch is removed; 0: never."""
    ca_bundle: AbsolutePath | None = None
    """File with the certificates that sessions trust, where the site has some of its own."""
    environment: dict[str, str] = {}
    """Environment of every session, beside what labstead sets itself."""
    start_timeout: Annotated[int, Field(ge=10, le=3600)] = 120
    """Seconds that a session may take to answer."""
    idle_hours: Annotated[float, Field(ge=0, le=8760)] = 0
    """Hours without activity after which a session is stopped; 0: never."""
    idle_hours_with_jobs: Annotated[float, Field(ge=0, le=8760)] = 72
    """The same for a session whose owner has jobs in Slurm; 0: never."""
    compute: SessionCompute | None = None
    """What sessions have of Slurm; None: nothing."""

    @model_validator(mode="after")
    def _idle(self) -> "Sessions":
        if 0 < self.idle_hours_with_jobs < self.idle_hours:
            raise ValueError(
                f"idle_hours_with_jobs {self.idle_hours_with_jobs:g} is below idle_hours {self.idle_hours:g}"
            )
        return self

    def image(self, reference: str) -> Image:
        """Give the image with this reference.

        :raises BadInput: when it is not among the allowed ones
        """
        for image in self.images:
            if image.reference == reference:
                return image
        raise BadInput(f"image {reference} is not one of the allowed images; see sessions_images")


class Worker(_Settings):
    """What a Dask worker asks Slurm for where a notebook does not say."""

    cores: Annotated[int, Field(ge=1)] = 1
    """Processor cores, and threads."""
    memory: Size = 2 * 2**30
    """Memory."""
    time: SlurmTime = "12:00:00"
    """How long it may run."""


class Compute(_Settings):
    """compute.yml: Slurm, and how sessions use it. There is no such file where there is no Slurm."""

    mode: Literal["embedded", "existing"]
    """Whether labstead set up Slurm on this machine, or uses the site's."""
    commands: AbsolutePath = Path("/usr/bin")
    """Folder of sbatch, scancel, squeue, sinfo and sacct."""
    slurm_conf: AbsolutePath | None = None
    """The site's slurm.conf, where Slurm's commands do not find it by themselves."""
    partition: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Partition of Dask's workers; None: Slurm's default."""
    completed: AbsolutePath | None = None
    """File in which Slurm lists what has ended (jobcomp/filetxt), for sacct; None: Slurm's sacct answers."""
    worker: Worker = Worker()
    """What a Dask worker asks for."""
    jobs_per_user: Annotated[int, Field(ge=1, le=10000)] = 50
    """Jobs that somebody may have waiting and running."""
    idle_minutes: Annotated[int, Field(ge=0, le=10080)] = 60
    """Minutes without work after which a Dask cluster closes; 0: never."""
    runtime: Literal["charliecloud", "apptainer"] = "charliecloud"
    """What runs a job in the session's image."""


class Oidc(_Settings):
    """The OpenID Connect provider; its client secret is in the environment, LABSTEAD_OIDC_CLIENT_SECRET."""

    issuer: WebUrl
    """The provider's issuer; its addresses are read from `/.well-known/openid-configuration` below it."""
    client_id: Annotated[str, Field(min_length=1)]
    """What the provider calls this hub."""
    title: Annotated[str, Field(min_length=1)] = "institute account"
    """What people see on the button: Sign in with …"""
    scopes: Annotated[tuple[str, ...], Field(min_length=1)] = ("openid", "profile", "email")
    """What to ask for; `openid` is always needed."""
    username_claim: Annotated[str, Field(min_length=1)] = "preferred_username"
    """Claim that becomes the Unix name."""
    username_domain: str = ""
    """Domain that the claim ends with and that is cut off: `anna@example.org` → `anna`; other domains are refused."""
    groups_claim: str = "groups"
    """Claim that lists somebody's groups at the provider."""
    allowed_groups: tuple[str, ...] = ()
    """Groups at the provider whose members may come in; empty: everybody whom the provider lets in."""


class Mail(_Settings):
    """How the hub sends mail; the relay's password, if any, is in the environment, LABSTEAD_MAIL_PASSWORD."""

    relay: Annotated[str, Field(pattern=r"^[^\s:/]+$")]
    """Host name of the mail relay."""
    port: Port = 25
    """Its port."""
    security: Literal["none", "starttls", "tls"] = "none"
    """How the connection is protected; none suits a relay on this machine or in its network."""
    user: str = ""
    """Name at the relay, where it wants one."""
    sender: Annotated[str, Field(pattern=r"^[^\s@]+@[^\s@]+$")]
    """Address that mail comes from."""
    admins: tuple[Annotated[str, Field(pattern=r"^[^\s@]+@[^\s@]+$")], ...] = ()
    """Addresses that are told of sign-ups and expiries."""


class Hub(_Settings):
    """hub.yml: JupyterHub itself."""

    url: WebUrl
    """Where people find the hub, as they type it."""
    base_url: Annotated[str, Field(pattern=r"^/([^/\s]+/)*$")] = "/"
    """Path below which all of it lives."""
    address: IpAddress
    """Address on which the hub answers sessions: the gateway of their network."""
    port: Port = 8081
    """Port on that address."""
    proxy_url: WebUrl = "http://127.0.0.1:8000"
    """Where configurable-http-proxy answers; nginx stands before it."""
    proxy_api_url: WebUrl = "http://127.0.0.1:8001"
    """Where the hub tells it its routes."""
    admins: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the administrators."""
    signup: Literal["approval", "closed"] = "closed"
    """Whether people may ask for an account on the hub's page."""
    password_minimum_length: Annotated[int, Field(ge=8, le=64)] = 10
    """Characters that a password has at least."""
    failed_logins: Annotated[int, Field(ge=1)] = 5
    """Wrong passwords in a row before a name has to wait."""
    lockout_seconds: Annotated[int, Field(ge=1)] = 600
    """Seconds that it waits."""
    title: Annotated[str, Field(min_length=1)] = "labstead"
    """Name of the site, shown on its pages."""
    doors: Annotated[tuple[Door, ...], Field(min_length=1)] = ("native",)
    """How people come in, the main way first: one of them, or another one and then `native` for guests."""
    native_title: Annotated[str, Field(min_length=1)] = "guest account"
    """What people see for `native` where it stands beside another door."""
    pam_title: Annotated[str, Field(min_length=1)] = "institute account"
    """What people see for `pam`."""
    oidc: Oidc | None = None
    """The provider of the door `oidc`."""
    mail: Mail | None = None
    """How to send mail; None sends none, and all that it would say is on the hub's pages anyway."""
    invitation_days: Annotated[int, Field(ge=1, le=90)] = 14
    """Days for which a one-time link to set a password works."""

    @model_validator(mode="after")
    def _doors(self) -> "Hub":
        if len(set(self.doors)) != len(self.doors) or ("pam" in self.doors and "oidc" in self.doors):
            raise ValueError("doors: give one of native, pam and oidc, or pam or oidc and native")
        if ("oidc" in self.doors) != (self.oidc is not None):
            raise ValueError("oidc: needed with the door oidc, and only with it")
        if self.signup == "approval" and "native" not in self.doors:
            raise ValueError("signup: people can only sign up where one of the doors is native")
        return self

    @model_validator(mode="after")
    def _admin_names(self) -> "Hub":
        for name in self.admins:
            if problem := problem_with_name(name):
                raise ValueError(f"admins: {problem}")
        return self


class DeclaredUser(_Settings):
    """Somebody whom the inventory declares."""

    name: Annotated[str, Field(min_length=1)]
    """Unix name."""
    full_name: Annotated[str, Field(pattern=r"^[^:,=\\\"\x00-\x1f\x7f-\x9f]*$")] = ""
    """Name as people write it; the GECOS field of accounts that labstead makes."""
    email: Annotated[str, Field(pattern=r"^([^\s@\x00-\x1f\x7f-\x9f]+@[^\s@\x00-\x1f\x7f-\x9f]+)?$")] = ""
    """Where mail about the account goes."""
    expires: date | None = None
    """First day on which the account is closed."""
    quota: SizeLimit | None = None
    """Limit of the home, in bytes; 0 is none."""
    files: FilesLimit | None = None
    """Limit of the home, in files and folders; 0 is none."""
    scratch_quota: SizeLimit | None = None
    """Limit of their scratch, in bytes; 0 is none."""
    existing: bool = False
    """An account that the machine knows already (LDAP, useradd) and that labstead uses but never changes."""


class DeclaredGroup(_Settings):
    """A group that the inventory declares."""

    name: Annotated[str, Field(min_length=1)]
    """Unix name of the group, and of its folder."""
    members: tuple[str, ...] = ()
    """People who are in it for as long as they stand here; managers may add others."""
    managers: tuple[str, ...] = ()
    """People who may add and remove members; they need not be members."""
    quota: SizeLimit | None = None
    """Limit of the folder, in bytes; 0 is none."""
    files: FilesLimit | None = None
    """Limit of the folder, in files and folders; 0 is none."""
    home_quota: SizeLimit | None = None
    """Limit of each member's home, in bytes; 0 is none."""
    home_files: FilesLimit | None = None
    """Limit of each member's home, in files and folders; 0 is none."""
    scratch_quota: SizeLimit | None = None
    """Limit of each member's scratch, in bytes; 0 is none."""
    existing: bool = False
    """A group that the machine knows already: it gets a folder, and its members are not labstead's business."""


class People(_Settings):
    """people.yml: the people and groups that the inventory declares, handed over by `labstead apply`."""

    users: tuple[DeclaredUser, ...] = ()
    """People."""
    groups: tuple[DeclaredGroup, ...] = ()
    """Groups with folders."""

    @model_validator(mode="after")
    def _once(self) -> "People":
        for what, items in (("users", self.users), ("groups", self.groups)):
            names = [item.name for item in items]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what}: {', '.join(twice)} stands there more than once")
        return self


_S = TypeVar("_S", bound=_Settings)

KINDS: dict[str, type[_Settings]] = {
    "accounts": Accounts,
    "sessions": Sessions,
    "compute": Compute,
    "hub": Hub,
    "people": People,
}
"""Kind of a settings file, which is also its name: accounts → accounts.yml."""


def _models_in(annotation: object) -> list[type[_Settings]]:
    """Find the settings that a type is made of: `tuple[Image, ...]` → `Image`."""
    if isinstance(annotation, type) and issubclass(annotation, _Settings):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _model_at(model: type[_Settings], place: tuple[int | str, ...]) -> type[_Settings]:
    """Give the settings in which the last part of a place is a key."""
    for part in place[:-1]:
        if isinstance(part, str):  # a number is the item of a list
            (model,) = _models_in(model.model_fields[part].annotation)
    return model


def _problem_line(model: type[_Settings], error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        fields = _model_at(model, error["loc"]).model_fields
        near = difflib.get_close_matches(str(error["loc"][-1]), fields, n=1)
        return f"{where}: unknown key" + (f"; did you mean {near[0]}?" if near else "; remove it")
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _inside(place: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def parse(model: type[_S], text: str, source: str) -> _S:
    """Read settings from YAML text.

    :param source: what to call the text in messages, such as its path
    :raises BadInput: with one line for every mistake, each beginning with `source`
    """
    try:
        data = yaml.load(text, Loader=_LOADER)  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        raise BadInput(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{source}: expected `key: value` lines")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        places = [item["loc"] for item in error.errors()]
        # A list with a mistake in it is also reported as a list without that item; the mistake itself says more.
        real = [item for item in error.errors() if not any(_inside(place, item["loc"]) for place in places)]
        lines = [f"{source}: {_problem_line(model, item)}" for item in real]
        raise BadInput("\n".join(lines)) from None


def _load(model: type[_S], path: Path) -> _S:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; site.yml writes this file") from None
    return parse(model, text, str(path))


def load_accounts(directory: Path = CONFIG_DIR) -> Accounts:
    """Read accounts.yml; :raises BadInput: when it is missing or wrong."""
    return _load(Accounts, directory / "accounts.yml")


def load_sessions(directory: Path = CONFIG_DIR) -> Sessions:
    """Read sessions.yml; :raises BadInput: when it is missing or wrong."""
    return _load(Sessions, directory / "sessions.yml")


def load_compute(directory: Path = CONFIG_DIR) -> Compute:
    """Read compute.yml; :raises BadInput: when it is missing or wrong."""
    return _load(Compute, directory / "compute.yml")


def load_hub(directory: Path = CONFIG_DIR) -> Hub:
    """Read hub.yml; :raises BadInput: when it is missing or wrong."""
    return _load(Hub, directory / "hub.yml")


def load_people(directory: Path = CONFIG_DIR) -> People:
    """Read people.yml; :raises BadInput: when it is missing or wrong."""
    return _load(People, directory / "people.yml")
