"""The format `preferences`: a pairwise answer in each row, as CSV, TSV, JSON lines, a JSON array or Parquet.

It reads the project's own export of judgments, and tables with columns for a query, two documents and an answer.
Imports no Django.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import pydantic

from labeling.importing.answers.rows import ImportedPreference
from labeling.importing.archives import refused
from labeling.importing.formats import fields
from labeling.importing.formats.answers import values
from labeling.importing.formats.line_importer import Row, RowImporter
from labeling.importing.formats.tables.cells import table_cells, table_columns
from labeling.importing.lines import RowError
from labeling.importing.strict_json import printable, quoted
from labeling.plugins import register
from labeling.records import AnswerKind

NONE = "-"
# Names after lower() and without all but letters and digits, the likeliest first.
_NAMES: dict[str, tuple[str, ...]] = {
    "query": ("query", "queryid", "qid", "querya", "topic", "topicid", "question", "questionid"),
    "a": (
        "a",
        "documenta",
        "doca",
        "ida",
        "docida",
        "documentaid",
        "docaid",
        "first",
        "left",
        "passagea",
        "doc1",
        "document1",
    ),
    "b": (
        "b",
        "documentb",
        "docb",
        "idb",
        "docidb",
        "documentbid",
        "docbid",
        "second",
        "right",
        "passageb",
        "doc2",
        "document2",
    ),
    "preference": ("preference", "pa", "probability", "proba", "preferencea"),
    "score": ("score",),
    "winner": ("winner", "preferred", "choice", "better", "answer", "label", "verdict"),
    "annotator": ("annotator", "judge", "rater", "assessor", "worker", "workerid", "model", "user"),
    "rationale": ("rationale", "reason", "comment", "explanation", "thought", "note"),
    "swapped": ("swapped",),
    "kind": ("kind",),
    "second_query": ("queryb",),
    "annotator_key": ("annotatorid",),
    "by_person": ("byperson",),
}
# The options that name a column, by their role.
COLUMN_OPTIONS = {
    **{role: role for role in ("query", "a", "b", "preference", "score", "winner")},
    "annotator": "annotator_column",
}
_ANSWERS = ("preference", "score", "winner")
_COLUMN = f'Its column. Empty: guessed from the names; "{NONE}": none.'


class PreferencesOptions(values.AnswerOptions):
    query: str = pydantic.Field(default="", max_length=200, description=f"The query's id. {_COLUMN}")
    a: str = pydantic.Field(default="", max_length=200, description=f"The first document's id. {_COLUMN}")
    b: str = pydantic.Field(default="", max_length=200, description=f"The second document's id. {_COLUMN}")
    preference: str = pydantic.Field(default="", max_length=200, description=f"P(a is better), 0 to 1. {_COLUMN}")
    score: str = pydantic.Field(default="", max_length=200, description=f"-1: a is better; 1: b is better. {_COLUMN}")
    winner: str = pydantic.Field(
        default="", max_length=200, description=f"a, b, tie, or the better one's id. {_COLUMN}"
    )
    annotator_column: str = pydantic.Field(default="", max_length=200, description=f"The annotator. {_COLUMN}")


@register
class Preferences(RowImporter):
    """Pairwise answers by the ids of a query and two documents that the project has as candidates of it.

    Document a was shown first, unless a column `swapped` says otherwise. Each annotator of the file becomes an annotator
    of the project.
    """

    name = "preferences"
    label = "Pairwise judgments (CSV, TSV, JSON, Parquet)"
    format_help = "A query, two documents a and b, and preference, score or winner in each row; an annotator and a rationale are optional."
    example = (
        b"query,a,b,winner,annotator,rationale\nq1,d1,d2,a,anna,answers the question\nq1,d2,d3,tie,anna,\n"
        b"q1,d1,d2,b,ben,\n"
    )
    Options = PreferencesOptions
    options: PreferencesOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        try:
            columns = table_columns(head)
            return 0.85 if columns and _complete(_guessed(columns, {})) else 0.0
        except RowError:
            return 0.0

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        columns, seen = dict[str, str](), dict[str, None]()
        for line, cells in table_cells(stream, self.options.max_line_bytes, self.options.max_total_bytes):
            if isinstance(cells, RowError):
                yield cells
                continue
            try:
                if not cells.keys() <= seen.keys():
                    seen |= dict.fromkeys(cells)
                    columns = self._columns(list(seen))
                yield self._row(columns, cells, line)
            except RowError as error:
                yield error
                if error.ends_file:
                    return

    def _columns(self, names: Sequence[str]) -> dict[str, str]:
        given = {role: getattr(self.options, option) for role, option in COLUMN_OPTIONS.items()}
        for role, name in given.items():
            if name not in ("", NONE) and name not in names:
                raise _refused(names, f"has no column {quoted(name)} for {role}")
        found = _guessed(names, given)
        if not _complete(found):
            missing = [role for role in ("query", "a", "b") if role not in found] or ["preference, score or winner"]
            raise _refused(names, f"has no column for {', '.join(missing)}")
        return found

    def _row(self, columns: Mapping[str, str], cells: Mapping[str, Any], line: int) -> ImportedPreference:
        def cell(role: str) -> Any:
            value = cells.get(columns[role]) if role in columns else None
            return None if isinstance(value, str) and not value.strip() else value

        query, a, b = (fields.identifier(cell(role), columns[role], line) for role in ("query", "a", "b"))
        second = cell("second_query")
        second = "" if second is None else fields.identifier(second, columns["second_query"], line)
        if second in ("", query):
            second = ""
            values.different(a, b, line)
        preference, kind = self._answer(columns, cell, a, b, line)
        key = cell("annotator_key")
        people = self.options.annotators_are == "people"
        return ImportedPreference(
            query_id=query,
            a_id=a,
            b_id=b,
            preference=preference,
            kind=kind,
            annotator=values.name_of(cell("annotator"), line, field="annotator", default=self.options.annotator),
            annotator_key="" if key is None else values.name_of(key, line, field="annotator_id", default=""),
            by_person=values.truth(cell("by_person"), line, field="by_person") if "by_person" in columns else people,
            swapped=values.truth(cell("swapped"), line, field="swapped"),
            rationale=values.rationale(cell("rationale"), line),
            second_query_id=second,
            line=line,
        )

    def _answer(self, columns: Mapping[str, str], cell: Any, a: str, b: str, line: int) -> values.Answer:
        given = [role for role in _ANSWERS if role in columns and cell(role) is not None]
        kind = cell("kind")
        if not given and kind in (AnswerKind.BOTH_IRRELEVANT.value, AnswerKind.CANNOT_JUDGE.value):
            return None, AnswerKind(kind)
        if len(given) != 1:
            raise RowError(
                f"has {' and '.join(given)}" if given else "has no answer",
                line=line,
                expectation="one of preference (P(a is better), 0 to 1), score (-1: a, 1: b) and winner (a, b, tie)",
                remedy="keep one of them" if given else "add the answer, or leave the line out",
            )
        role = given[0]
        found = _answer_in(role, cell(role), a, b, line, field=columns[role])
        if isinstance(kind, str) and kind in set(AnswerKind) and kind != found[1]:
            raise RowError(
                f"is {kind!r} beside the {role} {quoted(str(cell(role)))}",
                line=line,
                field="kind",
                expectation="one answer",
                remedy=f"leave the {role} out where the answer is {kind!r}",
            )
        return found


def _answer_in(role: str, value: Any, a: str, b: str, line: int, *, field: str) -> values.Answer:
    if role == "winner":
        return values.of_winner(value, a, b, line, field=field)
    if role == "preference":
        return values.of_number(value, line, field=field, low=0.0, high=1.0), AnswerKind.PREFERENCE
    return (1.0 - values.of_number(value, line, field=field, low=-1.0, high=1.0)) / 2.0, AnswerKind.PREFERENCE


def guessed_options(columns: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The column of each option that names one, "-" for none; `given` values of options override the guess."""
    found = _guessed(columns, {role: given.get(option, "") for role, option in COLUMN_OPTIONS.items()})
    return {option: found.get(role, NONE) for role, option in COLUMN_OPTIONS.items()}


def _guessed(columns: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    found = {role: name for role, name in given.items() if name not in ("", NONE)}
    free = [each for each in columns if each not in found.values()]
    for role, names in _NAMES.items():
        if given.get(role):
            continue
        by_name = {values.plain(each): each for each in reversed(free)}
        if name := next((by_name[each] for each in names if each in by_name), ""):
            found[role] = name
            free.remove(name)
    return found


def _complete(found: Mapping[str, str]) -> bool:
    return {"query", "a", "b"} <= found.keys() and bool(set(_ANSWERS) & found.keys())


def _refused(columns: Sequence[str], problem: str) -> RowError:
    listed = ", ".join(repr(printable(each)) for each in list(columns)[:20]) or "none"
    return refused(
        f"{problem}; its columns are {listed}",
        expectation="columns for a query, two documents a and b, and preference, score or winner",
        remedy="name the columns in the options of the format",
    )
