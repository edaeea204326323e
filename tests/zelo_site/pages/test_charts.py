"""Geometry and figures: what is drawn stands where the numbers say, and is written in one way."""

from __future__ import annotations

import pytest
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from labeling.models import Project
from labeling.stored_texts import as_stored, stored_text
from zelo_site.pages.charts.drawing import Point
from zelo_site.pages.charts.geometry import Axis, histogram, interval_bar, polyline, ticks
from zelo_site.pages.charts.matrix import draw
from zelo_site.pages.charts.project_charts import curve_point, time_step, time_ticks
from zelo_site.pages.queries.reasons import expected_preference
from zelo_site.pages.texts import clipped, document_title
from zelo_site.templatetags.figures import (
    count,
    decimals,
    duration,
    latency,
    margin,
    money,
    pace,
    percent,
    plain_number,
    signed,
)
from zelo_site.templatetags.wording import translated

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(finite, finite, finite)
def test_everything_stays_inside_the_drawing(low: float, high: float, value: float) -> None:
    assert 0.0 <= Axis.around(min(low, high), max(low, high)).at(value) <= 100.0


def test_bar_reaches_to_both_ends_of_the_interval() -> None:
    bar = interval_bar(Axis(0.0, 100.0), 50.0, 10.0)
    assert (bar.low, bar.dot, bar.high) == (30.4, 50.0, 69.6)


def test_tallest_column_reaches_the_top() -> None:
    columns = histogram([1, 4, 2], low=0.0, high=3.0)
    assert [column.height for column in columns] == [25.0, 100.0, 50.0]
    assert (columns[1].y, columns[1].low, columns[1].high) == (0.0, 1.0, 2.0)


def test_histogram_of_nothing_is_nothing() -> None:
    assert histogram([0, 0], low=0.0, high=1.0) == []


def test_line_rises_upwards() -> None:
    points = polyline([(0, 0.0), (1, 1.0)], x=Axis(0, 1), y=Axis(0, 1), width=600, height=100)
    assert points == "0.0,100.0 600.0,0.0"


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_an_axis_has_a_few_round_values_on_it(low: float, width: float) -> None:
    axis = Axis(low, low + width)
    marked = ticks(axis)
    assert 2 <= len(marked) <= 6
    for tick in marked:
        assert low - 1e-5 * width <= tick.value <= low + 1.00001 * width
        assert tick.y == pytest.approx(100.0 - axis.at(tick.value), abs=0.01)
        assert float(f"{tick.value:.{tick.places}f}") == pytest.approx(tick.value, abs=1e-6 * width), "nothing is cut"


def test_values_on_an_axis_are_those_one_would_choose() -> None:
    assert [tick.value for tick in ticks(Axis(0, 112))] == [0, 50, 100]
    assert [f"{tick.value:.{tick.places}f}" for tick in ticks(Axis(0.723, 0.77))] == [
        "0.73",
        "0.74",
        "0.75",
        "0.76",
        "0.77",
    ]


@pytest.mark.parametrize("most", [1, 2, 3, 7, 112])
def test_counts_have_no_fractions_on_their_axis(most: int) -> None:
    marked = ticks(Axis(0, most), whole=True)
    assert len(marked) >= 2 and all(tick.value == round(tick.value) and tick.places == 0 for tick in marked)


def test_the_curve_of_one_query_has_no_band() -> None:
    assert curve_point(400, 1.5, 0.7, 0.7, 0.7, is_money=True) == Point(1.5, 0.7)
    assert curve_point(400, 1.5, 0.7, 0.6, 0.8, is_money=False) == Point(400, 0.7, 0.6, 0.8)


@given(finite)
def test_expectations_are_symmetric(difference: float) -> None:
    for rater in ("thurstone", "bradley-terry"):
        assert expected_preference(rater, difference) + expected_preference(rater, -difference) == pytest.approx(1.0)


