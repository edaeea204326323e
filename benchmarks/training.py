"""Claim: from comparisons alone a small model on a CPU learns to rank what it has never seen, better than BM25.

Topics over the standard library's docstrings, questions in templates; three fake judges compare documents, our
rating makes Elo of it, and a LoRA on MiniLM learns from relevance by Elo alone: no grade is ever shown to it. The test
has other documents and other wordings, and is measured against the hidden grades. `--quick` (some 150 s) calls the
fake judges in this process, as the HTTP server would take most of the time; without it they are asked over HTTP by the
product's own judge, and training is longer.

Speed: the same rows, as long as docstrings are and cut at 256 tokens, once through our trainer and once through
sentence-transformers' `CrossEncoderTrainer` as it comes, with the same adapter, loss, batch size and precision, on one
thread, in processor time from loading the base to the last step; both have run before, and take turns. What ours does
otherwise: rows of like length in one batch, no dropout in the base, attention in float32. The loss of one batch must be
the same number.

Keys: `gain_over_bm25`, `gain_over_zero_shot` (the cosine of the same MiniLM) in NDCG@10 with 95 % intervals of the
paired difference; `seconds_per_1000_rows` of training at 64 tokens, all threads, on the clock; `speed_ratio`; where the
processor has bfloat16, `bf16_ratio`: processor seconds of the same training in float32 over those in bfloat16, and
`auto_precision`: what the option `auto` chose there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    began = time.monotonic()  # libraries take seconds to load, and who waits does not care why
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: coverage.py here is no package

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the product's training process: see trainer.training.launcher

import numpy as np
import torch
from datasets import Dataset
from scipy.special import expit
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import MSELoss
from transformers import PrinterCallback

from benchmarks.simulation import table
from benchmarks.training_world import Question, World, hidden_quality, make_world
from labeling.records import (
    Comparison,
    ComparisonColumns,
    Examples,
    FloatArray,
    IntArray,
    TextRecord,
    Trained,
    TrainingData,
    Verdict,
)
from labeling.retrieval.precision import has_bfloat16
from scoring.numerics.design.static import random_cycles
from scoring.raters import ThurstoneRater
from tests.fake_judge.process import running_fake_judge
from tests.fake_judge.quality import HiddenQuality, JudgeSettings, quality_key
from tests.fake_judge.quality import Question as Asked
from trainer.bases import MINILM, cross_encoder, load_base
from trainer.evaluation.metrics import EvaluationQuery, Measured, difference, intervals, measure
from trainer.evaluation.rankers import BM25, Cosine, Order
from trainer.serving.forms.packed_linear import pack_linears
from trainer.training.adapters import attach_adapter
from trainer.training.dev_ndcg import some_queries
from trainer.training.fine_tuning import fine_tune, threads_to_use
from trainer.training.losses.squared_error import SquaredError
from trainer.training.pointwise import Pointwise
from trainer.training.truncation import fit_texts

JUDGES = {
    "sharp": {"sigma": 0.3},
    "blunt": {"sigma": 0.6, "scale": 0.8},
    "biased": {"sigma": 0.5, "position_bias": 0.5},
}
DEGREE = 6
BATCH = 16
SPEED_LENGTH, SPEED_BATCH = 256, 16
DEV_SHARE = 0.08
NO_ROWS = Examples([], [], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))


phases: dict[str, float] = {}


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Keep how many seconds this part takes."""
    began = time.monotonic()
    yield
    phases[name] = time.monotonic() - began


# --- judging and rating ------------------------------------------------------------------


