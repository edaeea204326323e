"""Drawn charts: places of points, intervals, marks and ticks, and what a spreadsheet gets."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from django.template.loader import render_to_string

from zelo_site.pages.charts.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Chart, Mark, Point, Series, as_csv, draw


def make_chart(**fields: Any) -> Chart:
    values: dict[str, Any] = {
        "name": "made", "title": "Spend <by> judge", "about": "", "x_label": "x", "y_label": "y",
        "series": (Series("first", (Point(0.0, 1.0, 0.5, 1.5), Point(10.0, 2.0, 1.5, 2.5))),),
        "columns": ("judge", "dollars"), "rows": (("=1+1", 0.5), ("plain", 2)), "write_x": str, "write_y": str,
    }  # fmt: skip
    return Chart(**(values | fields))


def test_points_keep_their_order_inside_the_axes() -> None:
    drawing = draw(make_chart())
    assert drawing is not None
    (series,) = drawing.series
    (x0, y0, _), (x1, y1, _) = series.dots
    assert LEFT <= x0 < x1 <= WIDTH - RIGHT
    assert 0 <= y1 < y0 <= HEIGHT - BOTTOM
    assert len(series.band.split()) == 4
    assert all(LEFT <= x <= WIDTH - RIGHT for x, _ in drawing.x_ticks)


def test_a_mark_beyond_the_points_stays_inside() -> None:
    drawing = draw(make_chart(mark=Mark(400.0, "the paper’s design")))
    assert drawing is not None and drawing.mark is not None
    assert drawing.mark[0] <= WIDTH - RIGHT and drawing.mark[2] == "end"


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_one_point_has_an_axis(value: float) -> None:
    drawing = draw(make_chart(series=(Series("one", (Point(value, value),), dots=True),)))
    assert drawing is not None and drawing.y_ticks and drawing.series[0].line == ""


def test_nothing_is_drawn_without_points() -> None:
    assert draw(make_chart(series=())) is None


def test_the_file_is_well_formed_and_escapes_texts() -> None:
    chart = make_chart()
    text = render_to_string(
        "zelo/charts/parts/file.svg", {"chart": chart, "drawing": draw(chart), "project": {"name": "A & B"}}
    )
    root = ElementTree.fromstring(text)
    assert root.find("{http://www.w3.org/2000/svg}title").text == "Spend <by> judge · A & B"  # type: ignore[union-attr]


def test_csv_keeps_numbers_and_disarms_formulas() -> None:
    assert as_csv(make_chart()).splitlines() == ["judge,dollars", "'=1+1,0.5", "plain,2"]
