"""Whether a running unit is older than the files it was started from.

The one rule: the files and the unit are asked, not what some earlier run remembers. A run of site.yml that dies
between writing a file and restarting its unit leaves nothing behind that the next run would not see.
"""

import os
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from labstead.errors import BadInput

_TIME = "%a %Y-%m-%d %H:%M:%S.%f %Z"
"""How `systemctl --timestamp=us+utc` writes a time."""


def _properties(unit: str) -> dict[str, str]:
    names = "LoadState,ActiveState,ActiveEnterTimestamp,StateChangeTimestamp,NeedDaemonReload,ReloadResult"
    done = subprocess.run(
        ["systemctl", "show", "--timestamp=us+utc", f"--property={names}", "--", unit],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def is_outdated(unit: str, files: Iterable[Path]) -> bool:
    """Tell whether a unit should be restarted, or reloaded, to run what is on disk.

    A unit that failed, or whose last reload failed, is outdated too. One that is not running is not: it will start
    from what is there.

    :param files: what the unit reads when it starts; for a link, the link itself counts. Missing ones do not count.
    :raises BadInput: when systemd does not know the unit
    """
    properties = _properties(unit)
    if properties["LoadState"] != "loaded":
        raise BadInput(f"{unit}: systemd says {properties['LoadState']}; is the unit's name right?")
    if properties["ActiveState"] == "failed":
        return True
    if properties["ActiveState"] not in ("active", "reloading", "activating"):
        return False
    if properties.get("NeedDaemonReload") == "yes" or properties.get("ReloadResult", "success") != "success":
        return True
    # A reload changes a service's state and counts as a start; a socket changes its state with each connection.
    start = "ActiveEnterTimestamp" if unit.endswith(".socket") else "StateChangeTimestamp"
    since = datetime.strptime(properties[start], _TIME).replace(tzinfo=UTC).timestamp()
    return any(os.lstat(file).st_ctime > since for file in files if os.path.lexists(file))
