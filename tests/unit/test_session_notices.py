"""How full a space is, as the session and the hub's pages say it."""

import re
from pathlib import Path
from typing import Any

import pytest

from labstead_session import notices
from labstead_session.notices import Amount, fullest, size

M, G = 2**20, 2**30


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, ""),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (99 * M + M // 2, "99.5 MiB"),
        (200 * M + M // 4, "200 MiB"),
        (10 * G - 1000, "10 GiB"),
        (3 * 2**40, "3 TiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_sizes_are_written_for_people(count: int | None, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (Amount("bytes", 3 * G // 2, 10 * G), "1.5 of 10 GiB"),
        (Amount("bytes", 10 * M, 2 * G), "10 MiB of 2 GiB"),
        (Amount("bytes", 5 * M, None), "5 MiB"),
        (Amount("files", 12345, 100000), "12,345 of 100,000 files and folders"),
        (Amount("files", 12345, None), "12,345 files and folders"),
    ],
)
def test_a_use_and_its_limit_share_their_unit(amount: Amount, words: str) -> None:
    assert amount.words == words


@pytest.mark.parametrize(
    ("what", "used", "limit", "percent", "level"),
    [
        ("bytes", 0, None, None, ""),
        ("bytes", 999 * G, None, None, ""),
        ("bytes", 0, 100 * G, 0, ""),
        ("bytes", 80 * G - 1, 100 * G, 79, ""),
        ("bytes", 80 * G, 100 * G, 80, "notice"),
        ("bytes", 95 * G - 1, 100 * G, 94, "notice"),
        ("bytes", 95 * G, 100 * G, 95, "warning"),
        ("bytes", 100 * G - M, 100 * G, 99, "warning"),
        ("bytes", 100 * G - 4096, 100 * G, 99, "full"),
        ("bytes", 100 * G, 100 * G, 100, "full"),
        ("bytes", 120 * G, 100 * G, 120, "full"),
        ("bytes", 99 * M, 100 * M, 99, "warning"),
        ("bytes", 19 * M + 1, 20 * M, 95, "full"),
        ("bytes", 9 * M, 10 * M, 90, "notice"),
        ("files", 79, 100, 79, ""),
        ("files", 80, 100, 80, "notice"),
        ("files", 99, 100, 99, "warning"),
        ("files", 100, 100, 100, "full"),
    ],
)
def test_what_is_used_is_weighed_against_the_limit(
    what: Any, used: int, limit: int | None, percent: int | None, level: str
) -> None:
    amount = Amount(what, used, limit)
    assert (amount.percent, amount.level) == (percent, level)


def test_what_is_nearest_to_its_limit_counts() -> None:
    found = notices.amounts(G, 10 * G, 96, 100)
    assert [amount.what for amount in found] == ["bytes", "files"]
    assert fullest(found) == Amount("files", 96, 100)
    unlimited = notices.amounts(G, None, 96, None)
    assert unlimited == [Amount("bytes", G, None)]
    assert fullest(unlimited) is None
    assert notices.amounts(None, None, None, None) == []


def test_no_other_module_writes_them() -> None:
    """The hub and the session each had words of their own once, and they were not the same."""
    folders = [Path(notices.__file__).parent, Path(__file__).parents[2] / "hub" / "labstead" / "hub"]
    writers = [
        path.name
        for folder in folders
        for path in folder.rglob("*.py")
        if re.search(r'"[KMGT]iB"|% full:', path.read_text(encoding="utf-8"))
    ]
    assert writers == ["notices.py"]
