"""How full the disks are, for JupyterLab: what its status bar, banner and dialog ask, answered by a session's server.

The one rule: it says what the command `quota` says, and deletes nothing but what it was asked to, in the home alone.

    GET    labstead/disk                    the spaces and what to say of them; `?fresh=1` after a change
    GET    labstead/disk/largest?path=&by=  the largest things in the home, or in a folder of it, by bytes or files
    DELETE labstead/disk/largest {path}     delete one of them for good

Paths of the last two begin below the home.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado.web import HTTPError, authenticated

from labstead_session import largest, notices, room, spaces
from labstead_session.errors import Hindered, Mistake


def _delete(path: str) -> dict[str, Any]:
    home = Path.home()
    try:
        return {"path": path, "files": largest.delete(home, path)}
    finally:
        # The home's use is looked at next.
        room.count(home)


class _Handler(APIHandler):  # type: ignore[misc]
    auth_resource = "contents"

    async def _finish(self, work: Callable[[], dict[str, Any]]) -> None:
        try:
            answer = await asyncio.to_thread(work)
        except (Mistake, Hindered, OSError) as error:
            self.set_status(400 if isinstance(error, Mistake) else 409)
            answer = {"message": str(error)}
        await self.finish(answer)


class DiskHandler(_Handler):
    """Say how full the disks are."""

    @authenticated
    @authorized  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Tell of all spaces."""
        fresh = self.get_query_argument("fresh", "") == "1"
        await self._finish(lambda: spaces.here.look(fresh=fresh).model)


class LargestHandler(_Handler):
    """Show what takes up most, and delete it."""

    @authenticated
    @authorized  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """List the largest things."""
        by = self.get_query_argument("by", "bytes")
        if by not in ("bytes", "files"):
            raise HTTPError(400, "by: bytes or files")
        path = self.get_query_argument("path", "", strip=False)

        def work() -> dict[str, Any]:
            found = largest.look(Path.home(), path, "files" if by == "files" else "bytes")
            things = [{**asdict(thing), "size": notices.size(thing.bytes)} for thing in found.things]
            return {**asdict(found), "things": things, "path": path}

        await self._finish(work)

    @authenticated
    @authorized  # type: ignore[untyped-decorator]
    async def delete(self) -> None:
        """Delete one of them."""
        asked = self.get_json_body()
        if not isinstance(asked, dict) or not isinstance(asked.get("path"), str):
            raise HTTPError(400, "give path")

        await self._finish(lambda: _delete(asked["path"]))
