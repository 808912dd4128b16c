"""Whether there is room where something is about to be written, tried rather than calculated.

The one rule: what it puts there to find out is gone again when it answers.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path

_FILES, _BYTES = 16, 2**18
"""As much as a kernel and IPython write before anybody asks them to."""


def is_lack(error: BaseException | None) -> bool:
    """Tell whether an error says that a disk or its owner's part of it is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def spare() -> Path | None:
    """Name the folder in memory for what does not fit into the home; None outside of a session."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "labstead") if runtime else None


def is_spare(path: Path) -> bool:
    """Tell whether a path is in that folder."""
    return spare() in path.parents


def has_room(folder: Path) -> bool:
    """Tell whether a handful of small files fits."""
    try:
        place = Path(tempfile.mkdtemp(prefix=".labstead-room-", dir=folder))
    except OSError:
        return False
    try:
        for number in range(_FILES):
            (place / str(number)).touch()
        with (place / "0").open("wb") as file:
            file.write(bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    else:
        return True
    finally:
        shutil.rmtree(place, ignore_errors=True)
