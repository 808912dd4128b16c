"""Extensions of the notebook server that are loaded once somebody wants them: clusters of Dask, and proxied ports.

They import distributed and aiohttp, with which a server would take half as long again to start, for people of whom most
never use either (images/base/README.md).

The one rule: whoever asks for them finds them as if they had been there from the start, and whoever has enabled or
disabled one by Jupyter's own settings has it that way. Their own handlers see to who may ask.

    dask/clusters …                    dask_labextension; the list is empty as long as nobody has asked for a cluster
    proxy/PORT/ …, server-proxy/ …     jupyter_server_proxy; at once where a program of its own is there for it
"""

import importlib
import re
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado.httputil import HTTPServerRequest
from tornado.routing import PathMatches, Router, Rule
from tornado.web import Application, authenticated

_EXTENSIONS = (
    ("dask_labextension", "dask/.*", "dask/clusters", "[]"),
    ("jupyter_server_proxy", "(?:server-)?proxy/.*", "server-proxy/servers-info", '{"server_processes": []}'),
)
"""Module, what it answers, what JupyterLab asks for as it opens, and the answer as long as there is nothing."""


class _NothingHandler(APIHandler):  # type: ignore[misc]
    """Answer what an extension would as long as there is nothing."""

    auth_resource = "server"

    def initialize(self, nothing: str) -> None:
        self._nothing = nothing

    @authenticated
    @authorized  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Say that there is nothing."""
        await self.finish(self._nothing)


class _Late(Router):
    """Loads an extension at the first request that is for it, and leaves that and all later ones to it."""

    def __init__(self, server: Any, module: str, list_path: str, nothing: str) -> None:
        self._server, self._module, self._list_path, self._nothing = server, module, list_path, nothing
        self._is_loaded = False

    def find_handler(self, request: HTTPServerRequest, **_kwargs: Any) -> Any:
        """Give the handler of a request; None: whatever comes next among the server's handlers."""
        if self._is_loaded:
            return None
        if request.method == "GET" and request.path.rstrip("/") == self._list_path:
            return self._server.web_app.get_handler_delegate(request, _NothingHandler, {"nothing": self._nothing})
        self.load()
        # The extension's handlers are behind this one now, and are asked next.
        return None

    def load(self) -> None:
        """Load the extension."""
        self._is_loaded = True
        try:
            importlib.import_module(self._module).load_jupyter_server_extension(self._server)
        except Exception:
            self._server.log.exception("labstead: %s cannot be loaded", self._module)


def add(server: Any) -> None:
    """Have the extensions loaded when they are wanted."""
    base, late = server.web_app.settings["base_url"], {}
    for module, pattern, list_path, nothing in _EXTENSIONS:
        if module not in server.extension_manager.extensions and find_spec(module):
            late[module] = _Late(server, module, base + list_path, nothing)
            rule = Rule(PathMatches(re.escape(base) + pattern), late[module])
            # Jupyter's own add_handlers takes handlers alone.
            Application.add_handlers(server.web_app, ".*", [rule])
    proxy = late.get("jupyter_server_proxy")
    if proxy and ("ServerProxy" in server.config or entry_points(group="jupyter_serverproxy_servers")):
        # Programs with an address of their own, such as /rstudio.
        proxy.load()
