"""The rows that an import leaves out, counted by reason. Imports no Django."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from labeling.importing.lines import RowError

MOST_LINES = 10
MOST_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class LeftOut:
    """`count` bad rows, or bad documents of rows, with one `reason`, and the `lines` of the first MOST_LINES."""

    reason: str
    count: int
    lines: tuple[int, ...]

    def __str__(self) -> str:
        listed = ", ".join(str(line) for line in self.lines)
        more = ", ..." if self.count > len(self.lines) else ""
        return f"{self.count:,} left out, {self.reason} (line {listed}{more})"


class LeftOutRows:
    """Collects bad rows by reason: the field without its positions, and what was expected.

    `rows` are the first MOST_ROWS of the `total` for the download.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._count: dict[str, int] = {}
        self._lines: dict[str, list[int]] = {}

    def add(self, error: RowError) -> None:
        """Count a bad row. Raises the error if the rest of the file cannot be read."""
        if error.ends_file:
            raise error
        self.count(error)

    def count(self, error: RowError) -> None:
        """Count an error, whatever it is."""
        if len(self.rows) < MOST_ROWS:
            self.rows.append(
                {
                    "line": error.line,
                    "field": error.field,
                    "problem": error.problem,
                    "expected": error.expectation,
                    "remedy": error.remedy,
                }
            )
        field = re.sub(r"\[\d+\]", "[]", error.field)
        reason = f"{field}: expected {error.expectation}" if field else f"expected {error.expectation}"
        self._count[reason] = self._count.get(reason, 0) + 1
        lines = self._lines.setdefault(reason, [])
        if len(lines) < MOST_LINES:
            lines.append(error.line)

    @property
    def total(self) -> int:
        return sum(self._count.values())

    def counted(self) -> tuple[LeftOut, ...]:
        """The reasons, most frequent first."""
        order = sorted(self._count, key=lambda reason: -self._count[reason])
        return tuple(LeftOut(reason, self._count[reason], tuple(self._lines[reason])) for reason in order)
