"""The summary of an import: its counts, or the reason why it stored nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from labeling.importing.left_out import LeftOut
from labeling.importing.lines import RowError


class ImportFailed(ValueError):
    """A file was not imported, and nothing of it is stored. `line` is 0 for an error of the whole file."""

    def __init__(self, problem: str, *, file: str, remedy: str, line: int = 0, field: str = "") -> None:
        where = ", ".join(part for part in (file, f"line {line}" if line else "", field) if part)
        super().__init__(f"{where}: {problem}; {remedy}")
        self.problem = problem
        self.file = file
        self.line = line
        self.field = field
        self.remedy = remedy

    @classmethod
    def of_row(cls, error: RowError, file: str) -> ImportFailed:
        return cls(
            f"{error.problem}; expected {error.expectation}",
            file=file,
            line=error.line,
            field=error.field,
            remedy=error.remedy,
        )


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """Counts of a file's distinct queries, documents, candidates and graded candidates, and of the new ones.

    `grades_unmatched`: grades of documents that are not candidates, which are kept.
    `candidates_unmatched`: skipped candidates of a run whose query or document the project lacks. `grades_changed`: replaced grades. `kept`:
    queries, documents and candidates with another metadata, rank or score in the file than in the project, which keeps
    its own. `replaced`: those that took the file's. `judgments`: distinct answers, of which changed ones superseded those of an
    earlier import; `ratings`: grades of single raters. `import_id`: the record of the import, 0 without one. `left_out`: the bad rows of a file that was imported without them.
    """

    queries: int = 0
    documents: int = 0
    candidates: int = 0
    grades: int = 0
    queries_created: int = 0
    documents_created: int = 0
    candidates_created: int = 0
    grades_created: int = 0
    grades_changed: int = 0
    grades_unmatched: int = 0
    candidates_unmatched: int = 0
    kept: int = 0
    replaced: int = 0
    judgments: int = 0
    judgments_created: int = 0
    judgments_changed: int = 0
    ratings: int = 0
    ratings_created: int = 0
    ratings_changed: int = 0
    left_out: tuple[LeftOut, ...] = ()
    import_id: int = field(default=0, compare=False)

    def __str__(self) -> str:
        parts = [
            f"{count:,} {noun} ({created:,} new)"
            for count, created, noun in (
                (self.queries, self.queries_created, "queries"),
                (self.documents, self.documents_created, "documents"),
                (self.candidates, self.candidates_created, "candidates"),
                (self.grades, self.grades_created, "grades"),
                (self.judgments, self.judgments_created, "judgments"),
                (self.ratings, self.ratings_created, "grades of raters"),
            )
            if count
        ]
        notes = (
            (self.grades_changed, "grades replaced"),
            (self.judgments_changed, "judgments changed"),
            (self.ratings_changed, "grades of raters changed"),
            (self.replaced, "texts, metadata and first-stage ranks replaced"),
            (self.grades_unmatched, "grades of documents that are not candidates"),
            (self.candidates_unmatched, "candidates of unknown queries or documents skipped"),
        )
        parts += [f"{count:,} {note}" for count, note in notes if count]
        if self.kept:
            parts.append(f"{self.kept:,} differ from the project and were not changed")
        parts += [str(each) for each in self.left_out]
        return ", ".join(parts)

    @property
    def changed_nothing(self) -> bool:
        """True if the project had all of it already."""
        return not any(
            (
                self.queries_created,
                self.documents_created,
                self.candidates_created,
                self.grades_created,
                self.grades_changed,
                self.replaced,
                self.judgments_created,
                self.judgments_changed,
                self.ratings_created,
                self.ratings_changed,
            )
        )
