"""The temporary table of the answers in a file, beside that of its texts. `labeling.importing.staging` opens the transaction."""

from __future__ import annotations

from django.db.backends.utils import CursorWrapper

from labeling.importing.answers.rows import ImportedPreference, ImportedRating

AnswerRecord = tuple[
    int, int, str, str | None, str, str | None, str, str, bool, bool | None, float | None, str | None, str, int | None
]
_CREATE = """
DROP TABLE IF EXISTS pg_temp.import_answer;
CREATE TEMPORARY TABLE import_answer (
    position bigint, line bigint, query_a text, query_b text, document_a text, document_b text, annotator text,
    annotator_key text, by_person boolean, swapped boolean, preference float8, kind text, rationale text, grade integer
) ON COMMIT DROP
"""
_COPY = "COPY import_answer FROM STDIN"


class StagedAnswers:
    """Copies answers into the temporary table, some thousand at a time; the table is made with the first one."""

    def __init__(self, cursor: CursorWrapper, at_once: int) -> None:
        self._cursor = cursor
        self._at_once = at_once
        self._batch: list[AnswerRecord] = []
        self.preferences = self.ratings = 0

    @property
    def rows(self) -> int:
        return self.preferences + self.ratings

    def add(self, row: ImportedPreference | ImportedRating) -> None:
        if not self.rows:
            self._cursor.execute(_CREATE)
        if isinstance(row, ImportedRating):
            self.ratings += 1
            self._batch.append(_rating(row, self.rows))
        else:
            self.preferences += 1
            self._batch.append(_preference(row, self.rows))
        if len(self._batch) >= self._at_once:
            self._flush()

    def finish(self) -> None:
        """Copy the rest; nothing may be added afterwards."""
        if self.rows:
            self._flush()
            self._cursor.execute("ANALYZE import_answer")

    def _flush(self) -> None:
        with self._cursor.copy(_COPY) as copy:
            for record in self._batch:
                copy.write_row(record)
        self._batch.clear()


def _preference(row: ImportedPreference, position: int) -> AnswerRecord:
    return (
        *(position, row.line, row.query_id, row.query_b, row.a_id, row.b_id, row.annotator, row.annotator_key),
        *(row.by_person, row.swapped, row.preference, row.kind.value, row.rationale, None),
    )  # fmt: skip


def _rating(row: ImportedRating, position: int) -> AnswerRecord:
    return (
        *(position, row.line, row.query_id, None, row.document_id, None, row.annotator, row.annotator_key),
        *(row.by_person, None, None, None, "", row.grade),
    )  # fmt: skip
