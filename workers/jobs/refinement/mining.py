"""Mines the pairs of a refinement on training queries: never on dev or test queries, whose answers must stay independent.

The student ranks the snapshot's training queries; `scoring.numerics.design.refining` joins its order with the live answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from django.db import connection

from labeling.models import Candidate, Project
from labeling.records import FloatArray
from scoring.annotators.student_weights import guides_of
from scoring.models import Snapshot
from scoring.numerics.design.refining import Mined, best_of, mine
from scoring.sampling.draw import CandidateState, query_states
from scoring.snapshots.stored_rows import opened_rows
from trainer.evaluation.dataset import read_queries
from trainer.evaluation.metrics import EvaluationQuery, NothingToMeasure
from trainer.evaluation.model_orders import student_order
from trainer.examples import load_examples
from trainer.models import Reranker
from trainer.serving.registry import artefact_folder, artefact_of
from trainer.training.losses.elo import NoPreferences, OneElo, with_preferences
from workers.runs.planning import pending_pairs

# Below, the student's order of a pair contradicts the judgments; above its complement it agrees with them.
CONTRADICTS = 0.5
# A query gets at most so many times the mean number of pairs, as in `benchmarks/refinement.py`.
MOST_TIMES_MEAN = 4


@dataclass(frozen=True, slots=True)
class MinedPair:
    """A mined pair of candidates, a < b. `against`: P(the student's order is right) under the judgments alone, None where the
    student does not rank both; `by_people`: people have compared one of both with another document, or graded it.
    """

    query: int
    a: int
    b: int
    gain: float
    against: float | None
    by_people: bool

    @property
    def is_disagreement(self) -> bool:
        """Whether the student orders the pair the other way round than the judgments."""
        return self.against is not None and self.against < CONTRADICTS


def mine_pairs(
    project: Project,
    student: Reranker,
    snapshot: Snapshot,
    *,
    budget: int,
    queries: int,
    top: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> list[MinedPair]:
    """Up to `budget` pairs of at most `queries` training queries, the most valuable first.

    Raises NothingToMeasure if the snapshot has no training queries of the project, and what loading the student raises.
    """
    chosen = _training_queries(project, snapshot, queries, seed)
    order = student_order(artefact_folder(artefact_of(student)))
    found = order.scores([each for _, each in chosen], progress)
    scores = {
        candidate: score
        for (_, each), own in zip(chosen, found, strict=True)
        for candidate, score in zip(each.candidate_ids.tolist(), own.tolist(), strict=True)
    }
    ids = [query for query, _ in chosen]
    states = query_states(ids, pending=pending_pairs(ids), guides=guides_of(project.pk, ()))
    rated = [query for query, known in states.items() if known.state.theta is not None and known.state.size > 1]
    each = min(budget, MOST_TIMES_MEAN * -(-budget // max(len(rated), 1)))
    mined = [_mined(states[query], scores, budget=each, top=top, seed=seed) for query in rated]
    best = best_of(mined, budget)
    return _described(project, [(rated[query], states[rated[query]], mined[query], row) for query, row in best])


def queries_with_an_order(snapshot: Snapshot, split: str) -> int:
    """The number of a split's queries whose documents differ in Elo: no other can choose between two students."""
    with opened_rows(snapshot) as stream:
        rows = load_examples(stream, split)
    try:
        return len(with_preferences(rows))
    except (NoPreferences, OneElo):
        return 0


def _training_queries(project: Project, snapshot: Snapshot, most: int, seed: int) -> list[tuple[int, EvaluationQuery]]:
    """Training queries of the project with their ids, a random part where there are more than `most`."""
    with opened_rows(snapshot) as stream:
        read = read_queries(stream, "train", name=snapshot.name)
    first = {int(each.candidate_ids[0]): each for each in read}
    own = Candidate.objects.filter(query__project=project, query__excluded_at=None, pk__in=first).order_by("pk")
    found = [(query, first[candidate]) for candidate, query in own.values_list("pk", "query_id")]
    found.sort(key=lambda each: (each[1].text, each[1].id))  # the same part in every database
    if not found:
        raise NothingToMeasure(
            f"snapshot {snapshot.name!r} has no training queries of project {project.slug!r}; train a student of this project"
        )
    kept = np.sort(np.random.default_rng(seed).permutation(len(found))[:most])
    return [found[at] for at in kept.tolist()]


def _mined(known: CandidateState, scores: dict[int, float], *, budget: int, top: int, seed: int) -> Mined:
    own: FloatArray = np.array([scores.get(each, np.nan) for each in known.candidate_ids.tolist()], dtype=np.float64)
    return mine(known.state, own, budget, np.random.default_rng([seed, known.seed]), top=top)


_BY_PEOPLE = """
SELECT candidate.id FROM labeling_candidate candidate WHERE candidate.id = ANY(%s) AND (candidate.grade IS NOT NULL OR EXISTS (
    SELECT 1 FROM labeling_pair pair JOIN labeling_live_judgment answer ON answer.pair_id = pair.id AND answer.by_person
    WHERE pair.a_id = candidate.id OR pair.b_id = candidate.id))
"""


def _described(project: Project, rows: list[tuple[int, CandidateState, Mined, int]]) -> list[MinedPair]:
    pairs = []
    for query, known, mined, row in rows:
        a, b = sorted(known.candidate_ids[mined.pairs[row]].tolist())
        pairs.append((query, a, b, float(mined.gain[row]), float(mined.against[row])))
    with connection.cursor() as cursor:
        cursor.execute(_BY_PEOPLE, [sorted({each for _, a, b, _, _ in pairs for each in (a, b)})])
        people = {row[0] for row in cursor.fetchall()}
    return [
        MinedPair(query, a, b, gain, None if np.isnan(against) else against, a in people or b in people)
        for query, a, b, gain, against in pairs
    ]
