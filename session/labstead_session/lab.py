"""Share… for JupyterLab: what the dialog of the file browser asks, answered by the server of a session.

The one rule: it does what the command `share` does, by the same functions, as the same person.

    GET    labstead/share?path=PATH                     who can read it now, and with whom one could share
    POST   labstead/share   {path, with, until}         share it
    DELETE labstead/share   {path, with}                end that

Paths are those of JupyterLab's file browser. An answer has `path`, `shares`, `names` and `lines`, what to tell.

While the server runs it mends what its owner puts into group folders, too. What copes with full disks is loaded from
here, as Jupyter loads one module of a package.
"""

import asyncio
import datetime
import grp
import os
import pwd
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import to_os_path, url_path_join
from tornado.web import HTTPError, authenticated
from traitlets.config import Config

from labstead_session import busy, contents, disk, groups, keep, kernels, late, people, share, sharing, store
from labstead_session.errors import Hindered, Mistake
from labstead_session.store import Store

_FIRST, _LAST = 1000, 59999
"""uids and gids of people, adduser.conf(5)."""


def names() -> list[dict[str, str]]:
    """Name everybody with whom one could share."""
    entries = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if _FIRST <= entry.pw_uid <= _LAST}
    users = sorted(name for name, uid in entries.items() if uid != os.getuid())
    groups = sorted(
        entry.gr_name for entry in grp.getgrall() if _FIRST <= entry.gr_gid <= _LAST and entry.gr_name not in entries
    )
    return [
        {"name": people.EVERYONE, "kind": "on this machine"},
        *({"name": name, "kind": "group"} for name in groups),
        *({"name": name, "kind": "person"} for name in users),
    ]


def _answer(shelf: Store, path: str, lines: list[str]) -> dict[str, Any]:
    listed = [share.listed_model(entry) for entry in sharing.listing(shelf)]
    shares = [entry for entry in listed if entry["path"] == path]
    return {"path": path, "shares": shares, "names": names(), "lines": lines}


def _give(shelf: Store, path: str, name: str, until: str | None) -> list[str]:
    try:
        day = datetime.date.fromisoformat(until) if until else None
    except ValueError:
        raise Mistake(f"{until} is no date") from None
    if day is not None and day < datetime.date.today():
        raise Mistake(f"{day.isoformat()} has gone by")
    return share.opened(sharing.share(shelf, path, people.resolve(name), day, datetime.datetime.now(datetime.UTC)))


def _take(shelf: Store, path: str, name: str) -> list[str]:
    return [share.ended(report) for report in sharing.stop(shelf, path, people.resolve(name))]


class ShareHandler(APIHandler):  # type: ignore[misc]
    """Answer the dialog."""

    auth_resource = "contents"

    @authenticated
    @authorized  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Tell who can read a path now."""
        await self._work(self.get_query_argument("path", ""), lambda _shelf, _path: [])

    @authenticated
    @authorized  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Share a path."""
        asked = self._asked()
        until = asked.get("until")
        await self._work(asked["path"], lambda shelf, path: _give(shelf, path, asked["with"], until))

    @authenticated
    @authorized  # type: ignore[untyped-decorator]
    async def delete(self) -> None:
        """End a share."""
        asked = self._asked()
        await self._work(asked["path"], lambda shelf, path: _take(shelf, path, asked["with"]))

    def _asked(self) -> dict[str, str]:
        asked = self.get_json_body()
        if not isinstance(asked, dict) or not all(isinstance(asked.get(key), str) for key in ("path", "with")):
            raise HTTPError(400, "give path and with")
        if not isinstance(asked.get("until"), str | None):
            raise HTTPError(400, "until: give a date")
        return asked

    async def _work(self, place: str, action: Callable[[Store, str], list[str]]) -> None:
        if "\0" in place:
            raise HTTPError(400, "path: give the path of a file or folder")

        def work() -> dict[str, Any]:
            path = os.fspath(sharing.absolute(to_os_path(place, self.contents_manager.root_dir)))
            with store.opened(store.default_file()) as shelf:
                return _answer(shelf, path, action(shelf, path))

        try:
            answer = await asyncio.to_thread(work)
        except (Mistake, Hindered, OSError) as error:
            self.set_status(400 if isinstance(error, Mistake) else 409)
            answer = {"message": str(error)}
        await self.finish(answer)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "labstead_session.lab"}]


def _link_jupyter_server_extension(server: Any) -> None:
    """Choose what copes with a full disk, where nobody has chosen anything else."""
    config = Config()
    if "contents_manager_class" not in server.config.ServerApp:
        config.ServerApp.contents_manager_class = contents.Contents
    chosen = os.environ.get("JUPYTER_DEFAULT_PROVISIONER_NAME")
    if not chosen and "default_provisioner_name" not in server.config.KernelProvisionerFactory:
        config.KernelProvisionerFactory.default_provisioner_name = kernels.NAME
    server.update_config(config)
    mirrors = keep.folders(Path.home())
    for app in server.extension_manager.extension_apps.get("jupyterlab", ()):
        mirrors = {name: mirror for name, mirror in mirrors.items() if name not in app.config[type(app).__name__]}
        for name, mirror in mirrors.items():
            setattr(app, name, os.fspath(mirror.live))
        keep.start(list(mirrors.values()))


def _load_jupyter_server_extension(server: Any) -> None:
    base = url_path_join(server.web_app.settings["base_url"], "labstead")
    handlers = [("share", ShareHandler), ("disk", disk.DiskHandler), ("disk/largest", disk.LargestHandler)]
    server.web_app.add_handlers(".*", [(url_path_join(base, path), handler) for path, handler in handlers])
    # What is made in the home once is made now, while there may be room for it.
    with suppress(OSError):
        _ = server.kernel_spec_manager.kernel_dirs, server.contents_manager.notary.secret
    groups.start_watch()
    busy.start(server)
    late.add(server)
