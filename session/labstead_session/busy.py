"""Cells that compute count as activity of a session, also while they print nothing.

Jupyter hears of a kernel only when it says something. Who has a long calculation run over night would find the session
stopped in the morning where idle ones are (sessions_idle_hours).

The one rule: what computes is not idle, within a maximum; a cell that hangs must not keep its session for ever.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from tornado.ioloop import PeriodicCallback

_LOOK_SECONDS = 60
_MOST = timedelta(hours=72)
"""How long a cell may say nothing and still count."""


def note(server: Any) -> None:
    """Tell Jupyter that a session is active where a kernel computes.

    :param server: the Jupyter server, whose `last_activity` the hub is told every five minutes
    """
    now = datetime.now(UTC)
    kernels = [server.kernel_manager.get_kernel(ident) for ident in server.kernel_manager.list_kernel_ids()]
    # Both are there from the kernel's first word on; a cell's first word is that it is busy.
    if any(
        getattr(kernel, "execution_state", None) == "busy" and now - kernel.last_activity < _MOST for kernel in kernels
    ):
        server.web_app.settings["last_activity_times"]["labstead_kernels"] = now


def start(server: Any) -> None:
    """Look after it for as long as a server runs."""
    PeriodicCallback(lambda: note(server), _LOOK_SECONDS * 1000).start()
