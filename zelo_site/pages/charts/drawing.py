"""Draws a chart as SVG: lines with intervals, dots, a reference line, two axes. Numbers in, coordinates out; no database.

A page styles the drawing by its stylesheet; a downloaded file carries its own. The numbers stand in a table as well.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from labeling.importing.formats.tables.formulas import harmless
from zelo_site.pages.charts.geometry import Axis, ticks

WIDTH, HEIGHT = 720.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 20.0, 14.0, 52.0
TONES = 6  # series differ by colour and by dashes


@dataclass(frozen=True, slots=True)
class Point:
    """A value at `x`; `low` and `high` bound its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A named line, or dots where `dots` is set."""

    name: str
    points: tuple[Point, ...]
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical reference line with its text."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The data of a chart. `rows` are the table's, with raw numbers for the CSV; `write_x`, `write_y` write the axes' numbers.

    `read_at`: when a stored figure was measured; `is_renewed`: a worker is asked for a newer one.
    """

    name: str
    title: str
    about: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    write_x: Callable[[float], str]
    write_y: Callable[[float], str]
    mark: Mark | None = None
    diagonal: bool = False
    y_range: tuple[float, float] | None = None
    x_ticks: tuple[float, ...] | None = None
    empty: str = ""
    read_at: datetime | None = None
    is_renewed: bool = False


@dataclass(frozen=True, slots=True)
class DrawnSeries:
    """A series in units of the view box."""

    name: str
    tone: int
    line: str
    band: str
    dots: tuple[tuple[float, float, str], ...]
    bars: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart in units of its view box."""

    chart: Chart
    series: tuple[DrawnSeries, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    mark: tuple[float, str, str] | None = None
    diagonal: tuple[float, float, float, float] | None = None
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM
    middle: float = field(default=(LEFT + WIDTH - RIGHT) / 2)


def draw(chart: Chart) -> Drawing | None:
    """Return the drawing; None for a chart without points."""
    points = [point for series in chart.series for point in series.points]
    if not points:
        return None
    xs = [point.x for point in points] + ([chart.mark.x] if chart.mark else [])
    ys = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    x_axis = _axis(min(xs), max(xs))
    y_axis = Axis(*chart.y_range) if chart.y_range else _axis(min(ys), max(ys))

    def at_x(value: float) -> float:
        return round(LEFT + x_axis.at(value) * (WIDTH - LEFT - RIGHT) / 100, 1)

    def at_y(value: float) -> float:
        return round(HEIGHT - BOTTOM - y_axis.at(value) * (HEIGHT - TOP - BOTTOM) / 100, 1)

    x_values = chart.x_ticks if chart.x_ticks is not None else tuple(each.value for each in ticks(x_axis))
    mark = None
    if chart.mark:
        place = at_x(chart.mark.x)
        mark = (place, chart.mark.text, "end" if place > WIDTH / 2 else "start")
    return Drawing(
        chart,
        tuple(_drawn(series, number, at_x, at_y) for number, series in enumerate(chart.series)),
        tuple((at_x(value), chart.write_x(value)) for value in x_values),
        tuple((at_y(each.value), chart.write_y(each.value)) for each in ticks(y_axis)),
        mark,
        (at_x(0.0), at_y(0.0), at_x(1.0), at_y(1.0)) if chart.diagonal else None,
    )


def _axis(low: float, high: float) -> Axis:
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return Axis(low - room if low < 0 or low > room else 0.0, high + room)


def _drawn(series: Series, number: int, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> DrawnSeries:
    places = [(at_x(point.x), at_y(point.y)) for point in series.points]
    bounds = [
        (at_x(point.x), at_y(point.low), at_y(point.high))
        for point in series.points
        if point.low is not None and point.high is not None
    ]
    upper, lower = [(x, high) for x, _, high in bounds], [(x, low) for x, low, _ in reversed(bounds)]
    few = len(places) <= 60
    return DrawnSeries(
        series.name,
        number % TONES,
        "" if series.dots else _joined(places),
        "" if series.dots or not bounds else _joined([*upper, *lower]),
        tuple((x, y, "") for x, y in places) if series.dots or few else (),
        tuple(bounds) if series.dots else (),
    )


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def as_csv(chart: Chart) -> str:
    """Return the chart's table as CSV, with numbers as programs write them; texts that a spreadsheet would run are quoted."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(chart.columns)
    for row in chart.rows:
        writer.writerow([harmless(value) for value in row])
    return out.getvalue()
