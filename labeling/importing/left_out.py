"""The rows that an import leaves out, counted by reason. Imports no Django."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labeling.importing.lines import RowError

MOST_LINES = 10


@dataclass(frozen=True, slots=True)
class LeftOut:
    """`count` bad rows, or bad documents of rows, with one `reason`, and the `lines` of the first MOST_LINES."""

    reason: str
    count: int
    lines: tuple[int, ...]

    def __str__(self) -> str:
        listed = ", ".join(str(line) for line in self.lines)
        more = ", ..." if self.count > len(self.lines) else ""
        return f"{self.count} left out, {self.reason} (line {listed}{more})"


class LeftOutRows:
    """Collects bad rows by reason: the field without its positions, and what was expected."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._lines: dict[str, list[int]] = {}

    def add(self, error: RowError) -> None:
        """Count a bad row. Raises the error if the rest of the file cannot be read."""
        if error.ends_file:
            raise error
        self.count(error)

    def count(self, error: RowError) -> None:
        """Count an error, whatever it is."""
        field = re.sub(r"\[\d+\]", "[]", error.field)
        reason = f"{field}: expected {error.expectation}" if field else f"expected {error.expectation}"
        self._count[reason] = self._count.get(reason, 0) + 1
        lines = self._lines.setdefault(reason, [])
        if len(lines) < MOST_LINES:
            lines.append(error.line)

    def counted(self) -> tuple[LeftOut, ...]:
        """The reasons, most frequent first."""
        order = sorted(self._count, key=lambda reason: -self._count[reason])
        return tuple(LeftOut(reason, self._count[reason], tuple(self._lines[reason])) for reason in order)
