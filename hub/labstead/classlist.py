"""Lists of people in a CSV file, as a teacher gets them from a course system.

The one rule: the whole file is checked before anybody is made, and each mistake is told with its row.
"""

import csv
import difflib
import io
import re
from pathlib import Path

from pydantic import ValidationError

from labstead.administration import Newcomer, Site, problem_with_newcomer
from labstead.errors import BadInput
from labstead.settings import DeclaredUser, Door

COLUMNS = ("name", "full_name", "email", "expires", "groups")
"""What a file may have, in any order; `name` is needed."""

MAX_ROWS = 5000
"""More is a mistake, or work for the inventory."""

_Row = tuple[int, list[str]]
"""Number of a line in the file, and its fields."""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark before the first column's name
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 (byte {error.start}); save it as CSV UTF-8") from None


def _rows(path: Path) -> list[_Row]:
    """Read the rows that are not empty."""
    text = _text(path)
    head, _, _ = text.partition("\n")
    delimiter = ";" if head.count(";") > head.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [
            (reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise BadInput(f"{path}: row {reader.line_num}: {error}") from None
    if not rows:
        raise BadInput(f"{path}: empty; the first row names the columns: {','.join(COLUMNS)}")
    if len(rows) > MAX_ROWS + 1:
        raise BadInput(f"{path}: more than {MAX_ROWS} rows")
    return rows


def _columns(head: list[str], path: Path) -> list[str]:
    """Take the first row's names of columns."""
    names = [name.lower() for name in head]
    mistakes = []
    for name in names:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COLUMNS)}"
            mistakes.append(f"{path}: row 1: unknown column {name!r}; {hint}")
    if "name" not in names:
        mistakes.append(f"{path}: row 1: the column name is missing; the first row names the columns")
    if len(set(names)) != len(names):
        mistakes.append(f"{path}: row 1: a column stands there more than once")
    if mistakes:
        raise BadInput("\n".join(mistakes))
    return names


def words_of(field: str, kind: str, message: str) -> str:
    """Say what is wrong with a field, from what pydantic finds."""
    if kind == "string_pattern_mismatch" and field == "full_name":
        return 'it may have no : , = \\ " and no control characters; write Anna Example, not Example, Anna'
    if kind == "string_pattern_mismatch":
        return "it has characters that cannot be there"
    if kind.startswith("date"):
        return "not a date; write it like 2026-12-31"
    return "missing" if kind == "missing" else message


def _newcomer(columns: list[str], row: list[str], door: Door) -> Newcomer:
    """Make a newcomer of a row; what a field may be is said by the inventory's rules.

    :raises ValueError: with one sentence
    """
    if len(row) != len(columns):
        raise ValueError(f"{len(row)} fields where the first row has {len(columns)}")
    values = dict(zip(columns, row, strict=True))
    groups = tuple(dict.fromkeys(word for word in re.split(r"[\s,;]+", values.pop("groups", "")) if word))
    try:
        user = DeclaredUser.model_validate({key: value for key, value in values.items() if value})
    except ValidationError as error:
        raise ValueError(
            "; ".join(f"{e['loc'][0]}: {words_of(str(e['loc'][0]), e['type'], e['msg'])}" for e in error.errors())
        ) from None
    return Newcomer(
        name=user.name, full_name=user.full_name, email=user.email, expires=user.expires, groups=groups, door=door
    )


class _Check:
    """What rows are held against."""

    def __init__(self, site: Site, skip_existing: bool) -> None:
        self._site = site
        self._skip_existing = skip_existing
        self._taken = {account.name for account in site.accounts.accounts()}
        self._groups = {group.name for group in site.accounts.groups()}
        self._seen: dict[str, int] = {}

    def take(self, number: int, newcomer: Newcomer) -> bool:
        """Tell whether somebody is to be made; :raises ValueError: when they cannot be."""
        first = self._seen.setdefault(newcomer.name, number)
        if first != number:
            raise ValueError(f"{newcomer.name} stands in row {first} already")
        if self._skip_existing and newcomer.name in self._taken:
            return False
        if problem := problem_with_newcomer(self._site, newcomer, self._taken, self._groups):
            raise ValueError(problem)
        return True


def read(path: Path, door: Door, site: Site, skip_existing: bool = False) -> list[Newcomer]:
    """Read a list of people and check all of it.

    :param path: a file with a row of columns' names, then a row for each person; comma or semicolon between fields
    :param door: by which they will come in
    :param skip_existing: leave out those who have an account of the hub already
    :raises BadInput: with one line for each mistake, with the row's number
    """
    (_, head), *rows = _rows(path)
    columns = _columns(head, path)
    check = _Check(site, skip_existing)
    newcomers: list[Newcomer] = []
    mistakes: list[str] = []
    for number, row in rows:
        try:
            newcomer = _newcomer(columns, row, door)
            if check.take(number, newcomer):
                newcomers.append(newcomer)
        except ValueError as error:
            mistakes.append(f"{path}: row {number}: {error}")
    if mistakes:
        raise BadInput("\n".join(mistakes))
    return newcomers
