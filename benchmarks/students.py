"""Claim: students from the default choice never fall behind their untrained base, and the best ones clearly beat it.

The world of `training.py`: three fake judges compare documents, our rating makes Elo of it, and each trainer learns from 40, 80
and 300 queries. The test has other documents and other wordings and is measured against the hidden grades. A student that its
held-out queries reject counts as its base, as nothing is published then. `--quick` (at most 240 s) learns from fewer and shorter
documents a query, trains as many of the rows as its time allows, the default choice first, and names the others; without it all
are trained. With ZELO_DATA the labels of
language models on TREC DL 2019 are replayed as a panel, in five folds over the queries.

Keys: `embedding_gain_over_zero_shot` and `best_gain_over_zero_shot` in NDCG@10 with 95 % intervals of the paired difference, at the
largest number of queries that was trained; `default_loss_few_queries`, the lowest gain of the default choice at 20 and 40 queries;
`real_default_gain`, `real_best_gain` on the real answers, where they were measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    began = time.monotonic()
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from peft import PeftModel

from benchmarks.simulation import table
from benchmarks.training import DEV_SHARE, judged, learned_from, test_queries
from benchmarks.training_world import TEST_TEMPLATES, Question, World, make_world
from labeling.plugins import Trainer
from labeling.records import Examples, FloatArray, Trained, TrainingData
from scoring.numerics.measures.resampling import bootstrap_interval
from trainer.bases import MINILM, cross_encoder, load_base
from trainer.evaluation.metrics import EvaluationQuery, measure
from trainer.evaluation.rankers import Cosine
from trainer.recommendation import recommended_trainer
from trainer.serving.embedding import LoadedEmbedder
from trainer.training.embedding.bi_encoder import load_bi_encoder
from trainer.training.embedding.plugin import Embedding
from trainer.training.fine_tuning import threads_to_use
from trainer.training.pointwise import Pointwise
from trainer.training.query_losses import Listwise, MarginMSE, RankNet

TRAINERS: dict[str, type[Trainer]] = {each.name: each for each in (Embedding, Pointwise, RankNet, MarginMSE, Listwise)}
RERANKERS = ("pointwise", "ranknet", "margin-mse", "listwise")
LENGTH = 64
STEP_TEXTS = 96  # a step of four queries with their candidates in one piece: texts are short here
QUICK_S = 225.0
QUICK_CHARACTERS = 200  # of each test document in --quick
QUICK_LEARNED = 120  # of each training document
QUICK_CANDIDATES = 12  # of each training question
LARGE = 300  # so many queries can spare a dev split that is large enough to choose on, instead of cross-validation
LARGE_DEV_SHARE = 0.15
REAL_LABELS = ("gpt4o_umbrela", "llama3_70b_4prompts", "flant5large_4prompts")
FOLDS = 5
# One step at a rate that changes nothing: only the weight of token similarity is learned.
TOKENS_ALONE = {"max_steps": 1, "learning_rate": 1e-12, "folds": 2, "queries_a_step": 1}


def options_of(trainer: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of a trainer: its defaults, short texts and few steps for the cross-encoders."""
    common = {"base": MINILM, "max_length": LENGTH, "precision": "bf16", "seed": arguments.seed}
    if trainer == "embedding":
        return {**common, "batch_size": STEP_TEXTS}
    return {
        **common,
        "batch_size": 16,
        "epochs": 20,
        "max_steps": 60 if arguments.quick else 600,
        "eval_steps": 60 if arguments.quick else 100,
    }


def train(name: str, data: TrainingData, folder: Path, arguments: argparse.Namespace, **changes: Any) -> Trained:
    folder.mkdir()
    trainer = TRAINERS[name].from_dict(options_of(name, arguments) | changes)
    return trainer.train(data, folder, lambda kind, **values: None)


def scores_of(trained: Trained, queries: Sequence[EvaluationQuery]) -> list[FloatArray]:
    """The student's scores of the candidates of each query."""
    if trained.form == "bi-encoder":
        model: Any = load_bi_encoder(load_base(trained.base), device="cpu")
        model[0].model = PeftModel.from_pretrained(model[0].model, str(trained.adapter)).merge_and_unload()
        student = LoadedEmbedder(model, name="student", token_weight=trained.token_weight)
        return [np.asarray(student.scores(query.text, query.documents), dtype=np.float64) for query in queries]
    ranker = cross_encoder(load_base(trained.base), max_length=trained.max_length, device="cpu")
    ranker.model.load_adapter(str(trained.adapter))
    pairs = [(query.text, text) for query in queries for text in query.documents]
    logits = ranker.predict(pairs, show_progress_bar=False)
    bounds = np.cumsum([len(query.documents) for query in queries])[:-1]
    return list(np.split(np.asarray(logits, dtype=np.float64), bounds))


def zero_shot(queries: Sequence[EvaluationQuery]) -> FloatArray:
    return values_of(queries, Cosine(threads=threads_to_use()).scores(queries, lambda done, total: None))


