"""Ranks of a run file: which columns are ranks, and whether scores are distances because they rise with the ranks beside them.

`trainer.evaluation.run_files` and the format `trec-run` read the rows. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labeling.importing.lines import RowError

# So many rows must be reversed, and no other one may be: a short file may have any ranks.
LEAST_REVERSED = 10


@dataclass(slots=True)
class RankColumn:
    """Follows rank and score of the rows in the order of the file."""

    _last: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    _rows: int = 0
    _reversed: int = 0
    _counting: int = 0

    def add(self, query: str, rank: Any, score: float, line: int, *, is_fourth: bool) -> None:
        """Note a row; `is_fourth`: of four columns without a header. Raises RowError if the rank of such a row is none."""
        found = _whole(rank)
        if found is None and is_fourth:
            raise _refused(
                "columns", f"the third of four columns is {str(rank)[:40]!r}, expected a rank", line,
                "query document rank score", "put the score into the last column, or write a header",
            )  # fmt: skip
        before_rank, before_score, place = self._last.get(query, (None, 0.0, 0))
        if before_rank is not None and found is not None:
            self._reversed += (found - before_rank) * (score - before_score) > 0.0
        self._last[query] = (-1.0 if found is None else found), score, place + 1
        self._rows += 1
        self._counting += score == place + 1

    def finish(self, line: int, *, is_fourth: bool) -> None:
        """Raise RowError where the scores are the ranks, or rise with them in every query."""
        pairs = self._rows - len(self._last)
        if is_fourth and pairs and self._counting == self._rows:
            raise _refused(
                "score", "the last of four columns is 1, 2, 3, ... in each query, as a rank would be", line,
                "query document rank score", "put the score into the last column, or write a header",
            )  # fmt: skip
        if pairs == self._reversed >= LEAST_REVERSED:
            raise _refused(
                "score", "the scores rise with the ranks in each query, as distances do", line,
                "a higher score for a better document", "write negative distances, or leave out the ranks",
            )  # fmt: skip


def third_is_rank(run: Mapping[str, Mapping[str, float]], line: int) -> bool:
    """Whether the third of three columns is a rank: in every query the numbers are 1, 2, 3, ... as the file lists them.

    A query of one document tells nothing. Raises RowError for other whole numbers that may be ranks: 1 for the one document of
    each query, numbers that rise in every query, such as the ranks that a filter left, or 1 to n in another order.
    """
    lists = [list(own.values()) for own in run.values()]
    several = [own for own in lists if len(own) > 1]
    if several and all(own == list(range(1, len(own) + 1)) for own in lists):
        return True
    if not several and all(own == [1.0] for own in lists):
        what = "is 1 for one document of each query"
    elif not several or all(own == sorted(own, reverse=True) for own in several):
        return False
    elif all(own == sorted(set(own)) and own[0] >= 0.0 and all(map(float.is_integer, own)) for own in several):
        what = "rises in each query"
    elif any(all(sorted(own) == list(range(low, low + len(own))) for own in lists) for low in (0, 1)):
        what = "numbers the documents of each query"
    else:
        return False
    raise _refused(
        "score", f"the third column {what}, which may be a score or a rank", line,
        "a header (query-id corpus-id score) or six columns", "export the run in TREC's format",
    )  # fmt: skip


def _whole(rank: Any) -> float | None:
    """A rank from 0, None if it is no whole number."""
    if isinstance(rank, bool) or not isinstance(rank, str | int | float):
        return None
    if isinstance(rank, str) and not rank.isascii():
        return None  # float() reads the digits of all scripts
    try:
        value = float(rank)
    except ValueError:
        return None
    return value if value >= 0.0 and value.is_integer() else None


def _refused(name: str, problem: str, line: int, expectation: str, remedy: str) -> RowError:
    return RowError(problem, line=line, field=name, expectation=expectation, remedy=remedy, ends_file=True)
