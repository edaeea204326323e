"""The format `zbench-scores`: the pairs that zbench's annotator has scored, with their texts. Imports no Django."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any, Literal

import pydantic

from labeling.importing.answers.rows import ImportedPreference
from labeling.importing.formats import fields
from labeling.importing.formats.answers import values
from labeling.importing.formats.line_importer import Row, RowImporter
from labeling.importing.formats.pair_rows import Pair, PairRows
from labeling.importing.formats.tables.readers import jsonl_rows, kind_of
from labeling.importing.json_stream import json_members
from labeling.importing.lines import RowError, rejoined
from labeling.plugins import register
from labeling.records import ImportedCandidate

_SHAPE = (
    '{"pair": {"query_id", "query", "document_a": {"document_id", "content"}, "document_b"}, "openai_score": {"score"}}'
)
_SUFFIX = "_score"


class ZbenchScoresOptions(values.AnswerOptions):
    repeated_answers: Literal["refuse", "last", "mean"] = pydantic.Field(
        default="mean", description="zbench may score a pair more than once: their mean, the last one, or refuse."
    )


@register
class ZbenchScores(RowImporter):
    """Scored pairs of zbench (its file of AI scores): each model's score, from -1 (a is better) to 1 (b is better).

    Each key that ends in `_score` is an annotator. The texts come along, so the file fills an empty project. The line of an
    error is the number of the pair in the file.
    """

    name = "zbench-scores"
    label = "zbench pair scores"
    format_help = f'A JSON object {{"scored_pairs": [...]}}, or JSON lines, of {_SHAPE}.'
    example = (
        b'{"scored_pairs": [{"pair": {"pair_id": "q1-d1-d2", "query_id": "q1", "query": "do goldfish grow", '
        b'"document_a": {"document_id": "d1", "metadata": {}, "content": "They grow all their life."}, '
        b'"document_b": {"document_id": "d2", "metadata": {}, "content": "Bread is baked from flour."}}, '
        b'"openai_score": {"thought": "a answers it", "score": -0.9}, "gemini_score": {"thought": "", "score": -1.0}}]}\n'
    )
    Options = ZbenchScoresOptions
    options: ZbenchScoresOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        start = head.lstrip(b"\xef\xbb\xbf \r\n\t")[:200]
        if not start.startswith(b"{"):
            return 0.0
        return 0.97 if b'"scored_pairs"' in start or (start[1:].lstrip().startswith(b'"pair"')) else 0.0

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        texts, seen = PairRows(), set[tuple[str, str]]()
        for number, value in self._members(stream):
            if isinstance(value, RowError):
                yield value
                continue
            try:
                yield from list(self._rows(value, number, texts, seen))
            except RowError as error:
                yield error

    def _members(self, stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
        limits = self.options.max_line_bytes, self.options.max_total_bytes
        head, whole = rejoined(stream, 4096)
        if kind_of(head) == "jsonl" and head.removeprefix(b"\xef\xbb\xbf").lstrip()[1:].lstrip().startswith(b'"pair"'):
            yield from jsonl_rows(whole, *limits)
        else:
            yield from json_members(whole, *limits, kind="array", key="scored_pairs")

    def _rows(self, value: Any, line: int, texts: PairRows, seen: set[tuple[str, str]]) -> Iterator[Row]:
        scored = values.mapping(value, line, field="", expectation=_SHAPE, remedy="write the file with zbench")
        pair = _object(scored, "pair", line)
        query_id = fields.identifier(pair.get("query_id"), "pair.query_id", line)
        query = fields.text(pair.get("query"), "pair.query", line)
        sides = [_side(pair, f"document_{side}", line) for side in ("a", "b")]
        (a, _, _), (b, _, _) = sides
        values.different(a, b, line)
        answers = list(self._answers(scored, query_id, a, b, line))
        for document_id, text, metadata in sides:
            found = Pair(query_id=query_id, query=query, document_id=document_id, document=text, metadata=metadata)
            for row in texts.rows(found, line):
                if isinstance(row, ImportedCandidate):
                    if (query_id, document_id) in seen:
                        continue
                    seen.add((query_id, document_id))
                yield row
        yield from answers

    def _answers(
        self, scored: Mapping[str, Any], query_id: str, a: str, b: str, line: int
    ) -> Iterator[ImportedPreference]:
        keys = [key for key, value in scored.items() if key.endswith(_SUFFIX) and value is not None]
        if not keys:
            raise RowError(
                "has no score",
                line=line,
                expectation="a key such as openai_score for each model",
                remedy="let zbench score the pairs first",
            )
        for key in keys:
            answer = _object(scored, key, line)
            score = values.of_number(answer.get("score"), line, field=f"{key}.score", low=-1.0, high=1.0)
            yield ImportedPreference(
                query_id=query_id,
                a_id=a,
                b_id=b,
                preference=(1.0 - score) / 2.0,
                annotator=values.name_of(key.removesuffix(_SUFFIX), line, field=key, default=self.options.annotator),
                by_person=self.options.annotators_are == "people",
                rationale=values.rationale(answer.get("thought"), line, field=f"{key}.thought"),
                line=line,
            )


def _object(owner: Mapping[str, Any], key: str, line: int) -> Mapping[str, Any]:
    return values.mapping(owner.get(key), line, field=key, expectation=_SHAPE, remedy="write the file with zbench")


def _side(pair: Mapping[str, Any], key: str, line: int) -> tuple[str, str, Mapping[str, Any]]:
    """Id, text and metadata of a document."""
    side = _object(pair, key, line)
    metadata = side.get("metadata")
    return (
        fields.identifier(side.get("document_id"), f"{key}.document_id", line),
        fields.text(side.get("content"), f"{key}.content", line),
        metadata if isinstance(metadata, dict) else {},
    )
