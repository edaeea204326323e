"""Cells of CSV files that a spreadsheet would run as formulas: our files hold them as texts, and our importers read them back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
# The files that we write and read again. Files of others mean an apostrophe where they write one.
_OURS = {
    ("query_id", "document_id", "grade", "rater"),
    ("query_a", "document_a", "query_b", "document_b", "annotator", "annotator_id", "by_person", "swapped", "kind",
     "preference", "rationale", "created_at"),
}  # fmt: skip


def harmless(cell: Any) -> Any:
    """The cell of a CSV file: a text that a spreadsheet would take for a formula begins with an apostrophe; others stay."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def are_ours(header: Sequence[str]) -> bool:
    """Whether a CSV file with these columns was written with `harmless`."""
    return tuple(header) in _OURS


def original(cell: str) -> str:
    """The text from which `harmless` made the cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