def test_expectations_follow_their_models() -> None:
    assert expected_preference("thurstone", 0.5) == pytest.approx(0.760250, abs=1e-6)
    assert expected_preference("bradley-terry", 0.5) == pytest.approx(0.622459, abs=1e-6)


@given(st.text(max_size=300), st.integers(5, 80))
def test_clipped_text_is_one_line_within_its_length(text: str, length: int) -> None:
    line = clipped(text, length)
    assert len(line) <= length
    assert "\n" not in line


def test_title_comes_from_the_metadata_or_the_first_words() -> None:
    assert document_title("some words", {"title": "A title"}) == "A title"
    assert document_title("some  words", {"title": " ", "name": 7}) == "some words"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (percent(0.999), "99\N{NO-BREAK SPACE}%"),
        (percent(1.0), "100\N{NO-BREAK SPACE}%"),
        (percent(0.001), "1\N{NO-BREAK SPACE}%"),
        (percent(0.0), "0\N{NO-BREAK SPACE}%"),
        (signed(-0.25), "−0.25"),
        (decimals(-0.414), "−0.41"),
        (decimals(-0.001), "0.00"),
        (signed(-0.001), "+0.00"),
        (margin(20.0), "39"),
        (decimals(float("nan")), "–"),
        (latency(0.0001), "< 1 ms"),
        (latency(0.0217), "22 ms"),
        (latency(1.26), "1.3 s"),
        (latency(46.5), "46 s"),
        (latency(None), "–"),
        (duration(0.2), "1 s"),
        (duration(120), "2 min"),
        (duration(7200), "2.0 h"),
        (duration(None), "unknown"),
        (money(120), "$0.0001"),
        (money(26), "<$0.0001"),
        (money(29_740_000), "$29.74"),
        (money(0), "$0.00"),
        (pace(0.2), "12 per minute"),
        (pace(1240.3), "1,240 per second"),
    ],
)
def test_numbers_are_written_in_one_way(written: str, expected: str) -> None:
    assert written == expected


def test_numbers_are_written_as_the_visitor_s_language_does() -> None:
    with translation.override("de"):
        assert (count(12345), decimals(0.25), signed(-0.5), money(1_234_560_000)) == (
            "12.345",
            "0,25",
            "−0,50",
            "$1.234,56",
        )
        assert (pace(1240.3), plain_number(0.25)) == ("1.240 je Sekunde", "0.25")


def test_counts_of_stored_sentences_are_written_as_others_and_numbers_of_rows_are_not() -> None:
    asked = stored_text("%(added)s questions in round %(round)s") % {"added": 10740, "round": 1}
    started = stored_text("run %(run)s: %(pairs)s pairs") % {"run": 12345, "pairs": 12345}
    assert translated(as_stored(asked)) == "10,740 questions in round 1"
    assert translated(as_stored(started)) == "run 12345: 12,345 pairs"
    assert translated(asked) == "10,740 questions in round 1"
    assert translated("plain words") == "plain words" and translated(None) == ""


@given(low=st.integers(0, 2 * 10**9), span=st.integers(1, 4 * 10**8))
def test_times_on_an_axis_are_few_round_and_inside(low: int, span: int) -> None:
    found = time_ticks([low, low + span])
    step = time_step(span)
    assert 1 <= len(found) <= 6
    assert all(each % step == 0 for each in found) or found == (low,)
    assert all(low <= each <= low + span for each in found)


def test_minutes_are_marked_on_an_axis_of_five_minutes() -> None:
    assert time_ticks([1000.0, 1290.0]) == (1020, 1080, 1140, 1200, 1260)


@pytest.mark.parametrize("size", [2, 12, 30, 60])
def test_labels_above_a_matrix_end_before_its_edge(size: int) -> None:
    drawing = draw(Project(slug="p"), [{"id": at, "title": "www " * 60} for at in range(size)], [])
    longest = max(len(line.above) for line in drawing.lines)
    assert 10 <= longest <= drawing.upper / (0.5 * drawing.font_size)
