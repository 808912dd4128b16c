"""What `labstead tidy` measured, as the hub and the commands read it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from labstead.usage import Usage, read


@pytest.mark.parametrize("text", [None, "", "{", '{"homes": {"anna": "much"}}', "[]"])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "usage.json"
    if text is not None:
        path.write_text(text)
    assert read(path) == Usage()


def test_what_was_measured_is_read(tmp_path: Path) -> None:
    path = tmp_path / "usage.json"
    path.write_text('{"measured_at": "2026-01-02T03:04:05Z", "homes": {"anna": 7}, "groups": {"ocean": 9}}')
    found = read(path)
    assert (found.homes, found.groups) == ({"anna": 7}, {"ocean": 9})
    assert found.measured_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
