"""When a unit is older than its files. The real systemd is asked on a host."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labstead import units
from labstead.errors import BadInput


def properties(monkeypatch: pytest.MonkeyPatch, since: datetime, **changes: str) -> None:
    """Let systemd answer as `systemctl show --timestamp=us+utc` does, text copied from systemd 252."""
    answer = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "StateChangeTimestamp": since.strftime("%a %Y-%m-%d %H:%M:%S.%f UTC"),
        "NeedDaemonReload": "no",
    }
    monkeypatch.setattr(units, "_properties", lambda _unit: answer | changes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hub.yml"
    path.write_text("x")
    return path


def changed_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.lstat().st_ctime, UTC)


def test_a_unit_that_started_after_its_files_is_current(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    properties(monkeypatch, changed_at(file) + timedelta(milliseconds=5))
    assert not units.is_outdated("labstead-hub", [file])


def test_a_unit_that_started_before_a_file_changed_is_outdated(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    properties(monkeypatch, changed_at(file) - timedelta(milliseconds=5))
    assert units.is_outdated("labstead-hub", [file])


def test_a_link_counts_by_its_own_time(monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(file)
    properties(monkeypatch, changed_at(link) - timedelta(microseconds=50))
    assert units.is_outdated("labstead-hub", [link])


@pytest.mark.parametrize(
    ("changes", "outdated"),
    [
        ({"ActiveState": "inactive"}, False),
        ({"ActiveState": "failed"}, True),
        ({"ReloadResult": "exit-code"}, True),
        ({"ReloadResult": "success"}, False),
        ({"NeedDaemonReload": "yes"}, True),
    ],
)
def test_the_state_of_the_unit_counts(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], outdated: bool) -> None:
    properties(monkeypatch, datetime.now(UTC), **changes)
    assert units.is_outdated("labstead-hub", []) is outdated


def test_a_socket_counts_from_when_it_began_to_listen(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Its state changes with each connection."""
    began = (changed_at(file) - timedelta(seconds=1)).strftime("%a %Y-%m-%d %H:%M:%S.%f UTC")
    properties(monkeypatch, datetime.now(UTC) + timedelta(seconds=1), ActiveEnterTimestamp=began)
    assert units.is_outdated("labstead-gate.socket", [file])
    assert not units.is_outdated("labstead-gate.service", [file])


def test_a_missing_file_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    properties(monkeypatch, datetime.now(UTC))
    assert not units.is_outdated("labstead-hub", [tmp_path / "none"])


def test_an_unknown_unit_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    properties(monkeypatch, datetime.now(UTC), LoadState="not-found")
    with pytest.raises(BadInput, match="is the unit's name right"):
        units.is_outdated("labstead-hbu", [])
