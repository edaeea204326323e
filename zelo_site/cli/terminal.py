"""Terminal output of commands: progress bars and tables, or plain lines if the output is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from scoring.numerics.measures.resampling import Interval

BAR_WIDTH = 28


class Output(Protocol):
    """The output of a bar: a text stream, or a management command's wrapper."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...

    def isatty(self) -> bool: ...


class ProgressBar:
    """A line that is redrawn; without a terminal, one line at the start and one at the end."""

    def __init__(self, label: str, stream: Output | None = None) -> None:
        self.label = label
        self.stream = stream or sys.stdout
        self._tty = self.stream.isatty()
        self._last = ""

    def show(self, done: int, total: int, note: str = "") -> None:
        """Draw `done` of `total`, followed by a note."""
        filled = BAR_WIDTH * done // total if total else 0
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        self._draw(f"{self.label:<12} {bar} {done:,} of {total:,}  {note}")

    def end(self, note: str) -> None:
        """Replace the bar with its result and end the line."""
        self._draw(f"{self.label:<12} {note}")
        if self._tty:
            self.stream.write("\n")
        elif self._last:
            self.stream.write(self._last + "\n")
        self.stream.flush()

    def _draw(self, line: str) -> None:
        if self._tty:
            self.stream.write("\r\x1b[2K" + line)
            self.stream.flush()
        self._last = line


def span(own: Interval, form: str) -> str:
    """Return an interval in a number format such as ".3f", or why there is none."""
    return f"no interval: {own.unknown}" if own.unknown else f"{own.low:{form}} – {own.high:{form}}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a plain table: the first column left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = cells
        padded = [first.ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def duration(seconds: float | None) -> str:
    """Return seconds as short text for a progress line."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