def judged(questions: Sequence[Question], *, over_http: bool, seed: int) -> ComparisonColumns:
    """Answers of three judges in turn on random cycles, as the columns that a rater takes."""
    rng = np.random.default_rng(seed)
    pairs = [random_cycles(len(question.documents), DEGREE, rng) for question in questions]
    known = {
        quality_key(document, question.text): float(quality)
        for question, own in zip(questions, hidden_quality(questions), strict=True)
        for document, quality in zip(question.documents, own, strict=True)
    }
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in pairs])]).astype(np.int64)
    total = int(offsets[-1])
    judge = np.arange(total) % len(JUDGES)
    swapped = rng.random(total) < 0.5
    ask = _asked_over_http if over_http else _asked_here
    preference = ask(questions, pairs, judge, swapped, known=known)
    ab = np.concatenate(pairs)
    return ComparisonColumns(
        a=ab[:, 0],
        b=ab[:, 1],
        preference=preference,
        weight=np.ones(total),
        judge=judge.astype(np.int64),
        swapped=swapped,
        offsets=offsets,
        sizes=np.array([len(question.documents) for question in questions], dtype=np.int64),
    )


def _asked_here(
    questions: Sequence[Question], pairs: Sequence[IntArray], judge: Any, swapped: Any, *, known: dict[str, float]
) -> FloatArray:
    """P(a is the more relevant), from the code that the fake server runs."""
    quality = HiddenQuality(seed=0, known=known)
    settings = [(name, JudgeSettings(**values)) for name, values in JUDGES.items()]
    preference: list[float] = []
    for question, own in zip(questions, pairs, strict=True):
        for a, b in own.tolist():
            at = len(preference)
            first, second = (b, a) if swapped[at] else (a, b)
            documents = question.documents
            asked = Asked(question.text, question.text, documents[first], documents[second])
            said = quality.preference_of_first(asked, *settings[judge[at]])
            preference.append(1.0 - said if swapped[at] else said)
    return np.array(preference)


def _asked_over_http(
    questions: Sequence[Question], pairs: Sequence[IntArray], judge: Any, swapped: Any, *, known: dict[str, float]
) -> FloatArray:
    """The same through the product's judge and the fake server."""
    from workers.judges.openai.judge import OpenAIHttpJudge

    comparisons: list[Comparison] = []
    for number, (question, own) in enumerate(zip(questions, pairs, strict=True)):
        query = TextRecord(number, question.text)
        records = [TextRecord(100 * number + at, text) for at, text in enumerate(question.documents)]
        comparisons += [
            Comparison(0, query, query, records[a], records[b], swapped=bool(swapped[len(comparisons) + at]))
            for at, (a, b) in enumerate(own.tolist())
        ]
    preference = np.empty(len(comparisons))
    with tempfile.TemporaryDirectory() as folder, _fake_endpoint(Path(folder), known):
        for number, name in enumerate(JUDGES):
            mine = np.flatnonzero(judge == number)
            asked: Any = OpenAIHttpJudge.from_dict({"endpoint": "fake", "model": name})
            for start in range(0, len(mine), 256):
                part = mine[start : start + 256]
                answers = asked.judge([comparisons[at] for at in part])
                for at, answer in zip(part, answers, strict=True):
                    if not isinstance(answer, Verdict) or answer.preference is None:
                        raise RuntimeError(f"the fake judge gave no answer: {answer}")
                    preference[at] = answer.preference
    return preference


@contextlib.contextmanager
def _fake_endpoint(folder: Path, known: dict[str, float]) -> Iterator[None]:
    (folder / "quality.json").write_text(json.dumps(known))
    with running_fake_judge(folder / "ledger", "--quality", str(folder / "quality.json")) as fake:
        for name, values in JUDGES.items():
            fake.set_judge(name, **values)
        endpoint = {"name": "fake", "base_url": fake.base_url, "api_key_env": "FAKE_KEY", "concurrency": 16}
        os.environ["FAKE_KEY"] = "none"
        os.environ["ZELO_ENDPOINTS"] = json.dumps([endpoint])
        yield


