"""Claim: two weights beside an embedder's cosine, chosen on a few dozen queries, gain where they can and lose nothing elsewhere.

The untrained MiniLM ranks lists of four kinds, with the token and list similarity that the trainer `embedding` may add to its score
(`trainer.token_similarity`): judged passages of TREC DL 2019 and BM25's own lists of the same queries, both with the labels of
language models replayed as a panel; claims of SciFact with the grades as Elo; and the world of `training.py`, where three fake judges
answer about 20 questions. Five folds over the queries choose and measure, in the world the 20 questions choose and the unseen ones
measure. Documents that the panel has not labelled take part in the list and in the measurement, with grade 0. Without ZELO_DATA only the
world is measured. `--quick` takes the world with every fourth test question.

Keys, for each kind of list: `KIND_tokens` and `KIND_both`, gains of NDCG@10 over the cosine, with 95 % intervals of the paired difference.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    began = time.monotonic()
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from scipy.special import logit

from benchmarks.simulation import table
from benchmarks.students import FOLDS, REAL_LABELS, SIGNALS, figures_of, keyed, panel_elo, real_queries
from benchmarks.training import judged, learned_from, test_queries
from benchmarks.training_world import make_world
from labeling.records import FloatArray
from scoring.numerics.measures.rankings import ndcg
from trainer.bases import MINILM, load_base
from trainer.training.embedding.bi_encoder import BiEncoder
from trainer.training.embedding.options import EmbeddingOptions
from trainer.training.embedding.token_weight import Signals, chosen_weights, signals_of
from trainer.training.fine_tuning import threads_to_use
from trainer.training.losses.elo import ELO_A_LOGIT

FIRST_OF_BM25, FIRST_OF_SCIENCE, CLAIMS = 60, 20, 50
TAUGHT = 20  # questions of the world that choose the weights
TEXTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Ranked:
    """A list to rank: Elo (NaN where nobody judged) chooses, `grades` measure."""

    query: str
    documents: tuple[str, ...]
    elo: FloatArray
    grades: FloatArray


@dataclass(frozen=True, slots=True)
class Kind:
    """Lists of one kind; the first `taught` choose and the others measure, or five folds over all where it is 0."""

    lists: list[Ranked]
    taught: int = 0

    def parts(self, seed: int) -> list[tuple[list[int], list[int]]]:
        """Numbers of the lists that choose, and of those that measure."""
        every = range(len(self.lists))
        if self.taught:
            return [(list(every[: self.taught]), list(every[self.taught :]))]
        order = np.random.default_rng(seed).permutation(len(self.lists))
        held = [part.tolist() for part in np.array_split(order, FOLDS)]
        return [([at for at in every if at not in out], out) for out in held]


# --- the lists ---------------------------------------------------------------------------


def judged_passages(data: Path) -> Kind:
    queries, elos = real_queries(data / "trec_dl19")
    return Kind([Ranked(each.text, each.documents, elo, each.grades) for each, elo in zip(queries, elos, strict=True)])


def lists_of_bm25(data: Path) -> Kind:
    folder = data / "trec_dl19"
    labels: dict[tuple[str, str], list[float]] = {}
    with (folder / "llm_pointwise_labels.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            found = [float(row[name]) for name in REAL_LABELS if row[name]]
            if len(found) == len(REAL_LABELS):
                labels[row["qid"], row["docid"]] = found
    return Kind(_lists(folder / "candidates_bm25_top100.jsonl", folder / "qrels.txt", FIRST_OF_BM25, labels))


def claims_of_science(data: Path) -> Kind:
    folder = data / "scifact"
    return Kind(_lists(folder / "candidates_bm25_top100.jsonl", folder / "qrels.txt", FIRST_OF_SCIENCE, None)[:CLAIMS])


def _lists(
    candidates: Path, qrels: Path, first: int, labels: dict[tuple[str, str], list[float]] | None
) -> list[Ranked]:
    """The lists with a relevant document; Elo from the labels of a panel, or from the grades."""
    graded: dict[str, dict[str, float]] = defaultdict(dict)
    for line in qrels.read_text().splitlines():
        query, _, document, grade = line.split()
        graded[query][document] = float(grade)
    found = []
    for row in map(json.loads, candidates.read_text().removesuffix("\n").split("\n")):
        asked, documents = str(row["query"]["id"]), row["documents"][:first]
        ids = [str(each["id"]) for each in documents]
        grades = np.array([graded[asked].get(each, 0.0) for each in ids])
        elo = 1500.0 + 300.0 * grades
        if labels is not None:
            known = [at for at, each in enumerate(ids) if (asked, each) in labels]
            elo = np.full(len(ids), np.nan)
            elo[known] = panel_elo(np.array([labels[asked, ids[at]] for at in known])) if len(known) > 1 else np.nan
        if grades.any():
            found.append(Ranked(row["query"]["query"], tuple(each["content"] for each in documents), elo, grades))
    return found


def the_world(seed: int, *, quick: bool) -> Kind:
    world = make_world()
    order = np.random.default_rng(seed).permutation(len(world.training))[:TAUGHT].tolist()
    chosen = [world.training[at] for at in order]
    rows = learned_from(chosen, judged(chosen, over_http=False, seed=seed), seed=seed, dev_share=0.0)
    taught: list[Ranked] = []
    for examples in (rows.dev, rows.train):
        for number in dict.fromkeys(examples.query_ids.tolist()):
            own = np.flatnonzero(examples.query_ids == number).tolist()
            elo = 1500.0 + ELO_A_LOGIT * logit(np.clip(examples.labels[own], 1e-6, 1.0 - 1e-6))
            texts = tuple(examples.documents[at] for at in own)
            taught.append(Ranked(examples.queries[own[0]], texts, elo, np.zeros(len(own))))
    tested = test_queries(world.test)[:: 4 if quick else 1]
    nothing = [np.full(len(each.documents), np.nan) for each in tested]
    measured = [Ranked(each.text, each.documents, elo, each.grades) for each, elo in zip(tested, nothing, strict=True)]
    return Kind([*taught, *measured], taught=len(taught))


# --- weights -----------------------------------------------------------------------------


def signals(kind: Kind, kept: Path) -> list[Signals]:
    """The signals of the untrained base, computed once."""
    if not kept.exists():
        options = EmbeddingOptions(base=MINILM, precision="fp32", threads=threads_to_use())
        model = BiEncoder(load_base(MINILM), options)
        model.at_scale(0.0)
        model.eval()
        found = [signals_of(model, each.query, each.documents, most=TEXTS_AT_ONCE) for each in kind.lists]
        kept.write_text(
            json.dumps([[own.cosines.tolist(), own.tokens.tolist(), own.context.tolist()] for own in found])
        )
    return [Signals(*map(np.array, own)) for own in json.loads(kept.read_text())]


def gains(kind: Kind, found: list[Signals], seed: int) -> tuple[FloatArray, dict[str, tuple[FloatArray, str]]]:
    """NDCG@10 by the cosine of the measured lists, and for each row with the chosen weights, with these as text."""
    parts = kind.parts(seed)
    measured = [at for _, out in parts for at in out]
    base = np.array([ndcg(found[at].cosines, kind.lists[at].grades, 10) for at in measured])
    rows: dict[str, tuple[FloatArray, str]] = {}
    for name, may in SIGNALS.items():
        values: list[float] = []
        choices: list[str] = []
        for learned, out in parts:
            known = {at: np.flatnonzero(np.isfinite(kind.lists[at].elo)) for at in learned}
            learned = [at for at in learned if len(known[at]) > 1 and np.ptp(kind.lists[at].elo[known[at]]) > 0.0]
            elo = [kind.lists[at].elo[known[at]] for at in learned]
            weights = chosen_weights(
                [_of(found[at], known[at]) for at in learned], elo,
                [1.0 / (1.0 + 10.0 ** ((1500.0 - own) / 400.0)) for own in elo],
                elo_scale=float(np.mean([own.std() for own in elo])) / 2.0, **may,
            )  # fmt: skip
            choices.append(f"{weights.tokens}, {weights.context}")
            scored = [(found[at].scores(weights.tokens, weights.context), kind.lists[at].grades) for at in out]
            values += [ndcg(own, grades, 10) for own, grades in scored]
        rows[name] = np.array(values), "; ".join(dict.fromkeys(choices))
    return base, rows


def _of(own: Signals, rows: Any) -> Signals:
    return Signals(own.cosines[rows], own.tokens[rows], own.context[rows])


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    kinds = {"world": lambda: the_world(arguments.seed, quick=arguments.quick)}
    data = Path(os.environ.get("ZELO_DATA", ""))
    if os.environ.get("ZELO_DATA") and not arguments.quick:
        real = {"judged": judged_passages, "bm25": lists_of_bm25, "science": claims_of_science}
        kinds |= {name: lambda make=make: make(data) for name, make in real.items()}
    found: dict[str, Any] = {}
    rows = []
    for name, make in kinds.items():
        if arguments.lists and name not in arguments.lists:
            continue
        kind = make()
        base, own = gains(kind, signals(kind, folder / f"{name}{'-quick' * arguments.quick}.json"), arguments.seed)
        for row, (values, choice) in own.items():
            rows.append([name, str(len(base)), f"{base.mean():.3f}", row, *figures_of(values, base), choice])
            print("  ".join(rows[-1]), flush=True)
            found |= keyed(f"{name}_{'both' if 'list' in row else 'tokens'}", values - base)
    print(
        "\n"
        + table(["lists", "measured", "cosine", "with", "NDCG@10", "gain", "95 % interval", "token, list weight"], rows)
    )
    return found


def main(began: float) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the world alone, with a quarter of its test")
    parser.add_argument("--lists", nargs="+", choices=["world", "judged", "bm25", "science"], help="these kinds alone")
    parser.add_argument("--keep", type=Path, help="keep the signals in this folder, and read them from there")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zelo-signals-") as name:
        folder = arguments.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        found = run(folder, arguments)
    print(json.dumps({"benchmark": "signals", **found, "seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main(began)
