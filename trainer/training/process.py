"""`python -m trainer.training.process WORKSPACE`: one training in its own process, without database or network.

The workspace holds the order and the rows of the snapshot. The process writes events (JSON lines), checkpoints, the
adapter, the published artefacts, and last the result. If started again in the same workspace, it resumes from the last
checkpoint. `workers.jobs.training` starts it and follows the events. Imports no Django.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from labeling.plugins import Trainer, get_plugin
from labeling.records import Trained, TrainingData
from trainer.bases import load_base
from trainer.examples import load_training_data
from trainer.publishing.model_cards import ModelCard

if TYPE_CHECKING:
    from trainer.publishing.export import Published

ORDER, ROWS, PAIRS, EVENTS, RESULT, PUBLISHED, LOCK = (
    "order.json", "rows.parquet", "pairs.parquet", "events.jsonl", "result.json", "published", ".lock",
)  # fmt: skip
PROBES = 8
LONGEST_PROBE = 4000
PATIENCE_S = 30.0
LEFT_ALONE = 75


class WorkspaceTaken(RuntimeError):
    """Another process trains in this workspace."""


class Events:
    """Writes events as JSON lines; of several processes only the first writes."""

    def __init__(self, path: Path, *, speaks: bool) -> None:
        self._path, self._speaks = path, speaks

    def __call__(self, kind: str, **values: Any) -> None:
        if self._speaks:
            self.write(kind, **values)

    def write(self, kind: str, **values: Any) -> None:
        line = json.dumps({"kind": kind, "at": time.time(), **values}, allow_nan=False, default=plain)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--die-with-parent", action="store_true", help="exit when standard input is closed")
    options = parser.parse_args(arguments)
    if options.die_with_parent:
        threading.Thread(target=_die_with_parent, daemon=True).start()
    return run(options.workspace.resolve())


def _die_with_parent() -> None:
    """Exit when standard input closes: the worker holds the other end, which closes however the worker dies."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 1024):
            pass
    os._exit(LEFT_ALONE)


def run(workspace: Path) -> int:
    """Train and publish in the workspace; return 0 on success, otherwise the last event says why it failed."""
    process = int(os.environ.get("RANK", "0"))
    events = Events(workspace / EVENTS, speaks=process == 0)
    try:
        with _alone_in(workspace, process):
            order = json.loads((workspace / ORDER).read_text())
            events("started", pid=os.getpid())
            pairs = workspace / PAIRS
            data = load_training_data(workspace / ROWS, pairs if pairs.exists() else None)
            trained = _train(order, data, workspace, events)
            if process == 0:
                result = _base_won(trained) if trained.base_won else _publish(order, data, trained, workspace, events)
                _write_whole(workspace / RESULT, result)
                events("finished")
    except Exception as error:  # the trainer may be a third-party plugin; the worker reads the reason
        traceback.print_exc()
        with contextlib.suppress(OSError):
            events.write("failed", error=told(error, workspace))
        return 1
    return 0


def _train(order: Mapping[str, Any], data: TrainingData, workspace: Path, events: Events) -> Trained:
    importlib.import_module(order["module"])
    plugin = cast(Trainer, get_plugin("trainer", order["trainer"]).from_dict(order["options"]))
    return plugin.train(data, workspace, events)


def _publish(
    order: Mapping[str, Any], data: TrainingData, trained: Trained, workspace: Path, events: Events
) -> dict[str, Any]:
    from trainer.evaluation.gate import hold_at_gate

    if trained.form == "pairwise":
        return _publish_judge(order, data, trained, workspace, events)
    events("publishing")
    card = _card(order, trained)
    measured = trained.facts.get("dev_ndcg@10")
    card["metrics"] = {} if measured is None else {"NDCG@10 on the dev split, which chose the checkpoint": measured}
    published = _written(trained, data, workspace / PUBLISHED, ModelCard(**card))
    events("gate")
    gate = hold_at_gate(workspace / ROWS, published.folder, base=load_base(trained.base), train=data.train)
    return _result(trained, published, gate)


def _card(order: Mapping[str, Any], trained: Trained) -> dict[str, Any]:
    """The facts of the model card, with those of the training."""
    card = dict(order["card"])
    return card | {"training": {**card.get("training", {}), **trained.facts}}