def learned_from(
    questions: Sequence[Question], columns: ComparisonColumns, *, seed: int, dev_share: float = DEV_SHARE
) -> TrainingData:
    """Relevance by Elo, as the product stores it where nobody has graded; some questions choose the checkpoint."""
    fit = ThurstoneRater().rate(columns)
    relevance = expit(fit.logit_scale * fit.theta)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(questions))
    dev = set(order[: max(1, round(dev_share * len(questions)))].tolist())

    def examples(chosen: Sequence[int]) -> Examples:
        rows = [(at, place) for at in chosen for place in range(len(questions[at].documents))]
        return Examples(
            queries=[questions[at].text for at, _ in rows],
            documents=[questions[at].documents[place] for at, place in rows],
            labels=np.array([relevance[fit.starts[at] + place] for at, place in rows]),
            weights=np.ones(len(rows)),
            query_ids=np.array([at for at, _ in rows], dtype=np.int64),
        )

    return TrainingData(train=examples([at for at in order.tolist() if at not in dev]), dev=examples(sorted(dev)))


# --- learning ----------------------------------------------------------------------------


def test_queries(questions: Sequence[Question]) -> list[EvaluationQuery]:
    return [
        EvaluationQuery(
            id=str(number),
            text=question.text,
            domain=question.topic,
            candidate_ids=np.arange(len(question.documents), dtype=np.int64),
            document_ids=tuple(map(str, range(len(question.documents)))),
            documents=question.documents,
            grades=question.grades,
            relevance=np.full(len(question.documents), np.nan),
            elo=np.full(len(question.documents), np.nan),
            first_stage_rank=np.full(len(question.documents), np.nan),
        )
        for number, question in enumerate(questions)
    ]


class Student:
    """MiniLM as a cross-encoder, with an adapter or with its fresh head; all pairs in one call."""

    def __init__(self, adapter: Path | None, *, max_length: int) -> None:
        self._max_length = max_length
        self._model = cross_encoder(load_base(MINILM), max_length=max_length, device="cpu")
        if adapter is not None:
            self._model.model.load_adapter(str(adapter))
        pack_linears(self._model)  # as the product serves and evaluates it

    def scores(self, queries: Sequence[EvaluationQuery], progress: Any) -> list[FloatArray]:
        asked = [query.text for query in queries for _ in query.documents]
        documents = [document for query in queries for document in query.documents]
        fitted = fit_texts(self._model, asked, documents, max_length=self._max_length)
        pairs = list(zip(fitted.queries, fitted.documents, strict=True))
        logits = self._model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        bounds = np.cumsum([len(query.documents) for query in queries])[:-1]
        return list(np.split(np.asarray(logits, dtype=np.float64), bounds))


