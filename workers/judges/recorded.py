"""Judge plugin `recorded`: replays answers from a file that was uploaded to the project, pair by pair.

`workers.judges.recording_file` reads the file; `workers.jobs.recorded_judges` stores it and sets how a checksum leads to it.
A pair without an answer is a failure of the kind `not_recorded` and costs nothing. Imports no Django.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any, Literal

import pydantic

from labeling.plugins import Judge, register
from labeling.records import Collection, Comparison, Failure, FailureKind, TextRecord, Verdict
from workers.judges.recording_file import LONGEST_JUDGE, RecordedAnswer, read_answers
from workers.judges.score_difference import NotPrepared

_CHECKSUM = re.compile(r"[0-9a-f]{64}")
FILES_KEPT = 2
Pair = tuple[int, int, int]  # ids of a query, of the document shown first and of the one shown second


class RecordingMissing(LookupError):
    """No uploaded file has this checksum."""


def _no_recordings(checksum: str) -> AbstractContextManager[IO[bytes]]:
    raise RecordingMissing(f"no file of recorded answers has the checksum {checksum[:12]}; upload it to the project")


_opened: Callable[[str], AbstractContextManager[IO[bytes]]] = _no_recordings


def find_recordings_with(opened: Callable[[str], AbstractContextManager[IO[bytes]]]) -> None:
    """Set how a stored file is opened by its checksum; it raises RecordingMissing for an unknown one."""
    global _opened
    _opened = opened


class RecordedOptions(Judge.Options):
    recording: str = pydantic.Field(
        description="Checksum of an uploaded file of recorded answers; the upload makes a judge of each name in the file."
    )
    judge: str = pydantic.Field(
        default="", max_length=LONGEST_JUDGE, description="Name of the judge in the file; empty: the file's only one."
    )
    other_order: Literal["mirror", "refuse"] = pydantic.Field(
        default="mirror",
        description="Pairs that were recorded in the other order only. mirror: the answer counts in both orders; refuse: in neither.",
    )

    @pydantic.field_validator("recording")
    @classmethod
    def _is_checksum(cls, text: str) -> str:
        if not _CHECKSUM.fullmatch(text):
            raise ValueError("expected the 64 hex digits that the upload shows, never a path")
        return text


@register
class RecordedJudge(Judge):
    """Answers as the file does: P(a is the more relevant), the same kinds of answers, the same rationale."""

    name = "recorded"
    label = "Recorded answers"
    batch_size = 1024
    can_drift = False
    Options = RecordedOptions  # type: ignore[assignment]  # recording has no default
    options: RecordedOptions

    def __init__(self, options: Judge.Options | None = None) -> None:
        super().__init__(options)
        self.model_revision = self.options.recording
        self._answers: dict[Pair, RecordedAnswer] | None = None
        self._of_query: dict[int, list[tuple[int, int]]] = {}
        self.left_out = 0

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> list[str]:
        try:
            with _opened(str(options.get("recording", ""))):
                return []
        except (LookupError, OSError) as error:
            return [str(error)]

    def prepare(self, collection: Collection) -> None:
        """Read the file, and find its texts by the imported ids. Raises RecordingMissing, RowError, JudgeNotRecorded.

        Answers that name unknown texts, or texts with another hash, are left out and counted in `left_out`.
        """
        answers = answers_of(self.options.recording, self.options.judge)
        texts = NamedTexts(collection, answers)
        self._answers, self._of_query, self.left_out = {}, {}, 0
        for answer in answers:
            pair = texts.pair_of(answer)
            if pair is None:
                self.left_out += 1
                continue
            self._answers[pair] = answer
            self._of_query.setdefault(pair[0], []).append(pair[1:])

    def recorded_pairs(self, query_id: int) -> list[tuple[int, int]]:
        """Ids of the documents of each recorded pair of a query, in the order in which they were shown."""
        if self._answers is None:
            raise NotPrepared(f"judge {self.name!r} has no file yet; call prepare(collection) first")
        return self._of_query.get(query_id, [])

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        if self._answers is None:
            raise NotPrepared(f"judge {self.name!r} was asked before it was prepared; call prepare(collection) first")
        return [self._answer(comparison, self._answers) for comparison in comparisons]

    def _answer(self, asked: Comparison, answers: Mapping[Pair, RecordedAnswer]) -> Verdict | Failure:
        query, first, second = asked.query_a.id, asked.first.id, asked.second.id
        found, turned = answers.get((query, first, second)), False
        if found is None and self.options.other_order == "mirror":
            found, turned = answers.get((query, second, first)), True
        if found is None or asked.cross_query:
            return _not_recorded(asked)
        if found.preference is None:
            return Verdict(preference=None, kind=found.kind, rationale=found.rationale)
        of_first = 1.0 - found.preference if turned else found.preference
        return Verdict(preference=asked.preference_of_a(of_first), rationale=found.rationale)


def _not_recorded(asked: Comparison) -> Failure:
    what = "pairs across queries" if asked.cross_query else "this pair in this order"
    message = f"the file holds no answer to {what}; use the design `recorded`, which asks only what was recorded"
    return Failure(FailureKind.NOT_RECORDED, message, retryable=False)


# --- the file's texts --------------------------------------------------------------------


class JudgeNotRecorded(LookupError):
    """The file has no judge of this name, or several where none is named."""


def answers_of(recording: str, judge: str) -> Sequence[RecordedAnswer]:
    """The answers of one judge of a stored file; empty: of its only judge.

    Raises RecordingMissing, RowError, JudgeNotRecorded.
    """
    by_judge = _by_judge(recording)
    if judge not in by_judge and (judge or len(by_judge) != 1):
        known = ", ".join(sorted(by_judge)[:20]) or "none"
        raise JudgeNotRecorded(f"the judge {judge!r} is not in the file; it holds answers of: {known}")
    return by_judge[judge or next(iter(by_judge))]


@functools.lru_cache(maxsize=FILES_KEPT)
def _by_judge(recording: str) -> Mapping[str, Sequence[RecordedAnswer]]:
    """The answers of a file by judge; read once in a process for all of its judges, since a checksum names one content."""
    found: dict[str, list[RecordedAnswer]] = {}
    with _opened(recording) as stream:
        for answer in read_answers(stream):
            found.setdefault(answer.judge, []).append(answer)
    return found


class NamedTexts:
    """The queries and documents of a project that recorded answers name."""

    def __init__(self, collection: Collection, answers: Sequence[RecordedAnswer]) -> None:
        names = {name for answer in answers for name in (answer.first, answer.second)}
        self._documents = collection.named_documents(sorted(names))
        self._queries = collection.named_queries(sorted({answer.query for answer in answers}))
        self._hashes: dict[str, str] = {}

    def pair_of(self, answer: RecordedAnswer) -> Pair | None:
        """The ids of the query and the two documents; None if one is unknown or has another text than was judged."""
        sides = (
            (self._queries.get(answer.query), answer.query_hash),
            (self._documents.get(answer.first), answer.first_hash),
            (self._documents.get(answer.second), answer.second_hash),
        )
        ids = [record.id for record, wanted in sides if record is not None and self._fits(record, wanted)]
        return (ids[0], ids[1], ids[2]) if len(ids) == 3 else None

    def _fits(self, record: TextRecord, wanted: str) -> bool:
        if not wanted:
            return True
        if record.text not in self._hashes:
            self._hashes[record.text] = text_hash(record.text)
        return self._hashes[record.text].startswith(wanted)


def text_hash(text: str) -> str:
    """The SHA-256 of a text in UTF-8, 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
