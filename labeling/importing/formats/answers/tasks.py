"""Tasks of annotation tools, for all tools: the texts of a task and the answers to it become rows. Imports no Django."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

from labeling.importing.answers.rows import ImportedPreference, ImportedRating
from labeling.importing.formats import fields
from labeling.importing.formats.answers import values
from labeling.importing.formats.line_importer import Row
from labeling.importing.formats.pair_rows import Pair, PairRows, text_id
from labeling.importing.lines import RowError
from labeling.importing.strict_json import printable
from labeling.records import AnswerKind, ImportedCandidate

# Names after lower() and without all but letters and digits, the likeliest first.
_QUERIES = ("query", "querytext", "question", "prompt", "instruction", "search", "topic")
_DOCUMENTS = ("document", "documenttext", "text", "passage", "content", "response", "answer", "doc")
_FIRST = ("documenta", "texta", "text1", "document1", "passage1", "answer1", "response1", "left", "first", "a")
_SECOND = ("documentb", "textb", "text2", "document2", "passage2", "answer2", "response2", "right", "second", "b")
_FIELD = "Its key in a task. Empty: guessed from the names."


class TaskOptions(values.AnswerOptions):
    query: str = pydantic.Field(default="", max_length=200, description=f"The query's text. {_FIELD}")
    document: str = pydantic.Field(default="", max_length=200, description=f"The document of a rating task. {_FIELD}")
    document_a: str = pydantic.Field(default="", max_length=200, description=f"The first document of a pair. {_FIELD}")
    document_b: str = pydantic.Field(default="", max_length=200, description=f"The second document of a pair. {_FIELD}")
    question: str = pydantic.Field(
        default="", max_length=200, description="Name of the control or question whose answers count. Empty: every one."
    )
    predictions: bool = pydantic.Field(default=False, description="Import models' predictions or suggestions too.")


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """One answer to a task: a number, a word, or a ranking as {document key: rank}."""

    value: Any
    annotator: str
    key: str = ""
    by_person: bool = True
    rationale: str = ""


@dataclass(frozen=True, slots=True)
class _Task:
    """A task's texts: one document of a rating task, two of a pair. `names`: the keys of its documents."""

    query_id: str
    query: str
    documents: tuple[tuple[str, str], ...]
    names: tuple[str, ...]


class TaskRows:
    """Turns tasks into rows; a text that repeats is yielded once as a candidate, about 200 bytes of memory each."""

    def __init__(self, options: TaskOptions) -> None:
        self._options = options
        self._texts = PairRows()
        self._candidates: set[tuple[str, str]] = set()

    def rows(self, data: Mapping[str, Any], answers: Iterable[TaskAnswer], line: int) -> Iterator[Row]:
        """The rows of a task with `data` by key. Raises RowError before the first row."""
        task = self._task(data, line)
        made = [self._answer(task, answer, line) for answer in answers]
        return iter([*self._text_rows(task, line), *made])

    def _text_rows(self, task: _Task, line: int) -> Iterator[Row]:
        for document_id, text in task.documents:
            found = Pair(query_id=task.query_id, query=task.query, document_id=document_id, document=text)
            for row in self._texts.rows(found, line):
                if isinstance(row, ImportedCandidate):
                    if (task.query_id, document_id) in self._candidates:
                        continue
                    self._candidates.add((task.query_id, document_id))
                yield row

    def _task(self, data: Mapping[str, Any], line: int) -> _Task:
        query_key = _key(data, self._options.query, _QUERIES, "query", line)
        pair = [
            _key(data, given, names, f"document_{side}", line, missing="")
            for side, given, names in (
                ("a", self._options.document_a, _FIRST),
                ("b", self._options.document_b, _SECOND),
            )
        ]
        keys = pair if all(pair) else [_key(data, self._options.document, _DOCUMENTS, "document", line)]
        query = fields.text(data[query_key], query_key, line)
        documents = []
        for key in keys:
            text = fields.text(data[key], key, line)
            documents.append((_id_beside(data, key, line) or text_id("d", text), text))
        if len(documents) == 2:
            values.different(documents[0][0], documents[1][0], line)
        query_id = _id_beside(data, query_key, line) or text_id("q", query)
        return _Task(query_id, query, tuple(documents), tuple(keys))

    def _answer(self, task: _Task, answer: TaskAnswer, line: int) -> ImportedPreference | ImportedRating:
        common: dict[str, Any] = {
            "annotator": values.name_of(answer.annotator, line, field="annotator", default=self._options.annotator),
            "annotator_key": values.name_of(answer.key, line, field="annotator's id", default=""),
            "by_person": answer.by_person,
            "line": line,
        }
        if len(task.documents) == 1:
            grade = values.rating(_first(answer.value), line, field="answer")
            return ImportedRating(task.query_id, task.documents[0][0], grade, **common)
        preference, kind = self._preference(task, answer.value, line)
        (a, _), (b, _) = task.documents
        return ImportedPreference(
            task.query_id,
            a,
            b,
            preference,
            kind,
            rationale=values.rationale(answer.rationale, line),
            **common,
        )

    def _preference(self, task: _Task, value: Any, line: int) -> values.Answer:
        first, second = task.names
        if isinstance(value, Mapping):
            ranks = [fields.number(value.get(name)) for name in task.names]
            if ranks[0] is None or ranks[1] is None:
                raise RowError(
                    f"ranks {printable(', '.join(map(str, value)))}",
                    line=line,
                    field="answer",
                    expectation=f"ranks of {first} and {second}",
                    remedy="name the ranked documents as the fields of the task",
                )
            return (0.5 if ranks[0] == ranks[1] else float(ranks[0] < ranks[1])), AnswerKind.PREFERENCE
        return values.of_winner(_first(value), first, second, line, field="answer")


def _first(value: Any) -> Any:
    """The only element of a list of choices."""
    return value[0] if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1 else value


def _key(
    data: Mapping[str, Any], given: str, names: Sequence[str], role: str, line: int, *, missing: str | None = None
) -> str:
    """The key of a text in a task; `missing` where there is none, or RowError without that."""
    if given and given in data:
        return given
    by_name = {values.plain(each): each for each in reversed(list(data))}
    if not given and (found := next((by_name[each] for each in names if each in by_name), "")):
        return found
    if missing is not None and not given:
        return missing
    listed = ", ".join(printable(each) for each in list(data)[:20]) or "none"
    raise RowError(
        f"has the keys {listed}, and no {given or role}",
        line=line,
        field=role,
        expectation="texts of a query and of one document or two",
        remedy=f"name the key in the option {role} of the format",
    )


def _id_beside(data: Mapping[str, Any], key: str, line: int) -> str:
    """The id that stands beside a text, as `query_id` beside `query`; empty if there is none."""
    for name in (f"{key}_id", f"{key}Id", f"{key}-id", f"id_{key}"):
        if data.get(name) not in (None, ""):
            return fields.identifier(data[name], name, line)
    return ""
