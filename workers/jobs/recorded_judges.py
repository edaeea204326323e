"""Stores uploaded files of recorded answers, and makes a judge of each name in them.

A file is checked line by line, rewritten in one form and stored under its checksum, so that judges name a checksum and never a
path of the server. Pages, REST and `manage.py replay` call `store_recording`; `workers.judges.recorded` replays the file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

from django.db import transaction

from labeling import audit
from labeling.access.annotators import get_judge
from labeling.collection import ProjectCollection
from labeling.importing.lines import RowError
from labeling.models import Annotator, Project
from scoring.storage.files import BadPath, storage
from workers.judges.recorded import NamedTexts, RecordedJudge, RecordingMissing, find_recordings_with
from workers.judges.recording_file import RecordedAnswer, read_answers

log = logging.getLogger(__name__)

FOLDER = "recordings"


class RecordingRefused(ValueError):
    """The file cannot be replayed in this project; the message says what to change. Nothing was stored."""


@dataclass(frozen=True, slots=True)
class StoredRecording:
    """A stored file. `known` of its `answers` name texts of the project; the others are never asked.

    `judges` by their name in the file, `answers_of` the number of their known answers by the same name.
    """

    checksum: str
    filename: str
    answers: int
    known: int
    judges: dict[str, Annotator]
    answers_of: dict[str, int]

    @property
    def left_out(self) -> int:
        return self.answers - self.known


def store_recording(project: Project, stream: IO[bytes], *, filename: str, by: Any = None) -> StoredRecording:
    """Store a file of recorded answers, and return it with its judges. A repeat stores nothing new.

    Raises RecordingRefused with the line of the first error, and scoring.storage.files.StorageFull.
    """
    try:
        answers = list(read_answers(stream))
    except RowError as error:
        raise RecordingRefused(f"{filename}: {error}") from error
    texts = NamedTexts(ProjectCollection(project.pk), answers)
    known = Counter(answer.judge for answer in answers if texts.pair_of(answer) is not None)
    if not known:
        raise RecordingRefused(_nothing_known(filename, answers))
    data = _canonical(answers)
    checksum = hashlib.sha256(data).hexdigest()
    if not storage().exists(_path(checksum)):
        storage().write_bytes(_path(checksum), gzip.compress(data, mtime=0))
    with transaction.atomic():
        judges = {
            name: get_judge(project, RecordedJudge.name, {"recording": checksum, "judge": name}, name=name)
            for name in sorted(known)
        }
        audit.note(
            "recording.uploaded", project=project, actor=by, subject=filename, answers=len(answers), judges=len(judges)
        )
    return StoredRecording(checksum, filename, len(answers), known.total(), judges, dict(known))


def _nothing_known(filename: str, answers: Sequence[RecordedAnswer]) -> str:
    if not answers:
        return f"{filename} holds no answers; expected one answer a line"
    first = answers[0]
    return (
        f"{filename}: none of its answers ({len(answers):,}) names a query and two documents of this project with the texts that were "
        f"judged (the first: query {first.query[:80]!r}, documents {first.first[:80]!r} and {first.second[:80]!r}); expected the "
        "ids that were imported"
    )


def _canonical(answers: Sequence[RecordedAnswer]) -> bytes:
    """The answers as JSON lines with sorted keys, without empty values."""
    stream = io.BytesIO()
    for each in answers:
        row = {
            "query": each.query,
            "a": each.first,
            "b": each.second,
            "judge": each.judge,
            "preference": each.preference,
            "kind": each.kind.value if each.preference is None else "",
            "rationale": each.rationale,
            "query_hash": each.query_hash,
            "a_hash": each.first_hash,
            "b_hash": each.second_hash,
        }
        kept = {name: value for name, value in row.items() if value not in ("", None)}
        stream.write(json.dumps(kept, ensure_ascii=False, sort_keys=True, allow_nan=False).encode() + b"\n")
    return stream.getvalue()


def _path(checksum: str) -> str:
    return f"{FOLDER}/{checksum}.jsonl.gz"


@contextmanager
def opened_recording(checksum: str) -> Iterator[IO[bytes]]:
    """Open a stored file. Raises RecordingMissing."""
    try:
        is_there = checksum.isalnum() and storage().exists(_path(checksum))
    except BadPath:
        is_there = False
    if not is_there:
        raise RecordingMissing(
            f"no file of recorded answers has the checksum {checksum[:12]!r}; upload it on the page Recorded answers"
        )
    with storage().opened(_path(checksum)) as stream:
        yield cast(IO[bytes], stream)


def recorded_judges(project: Project) -> dict[str, list[Annotator]]:
    """The judges of a project that replay files, by the file's checksum, the latest file first."""
    found: dict[str, list[Annotator]] = {}
    for judge in Annotator.objects.judges().filter(project=project, plugin=RecordedJudge.name).order_by("-id"):
        found.setdefault(str(judge.options.get("recording", "")), []).insert(0, judge)
    return found


def find_recordings() -> None:
    """Let the judge `recorded` find the files of this installation."""
    find_recordings_with(opened_recording)
