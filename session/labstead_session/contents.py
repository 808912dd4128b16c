"""Files and notebooks as JupyterLab reads and writes them, where a disk may be full.

The one rule: what does not fit is refused with the reason, and what was there before stays as it was, whole. What
Jupyter keeps beside a notebook, a checkpoint and the signature that its outputs are trusted, never keeps anybody from
opening or saving it.

Jupyter's own manager copies the old file aside, empties it and writes the new content: where that does not fit, it
leaves an empty copy behind, or the file cut short (measured: jupyter_server 2).
"""

import asyncio
import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import ContextVar
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from jupyter_server.services.contents.filecheckpoints import AsyncFileCheckpoints
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat.sign import NotebookNotary, SQLiteSignatureStore
from tornado.web import HTTPError

from labstead_session import room, spaces, whole

_INSUFFICIENT_STORAGE = 507
"""RFC 4918."""

_in_listing: ContextVar[bool] = ContextVar("_in_listing", default=False)
"""Whether the entries of a folder are being looked at, one by one."""


# --- signatures


class Signatures(SQLiteSignatureStore):  # type: ignore[misc]
    """Signatures in the home; in memory from the moment on at which they no longer fit there, until they do again."""

    db: sqlite3.Connection
    _away = ""
    """The file in the home while it is left alone."""

    def _open(self, db_file: str) -> sqlite3.Connection:
        if db_file != ":memory:":
            path = Path(db_file)
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                if path.stat().st_size == 0:  # left by a disk that was full
                    path.unlink()
        db = sqlite3.connect(db_file, detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES)
        self.init_db(db)
        return db

    def _connect_db(self, db_file: str) -> sqlite3.Connection:
        try:
            return self._open(db_file)
        except (sqlite3.OperationalError, OSError) as error:
            return self._in_memory(db_file, error)
        except sqlite3.DatabaseError:
            # It is broken: Jupyter's own store puts it aside and begins another.
            broken: sqlite3.Connection = super()._connect_db(db_file)
            return broken

    def _in_memory(self, db_file: str, error: Exception) -> sqlite3.Connection:
        """Go on in memory, with what is in the file."""
        self.log.warning("signatures of notebooks are in memory until there is room in the home: %s", error)
        db = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES)
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"{Path(db_file).as_uri()}?mode=ro", uri=True)) as old:
            old.backup(db)
        self.init_db(db)
        self.db_file, self._away = ":memory:", db_file
        return db

    def _return(self) -> None:
        """Go on in the home if there is room again, with what was signed meanwhile."""
        with suppress(sqlite3.Error, OSError), ExitStack() as stack:
            db = stack.enter_context(closing(self._open(self._away)))
            known = set(db.execute("SELECT algorithm, signature FROM nbsignatures"))
            rows = self.db.execute("SELECT algorithm, signature, path, last_seen FROM nbsignatures")
            db.executemany(
                "INSERT INTO nbsignatures (algorithm, signature, path, last_seen) VALUES (?, ?, ?, ?)",
                [row for row in rows if row[:2] not in known],
            )
            db.commit()
            stack.pop_all()
            self.db.close()
            self.db, self.db_file, self._away = db, self._away, ""

    def _work(self, method: Any, digest: str, algorithm: str) -> Any:
        try:
            return method(digest, algorithm)
        except sqlite3.OperationalError as error:
            if self._away or self.db_file == ":memory:":
                raise
            self.db.close()
            self.db = self._in_memory(self.db_file, error)
            return method(digest, algorithm)

    def store_signature(self, digest: str, algorithm: str) -> None:
        """Trust a notebook."""
        if self._away:
            self._return()
        self._work(super().store_signature, digest, algorithm)

    def check_signature(self, digest: str, algorithm: str) -> bool:
        """Tell whether a notebook is trusted."""
        return bool(self._work(super().check_signature, digest, algorithm))

    def remove_signature(self, digest: str, algorithm: str) -> None:
        """Trust a notebook no longer."""
        self._work(super().remove_signature, digest, algorithm)


class Notary(NotebookNotary):  # type: ignore[misc]
    """Sign notebooks, with a key that ends with the session where none can be kept."""

    def _data_dir_default(self) -> str:
        chosen = Path(super()._data_dir_default())
        # The launcher chooses memory where the home has no room; there may be some later.
        return os.fspath(Path.home() / ".local" / "share" / "jupyter" if room.is_spare(chosen) else chosen)

    def _store_factory_default(self) -> Any:
        return lambda: Signatures(self.db_file, parent=self)

    def _write_secret_file(self, secret: bytes) -> bytes:
        try:
            with whole.written(Path(self.secret_file), text=False) as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(secret)
        except OSError as error:
            self.log.warning("the key that signs notebooks is kept in memory until the session ends: %s", error)
        return secret

    def _secret_default(self) -> bytes:
        with suppress(OSError):
            # An empty key, left by a disk that was full, would be everybody's.
            if secret := Path(self.secret_file).read_bytes():
                return secret
            Path(self.secret_file).unlink()
        return bytes(super()._secret_default())


