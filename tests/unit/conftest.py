"""Fixtures that several unit tests share."""

import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from support.office import Office


@pytest.fixture
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use bcrypt with the fewest rounds it has."""
    monkeypatch.setattr(bcrypt, "gensalt", functools.partial(bcrypt.gensalt, 4))


@pytest.fixture
def office(quick_hashes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:  # noqa: ARG001
    """Give the whole command over the real service and database, on stand-in accounts."""
    site = Office(tmp_path)
    site.stand_in(monkeypatch)
    return site


@pytest.fixture
def root() -> Iterator[Path]:
    """Give a folder that everybody can pass through; pytest's own are closed to other people."""
    path = Path(tempfile.mkdtemp(prefix="labstead-unit-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