def _publish_judge(
    order: Mapping[str, Any], data: TrainingData, trained: Trained, workspace: Path, events: Events
) -> dict[str, Any]:
    """As `_publish`, for a student that judges pairs: measured on held-out pairs instead of orders."""
    from trainer.publishing.pairwise_export import publish_pairwise
    from trainer.training.pairwise.gate import hold_at_pairs_gate
    from trainer.training.pairwise.student import PairStudent, untrained_student

    events("publishing")
    card = _card(order, trained)
    shown = data.dev_pairs if data.dev_pairs is not None and len(data.dev_pairs) else data.train_pairs
    assert shown is not None  # the trainer has learned from them
    texts = zip(shown.queries[:PROBES], shown.a[:PROBES], shown.b[:PROBES], strict=True)
    probe = [(query, first[:LONGEST_PROBE], second[:LONGEST_PROBE]) for query, first, second in texts]
    card["metrics"] = {"log-loss on the dev pairs, which chose the checkpoint": trained.facts.get("dev_log_loss")}
    common: dict[str, Any] = {"base": trained.base, "out": workspace / PUBLISHED, "card": ModelCard(**card)}
    published = publish_pairwise(
        trained.adapter,
        **common,
        max_length=trained.max_length,
        probe=probe,
        temperature=trained.facts.get("temperature"),
        reads_instruction=trained.reads_instruction,
    )
    events("held_out_pairs")
    gate = hold_at_pairs_gate(
        PairStudent.published(published.folder),
        untrained=untrained_student(
            load_base(trained.base),
            apart=trained.facts.get("reads") == "apart",
            max_length=trained.max_length,
            reads_instruction=trained.reads_instruction,
        ),
        pairs_file=workspace / PAIRS,
        rows_file=workspace / ROWS,
        train=data.train_pairs or shown,
    )
    return _result(trained, published, gate)


def _result(trained: Trained, published: Published, gate: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_facts(trained),
        "manifest": dict(published.manifest),
        "checksum": published.checksum,
        "largest_difference": published.largest_difference,
        "gate": gate,
    }


def _written(trained: Trained, data: TrainingData, out: Path, card: ModelCard) -> Published:
    """The artefacts of the form that the training gave, checked on texts of the data."""
    from trainer.publishing.embedding_export import publish_embedder
    from trainer.publishing.export import publish
    from trainer.serving.forms.lists import texts_of
    from trainer.serving.forms.publication import check_forms

    shown = data.dev if len(data.dev) else data.train
    queries, documents = shown.queries[:PROBES], [text[:LONGEST_PROBE] for text in shown.documents[:PROBES]]
    common: dict[str, Any] = {
        "base": trained.base, "out": out, "card": card, "max_length": trained.max_length,
        "more": {"reads_instruction": trained.reads_instruction},
    }  # fmt: skip
    if trained.form == "bi-encoder":
        return publish_embedder(
            trained.adapter,
            probe=[*dict.fromkeys(queries), *documents],
            sizes=trained.embedding_sizes,
            token_weight=trained.token_weight,
            list_weight=trained.list_weight,
            **common,
        )
    lists = texts_of(shown, told=trained.reads_instruction)
    return publish(
        trained.adapter,
        probe=list(zip(queries, documents, strict=True)),
        check=lambda draft: check_forms(draft, lists),
        **common,
    )


def _base_won(trained: Trained) -> dict[str, Any]:
    """The result where no checkpoint ranks better than the untrained base: there is nothing to publish."""
    return {**_facts(trained), "base_won": True}


def _facts(trained: Trained) -> dict[str, Any]:
    return {"base": trained.base, "max_length": trained.max_length, "facts": dict(trained.facts)}


def told(error: BaseException, workspace: Path) -> str:
    """The error message for people, with a remedy for a full disk."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += (
            f"; no space is left in {workspace}: free some, then resume the run; it continues from its last checkpoint"
        )
    return text.replace("\x00", " ")[:2000]


def plain(value: Any) -> Any:
    """A number of numpy as Python's: of `bool`, a bool."""
    return value.item() if hasattr(value, "item") else float(value)


def _write_whole(path: Path, value: Mapping[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value, allow_nan=False, default=plain))
    draft.replace(path)


@contextlib.contextmanager
def _alone_in(workspace: Path, process: int) -> Iterator[None]:
    """Lock the workspace: a worker that lost its lease may still have a process there. Raises WorkspaceTaken."""
    with (workspace / f"{LOCK}-{process}").open("w") as file:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise WorkspaceTaken(
                        f"another process trains in {workspace} and did not end within {PATIENCE_S:.0f} s; end it, "
                        "then resume the run"
                    ) from None
                time.sleep(0.5)
        yield


if __name__ == "__main__":
    sys.exit(main())
