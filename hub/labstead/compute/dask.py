"""Settings of Dask in sessions: /etc/dask/labstead.yaml there.

The one rule: `SLURMCluster()` works with nothing to fill in. What stands here is the site's and may be overruled in
~/.config/dask or in a call; what belongs to one session alone is in its environment (`labstead.compute.session`).
"""

from typing import Any

from labstead.compute import session
from labstead.settings import Compute


def settings(compute: Compute) -> dict[str, Any]:
    """Make the settings."""
    worker = compute.worker
    slurm = {
        "queue": compute.partition,
        "cores": worker.cores,
        "processes": 1,
        "memory": f"{worker.memory // 2**20} MiB",
        "walltime": worker.time,
        "death-timeout": 60,
        "worker-extra-args": ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"],
        "scheduler-options": {"dashboard_address": "127.0.0.1:0"},
    }
    return {
        "jobqueue": {"slurm": slurm},
        "distributed": {
            "scheduler": {"preload": [str(preload) for preload in session.PRELOADS]},
            # What schedulers speak where nobody says; a LocalCluster speaks tcp with itself all the same.
            "comm": {"default-scheme": "tls"},
            "dashboard": {"link": "{JUPYTERHUB_SERVICE_PREFIX}proxy/{port}/status"},
        },
        # The preload's; distributed's own setting of that name would close a LocalCluster, too.
        "labstead": {"idle-timeout": f"{compute.idle_minutes} minutes" if compute.idle_minutes else None},
        "labextension": {
            "factory": {"module": "dask_jobqueue", "class": "SLURMCluster", "args": [], "kwargs": {}},
        },
    }
