"""Claim: with a distilled pairwise student a panel needs a fraction of the paper's calls for the same top ten.

The topics of `training.py`: 300 questions with 100 documents each, 10 of the question's own topic (grade 3), 20 of topics near it
(1) and 70 others (0). Three simulated judges with the errors of that benchmark compare documents. The paper's design asks all
three about 400 cycle pairs a question. The distilled run asks one judge in turn about pairs that compare as many documents as
possible, the trainer `pairwise` learns from four fifths of the questions, its student judges 400 pairs a question, its votes are
weighed by cross-validation, the judges' position biases are taken out, and the sampler `guided` chooses the panel's further pairs in rounds, which are divided among the
questions by the expected gain, as a run divides its budget. NDCG@10 is measured against the
grades, on all questions, as the mean over `--replications` (4; `--quick` 1) of the votes that the student did not learn from: the
curves end so flat that single ones cross the paper's NDCG@10 at very different calls.

The student's base is MiniLM's first `--layers` layers with mean pooling (made here, nothing is downloaded), so that a CPU can train
it. `--quick` (minutes; 255 s on two cores that were busy with other work) takes two layers and one pass; without it six layers and
three passes. Both compare with `adaptive` x `rotate`, which has no student. Rounds are as large as the samplers' defaults make
them; `--quick` asks twenty pairs a round of `guided` and ends at the paper's NDCG@10.

Keys: `panel_calls_ratio`: panel calls a question, those that the student learned from included, until the mean NDCG@10 reaches
that of the paper's 1,200, over 1,200 (1 where it does not), and `ratio_of_each` replication; `without_student_ratio`: the same for
`adaptive` x `rotate`; `log_loss` of the student on the panel's pairs of questions that it did not learn from, beside
`panel_entropy`, that of the panel's mean itself.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    began = time.monotonic()
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for matrices of 100 documents
os.environ["ZELO_MODELS"] = "*"  # the base is a temporary folder

import numpy as np
import torch
from scipy.special import expit
from sentence_transformers import SentenceTransformer

from benchmarks.simulation import answers_without, calls_ratio, fit_without, mean_curve, table
from benchmarks.training import JUDGES
from benchmarks.training_world import TOPICS, TRAINING_TEMPLATES, Question, Topic, hidden_quality
from labeling.plugins import Sampler
from labeling.records import (
    BoolArray,
    ComparisonColumns,
    Examples,
    FloatArray,
    IntArray,
    PairExamples,
    QueryState,
    TrainingData,
)
from scoring.numerics.design.adaptive import working_posterior
from scoring.numerics.design.static import random_cycles
from scoring.numerics.design.stopping import gain_per_pair, split_budget
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.numerics.fitting.prior import choose_prior
from scoring.numerics.judges.judges import fit_with_judges
from scoring.numerics.judges.position_bias import removable_biases
from scoring.numerics.judges.student_weight import choose_student_weight
from scoring.numerics.measures.rankings import ndcg
from scoring.sampling.guided import Guided
from scoring.sampling.samplers import Adaptive, Cycles
from trainer.bases import MINILM, load_base
from trainer.training.embedding.bi_encoder import load_bi_encoder
from trainer.training.pairwise.apart import ApartStudent
from trainer.training.pairwise.figures import HeldOutPairs, figures, symmetric
from trainer.training.pairwise.held_out import judged
from trainer.training.pairwise.plugin import Pairwise
from zelo_site.demo.sample.docstrings import sample_documents

SIZE, OWN, NEAR = 100, 10, 20
PAPER_JUDGES, PAPER_DEGREE = 3, 8
STUDENT = PAPER_JUDGES  # its number behind the judges'
NO_BIAS: Mapping[int, float] = {}
PAPER_CALLS = PAPER_JUDGES * PAPER_DEGREE * SIZE // 2
MOST_CALLS = 240
COLUMNS = range(30, MOST_CALLS + 1, 30)
LENGTH, BATCH = 32, 64
SAMPLED = 60  # questions whose votes choose prior and weight, as the product samples 40,000 votes
GROWTH = 1.5  # of the votes, after which the product chooses both again
SCALE = LOGIT_SCALES["thurstone"]


# --- the world ---------------------------------------------------------------------------


def make_questions(count: int, rng: np.random.Generator) -> list[Question]:
    """Random questions of all topics and wordings, with 100 candidates each."""
    texts: dict[str, list[str]] = {}
    for document in sample_documents():
        texts.setdefault(document.id.split(".")[0], []).append(document.text)
    every = [(topic, form.format(wish)) for topic in TOPICS for wish in topic.wishes for form in TRAINING_TEMPLATES]
    return [_question(*every[at], texts, rng) for at in rng.choice(len(every), count, replace=False).tolist()]


def _question(topic: Topic, text: str, texts: dict[str, list[str]], rng: np.random.Generator) -> Question:
    own = set(topic.modules)
    near = {module for other in TOPICS if other.name in topic.near for module in other.modules} - own
    picked: list[tuple[str, float]] = []
    for modules, grade, count in (
        (own, 3.0, OWN),
        (near, 1.0, NEAR),
        (texts.keys() - own - near, 0.0, SIZE - OWN - NEAR),
    ):
        pool = [each for module in sorted(modules) for each in texts.get(module, [])]
        picked += [(pool[at], grade) for at in rng.choice(len(pool), count, replace=False).tolist()]
    order = rng.permutation(len(picked)).tolist()
    return Question(
        text[0].upper() + text[1:],
        topic.name,
        tuple(picked[at][0] for at in order),
        np.array([picked[at][1] for at in order]),
    )


@dataclass(slots=True)
class Votes:
    """Pairs int64[m, 2] of one question with preferences float64[m], weights float64[m], judges int64[m] and sides bool[m]."""

    pairs: IntArray
    preference: FloatArray
    weight: FloatArray
    judge: IntArray
    swapped: BoolArray

    @classmethod
    def without_sides(cls, pairs: IntArray, preference: FloatArray, weight: FloatArray, *, judge: int = 0) -> Votes:
        """Votes in which both orders are averaged, by one judge."""
        return cls(pairs, preference, weight, np.full(len(pairs), judge), np.zeros(len(pairs), dtype=np.bool_))

    def with_more(self, other: Votes) -> Votes:
        parts = (np.concatenate([getattr(self, each.name), getattr(other, each.name)]) for each in fields(self))
        return Votes(*parts)


class Panel:
    """The three judges: scale, error and position bias of `training.py`; each answer in one random order."""

    def __init__(self, questions: list[Question]) -> None:
        self.quality = hidden_quality(questions)
        names = (("scale", 1.0), ("sigma", 0.0), ("position_bias", 0.0))
        self.settings = np.array([[values.get(name, other) for name, other in names] for values in JUDGES.values()])
        self.calls = 0

    def one_each(self, question: int, pairs: IntArray, rng: np.random.Generator) -> Votes:
        """One judge's answer to each pair, the judges in turn."""
        judge = (np.arange(len(pairs)) + self.calls) % PAPER_JUDGES
        self.calls += len(pairs)
        preference, swapped = self._answers(question, pairs, judge, rng)
        return Votes(pairs, preference, np.ones(len(pairs)), judge, swapped)

    def all_three(self, question: int, pairs: IntArray, rng: np.random.Generator) -> Votes:
        answers = [self._answers(question, pairs, np.full(len(pairs), judge), rng)[0] for judge in range(PAPER_JUDGES)]
        return Votes.without_sides(pairs, np.mean(answers, axis=0), np.full(len(pairs), float(PAPER_JUDGES)))

    def _answers(
        self, question: int, pairs: IntArray, judge: IntArray, rng: np.random.Generator
    ) -> tuple[FloatArray, BoolArray]:
        scale, sigma, bias = self.settings[judge].T
        own = self.quality[question]
        order = np.where(rng.random(len(pairs)) < 0.5, -1.0, 1.0)
        logit = scale * (own[pairs[:, 0]] - own[pairs[:, 1]]) + sigma * rng.standard_normal(len(pairs)) + bias * order
        return np.asarray(expit(logit)), order < 0.0


