"""A Dask cluster in a notebook: the code that people write, with nothing to configure.

The rule: `SLURMCluster()` is called without arguments; what a test says to Dask beyond that is about waiting.
"""

import json
from typing import Any

from support.kernel import Kernel

UP = 120
"""Seconds that workers may take to come on a machine that does something else, too."""

OPEN = """
from dask_jobqueue import SLURMCluster
from dask.distributed import Client
cluster = SLURMCluster()
client = Client(cluster)
"""
CLOSE = """
client.close()
cluster.close()
"""


def open_cluster(kernel: Kernel, workers: int = 0) -> None:
    """Make a cluster, named `cluster`, with a client, named `client`."""
    kernel.run(OPEN, UP)
    if workers:
        scale(kernel, workers)


def scale(kernel: Kernel, workers: int) -> None:
    """Ask for workers and wait until that many are there."""
    kernel.run(f"cluster.scale({workers})", UP)
    wait_for_workers(kernel, workers)


def wait_for_workers(kernel: Kernel, workers: int) -> None:
    """Wait until as many workers as that are there."""
    kernel.run(f"client.wait_for_workers({workers}, timeout={UP})", UP + 20)


def close_cluster(kernel: Kernel) -> None:
    """Close it, as people do who remember to."""
    kernel.run(CLOSE, UP)


def on_workers(kernel: Kernel, expression: str) -> list[Any]:
    """Give the value of an expression in each worker."""
    code = f"import json as _json\nprint(_json.dumps(list(client.run(lambda: {expression}).values())))"
    found: list[Any] = json.loads(kernel.run(code, UP).strip().splitlines()[-1])
    return found


def jobs_of_workers(kernel: Kernel) -> set[str]:
    """Give the number of each worker's job."""
    return set(on_workers(kernel, "__import__('os').environ['SLURM_JOB_ID']"))
