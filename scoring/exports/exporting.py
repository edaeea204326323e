"""Writes an export: a reader's rows go to an exporter plugin. Pages, REST and the command call it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator, Mapping
from typing import IO, Any, cast

from django.db import transaction

from labeling import audit
from labeling.models import Project
from labeling.plugins import Exporter, get_plugin
from scoring.exports.rows import READERS

# The name in the audit log for the export of each kind of rows.
_ACTIONS = {
    "judgments": "judgments.exported",
    "ratings": "judgments.exported",
    "pairs": "judgments.exported",
    "texts": "texts.exported",
}


def export(
    project: Project,
    exporter_name: str,
    stream: IO[bytes],
    *,
    options: Mapping[str, Any] | None = None,
    by: Any = None,
) -> int:
    """Write the project in the format of an exporter; return the number of rows: queries, judgments, pairs or texts.

    Queries are in import order, documents best first, ties by document id, unrated ones last. One
    consistent read through server-side cursors; memory holds one query at a time. Raises
    UnknownPlugin, pydantic.ValidationError for options, ExportFailed.
    """
    exporter = cast(Exporter, get_plugin("exporter", exporter_name).from_dict(dict(options or {})))
    written = itertools.count()
    with transaction.atomic():
        # Closed here also after a failure, while the transaction of its cursor lives.
        with contextlib.closing(_counted(READERS[exporter.reads](project), written)) as counted_rows:
            exporter.write(counted_rows, stream)
        rows = next(written)
        action = _ACTIONS.get(exporter.reads, "scores.exported")
        counted = "queries" if exporter.reads == "scores" else "rows"
        audit.note(action, project=project, actor=by, subject=exporter_name, **{counted: rows})
    return rows


def _counted(rows: Iterator[Any], counter: itertools.count[int]) -> Generator[Any]:
    for row in rows:
        next(counter)
        yield row
