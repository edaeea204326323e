"""Project archives: everything comes back, to the same scores bit by bit; bad files store nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from labeling.access.annotators import get_person
from labeling.annotation.gold import set_gold
from labeling.models import Annotator, AuditEntry, Judgment, Pair, Project, Query, RaterGrade, Rationale, UnmatchedGrade
from labeling.models.screen import SeenAnswers
from labeling.pairs import store_pairs
from labeling.projects import exclude_queries
from scoring.annotators.adjudication import adjudicate
from scoring.models import ProjectFit, QueryFit, Score
from scoring.rating import rate_queries, rate_stale
from scoring.storage.files import storage
from tests.factories.rows import candidate_ids, judge_pair, make_judges, make_member, make_project, make_run, make_user
from workers.archives.exporting import BadArchiveOrder, stream_archive, write_archive
from workers.archives.format import SECTIONS
from workers.archives.importing import FOLDER, import_archive, order_import, unpack, waiting_archive_ids
from workers.archives.reading import BadArchive
from workers.jobs.calibration import calibrate
from workers.models import CertaintyPoint, Job, QueryFigures, Run
from workers.monitoring.query_figures import refresh_some, stale_queries
from zelo_site.models import SavedView

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

BITS = (
    "theta",
    "stderr",
    "elo",
    "elo_stderr",
    "relevance",
    "comparisons",
    "island",
    "undefeated",
    "winless",
    "calibrated",
)


def full(owner: Any) -> Project:
    """A project with something in every table of an archive."""
    project = make_project(owner=owner, queries=3, documents=4)
    project.instruction, project.gold_every = "Be strict.\n\\ ü \u2028", 7
    project.save()
    judges = make_judges(project, 2)
    person = get_person(project, make_member(project, "annotator"))
    pairs = []
    for number, query in enumerate(project.queries.order_by("-id")):
        ids = candidate_ids(query)
        pairs += store_pairs(ids[:-1], ids[1:], [query.pk] * 3)
        for place, pair in enumerate(Pair.objects.filter(query=query)):
            for each in (*judges, person):
                judge_pair(
                    pair, each, (0.1 + 0.23 * place + 0.07 * number + each.pk * 0.011) % 1, rationale=f"r{place}\n\t\\"
                )
    Query.objects.filter(pk=query.pk).update(metadata={"ü": [1.5, None]}, domain="law")
    UnmatchedGrade.objects.create(project=project, query_external_id="q", document_external_id="d", grade=2)
    RaterGrade.objects.create(annotator=person, query_external_id="q", document_external_id="d", grade=2)
    set_gold(pairs[0], 0.9, explanation="why")
    adjudicate(Pair.objects.get(pk=pairs[1]), owner, "1")
    SeenAnswers.objects.create(judgment=Judgment.objects.filter(annotator=person).first())
    run = make_run(project, judges=judges, planned=False, query_ids=[query.pk])
    Run.objects.filter(pk=run.pk).update(state=Run.State.FINISHED)
    rate_stale(project.pk)
    ProjectFit.objects.create(
        project=project, rater="thurstone", prior_precision=0.1, judge_terms={str(judges[0].pk): [1.1, 0.1, 0.9]},
        correlations=[[judges[0].pk, judges[1].pk, 0.25]], losses=[[0.1, 0.3]],
    )  # fmt: skip
    rate_queries(project.pk, list(project.queries.values_list("pk", flat=True)))
    calibrate(project.pk)
    assert refresh_some(project) == 0
    QueryFigures.objects.filter(query=query).update(spend_micros=77, gain=0.25)
    CertaintyPoint.objects.create(project=project, certainty=0.5, lowest=0.25, queries=3)
    exclude_queries(project, [project.queries.order_by("id")[0].pk])
    for user, name in ((owner, "worst"), (person.user, "another's")):
        SavedView.objects.create(user=user, project=project, name=name, address="sort=ndcg")
    return project


def packed(project: Project, **options: Any) -> io.BytesIO:
    stream = io.BytesIO()
    write_archive(project, stream, **options)
    stream.seek(0)
    return stream


def scores(project: Project) -> dict[tuple[str, ...], Any]:
    rows = Score.objects.filter(candidate__query__project=project)
    names = ("candidate__query__external_id", "candidate__document__external_id")
    return {row[:2]: row[2:] for row in rows.values_list(*names, *BITS)}


def lines(stream: io.BytesIO) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress(stream.getvalue()).splitlines()]


def without_numbers(content: list[Any]) -> list[Any]:
    """Lines without the numbers, times and names that differ by installation."""
    return [
        [value for value in row if isinstance(value, (float, bool)) or value is None]
        if isinstance(row, list)
        else {key: row[key] for key in ("section", "columns", "rows") if key in row}
        for row in content
    ]


@pytest.fixture
def owner() -> Any:
    return make_user()


def test_an_archive_comes_back_to_the_same_scores_bit_by_bit(owner: Any) -> None:
    project = full(owner)
    before = scores(project)
    archive = packed(project, people="names", by=owner)
    copy = import_archive(archive, name="Copy", owner=owner, by=owner)
    assert len(before) == 12 and scores(copy) == before
    assert copy.instruction == project.instruction and copy.gold_every == 7
    again = packed(copy, people="names", by=owner)
    assert without_numbers(lines(again))[:-1] == without_numbers(lines(archive))[:-1]
    assert not rate_stale(copy.pk).queries, "the scores are up to date"
    rate_queries(copy.pk, list(copy.queries.values_list("pk", flat=True)))
    rate_queries(project.pk, list(project.queries.values_list("pk", flat=True)))
    assert scores(copy) == scores(project), "a refit gives the same bits"
    assert Rationale.objects.filter(judgment__annotator__project=copy, text="r0\n\t\\").exists()
    terms = ProjectFit.objects.get(project=copy).judge_terms
    assert set(map(int, terms)) <= set(Annotator.objects.filter(project=copy).values_list("pk", flat=True))
    run = Run.objects.get(project=copy)
    assert run.query_ids == [Query.objects.get(project=copy, domain="law").pk] and run.judges.count() == 2
    assert QueryFit.objects.filter(query__project=copy).count() == 3
    actions = AuditEntry.objects.values_list("action", flat=True)
    assert {"project.exported", "project.imported"} <= set(actions)


FIGURES = (
    "query__external_id",
    "ndcg",
    "certainty",
    "disagreement",
    "spend_micros",
    "gain",
    "fitted_at",
    "measured_at",
)


def test_excluded_queries_figures_and_own_views_come_along(owner: Any) -> None:
    project = full(owner)
    copy = import_archive(packed(project, by=owner), owner=owner)
    excluded = [
        list(each.queries.exclude(excluded_at=None).values_list("external_id", "excluded_at"))
        for each in (project, copy)
    ]
    assert len(excluded[0]) == 1 and excluded[0] == excluded[1]
    figures = [list(QueryFigures.objects.filter(query__project=each).values_list(*FIGURES)) for each in (project, copy)]
    assert len(figures[0]) == 3 and sorted(figures[0]) == sorted(figures[1])
    assert not stale_queries(copy.pk), "nothing is measured again"
    points = [
        list(CertaintyPoint.objects.filter(project=each).values_list("at", "certainty")) for each in (project, copy)
    ]
    assert points[0] and points[0] == points[1]
    assert list(SavedView.objects.filter(project=copy).values_list("user", "name", "address")) == [
        (owner.pk, "worst", "sort=ndcg")
    ]
    nobodys = import_archive(packed(project, by=owner))
    assert not SavedView.objects.filter(project=nobodys).exists()


def first_version(data: bytes) -> bytes:
    """The archive as a release before version 2 wrote it."""
    content, kept, width, end = gzip.decompress(data).splitlines(), [], None, {}
    for line in map(json.loads, content):
        if isinstance(line, dict) and "section" in line:
            section = next(each for each in SECTIONS if each.name == line["section"])
            width = len(section.names_in(1)) if section.since == 1 else None
            line["columns"] = section.names_in(1)
        elif isinstance(line, list):
            line = line[:width]
        else:
            width, end = 0, line
            rows = line["rows"]
            line["rows"] = {each.name: rows[each.name] for each in SECTIONS if each.since == 1}
            line["version"] = 1
        if width is not None:
            kept.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    assert end.pop("version") and kept.pop()
    end["sha256"] = hashlib.sha256(b"".join(kept)).hexdigest()
    return gzip.compress(b"".join([*kept, json.dumps(end).encode() + b"\n"]))


def test_an_archive_of_the_first_version_is_read(owner: Any) -> None:
    project = full(owner)
    copy = import_archive(io.BytesIO(first_version(packed(project).getvalue())), owner=owner)
    assert scores(copy) == scores(project)
    assert not copy.queries.exclude(excluded_at=None).exists()
    assert len(stale_queries(copy.pk)) == 3, "the list of queries measures them"


def test_people_are_pseudonyms_unless_their_names_are_wanted(owner: Any) -> None:
    project = full(owner)
    name = Annotator.objects.people().filter(project=project).exclude(user=owner).get().name
    assert name.encode() not in gzip.decompress(packed(project).getvalue())
    copy = import_archive(packed(project), owner=owner)
    people = Annotator.objects.people().filter(project=copy)
    assert {person.name for person in people} == {"person 1", "person 2"}
    assert {person.user for person in people} == {None}
    assert owner.get_username().encode() not in gzip.decompress(packed(project).getvalue())
    with pytest.raises(BadArchiveOrder, match="names, pseudonyms"):
        stream_archive(project, people="some")


def test_an_import_is_a_job_whose_upload_goes_with_it(owner: Any) -> None:
    storage().remove(FOLDER)  # an import of another test may have stopped before its file was read
    project = full(owner)
    job = order_import(packed(project), name="Elsewhere", owner=owner, by=owner)
    assert waiting_archive_ids() == [job.pk] and storage().names(FOLDER)
    unpack(job.pk, worker="here")
    job.refresh_from_db()
    assert (job.state, job.error) == (Job.State.FINISHED, "")
    assert str(job.message) == f"{job.total} rows imported from the archive"
    assert scores(job.project) == scores(project) and not storage().names(FOLDER)


def test_a_project_with_options_of_its_own_rater_comes_back(owner: Any) -> None:
    project = full(owner)
    Project.objects.filter(pk=project.pk).update(rater_options={"judge_weights": "anchored"})
    project.refresh_from_db()
    stream = packed(project)
    at_once = import_archive(stream, name="at once", owner=owner)
    stream.seek(0)
    job = order_import(stream, name="as a job", owner=owner)
    unpack(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == (Job.State.FINISHED, "")
    for copy in (at_once, job.project):
        copy.refresh_from_db()
        assert copy.rater_options["judge_weights"] == "anchored"
        assert ProjectFit.objects.get(project=copy).version == ProjectFit.objects.get(project=project).version


def edited(change: Callable[[list[bytes]], None]) -> Callable[[bytes], bytes]:
    """Change the lines of an archive and correct its checksum."""

    def edit(data: bytes) -> bytes:
        content = gzip.decompress(data).splitlines(keepends=True)
        change(content)
        end = json.loads(content[-1])
        end["sha256"] = hashlib.sha256(b"".join(content[:-1])).hexdigest()
        return gzip.compress(b"".join([*content[:-1], json.dumps(end).encode() + b"\n"]))

    return edit


def line_of(content: list[bytes], section: str) -> int:
    return next(
        i for i, line in enumerate(content) if json.loads(line.decode()) and f'"section": "{section}"' in line.decode()
    )


def replace(section: str, old: bytes, new: bytes) -> Callable[[list[bytes]], None]:
    def change(content: list[bytes]) -> None:
        at = line_of(content, section) + 1
        assert old in content[at], content[at]
        content[at] = content[at].replace(old, new, 1)

    return change


def header(old: bytes, new: bytes) -> Callable[[list[bytes]], None]:
    def change(content: list[bytes]) -> None:
        assert old in content[0], content[0]
        content[0] = content[0].replace(old, new, 1)

    return change


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "cut off"),
    "no gzip": (lambda data: b'{"query": 1}\n' * 50, "not a gzip file"),
    "another format": (lambda data: gzip.compress(b'{"query": {}}\n'), "not a project archive"),
    "cut off": (lambda data: data[: len(data) // 2], "cut off"),
    "cut at a line": (lambda data: gzip.compress(b"".join(gzip.decompress(data).splitlines(keepends=True)[:-1])), "cut off"),
    "one flipped digit": (
        lambda data: gzip.compress(gzip.decompress(data).replace(b"0.1", b"0.2", 1)), "checksum does not match"
    ),
    "a newer version": (edited(header(b'"version": 2', b'"version": 3')), "version 3"),
    "an unknown rater": (edited(header(b'"thurstone"', b'"no-such"')), "no-such"),
    "settings out of range": (edited(header(b'"gold_every": 7', b'"gold_every": -7')), "settings"),
    "a text as a number": (edited(replace("candidates", b"[", b'["x", ')), "expected 6 values"),
    "a reference to nothing": (edited(replace("candidates", b", ", b", 9")), "not in the archive"),
    "a preference of 7": (edited(replace("gold_answers", b"0.9", b"7.5")), "gold_answers"),
    "a section without end": (edited(lambda content: content.insert(-1, b'{"section": "x"}\n')), "not a section of an archive"),
    "NUL": (edited(replace("documents", b"word", b"wo\\u0000rd")), "documents"),
}  # fmt: skip


def test_bad_files_are_refused_by_name_and_store_nothing(owner: Any) -> None:
    data = packed(full(owner)).getvalue()
    known = Project.objects.count()
    for case, (change, message) in BAD.items():
        with pytest.raises((BadArchive, ValueError), match=message) as caught:
            import_archive(io.BytesIO(change(data)), owner=owner)
        assert Project.objects.count() == known, (case, caught.value)


def test_a_failed_job_leaves_an_empty_project_and_no_upload(owner: Any) -> None:
    storage().remove(FOLDER)
    data = packed(full(owner)).getvalue()
    job = order_import(io.BytesIO(data[:-40]), owner=owner)
    unpack(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED and "cut off" in job.error
    assert not Query.objects.filter(project=job.project).exists() and not storage().names(FOLDER)
