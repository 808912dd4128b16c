"""Limits on a real btrfs, in a loop file that this test alone has mounted."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.machine import ROOT

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None, reason="needs root, who may mount, and btrfs-progs"
)

MOUNT = """
truncate --size=200M "$1/image"
mkfs.btrfs --quiet "$1/image" >/dev/null
mount -o loop "$1/image" "$1/disk"
btrfs quota enable "$1/disk"
exec "$2" -c "$3" "$1/disk"
"""

#: Prints a line of JSON for each step.
LIFE = """
import errno, json, os, subprocess, sys
from pathlib import Path
from labstead.accounts import homes, protocol
from labstead.accounts.ledger import Ledger
from labstead.accounts.limits import Limits
from labstead.settings import Accounts, Limit, Quotas

root = Path(sys.argv[1])
for name in ("home", "groups", "skel"):
    (root / name).mkdir()
ledger = Ledger(root / "ledger.sqlite")
quotas = Quotas.model_validate({"home": {"bytes": "10M"}})
limits = Limits(Accounts(home_root=root / "home", group_root=root / "groups", quotas=quotas), ledger)

def tell(**what):
    print(json.dumps(what), flush=True)

def qgroups():
    table = subprocess.run(["btrfs", "qgroup", "show", "--raw", "-r", root], capture_output=True, text=True).stdout
    rows = [line.split() for line in table.splitlines() if line.startswith("0/")]
    return {row[0]: row[3] for row in rows}

def fill(path):
    "Write as the owner until nothing goes in; MiB written."
    os.seteuid(20000)
    try:
        with open(path, "wb", buffering=0) as file:
            for count in range(50):
                try:
                    file.write(os.urandom(2**20))
                except OSError as error:
                    return count if error.errno == errno.EDQUOT else str(error)
    finally:
        os.seteuid(0)

before = qgroups()
anna = ledger.reserve("anna", "created", 20000, 20009, lambda _: False)
ledger.set_state("anna", "active")
home = root / "home" / "anna"
homes.make(home, anna.uid, anna.gid, root / "skel", limits.maker("home", anna.uid))
limits.follow([anna])
(number,) = qgroups().keys() - before.keys()
tell(limit=qgroups()[number], inode=home.stat().st_ino, mode=oct(home.stat().st_mode), uid=home.stat().st_uid)
tell(written=fill(home / "full"))
ledger.spaces.set_limit("home", anna.uid, Limit(bytes=20 * 2**20))
limits.follow([anna])
tell(limit=qgroups()[number], written=fill(home / "more"))
(space,) = limits.show([anna], []).spaces
tell(shown=space.limit_bytes, said_by=space.said_by)

(root / "home" / "plain").mkdir()
os.chown(root / "home" / "plain", 20001, 20001)
plain = ledger.reserve("plain", "created", 20000, 20009, lambda _: False)
tell(problems=limits.follow_all(adopt=True, check=False).problems)

homes.set_aside(home, anna.uid)
homes.delete(homes.removed(home.parent, anna.uid))
ledger.retire("anna")
subprocess.run(["btrfs", "filesystem", "sync", root], check=True, capture_output=True)
subprocess.run(["btrfs", "subvolume", "sync", root], check=True, capture_output=True)
limits.follow_all(adopt=False, check=False)
tell(left=number in qgroups(), rows=[row.number for row in ledger.spaces.all().values()])
"""


@pytest.fixture(scope="module")
def told() -> Iterator[list[dict[str, Any]]]:
    """Give what each step told."""
    # Where everybody can pass through; pytest's own folders are closed to other people.
    folder = Path(tempfile.mkdtemp(prefix="labstead-unit-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield _live(folder)
    finally:
        shutil.rmtree(folder)


def _live(folder: Path) -> list[dict[str, Any]]:
    (folder / "disk").mkdir()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/hub:{ROOT}/session"}
    done = subprocess.run(
        # The mount goes with the namespace.
        ["unshare", "--mount", "bash", "-euc", MOUNT, "sh", str(folder), sys.executable, LIFE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "mount:" in done.stderr or "failed to setup loop" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_home_is_a_subvolume_with_its_limit_from_the_start(told: list[dict[str, Any]]) -> None:
    assert told[0] == {"limit": str(10 * 2**20), "inode": 256, "mode": "0o40700", "uid": 20000}


def test_it_takes_what_fits_and_more_when_it_may(told: list[dict[str, Any]]) -> None:
    assert 8 <= told[1]["written"] <= 10
    assert told[2]["limit"] == str(20 * 2**20)
    assert 18 <= told[1]["written"] + told[2]["written"] <= 20
    assert told[3] == {"shown": 20 * 2**20, "said_by": "own"}


def test_a_plain_folder_is_told_of(told: list[dict[str, Any]]) -> None:
    (problem,) = told[4]["problems"]
    assert "/home/plain: a plain folder on btrfs" in problem


def test_nothing_is_left_of_who_left(told: list[dict[str, Any]]) -> None:
    assert told[5] == {"left": False, "rows": [20001]}