# --- rating ------------------------------------------------------------------------------


def columns_of(votes: list[Votes], student: list[Votes] | None = None) -> ComparisonColumns:
    """The votes of each question, followed by the student's."""
    parts = [own if student is None else own.with_more(student[at]) for at, own in enumerate(votes)]
    counts = [len(each.pairs) for each in parts]
    pairs = np.concatenate([each.pairs for each in parts])
    return ComparisonColumns(
        a=pairs[:, 0],
        b=pairs[:, 1],
        preference=np.concatenate([each.preference for each in parts]),
        weight=np.concatenate([each.weight for each in parts]),
        judge=np.concatenate([each.judge for each in parts]),
        swapped=np.concatenate([each.swapped for each in parts]),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        sizes=np.full(len(votes), SIZE, dtype=np.int64),
    )


def strengths(columns: ComparisonColumns, precision: float, biases: Mapping[int, float] = NO_BIAS) -> FloatArray:
    """float64[questions, 100], without the position biases of these judges."""
    if not biases:
        fit = fit_queries(
            columns,
            prior_precision=precision,
            tolerance=1e-5,
            require_connected=False,
            standard_errors=False,
            threads=2,
        )
        return fit.theta.reshape(-1, SIZE)
    return fit_without(columns, biases, precision).reshape(-1, SIZE)


