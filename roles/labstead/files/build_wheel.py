"""Build the wheel of a flit package, the same bytes from the same source, and print what came out as JSON.

Usage: build_wheel.py SOURCE FOLDER

The rule: the wheel gets its name in FOLDER last, so that a killed run leaves no half one.
"""

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path


def build(source: Path, folder: Path) -> dict[str, str]:
    """Build the wheel into a folder named for its hash: version, path, sha256."""
    try:
        from flit_core import buildapi
    except ImportError:
        sys.exit("flit_core is missing beside Ansible; use the environment that `make venv` makes")
    # The zip format has no earlier date; file times must not change the hash.
    os.environ["SOURCE_DATE_EPOCH"] = "315532800"
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(source)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        name = buildapi.build_wheel(scratch)
        wheel = Path(scratch, name)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        place = folder / digest[:12]
        place.mkdir(exist_ok=True)
        wheel.replace(place / name)
    return {"version": name.split("-")[1], "path": str(place / name), "sha256": digest}


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())))
