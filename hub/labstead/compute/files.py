"""Files that sessions and jobs find on the machine: Dask's settings, Slurm's commands of a session, in-image.

The one rule: what is there is never written into. A new file takes the place of the old one, which sessions and jobs
that have it keep as it was.
"""

import os
import stat
from pathlib import Path

import yaml

from labstead import insession
from labstead.compute import dask, runner, session
from labstead.errors import BadInput
from labstead.settings import Compute, Sessions

_HEAD = "# Written by labstead. Your own settings belong in ~/.config/dask, and they count more.\n"


def put(path: Path, text: str, mode: int) -> bool:
    """Put a file in place whole; its folder, too.

    :return: whether it has changed
    """
    try:
        if path.read_text(encoding="utf-8") == text and stat.S_IMODE(path.stat().st_mode) == mode:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with new.open("x", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())
    new.rename(path)
    return True


def _certificates(bundle: Path) -> str:
    try:
        return bundle.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{bundle}: {getattr(error, 'strerror', None) or 'not text'}; see site_ca_certificates"
        ) from None


def wanted(compute: Compute, sessions: Sessions) -> list[tuple[Path, str, int]]:
    """List the files: path, content, mode.

    :raises BadInput: where sessions have no Slurm, or the site's certificates are missing
    """
    sources, programs = Path(insession.__file__).parent, runner.compute_of(sessions).images_root / "bin"
    settings = _HEAD + yaml.safe_dump(dask.settings(compute), sort_keys=False)
    files = [
        (session.DASK_SETTINGS, settings, 0o644),
        (session.PROGRAMS_DIR / "slurm", (sources / "slurm.py").read_text(encoding="utf-8"), 0o755),
        *((path, (sources / path.name).read_text(encoding="utf-8"), 0o644) for path in session.PRELOADS),
        # A copy, as other machines have IMAGES_ROOT alone.
        (programs / session.TLS_ERRORS.name, (sources / session.TLS_ERRORS.name).read_text(encoding="utf-8"), 0o644),
        *((programs / name, text, 0o755) for name, text in runner.scripts(compute, sessions).items()),
    ]
    if sessions.ca_bundle is not None:
        files.append((runner.certificates_file(sessions), _certificates(sessions.ca_bundle), 0o644))
    return files


def ensure(compute: Compute, sessions: Sessions) -> list[Path]:
    """Put those in place that are missing or differ; give them."""
    return [path for path, text, mode in wanted(compute, sessions) if put(path, text, mode)]
