"""The frozen pairs: the panel's mean preference, in the split of their query, equal bits for equal answers."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pytest_django import Settings
from scipy.special import expit

from labeling.access.annotators import get_person
from labeling.models import Annotator, Candidate, Document, Project, Query
from labeling.plugins import Judge
from labeling.retrieval.query_instruction import instruction_of
from scoring.models import ProjectFit, Score, Snapshot
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.snapshots.freeze import SnapshotOptions, freeze
from scoring.snapshots.pairs import PAIRS_FILE
from scoring.storage.files import storage
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_user
from tests.factories.scored import scored
from tests.factories.stubs.plugins import STUBS
from trainer.examples import load_pairs

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> Path:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    return tmp_path / "stored"


def judged_project(*, queries: int = 10) -> tuple[Project, list[Query], list[Annotator]]:
    """Two judges on two pairs of every query: 0.9 and 0.7, then 0.2 and 0.4."""
    project = make_project()
    found = scored(project, queries=queries)
    judges = make_judges(project, 2)
    for query in found:
        for pair, answers in ((make_pair(query, 0, 1), (0.9, 0.7)), (make_pair(query, 2, 3), (0.2, 0.4))):
            for judge, preference in zip(judges, answers, strict=True):
                judge_pair(pair, judge, preference)
    return project, found, judges


def pairs_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(storage().read_bytes(f"{snapshot.location}/{PAIRS_FILE}"))).to_pylist()


def test_a_preference_between_equal_texts_is_no_pair() -> None:
    project, queries, _ = judged_project()
    first, second = Candidate.objects.filter(query=queries[0]).order_by("id")[2:4]
    Document.objects.filter(pk=second.document_id).update(text=f" {first.document.text}")
    snapshot = freeze([project], name="Pairs", options=SnapshotOptions(dev_share=0.2, test_share=0.2))
    assert len(pairs_of(snapshot)) == 19


def test_pairs_are_frozen_with_texts_split_and_the_panels_mean() -> None:
    project, queries, judges = judged_project()
    project.instruction = "prefer primary sources"
    project.save()
    snapshot = freeze([project], name="Pairs", options=SnapshotOptions(dev_share=0.2, test_share=0.2))
    rows = pairs_of(snapshot)
    said = snapshot.manifest["pairs"]
    assert len(rows) == said["rows"] == 20 and said["annotators"] == [judge.pk for judge in judges]
    assert said["splits"] == {
        name: {"pairs": 2 * n, "queries": n} for name, n in (("dev", 2), ("test", 2), ("train", 6))
    }
    first = next(row for row in rows if row["query_id"] == queries[0].pk)
    a, b = (Candidate.objects.select_related("document").get(pk=first[name]) for name in ("a_id", "b_id"))
    assert (first["document_a"], first["document_b"]) == (a.document.text, b.document.text)
    assert (first["preference"], first["annotators"]) == (pytest.approx(0.8), 2)
    assert (first["instruction"], first["weight"]) == ("prefer primary sources", 1.0)
    splits = {row["query_id"]: row["split"] for row in rows}
    stored = pq.read_table(io.BytesIO(storage().read_bytes(f"{snapshot.location}/rows.parquet"))).to_pylist()
    assert splits == {row["query_id"]: row["split"] for row in stored}


def test_an_instruction_of_whitespace_is_none_and_others_are_as_the_judges_read_them() -> None:
    project, queries, _ = judged_project()
    project.instruction = "prefer primary sources"
    project.save()
    own = ["\n\t ", "\u00a0\u3000", "\n cheap ones \u2003", "", 7, None]
    for query, value in zip(queries, own, strict=False):
        query.metadata = {"instruction": value}
        query.save()
    snapshot = freeze([project], name="Told")
    table = pq.read_table(io.BytesIO(storage().read_bytes(f"{snapshot.location}/rows.parquet"))).to_pylist()
    for rows in (pairs_of(snapshot), table):
        found = {row["query_id"]: row["instruction"] for row in rows}
        for query, value in zip(queries, own, strict=False):
            if query.pk in found:
                assert found[query.pk] == instruction_of(value, project.instruction)
        assert set(found.values()) == {"cheap ones", "prefer primary sources"}


def test_equal_answers_give_equal_files_and_another_answer_another() -> None:
    project, queries, judges = judged_project()
    first, second = (freeze([project], name="Twice").manifest["pairs"]["checksum"] for _ in range(2))
    judge_pair(make_pair(queries[3], 0, 2), judges[0], 0.6)
    assert first == second != freeze([project], name="Twice").manifest["pairs"]["checksum"]


def test_both_orders_of_a_judge_are_one_vote_and_a_panel_can_be_named() -> None:
    project, queries, judges = judged_project()
    judge_pair(make_pair(queries[0], 0, 1), judges[0], 0.5, swapped=True)
    person = get_person(project, make_user())
    judge_pair(make_pair(queries[0], 0, 1), person, 1.0)
    everyone, panel = (pairs_of(freeze([project], name="P", panel=each))[0] for each in ([], [judges[0].pk]))
    assert (everyone["preference"], everyone["annotators"]) == (pytest.approx((0.7 + 0.7 + 1.0) / 3), 3)
    assert (panel["preference"], panel["annotators"]) == (pytest.approx(0.7), 1)


def test_preferences_leave_out_the_position_biases_that_scores_leave_out() -> None:
    """A judge that shifts the logit of the document shown first by 0.7: its answers in either order say the same."""
    project, queries, judges = judged_project()
    biased, plain = judges
    logit = 1.2
    shown_first, shown_second = expit(logit + 0.7), expit(logit - 0.7)
    judge_pair(make_pair(queries[0], 0, 2), biased, shown_first)
    judge_pair(make_pair(queries[0], 0, 3), biased, shown_second, swapped=True)
    ProjectFit.objects.update_or_create(
        project=project, defaults={"version": 1, "rater": project.rater, "chosen_at": datetime(2026, 1, 1, tzinfo=UTC),
        "judge_terms": {str(biased.pk): [1.0, 0.7 / LOGIT_SCALES["thurstone"], 1.0], str(plain.pk): [1.0, 0.0, 1.0]}},
    )  # fmt: skip
    rows = [row for row in pairs_of(freeze([project], name="B")) if row["query_id"] == queries[0].pk]
    of_biased = [row["preference"] for row in rows if row["annotators"] == 1]
    assert of_biased == pytest.approx([expit(logit)] * 2)
    both = next(row["preference"] for row in rows if row["annotators"] == 2)
    assert both == pytest.approx((expit(np.log(0.9 / 0.1) - 0.7) + 0.7) / 2)


def test_a_student_of_a_panel_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    project, _, judges = judged_project()
    stub = next(each for each in STUBS if issubclass(each, Judge) and each.name == "test-longer")
    monkeypatch.setattr(stub, "learns_from_panel", True)
    snapshot = freeze([project], name="None")
    assert snapshot.manifest["pairs"] == {"rows": 0, "annotators": []}
    assert PAIRS_FILE not in storage().names(snapshot.location)
    assert len(pairs_of(freeze([project], name="Named", panel=[judges[0].pk]))) == 20


def test_pairs_outside_of_the_rows_are_there_but_no_text_is_in_two_splits() -> None:
    """A pair on an island has no row with Elo; a document that a test query has as well is in no training pair."""
    project, queries, _ = judged_project()
    Score.objects.filter(candidate__document__external_id__endswith="-3").update(island=1)
    for query in queries[1:]:
        document = query.candidates.order_by("id")[0].document
        document.text = queries[0].candidates.order_by("id")[0].document.text
        document.save()
    snapshot = freeze([project], name="Apart", options=SnapshotOptions(dev_share=0.2, test_share=0.2))
    rows = pairs_of(snapshot)
    assert {row["split"] for row in rows if row["document_b"].endswith("text 1")} == {"test"}
    assert sum(row["document_b"].endswith("text 3") for row in rows) == 10
    kept = pq.read_table(io.BytesIO(storage().read_bytes(f"{snapshot.location}/rows.parquet"))).to_pylist()
    assert not any(row["document"].endswith("text 3") for row in kept if row["split"] == "train")


def test_a_trainer_reads_them_as_columns(own_storage: Path) -> None:
    project, queries, _ = judged_project()
    snapshot = freeze([project], name="Read", options=SnapshotOptions(dev_share=0.2, test_share=0.0))
    pairs = load_pairs(own_storage / snapshot.location / PAIRS_FILE, "dev")
    assert (len(pairs), sorted(set(pairs.preferences.round(6).tolist()))) == (4, [0.3, 0.8])
    assert set(pairs.queries) <= {query.text for query in queries} and pairs.weights.tolist() == [1.0] * 4
