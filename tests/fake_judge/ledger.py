"""The append-only book of calls that the fake judge received: one JSON line each, written before it answers.

`paid` says whether a real provider would have charged for it, answer delivered or not. Tests compare
it with what the product's own books say.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any


class Ledger:
    """Counts calls, and writes them where a path is given; a restart goes on where the file ends."""

    def __init__(self, path: Path | None) -> None:
        self.calls = 0
        self.paid = 0
        self.by_fault: Counter[str] = Counter()
        self.by_model: Counter[str] = Counter()
        self._file: int | None = None
        if path is not None:
            for line in read_ledger(path) if path.exists() else []:
                self._count(line)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, **line: Any) -> None:
        """Count and write one call; a single write, so that no kill leaves half a line."""
        self._count(line)
        if self._file is not None:
            os.write(self._file, (json.dumps({"call": self.calls, **line}) + "\n").encode())

    def _count(self, line: dict[str, Any]) -> None:
        self.calls += 1
        self.paid += bool(line["paid"])
        self.by_fault[line["fault"] or "none"] += 1
        self.by_model[line["model"]] += 1

    def summary(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "paid": self.paid,
            "by_fault": dict(self.by_fault),
            "by_model": dict(self.by_model),
        }


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """All lines of a ledger file, in the order in which the calls came in."""
    return [json.loads(line) for line in path.read_text().splitlines()]
