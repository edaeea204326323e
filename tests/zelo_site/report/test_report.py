"""The report: one set of figures as a page, files, REST and a command; two snapshots side by side."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from django.test import Client
from django.urls import reverse
from django.utils import translation
from markdown_it import MarkdownIt
from pytest_django import Settings

from labeling.access.annotators import get_person
from labeling.models import Annotator, Candidate, Membership, Project, Query
from scoring.calibration.calibrate import ReliabilityBin, project_calibration
from scoring.models import Score, Snapshot
from scoring.snapshots.freeze import SnapshotOptions, freeze
from tests.factories.frozen import make_frozen, make_scored
from tests.factories.pages import page
from tests.factories.rows import judge_pair, make_pair, make_user
from trainer.evaluation.entries import BASE, enter_baselines
from trainer.evaluation.leaderboard import evaluation_queries, leaderboard, record_evaluation
from trainer.evaluation.metrics import METRICS, Measured, intervals
from trainer.evaluation.snapshot_comparison import compare_snapshots
from trainer.models import Evaluation, Reranker, TrainingRun
from workers.jobs.evaluation import evaluate, order_evaluation
from workers.models import Job
from zelo_site.report.build import build_report
from zelo_site.report.document import Facts, Line, Report, Section, Table, Text, numbers, words
from zelo_site.report.labels import calibration_section
from zelo_site.report.proof import baseline_of, paired_tests
from zelo_site.report.rendering import as_html, as_markdown, as_plain

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"


@pytest.fixture
def project(owner: Any) -> Project:
    scored = make_scored(queries=12, documents=6)
    Project.objects.filter(pk=scored.pk).update(name="Laws | <codes>")
    scored.refresh_from_db()
    Membership.objects.create(project=scored, user=owner, role="owner")
    return scored


@pytest.fixture
def snapshot(project: Project) -> Snapshot:
    frozen = make_frozen(project)
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    evaluate(order_evaluation(project, frozen, rerankers=chosen).pk)
    return frozen


def tables(report: Report, key: str) -> list[Table]:
    (section,) = [each for each in report.sections if each.key == key]
    return [block for block in section.blocks if isinstance(block, Table)]


def test_the_report_repeats_the_leaderboard_and_adjusts_over_its_rows(project: Project, snapshot: Snapshot) -> None:
    board = leaderboard(project, snapshot, "test", "grades")
    baseline = baseline_of(board)
    assert baseline is not None and baseline.kind == "first_stage"
    results, differences, domains = tables(build_report(project, snapshot=snapshot), "proof-grades")
    assert [line.name for line in results.lines] == [row.name for row in board.rows]
    assert str(results.lines[0].cells[0]).startswith(f"{board.rows[0].leading.estimate:.3f} (")
    found = paired_tests(board, baseline)
    assert len(found) == len(board.rows) - 1 == len(differences.lines)
    smallest = min(test.p_value for _, test, __ in found)
    assert min(adjusted for *_, adjusted in found) == pytest.approx(min(1.0, smallest * len(found)))
    assert {column.label for column in domains.columns} == {"law", "code"}


def test_a_mean_of_one_query_or_of_equal_values_has_no_interval(
    client: Client, project: Project, snapshot: Snapshot
) -> None:
    """The stored values are set by hand: one query in one domain, equal values in the other."""
    stored = list(Evaluation.objects.filter(snapshot=snapshot, reference="grades"))
    for evaluation in stored:
        values = evaluation.metrics["values"]
        kept = [values["domains"].index("law"), *(row for row, each in enumerate(values["domains"]) if each == "code")]
        assert len(kept) == 3, "one query of a domain, two of the other"
        own = {name: [column[row] for row in kept] for name, column in values.items()}
        base = 0.9 if evaluation.reranker.kind == "elo" else 0.5
        measured = Measured(
            tuple(own["query_ids"]), tuple(own["domains"]), {metric: np.full(3, base) for metric in METRICS}
        )
        evaluation.metrics |= {
            "values": own | {metric: [base] * 3 for metric in METRICS},
            "all": {name: asdict(each) for name, each in intervals(measured).items()},
            "domains": {
                each: {name: asdict(found) for name, found in intervals(measured.of_domain(each)).items()}
                for each in ("law", "code")
            },
        }
        evaluation.save()
    text = as_markdown(build_report(project, snapshot=snapshot)).replace("\\", "")
    assert "0.900 (no spread) |" in text and "0.900 (one query, 1) |" in text
    assert "+0.400 | no spread |" in text
    assert text.count("“One query” or “no spread” between queries: there is no interval.") >= 3
    address = reverse("proof", args=[project.slug])
    html = client.get(address).content.decode()
    assert '<span class="sub">one query</span>' in html and '<span class="sub">no spread</span>' in html
    german = client.get(address, headers={"Accept-Language": "de"}).content.decode()
    assert '<span class="sub">eine Anfrage</span>' in german and '<span class="sub">keine Streuung</span>' in german
    rows = client.get(f"/api/v1/projects/{project.slug}/leaderboard").json()["rows"]
    for row in rows:
        own = row["metrics"]["ndcg@10"]
        assert (own["low"], own["high"], own["no_interval"]) == (None, None, "no spread between queries")
        assert row["domains"]["law"]["mrr"]["no_interval"] == "one query"
        assert all(each["low"] is None for each in row["against"].values())
    finished = Job.objects.filter(stage="evaluate").first()
    out = io.StringIO()
    with patch("zelo_site.management.commands.evaluate._ordered", lambda *_, **__: finished):
        call_command("evaluate", project.slug, stdout=out)
    assert "0.900 [no interval: no spread between queries]" in out.getvalue()
    assert "0.900 [no interval: one query] (1)" in out.getvalue()


def test_files_need_nothing_else_and_name_every_origin(project: Project, snapshot: Snapshot) -> None:
    report = build_report(project, snapshot=snapshot)
    html, markdown = as_html(report), as_markdown(report)
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(|\bsrc=", html)
    assert "<title>Report on Laws | &lt;codes&gt;</title>" in html and "@media print" in html
    assert markdown.startswith("# Report on Laws \\| \\<codes\\>\n")
    for text in (html, markdown):
        for wanted in (snapshot.checksum, "numpy", "NDCG@10", "test_share", "Holm", "first stage"):
            assert wanted in text.replace("\\", "")
    widths = [{row.count("|") - row.count("\\|") for row in block.splitlines() if row.startswith("|")}
              for block in markdown.split("\n\n") if block.startswith("|")]  # fmt: skip
    assert widths and all(len(each) == 1 for each in widths)


def test_the_page_the_rest_interface_and_the_command_give_the_same_report(
    client: Client, project: Project, snapshot: Snapshot, tmp_path: Path
) -> None:
    html = page(client, "report", project.slug)
    assert "Download HTML" in html and snapshot.checksum in html
    saved = client.get(reverse("report", args=[project.slug]), {"format": "markdown"})
    assert saved["Content-Disposition"] == f'attachment; filename="report-{project.slug}.md"'
    body = client.get(f"/api/v1/projects/{project.slug}/report").json()
    out = io.StringIO()
    call_command("report", project.slug, stdout=out)
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.sub(pattern, "", saved.content.decode()) == re.sub(pattern, "", out.getvalue().rstrip("\n") + "\n")
    assert [each["title"] for each in body["sections"]] == re.findall(r"^## (.*)$", out.getvalue(), re.MULTILINE)
    call_command("report", project.slug, to=tmp_path / "report.html", stdout=out)
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    with pytest.raises(CommandError, match=r"ends in \.html or \.md"):
        call_command("report", project.slug, to=tmp_path / "report.pdf")
    with pytest.raises(CommandError, match=r"has no snapshot 'spring'; available: \d+ \(frozen\)"):
        call_command("report", project.slug, snapshot="spring")


def test_a_named_snapshot_is_shown_on_the_split_on_which_it_was_evaluated(
    client: Client, project: Project, snapshot: Snapshot
) -> None:
    """Whatever was evaluated after it, on another split."""
    later = freeze([project], name="later", options=SnapshotOptions(test_share=0.34, dev_share=0.1, seed=1))
    evaluate(order_evaluation(project, later, "dev", rerankers=list(Reranker.objects.filter(project=project))).pk)
    chosen = snapshot.pk
    out = io.StringIO()
    call_command("report", project.slug, snapshot="frozen", stdout=out)
    report = client.get(f"/api/v1/projects/{project.slug}/report?snapshot={chosen}").json()
    html = client.get(reverse("report", args=[project.slug]), {"snapshot": chosen}).content.decode()
    assert "- split: test" in out.getvalue() and report["facts"]["split"] == "test"
    assert "Proof against human grades" in out.getvalue() and "Proof against human grades" in html
    assert "of the split dev" in as_markdown(build_report(project, snapshot=later, split="dev"))
    assert client.get(f"/api/v1/projects/{project.slug}/report").json()["facts"]["split"] == "dev"
    of_later = client.get(reverse("proof", args=[project.slug]), {"snapshot": later.pk}).content.decode()
    assert "vs best judge" in of_later


def test_without_scores_the_report_says_what_is_missing(client: Client, owner: Any) -> None:
    empty = Project.objects.create(name="Empty", slug="empty")
    Membership.objects.create(project=empty, user=owner, role="owner")
    html = page(client, "report", "empty")
    assert "No snapshot is frozen yet" in html
    assert "No judge has answered yet" in html and "Relevance is not calibrated" in html
    assert "No answers yet." in html and "answered by" not in html


def test_calibration_counts_grades_where_it_was_fitted_to_grades(project: Project) -> None:
    fitted = replace(
        project_calibration(project), calibrated=True, method="platt", source="grades", answers=72,
        bins=(ReliabilityBin(0.4, 0.5, 0.45, 0.5, 72),),
    )  # fmt: skip
    for source, counted in (("grades", "grades"), ("model grades", "grades"), ("people", "answers")):
        with patch("zelo_site.report.labels.project_calibration", return_value=replace(fitted, source=source)):
            facts, reliability = calibration_section(project).blocks
        assert isinstance(facts, Facts) and (counted, "72") in facts.rows
        assert isinstance(reliability, Table) and reliability.columns[-1].label == counted


def test_a_sentence_in_a_column_of_numbers_takes_several_lines() -> None:
    """Otherwise it pushes the other columns out of sight."""
    cells = ("0.818 (0.777 – 0.856), 12", "7 (without monday.trec, tuesday.trec, today.trec)")
    table = Table("", "reranker", numbers("NDCG@10", "rerankers"), (Line("x", cells),))
    html = as_html(Report("x" * 300, Facts(()), (Section("x", "x", (table,)),), "en"))
    assert f'<td class="number">{cells[0]}</td><td class="number long">{cells[1]}</td>' in html


def test_two_snapshots_show_whether_newer_data_helped(client: Client, project: Project, snapshot: Snapshot) -> None:
    """The earlier Elo is the reverse of the grades; the students' stored values are set by hand."""
    Score.objects.filter(candidate__query__project=project).update(elo=3000.0 - F("elo"))
    options = SnapshotOptions(test_share=0.34, dev_share=0.1)
    worse = freeze([project], name="worse", options=options)
    Snapshot.objects.filter(pk=worse.pk).update(created_at=snapshot.created_at - timedelta(days=30))
    students = {}
    for own, value in ((worse, 0.2), (snapshot, 0.6)):
        run = TrainingRun.objects.create(project=project, snapshot=own, trainer="pointwise", state="finished")
        students[own] = Reranker.objects.create(
            project=project, training_run=run, name=f"of {own.name}", kind="trained"
        )
        like = Evaluation.objects.filter(snapshot=snapshot, reference="grades").first()
        assert like is not None
        like.metrics["values"]["ndcg@10"] = [value] * len(like.metrics["values"]["query_ids"])
        Evaluation.objects.create(
            reranker=students[own], project=project, snapshot=snapshot, split="test", reference="grades",
            metrics=like.metrics, scores=like.scores,
        )  # fmt: skip
    found = compare_snapshots(project, worse, snapshot, resamples=500)
    whole, *by_domain = found.elo
    assert whole.after.estimate == pytest.approx(1.0) and whole.before.estimate < 0.8
    assert whole.test.difference.estimate == pytest.approx(whole.after.estimate - whole.before.estimate)
    assert sum(each.after.count for each in by_domain) == whole.after.count
    (student,) = found.students
    assert (student.before_name, student.after_name) == ("of worse", "of frozen")
    assert student.changes[0].test.difference.estimate == pytest.approx(0.4)
    back = compare_snapshots(project, snapshot, worse, resamples=500)
    assert back.elo[0].test.difference.estimate == pytest.approx(-whole.test.difference.estimate)
    shown = page(client, "report", project.slug, before=worse.pk, snapshot=snapshot.pk)
    assert "Did the newer data help?" in shown and "of worse and of frozen" in shown
    itself = client.get(reverse("report", args=[project.slug]), {"before": snapshot.pk, "snapshot": snapshot.pk})
    assert itself.status_code == 422 and "choose two different snapshots" in itself.content.decode()
    chosen = {"before": snapshot.pk, "snapshot": snapshot.pk}
    german = client.get(reverse("report", args=[project.slug]), chosen, headers={"Accept-Language": "de"})
    assert "wählen Sie zwei verschiedene Schnappschüsse" in german.content.decode()
    answer = client.get(f"/api/v1/projects/{project.slug}/report?before={snapshot.pk}&snapshot={snapshot.pk}")
    assert answer.status_code == 422


