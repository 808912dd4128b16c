"""JupyterHub with DockerSpawner as one sets it up on an afternoon; everything that is not said here is its default.

The rule: only what it needs to run beside labstead on the same machine, with the same image, is set.
"""

import os
from typing import Any

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821

gateway = os.environ["BENCH_GATEWAY"]

c.JupyterHub.bind_url = "http://127.0.0.1:18000"
c.JupyterHub.hub_bind_url = f"http://{gateway}:18081"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:18001"
c.ConfigurableHTTPProxy.command = os.environ["BENCH_PROXY"].split()

c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.services = [{"name": "bench", "api_token": os.environ["BENCH_TOKEN"]}]
c.JupyterHub.load_roles = [{"name": "bench", "scopes": ["admin:users", "admin:servers"], "services": ["bench"]}]

c.JupyterHub.spawner_class = "docker"
c.DockerSpawner.image = os.environ["BENCH_IMAGE"]
c.DockerSpawner.network_name = os.environ["BENCH_NETWORK"]
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.name_template = "labstead-bench-{username}"
c.DockerSpawner.remove = True
# The image names no user of its own, and Jupyter does not run as root.
c.DockerSpawner.extra_create_kwargs = {"user": "1000:1000", "working_dir": "/tmp"}
c.DockerSpawner.environment = {"HOME": "/tmp"}