def biases_of(votes: list[Votes], precision: float) -> dict[int, float]:
    """The judges' position biases that the product takes out of the scores."""
    columns = columns_of(votes[:SAMPLED])
    return removable_biases(columns, fit_with_judges(columns, prior_precision=precision))


def mean_ndcg(questions: list[Question], theta: FloatArray) -> float:
    return float(np.mean([ndcg(own, each.grades, 10) for own, each in zip(theta, questions, strict=True)]))


def unasked() -> QueryState:
    """A query without answers, as a sampler sees it."""
    return QueryState(
        size=SIZE, pairs=np.empty((0, 2), dtype=np.int64), first_stage_rank=np.zeros(SIZE, dtype=np.int64)
    )


def states(
    votes: list[Votes], student: list[Votes] | None, theta: FloatArray, precision: float, biases: Mapping[int, float]
) -> list[QueryState]:
    """What a sampler sees: distinct pairs with the panel's votes and the student's, whose own pairs stay free."""
    found = []
    for at, own in enumerate(votes):
        both = own if student is None else own.with_more(student[at])
        low, high = both.pairs.min(axis=1), both.pairs.max(axis=1)
        read = answers_without(both.preference, both.judge, both.swapped, biases)
        turned = np.where(both.pairs[:, 0] == low, read, 1.0 - read)
        key, of_pair = np.unique(low * SIZE + high, return_inverse=True)
        weight = np.bincount(of_pair, weights=both.weight)
        asked = np.bincount(of_pair[: len(own.pairs)], minlength=len(key)) > 0
        found.append(
            QueryState(
                size=SIZE, pairs=np.stack([key // SIZE, key % SIZE], axis=1), first_stage_rank=np.zeros(SIZE, dtype=np.int64),
                theta=theta[at], preference=np.bincount(of_pair, weights=turned * both.weight) / weight, weight=weight,
                prior_precision=precision, logit_scale=SCALE, free=None if student is None else ~asked,
            )
        )  # fmt: skip
    return found


def choose(votes: list[Votes], student: list[Votes] | None, rng: np.random.Generator) -> float:
    """The prior's precision and, by cross-validation, the weight of the student's votes, which is set in them."""
    prior = choose_prior(columns_of(votes[:SAMPLED]), rng=rng, threads=2).prior_precision
    if student is None:
        return prior
    sample = columns_of(votes[:SAMPLED], student[:SAMPLED])
    is_student = sample.judge == STUDENT
    chosen = choose_student_weight(sample, is_student, model="thurstone", prior_precision=prior, rng=rng, threads=2)
    for own in student:
        own.weight[:] = chosen.weight
    return prior


def curve(
    questions: list[Question],
    panel: Panel,
    votes: list[Votes],
    sampler: Sampler,
    *,
    student: list[Votes] | None,
    seed: tuple[int, int],
    until: float = 2.0,
) -> list[tuple[int, float]]:
    """(mean panel calls a question, NDCG@10) after each round of the sampler, to MOST_CALLS or to a round that reaches `until`.

    Prior and weight are chosen again when the votes have grown by half, as the product does.
    """
    points = []
    chosen_at, precision, biases = 0.0, 0.0, dict(NO_BIAS)
    while True:
        calls = round(sum(len(own.pairs) for own in votes) / len(votes))
        if calls >= GROWTH * chosen_at:
            chosen_at, precision = calls, choose(votes, student, np.random.default_rng([*seed, calls]))
            biases = biases_of(votes, precision)
        theta = strengths(columns_of(votes, student), precision, biases)
        points.append((calls, mean_ndcg(questions, theta)))
        if calls >= MOST_CALLS or points[-1][1] >= until:
            return points
        found = states(votes, student, theta, precision, biases)
        for at, pairs in enumerate(next_round(found, sampler, (*seed, calls))):
            votes[at] = votes[at].with_more(panel.one_each(at, pairs, np.random.default_rng([*seed, calls, at, 1])))


def next_round(found: list[QueryState], sampler: Sampler, seed: tuple[int, ...]) -> list[IntArray]:
    """The next pairs of each question: all that the sampler wants, or the half that gains most where it shares rounds."""
    wanted = [sampler.sample(state, MOST_CALLS, np.random.default_rng([*seed, at])) for at, state in enumerate(found)]
    if not sampler.shares_rounds:
        return wanted
    worth = [
        max(1e-9, gain_per_pair(working_posterior(state), pairs, rng=np.random.default_rng([*seed, at, 2])))
        for at, (state, pairs) in enumerate(zip(found, wanted, strict=True))
    ]
    counts = [len(pairs) for pairs in wanted]
    given = split_budget(sum(counts) // 2, worth, counts)
    return [pairs[:count] for pairs, count in zip(wanted, given.tolist(), strict=True)]


# --- the student -------------------------------------------------------------------------


def save_base(folder: Path, layers: int) -> Path:
    """MiniLM's first layers as an embedder of their own."""
    model: Any = load_bi_encoder(load_base(MINILM), device="cpu")
    inner = model[0].model
    inner.encoder.layer = inner.encoder.layer[:layers]
    inner.config.num_hidden_layers = layers
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def examples(questions: list[Question], votes: list[Votes], chosen: list[int]) -> PairExamples:
    rows = [
        (at, a, b, wanted)
        for at in chosen
        for (a, b), wanted in zip(votes[at].pairs.tolist(), votes[at].preference.tolist(), strict=True)
    ]
    return PairExamples(
        queries=[questions[at].text for at, *_ in rows],
        a=[questions[at].documents[a] for at, a, _, _ in rows],
        b=[questions[at].documents[b] for at, _, b, _ in rows],
        instructions=[""] * len(rows),
        preferences=np.array([wanted for *_, wanted in rows]),
        weights=np.ones(len(rows)),
        query_ids=np.array([at for at, *_ in rows], dtype=np.int64),
        a_ids=np.array([a for _, a, _, _ in rows], dtype=np.int64),
        b_ids=np.array([b for _, _, b, _ in rows], dtype=np.int64),
    )


def distilled(
    questions: list[Question], votes: list[Votes], folder: Path, arguments: argparse.Namespace
) -> tuple[ApartStudent, HeldOutPairs]:
    """The student that learned from four fifths of the questions, and its figures on a tenth; another tenth chose it."""
    order = np.random.default_rng([arguments.seed, 1]).permutation(len(questions)).tolist()
    tenth = max(1, len(order) // 10)
    dev, test, train = (sorted(part) for part in (order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :]))
    base = save_base(folder / "base", arguments.layers)
    trainer = Pairwise.from_dict(
        {
            "base": str(base), "epochs": arguments.epochs, "batch_size": BATCH, "max_length": LENGTH, "patience": 0,
            "learning_rate": arguments.rate, "eval_steps": 60, "dev_pairs": 600, "seed": arguments.seed,
        }
    )  # fmt: skip
    nothing = Examples([], [], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    (folder / "work").mkdir()
    pairs = {name: examples(questions, votes, part) for name, part in (("train", train), ("dev", dev))}
    data = TrainingData(nothing, nothing, pairs["train"], pairs["dev"])
    trained = trainer.train(data, folder / "work", said)  # type: ignore[attr-defined]
    model = SentenceTransformer(str(base), device="cpu")
    model.load_adapter(str(trained.adapter))
    temperature = float(trained.facts["temperature"])
    student = ApartStudent(model, max_length=LENGTH, name="student", temperature=temperature)
    held_out = examples(questions, votes, test)
    return student, figures("test", held_out, *judged(student, held_out))


def said(kind: str, **values: Any) -> None:
    if kind == "evaluated":
        print(f"  step {values['step']:>4}: log-loss on dev pairs {values['log_loss']:.3f}", flush=True)


def student_votes(student: ApartStudent, questions: list[Question], rng: np.random.Generator) -> list[Votes]:
    """The student's preferences on the cycle pairs of the paper's design."""
    design = [random_cycles(SIZE, PAPER_DEGREE, rng) for _ in questions]
    asked = [
        Votes.without_sides(pairs, np.full(len(pairs), 0.5), np.ones(len(pairs)), judge=STUDENT) for pairs in design
    ]
    logits = symmetric(*judged(student, examples(questions, asked, list(range(len(questions))))))
    said_of_all = np.split(expit(logits), np.cumsum([len(own.pairs) for own in asked])[:-1])
    return [replace(own, preference=said_of) for own, said_of in zip(asked, said_of_all, strict=True)]


# --- the comparison ----------------------------------------------------------------------


def paper_ndcg(questions: list[Question], panel: Panel, rng: np.random.Generator) -> float:
    """NDCG@10 of the paper's design, with new votes."""
    votes = [panel.all_three(at, random_cycles(SIZE, PAPER_DEGREE, rng), rng) for at in range(len(questions))]
    prior = choose_prior(columns_of(votes[:SAMPLED]), rng=rng, threads=2).prior_precision
    return mean_ndcg(questions, strengths(columns_of(votes), prior))


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(arguments.seed)
    questions = make_questions(arguments.queries, rng)
    panel, count = Panel(questions), arguments.queries
    target = float(np.mean([paper_ndcg(questions, panel, rng) for _ in range(arguments.replications)]))
    clock("paper's design")

    first = Cycles(Cycles.Options(spread=True))
    votes = [panel.one_each(at, first.sample(unasked(), arguments.panel_pairs, rng), rng) for at in range(count)]
    student, held_out = distilled(questions, votes, folder, arguments)
    clock("student's training")
    answers = student_votes(student, questions, rng)
    prior = choose(votes, answers, rng)
    first_weight = float(answers[0].weight[0])
    alone = mean_ndcg(questions, strengths(columns_of(answers), prior))
    clock("student's answers and their weight")
    rounds = {"round_pairs": 20} if arguments.quick else {}
    until = target if arguments.quick else 2.0
    of_guided, of_plain, last_weights = [], [], []
    for number in range(arguments.replications):
        seed = (arguments.seed, number)
        own = copy.deepcopy(answers)  # their weight is chosen again
        of_guided.append(
            curve(
                questions, panel, list(votes), Guided(Guided.Options(pairs_per_candidate=12.0, **rounds)),
                student=own, seed=seed, until=until,
            )
        )  # fmt: skip
        last_weights.append(float(own[0].weight[0]))
        clock("guided rounds")
        start = [panel.one_each(at, random_cycles(SIZE, 2, rng), rng) for at in range(count)]
        of_plain.append(
            curve(
                questions, panel, start, Adaptive(Adaptive.Options(pairs_per_candidate=12.0)),
                student=None, seed=seed, until=until,
            )
        )  # fmt: skip
        clock("adaptive rounds")
    guided, plain = mean_curve(of_guided), mean_curve(of_plain)
    print(
        f"\n{count} questions; the paper's {PAPER_CALLS} calls reach NDCG@10 {target:.4f}; the student alone {alone:.4f}\n"
    )
    rows = [["guided by the student", *_cells(guided)], ["adaptive x rotate", *_cells(plain)]]
    print(table(["NDCG@10 at about so many panel calls", *map(str, COLUMNS)], rows))
    return {
        "panel_calls_ratio": round(calls_ratio(guided, target, PAPER_CALLS), 4),
        "ratio_of_each": [round(calls_ratio(each, target, PAPER_CALLS), 4) for each in of_guided],
        "without_student_ratio": round(calls_ratio(plain, target, PAPER_CALLS), 4),
        "log_loss": round(held_out.log_loss, 4),
        "panel_entropy": round(held_out.panel_entropy, 4),
        "accuracy_clear": None if held_out.accuracy is None else round(held_out.accuracy, 4),
        "ndcg_paper": round(target, 4),
        "ndcg_student_alone": round(alone, 4),
        "student_weight": first_weight,
        "last_student_weight": float(np.mean(last_weights)),
        "queries": count,
        "panel_pairs": arguments.panel_pairs,
        "layers": arguments.layers,
    }


def _cells(points: list[tuple[int, float]]) -> list[str]:
    """The NDCG@10 of the round nearest to each number of calls; empty where none is within 15 calls."""
    found = dict(points)
    near = [min(found, key=lambda calls: abs(calls - column)) for column in COLUMNS]
    return [f"{found[at]:.4f}" if abs(at - column) <= 15 else "" for at, column in zip(near, COLUMNS, strict=True)]


def clock(what: str) -> None:
    print(f"{time.monotonic() - began:6.1f} s: {what}", flush=True)


def main(began: float) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two layers, one pass; minutes")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--panel-pairs", type=int, default=30, help="pairs a question that the student learns from")
    parser.add_argument("--layers", type=int, default=0, help="layers of MiniLM in the base (quick 2, otherwise 6)")
    parser.add_argument("--epochs", type=int, default=0, help="passes over the pairs (quick 1, otherwise 3)")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument(
        "--replications", type=int, default=0, help="of the votes after the student's (quick 1, otherwise 4)"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.layers = arguments.layers or (2 if arguments.quick else 6)
    arguments.replications = arguments.replications or (1 if arguments.quick else 4)
    arguments.epochs = arguments.epochs or (1 if arguments.quick else 3)
    torch.manual_seed(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="zelo-distillation-") as folder:
        found = run(Path(folder), arguments)
    print(json.dumps({"benchmark": "distillation", **found, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main(began)
