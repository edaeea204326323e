"""What leaves with the scores: a strict order, and no Elo for what was never compared."""

from __future__ import annotations

import io

import numpy as np
import pytest
import pytrec_eval

from labeling.models import Project
from scoring.exports import strictly_falling
from scoring.exports.exporting import export
from scoring.models import Score
from scoring.numerics.measures.rankings import ranks_of
from tests.factories.frozen import make_scored
from trainer.evaluation.run_files import read_run


def exported(project: Project, exporter: str) -> bytes:
    stream = io.BytesIO()
    export(project, exporter, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "scores",
    [
        [1500.00002, 1500.00001],
        [1500.0] * 300,
        [1e-45, 0.0, 0.0, -1e-45],
        [2000.0, 1500.00002, 1500.00001, 1500.0, 1499.9999, -3.5],
    ],
)
def test_exported_scores_fall_strictly_as_32_bit_and_as_64_bit_floats(scores: list[float]) -> None:
    written = strictly_falling(scores)
    assert all(np.diff([np.float32(each) for each in written]) < 0)
    assert all(np.diff([float(each) for each in written]) < 0)
    assert [float(each) for each in written] == pytest.approx(scores, abs=0.05)


@pytest.mark.django_db
def test_trec_eval_reads_an_exported_run_in_our_order() -> None:
    """Near ties are equal as 32-bit floats, where trec_eval would order them by id in descending order."""
    project = make_scored(queries=1, documents=8)
    for place, score in enumerate(Score.objects.order_by("candidate__document__external_id")):
        Score.objects.filter(pk=score.pk).update(elo=1500.0 - place * 1e-6)
    content = exported(project, "trec-run")
    lines = [line.split() for line in content.decode().splitlines()]
    ranked = [words[2] for words in lines]
    assert ranked == sorted(ranked)
    run = read_run(io.BytesIO(content))
    for place, document in enumerate(ranked, start=1):
        found = pytrec_eval.RelevanceEvaluator({"q0": {document: 1}}, {"recip_rank"}).evaluate(run)
        assert found["q0"]["recip_rank"] == pytest.approx(1 / place)


@pytest.mark.django_db
def test_documents_of_equal_elo_leave_in_the_order_in_which_they_are_evaluated() -> None:
    """As trec_eval orders ties, so that an exported run has the figures of the leaderboard's row Elo."""
    project = make_scored(queries=1, documents=8)
    Score.objects.filter(candidate__document__external_id__in=["d0-2", "d0-5", "d0-7"]).update(elo=3000.0)
    Score.objects.filter(candidate__document__external_id="d0-3").update(comparisons=0)
    ranked = [line.split()[2] for line in exported(project, "trec-run").decode().splitlines()]
    rated = Score.objects.filter(candidate__query__project=project, comparisons__gt=0)
    elo = dict(rated.values_list("candidate__document__external_id", "elo"))
    places = ranks_of(list(elo.values()), list(elo))
    assert ranked == [document for _, document in sorted(zip(places.tolist(), elo, strict=True))]
    assert len(ranked) == 7
