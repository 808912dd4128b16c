"""What JupyterLab remembers for its user, settings and layouts: it lives in memory, and is kept in the home.

The one rule: in the home a file is replaced whole or left as it was, and that as soon as there is room. JupyterLab
itself empties a file before it writes the new content: on a full disk a theme or a layout is lost.
"""

import atexit
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from labstead_session import room, whole

log = logging.getLogger(__name__)

_PAUSE = 2.0
"""Seconds between two looks."""
_LARGEST, _MOST = 2**20, 2000
"""Bytes of a file, and number of files, that are worth keeping."""
_LOADED = 16 * 2**20
"""Bytes that are loaded at most, and half of what is free where that is less: the memory of a session's own folder is
little, and JupyterLab has to start in it."""

Stamp = tuple[int, int] | None
"""When a file was changed last, in nanoseconds, and its size; None where there is none."""


def _stamp(path: Path) -> Stamp:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _names(top: Path, most: float = math.inf) -> Iterator[Path]:
    """Name the files below a folder, by their paths from there.

    :param most: bytes that they may have together; a file with which they would have more is left out
    """
    count, total = 0, 0
    for folder, _, names in os.walk(top):
        for name in names:
            path = Path(folder, name)
            count += 1
            if count > _MOST:
                return
            with suppress(OSError):
                size = path.stat().st_size
                if not name.startswith(".~") and path.is_file() and size <= _LARGEST and total + size <= most:
                    total += size
                    yield path.relative_to(top)


def _copy(source: Path, target: Path) -> None:
    """Put a copy in the place of a file, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        # Those who keep their settings elsewhere, under git say, go on doing so.
        target = target.resolve()
    whole.copied(source, target)


@dataclass
class Mirror:
    """A folder in memory and the one in the home that it stands for."""

    live: Path
    kept: Path
    _most: int = _LOADED
    _seen: dict[Path, tuple[Stamp, Stamp]] = field(default_factory=dict)

    def load(self) -> None:
        """Fill the folder in memory, as far as there is memory for it."""
        self.live.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Found out once: what was left out then stays left out.
        self._most = min(_LOADED, shutil.disk_usage(self.live).free // 2)
        self.settle()

    def settle(self) -> None:
        """Carry over what has changed; what was changed in both is as it is in memory."""
        loaded = set(_names(self.kept, self._most))
        for name in sorted({*_names(self.live), *loaded, *self._seen}):
            live, kept = self.live / name, self.kept / name
            now = _stamp(live), _stamp(kept)
            before = self._seen.get(name, (None, None))
            if now == before:
                continue
            if now[1] is not None and name not in loaded and name not in self._seen:
                # JupyterLab was never shown it, so what it made under this name is no newer version of it.
                continue
            try:
                _carry(live, kept, now, is_live_newer=now[0] != before[0])
            except OSError as error:
                if not room.is_lack(error):
                    log.warning("%s is not kept: %s", kept, error)
                    self._seen[name] = now
                continue
            self._seen[name] = _stamp(live), _stamp(kept)
            if self._seen[name] == (None, None):
                del self._seen[name]


def _carry(live: Path, kept: Path, now: tuple[Stamp, Stamp], *, is_live_newer: bool) -> None:
    source, target = (live, kept) if is_live_newer else (kept, live)
    if now[0 if is_live_newer else 1] is None:
        target.unlink(missing_ok=True)
    else:
        _copy(source, target)


def start(mirrors: list[Mirror]) -> None:
    """Fill the folders in memory, and keep both alike for as long as the process lives."""
    for mirror in mirrors:
        mirror.load()
    lock = threading.Lock()

    def settle() -> None:
        with lock:
            for mirror in mirrors:
                mirror.settle()

    def run() -> None:
        while True:
            time.sleep(_PAUSE)
            settle()

    threading.Thread(target=run, name="settings", daemon=True).start()
    atexit.register(settle)


def folders(home: Path) -> dict[str, Mirror]:
    """Give what JupyterLab remembers by the name of the setting that says where; nothing where a site says it."""
    spare = room.spare()
    if spare is None:
        return {}
    chosen = Path(os.environ.get("JUPYTER_CONFIG_DIR") or home / ".jupyter")
    # The launcher chooses memory where the home has no room; there may be some later.
    base = home / ".jupyter" if room.is_spare(chosen) else chosen
    places = {
        "user_settings_dir": ("JUPYTERLAB_SETTINGS_DIR", "user-settings"),
        "workspaces_dir": ("JUPYTERLAB_WORKSPACES_DIR", "workspaces"),
    }
    return {
        setting: Mirror(spare / "lab" / name, base / "lab" / name)
        for setting, (variable, name) in places.items()
        if not os.environ.get(variable)
    }
