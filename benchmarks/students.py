"""Claim: students from the default choice never fall behind their untrained base, and the best ones clearly beat it.

The world of `training.py`: three fake judges compare documents, our rating makes Elo of it, and each trainer learns from 40, 80
and 300 queries. The test has other documents and other wordings and is measured against the hidden grades. A student that its
held-out queries reject counts as its base, as nothing is published then. `--quick` (at most 240 s) learns from fewer and shorter
documents a query, first from 20 queries, then from as many as its time allows, up to 300, and names the rows that it leaves out;
without it all are trained, the rerankers with 300 steps. With ZELO_DATA the labels of language models on TREC DL 2019 are replayed as a panel, in five folds over the queries.

A full run takes hours. `--keep FOLDER` stores what a row or fold gave, and the checkpoints of the one that was interrupted: the same
command goes on where it stopped; a change of the code needs a new folder. `--rows` measures rows by name (`embedding at 300`,
`tokens alone`), `--folds` some folds of the real answers; a real row counts once all of its folds are there. The row `embedding, with
tokens and list` is the same training as `embedding`, scored with the token and list similarity that its queries chose; two rows have
that without a training.

Keys: `embedding_gain_over_zero_shot` and `best_gain_over_zero_shot` in NDCG@10 with 95 % intervals of the paired difference, at the
largest number of queries that was trained; `default_loss_few_queries`, the lowest gain of the default choice at 20 and 40 queries;
`real_default_gain`, `real_best_gain` on the real answers, where they were measured.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from trainer.training.embedding.bi_encoder import BiEncoder, load_bi_encoder
from trainer.training.embedding.options import EmbeddingOptions
from trainer.training.embedding.plugin import Embedding
from trainer.training.embedding.token_weight import Signals, chosen_weights, signals_of
from trainer.training.fine_tuning import threads_to_use
from trainer.training.pointwise import Pointwise
from trainer.training.query_losses import Listwise, MarginMSE, RankNet

WITH_SIGNALS = "embedding, with tokens and list"  # the same training, scored with the weights that it chose
TRAINERS: dict[str, type[Trainer]] = {each.name: each for each in (Embedding, Pointwise, RankNet, MarginMSE, Listwise)}
RERANKERS = ("pointwise", "ranknet", "margin-mse", "listwise")
LENGTH = 64
STEP_TEXTS = 96  # a step of four queries with their candidates in one piece: texts are short here
QUICK_S = 225.0
QUICK_CHARACTERS = 200  # of each test document in --quick
QUICK_LEARNED = 120  # of each training document
QUICK_CANDIDATES = 10  # of each training question
LARGE = 300  # so many queries can spare a dev split that is large enough to choose on, instead of cross-validation
QUICK_LARGE = (LARGE, 275, 250, 225, 200, 175, 150, 125, 100)
LARGE_DEV_QUERIES = 45
FOLDS_COST = 3.0  # seconds of a query with cross-validation, over those of one in a large set
REAL_LABELS = ("gpt4o_umbrela", "llama3_70b_4prompts", "flant5large_4prompts")
FOLDS = 5
# The untrained base with weights of other signals beside its cosine: nothing else is learned.
SIGNALS = {
    "tokens alone": {"tokens": True, "context": False},
    "tokens and list alone": {"tokens": True, "context": True},
}


def options_of(trainer: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of a trainer: its defaults, short texts and few steps for the cross-encoders."""
    common = {"base": MINILM, "max_length": LENGTH, "seed": arguments.seed}
    if trainer == "embedding":
        return {**common, "batch_size": STEP_TEXTS, "token_similarity": True, "list_similarity": True}
    return {
        **common,
        "batch_size": 16,
        "epochs": 20,
        "max_steps": 60 if arguments.quick else 300,
        "eval_steps": 60 if arguments.quick else 100,
    }


