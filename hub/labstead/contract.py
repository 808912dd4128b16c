"""The container contract: what every user container is allowed to be.

The one rule: a container is a pure function of who it is for, of sessions.yml and of the seccomp profile, apart from
its command and its environment, which act only within it. The hub asks Docker for exactly this body, and the gate,
which alone may speak to Docker, makes the same body for itself and refuses whatever differs. Names and units are those
of Docker's Engine API, ContainerCreate (https://docs.docker.com/reference/api/engine/).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labstead.compute import session
from labstead.errors import LabsteadError
from labstead.identity import SESSIONS_DIR, Identity
from labstead.settings import Sessions

LABEL_USER = "org.labstead.user"
"""Label that says whose container it is; only containers that bear it are the gate's business."""
PORT = 8888
"""Port of the notebook server in its container."""
CA_BUNDLE = "/etc/labstead/ca-certificates.crt"
"""Where a session finds the site's certificates, in any image."""
CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)
"""Variables that name that file; each is read by some program that does not look at the system's own certificates."""

_LOG_OPTIONS = {"max-size": "10m", "max-file": "2"}

#: The image's own entrypoint stays in place; the shell is replaced by the server. Its text goes into the command line.
_LAUNCHER = ("/bin/sh", "-c", Path(__file__).with_name("launcher.sh").read_text(encoding="utf-8"), "labstead")


class ContractViolation(LabsteadError):
    """A request for a container that is not what the contract says."""


def container_name(user: str) -> str:
    """Name the container of a user's session."""
    return f"labstead-session-{user}"


def command(server: Sequence[str]) -> list[str]:
    """Wrap the command of a notebook server so that it starts with the sessions' umask, and in a full home, too."""
    return [*_LAUNCHER, *server]


def environment(person: Identity, image_spec: str, settings: Sessions) -> dict[str, str]:
    """Give the variables of a session that come from the machine, not from JupyterHub.

    :param image_spec: reference and digest of its image
    """
    variables = {
        "HOME": str(person.home),
        "USER": person.name,
        "LOGNAME": person.name,
        "SHELL": person.shell,
        "JUPYTER_IMAGE": image_spec,
        "JUPYTER_IMAGE_SPEC": image_spec,
        "XDG_RUNTIME_DIR": str(person.runtime_dir),
        "JUPYTER_RUNTIME_DIR": str(person.runtime_dir / "jupyter"),
        "DATA": str(settings.data_root),
    }
    if person.folders:
        variables["GROUP_FOLDERS"] = ":".join(str(folder) for folder in person.folders)
    if person.scratch is not None:
        # The second is what the notebooks of Pangeo's hubs look for.
        variables["SCRATCH"] = variables["PANGEO_SCRATCH"] = str(person.scratch)
    if settings.ca_bundle is not None:
        variables |= dict.fromkeys(CA_VARIABLES, CA_BUNDLE)
    return variables | settings.environment


def _bind(source: str, target: str, read_only: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        # A mount made on the host later does not appear in a running session, nor the other way round.
        "BindOptions": {"Propagation": "rprivate"},
    }


def _mounts(person: Identity, settings: Sessions) -> list[dict[str, Any]]:
    files = SESSIONS_DIR / person.name
    mounts = [
        _bind(str(settings.home_root), str(settings.home_root), read_only=True),
        _bind(str(person.home), str(person.home), read_only=False),
        *(_bind(str(folder), str(folder), read_only=False) for folder in person.folders),
        _bind(str(settings.data_root), str(settings.data_root), read_only=True),
        _bind(str(files / "passwd"), "/etc/passwd", read_only=True),
        _bind(str(files / "group"), "/etc/group", read_only=True),
    ]
    if person.scratch is not None:
        mounts.append(_bind(str(person.scratch), str(person.scratch), read_only=False))
    if settings.ca_bundle is not None:
        mounts.append(_bind(str(settings.ca_bundle), CA_BUNDLE, read_only=True))
    mounts += [_bind(str(source), str(target), read_only=True) for source, target in session.mounts(settings)]
    return mounts


