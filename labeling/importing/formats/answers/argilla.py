"""The format `argilla`: records of Argilla with responses to rating, label and ranking questions. Imports no Django.

It reads the JSON of `records.to_json()`, JSON lines of the same, the flat records of `to_list(flatten=True)` and of exports to
Hugging Face, and the lists of responses of Argilla 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from labeling.importing.formats.answers import values
from labeling.importing.formats.answers.label_studio import task_members
from labeling.importing.formats.answers.tasks import TaskAnswer, TaskOptions, TaskRows
from labeling.importing.formats.line_importer import Row, RowImporter
from labeling.importing.formats.tables.readers import kind_of
from labeling.importing.lines import RowError
from labeling.plugins import register

_SHAPE = '{"fields": {...}, "metadata": {...}, "responses": {"question": [{"value": ..., "user_id": ...}]}}'
_REMEDY = "export the data set with records.to_json()"
_SUBMITTED = (None, "", "submitted")


@register
class Argilla(RowImporter):
    """Records with the responses of people, as Argilla exports them.

    A record with two documents is a comparison (label or ranking question), one with one document a rating. Ids are read from
    keys such as `query_id` of fields or metadata, and made from the texts otherwise. Drafts and discarded responses are
    skipped. The line of an error is the number of the record.
    """

    name = "argilla"
    label = "Argilla JSON (pairwise and rating)"
    format_help = f"The JSON of a data set: an array, or JSON lines, of records {_SHAPE}."
    example = (
        b'[{"id": "1", "fields": {"query": "do goldfish grow", "document": "They grow all their life."}, "metadata": '
        b'{"query_id": "q1", "document_id": "d1"}, "suggestions": {}, "responses": {"relevance": [{"value": 3, "user_id": '
        b'"5c1c9f0a-0000-4000-8000-000000000001"}]}, "vectors": {}}]\n'
    )
    Options = TaskOptions
    options: TaskOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        if kind_of(head) not in ("json", "jsonl"):
            return 0.0
        nested = b'"fields"' in head and b'"responses"' in head
        return 0.96 if nested or (b'.responses"' in head and b'.responses.users"' in head) else 0.0

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        made = TaskRows(self.options)
        for number, record in task_members(stream, self.options):
            try:
                if isinstance(record, RowError):
                    raise record
                record = values.mapping(record, number, field="", expectation=_SHAPE, remedy=_REMEDY)
                yield from made.rows(_data(record, number), list(self._answers(record, number)), number)
            except RowError as error:
                yield error
                if error.ends_file:
                    return

    def _answers(self, record: Mapping[str, Any], line: int) -> Iterator[TaskAnswer]:
        for question, value, user, status in _responses(record, line):
            if self.options.question in ("", question) and status in _SUBMITTED and value is not None:
                key = values.name_of(user, line, field="user_id", default="")
                yield TaskAnswer(_ranking(value), f"user {key[:8]}" if key else "", key)
        for question, value, agent in _suggestions(record, line) if self.options.predictions else ():
            if self.options.question in ("", question) and value is not None:
                yield TaskAnswer(_ranking(value), agent or "model", by_person=False)


def _data(record: Mapping[str, Any], line: int) -> Mapping[str, Any]:
    """Fields and metadata of a record, which is flat or not."""
    if "fields" not in record:
        return {name: value for name, value in record.items() if "." not in name and value is not None}
    fields = values.mapping(record["fields"], line, field="fields", expectation=_SHAPE, remedy=_REMEDY)
    metadata = record.get("metadata") or {}
    return {**values.mapping(metadata, line, field="metadata", expectation=_SHAPE, remedy=_REMEDY), **fields}


def _responses(record: Mapping[str, Any], line: int) -> Iterator[tuple[str, Any, Any, Any]]:
    """(question, value, user, status) in all three shapes."""
    if "fields" not in record:
        for key, given in record.items():
            if key.endswith(".responses") and given is not None:
                users, states = (
                    _list(record.get(f"{key}.{name}") or [], f"{key}.{name}", line) for name in ("users", "status")
                )
                for place, value in enumerate(_list(given, key, line)):
                    user = users[place] if place < len(users) else ""
                    yield key.removesuffix(".responses"), value, user, states[place] if place < len(states) else None
        return
    responses = record.get("responses") or {}
    if isinstance(responses, list):  # Argilla 1: one response a user, with the values of all questions
        for each in responses:
            each = values.mapping(each, line, field="responses", expectation=_SHAPE, remedy=_REMEDY)
            of_user = values.mapping(
                each.get("values") or {}, line, field="responses.values", expectation=_SHAPE, remedy=_REMEDY
            )
            for question, given in of_user.items():
                value = given.get("value") if isinstance(given, dict) else given
                yield question, value, each.get("user_id"), each.get("status")
        return
    by_question = values.mapping(responses, line, field="responses", expectation=_SHAPE, remedy=_REMEDY)
    for question, given in by_question.items():
        for each in _list(given, f"responses.{question}", line):
            each = values.mapping(each, line, field=f"responses.{question}", expectation=_SHAPE, remedy=_REMEDY)
            yield question, each.get("value"), each.get("user_id"), each.get("status")


def _suggestions(record: Mapping[str, Any], line: int) -> Iterator[tuple[str, Any, str]]:
    """(question, value, agent)."""
    given = record.get("suggestions") or {}
    if isinstance(given, list):
        for each in given:
            each = values.mapping(each, line, field="suggestions", expectation=_SHAPE, remedy=_REMEDY)
            yield str(each.get("question_name", "")), each.get("value"), str(each.get("agent") or "")
        return
    by_question = values.mapping(given, line, field="suggestions", expectation=_SHAPE, remedy=_REMEDY)
    for question, each in by_question.items():
        each = values.mapping(each, line, field=f"suggestions.{question}", expectation=_SHAPE, remedy=_REMEDY)
        yield question, each.get("value"), str(each.get("agent") or "")


def _ranking(value: Any) -> Any:
    """A ranking question's answer as {document: rank}; other values stay."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "rank" in each for each in value):
        return {str(each.get("value", "")): each["rank"] for each in value}
    return value


def _list(value: Any, field: str, line: int) -> list[Any]:
    if isinstance(value, list):
        return value
    raise RowError("is not a list", line=line, field=field, expectation=_SHAPE, remedy=_REMEDY)
