"""What a session has of Slurm: programs and settings of the host's, and variables.

The one rule: all of it follows from sessions.yml, the person and the image; hub and gate each make the same of it.
"""

import shlex
from pathlib import Path

from labstead.identity import Identity
from labstead.settings import Sessions

COMMANDS = ("sbatch", "scancel", "squeue", "sinfo", "sacct")
"""Slurm's commands that a session has."""
RELAY_DIR = Path("/run/labstead/relay")
"""Folder of the relay's socket, bound whole: a socket that is made anew appears in sessions that run."""
PROGRAMS_DIR = Path("/opt/labstead/session")
"""Where what `labstead.insession` holds lies on the host."""
PRELOAD = PROGRAMS_DIR / "dask_preload.py"
"""What each scheduler of Dask loads, at the same path in sessions."""
TLS_ERRORS = PROGRAMS_DIR / "tls_errors.py"
"""What each process of Dask loads, at the same path in sessions and jobs."""
PRELOADS = (TLS_ERRORS, PRELOAD)
"""What a scheduler loads."""
DASK_SETTINGS = Path("/etc/labstead/dask.yaml")
"""Settings of Dask for sessions, on the host."""

_KEYS = ("ca", "cert", "key")
_ROLES = ("scheduler", "worker", "client")
_DIGITS = 12


def keys_dir(home: Path) -> Path:
    """Give the folder in a home where workers find the certificates of the session."""
    return home / ".local/share/labstead/dask"


def digest(image_id: str) -> str:
    """Shorten Docker's id of an image, sha256:…, to what its flattened copy is called."""
    return image_id.removeprefix("sha256:")[:_DIGITS]


def mounts(sessions: Sessions) -> list[tuple[Path, Path]]:
    """List what of the host's a session sees, to read only.

    :return: path on the host, path in the session; nothing where there is no Slurm
    """
    if sessions.compute is None:
        return []
    images = sessions.compute.images_root / "images"
    return [
        (RELAY_DIR, RELAY_DIR),
        # Single files: a session keeps what it started with while the next release lies down beside it.
        *((PROGRAMS_DIR / "slurm", Path("/usr/local/bin", command)) for command in COMMANDS),
        *((preload, preload) for preload in PRELOADS),
        (DASK_SETTINGS, Path("/etc/dask/labstead.yaml")),
        # What is flattened, and with which versions.
        (images, images),
    ]


def environment(person: Identity, image_id: str, sessions: Sessions) -> dict[str, str]:
    """Give the variables of a session that Dask and the clients read; none where there is no Slurm.

    Variables beat the person's own ~/.config/dask, so only what differs from session to session is here; the rest is
    in `labstead.compute.dask`.

    :param image_id: Docker's id of the session's image
    """
    if sessions.compute is None:
        return {}
    image, home = digest(image_id), keys_dir(person.home)
    # In memory, where there is always room; workers have copies in the home (insession/dask_preload.py).
    keys = {key: str(person.runtime_dir / "labstead/dask" / f"{key}.pem") for key in _KEYS}
    variables = {
        "LABSTEAD_IMAGE": image,
        "LABSTEAD_IMAGES_ROOT": str(sessions.compute.images_root),
        "LABSTEAD_CLUSTERS": str(sessions.compute.clusters_per_user),
        "DASK_JOBQUEUE__SLURM__PYTHON": shlex.join(
            [str(sessions.compute.images_root / "bin" / "in-image"), "--dask", image, "python3"]
        ),
        "DASK_JOBQUEUE__SLURM__LOG_DIRECTORY": str(home / "logs"),
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": keys["ca"],
    }
    if person.scratch is not None and sessions.compute.cluster is None:
        # Where workers put what does not fit into memory; on this machine /tmp of a job is memory, too.
        variables["DASK_JOBQUEUE__SLURM__LOCAL_DIRECTORY"] = str(person.scratch)
    for role in _ROLES:
        prefix = f"DASK_DISTRIBUTED__COMM__TLS__{role.upper()}__"
        variables |= {f"{prefix}KEY": keys["key"], f"{prefix}CERT": keys["cert"]}
    return variables
