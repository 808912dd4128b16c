"""What `labstead tidy` noted, as the hub and the commands read it."""

import os
import sqlite3
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from labstead import usage
from labstead.usage import Sample, Total

TODAY = date.today()
DAY = timedelta(days=1)


def sample(days_ago: int, name: str, size: int, **more: Any) -> Sample:
    return Sample.model_validate({"day": TODAY - days_ago * DAY, "kind": "home", "name": name, "bytes": size, **more})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "usage.sqlite"


@pytest.mark.parametrize("content", [None, b"", b"no database", b"SQLite format 3\0 but torn"])
def test_what_cannot_be_read_is_nothing(file: Path, content: bytes | None) -> None:
    if content is not None:
        file.write_bytes(content)
    assert usage.history(path=file) == usage.totals(path=file) == []
    assert usage.latest(file) == {}


def test_what_was_noted_is_read(file: Path) -> None:
    usage.add([sample(1, "anna", 5, files=2, limit_bytes=9), sample(1, "bert", 7)], os.getgid(), file)
    usage.add([sample(0, "anna", 6), sample(0, "ocean", 100, kind="group")], os.getgid(), file)
    assert usage.latest(file) == {
        ("home", "anna"): sample(0, "anna", 6),
        ("group", "ocean"): sample(0, "ocean", 100, kind="group"),
    }
    assert usage.history(kind="home", name="anna", path=file) == [
        sample(1, "anna", 5, files=2, limit_bytes=9),
        sample(0, "anna", 6),
    ]
    assert len(usage.history(path=file)) == 4
    assert usage.history(days=1, path=file) == [sample(0, "ocean", 100, kind="group"), sample(0, "anna", 6)]
    assert usage.totals(path=file) == [
        Total(TODAY - DAY, "home", 12),
        Total(TODAY, "group", 100),
        Total(TODAY, "home", 6),
    ]


def test_a_second_measurement_of_a_day_takes_the_place_of_the_first(file: Path) -> None:
    for size in (5, 6):
        usage.add([sample(0, "anna", size)], os.getgid(), file)
    assert usage.history(path=file) == [sample(0, "anna", 6)]


def test_what_is_old_goes(file: Path) -> None:
    usage.add([sample(399, "anna", 1), sample(400, "anna", 2)], os.getgid(), file)
    assert usage.history(days=1000, path=file) == [sample(399, "anna", 1)]


def test_the_hub_may_read_it_and_nobody_else(file: Path) -> None:
    usage.add([sample(0, "anna", 1)], os.getgid(), file)
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["usage.sqlite"]


def test_nothing_is_written_through_a_link(file: Path) -> None:
    target = file.with_name("target")
    target.write_text("x")
    file.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        usage.add([], os.getgid(), file)
    assert target.read_text() == "x"


def test_a_reader_is_in_nobodys_way(file: Path) -> None:
    usage.add([sample(0, "anna", 1)], os.getgid(), file)
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as reader:
        reader.execute("SELECT * FROM sample").fetchall()
        usage.add([sample(0, "anna", 2)], os.getgid(), file)
    assert usage.latest(file)["home", "anna"].bytes == 2
