"""Writes the archive of a project as a stream, from one consistent snapshot of the database, in constant memory."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import IO, Any

from django.db import connection, transaction

from labeling import audit
from labeling.models import Project
from workers.archives.format import FORMAT, PSEUDONYM, READ_AS, SECTIONS, SETTINGS, VERSION, Section

BLOCK = 1 << 18
NAMES, PSEUDONYMS = "names", "pseudonyms"
PEOPLE = (NAMES, PSEUDONYMS)


class BadArchiveOrder(ValueError):
    """An archive was ordered with an unknown option."""


def stream_archive(project: Project, *, people: str = PSEUDONYMS, by: Any = None) -> Iterator[bytes]:
    """The blocks of the project's archive. `people`: whether annotators keep their names, or become person 1, person 2 ...

    Accounts, keys and members are never in it; of saved views, those of `by`. The call writes the audit entry. Raises BadArchiveOrder.
    """
    if people not in PEOPLE:
        raise BadArchiveOrder(f"people is {people!r}; expected one of {', '.join(PEOPLE)}")
    audit.note("project.exported", project=project, actor=by, subject=project.slug, people=people)
    return _compressed(_lines(project, people, getattr(by, "pk", None)))


def write_archive(project: Project, stream: IO[bytes], *, people: str = PSEUDONYMS, by: Any = None) -> int:
    """Write the archive to a binary stream; returns its size in bytes."""
    return sum(stream.write(block) for block in stream_archive(project, people=people, by=by))


def _compressed(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines as one gzip member, in blocks."""
    packer = zlib.compressobj(level=5, wbits=31)
    waiting = bytearray()
    for line in lines:
        waiting += packer.compress(line)
        if len(waiting) >= BLOCK:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting) + packer.flush()


def _lines(project: Project, people: str, user: int | None) -> Iterator[bytes]:
    digest = hashlib.sha256()
    counts: dict[str, int] = {}
    has_snapshot = connection.in_atomic_block  # the caller's transaction, as in tests
    with transaction.atomic():
        if not has_snapshot:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for line in _content(project, people, user, counts):
            digest.update(line)
            yield line
    yield _json({"end": True, "rows": counts, "sha256": digest.hexdigest()})


def _content(project: Project, people: str, user: int | None, counts: dict[str, int]) -> Iterator[bytes]:
    named = {"project": project.pk, "user": user}
    sizes = {section.name: _count(section, named) for section in SECTIONS}
    yield _json(
        {
            "format": FORMAT,
            "version": VERSION,
            "software": _software(),
            "slug": project.slug,
            "people": people,
            "project": {name: getattr(project, name) for name in SETTINGS},
            "rows": sizes,
        }
    )
    for section in SECTIONS:
        yield _json({"section": section.name, "columns": section.names})
        counts[section.name] = 0
        for line in _rows(section, named, people):
            counts[section.name] += 1
            yield line


def _count(section: Section, named: dict[str, Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {section.table} row {section.read}", named)
        return int(cursor.fetchone()[0])


def _rows(section: Section, named: dict[str, Any], people: str) -> Iterator[bytes]:
    """The rows as JSON arrays, which PostgreSQL writes; floats in the shortest form that reads back to the same bits."""
    values = [_value(section, name, people) for name in section.names]
    statement = (
        f"COPY (SELECT json_build_array({', '.join(values)})::text FROM {section.table} row {section.read} "
        f"ORDER BY {section.order}) TO STDOUT"
    )
    with (
        connection.cursor() as cursor,
        connection.wrap_database_errors,
        cursor.cursor.copy(statement, named) as copy,
    ):
        for row in copy.rows():
            yield row[0].encode() + b"\n"


def _value(section: Section, name: str, people: str) -> str:
    if (section.name, name) == ("annotators", "name") and people == PSEUDONYMS:
        return PSEUDONYM
    return READ_AS.get((section.name, name), f"row.{name}")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _software() -> str:
    try:
        return f"zelo {version('zelo')}"
    except PackageNotFoundError:
        return "zelo"