def test_an_earlier_snapshot_is_compared_with_a_later_one(client: Client, project: Project, snapshot: Snapshot) -> None:
    """The one that was evaluated last is the default only where it is the later one."""
    earlier = freeze([project], name="earlier", options=SnapshotOptions(test_share=0.34, dev_share=0.1))
    Snapshot.objects.filter(pk=earlier.pk).update(created_at=snapshot.created_at - timedelta(days=30))
    assert "compared with" in page(client, "report", project.slug, before=earlier.pk)
    address = reverse("report", args=[project.slug])
    exchanged = client.get(address, {"before": snapshot.pk, "snapshot": earlier.pk})
    assert (exchanged.status_code, "exchange the two" in exchanged.content.decode()) == (422, True)
    alone = client.get(address, {"before": snapshot.pk})
    assert (alone.status_code, "no snapshot was frozen after" in alone.content.decode()) == (422, True)
    with pytest.raises(CommandError, match="no snapshot was frozen after “frozen”"):
        call_command("report", project.slug, before="frozen", stdout=io.StringIO())
    freeze([project], name="newest", options=SnapshotOptions(test_share=0.34, dev_share=0.1))
    out = io.StringIO()
    call_command("report", project.slug, before="frozen", stdout=out)
    assert "- snapshot: newest\n" in out.getvalue() and "- compared with: frozen\n" in out.getvalue()
    body = client.get(f"/api/v1/projects/{project.slug}/report?before={snapshot.pk}").json()
    assert body["facts"]["snapshot"] == "newest"