def train(name: str, data: TrainingData, folder: Path, options: dict[str, Any]) -> Trained:
    """Train in the folder, from the last checkpoint there if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    return TRAINERS[name].from_dict(options).train(data, folder, lambda kind, **values: None)


@dataclass(frozen=True, slots=True)
class Measured:
    """NDCG@10 of a student by test query (its base's where the base won), what its training chose, and the seconds of both.

    `values` are those of the cosine of an embedding student, `signals` with the token and list similarity that it chose.
    """

    values: FloatArray
    signals: FloatArray
    choice: str
    seconds: float


def measured(
    row: str, trainer: str, data: TrainingData, queries: Sequence[EvaluationQuery], base: FloatArray, *,
    folder: Path, options: dict[str, Any],
) -> Measured:  # fmt: skip
    """Train and test a row, or read what an earlier run with the same options kept in the folder."""
    name = f"{row}-{hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]}".replace(" ", "-")
    kept = folder / f"{name}.json"
    if kept.exists():
        found = json.loads(kept.read_text())
        return Measured(np.array(found["values"]), np.array(found["signals"]), found["choice"], found["seconds"])
    since = time.monotonic()
    trained = train(trainer, data, folder / name, options)
    values = signals = base
    plain = replace(trained, token_weight=0.0, list_weight=0.0)
    scale = trained.facts.get("adapter_scale", 0.0 if trained.base_won else 1.0)
    if scale:
        values = signals = values_of(queries, scores_of(plain, queries))
    if trained.token_weight or trained.list_weight:
        signals = values_of(queries, scores_of(trained, queries))
    choice = str(trained.facts["precision"])
    if trained.form == "bi-encoder":
        choice = f"scale {scale}, tokens {trained.token_weight}, list {trained.list_weight}, {choice}"
    found = Measured(values, signals, choice, round(time.monotonic() - since, 1))
    draft = kept.with_suffix(".draft")
    draft.write_text(
        json.dumps({"values": values.tolist(), "signals": signals.tolist(), "choice": choice, "seconds": found.seconds})
    )
    draft.replace(kept)
    shutil.rmtree(folder / name)
    return found


def scores_of(trained: Trained, queries: Sequence[EvaluationQuery]) -> list[FloatArray]:
    """The student's scores of the candidates of each query."""
    if trained.form == "bi-encoder":
        model: Any = load_bi_encoder(load_base(trained.base), device="cpu")
        model[0].model = PeftModel.from_pretrained(model[0].model, str(trained.adapter)).merge_and_unload()
        student = LoadedEmbedder(
            model, name="student", token_weight=trained.token_weight, list_weight=trained.list_weight
        )
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
    few = [20, 40, 80] if arguments.quick else [80, 40, 20]
    plan = [(default, few[0]), (default, LARGE), *((default, count) for count in few[1:])]
    plan += [(name, count) for count in (80, 40, LARGE) for name in RERANKERS]
    plan = [
        (name, count) for name, count in plan if name in arguments.trainers and wanted(f"{name} at {count}", arguments)
    ]
    gains: dict[tuple[str, int], FloatArray] = {}
    a_query, rows, skipped = 0.0, [], []
    for name, count in plan:
        large = count == LARGE
        if arguments.quick and large and name == default:
            left = until - time.monotonic()
            count = next((each for each in QUICK_LARGE if a_query / FOLDS_COST * each <= left), QUICK_LARGE[-1])
        # Seconds of this row, if it is as slow for each query as the slowest so far; cross-encoders have a fixed number of steps.
        elif arguments.quick and gains and time.monotonic() + a_query * (count if name == default else 80) > until:
            skipped.append(f"{name} at {count}")
            continue
        chosen = [world.training[at] for at in order[:count].tolist()]
        columns = judged(chosen, over_http=False, seed=arguments.seed)
        share = LARGE_DEV_QUERIES / count if large else DEV_SHARE
        data = learned_from(chosen, columns, seed=arguments.seed, dev_share=share)
        row = f"world-{name}-{count}" if not arguments.quick else f"quick-{name}-{count}"
        student = measured(row, name, data, queries, base, folder=folder, options=options_of(name, arguments))
        a_query = max(a_query, student.seconds / count) if name == default and not large else a_query
        measurements = {name: student.values}
        if name == "embedding":
            measurements[WITH_SIGNALS] = student.signals
        for label, own in measurements.items():
            gains[label, count] = own - base
            figures = figures_of(own, base)
            rows.append([label, str(count), *figures, student.choice, f"{student.seconds:.0f}"])
            print("  ".join(rows[-1]), flush=True)
    print("\n" + table(["trainer", "queries", "NDCG@10", "gain", "95 % interval", "choice", "s"], rows))
    if skipped:
        print(f"not trained in the time of --quick: {', '.join(skipped)}")
    if not gains:
        return {}
    losses = [float(gains[default, count].mean()) for count in (20, 40) if (default, count) in gains]
    embedding = max((count for name, count in gains if name == "embedding"), default=0)
    best = max(gains, key=lambda key: float(gains[key].mean()))
    found: dict[str, Any] = {}
    if embedding:
        found |= keyed("embedding_gain_over_zero_shot", gains["embedding", embedding])
        found["embedding_queries"] = embedding
    if losses:
        found["default_loss_few_queries"] = round(min(losses), 4)
    return found | {
        **keyed("best_gain_over_zero_shot", gains[best]),
        "best": f"{best[0]} at {best[1]}",
        "default": default,
        "zero_shot": round(float(base.mean()), 4),
        "skipped": skipped,
    }


def figures_of(values: FloatArray, base: FloatArray) -> list[str]:
    """NDCG@10, its gain over the base and the gain's interval, as a table shows them."""
    interval = bootstrap_interval(values - base, rng=np.random.default_rng(0), resamples=2000)
    return [f"{values.mean():.3f}", f"{interval.estimate:+.3f}", f"{interval.low:+.3f} … {interval.high:+.3f}"]


def wanted(row: str, arguments: argparse.Namespace) -> bool:
    return not arguments.rows or row in arguments.rows


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
            elos.append(panel_elo(votes))
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


def panel_elo(votes: FloatArray) -> FloatArray:
    """Elo float64[n] of a query's candidates from the judges' labels float64[n, judges].

    Each judge prefers the document of its higher label; a document's mean preference over all others is a logit.
    """
    wins = np.mean([np.sign(own[:, None] - own[None, :]) / 2 + 0.5 for own in votes.T], axis=0)
    share = (wins.sum(axis=1) - 0.5 + 1.0) / (len(votes) + 1.0)
    return np.asarray(1500.0 + 400.0 / np.log(10.0) * np.log(share / (1.0 - share)))


def real_part(data: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Five folds: learn from the panel's Elo of four parts, measure on the fifth against human grades."""
    queries, elos = real_queries(data)
    base = zero_shot(queries)
    order = np.random.default_rng(arguments.seed).permutation(len(queries))
    default = recommended_trainer(load_base(MINILM), len(queries)).trainer
    gains: dict[str, FloatArray] = {}
    rows = []
    entries = [*SIGNALS, default, *(name for name in TRAINERS if name != default)]
    entries = [each for each in entries if each in (*arguments.trainers, *SIGNALS) and wanted(each, arguments)]
    signals = real_signals(queries, folder, arguments) if set(entries) & set(SIGNALS) else []
    for name in entries:
        own, choices = np.full(len(queries), np.nan), []
        signals_too = own.copy()
        for number, held_out in enumerate(np.array_split(order, FOLDS)):
            if number not in arguments.folds:
                continue
            out = set(held_out.tolist())
            learned = [at for at in range(len(queries)) if at not in out]
            tested = [queries[at] for at in held_out.tolist()]
            if name in SIGNALS:
                student = signals_alone(name, signals, elos, learned, tested, held_out.tolist())
            else:
                data = examples(queries, elos, learned)
                options = options_of(name, arguments)
                student = measured(
                    f"real-{name}-{number}", name, data, tested, base[held_out], folder=folder, options=options
                )
            own[held_out], signals_too[held_out] = student.values, student.signals
            choices.append(student.choice)
            gain = float((student.values - base[held_out]).mean())
            print(
                f"real answers, {name}, fold {number}: {gain:+.3f}, {student.choice}, {student.seconds:.0f} s",
                flush=True,
            )
        if np.isnan(own).any():
            print(f"real answers, {name}: not all folds were measured")
            continue
        for label, values in {name: own, **({WITH_SIGNALS: signals_too} if name == "embedding" else {})}.items():
            gains[label] = values - base
            rows.append([label, *figures_of(values, base), "; ".join(dict.fromkeys(choices))])
            print(f"real answers, {'  '.join(rows[-1])}", flush=True)
    if not gains:
        return {}
    print("\n" + table([f"trainer ({len(queries)} queries)", "NDCG@10", "gain", "95 % interval", "choices"], rows))
    best = max(gains, key=lambda key: float(gains[key].mean()))
    found = keyed("real_default_gain", gains[default]) if default in gains else {}
    return {**found, **keyed("real_best_gain", gains[best]), "real_best": best}


def real_signals(queries: Sequence[EvaluationQuery], folder: Path, arguments: argparse.Namespace) -> list[Signals]:
    """Cosine, token and list similarity of the untrained base for every candidate; kept in the folder."""
    kept = folder / "real-signals.json"
    if not kept.exists():
        options = EmbeddingOptions.model_validate(options_of("embedding", arguments) | {"precision": "fp32"})
        model = BiEncoder(load_base(MINILM), options)
        model.at_scale(0.0)
        model.eval()
        found = [signals_of(model, each.text, each.documents, most=STEP_TEXTS) for each in queries]
        kept.write_text(
            json.dumps([[own.cosines.tolist(), own.tokens.tolist(), own.context.tolist()] for own in found])
        )
    return [Signals(*map(np.array, own)) for own in json.loads(kept.read_text())]


def signals_alone(
    name: str,
    signals: Sequence[Signals],
    elos: Sequence[FloatArray],
    learned: Sequence[int],
    tested: Sequence[EvaluationQuery],
    held_out: Sequence[int],
) -> Measured:
    """The untrained base with the weights that the learned queries choose, as a training chooses them."""
    since = time.monotonic()
    relevance = [1.0 / (1.0 + 10.0 ** ((1500.0 - elos[at]) / 400.0)) for at in learned]
    scale = float(np.mean([np.std(elos[at]) for at in learned])) / 2.0
    chosen = chosen_weights(
        [signals[at] for at in learned], [elos[at] for at in learned], relevance, elo_scale=scale, **SIGNALS[name]
    )
    values = values_of(tested, [signals[at].scores(chosen.tokens, chosen.context) for at in held_out])
    choice = f"tokens {chosen.tokens}, list {chosen.context}"
    return Measured(values, values, choice, time.monotonic() - since)


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
    parser.add_argument("--rows", nargs="+", default=[], help="these rows alone, such as 'embedding at 300'")
    parser.add_argument(
        "--folds", nargs="+", type=int, choices=range(FOLDS), default=list(range(FOLDS)), help="of the real answers"
    )
    parser.add_argument("--keep", type=Path, help="keep what rows and folds gave in this folder, and go on from there")
    arguments = parser.parse_args()
    data = Path(os.environ.get("ZELO_DATA", "")) / "trec_dl19"
    with tempfile.TemporaryDirectory(prefix="zelo-students-") as name:
        found: dict[str, Any] = {}
        folder = arguments.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.part != "real":
            found |= world_part(folder, arguments, began + arguments.seconds)
        if arguments.part != "world" and os.environ.get("ZELO_DATA") and data.is_dir() and not arguments.quick:
            found |= real_part(data, folder, arguments)
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"benchmark": "students", **found, "seconds": seconds}))


if __name__ == "__main__":
    main(began)
