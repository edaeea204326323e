"""The whole path, import to leaderboard, on changed input: which figures may move, and by how much.

Each change has one known effect, whatever the true answer is. docs/evaluation.md shows the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_django import Settings
from scipy.special import expit

from labeling.judgments import record_judgments
from labeling.models import Annotator, Candidate, Document, Project, Query
from labeling.pairs import store_pairs
from labeling.plugins import get_plugin
from labeling.records import AnswerKind, NewJudgment
from scoring.calibration.calibrate import calibrate_project
from scoring.models import Calibration, JudgeFit, ProjectFit, Score
from scoring.project_fits import choose_project_fit, sampled_query_ids
from scoring.quality import ranking_quality
from scoring.rating import rate_stale
from scoring.sampling.certainty import top_certainty
from scoring.sampling.draw import sample_pairs
from scoring.snapshots.freeze import SnapshotOptions, freeze
from tests.factories.rows import make_project
from trainer.evaluation.entries import BASE, enter_baselines
from trainer.evaluation.leaderboard import leaderboard
from workers.jobs.evaluation import evaluate, order_evaluation

pytestmark = pytest.mark.django_db(transaction=True)

QUERIES, DOCUMENTS = 9, 7
PRIOR = 0.3
EXACT = 1e-7


@dataclass(frozen=True)
class Vote:
    """P(first is better) by one judge, None for "neither is relevant", whether the second was shown first."""

    query: str
    first: str
    second: str
    judge: str
    preference: float | None
    swapped: bool

    @property
    def from_the_other_side(self) -> Vote:
        turned = None if self.preference is None else 1.0 - self.preference
        return replace(self, first=self.second, second=self.first, preference=turned, swapped=not self.swapped)


@dataclass(frozen=True)
class Data:
    """What a project is made from: documents of each query with grade and first-stage rank, and votes in order."""

    documents: Mapping[str, Mapping[str, tuple[int | None, int | None, str]]]
    votes: Sequence[Vote]
    prior: float | None = PRIOR
    runs: int = 1
    position_bias: str = "removed"

    def renamed(self, name: Callable[[str], str]) -> Data:
        documents = {name(q): {name(d): row for d, row in own.items()} for q, own in self.documents.items()}
        votes = [replace(v, query=name(v.query), first=name(v.first), second=name(v.second)) for v in self.votes]
        return replace(self, documents=documents, votes=votes)


@dataclass
class Figures:
    """All figures by imported id."""

    elo: dict[tuple[str, str], float] = field(default_factory=dict)
    stderr: dict[tuple[str, str], float] = field(default_factory=dict)
    relevance: dict[tuple[str, str], float] = field(default_factory=dict)
    single: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Any] = field(default_factory=dict)
    design: dict[str, set[frozenset[str]]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)


def some_data(*, rich: bool = False) -> Data:
    """Three judges with errors; grades that follow the truth; ties in grade and in first-stage rank.

    `rich`: one judge says "neither" of two bad documents, and two documents of each query have the same text.
    """
    rng = np.random.default_rng(5)
    documents: dict[str, dict[str, tuple[int | None, int | None, str]]] = {}
    votes = []
    for q in range(QUERIES):
        truth = rng.normal(0.0, 1.5, DOCUMENTS)
        names = [f"d{q}-{i}" for i in range(DOCUMENTS)]
        ranks = rng.permutation(DOCUMENTS) + 1
        documents[f"q{q}"] = {
            name: (int(np.digitize(truth[i], [0.0, 1.5])), int(ranks[i]), f"text {q} of {1 if rich and i == 4 else i}")
            for i, name in enumerate(names)
        }
        for i in range(DOCUMENTS):
            for j in (i + 1, i + 3):
                a, b = names[i], names[j % DOCUMENTS]
                for judge in ("east", "north", "west"):
                    shown = truth[i] - truth[j % DOCUMENTS] + rng.normal(0.0, 0.7)
                    are_bad = rich and judge == "west" and max(truth[i], truth[j % DOCUMENTS]) < -0.3
                    given = None if are_bad else float(expit(shown))
                    votes.append(Vote(f"q{q}", a, b, judge, given, bool(rng.random() < 0.5)))
    return Data(documents, votes)


def built(data: Data) -> Project:
    """The project, its votes recorded in `runs` parts with a rating after each."""
    project = make_project()
    project.rater_options = {"position_bias": data.position_bias}
    if data.prior is not None:
        project.rater_options["prior_precision"] = data.prior
    project.save()
    ids: dict[tuple[str, str], tuple[int, int]] = {}
    for name, own in data.documents.items():
        asked = min(text for *_, text in own.values())
        query = Query.objects.create(project=project, external_id=name, text=f"question on {asked}", domain="law")
        for document, (grade, rank, text) in own.items():
            row = Document.objects.create(project=project, external_id=document, text=text)
            candidate = Candidate.objects.create(query=query, document=row, grade=grade, first_stage_rank=rank)
            ids[name, document] = candidate.pk, query.pk
    judges = {
        name: Annotator.objects.create(project=project, name=name, plugin="bm25", config_hash=name)
        for name in dict.fromkeys(vote.judge for vote in data.votes)
    }
    for part in np.array_split(np.arange(len(data.votes)), data.runs):
        record([data.votes[at] for at in part.tolist()], ids, judges)
        rate_stale(project.pk)
    return project


def record(votes: Sequence[Vote], ids: Mapping[tuple[str, str], tuple[int, int]], judges: Mapping[str, Any]) -> None:
    found = []
    for vote in votes:
        if ids[vote.query, vote.first][0] > ids[vote.query, vote.second][0]:
            vote = vote.from_the_other_side
        found.append(vote)
    first, second = [ids[v.query, v.first] for v in found], [ids[v.query, v.second] for v in found]
    pairs = store_pairs([pk for pk, _ in first], [pk for pk, _ in second], [query for _, query in first])
    record_judgments(
        [
            NewJudgment(
                pair_id=pair,
                annotator_id=judges[v.judge].pk,
                swapped=v.swapped,
                preference=v.preference,
                kind=AnswerKind.BOTH_IRRELEVANT if v.preference is None else AnswerKind.PREFERENCE,
            )
            for pair, v in zip(pairs, found, strict=True)
        ]
    )


def figures_of(project: Project) -> Figures:
    """Every kind of figure that people read."""
    found = Figures()
    choose_project_fit(project.pk)
    rate_stale(project.pk)
    calibrate_project(project.pk)
    for row in Score.objects.filter(candidate__query__project=project, comparisons__gt=0).select_related(
        "candidate__query", "candidate__document"
    ):
        key = row.candidate.query.external_id, row.candidate.document.external_id
        found.elo[key], found.stderr[key], found.relevance[key] = row.elo, row.stderr, row.relevance
    shared, calibration = ProjectFit.objects.get(project=project), Calibration.objects.get(project=project)
    found.single = {"prior": shared.prior_precision, "phi": shared.dispersion, "ece": calibration.ece}
    for fit in JudgeFit.objects.filter(annotator__project=project).select_related("annotator"):
        found.single[f"sharpness {fit.annotator.name}"] = fit.sharpness
        found.single[f"lean {fit.annotator.name}"] = fit.position_bias
    queries = {query.pk: query.external_id for query in project.queries.all()}
    for pk, value in top_certainty(list(queries)).items():
        found.single[f"certainty {queries[pk]}"] = value
    found.single["sample"] = sorted(queries[pk] for pk in sampled_query_ids(project.pk, most=60))
    for order in ranking_quality(project):
        found.intervals[order.order] = (order.ndcg.estimate, order.ndcg.low, order.ndcg.high)
    found.design = design(project, queries)
    _of_the_proof(project, found)
    return found


def design(project: Project, queries: Mapping[int, str]) -> dict[str, set[frozenset[str]]]:
    """The pairs of texts that would be asked next, by query."""
    sampler: Any = get_plugin("sampler", "adaptive").from_dict({"round_pairs": 3})
    drawn = sample_pairs(list(queries), sampler, budgets=dict.fromkeys(queries, 3), seed=1, round_number=2)
    names = dict(Candidate.objects.filter(query__in=queries).values_list("id", "document__text"))
    return {queries[q]: {frozenset(names[each] for each in pair) for pair in drawn[q].tolist()} for q in drawn}


def _of_the_proof(project: Project, found: Figures) -> None:
    snapshot = freeze([project], name="frozen", options=SnapshotOptions(test_share=0.5, dev_share=0.1))
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    evaluate(order_evaluation(project, snapshot, rerankers=chosen).pk)
    board = leaderboard(project, snapshot, "test", "grades")
    found.splits = {each["split"]: each["queries"] for each in snapshot.manifest["domains"]}
    for row in board.rows:
        own = row.leading
        found.intervals[f"board {row.name}"] = (own.estimate, own.low, own.high)
        for kind, against in row.against.items():
            test = against.test
            moved = (test.difference.low, test.difference.high, test.p_value)
            found.intervals[f"board {row.name} {kind}"] = moved


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"


def largest_change(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> float:
    assert first.keys() == second.keys()
    changes = [0.0]
    for key, value in first.items():
        if isinstance(value, list | str | set) or value is None:
            assert value == second[key], key
        else:
            changes.append(float(np.max(np.abs(np.subtract(value, second[key])))))
    return max(changes)


def same_everywhere(first: Figures, second: Figures) -> None:
    for name in ("elo", "stderr", "relevance", "single", "intervals"):
        assert largest_change(getattr(first, name), getattr(second, name)) <= EXACT * (1e3 if name == "elo" else 1), (
            name
        )
    assert first.design == second.design
    assert first.splits == second.splits


def in_halves(data: Data) -> Data:
    """Only the votes within two groups of three documents, which nothing connects."""
    groups = [(0, 1, 2), (3, 4, 5)]
    pairs = {frozenset((f"-{i}", f"-{j}")) for own in groups for i in own for j in own if i != j}
    kept = [
        v for v in data.votes if frozenset((v.first[v.first.index("-") :], v.second[v.second.index("-") :])) in pairs
    ]
    return replace(data, votes=kept)


@pytest.mark.parametrize(
    "data", [some_data(), some_data(rich=True), in_halves(some_data())], ids=["plain", "rich", "equal islands"]
)
def test_nothing_depends_on_the_order_of_rows_or_on_primary_keys(data: Data) -> None:
    rng = np.random.default_rng(1)
    shuffled = {
        name: dict(sorted(data.documents[name].items(), key=lambda _: rng.random()))
        for name in sorted(data.documents, key=lambda _: rng.random())
    }
    votes = [data.votes[at] for at in rng.permutation(len(data.votes))]
    before = figures_of(built(replace(data, prior=None)))
    same_everywhere(before, figures_of(built(Data(shuffled, votes, prior=None))))


@pytest.mark.parametrize("rich", [False, True])
def test_sides_and_the_number_of_runs_do_not_matter(rich: bool) -> None:
    data = some_data(rich=rich)
    before = figures_of(built(data))
    turned = [vote.from_the_other_side for vote in data.votes]
    same_everywhere(before, figures_of(built(replace(data, votes=turned, runs=2))))


def test_other_ids_change_only_the_order_of_ties() -> None:
    """Texts decide all draws. In the proof, ids break the ties of BM25 and of equal first-stage ranks."""
    data = some_data()
    before = figures_of(built(data))
    after = figures_of(built(data.renamed(lambda name: f"{name[::-1]}/x")))

    def old(name: str) -> str:
        return name.removesuffix("/x")[::-1]

    for figures in (after.elo, after.stderr, after.relevance):
        for key in list(figures):
            figures[old(key[0]), old(key[1])] = figures.pop(key)
    after.design = {old(q): pairs for q, pairs in after.design.items()}
    after.single = {
        f"certainty {old(name.split()[1])}" if name.startswith("certainty") else name: value
        for name, value in after.single.items()
    }
    after.single["sample"] = sorted(map(old, after.single["sample"]))
    for each in (before, after):
        each.intervals = {name: own for name, own in each.intervals.items() if "bm25" not in name.lower()}
    same_everywhere(before, after)


@pytest.mark.parametrize("rich", [False, True])
def test_untouched_candidates_move_no_score_of_others(rich: bool) -> None:
    """New candidates without a grade or an answer: the same prior, Elo, measures and judges; errors of strengths keep their
    order."""
    data = replace(some_data(rich=rich), prior=None)
    before = figures_of(built(data))
    more = {
        q: {**own, **{f"{q}-new{i}": (None, None, f"text {q} unseen {i}") for i in (1, 2)}}
        for q, own in data.documents.items()
    }
    after = figures_of(built(replace(data, documents=more)))
    assert before.single["prior"] == pytest.approx(after.single["prior"], abs=EXACT)
    assert largest_change(before.elo, after.elo) <= 1e3 * EXACT
    assert largest_change(before.relevance, after.relevance) <= EXACT
    assert largest_change(before.intervals, after.intervals) <= EXACT
    judges = {name for name in before.single if name.startswith(("sharpness", "lean", "ece"))}
    # Their fit alternates until it settles, from another start.
    assert largest_change({n: before.single[n] for n in judges}, {n: after.single[n] for n in judges}) <= 1e-3
    # The mean that strengths are relative to has more members, whose spread is the prior's: one summand for a whole query.
    for query in data.documents:
        added = [after.stderr[key] ** 2 - value**2 for key, value in before.stderr.items() if key[0] == query]
        assert min(added) > 0.0 and np.ptp(added) <= 1e-6 * max(added)


def test_votes_given_twice_weigh_as_much_as_half_the_prior() -> None:
    """The same votes from twin judges and twice the prior precision: the same Elo. Errors shrink by less than two
    independent judges' would, to 1 / sqrt(2): the dispersion of pair means doubles, but for its pseudo-pair."""
    data = replace(some_data(), position_bias="kept")
    twins = [replace(vote, judge=f"{vote.judge} again") for vote in data.votes]
    twice = replace(data, votes=[*data.votes, *twins], prior=2.0 * PRIOR)
    before, double = figures_of(built(data)), figures_of(built(twice))
    assert largest_change(before.elo, double.elo) <= 1e3 * EXACT
    removed = [figures_of(built(replace(each, position_bias="removed"))).elo for each in (data, twice)]
    assert largest_change(*removed) <= 1.0, "biases are measured on twice as many votes"
    ratios = [double.stderr[key] / value for key, value in before.stderr.items()]
    assert 1.05 / np.sqrt(2.0) < min(ratios) and max(ratios) <= 1.0
    only_elo = {name for name in before.intervals if name in ("Elo", "first stage", "board Elo", "board first stage")}
    assert only_elo
    assert (
        largest_change({n: before.intervals[n] for n in only_elo}, {n: double.intervals[n] for n in only_elo}) <= EXACT
    )
    loose = figures_of(built(replace(data, votes=[*data.votes, *twins])))
    spread = [np.std([value for (q, _), value in each.elo.items() if q == "q0"]) for each in (before, loose)]
    assert 1.0 <= spread[1] / spread[0] <= 1.2, "a weaker prior shrinks less"