def learn(world: World, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Judge, rate, train and measure on questions that nothing was learned from; the keys of the result."""
    with phase("judging and rating"):
        columns = judged(world.training, over_http=not arguments.quick, seed=arguments.seed)
        data = learned_from(world.training, columns, seed=arguments.seed)
    asked = "in this process" if arguments.quick else "over HTTP"
    print(f"{len(world.training)} training questions, {len(columns.a):,} comparisons ({asked})")
    with phase("training"):
        trained = fine_tune(lesson(arguments), data, folder, said)
    measured = measured_orders(test_queries(world.test), trained, arguments)
    steps = trained.facts["steps"]
    return {
        "ndcg_student": round(float(measured["student"].values["ndcg@10"].mean()), 4),
        **gain_over(measured, "gain_over_bm25", "BM25"),
        **gain_over(measured, "gain_over_zero_shot", "zero-shot cosine"),
        "seconds_per_1000_rows": round(1000 * trained.facts["seconds"] / (BATCH * steps), 1),
        "steps": steps,
        "best_step": trained.facts["best_step"],
        "training_questions": len(world.training),
        "test_questions": len(world.test),
        "comparisons": len(columns.a),
        "judges": "in process" if arguments.quick else "http",
    }


def lesson(arguments: argparse.Namespace) -> Pointwise.Options:
    return Pointwise.Options(
        base=MINILM, rank=16, learning_rate=5e-4, batch_size=BATCH, max_length=64, epochs=20, max_steps=arguments.steps,
        eval_steps=max(50, arguments.steps // 2), patience=0, dev_rows=200, seed=arguments.seed,
    )  # fmt: skip


def said(kind: str, **values: Any) -> None:
    """A report that prints the looks at the dev split alone."""
    if kind == "evaluated":
        print(f"  step {values['step']:>4}: NDCG@10 on the dev split, against Elo: {values['ndcg']:.3f}", flush=True)


def measured_orders(
    queries: Sequence[EvaluationQuery], trained: Trained, arguments: argparse.Namespace
) -> dict[str, Measured]:
    """Everybody on the test, against the hidden grades; printed as a table."""
    orders: dict[str, Callable[[], Order]] = {
        "BM25": BM25,
        "zero-shot cosine": lambda: Cosine(threads=threads_to_use()),
        "student": lambda: Student(trained.adapter, max_length=64),
    }
    if not arguments.quick:
        orders["untrained student"] = lambda: Student(None, max_length=64)
    measured, rows = {}, []
    for name, make in orders.items():
        with phase(f"test: {name}"):
            measured[name] = measure(queries, make().scores(queries, lambda done, total: None), "grades")
        interval = intervals(measured[name])["ndcg@10"]
        rows.append([name, f"{interval.estimate:.3f}", f"{interval.low:.3f} – {interval.high:.3f}"])
    print(f"\n{len(queries)} test questions with unseen documents and wordings\n")
    print(table(["order", "NDCG@10", "95 % interval"], rows))
    return measured


def gain_over(measured: dict[str, Measured], key: str, name: str) -> dict[str, Any]:
    """The student's paired gain with its interval."""
    found = difference(measured["student"], measured[name])
    assert found is not None
    gain = found.difference
    return {key: round(gain.estimate, 4), f"{key}_interval": [round(gain.low, 4), round(gain.high, 4)]}


# --- speed -------------------------------------------------------------------------------


def speed_rows(world: World, count: int) -> Examples:
    """Rows of mixed length, each a query of its own."""
    rng = np.random.default_rng(5)
    pairs = [(question.text, text) for question in world.training for text in question.documents]
    chosen = [pairs[at] for at in rng.choice(len(pairs), count, replace=False)]
    return Examples(
        queries=[query for query, _ in chosen],
        documents=[document for _, document in chosen],
        labels=rng.random(len(chosen)),
        weights=np.ones(len(chosen)),
        query_ids=np.arange(len(chosen), dtype=np.int64),
    )


def speed(world: World, folder: Path, *, steps: int, rounds: int) -> dict[str, Any]:
    """Processor seconds of ours and of the plain trainer over the same rows, in turn; the best of `rounds` each."""
    rows = speed_rows(world, steps * SPEED_BATCH)
    options = Pointwise.Options(
        max_length=SPEED_LENGTH,
        batch_size=SPEED_BATCH,
        epochs=1,
        patience=0,
        eval_steps=10**6,
        precision="bf16" if has_bfloat16() else "fp32",
        threads=1,
    )
    same_loss(rows, options)
    trainers = {
        "CrossEncoderTrainer": lambda rows, name: plain_training(rows, options, folder / f"plain-{name}"),
        "ours": lambda rows, name: our_training(rows, options, folder / f"ours-{name}"),
    }
    for train in trainers.values():  # what a process does once is nobody's speed
        _timed(train, some_queries(rows, SPEED_BATCH), "warm")
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(rounds):
        turn = list(trainers)[:: 1 if number % 2 == 0 else -1]
        for name in turn:
            seconds[name].append(_timed(trainers[name], rows, str(number)))
    print(f"\n{len(rows)} rows up to {SPEED_LENGTH} tokens, one thread, processor seconds, {rounds} rounds in turn\n")
    told = [[name, f"{min(own):.1f}", " ".join(f"{each:.1f}" for each in own)] for name, own in seconds.items()]
    print(table(["trainer", "best", "all"], told))
    ratio = min(seconds["CrossEncoderTrainer"]) / min(seconds["ours"])
    found = {"speed_ratio": round(ratio, 3), "speed_rows": len(rows), "speed_rounds": rounds}
    return found | by_precision(rows, options, folder, rounds=rounds, fast=min(seconds["ours"]))


def by_precision(
    rows: Examples, options: Pointwise.Options, folder: Path, *, rounds: int, fast: float
) -> dict[str, Any]:
    """Processor seconds of ours in float32 over those in bfloat16 (`fast`), where the processor has it; what `auto` chose."""
    if not has_bfloat16():
        print("the processor has no bfloat16; auto trains in float32")
        return {}
    exact = options.model_copy(update={"precision": "fp32"})
    own = [
        _timed(lambda rows, name: our_training(rows, exact, folder / f"fp32-{name}"), rows, str(number))
        for number in range(rounds)
    ]
    automatic = options.model_copy(update={"precision": "auto", "max_steps": 1})
    (folder / "auto").mkdir()
    chosen = fine_tune(automatic, TrainingData(rows, NO_ROWS), folder / "auto", lambda kind, **values: None)
    ratio = min(own) / fast
    print(f"float32 {min(own):.1f} s, bfloat16 {fast:.1f} s: ratio {ratio:.2f}; auto chose {chosen.facts['precision']}")
    return {"bf16_ratio": round(ratio, 3), "auto_precision": chosen.facts["precision"]}


def _timed(train: Callable[[Examples, str], None], rows: Examples, name: str) -> float:
    torch.set_num_threads(1)
    began = time.process_time()
    train(rows, name)
    return time.process_time() - began


def our_training(rows: Examples, options: Pointwise.Options, folder: Path) -> None:
    folder.mkdir()
    fine_tune(options, TrainingData(rows, NO_ROWS), folder, lambda kind, **values: None)


def plain_training(rows: Examples, options: Pointwise.Options, folder: Path) -> None:
    """sentence-transformers as it comes: random batches, its own loss."""
    base = load_base(options.base)
    model = cross_encoder(base, max_length=options.max_length, device="cpu")
    attach_adapter(model, base, options)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=options.batch_size, num_train_epochs=1,
        learning_rate=options.learning_rate, warmup_steps=options.warmup, bf16=options.precision == "bf16", use_cpu=True, seed=options.seed,
        save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=10, dataloader_pin_memory=False,
    )  # fmt: skip
    dataset = Dataset.from_dict(
        {"query": list(rows.queries), "document": list(rows.documents), "label": rows.labels.tolist()}
    )
    loss = MSELoss(model, activation_fn=torch.nn.Sigmoid())
    trainer = CrossEncoderTrainer(model=model, args=arguments, train_dataset=dataset, loss=loss)
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def same_loss(rows: Examples, options: Pointwise.Options) -> None:
    """Both trainers would see the same number on the same batch."""
    model = cross_encoder(load_base(options.base), max_length=options.max_length, device="cpu").eval()
    texts = [list(rows.queries[:SPEED_BATCH]), list(rows.documents[:SPEED_BATCH])]
    labels = rows.labels[:SPEED_BATCH]
    with torch.no_grad():
        ours = SquaredError(model)(texts, [torch.tensor([label, 1.0]) for label in labels]).item()
        theirs = MSELoss(model, activation_fn=torch.nn.Sigmoid())(texts, torch.tensor(labels)).item()
    if abs(ours - theirs) > 1e-6:
        raise AssertionError(f"our loss is {ours}, the library's {theirs} on the same batch")


def main(began: float) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="judges in this process, fewer steps, some 150 s")
    parser.add_argument("--steps", type=int, default=0, help="training steps (quick 320, otherwise 900)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.steps = arguments.steps or (320 if arguments.quick else 900)
    phases["loading libraries"] = time.monotonic() - began
    with phase("texts and questions"):
        world = make_world()
    with tempfile.TemporaryDirectory(prefix="zelo-training-") as folder:
        (Path(folder) / "learning").mkdir()
        found = learn(world, Path(folder) / "learning", arguments)
        with phase("speed"):
            found |= speed(world, Path(folder), steps=4 if arguments.quick else 60, rounds=1 if arguments.quick else 3)
    seconds = round(time.monotonic() - began, 1)
    print(f"\n{seconds} s in all: {', '.join(f'{name} {own:.0f}' for name, own in phases.items())}")
    print(json.dumps({"benchmark": "training", **found, "seconds": seconds}))


if __name__ == "__main__":
    main(began)