def test_queries_without_a_domain_are_a_group_of_their_own(project: Project) -> None:
    """Beside named domains; their figures are not those of all queries."""
    Query.objects.filter(project=project, domain="code").update(domain="")
    earlier, later = make_frozen(project), make_frozen(project)
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    evaluate(order_evaluation(project, later, rerankers=chosen).pk)
    board = leaderboard(project, later, "test", "grades")
    for row in board.rows:
        counts = {domain: own["ndcg@10"].count for domain, own in row.domains.items()}
        assert set(counts) == {"", "law"} and sum(counts.values()) == row.queries
    (compared,) = tables(build_report(project, snapshot=later, before=earlier), "snapshots-proof")
    assert [line.name for line in compared.lines] == ["all queries", "–", "law"]
    whole, *parts = (int(line.cells[-1]) for line in compared.lines)
    assert whole == sum(parts)


def test_snapshots_of_one_name_are_told_apart(project: Project) -> None:
    earlier, later = make_frozen(project), make_frozen(project, test_share=0.5)
    Reranker.objects.create(project=project, name=later.name, kind="bm25", checksum="5a5a")
    body = as_plain(build_report(project, snapshot=later, before=earlier))
    assert body["facts"]["snapshot"] != body["facts"]["compared with"]
    (sums,) = [block["rows"] for section in body["sections"] for block in section["blocks"]
               if block["kind"] == "facts" and block["title"] == "SHA-256 checksums"]  # fmt: skip
    assert sorted(sums.values()) == sorted([earlier.checksum, later.checksum, "5a5a"])
    (side,) = tables(build_report(project, snapshot=later, before=earlier), "snapshots")
    assert len({column.label for column in side.columns}) == 2


