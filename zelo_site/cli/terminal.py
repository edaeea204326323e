"""What commands print: progress bars and tables; plain lines where the output is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

BAR_WIDTH = 28


class Output(Protocol):
    """What a bar is drawn on: a text stream, or the wrapper that management commands write to."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...

    def isatty(self) -> bool: ...


class ProgressBar:
    """One line that is drawn over; without a terminal, one line at the start and one at the end."""

    def __init__(self, label: str, stream: Output | None = None) -> None:
        self.label = label
        self.stream = stream or sys.stdout
        self._tty = self.stream.isatty()
        self._last = ""

    def show(self, done: int, total: int, note: str = "") -> None:
        """Draw `done` of `total` with a note behind it."""
        filled = BAR_WIDTH * done // total if total else 0
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        self._draw(f"{self.label:<12} {bar} {done:,} of {total:,}  {note}")

    def end(self, note: str) -> None:
        """Replace the bar with its outcome and go to the next line."""
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


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = cells
        padded = [first.ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


def duration(seconds: float | None) -> str:
    """Seconds in words that fit a progress line."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
