"""JupyterHub reads this file; all that it says is in /etc/labstead and in `labstead.hub.configure`."""

from traitlets.config import get_config

from labstead import settings
from labstead.hub import configure

configure.apply(get_config(), settings.load_hub(), settings.load_sessions())
