"""The parts of a report, independent of its format: `zelo_site.report.rendering` writes them as HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zelo_site.pages.charts.geometry import Axis, IntervalBar


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; `is_number` aligns its cells to the right."""

    label: str
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure with what qualifies it, such as its interval: below it in HTML, behind it in parentheses elsewhere."""

    value: str
    detail: str

    def __str__(self) -> str:
        return f"{self.value} ({self.detail})"


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table: a name, its cells and, in a table with `has_bars`, its interval on the shared axis."""

    name: str
    cells: tuple[str | Cell, ...]
    bar: IntervalBar | None = None


# Cells with more characters than a number with its interval and its count are sentences, which may take several lines.
LONGEST_NUMBER = 40


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column is the name; `note` stands below it."""

    title: str
    first: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    note: str = ""

    @property
    def has_bars(self) -> bool:
        return any(line.bar for line in self.lines)

    @property
    def rows(self) -> list[tuple[Line, list[tuple[str, str | Cell]]]]:
        """Each line with its cells and their CSS classes, for a template."""
        return [
            (line, [(_classes(column, cell), cell) for column, cell in zip(self.columns, line.cells, strict=True)])
            for line in self.lines
        ]


def _classes(column: Column, cell: str | Cell) -> str:
    if not column.is_number:
        return ""
    longest = max(len(cell.value), len(cell.detail)) if isinstance(cell, Cell) else len(cell)
    return "number long" if longest > LONGEST_NUMBER else "number"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values, one a line; a `code` value is a checksum or an option."""

    rows: tuple[tuple[str, str], ...]
    title: str = ""
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; `is_warning` marks what a reader must not miss."""

    words: str
    is_warning: bool = False


Block = Table | Facts | Text


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with its blocks; `key` names it in addresses and in REST."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A report: `facts` under its title, then the sections."""

    title: str
    facts: Facts
    sections: tuple[Section, ...]
    language: str


def numbers(*labels: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(label) for label in labels)


def words(*labels: str) -> tuple[Column, ...]:
    """Columns of text."""
    return tuple(Column(label, is_number=False) for label in labels)


def bars(spans: Sequence[tuple[float, float, float]], *, zero: bool = False) -> list[IntervalBar]:
    """Intervals (low, estimate, high) as bars on one axis, which includes zero if asked."""
    ends = [value for low, _, high in spans for value in (low, high)] + ([0.0] if zero else [])
    room = max(0.02, 0.05 * (max(ends, default=1.0) - min(ends, default=0.0)))
    axis = Axis(min(ends, default=0.0) - room, max(ends, default=1.0) + room)
    return [IntervalBar(axis.at(low), axis.at(middle), axis.at(high)) for low, middle, high in spans]