def test_judges_of_one_name_are_told_apart(project: Project) -> None:
    one, other = (Annotator.objects.create(project=project, name="gpt-4o", plugin="bm25", config_hash=n) for n in "ab")
    query = project.queries.earliest("id")
    judge_pair(make_pair(query), one, 0.9)
    judge_pair(make_pair(query), other, 0.2)
    judge_pair(make_pair(query), get_person(project, make_user()), 0.9)
    markdown = as_markdown(build_report(project, snapshot=None)).replace("\\", "")
    for judge in (one, other):
        assert markdown.count(f"| gpt-4o ({judge.pk}) |") == 3, "of judges, in agreement and in the settings"
    with translation.override("de"):
        german = as_markdown(build_report(project, snapshot=None))
    assert "Die Relevanz ist nicht kalibriert: das Projekt ist noch nicht kalibriert." in german


def test_queries_of_two_projects_with_one_id_are_not_compared_with_each_other(project: Project) -> None:
    """The ids q0, q1 ... are those of both projects; the earlier snapshot holds one of them alone."""
    other = make_scored(queries=12, documents=6)
    for query in other.queries.all():
        Query.objects.filter(pk=query.pk).update(domain="elsewhere", text=f"other {query.text}")
    earlier = make_frozen(project)
    options = SnapshotOptions(test_share=0.0, dev_share=0.1, heldout_domains=["elsewhere"], shared_documents="keep")
    mixed = freeze([project, other], name="mixed", options=options)
    assert compare_snapshots(project, earlier, mixed, resamples=100).elo == ()
    options = options.model_copy(update={"test_share": 0.34, "heldout_domains": []})
    both, again = (freeze([project, other], name=name, options=options) for name in ("both", "again"))
    whole = compare_snapshots(project, both, again, resamples=100).elo[0]
    assert whole.after.count == sum(each["queries"] for each in again.manifest["domains"] if each["split"] == "test")


