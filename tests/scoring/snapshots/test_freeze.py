"""Snapshots: what is frozen, how it is split, where it says it came from, and that failure leaves nothing behind."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pydantic
import pytest
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from labeling.models import Candidate, Document, Membership, Query, UnmatchedGrade
from scoring.models import QueryFit, Score, Snapshot
from scoring.snapshots.freeze import NoSpread, NothingToFreeze, SnapshotOptions, SnapshotRefused, TooManyRows, freeze
from scoring.snapshots.mixing import Part, mix
from scoring.snapshots.splits import HELDOUT, TEST, TRAIN, fingerprint, quotas, rows_to_keep, split_queries
from scoring.storage.files import BadPath, ChecksumMismatch, Storage, StorageFull, StorageUnusable, storage
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_user
from tests.factories.scored import scored
from trainer.evaluation.leaderboard import evaluation_queries

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> Path:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored files'}"
    return tmp_path / "stored files"


def rows_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(storage().read_bytes(f"{snapshot.location}/rows.parquet"))).to_pylist()


def test_scores_are_frozen_with_their_texts() -> None:
    project = make_project()
    scored(project)
    snapshot = freeze([project], name="First")
    rows = rows_of(snapshot)
    assert len(rows) == snapshot.rows == 40
    candidate = Candidate.objects.select_related("query", "document", "score").get(pk=rows[5]["candidate_id"])
    expected = {
        "project": project.slug,
        "query_id": candidate.query_id,
        "query": candidate.query.text,
        "document": candidate.document.text,
        "relevance": candidate.score.relevance,
        "elo": candidate.score.elo,
        "stderr": candidate.score.elo_stderr,
        "comparisons": 3,
        "grade": None,
        "first_stage_rank": candidate.first_stage_rank,
        "weight": 1.0,
    }
    assert {name: rows[5][name] for name in expected} == expected


def test_grades_of_documents_that_are_no_candidates_are_frozen_and_measured() -> None:
    project = make_project()
    scored(project)
    query = Query.objects.earliest("id")
    UnmatchedGrade.objects.create(
        project=project, query_external_id=query.external_id, document_external_id="elsewhere", grade=3
    )
    snapshot = freeze([project], name="First")
    rows = rows_of(snapshot)
    assert {tuple(row["other_grades"]) for row in rows if row["query_id"] == query.pk} == {(3,)}
    assert {tuple(row["other_grades"]) for row in rows if row["query_id"] != query.pk} == {()}
    split = next(row["split"] for row in rows if row["query_id"] == query.pk)
    found = {each.id: each for each in evaluation_queries(snapshot, split)}[query.external_id]
    assert found.other_grades.tolist() == [3.0] and found.counts("grades")
    assert found.other_documents == ("elsewhere",)


def test_a_graded_candidate_without_a_score_counts_as_not_retrieved_in_evaluations() -> None:
    project = make_project()
    scored(project)
    Candidate.objects.update(grade=1)
    snapshot = freeze([project], name="whole")
    chosen = next(row["query_id"] for row in rows_of(snapshot) if row["split"] == "test")
    lost = Candidate.objects.filter(query_id=chosen).earliest("id")
    lost.score.delete()
    trained = Candidate.objects.filter(query_id=next(r["query_id"] for r in rows_of(snapshot) if r["split"] == "train"))
    trained.earliest("id").score.delete()
    for row in rows_of(freeze([project], name="one less")):
        expected = ([1], [lost.document.external_id]) if row["query_id"] == chosen else ([], [])
        assert (row["other_grades"], row["other_documents"]) == expected


def test_queries_without_scores_are_counted_since_evaluations_lack_them() -> None:
    project = make_project()
    scored(project)
    assert freeze([project], name="all").manifest["unscored"] == {"queries": 0, "graded": 0}
    first, second, third = Query.objects.order_by("id")[:3]
    Score.objects.filter(candidate__query__in=[first, second]).delete()
    Candidate.objects.filter(query=second, pk=Candidate.objects.filter(query=second).earliest("id").pk).update(grade=0)
    Candidate.objects.filter(query=third).update(grade=1)
    Query.objects.create(project=project, external_id="alone", text="no candidates")
    UnmatchedGrade.objects.create(project=project, query_external_id="alone", document_external_id="elsewhere", grade=3)
    Query.objects.create(project=project, external_id="out", text="excluded", excluded_at=timezone.now())
    assert freeze([project], name="fewer").manifest["unscored"] == {"queries": 3, "graded": 2}


def test_the_manifest_is_the_last_file_and_carries_the_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project()
    scored(project)
    written: list[str] = []
    begin = Storage.writing
    monkeypatch.setattr(Storage, "writing", lambda self, path: written.append(path) or begin(self, path))
    snapshot = freeze([project], name="First")
    assert [path.rpartition("/")[2] for path in written] == ["rows.parquet", "manifest.json"]
    stored = storage().read_bytes(f"{snapshot.location}/rows.parquet")
    manifest = json.loads(storage().read_bytes(f"{snapshot.location}/manifest.json"))
    assert manifest["checksum"] == snapshot.checksum == hashlib.sha256(stored).hexdigest()
    assert manifest == snapshot.manifest


def test_equal_scores_and_seeds_give_equal_files_and_other_seeds_other_splits() -> None:
    project = make_project()
    scored(project, queries=20)
    first, second = (freeze([project], name="Twice") for _ in range(2))
    other = freeze([project], name="Twice", options=SnapshotOptions(seed=7))
    assert first.checksum == second.checksum != other.checksum
    assert first.location != second.location


def test_queries_are_dealt_out_by_domain_in_the_shares_asked_for() -> None:
    project = make_project()
    scored(project, queries=30, domain="law", prefix="l")
    scored(project, queries=10, domain="code", prefix="c")
    rows = rows_of(freeze([project], name="Shares", options=SnapshotOptions(dev_share=0.1, test_share=0.2)))
    queries = {(row["domain"], row["split"], row["query_id"]) for row in rows}
    counts = {(domain, split): 0 for domain in ("law", "code") for split in ("train", "dev", "test")}
    for domain, split, _ in queries:
        counts[domain, split] += 1
    assert counts == {
        ("law", "train"): 21, ("law", "dev"): 3, ("law", "test"): 6,
        ("code", "train"): 7, ("code", "dev"): 1, ("code", "test"): 2,
    }  # fmt: skip


def test_no_text_of_a_query_or_document_stands_in_two_splits() -> None:
    project = make_project()
    queries = scored(project, queries=20)
    for number, query in enumerate(queries[:10]):  # the same question again, written otherwise
        query.text = f"  {queries[10 + number].text.upper()} "
        query.save()
    shared = Document.objects.filter(external_id__endswith="-0")
    shared.update(text="The same everywhere")
    options = SnapshotOptions(dev_share=0.2, test_share=0.2)
    snapshot = freeze([project], name="Apart", options=options)
    rows = rows_of(snapshot)
    for text in ("query", "document"):
        splits: dict[int, set[str]] = {}
        for row in rows:
            splits.setdefault(fingerprint(row[text]), set()).add(row["split"])
        assert max(len(each) for each in splits.values()) == 1
    held = {row["split"] for row in rows if row["document"] == "The same everywhere"}
    assert held == {"test"}
    removed = snapshot.manifest["removed"]["document text also in a stricter split"]
    assert removed == 80 - len(rows) > 0
    kept = freeze([project], name="Kept", options=options.model_copy(update={"shared_documents": "keep"}))
    assert kept.rows == 80


def test_a_held_out_domain_is_never_learned_from_nor_are_its_questions_elsewhere() -> None:
    project = make_project()
    scored(project, queries=10, domain="law", prefix="l")
    held = scored(project, queries=3, domain="medicine", prefix="m")
    Query.objects.filter(external_id="l0").update(text=held[0].text)
    snapshot = freeze([project], name="Transfer", options=SnapshotOptions(heldout_domains=["medicine"]))
    rows = rows_of(snapshot)
    assert {row["split"] for row in rows if row["domain"] == "medicine"} == {"heldout"}
    assert {row["query_external_id"] for row in rows if row["domain"] == "law"} == {f"l{i}" for i in range(1, 10)}
    assert snapshot.manifest["removed"] == {"query text also in a held-out domain": 4}


def test_a_field_of_the_metadata_can_name_the_split_of_a_query() -> None:
    project = make_project()
    queries = scored(project, queries=12)
    for number, split in ((0, "test"), (1, "test"), (2, "dev")):
        queries[number].metadata = {"part": split}
        queries[number].save()
    Query.objects.filter(pk=queries[5].pk).update(text=queries[0].text.upper())  # the test question again
    options = SnapshotOptions(split_by="part", dev_share=0.25, test_share=0.0, shared_documents="keep")
    snapshot = freeze([project], name="Named", options=options)
    split_of = {row["query_external_id"]: row["split"] for row in rows_of(snapshot)}
    names = [query.external_id for query in queries]
    assert {name for name, split in split_of.items() if split == "test"} == set(names[:2])
    assert split_of[names[2]] == "dev" and names[5] not in split_of
    drawn = [split for name, split in split_of.items() if name not in names[:3]]
    assert (drawn.count("dev"), drawn.count("train")) == (2, 6)
    assert list(snapshot.manifest["removed"]) == ["query text also in a held-out domain or in another named split"]
    Query.objects.filter(pk=queries[3].pk).update(metadata={"part": "exam"})
    with pytest.raises(SnapshotRefused, match="'exam' in its metadata; expected train, dev, test, heldout"):
        freeze([project], name="Wrong", options=options)
    with pytest.raises(SnapshotRefused, match="which no scored query has"):
        freeze([project], name="None", options=options.model_copy(update={"split_by": "nothing"}))
    Query.objects.update(metadata={"part": "test"})
    assert split_sizes(freeze([project], name="All are tested", options=options)) == {"test": 12}


def split_sizes(snapshot: Snapshot) -> dict[str, int]:
    return {split: each["queries"] for split, each in snapshot.manifest["splits"].items() if each["queries"]}


def test_a_test_collection_has_all_queries_and_nothing_to_train_on() -> None:
    project = make_project()
    scored(project, queries=5)
    made = freeze([project], name="Collection", options=SnapshotOptions(dev_share=0.0, test_share=1.0))
    assert split_sizes(made) == {"test": 5}
    assert made.manifest["relevance"] == {"low": None, "high": None}
    assert {row["weight"] for row in rows_of(made)} == {1.0}
    assert {each["share_of_training"] for each in made.manifest["domains"]} == {0.0}
    halves = freeze([project], name="Halves", options=SnapshotOptions(dev_share=0.5, test_share=0.5))
    assert split_sizes(halves) == {"dev": 2, "test": 3}
    again = mix([Part(made), Part(halves)], name="Both")
    assert split_sizes(again) == {"test": 5} and {row["weight"] for row in rows_of(again)} == {1.0}


def test_held_out_domains_alone_are_no_test_collection() -> None:
    project = make_project()
    scored(project, queries=5, domain="law")
    with pytest.raises(NothingToFreeze, match="at least 3"):
        freeze([project], name="Wrong", options=SnapshotOptions(heldout_domains=["law"]))


def test_filters_leave_out_what_rests_on_little() -> None:
    project = make_project()
    queries = scored(project)
    Score.objects.filter(candidate__query=queries[0]).update(comparisons=1)
    QueryFit.objects.filter(query=queries[1]).update(error="not converged")
    scored(project, queries=2, domain="law", prefix="l")
    options = SnapshotOptions(min_comparisons=2, max_stderr=42.5, domains=[""], test_share=0)
    snapshot = freeze([project], name="Filtered", options=options)
    assert snapshot.rows == 8 * 3
    assert snapshot.manifest["removed"] == {
        "other domains": 8, "too few comparisons": 4, "too large a standard error": 8,
    }  # fmt: skip


@pytest.mark.parametrize("split", ["test", "heldout"])
def test_what_proves_keeps_every_document_of_its_queries(split: str) -> None:
    project = make_project()
    scored(project, queries=20, documents=5)
    scored(project, queries=4, documents=5, domain="law", prefix="l")
    Score.objects.filter(candidate__document__external_id__endswith="-0").update(comparisons=1)
    Score.objects.filter(candidate__document__external_id__endswith="-1").update(elo_stderr=300.0)
    lone = Candidate.objects.filter(document__external_id__endswith="-2")
    Score.objects.filter(candidate__in=lone.values("pk")).update(island=1)
    options = SnapshotOptions(min_comparisons=2, max_stderr=100.0, heldout_domains=["law"])
    rows = rows_of(freeze([project], name="Strict", options=options))
    sizes = {
        name: {sum(each["query_id"] == row["query_id"] for each in rows) for row in rows if row["split"] == name}
        for name in ("train", "dev", split)
    }
    assert sizes == {"train": {2}, "dev": {2}, split: {5}}
    apart = [row for row in rows if row["document_external_id"].endswith("-2")]
    assert {row["split"] for row in apart} == {"test", "heldout"}
    assert {(row["elo"], row["relevance"], row["stderr"]) for row in apart} == {(None, None, None)}


def test_of_a_query_in_islands_only_the_largest_is_learned_from() -> None:
    project = make_project()
    queries = scored(project, documents=5)
    lone = queries[0].candidates.order_by("id")[:2]
    Score.objects.filter(candidate__in=lone.values("pk")).update(island=1)
    snapshot = freeze([project], name="Islands", options=SnapshotOptions(test_share=0))
    assert snapshot.manifest["removed"] == {"not connected to the query's largest group": 2}


def test_weights_make_the_mixture_and_the_manifest_says_it() -> None:
    law, code = make_project(), make_project()
    scored(law, queries=12, domain="law")
    scored(code, queries=12, domain="code")
    scored(code, queries=12, domain="shell", prefix="s")
    weights = {law.slug: 2.0, f"{code.slug}/shell": 0.0}
    snapshot = freeze([law, code], name="Mixture", options=SnapshotOptions(weights=weights))
    train = [row for row in rows_of(snapshot) if row["split"] == "train"]
    assert np.isclose(np.mean([row["weight"] for row in train]), 1.0)
    by_domain = {row["domain"]: row["weight"] for row in train}
    assert by_domain["shell"] == 0.0
    assert np.isclose(by_domain["law"] / by_domain["code"], 2.0)
    rows = {domain: sum(row["domain"] == domain for row in train) for domain in ("law", "code")}
    shares = {
        each["domain"]: each["share_of_training"] for each in snapshot.manifest["domains"] if each["split"] == "train"
    }
    assert np.isclose(shares["law"], 2 * rows["law"] / (2 * rows["law"] + rows["code"]))
    assert shares["shell"] == 0.0


@pytest.mark.usefixtures("stub_plugins")
def test_the_manifest_leads_back_to_judgments_judges_and_fit() -> None:
    project = make_project(queries=1)
    first, second = make_judges(project, 2)
    pair = make_pair(Query.objects.get())
    judge_pair(pair, first)
    judge_pair(pair, second)
    scored(project)
    lineage = freeze([project], name="Lineage").manifest["projects"][0]
    assert lineage["judgments"] == 2
    assert [each["judgments"] for each in lineage["judges"]] == [1, 1]
    assert lineage["judges"][0]["config_hash"] == first.config_hash
    assert lineage["fit"]["priors"] == [0.1]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"relevance": 0.5}, NoSpread, "has the relevance 0.5000"),
        ({"comparisons": 0}, NothingToFreeze, "rows: too few comparisons"),
    ],
)
def test_scores_that_teach_nothing_are_refused(
    change: dict[str, Any], error: type[Exception], says: str, own_storage: Path
) -> None:
    project = make_project()
    scored(project, **change)
    with pytest.raises(error, match=says):
        freeze([project], name="Nothing")
    assert not Snapshot.objects.exists()
    assert not [each for each in own_storage.rglob("*") if each.is_file()]


def test_a_project_without_scores_cannot_be_frozen() -> None:
    with pytest.raises(NothingToFreeze, match="start a run first"):
        freeze([make_project(queries=2)], name="Empty")


def test_what_is_too_large_for_a_request_names_the_command(own_storage: Path) -> None:
    project = make_project()
    scored(project)
    options = SnapshotOptions(seed=3, weights={"law": 2.0})
    with pytest.raises(TooManyRows) as refused:
        freeze([project], name="It's large", options=options, most_rows=39)
    assert "40 documents have scores; expected at most 39" in str(refused.value)
    command = shlex.split(str(refused.value).partition("manage.py snapshot ")[2])
    assert command[:3] == [project.slug, "--name", "It's large"]
    assert SnapshotOptions.model_validate_json(command[4]) == options
    assert not own_storage.exists()


@pytest.mark.parametrize(
    "wrong", [{"domains": ["lwa"]}, {"heldout_domains": ["lwa"]}, {"weights": {"lwa": 2.0}}, {"weights": {"law": 0.0}}]
)
def test_names_that_nothing_has_and_weights_of_nothing_are_refused(wrong: dict[str, Any]) -> None:
    project = make_project()
    scored(project, domain="law")
    with pytest.raises(SnapshotRefused):
        freeze([project], name="Wrong", options=SnapshotOptions.model_validate(wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dev_share": 0.9},
        {"test_share": 1.0},
        {"dev_share": 0.3, "test_share": 0.8},
        {"max_stderr": 0},
        {"weights": {"a": -1}},
        {"unknown": 1},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        SnapshotOptions.model_validate(wrong)


class FullDisk(LocalFileSystem):
    """A disk with room for 2,000 bytes a file."""

    protocol = "full"

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return Cramped(path, mode) if "w" in mode else super().open(path, mode, **options)


class Cramped(io.FileIO):
    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 2000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_leaves_nothing_half_published(settings: Settings, tmp_path: Path) -> None:
    fsspec.register_implementation("full", FullDisk, clobber=True)
    settings.STORAGE_URL = f"full://{tmp_path}/cramped"
    project = make_project()
    scored(project, queries=40)
    with pytest.raises(StorageFull, match="set STORAGE_URL to a larger place"):
        freeze([project], name="Large")
    assert not Snapshot.objects.exists()
    assert not [each for each in (tmp_path / "cramped").rglob("*") if each.is_file()]


def test_only_who_sees_all_projects_of_a_snapshot_sees_it() -> None:
    owner, stranger = make_user(), make_user()
    mine, both = make_project(owner=owner), make_project(owner=owner)
    Membership.objects.create(project=both, user=stranger, role="owner")
    scored(mine)
    scored(both, prefix="b")
    joint = freeze([mine, both], name="Joint")
    single = freeze([both], name="Single")
    assert set(Snapshot.objects.visible_to(owner)) == {joint, single}
    assert set(Snapshot.objects.visible_to(stranger)) == {single}
    assert not Snapshot.objects.visible_to(AnonymousUser()).exists()


def test_stored_files_are_checked_when_they_are_read(tmp_path: Path) -> None:
    checksum = storage().write_bytes("a/b.txt", b"text")
    storage().download("a/b.txt", tmp_path / "copy.txt", checksum=checksum)
    assert (tmp_path / "copy.txt").read_bytes() == b"text"
    with pytest.raises(ChecksumMismatch, match="changed or damaged"):
        storage().download("a/b.txt", tmp_path / "other.txt", checksum="0" * 64)
    assert not (tmp_path / "other.txt").exists()


def test_folders_go_there_and_back_with_their_manifest_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    for name in ("a.txt", "deep/z.txt", "manifest.json"):
        (source / name).write_text(name)
    written: list[str] = []
    begin = Storage.writing
    monkeypatch.setattr(Storage, "writing", lambda self, path: written.append(path) or begin(self, path))
    storage().upload_folder(source, "kept/folder")
    assert written == ["kept/folder/a.txt", "kept/folder/deep/z.txt", "kept/folder/manifest.json"]
    storage().download_folder("kept/folder", tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "z.txt").read_text() == "deep/z.txt"
    storage().remove("kept")
    assert storage().names("kept") == []


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a\x00b", "a\\b"])
def test_no_path_leads_out_of_the_storage(path: str) -> None:
    with pytest.raises(BadPath):
        storage().write_bytes(path, b"")


def test_an_address_that_nothing_can_open_is_told() -> None:
    with pytest.raises(StorageUnusable, match="nosuch"):
        Storage("nosuch://place")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.floats(0, 0.5), st.integers(0, 3))
def test_quotas_are_whole_and_add_up(sizes: list[int], share: float, taken: int) -> None:
    of_strata = np.array(sizes, dtype=np.int64)
    gone = np.minimum(of_strata, taken)
    quota = quotas(of_strata, share, taken=gone)
    assert (quota >= 0).all()
    assert (quota <= of_strata - gone).all()
    assert quota.sum() <= max(1, round(sum(sizes) * share))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=4, max_size=40), st.integers(0, 2**32))
def test_splits_part_texts_and_do_not_depend_on_the_order_of_queries(rows: list[tuple[int, int]], seed: int) -> None:
    """Even if a text is in several strata, such as one question in two domains."""
    prints, strata = np.array([text for text, _ in rows], dtype=np.uint64), np.array([each for _, each in rows])
    heldout = np.zeros(len(prints), dtype=np.bool_)
    split = split_queries(prints, strata, heldout, dev=0.2, test=0.2, seed=seed)
    again = split_queries(prints[::-1], strata[::-1], heldout, dev=0.2, test=0.2, seed=seed)[::-1]
    assert (split == again).all()
    for text in set(prints.tolist()):
        assert len(set(split[prints == text].tolist())) == 1


def test_rows_stay_in_the_strictest_split_of_their_document() -> None:
    prints = np.array([1, 1, 1, 2, 2, 3], dtype=np.uint64)
    split = np.array([TRAIN, TEST, TEST, TRAIN, HELDOUT, TRAIN], dtype=np.int64)
    assert rows_to_keep(prints, split).tolist() == [False, True, True, False, True, True]
