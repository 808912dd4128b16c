"""The command `quota`: how much of their space on disk somebody uses, and may use.

The one rule: it leaves everything as it is.

Exit codes: 0 there is room, 1 something is full, 2 the command itself is wrong.
"""

import json
import os
import sys

from labstead_session import spaces

HELP = """\
usage: quota [--json]

Show what your home, the folders of your groups and your scratch hold, and how much they may hold.

  --json   answer in JSON; sizes are bytes
"""


def run(words: list[str]) -> int:
    """Carry out a command line and give its exit code."""
    if words in (["-h"], ["--help"]):
        sys.stdout.write(HELP)
        return 0
    if words not in ([], ["--json"]):
        sys.stderr.write(f"quota: {' '.join(words)!r} is not known; see `quota --help`\n")
        return 2
    found = spaces.ask(os.environ, is_doubted=True)
    if words:
        sys.stdout.write(json.dumps(found.model, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(spaces.lines(found.spaces)) + "\n")
        if found.problem:
            sys.stderr.write(
                f"quota: {found.problem}; these are the numbers of the disks, and your own limit may be lower\n"
            )
        for notice in [space.notice for space in found.spaces if space.notice]:
            sys.stderr.write(f"quota: {notice}\n")
    return 1 if any(space.level == "full" for space in found.spaces) else 0


def main() -> None:
    """Run as the command."""
    sys.exit(run(sys.argv[1:]))
