"""Stores the rows of an archive as a new project: temporary tables by COPY, then one INSERT a table with new numbers.

New numbers keep the order of the archive's, because fits read rows in that order: so a refit gives the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import IO, Any

from django.db import DatabaseError, connection

from labeling.models import Project, config_hash
from workers.archives.format import Section
from workers.archives.reading import BadArchive, sections

REPORTED = 20_000


def store_rows(
    project: Project,
    stream: IO[bytes],
    progress: Callable[[int], None] = lambda done: None,
    *,
    owner: int | None = None,
) -> int:
    """Store all rows in the caller's transaction; returns their number. Raises BadArchive.

    `owner`: the account that gets the saved views; without one they are left out.
    """
    done = 0
    for section, rows in sections(stream):
        if section.name == "saved_views" and owner is None:
            done += sum(1 for _ in rows)
            continue
        staged = _stage(section, rows, lambda number, before=done: progress(before + number))  # type: ignore[misc]
        _insert(section, project, staged, owner)
        done += staged
        progress(done)
    _correct(project)
    return done


def _stage(section: Section, rows: Iterator[tuple[int, list[Any]]], progress: Callable[[int], None]) -> int:
    """Copy the rows into a temporary table `archive_<section>`; returns their number."""
    columns = ", ".join(f'"{name}" {kind}' for name, kind in section.columns)
    encoders = [_encoded(kind) for _, kind in section.columns]
    count, number = 0, 0
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMP TABLE archive_{section.name} ({columns}) ON COMMIT DROP")
        try:
            with connection.wrap_database_errors, cursor.cursor.copy(f"COPY archive_{section.name} FROM STDIN") as copy:
                for line, row in rows:
                    number = line
                    copy.write_row([encode(value) for encode, value in zip(encoders, row, strict=True)])
                    count += 1
                    if count % REPORTED == 0:
                        progress(count)
        except (DatabaseError, TypeError, ValueError) as error:
            if isinstance(error, BadArchive):
                raise
            raise BadArchive(f"section {section.name}, at or before line {number}: {_first_line(error)}") from error
    return count


def _encoded(kind: str) -> Callable[[Any], Any]:
    if kind == "jsonb":
        return lambda value: None if value is None else json.dumps(value, ensure_ascii=False)
    if kind == "float8":
        return lambda value: None if value is None else float(value)
    return lambda value: value


def _insert(section: Section, project: Project, staged: int, owner: int | None) -> None:
    """Insert the staged rows under new numbers. Raises BadArchive where one names a row that is not in the archive."""
    with connection.cursor() as cursor:
        if section.numbered:
            _number(cursor, section.name, f"SELECT id FROM archive_{section.name}", section.table)
        if section.name == "judgments":
            calls = "SELECT DISTINCT call AS id FROM archive_judgments WHERE call IS NOT NULL"
            _number(cursor, "calls", calls, "workers_judgingtask")
        cursor.execute(f"ANALYZE archive_{section.name}")
        try:
            cursor.execute(*_statement(section, project, owner))
            stored = cursor.rowcount
        except DatabaseError as error:
            raise BadArchive(f"section {section.name}: {_first_line(error)}") from error
    if stored != staged:
        raise BadArchive(f"section {section.name}: {staged - stored} rows name rows that are not in the archive")


def _number(cursor: Any, name: str, old: str, table: str) -> None:
    """A temporary table from the archive's numbers to new ones, in the same order."""
    cursor.execute(
        f"CREATE TEMP TABLE number_{name} ON COMMIT DROP AS "
        f"SELECT id AS old, nextval(pg_get_serial_sequence('{table}', 'id')) AS new FROM ({old} ORDER BY 1) old"
    )
    cursor.execute(f"CREATE UNIQUE INDEX ON number_{name} (old)")
    cursor.execute(f"ANALYZE number_{name}")


