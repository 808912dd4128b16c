"""The settings files under /etc/labstead and what each key means.

The one rule: a file is either right as a whole or refused as a whole, with a line for every mistake; unknown keys
are mistakes. Ansible writes the files and has them checked by `labstead config check` before it puts them in place.
"""

import difflib
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from labstead.errors import BadInput
from labstead.names import problem_with_name

CONFIG_DIR = Path("/etc/labstead")

_SIZE = re.compile(r"(\d+)([KMGT]?)")
_FACTOR = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(value: object) -> int:
    """Turn `512M` or `4G` into bytes; K, M, G and T are powers of 1024, a plain number is bytes.

    :raises ValueError: when it is neither
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{value!r} is not a size; write a number and K, M, G or T, like 4G")
    return int(match[1]) * _FACTOR[match[2]]


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{str(path)!r} is not an absolute path")
    return path


def _web_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+(:\d+)?(/\S*)?", value):
        raise ValueError(f"{value!r} is not an http(s) address")
    return value.rstrip("/")


def _ip_address(value: str) -> str:
    return str(ipaddress.ip_address(value))


Size = Annotated[int, BeforeValidator(parse_size)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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

    @model_validator(mode="after")
    def _range(self) -> "Accounts":
        if self.uid_max < self.uid_min:
            raise ValueError(f"uid_max {self.uid_max} is below uid_min {self.uid_min}")
        return self


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
    data_root: AbsolutePath = Path("/data")
    """Data cache, read-only."""
    ca_bundle: AbsolutePath | None = None
    """File with the certificates that sessions trust, where the site has some of its own."""
    environment: dict[str, str] = {}
    """Environment of every session, beside what labstead sets itself."""
    start_timeout: Annotated[int, Field(ge=10, le=3600)] = 120
    """Seconds that a session may take to answer."""

    def image(self, reference: str) -> Image:
        """Give the image with this reference.

        :raises BadInput: when it is not among the allowed ones
        """
        for image in self.images:
            if image.reference == reference:
                return image
        raise BadInput(f"image {reference} is not one of the allowed images; see sessions_images")


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

    @model_validator(mode="after")
    def _admin_names(self) -> "Hub":
        for name in self.admins:
            if problem := problem_with_name(name):
                raise ValueError(f"admins: {problem}")
        return self


_S = TypeVar("_S", bound=_Settings)

KINDS: dict[str, type[_Settings]] = {"accounts": Accounts, "sessions": Sessions, "hub": Hub}
"""Kind of a settings file, which is also its name: accounts → accounts.yml."""


def _problem_line(model: type[_Settings], error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        fields = model.model_fields if len(error["loc"]) == 1 else Image.model_fields
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
        data = yaml.safe_load(text)
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


def load_hub(directory: Path = CONFIG_DIR) -> Hub:
    """Read hub.yml; :raises BadInput: when it is missing or wrong."""
    return _load(Hub, directory / "hub.yml")
