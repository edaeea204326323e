"""A mixture of snapshots: weights, queries that several have, and no text in two splits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from labeling.models import Document, Project
from scoring.models import Snapshot
from scoring.snapshots.freeze import SnapshotOptions, SnapshotRefused, freeze
from scoring.snapshots.mixing import Part, mix
from scoring.snapshots.pairs import PAIRS_FILE
from scoring.snapshots.stored_rows import ROWS_FILE
from scoring.storage.files import storage
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project
from tests.factories.scored import scored
from trainer.examples import load_training_data

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]
OPTIONS = SnapshotOptions(dev_share=0.2, test_share=0.2)


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> Path:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    return tmp_path / "stored"


def judged(*, queries: int = 10) -> Project:
    """A scored project with a judged pair in every query."""
    project = make_project()
    found = scored(project, queries=queries)
    (judge,) = make_judges(project)
    for query in found:
        judge_pair(make_pair(query, 0, 1), judge, 0.8)
    return project


def rows_of(snapshot: Snapshot, file: str = ROWS_FILE) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(storage().read_bytes(f"{snapshot.location}/{file}"))).to_pylist()


def mean_weight(rows: list[dict[str, Any]], project: Project | None = None) -> float:
    of_train = [row for row in rows if row["split"] == "train"]
    mine = [row["weight"] for row in of_train if project is None or row["project"] == project.slug]
    return sum(mine) / len(mine)


def test_rows_and_pairs_of_all_parts_are_there_with_their_weights(tmp_path: Path) -> None:
    first, second = judged(), judged()
    parts = [freeze([project], name=project.name, options=OPTIONS) for project in (first, second)]
    mixed = mix([Part(parts[0], 3.0), Part(parts[1])], name="Mixture")
    rows, paired = rows_of(mixed), rows_of(mixed, PAIRS_FILE)
    of_parts = [rows_of(part) for part in parts]
    assert len(rows) == mixed.rows == sum(map(len, of_parts))
    assert {(row["candidate_id"], row["split"]) for row in rows} == {
        (row["candidate_id"], row["split"]) for part in of_parts for row in part
    }
    assert len(paired) == mixed.manifest["pairs"]["rows"] == 20
    for found in (rows, paired):
        assert mean_weight(found) == pytest.approx(1.0)
        assert mean_weight(found, first) == pytest.approx(3.0 * mean_weight(found, second))
    assert [each["weight"] for each in mixed.manifest["mixed_from"]] == [3.0, 1.0]
    assert set(mixed.projects.all()) == {first, second}
    for name in (ROWS_FILE, PAIRS_FILE):
        (tmp_path / name).write_bytes(storage().read_bytes(f"{mixed.location}/{name}"))
    data = load_training_data(tmp_path / ROWS_FILE, tmp_path / PAIRS_FILE)
    assert len(data.train) == mixed.manifest["splits"]["train"]["rows"] and len(data.train_pairs or ()) == 12


def test_pairs_of_queries_without_weight_are_mixed_as_they_are() -> None:
    project = judged(queries=8)
    project.queries.update(domain="judged")
    for query in scored(project, queries=8, prefix="more-"):
        project.queries.filter(pk=query.pk).update(domain="other")
    options = OPTIONS.model_copy(update={"weights": {"judged": 0.0}})
    parts = [Part(freeze([project], name=name, options=options)) for name in ("Older", "Newer")]
    paired = rows_of(mix(parts, name="Both"), PAIRS_FILE)
    assert {row["weight"] for row in paired} == {0.0} and "train" in {row["split"] for row in paired}


def test_a_snapshot_with_the_splits_of_a_mixture_has_its_weights() -> None:
    first, second = judged(), judged()
    parts = [freeze([project], name=project.name, options=OPTIONS) for project in (first, second)]
    mixed = mix([Part(parts[0], 3.0), Part(parts[1])], name="Mixture")
    options = SnapshotOptions.model_validate(mixed.manifest["options"])
    scored(second, queries=2, prefix="new-")
    later = freeze([first, second], name="Later", options=options, splits_of=mixed)
    rows, before = rows_of(later), {row["query_id"]: row for row in rows_of(mixed)}
    assert mean_weight(rows) == pytest.approx(1.0)
    known = [row for row in rows if row["query_id"] in before]
    ratios = {round(row["weight"] / before[row["query_id"]]["weight"], 9) for row in known}
    assert len(ratios) == 1 and {row["split"] for row in rows if row["query_id"] not in before} == {"train"}
    for row in known:
        assert row["split"] == before[row["query_id"]]["split"]


def test_a_query_counts_in_the_first_snapshot_that_has_it() -> None:
    project = judged()
    older = freeze([project], name="Older", options=OPTIONS)
    newer = freeze([project], name="Newer", options=OPTIONS)
    mixed = mix([Part(newer), Part(older)], name="Both")
    assert mixed.rows == newer.rows and sum(mixed.manifest["removed"].values()) == older.rows
    assert len(rows_of(mixed, PAIRS_FILE)) == 10


def named(project: Project, **splits: str) -> Snapshot:
    """A snapshot in which the first queries are in the named splits, by their texts."""
    for query, (text, split) in zip(project.queries.order_by("id"), splits.items(), strict=False):
        query.text, query.metadata = text, {"fold": split}
        query.save()
    return freeze([project], name=f"{project.name} named", options=SnapshotOptions(split_by="fold", test_share=0.2))


def test_a_text_is_in_its_strictest_split_of_all_parts() -> None:
    first, second = judged(), judged()
    parts = [named(first, both="test", one="test"), named(second, both="train", other="train")]
    shared = [
        project.queries.get(text=text).candidates.first() for project, text in ((first, "one"), (second, "other"))
    ]
    Document.objects.filter(pk__in=[each.document_id for each in shared if each]).update(text="a shared passage")
    parts = [named(first, both="test", one="test"), named(second, both="train", other="train")]
    of_parts = [rows_of(part) for part in parts]
    for field, text in (("query", "both"), ("document", "a shared passage")):
        assert [{row["split"] for row in rows if row[field] == text} for rows in of_parts] == [{"test"}, {"train"}]
        for order in (parts, parts[::-1]):
            mixed = mix([Part(part) for part in order], name="Apart")
            assert {row["split"] for row in rows_of(mixed) if row[field] == text} == {"test"}
            assert mixed.manifest["removed"]
    assert not any(row["query"] == "both" and row["split"] == "train" for row in rows_of(mixed, PAIRS_FILE))


def test_refusals_store_nothing() -> None:
    project = judged()
    only = freeze([project], name="Only", options=OPTIONS)
    for parts in ([], [Part(only)], [Part(only), Part(only)]):
        with pytest.raises(SnapshotRefused, match="two or more"):
            mix(parts, name="No")
    other = freeze([project], name="Other", options=OPTIONS)
    with pytest.raises(SnapshotRefused, match="above 0"):
        mix([Part(only), Part(other, 0.0)], name="No")
    assert Snapshot.objects.count() == 2


def test_the_command_mixes_snapshots_of_the_named_projects(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = judged(), judged()
    parts = [freeze([project], name=project.name, options=OPTIONS) for project in (first, second)]
    numbers = [f"{parts[0].pk}:2", str(parts[1].pk)]
    with pytest.raises(CommandError, match="other projects"):
        call_command("snapshot", first.slug, mix=numbers)
    call_command("snapshot", first.slug, second.slug, mix=numbers, name="By command")
    assert Snapshot.objects.get(name="By command").rows == sum(part.rows for part in parts)
    assert "By command" in capsys.readouterr().out
