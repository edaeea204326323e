"""Chart geometry: numbers in, percentages and points out. Does not use the database.

The security policy forbids inline styles, so charts are SVG with numeric attributes; colours come from
the stylesheet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.96
PADDING = 0.03


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values mapped to 0 to 100 %."""

    low: float
    high: float

    @classmethod
    def around(cls, low: float, high: float) -> Axis:
        """Return the range of the values with a margin; a single value gets some width."""
        room = max((high - low) * PADDING, 1.0)
        return cls(low - room, high + room)

    def at(self, value: float) -> float:
        """Return a value's position in per cent, clipped to the chart."""
        share = (value - self.low) / (self.high - self.low)
        return round(100.0 * min(1.0, max(0.0, share)), 2)


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick on the vertical axis: `y` in per cent from the top, with `places` decimals."""

    value: float
    y: float
    places: int


def ticks(axis: Axis, *, whole: bool = False) -> list[Tick]:
    """Return two to six round ticks (1, 2 or 5 times a power of ten apart), lowest first.

    `whole`: integers only, for counts; an axis shorter than 1 then has fewer ticks.
    """
    rough = max((axis.high - axis.low) / 5, 1.0 if whole else 0.0)
    power = math.floor(math.log10(rough))
    step = next(each * 10.0**power for each in (1, 2, 5, 10) if each * 10.0**power >= 0.999 * rough)
    numbers = range(math.ceil(axis.low / step - 1e-6), math.floor(axis.high / step + 1e-6) + 1)
    places = max(0, -math.floor(math.log10(step) + 1e-6))
    return [Tick(number * step, round(100.0 - axis.at(number * step), 2), places) for number in numbers]


@dataclass(frozen=True, slots=True)
class IntervalBar:
    """A dot with its 95 % interval, in per cent of an axis."""

    low: float
    dot: float
    high: float


def interval_bar(axis: Axis, value: float, stderr: float) -> IntervalBar:
    """Return the bar of one estimate."""
    return IntervalBar(low=axis.at(value - Z95 * stderr), dot=axis.at(value), high=axis.at(value + Z95 * stderr))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a histogram: `x`, `width`, `y`, `height` in per cent; the values it covers."""

    x: float
    width: float
    y: float
    height: float
    low: float
    high: float
    count: int


def histogram(counts: Sequence[int], *, low: float, high: float) -> list[Column]:
    """Return columns of equal width over [low, high]; the tallest has full height."""
    if not counts or max(counts) == 0:
        return []
    width = 100.0 / len(counts)
    step = (high - low) / len(counts)
    return [
        Column(
            x=round(position * width + 0.1 * width, 3),
            width=round(0.8 * width, 3),
            y=round(100.0 - 100.0 * number / max(counts), 3),
            height=round(100.0 * number / max(counts), 3),
            low=low + position * step,
            high=low + (position + 1) * step,
            count=number,
        )
        for position, number in enumerate(counts)
    ]


def polyline(points: Sequence[tuple[float, float]], *, x: Axis, y: Axis, width: int, height: int) -> str:
    """Return the `points` attribute of a line, x to the right and y upwards, in view box units."""
    return " ".join(f"{x.at(px) * width / 100:.1f},{height - y.at(py) * height / 100:.1f}" for px, py in points)


@dataclass(frozen=True, slots=True)
class ReliabilityDot:
    """One bin of a reliability diagram in a view box of 100 x 100; its area grows with `count`."""

    x: float
    y: float
    radius: float
    few: bool


FEW_ANSWERS = 20
LEAST_RADIUS, MOST_RADIUS = 1.2, 4.0


def reliability_dots(bins: Sequence[tuple[float, float, int]]) -> list[ReliabilityDot]:
    """Return a dot per non-empty bin of (predicted, observed, count); x is predicted, y is observed."""
    most = max((count for _, _, count in bins), default=0)
    return [
        ReliabilityDot(
            x=round(100.0 * predicted, 2),
            y=round(100.0 - 100.0 * observed, 2),
            radius=round(max(LEAST_RADIUS, MOST_RADIUS * (count / most) ** 0.5), 2),
            few=count < FEW_ANSWERS,
        )
        for predicted, observed, count in bins
        if count
    ]
