"""A home that is full for the kernel, with the notebook server that its owner has.

The rule: one kind of limit on each file system, as a guest is slow; that either holds for both is in `test_limits`.
"""

import json
from pathlib import Path

from support import confined, full_home
from support.machine import ROOT

from .conftest import Bench

BERT = "bert-of-the-guest"
LAUNCHER = (ROOT / "hub" / "labstead" / "launcher.sh").read_text(encoding="utf-8")
USED_UP = {"xfs": "bytes", "ext4": "files"}


def test_a_full_home_locks_nobody_out(bench: Bench, measured: list[str]) -> None:
    """Work, fill the home, come back: the server starts, a notebook opens, something large is deleted, and it saves."""
    kind = USED_UP[bench.kind]
    session = confined.start(bench.guest, BERT)
    try:
        source = Path(full_home.__file__).read_text(encoding="utf-8")
        found = json.loads(session.python(source, kind, LAUNCHER))
    finally:
        session.stop()
    assert full_home.verdict(found) == [], found
    seconds = found["full"]["seconds until it answers"]
    measured.append(f"notebook server in a home without {kind} on {bench.kind}: answers after {seconds} s in a guest")
