"""Extensions of the notebook server that are loaded late, on a real tornado and stand-ins for Jupyter's own parts."""

import asyncio
import importlib
import json
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler, authenticated

BASE = "/user/anna.b/"


class APIHandler(RequestHandler):
    """As much of Jupyter's as it takes."""

    def get_current_user(self) -> str | None:
        return self.request.headers.get("Who")

    def get_login_url(self) -> str:
        return "/login"


class Extension(ModuleType):
    """Says by which handler it was reached."""

    def __init__(self, name: str, patterns: tuple[str, ...]) -> None:
        super().__init__(name)
        self.patterns, self.loads = patterns, 0

    def load_jupyter_server_extension(self, server: Any) -> None:
        self.loads += 1
        name = self.__name__

        class Handler(APIHandler):
            @authenticated
            def get(self, *words: str) -> None:
                self.finish(json.dumps([name, *words]))

            put = get

        server.web_app.add_handlers(".*", [(f"{BASE}{pattern}", Handler) for pattern in self.patterns])


class Default(RequestHandler):
    """Jupyter's own handlers, the last of which takes everything."""

    def get(self) -> None:
        self.set_status(404)
        self.finish("none")

    put = get


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the module, without Jupyter."""
    decorator, handlers = ModuleType("jupyter_server.auth.decorator"), ModuleType("jupyter_server.base.handlers")
    vars(decorator)["authorized"] = lambda method: method
    vars(handlers)["APIHandler"] = APIHandler
    for name, module in {
        "jupyter_server": ModuleType("jupyter_server"),
        "jupyter_server.auth": ModuleType("jupyter_server.auth"),
        "jupyter_server.auth.decorator": decorator,
        "jupyter_server.base": ModuleType("jupyter_server.base"),
        "jupyter_server.base.handlers": handlers,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "labstead_session.late", raising=False)
    module = importlib.import_module("labstead_session.late")
    monkeypatch.delitem(sys.modules, "labstead_session.late")
    monkeypatch.setattr(module, "entry_points", lambda **_kwargs: ())
    return module


@pytest.fixture
def extensions(late: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Extension]:
    """Install the two extensions."""
    found = {
        "dask_labextension": Extension("dask_labextension", ("dask/clusters/?", r"dask/clusters/(\w+)")),
        "jupyter_server_proxy": Extension(
            "jupyter_server_proxy", (r"proxy/(\d+)(/.*|)", "server-proxy/servers-info", "rstudio")
        ),
    }
    for name, extension in found.items():
        monkeypatch.setitem(sys.modules, name, extension)
    monkeypatch.setattr(late, "find_spec", found.get)
    return found


@pytest.fixture
def server() -> Any:
    """Give a notebook server without extensions."""
    errors: list[str] = []
    return SimpleNamespace(
        web_app=Application([(".*", Default)], base_url=BASE),
        extension_manager=SimpleNamespace(extensions={"jupyterlab": object()}),
        config={},
        log=SimpleNamespace(exception=lambda text, *words: errors.append(text % words)),
        errors=errors,
    )


@pytest.fixture
def ask(server: Any) -> Callable[..., list[tuple[int, str]]]:
    """Give the function that makes requests, one after the other."""

    async def go(requests: tuple[str, ...], who: str | None) -> list[tuple[int, str]]:
        http = HTTPServer(server.web_app)
        (listening,) = bind_sockets(0, "127.0.0.1")
        http.add_sockets([listening])
        found = []
        for request in requests:
            method, path = request.split()
            answer = await AsyncHTTPClient(force_instance=True).fetch(
                f"http://127.0.0.1:{listening.getsockname()[1]}{path}",
                method=method,
                headers={"Who": who} if who else {},
                body=b"" if method == "PUT" else None,
                raise_error=False,
                follow_redirects=False,
            )
            found.append((answer.code, answer.body.decode()))
        http.stop()
        return found

    return lambda *requests, who="anna": asyncio.run(asyncio.wait_for(go(requests, who), 30))


Ask = Callable[..., list[tuple[int, str]]]


def test_nothing_is_loaded_before_it_is_wanted(
    late: Any, extensions: dict[str, Extension], server: Any, ask: Ask
) -> None:
    """JupyterLab asks for both lists as it opens."""
    late.add(server)
    assert ask(
        f"GET {BASE}dask/clusters", f"GET {BASE}dask/clusters/", f"GET {BASE}server-proxy/servers-info", "GET /x"
    ) == [(200, "[]"), (200, "[]"), (200, '{"server_processes": []}'), (404, "none")]
    assert [extension.loads for extension in extensions.values()] == [0, 0]


def test_who_asks_finds_an_extension_as_if_it_had_been_there(
    late: Any, extensions: dict[str, Extension], server: Any, ask: Ask
) -> None:
    late.add(server)
    assert ask(f"PUT {BASE}dask/clusters", f"GET {BASE}dask/clusters", f"GET {BASE}dask/clusters/ab?x=/proxy/1") == [
        (200, '["dask_labextension"]'),
        (200, '["dask_labextension"]'),
        (200, '["dask_labextension", "ab"]'),
    ]
    assert [extension.loads for extension in extensions.values()] == [1, 0]
    assert ask(f"GET {BASE}proxy/8787/status", f"GET {BASE}server-proxy/servers-info", f"GET {BASE}proxy/1") == [
        (200, '["jupyter_server_proxy", "8787", "/status"]'),
        (200, '["jupyter_server_proxy"]'),
        (200, '["jupyter_server_proxy", "1", ""]'),
    ]
    assert [extension.loads for extension in extensions.values()] == [1, 1]


def test_who_may_ask_is_seen_to(late: Any, extensions: dict[str, Extension], server: Any, ask: Ask) -> None:
    assert extensions
    late.add(server)
    requests = (f"GET {BASE}dask/clusters", f"GET {BASE}server-proxy/servers-info", f"GET {BASE}proxy/8787/status")
    assert [code for code, _ in ask(*requests, who=None)] == [302, 302, 302]


def test_other_addresses_load_nothing(late: Any, extensions: dict[str, Extension], server: Any, ask: Ask) -> None:
    late.add(server)
    for path in ("lab/tree/proxy/1", "lab/tree/dask/clusters", "files/dask/x", "daskx", "proxyx/1"):
        assert ask(f"GET {BASE}{path}") == [(404, "none")], path
    assert ask("GET /dask/x", "GET /user/annaxb/dask/x") == [(404, "none")] * 2
    assert [extension.loads for extension in extensions.values()] == [0, 0]


def test_programs_with_addresses_of_their_own_are_there_at_once(
    late: Any, extensions: dict[str, Extension], server: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = []
    monkeypatch.setattr(late, "entry_points", lambda group: groups.append(group) or ("rstudio",))
    late.add(server)
    assert groups == ["jupyter_serverproxy_servers"]
    assert ask(f"GET {BASE}rstudio", f"GET {BASE}server-proxy/servers-info") == [(200, '["jupyter_server_proxy"]')] * 2
    assert [extension.loads for extension in extensions.values()] == [0, 1]


def test_so_are_those_that_the_site_sets_up(late: Any, extensions: dict[str, Extension], server: Any, ask: Ask) -> None:
    server.config["ServerProxy"] = {"servers": {}}
    late.add(server)
    assert ask(f"GET {BASE}rstudio") == [(200, '["jupyter_server_proxy"]')]
    assert extensions["jupyter_server_proxy"].loads == 1


def test_what_jupyters_own_settings_name_is_left_to_them(
    late: Any, extensions: dict[str, Extension], server: Any, ask: Ask
) -> None:
    """Enabled or disabled: the extension manager knows of it."""
    server.extension_manager.extensions.update(dict.fromkeys(extensions))
    late.add(server)
    assert ask(f"GET {BASE}dask/clusters", f"GET {BASE}proxy/1") == [(404, "none")] * 2
    assert [extension.loads for extension in extensions.values()] == [0, 0]


def test_an_image_may_have_neither(late: Any, server: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "find_spec", lambda _name: None)
    late.add(server)
    assert ask(f"GET {BASE}dask/clusters", f"GET {BASE}server-proxy/servers-info") == [(404, "none")] * 2


def test_an_extension_that_is_broken_is_told_once_and_harms_nothing(
    late: Any, extensions: dict[str, Extension], server: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_server: Any) -> None:
        raise ImportError("no bokeh")

    monkeypatch.setattr(extensions["dask_labextension"], "load_jupyter_server_extension", broken)
    late.add(server)
    assert ask(f"PUT {BASE}dask/clusters", f"PUT {BASE}dask/clusters", f"GET {BASE}proxy/1") == [
        (404, "none"),
        (404, "none"),
        (200, '["jupyter_server_proxy", "1", ""]'),
    ]
    assert server.errors == ["labstead: dask_labextension cannot be loaded"]
