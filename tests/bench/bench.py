"""Compare the start of a labstead session with stock JupyterHub and with plain `docker run`, on a throwaway host.

The rule: it tells ratios of one run and judges nothing; seconds belong to the machine that it ran on.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
HOST = REPOSITORY / "tests" / "hosts" / "host"
RESULT = REPOSITORY / ".build" / "bench.json"
PYTHON = "/opt/labstead/current/bin/python"
LONGEST = 3600

Rounds = Sequence[Sequence[float]]


SUMMARY: Mapping[str, Callable[[Sequence[float]], float]] = {"alone": statistics.median, "at_once": max}
"""What stands for a round: the middle one of the starts alone; of those at once, the last."""


def summary(kind: str, rounds: Rounds) -> list[float]:
    """Give the one number of each round, in seconds."""
    return [SUMMARY[kind](seconds) for seconds in rounds]


def ratio(kind: str, rounds: Rounds, to: Rounds) -> float:
    """Give the median of the ratios of each round."""
    pairs = zip(summary(kind, rounds), summary(kind, to), strict=True)
    return statistics.median(own / other for own, other in pairs)


def table(result: Mapping[str, Any]) -> str:
    """Write the result for people."""
    ways = result["seconds"]
    plain, stock, *_ = ways
    together = f"{result['at_once']} at once"
    lines = [f"{'':34}{'alone':>30}   {together:>30}"]
    columns = f"{'seconds':>10}{'to plain':>10}{'to stock':>10}"
    lines.append(f"{'start until ready':34}{columns}   {columns}")
    for title, kinds in ways.items():
        cells = [
            f"{statistics.median(summary(kind, rounds)):10.2f}"
            f"{ratio(kind, rounds, ways[plain][kind]):10.2f}{ratio(kind, rounds, ways[stock][kind]):10.2f}"
            for kind, rounds in kinds.items()
        ]
        lines.append(f"{title:34}{'   '.join(cells)}")
    count = len(ways[plain]["alone"])
    lines.append(f"Medians of {count} interleaved rounds on {result['cores']} cores; at once: until the last is ready.")
    if workers := result.get("workers"):
        (title, own), (other_title, other) = workers.items()
        pairs = statistics.median(one / two for one, two in zip(own, other, strict=True))
        lines.append(
            f"Dask worker by {title}: {statistics.median(own):.2f} s, by {other_title}: "
            f"{statistics.median(other):.2f} s; median ratio of {len(own)} pairs {pairs:.2f}"
        )
    return "\n".join(lines)


def packed(files: Iterable[Path]) -> bytes:
    """Put files into a tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for file in files:
            tar.add(file, file.name)
    return stream.getvalue()


def in_host(name: str, *words: str, **kwargs: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a program in the host, as root."""
    return subprocess.run([HOST, "exec", name, "--", *words], check=False, **kwargs)


def run(name: str, rounds: int, at_once: int) -> dict[str, Any] | None:
    """Measure in the host; None where that failed, which has been told."""
    if in_host(name, "test", "-x", PYTHON).returncode:
        print(f"bench: '{name}' is not there or has no hub; run `make demo` first", file=sys.stderr)
        return None
    proxies = [f"{key}={value}" for key, value in os.environ.items() if key.lower().endswith("_proxy")]
    files = packed([HERE / "measure.py", HERE / "stock_hub.py", REPOSITORY / "hub" / "requirements.lock"])
    # Each run has its own folder: one that was killed here may still be at work there.
    unpack = 'folder=$(mktemp -d /var/tmp/labstead-bench.XXXXXX) && tar -x -C "$folder" && echo "$folder"'
    unpacked = in_host(name, "sh", "-c", unpack, input=files, stdout=subprocess.PIPE, timeout=60)
    unpacked.check_returncode()
    folder = unpacked.stdout.decode().strip()
    command = [PYTHON, f"{folder}/measure.py", "--rounds", str(rounds), "--at-once", str(at_once)]
    try:
        if in_host(name, "env", *proxies, *command, "--json", f"{folder}/result.json", timeout=LONGEST).returncode:
            return None
        written = in_host(name, "cat", f"{folder}/result.json", stdout=subprocess.PIPE, timeout=60)
        result: dict[str, Any] = json.loads(written.stdout)
        return result
    finally:
        in_host(name, "rm", "-rf", folder, timeout=60)


def positive(text: str) -> int:
    """Read a number of at least one."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--host", default="demo", help="a throwaway host with a hub (default: demo)")
    parser.add_argument("--rounds", type=positive, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--at-once", type=positive, default=8, help="sessions that start together (default: 8)")
    parser.add_argument("--json", type=Path, default=RESULT, help="file for all measurements (default: %(default)s)")
    words = parser.parse_args()
    try:
        result = run(words.host, words.rounds, words.at_once)
    except (subprocess.SubprocessError, KeyboardInterrupt) as error:
        print(f"bench: broken off: {error or 'interrupted'}", file=sys.stderr)
        return 1
    if result is None:
        return 1
    words.json.parent.mkdir(parents=True, exist_ok=True)
    words.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(result)}\nAll measurements: {words.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
