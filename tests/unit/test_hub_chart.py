"""Where the lines and words of the chart of disk use are."""

from datetime import date, timedelta

import pytest

from labstead.hub.chart import HEIGHT, WIDTH, Chart, Series, draw

TODAY = date(2026, 3, 31)
G = 2**30


def chart(*counts: int, days: int = 90) -> Chart:
    """Draw one line that ends today."""
    points = tuple((TODAY - timedelta(days=len(counts) - 1 - i), count) for i, count in enumerate(counts))
    drawn = draw([Series("Homes", "home", points)], TODAY, days)
    assert drawn is not None
    return drawn


@pytest.mark.parametrize(
    ("highest", "words"),
    [
        (0, ["0 B", "1 B"]),
        (7, ["0 B", "2 B", "4 B", "6 B", "8 B"]),
        (10 * G, ["0 B", "2.5 GiB", "5 GiB", "7.5 GiB", "10 GiB"]),
        (193 * G, ["0 B", "50 GiB", "100 GiB", "150 GiB", "200 GiB"]),
        (int(1.3 * 2**40), ["0 B", "512 GiB", "1 TiB", "1.5 TiB"]),
        (900 * 2**20, ["0 B", "250 MiB", "500 MiB", "750 MiB", "1000 MiB"]),
    ],
)
def test_the_axis_has_few_round_numbers_up_to_the_highest(highest: int, words: list[str]) -> None:
    assert [text for _, text in chart(highest).rows] == words


def test_more_is_higher_and_later_is_further_right_within_the_drawing() -> None:
    (line,) = chart(0, 5 * G, 10 * G).lines
    across, up = zip(*line.marks, strict=True)
    assert list(across) == sorted(set(across))
    assert list(up) == sorted(set(up), reverse=True)
    assert 0 < min(across) < max(across) < WIDTH
    assert 0 < min(up) < max(up) < HEIGHT
    rows = {words: height for height, words in chart(0, 5 * G, 10 * G).rows}
    assert up == (rows["0 B"], rows["5 GiB"], rows["10 GiB"])


def test_a_day_without_a_measure_leaves_its_place_free() -> None:
    points = ((TODAY - timedelta(days=90), 1), (TODAY - timedelta(days=45), 1), (TODAY, 1))
    drawn = draw([Series("Homes", "home", points)], TODAY, 90)
    assert drawn is not None
    (line,) = drawn.lines
    (first, _), (middle, _), (last, _) = line.marks
    assert middle == pytest.approx((first + last) / 2, abs=0.1)
    assert [place for place, _ in drawn.columns][0::2] == [first, middle, last]
    assert [words for _, words in drawn.columns] == ["31 Dec", "22 Jan", "14 Feb", "9 Mar", "31 Mar"]


def test_points_are_marked_where_they_are_few() -> None:
    assert len(chart(1, 2, 3).lines[0].marks) == 3
    assert chart(*range(90)).lines[0].marks == ()


def test_the_same_is_there_in_words_and_numbers() -> None:
    limit = Series("Limit", "limit", ((TODAY, 20 * G),))
    used = Series("Used", "home", ((TODAY - timedelta(days=1), 12 * G), (TODAY, 11 * G)))
    drawn = draw([used, limit], TODAY, 90)
    assert drawn is not None
    assert drawn.summary == (
        "Used: 12 GiB on 2026-03-30, 11 GiB on 2026-03-31, at most 12 GiB. Limit: 20 GiB on 2026-03-31."
    )
    assert drawn.days == ((TODAY, ("11 GiB", "20 GiB")), (TODAY - timedelta(days=1), ("12 GiB", "")))


def test_what_is_older_is_left_out_and_nothing_is_no_chart() -> None:
    old = Series("Homes", "home", ((TODAY - timedelta(days=91), 99 * G),))
    assert draw([old], TODAY, 90) is None
    assert draw([], TODAY, 90) is None
    both = Series("Homes", "home", (*old.points, (TODAY, G)))
    drawn = draw([both], TODAY, 90)
    assert drawn is not None
    assert [day for day, _ in drawn.days] == [TODAY]
