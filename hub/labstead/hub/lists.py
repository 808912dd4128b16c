"""Long lists on pages: a part at a time.

The one rule: the address says what is shown, so that a page can be kept and sent to somebody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tornado.httputil import url_concat

PAGE_SIZE = 50

_T = TypeVar("_T")


@dataclass(frozen=True)
class Page(Generic[_T]):
    """The part of a list that fits on one page."""

    items: tuple[_T, ...]
    found: int
    number: int
    pages: int

    @property
    def first(self) -> int:
        """Give the number of the first one in the whole list, from 1."""
        return (self.number - 1) * PAGE_SIZE + 1


def page_of(items: Sequence[_T], number: int) -> Page[_T]:
    """Cut a page out of a list; a number past its end gives the last one."""
    pages = max(1, -(-len(items) // PAGE_SIZE))
    number = min(max(1, number), pages)
    begin = (number - 1) * PAGE_SIZE
    return Page(tuple(items[begin : begin + PAGE_SIZE]), len(items), number, pages)


def page_number(typed: str) -> int:
    """Read the number of a page; what is none is the first."""
    return int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 7 else 1


def address(path: str, words: Mapping[str, str]) -> str:
    """Give the address of a page; what is empty, and the first page, are left out."""
    kept = {key: value for key, value in words.items() if value and (key, value) != ("page", "1")}
    return str(url_concat(path, kept))