# --- checkpoints


class Checkpoints(AsyncFileCheckpoints):  # type: ignore[misc]
    """Checkpoints that are made where there is room for them; where there is none, the last one stays."""

    async def create_checkpoint(self, contents_mgr: Any, path: str) -> dict[str, Any]:
        """Make a checkpoint; where it does not fit, give the last one, or the file itself."""
        source = Path(contents_mgr._get_os_path(path))
        target = Path(self.checkpoint_path("checkpoint", path))
        try:
            with self.perm_to_403():
                await asyncio.to_thread(whole.copied, source, target)
        except OSError as error:
            if not room.is_lack(error):
                raise
            self.log.warning("no room for a checkpoint of %s", source)
        found: dict[str, Any] = await self.checkpoint_model(
            "checkpoint", os.fspath(target if target.exists() else source)
        )
        return found

    async def restore_checkpoint(self, contents_mgr: Any, checkpoint_id: str, path: str) -> None:
        """Put a checkpoint in the place of its file; :raises HTTPError: 507 when it does not fit."""
        source = Path(self.checkpoint_path(checkpoint_id, path))
        target = Path(contents_mgr._get_os_path(path))

        def work() -> None:
            with whole.written(target, text=False) as file:
                file.write(source.read_bytes())

        try:
            with self.perm_to_403():
                await asyncio.to_thread(work)
        except OSError as error:
            if not room.is_lack(error):
                raise
            known = await asyncio.to_thread(spaces.here.look, fresh=True, is_doubted=True)
            raise HTTPError(_INSUFFICIENT_STORAGE, known.refusal(target, is_open=False)) from error

    def checkpoint_path(self, checkpoint_id: str, path: str) -> str:
        """Give the place of a checkpoint; where no folder for it fits, one in memory."""
        try:
            return str(super().checkpoint_path(checkpoint_id, path))
        except OSError as error:
            if not room.is_lack(error):
                raise
        file = (room.spare() or Path(tempfile.gettempdir())) / "checkpoints" / path.strip("/")
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.fspath(file.with_name(f"{file.stem}-{checkpoint_id}{file.suffix}"))


# --- files


class Contents(AsyncLargeFileManager):  # type: ignore[misc]
    """Files on disks that may be full."""

    def _delete_to_trash_default(self) -> bool:
        # A trash can in the same home frees nothing, and few know where it is.
        return False

    def _notary_default(self) -> Notary:
        return Notary(parent=self)

    def _checkpoints_class_default(self) -> type[Checkpoints]:
        return Checkpoints

    @contextmanager
    def atomic_writing(self, os_path: str, *args: Any, **kwargs: Any) -> Iterator[IO[Any]]:
        """Open a file to write its new content."""
        path = Path(os_path)
        if path.is_symlink():
            path = path.parent / path.readlink()
        if not self.use_atomic_writing or not os.access(path.parent, os.W_OK) or (path.exists() and not path.is_file()):
            with super().atomic_writing(os_path, *args, **kwargs) as file:
                yield file
            return
        with self.perm_to_403(os_path), whole.written(path, *args, **kwargs) as file:
            yield file

    async def _dir_model(self, path: str, content: bool = True) -> dict[str, Any]:
        """Describe a folder, without what goes away while it is listed.

        Jupyter's own manager answers then that there is no such folder, and JupyterLab shows / in its place (measured:
        jupyter_server 2.21, a notebook that is renamed while the file browser looks).
        """
        token = _in_listing.set(bool(content))
        try:
            found: dict[str, Any] = await super()._dir_model(path, content)
        finally:
            _in_listing.reset(token)
        return found

    async def get(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Describe a file or folder."""
        try:
            found: dict[str, Any] = await super().get(path, *args, **kwargs)
        except HTTPError as error:
            if error.status_code == HTTPStatus.NOT_FOUND and _in_listing.get():
                # This the listing passes over.
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
            raise
        return found

    async def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        """Save a file; :raises HTTPError: 507 with the reason when it does not fit."""
        try:
            found: dict[str, Any] = await super().save(model, path)
        except HTTPError as error:
            if not room.is_lack(error.__cause__):
                raise
            place = Path(self._get_os_path(path.strip("/")))
            if model.get("chunk") not in (None, 1):
                # The beginning of an upload is of no use, and takes up what little room there is.
                await asyncio.to_thread(place.unlink, missing_ok=True)
            known = await asyncio.to_thread(spaces.here.look, fresh=True, is_doubted=True)
            is_open = model.get("type") in ("notebook", "file") and model.get("chunk") is None and place.exists()
            words = known.refusal(place, is_open=is_open)
            raise HTTPError(_INSUFFICIENT_STORAGE, words) from error
        return found
