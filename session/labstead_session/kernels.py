"""Kernels as Jupyter starts them, but for a look at the home first.

The one rule: a home without room keeps no kernel from starting; see `ipython`.
"""

from pathlib import Path
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from labstead_session import ipython

NAME = "labstead"
"""Of the entry point in pyproject.toml."""


class Provisioner(LocalProvisioner):  # type: ignore[misc]
    """Start kernels as processes of the session."""

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Prepare the variables of a kernel."""
        kwargs = await super().pre_launch(**kwargs)
        ipython.choose_profile(kwargs["env"], Path.home())
        return kwargs
