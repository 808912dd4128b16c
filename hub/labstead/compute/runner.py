"""What runs a job in the image of a session: the programs in IMAGES_ROOT/bin, the same on every machine of a cluster.

The one rule: they are a pure function of compute.yml and sessions.yml, and hold no secret: anybody may read and run
them, with no rights but their own.
"""

import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from labstead import contract
from labstead.compute import session
from labstead.errors import BadInput
from labstead.settings import Compute, SessionCompute, Sessions

_HERE = Path(__file__).parent
_PROGRAMS = {"charliecloud": "ch-run", "apptainer": "apptainer"}
"""What each runtime's command is called."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def program(compute: Compute) -> str | None:
    """Find the runtime on this machine; None: it is not here."""
    return shutil.which(_PROGRAMS[compute.runtime])


def compute_of(sessions: Sessions) -> SessionCompute:
    """Give what sessions have of Slurm.

    :raises BadInput: where that is nothing
    """
    if sessions.compute is None:
        raise BadInput("labstead: sessions have no Slurm here; see slurm_mode")
    return sessions.compute


def images_folder(sessions: Sessions) -> Path:
    """Give the folder of the flattened images."""
    return compute_of(sessions).images_root / "images"


def certificates_file(sessions: Sessions) -> Path:
    """Give where jobs find the site's certificates: a copy, as other machines may not have the hub's."""
    return compute_of(sessions).images_root / "ca-certificates.crt"


def roots(sessions: Sessions) -> tuple[Path, ...]:
    """Give the folders that jobs have from outside, those that stand below another one left out."""
    wanted = {sessions.home_root, sessions.group_root, sessions.data_root}
    if sessions.scratch_root is not None:
        wanted.add(sessions.scratch_root)
    return tuple(sorted(root for root in wanted if not any(other in root.parents for other in wanted)))


def defaults(variables: Mapping[str, str]) -> str:
    """Write variables as lines that in-image reads; what is no name in a shell is left out."""
    return "".join(
        f"default {name} {shlex.quote(value)}\n" for name, value in variables.items() if _VARIABLE.fullmatch(name)
    )


def _program(name: str, settings: Iterable[str]) -> str:
    """Put settings below the first line of a program."""
    first, rest = (_HERE / f"{name}.sh").read_text(encoding="utf-8").split("\n", 1)
    return "\n".join((first, "# Written by labstead; changes are lost.", *settings, rest))


def scripts(compute: Compute, sessions: Sessions) -> dict[str, str]:
    """Make the programs.

    :return: text by name
    :raises BadInput: where sessions have no Slurm
    """
    images_root = compute_of(sessions).images_root
    words = {
        "images": str(images_folder(sessions)),
        "roots": " ".join(map(str, roots(sessions))),
        "home_root": str(sessions.home_root),
        "group_root": str(sessions.group_root),
        "data_root": str(sessions.data_root),
        "scratch_root": str(sessions.scratch_root or ""),
        "certificates": contract.CA_BUNDLE if sessions.ca_bundle else "",
        "certificates_file": str(certificates_file(sessions)),
        "tls_errors": str(session.TLS_ERRORS),
        "tls_errors_file": str(images_root / "bin" / session.TLS_ERRORS.name),
        "runtime": _PROGRAMS[compute.runtime],
    }
    environment = dict.fromkeys(contract.CA_VARIABLES, contract.CA_BUNDLE) if sessions.ca_bundle else {}
    site = defaults(environment | sessions.environment)
    settings = [f"{name}={shlex.quote(value)}" for name, value in words.items()]
    in_image = images_root / "bin" / "in-image"
    return {
        "in-image": _program("in-image", [*settings, f"site() {{\n{site}:\n}}"]),
        "in-session": _program("in-session", [f"in_image={shlex.quote(str(in_image))}"]),
    }
