"""The format `label-studio`: Label Studio's JSON export of pairwise and rating tasks. Imports no Django.

The shape is that of https://labelstud.io/guide/task_format: tasks with `data` and `annotations`, whose results are of the
types pairwise, choices, rating or number. JSON_MIN, without annotations, is a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from labeling.importing.formats.answers import values
from labeling.importing.formats.answers.tasks import TaskAnswer, TaskOptions, TaskRows
from labeling.importing.formats.line_importer import Row, RowImporter
from labeling.importing.formats.tables.readers import jsonl_rows, kind_of
from labeling.importing.json_stream import json_members
from labeling.importing.lines import RowError, rejoined
from labeling.plugins import register

_SHAPE = '{"data": {...}, "annotations": [{"completed_by": 1, "result": [...]}]}'
_VALUES = {"pairwise": "selected", "choices": "choices", "rating": "rating", "number": "number"}


@register
class LabelStudio(RowImporter):
    """Tasks with the answers of people, as Label Studio exports them to JSON.

    A task with two documents is a comparison (controls Pairwise or Choices), one with one document a rating (Rating, Number
    or Choices). Texts come along; ids are read from keys such as `query_id`, and made from the texts otherwise. Cancelled
    annotations are skipped. The line of an error is the number of the task.
    """

    name = "label-studio"
    label = "Label Studio JSON (pairwise and rating)"
    format_help = f"The JSON export of a project: an array of tasks {_SHAPE}."
    example = (
        b'[{"id": 1, "data": {"query": "do goldfish grow", "query_id": "q1", "text1": "All their life.", "text1_id": "d1", '
        b'"text2": "Bread is baked.", "text2_id": "d2"}, "annotations": [{"id": 7, "completed_by": 3, "was_cancelled": false, '
        b'"result": [{"from_name": "pw", "to_name": "text1,text2", "type": "pairwise", "value": {"selected": "left"}}]}]}]\n'
    )
    Options = TaskOptions
    options: TaskOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        is_json = kind_of(head) in ("json", "jsonl")
        if not is_json:
            return 0.0
        if b'"data"' in head and b'"annotations"' in head:
            return 0.96 if b'"result"' in head else 0.5
        return (
            0.9 if b'"annotation_id"' in head and b'"lead_time"' in head else 0.0
        )  # JSON-MIN, which is refused by name

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        made = TaskRows(self.options)
        for number, task in task_members(stream, self.options):
            try:
                if isinstance(task, RowError):
                    raise task
                task = values.mapping(task, number, field="", expectation=_SHAPE, remedy="export the project as JSON")
                if "annotation_id" in task and "data" not in task:
                    raise _json_min(number)
                data = values.mapping(
                    task.get("data"), number, field="data", expectation=_SHAPE, remedy="export the project as JSON"
                )
                yield from made.rows(data, list(self._answers(task, number)), number)
            except RowError as error:
                yield error
                if error.ends_file:
                    return

    def _answers(self, task: Mapping[str, Any], line: int) -> Iterator[TaskAnswer]:
        for each in _listed(task, "annotations", line):
            if not each.get("was_cancelled"):
                name, key = _annotator(each.get("completed_by"), line)
                yield from self._results(each, line, name, key, by_person=True)
        for each in _listed(task, "predictions", line) if self.options.predictions else ():
            name = str(each.get("model_version") or "model")
            yield from self._results(each, line, name, "", by_person=False)

    def _results(
        self, annotation: Mapping[str, Any], line: int, name: str, key: str, *, by_person: bool
    ) -> Iterator[TaskAnswer]:
        reason = ""
        found = []
        for each in _listed(annotation, "result", line):
            kind, value = each.get("type"), each.get("value")
            if value is None:
                continue
            value = values.mapping(value, line, field="value", expectation=_SHAPE, remedy="export the project as JSON")
            if kind == "textarea" and isinstance(value.get("text"), list):
                reason = "\n".join(str(part) for part in value["text"])
            wanted = self.options.question in ("", each.get("from_name"))
            if wanted and kind in _VALUES and _VALUES[kind] in value:
                found.append(value[_VALUES[kind]])
        for answer in found:
            yield TaskAnswer(answer, name, key, by_person, reason)


def task_members(stream: IO[bytes], options: TaskOptions) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON array, or of JSON lines, which other tools make of it."""
    head, whole = rejoined(stream, 4096)
    limits = options.max_line_bytes, options.max_total_bytes
    if kind_of(head) == "jsonl":
        yield from jsonl_rows(whole, *limits)
    else:
        yield from json_members(whole, *limits, kind="array")


def _json_min(line: int) -> RowError:
    return RowError(
        "is of Label Studio's export JSON-MIN",
        line=line,
        expectation=_SHAPE,
        remedy="export the project as JSON",
        ends_file=True,
    )


def _listed(owner: Mapping[str, Any], key: str, line: int) -> list[Mapping[str, Any]]:
    value = owner.get(key)
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return value
    raise RowError(
        "is not a list of objects", line=line, field=key, expectation=_SHAPE, remedy="export the project as JSON"
    )


def _annotator(value: Any, line: int) -> tuple[str, str]:
    """Name and id of who completed a task: an id, or an object with one."""
    if isinstance(value, dict):
        name = value.get("email") or value.get("username") or value.get("id")
        return str(name), str(value.get("id") or "")
    if value is None:
        return "", ""
    return f"annotator {values.name_of(value, line, field='completed_by', default='')}", str(value)