def container(
    person: Identity, image: str, cmd: Sequence[str], env: Sequence[str], settings: Sessions, profile: str
) -> dict[str, Any]:
    """Make the body of the ContainerCreate call for a session.

    :param person: whose session it is, with the folders of their groups and their scratch
    :param image: reference of one of the allowed images
    :param cmd: command line, wrapped by `command`
    :param env: environment, as `NAME=value`
    :param profile: text of the seccomp profile
    :raises BadInput: when the image is not allowed
    """
    own = f"uid={person.uid},gid={person.gid}"
    return {
        "Image": settings.image(image).reference,
        "Cmd": list(cmd),
        "Env": list(env),
        "User": f"{person.uid}:{person.gid}",
        "WorkingDir": str(person.home),
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "Labels": {LABEL_USER: person.name},
        "HostConfig": {
            "NetworkMode": settings.network,
            "GroupAdd": [str(gid) for gid in person.groups],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true", f"seccomp={profile}"],
            "Mounts": _mounts(person, settings),
            # What a session writes is in its mounts, where limits hold, or in memory; never on Docker's own disk.
            "ReadonlyRootfs": True,
            "Tmpfs": {
                "/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={settings.tmp_size}",  # noqa: S108 - a mount point
                "/var/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={settings.tmp_size}",  # noqa: S108
                "/run/lock": f"rw,nosuid,nodev,noexec,mode=1777,size={2**20}",
                str(person.runtime_dir): f"rw,nosuid,nodev,mode=0700,size={settings.tmp_size // 4},{own}",
            },
            "Memory": settings.memory,
            # Memory and swap together: the same number means no swap.
            "MemorySwap": settings.memory,
            # Docker refuses more than there are.
            "NanoCpus": int(min(settings.cpus, os.cpu_count() or 1) * 1e9),
            "PidsLimit": settings.pids,
            # A program that crashes leaves no image of its memory: neither in a home that may be full, nor with a
            # collector of the host's, which would put it on the host's disk.
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "Init": True,
            "AutoRemove": True,
            "LogConfig": {"Type": "local", "Config": _LOG_OPTIONS},
        },
    }


def _first_difference(asked: object, expected: object, where: str) -> str | None:
    if isinstance(asked, dict) and isinstance(expected, dict):
        for key in sorted(asked.keys() | expected.keys()):
            if key not in expected:
                return f"{where}{key} is not part of the contract"
            if key not in asked:
                return f"{where}{key} is missing"
            if difference := _first_difference(asked[key], expected[key], f"{where}{key}."):
                return difference
        return None
    return None if asked == expected and type(asked) is type(expected) else f"{where.rstrip('.')} differs"


def user_of(labels: object) -> str | None:
    """Read from a container's labels whose session it is; None where it is no session."""
    user = labels.get(LABEL_USER) if isinstance(labels, Mapping) else None
    return user if isinstance(user, str) and user else None


def _strings(value: object, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ContractViolation(f"{what} is not a list of strings")
    return value


def refuse_volumes(reference: str, found: Mapping[str, Any]) -> None:
    """Refuse an image that brings volumes of its own: Docker would make them on its own disk, without a limit.

    :param found: what Docker says of the image
    :raises ContractViolation: when it does
    """
    if volumes := (found.get("Config") or {}).get("Volumes"):
        raise ContractViolation(
            f"image {reference} declares VOLUME {' '.join(sorted(volumes))}, which no limit would hold; "
            "take an image without, see sessions_images"
        )


def checked(body: object, name: str, person: Identity, settings: Sessions, profile: str) -> dict[str, Any]:
    """Check a ContainerCreate body against the contract.

    :param body: what was asked for, parsed from JSON
    :param name: the name that the container is to bear
    :param person: whom the body names, with the folders of their groups and their scratch, looked up by the caller
    :param profile: text of the seccomp profile, read by the caller
    :return: the body to send on; equal to the one asked for, but made here
    :raises ContractViolation: with the first difference
    """
    if not isinstance(body, dict):
        raise ContractViolation("the body is not a JSON object")
    if name != container_name(person.name):
        raise ContractViolation(f"the container of {person.name} is named {container_name(person.name)}, not {name}")
    image = body.get("Image")
    if not isinstance(image, str):
        raise ContractViolation("Image is missing")
    cmd, env = _strings(body.get("Cmd"), "Cmd"), _strings(body.get("Env"), "Env")
    expected = container(person, image, cmd, env, settings, profile)
    if difference := _first_difference(body, expected, ""):
        raise ContractViolation(difference)
    return expected
