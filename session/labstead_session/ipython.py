"""Where IPython keeps its profile and history: in the home, and in memory while that has no room.

The one rule: with room it is as if this were not here. Without, IPython could not start at all, or would take its
history for broken and put it aside (measured: IPython 9).
"""

import os
import shutil
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from labstead_session import room

_LARGEST = 2**20
"""Bytes of a file of settings that is worth a copy in memory."""


def choose_profile(environment: MutableMapping[str, str], home: Path) -> None:
    """Put the place of IPython's profile into the variables of a kernel that is about to start."""
    runtime = environment.get("XDG_RUNTIME_DIR")
    if not runtime:
        return
    spare = Path(runtime, "labstead", "ipython")
    if environment.get("IPYTHONDIR", os.fspath(spare)) != os.fspath(spare):
        return
    if room.has_room(home):
        environment.pop("IPYTHONDIR", None)
        return
    with suppress(OSError):
        _copy_settings(home / ".ipython" / "profile_default", spare / "profile_default")
    environment["IPYTHONDIR"] = os.fspath(spare)


def _copy_settings(source: Path, target: Path) -> None:
    """Copy what a person has set up: programs that run at the start, and settings."""
    target.mkdir(parents=True, exist_ok=True)
    for path in [*source.glob("*.py"), *source.glob("startup/*")]:
        if path.is_file() and path.stat().st_size <= _LARGEST:
            place = target / path.relative_to(source)
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, place)