@pytest.mark.parametrize(
    "name",
    [
        "Q&amp;A",
        "a &lt;b&gt;",
        "&#35;1",
        "~~old~~",
        "a_b*c",
        "1. x",
        "2024. x",
        "123456789) x",
        "1234567890. x",
        "# x",
        "- x",
        "---",
        "x|y\\",
        "`x`",
        "a\nb",
        "مرحبا | x",
    ],
)
def test_markdown_shows_every_name_as_it_is(name: str) -> None:
    facts, table = Facts(((name, name),)), Table(name, name, words(name), (Line(name, (name,)),), note=name)
    report = Report(name, facts, (Section("x", name, (table, Text(name))),), "en")
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(as_markdown(report))
    shown = " ".join(name.split())
    texts = [unescape(re.sub(r"<[^>]+>", "", each)) for each in re.findall(r"<(?:h\d|p|li|th|td)>(.*?)</", rendered)]
    assert texts == [shown, f"{shown}: {shown}", shown, shown, *[shown] * 4, shown, shown], rendered


def test_the_report_is_written_in_the_language_of_its_reader(project: Project, snapshot: Snapshot) -> None:
    Candidate.objects.filter(query__project=project).update(first_stage_rank=None)
    with translation.override("de"):
        html = as_html(build_report(project, snapshot=snapshot))
    assert '<html lang="de">' in html
    assert re.search(r">\d,\d{3}<span class=\"sub\">\d,\d{3} – ", html) and not re.search(r">\d\.\d{3}<", html)


def test_the_best_judge_is_one_that_ranks_most_of_the_queries(project: Project, snapshot: Snapshot) -> None:
    """Another one that answered one query rightly leads the table, and says nothing about the others."""
    queries = evaluation_queries(snapshot, "test")
    wide, narrow = (
        Reranker.objects.create(project=project, kind="judge", name=name, location=place)
        for name, place in (("judge wide", "1"), ("judge narrow", "2"))
    )
    turned = [-query.grades for query in queries]
    record_evaluation(wide, snapshot, "test", queries=queries, scores=turned)
    right = [np.where(query.id == queries[0].id, query.grades, np.nan) for query in queries]
    record_evaluation(narrow, snapshot, "test", queries=queries, scores=right)
    board = leaderboard(project, snapshot, "test", "grades")
    names = [row.name for row in board.rows]
    assert names.index("judge narrow") < names.index("judge wide")
    of_elo = next(row for row in board.rows if row.kind == "elo")
    assert of_elo.against["judge"].name == "judge wide"
    Evaluation.objects.exclude(reranker__in=[wide, narrow]).exclude(reranker__kind="elo").delete()
    alone = leaderboard(project, snapshot, "test", "grades")
    baseline = baseline_of(alone)
    assert baseline is not None and baseline.name == "judge wide"