_PROJECT_TABLES = frozenset(
    {
        "documents", "queries", "unmatched_grades", "annotators", "calibrations", "project_fits", "runs", "caps",
        "gold_answers", "spot_checks", "certainty_points", "saved_views",
    }
)  # fmt: skip


def _statement(section: Section, project: Project, owner: int | None) -> tuple[str, list[Any]]:
    """INSERT ... SELECT of a section; a reference that is set must be found."""
    references = dict(section.references)
    targets, values, joins, found = [], [], [], []
    for name, _ in section.columns:
        targets.append(f'"{name}"')
        if name == "id":
            values.append("own.new")
            joins.append(f"JOIN number_{section.name} own ON own.old = row.id")
        elif name in references:
            values.append(f"of_{name}.new")
            joins.append(f"LEFT JOIN number_{references[name]} of_{name} ON of_{name}.old = row.{name}")
            found.append(f"(row.{name} IS NULL) = (of_{name}.new IS NULL)")
        elif (section.name, name) == ("runs", "query_ids"):
            values.append(_QUERY_IDS)
        else:
            values.append(f'row."{name}"')
    parameters: list[Any] = []
    for column, value in _fixed(section, project, owner):
        targets.append(column)
        values.append("%s")
        parameters.append(value)
    order = (
        "own.new" if section.numbered else next((f"of_{name}.new" for name in section.names if name in references), "1")
    )
    return (
        f"INSERT INTO {section.table} ({', '.join(targets)}) SELECT {', '.join(values)} FROM archive_{section.name} row "
        f"{' '.join(joins)} {'WHERE ' + ' AND '.join(found) if found else ''} ORDER BY {order}",
        parameters,
    )


_QUERY_IDS = """CASE WHEN row.query_ids IS NULL OR row.query_ids = 'null' THEN NULL ELSE ARRAY(
    SELECT number.new FROM jsonb_array_elements_text(row.query_ids) named JOIN number_queries number
    ON number.old = named::bigint ORDER BY 1) END"""


def _fixed(section: Section, project: Project, owner: int | None) -> Iterator[tuple[str, Any]]:
    """Columns that an archive does not have and that have no default in the database."""
    if section.name in _PROJECT_TABLES:
        yield "project_id", project.pk
    if section.name == "saved_views":
        yield "user_id", owner
    if section.name == "runs":
        yield "reason", ""


_JUDGE_TERMS = """
UPDATE scoring_projectfit fit SET
    judge_terms = COALESCE((SELECT jsonb_object_agg(number.new::text, term.value) FROM jsonb_each(fit.judge_terms) term
        JOIN number_annotators number ON number.old = term.key::bigint), '{}'),
    correlations = COALESCE((SELECT jsonb_agg(jsonb_build_array(first.new, second.new, each.value -> 2)
            ORDER BY each.ordinality)
        FROM jsonb_array_elements(fit.correlations) WITH ORDINALITY each
        JOIN number_annotators first ON first.old = (each.value ->> 0)::bigint
        JOIN number_annotators second ON second.old = (each.value ->> 1)::bigint), '[]'),
    says_neither = COALESCE((SELECT jsonb_agg(number.new ORDER BY number.new) FROM jsonb_array_elements(fit.says_neither) each
        JOIN number_annotators number ON number.old = each.value::bigint), '[]')
WHERE project_id = %s
"""


def _correct(project: Project) -> None:
    """Give new numbers to annotators within JSON, and people of the archive an identity of their own."""
    with connection.cursor() as cursor:
        cursor.execute(_JUDGE_TERMS, [project.pk])
        cursor.execute("SELECT id FROM labeling_annotator WHERE project_id = %s AND is_person", [project.pk])
        people = [row[0] for row in cursor.fetchall()]
        cursor.executemany(
            "UPDATE labeling_annotator SET config_hash = %s WHERE id = %s",
            [[config_hash(archived_person=person), person] for person in people],
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