def values_of(queries: Sequence[EvaluationQuery], scores: Sequence[FloatArray]) -> FloatArray:
    """NDCG@10 of each query against grades."""
    return np.asarray(measure(queries, scores, "grades").values["ndcg@10"])


def quick_world(world: World) -> World:
    """The same questions with the beginnings of the documents: fewer to learn from, and one wording of each test question."""

    def cut(question: Question, characters: int, candidates: int) -> Question:
        documents = tuple(text[:characters] for text in question.documents[:candidates])
        return replace(question, documents=documents, grades=question.grades[:candidates])

    training = [cut(each, QUICK_LEARNED, QUICK_CANDIDATES) for each in world.training]
    return World(
        training, [cut(each, QUICK_CHARACTERS, len(each.documents)) for each in world.test[:: len(TEST_TEMPLATES)]]
    )


def world_part(folder: Path, arguments: argparse.Namespace, until: float) -> dict[str, Any]:
    """Every trainer at every number of queries, while time lasts."""
    world = quick_world(make_world()) if arguments.quick else make_world()
    order = np.random.default_rng(arguments.seed).permutation(len(world.training))
    queries = test_queries(world.test)
    base = zero_shot(queries)
    print(f"zero-shot cosine on {len(queries)} unseen test questions: NDCG@10 {base.mean():.3f}", flush=True)
    default = recommended_trainer(load_base(MINILM), 40).trainer
    plan = [(default, 80), (default, 40), (default, 20)]
    plan += [(default, LARGE), *((name, count) for count in (80, 40, LARGE) for name in RERANKERS)]
    plan = [(name, count) for name, count in plan if name in arguments.trainers]
    gains: dict[tuple[str, int], FloatArray] = {}
    a_query, rows, skipped = 0.0, [], []
    for name, count in plan:
        # Seconds of this row, if it is as slow for each query as the slowest so far; cross-encoders have a fixed number of steps.
        expected = a_query * (min(count, LARGE // 3) if name == default else 80)
        if arguments.quick and gains and time.monotonic() + expected > until:
            skipped.append(f"{name} at {count}")
            continue
        since = time.monotonic()
        chosen = [world.training[at] for at in order[:count].tolist()]
        columns = judged(chosen, over_http=False, seed=arguments.seed)
        share = LARGE_DEV_SHARE if count == LARGE else DEV_SHARE
        data = learned_from(chosen, columns, seed=arguments.seed, dev_share=share)
        trained = train(name, data, folder / f"{name}-{count}", arguments)
        own = base if trained.base_won else values_of(queries, scores_of(trained, queries))
        gains[name, count] = own - base
        seconds = time.monotonic() - since
        a_query = max(a_query, seconds / count) if name == default else a_query
        interval = bootstrap_interval(gains[name, count], rng=np.random.default_rng(0), resamples=2000)
        facts = trained.facts
        note = "base kept" if trained.base_won else f"scale {facts.get('adapter_scale', 1.0)}, w {trained.token_weight}"
        rows.append(
            [
                name,
                str(count),
                f"{own.mean():.3f}",
                f"{interval.estimate:+.3f}",
                f"{interval.low:+.3f} … {interval.high:+.3f}",
                note,
                f"{seconds:.0f}",
            ]
        )
        print("  ".join(rows[-1]), flush=True)
    print("\n" + table(["trainer", "queries", "NDCG@10", "gain", "95 % interval", "choice", "s"], rows))
    if skipped:
        print(f"not trained in the time of --quick: {', '.join(skipped)}")
    few = [float(gains[default, count].mean()) for count in (20, 40) if (default, count) in gains]
    embedding = max((count for name, count in gains if name == "embedding"), default=0)
    best = max(gains, key=lambda key: float(gains[key].mean()))
    found: dict[str, Any] = {}
    if embedding:
        found |= keyed("embedding_gain_over_zero_shot", gains["embedding", embedding])
        found["embedding_queries"] = embedding
    if few:
        found["default_loss_few_queries"] = round(min(few), 4)
    return found | {
        **keyed("best_gain_over_zero_shot", gains[best]),
        "best": f"{best[0]} at {best[1]}",
        "default": default,
        "zero_shot": round(float(base.mean()), 4),
        "skipped": skipped,
    }


def keyed(key: str, gain: FloatArray) -> dict[str, Any]:
    interval = bootstrap_interval(gain, rng=np.random.default_rng(0), resamples=2000)
    return {key: round(interval.estimate, 4), f"{key}_interval": [round(interval.low, 4), round(interval.high, 4)]}


# --- real answers ------------------------------------------------------------------------


def real_queries(data: Path) -> tuple[list[EvaluationQuery], list[FloatArray]]:
    """The queries of TREC DL 2019 with human grades, and the panel's Elo of their candidates from the models' labels."""
    labels: dict[tuple[str, str], list[float]] = {}
    with (data / "llm_pointwise_labels.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            found = [float(row[name]) for name in REAL_LABELS if row[name]]
            if len(found) == len(REAL_LABELS):
                labels[row["qid"], row["docid"]] = found
    grades: dict[str, dict[str, float]] = defaultdict(dict)
    for line in (data / "qrels.txt").read_text().splitlines():
        query, _, document, grade = line.split()
        grades[query][document] = float(grade)
    queries, elos = [], []
    with (data / "candidates_judged100.jsonl").open() as file:
        for number, row in enumerate(map(json.loads, file)):
            asked = str(row["query"]["id"])
            kept = [each for each in row["documents"] if (asked, str(each["id"])) in labels]
            if len(kept) < 10:
                continue
            ids = [str(each["id"]) for each in kept]
            votes = np.array([labels[asked, each] for each in ids])
            # Each judge prefers the document of its higher label; a document's mean preference over all others is a logit.
            wins = np.mean([np.sign(own[:, None] - own[None, :]) / 2 + 0.5 for own in votes.T], axis=0)
            share = (wins.sum(axis=1) - 0.5 + 1.0) / (len(ids) + 1.0)
            elos.append(1500.0 + 400.0 / np.log(10.0) * np.log(share / (1.0 - share)))
            nothing = np.full(len(ids), np.nan)
            queries.append(
                EvaluationQuery(
                    id=asked, text=row["query"]["query"], domain="", candidate_ids=1000 * number + np.arange(len(ids)),
                    document_ids=tuple(ids), documents=tuple(each["content"] for each in kept),
                    grades=np.array([grades[asked].get(each, 0.0) for each in ids]), relevance=nothing, elo=nothing,
                    first_stage_rank=nothing,
                )
            )  # fmt: skip
    return queries, elos


def real_part(data: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Five folds: learn from the panel's Elo of four parts, measure on the fifth against human grades."""
    queries, elos = real_queries(data)
    base = zero_shot(queries)
    order = np.random.default_rng(arguments.seed).permutation(len(queries))
    default = recommended_trainer(load_base(MINILM), len(queries)).trainer
    gains: dict[str, FloatArray] = {}
    rows = []
    entries = [(default, default, {}), ("tokens alone", "embedding", TOKENS_ALONE)]
    entries += [(name, name, {}) for name in TRAINERS if name != default]
    entries = [each for each in entries if each[1] in arguments.trainers]
    for name, trainer, changes in entries:
        own = base.copy()
        for number, held_out in enumerate(np.array_split(order, FOLDS)):
            out = set(held_out.tolist())
            learned = [at for at in range(len(queries)) if at not in out]
            data = examples(queries, elos, learned)
            trained = train(trainer, data, folder / f"real-{name}-{number}", arguments, **changes)
            if not trained.base_won:
                tested = [queries[at] for at in held_out.tolist()]
                own[held_out] = values_of(tested, scores_of(trained, tested))
        gains[name] = own - base
        interval = bootstrap_interval(gains[name], rng=np.random.default_rng(0), resamples=2000)
        figures = [f"{own.mean():.3f}", f"{interval.estimate:+.3f}", f"{interval.low:+.3f} … {interval.high:+.3f}"]
        rows.append([name, *figures])
        print(f"real answers, {'  '.join(rows[-1])}", flush=True)
    print("\n" + table([f"trainer ({len(queries)} queries)", "NDCG@10", "gain", "95 % interval"], rows))
    best = max(gains, key=lambda key: float(gains[key].mean()))
    found = keyed("real_default_gain", gains[default]) if default in gains else {}
    return {**found, **keyed("real_best_gain", gains[best]), "real_best": best}


def examples(queries: Sequence[EvaluationQuery], elos: Sequence[FloatArray], chosen: Sequence[int]) -> TrainingData:
    """Training rows without a dev split: cross-validation chooses."""
    rows = [(at, place) for at in chosen for place in range(len(queries[at].documents))]
    elo = np.array([elos[at][place] for at, place in rows])
    train = Examples(
        queries=[queries[at].text for at, _ in rows],
        documents=[queries[at].documents[place] for at, place in rows],
        labels=1.0 / (1.0 + 10.0 ** ((1500.0 - elo) / 400.0)),
        weights=np.ones(len(rows)),
        query_ids=np.array([at for at, _ in rows], dtype=np.int64),
        elo=elo,
    )
    return TrainingData(train, Examples([], [], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)))


def main(began: float) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="as many rows as fit into 240 s, without the real answers")
    parser.add_argument("--seconds", type=float, default=QUICK_S, help="time of --quick on a slower machine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trainers", nargs="+", choices=list(TRAINERS), default=list(TRAINERS), help="these alone")
    parser.add_argument("--part", choices=["world", "real"], help="this part alone")
    arguments = parser.parse_args()
    data = Path(os.environ.get("ZELO_DATA", "")) / "trec_dl19"
    with tempfile.TemporaryDirectory(prefix="zelo-students-") as name:
        found = {}
        if arguments.part != "real":
            found |= world_part(Path(name), arguments, began + arguments.seconds)
        if arguments.part != "world" and os.environ.get("ZELO_DATA") and data.is_dir() and not arguments.quick:
            found |= real_part(data, Path(name), arguments)
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"benchmark": "students", **found, "seconds": seconds}))


if __name__ == "__main__":
    main(began)
