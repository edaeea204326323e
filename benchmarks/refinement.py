"""Claim: mined pairs improve a student's labels more than as many pairs drawn at random.

The world of `distillation.py`: questions with 100 documents each, three simulated judges that share their errors' sizes with
`training.py`. One judge in turn answers the pairs of `--cycles` random cycles; Thurstone strengths are fitted, and an embedding
student (MiniLM's first two layers) learns from them. Then the same number of further answers is spent four ways: on pairs mined
with the student's order (`scoring.numerics.design.refining`, as a refinement does), on pairs chosen in the same way without the
student, on the pairs of the rule "a document of high Elo that the student ranks low, and the one just above it", and at random.
The strengths are refitted with the same prior. For the mined and the random pairs a training continues from the student's adapter.

NDCG@10 is measured against the grades: of the labels on the training questions, which all ways share, and of the students on
other questions in other wordings. Differences are paired by question, with 95 % bootstrap intervals.

Keys: `gain_over_random`: NDCG@10 of the labels after mined pairs minus that after random ones, with `gain_interval`;
`gain_over_adaptive`: the same against pairs chosen without the student; `student_gain_over_random` with `student_gain_interval`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
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
from sentence_transformers import SentenceTransformer

from benchmarks.distillation import SIZE, Panel, columns_of, make_questions, save_base, states, strengths
from benchmarks.simulation import table
from benchmarks.training_world import Question
from labeling.records import Examples, FloatArray, IntArray, QueryState, TrainingData
from scoring.numerics.design.refining import best_of, mine
from scoring.numerics.design.static import all_pairs, random_cycles, without
from scoring.numerics.fitting.prior import choose_prior
from scoring.numerics.measures.rankings import ndcg
from trainer.training.embedding.options import EmbeddingOptions
from trainer.training.embedding.training import train_embedder
from trainer.training.options import START

DEV_SHARE, LENGTH, ELO = 5, 32, 400.0 / np.log(10.0) * 2.41
LEARNED = 15
Pairs = list[IntArray]


def ndcgs(questions: list[Question], scores: FloatArray) -> FloatArray:
    """NDCG@10 of each question."""
    return np.array([ndcg(own, each.grades, 10) for own, each in zip(scores, questions, strict=True)])


# --- the ways to spend the calls ---------------------------------------------------------


def mined_pairs(known: list[QueryState], student: FloatArray, budget: int, seed: int) -> Pairs:
    found = [mine(state, own, budget // len(known) * 4, np.random.default_rng([seed, at]))
             for at, (state, own) in enumerate(zip(known, student, strict=True))]  # fmt: skip
    chosen = best_of(found, budget)
    return [
        np.array([found[at].pairs[row] for query, row in chosen if query == at], dtype=np.int64).reshape(-1, 2)
        for at in range(len(known))
    ]


def ruled_pairs(known: list[QueryState], student: FloatArray, budget: int) -> Pairs:
    """Of each question the top documents by Elo that stand lowest in the student's order, with the document just above."""
    found = []
    for state, own in zip(known, student, strict=True):
        assert state.theta is not None
        order = np.argsort(-own, kind="stable")
        place = np.argsort(order, kind="stable")
        asked = {tuple(pair) for pair in state.pairs.tolist()}
        pairs: list[tuple[int, int]] = []
        for document in sorted(np.argsort(-state.theta)[:20].tolist(), key=lambda each: -place[each]):
            if place[document]:
                above = int(order[place[document] - 1])
                pair = (min(document, above), max(document, above))
                pairs += [pair] if pair not in asked and pair not in pairs else []
        found.append(np.array(pairs[: budget // len(known)], dtype=np.int64).reshape(-1, 2))
    return found


def random_pairs(known: list[QueryState], budget: int, rng: np.random.Generator) -> Pairs:
    each = budget // len(known)
    return [rng.permutation(without(SIZE, all_pairs(SIZE), state.pairs))[:each] for state in known]


# --- students ----------------------------------------------------------------------------


def examples(questions: list[Question], theta: FloatArray) -> Examples:
    """Of each question LEARNED documents: the best half by its labels, and others at equal steps down its order."""
    places = np.concatenate([np.arange(LEARNED // 2), np.linspace(LEARNED // 2, SIZE - 1, LEARNED - LEARNED // 2)])
    chosen = np.argsort(-theta, axis=1)[:, places.astype(np.int64)].tolist()
    rows = [(at, place) for at, own in enumerate(chosen) for place in own]
    theta = np.array([theta[row] for row in rows])
    labels = 1.0 / (1.0 + np.exp(-2.41 * theta))
    return Examples(
        queries=[questions[at].text for at, _ in rows],
        documents=[questions[at].documents[place] for at, place in rows],
        labels=labels,
        weights=np.ones(len(rows)),
        query_ids=np.array([at for at, _ in rows], dtype=np.int64),
        elo=1500.0 + ELO * theta,
    )


def learned(
    folder: Path,
    base: Path,
    questions: list[Question],
    theta: FloatArray,
    *,
    start: Path | None,
    epochs: int,
    seed: int,
) -> Path:
    """The adapter of a student of these labels; a fifth of the questions are its dev split."""
    folder.mkdir()
    cut = max(5, len(questions) // DEV_SHARE)
    chosen: dict[str, Any] = {
        "base": str(base),
        "epochs": epochs,
        "learning_rate": 2e-3,
        "max_length": LENGTH,
        "dev_length": LENGTH,
        "folds": 0,
        "pull": 0.0,
        "eval_steps": 10**6,  # one look, after the last step
        "seed": seed,
    }
    if start is not None:
        shutil.copytree(start, folder / START)
        chosen |= {"start": "0" * 64, "learning_rate": 1e-3}
    data = TrainingData(examples(questions[cut:], theta[cut:]), examples(questions[:cut], theta[:cut]))
    return train_embedder(EmbeddingOptions.model_validate(chosen), data, folder, lambda kind, **values: None).adapter


def scores_of(base: Path, adapter: Path, questions: list[Question]) -> FloatArray:
    """Cosines float64[questions, 100]."""
    model = SentenceTransformer(str(base), device="cpu")
    model.load_adapter(str(adapter))
    model.max_seq_length = LENGTH
    texts = list(dict.fromkeys(text for each in questions for text in each.documents))
    place = {text: at for at, text in enumerate(texts)}
    encode: Callable[..., Any] = model.encode
    vectors = encode(texts, normalize_embeddings=True, batch_size=128)
    asked = encode([each.text for each in questions], normalize_embeddings=True)
    return np.array([vectors[[place[text] for text in each.documents]] @ own for each, own in zip(questions, asked, strict=True)], dtype=np.float64)  # fmt: skip


# --- the comparison ----------------------------------------------------------------------


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(arguments.seed)
    questions = make_questions(2 * arguments.queries, rng)
    epochs = 2 if arguments.quick else 4
    training, test = questions[: arguments.queries], questions[arguments.queries :]
    panel = Panel(training)
    votes = [panel.one_each(at, random_cycles(SIZE, 2 * arguments.cycles, rng), rng) for at in range(len(training))]
    prior = choose_prior(columns_of(votes), rng=rng, threads=2).prior_precision
    theta = strengths(columns_of(votes), prior)
    known = states(votes, None, theta, prior)
    base = save_base(folder / "base", 2)
    first = learned(folder / "first", base, training, theta, start=None, epochs=epochs, seed=arguments.seed)
    student = scores_of(base, first, training)
    clock("first student")
    budget = arguments.pairs * len(training)
    nothing = np.full_like(student, np.nan)
    ways: dict[str, Pairs] = {
        "mined": mined_pairs(known, student, budget, arguments.seed),
        "without the student": mined_pairs(known, nothing, budget, arguments.seed),
        "rule": ruled_pairs(known, student, budget),
        "random": random_pairs(known, budget, rng),
    }
    refitted: dict[str, FloatArray] = {}
    for number, (name, pairs) in enumerate(ways.items()):
        answers = np.random.default_rng([arguments.seed, number])
        more = [own.with_more(panel.one_each(at, pairs[at], answers)) for at, own in enumerate(votes)]
        refitted[name] = strengths(columns_of(more), prior)
    labels = {name: ndcgs(training, own) for name, own in refitted.items()}
    clock("labels")
    students = {}
    for name in ("mined", "random"):
        adapter = learned(
            folder / name, base, training, refitted[name], start=first, epochs=epochs, seed=arguments.seed
        )
        students[name] = ndcgs(test, scores_of(base, adapter, test))
    before = ndcgs(test, scores_of(base, first, test))
    clock("students")
    rows = [["no further calls", "0", f"{ndcgs(training, theta).mean():.4f}", "", f"{before.mean():.4f}"]]
    for name, own in labels.items():
        low, high = interval(own - labels["random"], arguments.seed) if name != "random" else (0.0, 0.0)
        gain = f"{(own - labels['random']).mean():+.4f} ({low:+.4f} to {high:+.4f})" if name != "random" else ""
        told = f"{students[name].mean():.4f}" if name in students else ""
        rows.append([name, str(sum(map(len, ways[name]))), f"{own.mean():.4f}", gain, told])
    print("\n" + table(["calls spent on", "calls", "labels' NDCG@10", "against random", "student's NDCG@10"], rows))
    gain, of_student = labels["mined"] - labels["random"], students["mined"] - students["random"]
    return {
        "gain_over_random": round(float(gain.mean()), 4),
        "gain_interval": [round(each, 4) for each in interval(gain, arguments.seed)],
        "gain_over_adaptive": round(float((labels["mined"] - labels["without the student"]).mean()), 4),
        "student_gain_over_random": round(float(of_student.mean()), 4),
        "student_gain_interval": [round(each, 4) for each in interval(of_student, arguments.seed)],
        "queries": len(training),
        "calls": budget,
    }


def interval(values: FloatArray, seed: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean."""
    rows = np.random.default_rng(seed).integers(0, len(values), (4000, len(values)))
    low, high = np.quantile(values[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def clock(what: str) -> None:
    print(f"{time.monotonic() - began:6.1f} s: {what}", flush=True)


def main(began: float) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="25 questions, half of the passes; seconds")
    parser.add_argument("--queries", type=int, default=0, help="training questions (quick 25, otherwise 200)")
    parser.add_argument("--cycles", type=int, default=2, help="random cycles a question before the refinement")
    parser.add_argument("--pairs", type=int, default=20, help="further answers a training question")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.queries = arguments.queries or (25 if arguments.quick else 200)
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory(prefix="zelo-refinement-") as folder:
        found = run(Path(folder), arguments)
    print(json.dumps({"benchmark": "refinement", **found, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main(began)
