"""A chart of disk use over time: where its lines, marks and words are; the page's template draws it as SVG.

The one rule: it needs no program in the browser, and all that it shows is there in words and numbers as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil, floor, log10

from labstead_session.notices import size

WIDTH, HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 104, 24, 12, 40
"""Room for the words at the axes, which are larger on a telephone."""
_MARKED = 31
_STEPS = 4
"""About how many steps the axis of bytes has, and how many that of days."""


@dataclass(frozen=True)
class Series:
    """What is drawn as one line.

    :param style: class of the page's style sheet
    :param points: days, in their order, with bytes
    """

    title: str
    style: str
    points: tuple[tuple[date, int], ...]


@dataclass(frozen=True)
class Line:
    """One line, in units of the drawing."""

    title: str
    style: str
    path: str
    """`d` of an SVG path."""
    marks: tuple[tuple[float, float], ...]
    """Where each of few points is; a line through many is clearer without."""


@dataclass(frozen=True)
class Chart:
    """A drawing of `WIDTH` by `HEIGHT`."""

    lines: tuple[Line, ...]
    rows: tuple[tuple[float, str], ...]
    """Height and words of each line across."""
    columns: tuple[tuple[float, str], ...]
    """Place and words of each mark of the axis of days."""
    days: tuple[tuple[date, tuple[str, ...]], ...]
    """The same as a table: days with a cell for each line."""
    summary: str
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM
    width: int = WIDTH
    height: int = HEIGHT


def _steps(highest: int) -> list[int]:
    """Give round numbers of bytes from 0 to at least the highest."""
    highest = max(highest, 1)
    unit: int = 1024 ** min((highest.bit_length() - 1) // 10, 4)
    rough = highest / unit / _STEPS
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    if unit == 1:
        step = ceil(step)
    return [round(step * number * unit) for number in range(ceil(highest / unit / step - 1e-9) + 1)]


def _words(series: Series) -> str:
    (first, begin), (last, end) = series.points[0], series.points[-1]
    if first == last:
        return f"{series.title}: {size(end)} on {last}."
    most = max(count for _, count in series.points)
    return f"{series.title}: {size(begin)} on {first}, {size(end)} on {last}, at most {size(most)}."


def draw(series: Sequence[Series], today: date, days: int) -> Chart | None:
    """Lay out a chart of the last days; None where there is nothing to show."""
    begin = today - timedelta(days=days)
    kept = [
        Series(one.title, one.style, points)
        for one in series
        if (points := tuple(point for point in one.points if begin <= point[0] <= today))
    ]
    if not kept:
        return None
    steps = _steps(max(count for one in kept for _, count in one.points))

    def x(day: date) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (day - begin).days / days, 1)

    def y(count: int) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * count / steps[-1], 1)

    def line(one: Series) -> Line:
        places = tuple((x(day), y(count)) for day, count in one.points)
        path = "M" + " L".join(f"{across},{up}" for across, up in places)
        return Line(one.title, one.style, path, places if len(places) <= _MARKED else ())

    columns = [begin + timedelta(days=round(days * number / _STEPS)) for number in range(_STEPS + 1)]
    by_day: dict[date, list[str]] = {}
    for number, one in enumerate(kept):
        for day, count in one.points:
            by_day.setdefault(day, [""] * len(kept))[number] = size(count)
    return Chart(
        lines=tuple(line(one) for one in kept),
        rows=tuple((y(step), size(step)) for step in steps),
        columns=tuple((x(day), f"{day.day} {day:%b}") for day in columns),
        days=tuple((day, tuple(cells)) for day, cells in sorted(by_day.items(), reverse=True)),
        summary=" ".join(_words(one) for one in kept),
    )
