"""Fine-tunes a base with LoRA, using sentence-transformers' `CrossEncoderTrainer`.

It adds batches of similar length, NDCG@10 on the dev split with the best adapter kept, early stopping, exact resumption,
and smaller batches when memory runs out. Imports no Django.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.util import batch_to_device
from transformers import PrinterCallback, TrainerCallback

from labeling.plugins import Report
from labeling.records import Examples, Trained, TrainingData
from trainer.bases import Base, cross_encoder, load_base
from trainer.instructions import check_instructions, told_data
from trainer.training import adapters, checkpoints
from trainer.training.adapters import PROBE_ROWS, attach_adapter, choose_bf16, place_of, set_dropout
from trainer.training.batching import LengthBuckets, QueryLists
from trainer.training.dev_ndcg import are_too_few, dev_ndcg, not_finite, some_queries, with_an_order
from trainer.training.label_scaling import stretch_of
from trainer.training.losses.elo import elo_of, elo_scale_of, with_preferences
from trainer.training.losses.query_loss import QueryLoss, list_loss
from trainer.training.losses.squared_error import SquaredError
from trainer.training.memory import OutOfMemory, free_memory, is_out_of_memory, memory_in_use
from trainer.training.truncation import Fitted, fit_texts
from trainer.training.warm_start import WARM_TIMES, WarmReport, is_embedder, own_order, warm_options

if TYPE_CHECKING:
    from trainer.training.options import RerankerOptions

LOG_STEPS = 10
CHECKPOINTS, BEST, BATCH_FILE = "checkpoints", "best", "batch.json"


@dataclass
class _Course:
    """State of a training in addition to transformers' own; stored with every checkpoint."""

    best: float | None = None
    best_step: int = -1
    patience_used: int = 0
    stopped: bool = False
    tokens: int = 0
    seconds: float = 0.0
    looking_s: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)

    def seconds_a_step(self, steps: int) -> float:
        """Average seconds per step so far, including evaluations on the dev split."""
        return (self.seconds + self.looking_s) / steps


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Rows truncated to the model's length."""

    train: Fitted
    rows: Examples
    dev: Examples


def fine_tune(options: RerankerOptions, data: TrainingData, workspace: Path, report: Report) -> Trained:
    """Train from the last checkpoint in `workspace`; halve the batch while memory runs out.

    With `warm_steps` an embedder first learns its own ranking, in a subfolder of the workspace.

    Raises dev_ndcg.LossNotFinite, OutOfMemory, checkpoints.PickleRefused, and the errors of `trainer.bases`.
    """
    torch.set_num_threads(options.threads or threads_to_use())
    base = load_base(options.base)
    data, reads = told_data(data, options)
    # Not with several processes: they would have to agree on the pairs and wait for the adapter.
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    begins = adapters.start_of(options, workspace)
    if begins or not (options.warm_steps and alone and is_embedder(base)):
        return replace(_learn(options, base, data, workspace, report, start=begins), reads_instruction=reads)
    begun = checkpoints.last_checkpoint(workspace / CHECKPOINTS) is not None  # it includes the warm start
    start = None if begun else _warm_start(options, base, data.train, workspace / "warm_start", report)
    trained = _learn(options, base, data, workspace, report, start=start)
    pairs = options.warm_steps * WARM_TIMES * options.batch_size * options.accumulation
    said = f"{options.warm_steps} steps on {pairs} pairs of the training texts, labelled by the base's cosine"
    return replace(trained, facts={**trained.facts, "warm_start": said}, reads_instruction=reads)


def _warm_start(options: RerankerOptions, base: Base, train: Examples, workspace: Path, report: Report) -> Path:
    """An adapter trained on the base's own ranking, with twice the rows per step and twice the learning rate."""
    workspace.mkdir(exist_ok=True)
    course = warm_options(options)
    report("warm_start", step=0, steps=options.warm_steps)
    rows = own_order(
        base,
        train,
        count=course.max_steps * course.batch_size * course.accumulation,
        seed=options.seed,
        threads=torch.get_num_threads(),
    )
    nothing = Examples([], [], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    return _learn(course, base, TrainingData(rows, nothing), workspace, WarmReport(report, options.warm_steps)).adapter


def _learn(
    options: RerankerOptions,
    base: Base,
    data: TrainingData,
    workspace: Path,
    report: Report,
    *,
    start: Path | None = None,
) -> Trained:
    """Call `_train` with as many parts per step as memory requires."""
    while True:
        parts = _parts(workspace, options)
        try:
            return _train(options, base, data, workspace, report, parts=parts, start=start)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        step_rows = options.batch_size * options.accumulation
        free_memory()
        if -(-step_rows // parts) <= 1:
            raise OutOfMemory(
                f"out of memory with one row at a time ({problem}); choose a shorter max_length, "
                "gradient_checkpointing, bf16 or a smaller base"
            )
        parts = min(2 * parts, step_rows)
        (workspace / BATCH_FILE).write_text(json.dumps({"parts": parts}))
        report("out_of_memory", batch_size=-(-step_rows // parts), accumulation=parts, problem=problem[:300])


def threads_to_use() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parts(workspace: Path, options: RerankerOptions) -> int:
    with contextlib.suppress(FileNotFoundError):
        return int(json.loads((workspace / BATCH_FILE).read_text())["parts"])
    return options.accumulation


def _train(
    options: RerankerOptions,
    base: Base,
    data: TrainingData,
    workspace: Path,
    report: Report,
    *,
    parts: int,
    start: Path | None,
) -> Trained:
    model = cross_encoder(base, max_length=options.max_length, **place_of(options.precision))
    max_length = min(options.max_length, base.max_length or options.max_length)
    check_instructions(model.tokenizer, data.train, data.dev, longest=max_length // 2, base=base.name)
    adapted = attach_adapter(model, base, options)
    if start is not None:
        adapters.load_start(adapted, start)
    set_dropout(model, options.dropout)
    bf16 = choose_bf16(options, model.model, _first_rows(model, data.train), workspace)
    fresh = options.loss == "pointwise" and not base.ranks_untrained and not options.start
    stretch = stretch_of(data.train.labels) if fresh else None
    if stretch is not None:
        data = replace(data, train=replace(data.train, labels=stretch.spread(data.train.labels)))
    prepared = _prepare(model, data, max_length=max_length, dev_rows=options.dev_rows)
    trainer = _LoraTrainer(
        model, adapted, prepared, options=options, workspace=workspace, report=report, parts=parts, bf16=bf16,
        by_chance=start is None and not base.ranks_untrained and are_too_few(prepared.dev),
    )  # fmt: skip
    if trainer.is_first:
        _say_prepared(report, trainer, prepared, adapted)
    trainer.run()
    adapter = trainer.keep_best()
    if stretch is not None and trainer.is_first:
        stretch.draw_together(adapter)
    facts = {
        "train_rows": len(data.train),
        "cut_rows": prepared.train.cut,
        "steps": trainer.state.global_step,
        "best_step": trainer.course.best_step,
        "dev_ndcg@10": trainer.course.best,
        "tokens": trainer.course.tokens,
        "seconds": round(trainer.course.seconds, 1),
        "batch_size": -(-trainer.step_rows // parts),
        "accumulation": parts,
        "precision": "bf16" if bf16 else "fp32",
        "devices": trainer.devices,
        "threads": torch.get_num_threads(),
        "labels_spread": stretch is not None,
    }
    # Also with a fresh head, which ranks at random at step 0: nothing has been learned that is worth publishing.
    won = trainer.course.best_step == 0
    return Trained(adapter=adapter, base=options.base, max_length=max_length, facts=facts, base_won=won)


def _first_rows(model: CrossEncoder, rows: Examples) -> Callable[[bool], torch.Tensor]:
    """The logits of a few rows as a function of whether they are computed in bfloat16."""
    pairs = list(zip(rows.queries[:PROBE_ROWS], rows.documents[:PROBE_ROWS], strict=True))

    def scores(bf16: bool) -> torch.Tensor:
        features = batch_to_device(model.preprocess(pairs), model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            return torch.as_tensor(model(features)["scores"]).view(-1)

    return scores


def _prepare(model: CrossEncoder, data: TrainingData, *, max_length: int, dev_rows: int) -> _Prepared:
    train = fit_texts(model, data.train.queries, data.train.documents, max_length=max_length)
    dev = some_queries(with_an_order(data.dev), dev_rows)
    fitted = fit_texts(model, dev.queries, dev.documents, max_length=max_length)
    return _Prepared(train, data.train, dev=replace(dev, queries=fitted.queries, documents=fitted.documents))


def _say_prepared(report: Report, trainer: _LoraTrainer, prepared: _Prepared, adapted: PeftModel) -> None:
    trained, all_weights = adapted.get_nb_trainable_parameters()
    report(
        "prepared",
        rows=len(prepared.rows),
        dev_rows=len(prepared.dev),
        cut_rows=prepared.train.cut,
        longest=int(prepared.train.lengths.max()),
        tokens_an_epoch=int(prepared.train.lengths.sum()),
        padding=1.0 - float(prepared.train.lengths.sum()) / trainer.buckets.plan(0).padded_tokens,
        trained_weights=int(trained),
        weights=int(all_weights),
        devices=trainer.devices,
        device="cuda" if torch.cuda.is_available() else "cpu",
        threads=torch.get_num_threads(),
    )


class _LoraTrainer(CrossEncoderTrainer):
    """The library's trainer with our batches, checkpoints and evaluations on the dev split."""

    def __init__(
        self,
        model: CrossEncoder,
        adapted: PeftModel,
        prepared: _Prepared,
        *,
        options: RerankerOptions,
        workspace: Path,
        report: Report,
        parts: int,
        bf16: bool,
        by_chance: bool,
    ) -> None:
        self.options, self.workspace, self.report, self.by_chance = options, workspace, report, by_chance
        self.adapted, self.prepared = adapted, prepared
        self.course = _Course()
        arguments = CrossEncoderTrainingArguments(
            output_dir=str(workspace / "unused"),
            per_device_train_batch_size=-(-options.batch_size * options.accumulation // parts),
            gradient_accumulation_steps=parts,
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            warmup_steps=options.warmup,
            bf16=bf16,
            seed=options.seed,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=LOG_STEPS,
            logging_nan_inf_filter=False,
            save_strategy="no",
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        self.devices = arguments.world_size
        self.step_rows = options.batch_size * options.accumulation * self.devices
        self.buckets, self.rows_loss, labels = self._by_loss(model, parts)
        # The library lets max_steps override epochs; here training ends at whichever comes first.
        by_epochs = options.epochs * self.buckets.steps_an_epoch
        arguments.max_steps = min(options.max_steps or by_epochs, by_epochs)
        rows = {**prepared.train.columns(), "label": labels}
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(rows),
            loss=self.rows_loss,
            callbacks=[_Watch(self)],
        )
        self.remove_callback(PrinterCallback)

    def _by_loss(self, model: CrossEncoder, parts: int) -> tuple[Any, Any, list[list[float]]]:
        """Batches, loss and labels of the rows: single rows for `pointwise`, otherwise lists of one query's candidates."""
        options, lengths, rows = self.options, self.prepared.train.lengths, self.prepared.rows
        shared: dict[str, Any] = {"seed": options.seed, "devices": self.devices}
        parts *= self.devices
        if options.loss == "pointwise":
            buckets = LengthBuckets(lengths, step_rows=self.step_rows, parts=parts, **shared)
            return buckets, SquaredError(model), np.column_stack([rows.labels, rows.weights]).tolist()
        queries = with_preferences(rows)
        lists = QueryLists(lengths, queries, list_rows=-(-self.step_rows // parts), step_lists=parts, **shared)
        loss = list_loss(options.loss, elo_scale=elo_scale_of(rows, getattr(options, "elo_scale", 0.0)))
        number = np.cumsum(np.diff(rows.query_ids, prepend=rows.query_ids[0]) != 0)
        return lists, QueryLoss(model, loss), np.column_stack([elo_of(rows), rows.weights, number]).tolist()

    @property
    def is_first(self) -> bool:
        return self.args.process_index == 0

    def run(self) -> None:
        """Train to the end, starting from the last checkpoint of the workspace if there is one."""
        found = checkpoints.last_checkpoint(self.workspace / CHECKPOINTS)
        if found is not None:
            state = checkpoints.read_state(found)
            self.course = _Course(**state["course"])
            if self.is_first:
                self.report("resumed", step=state["step"])
            if self.course.stopped:
                checkpoints.restore_weights(found, self.model)
                self.state.global_step = state["step"]
                return
        elif len(self.prepared.dev):
            self.look(0)
        self.train(resume_from_checkpoint=str(found) if found is not None else None)

    def keep_best(self) -> Path:
        """The adapter to publish: the best on the dev split, or the last if there is no dev split."""
        target = self.workspace / "adapter"
        if self.is_first:
            source = self.workspace / BEST / f"step-{self.course.best_step}"
            if self.course.best_step < 0:
                source = self._save_adapter(self.state.global_step)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        return target

    def look(self, step: int) -> None:
        """Rank the dev split, keep the adapter if it is the best, but at step 0 `by_chance`, and apply early stopping."""
        if len(self.prepared.dev):
            size = 4 * self.args.per_device_train_batch_size
            value = dev_ndcg(self.model, self.prepared.dev, batch_size=size, bf16=self.args.bf16)
            course = self.course
            course.curve.append((step, value))
            better = (course.best is None or value > course.best) and not (self.by_chance and step == 0)
            course.patience_used = 0 if better or step == 0 else course.patience_used + 1
            if better:
                course.best, course.best_step = value, step
                if self.is_first:
                    self._save_adapter(step)
            course.stopped = bool(self.options.patience) and course.patience_used >= self.options.patience
            if self.is_first:
                self.report("evaluated", step=step, ndcg=value, best=better)

    def _save_adapter(self, step: int) -> Path:
        folder = self.workspace / BEST / f"step-{step}"
        draft = folder.with_name(f".{folder.name}")
        shutil.rmtree(draft, ignore_errors=True)
        self.adapted.save_pretrained(str(draft))
        (draft / "README.md").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
        return folder

    # Overrides of the library, whose own versions use random batches and pickles.

    def get_batch_sampler(self, *args: Any, **options: Any) -> Any:
        return self.buckets

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The parts of one step; also sets the average number of rows per part for the loss."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            own = sum(len(batch["label"]) for batch in batches) / len(batches)
            # With several devices, steps are always full, see LengthBuckets.
            self.rows_loss.rows_a_part = own if self.devices == 1 else self.step_rows / self.buckets.parts
        return batches, items

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do nothing: `trainer.publishing.export` writes the card."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self.workspace / CHECKPOINTS
        step = self.state.global_step
        if not checkpoints.is_finite(checkpoints.trainable(self.model)):
            raise not_finite(f"a weight at step {step}")
        draft = folder / f".step-{step}"
        if self.is_first:
            checkpoints.begin_checkpoint(folder, step)
        self.accelerator.wait_for_everyone()
        checkpoints.write_random_state(draft, self.args.process_index)
        self.accelerator.wait_for_everyone()
        if self.is_first:
            self.state.save_to_json(str(draft / "trainer_state.json"))
            checkpoints.finish_checkpoint(
                draft,
                model=self.model,
                optimizer=self.optimizer,
                scheduler=self.lr_scheduler,
                state={"step": step, "course": vars(self.course)},
            )
            self._forget_worse()
            self.report("checkpoint", step=step)
        self.accelerator.wait_for_everyone()

    def _forget_worse(self) -> None:
        for folder in (self.workspace / BEST).glob("step-*"):
            if folder.name != f"step-{self.course.best_step}":
                shutil.rmtree(folder, ignore_errors=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.restore_weights(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.restore_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.restore_random_state(Path(checkpoint), self.args.process_index)


class _Watch(TrainerCallback):
    """Counts, times and reports the steps, and evaluates on the dev split every `eval_steps`."""

    def __init__(self, trainer: _LoraTrainer) -> None:
        self.trainer = trainer
        self.looking = 0.0
        self.last = (time.monotonic(), 0)
        self.step_tokens: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last = (time.monotonic(), self.trainer.course.tokens)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, step = self.trainer, state.global_step
        trainer.course.tokens += self._tokens(step)
        with self._not_training():
            if step % trainer.options.eval_steps == 0 or step >= state.max_steps:
                trainer.look(step)
                trainer.course.stopped |= step >= state.max_steps
                control.should_save = True
                control.should_training_stop |= trainer.course.stopped
                control.should_log |= trainer.course.stopped

    def _tokens(self, step: int) -> int:
        """Tokens of a step, without padding."""
        steps = self.trainer.buckets.steps_an_epoch
        epoch = (step - 1) // steps
        if epoch not in self.step_tokens:
            self.step_tokens = {epoch: self.trainer.buckets.plan(epoch).step_tokens}
        return int(self.step_tokens[epoch][(step - 1) % steps])

    @contextlib.contextmanager
    def _not_training(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.looking += time.monotonic() - begun

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            raise not_finite(f"the loss at step {state.global_step}")
        trainer = self.trainer
        now = time.monotonic()
        seconds = max(now - self.last[0] - self.looking, 1e-6)
        rate = (trainer.course.tokens - self.last[1]) / seconds
        trainer.course.seconds += seconds
        trainer.course.looking_s += self.looking
        self.last, self.looking = (now, trainer.course.tokens), 0.0
        if trainer.is_first:
            trainer.report(
                "step",
                step=state.global_step,
                steps=state.max_steps,
                epoch=round(float(state.epoch or 0.0), 4),
                loss=logs["loss"],
                learning_rate=logs.get("learning_rate"),
                grad_norm=logs.get("grad_norm"),
                tokens=trainer.course.tokens,
                tokens_per_s=rate,
                rows_per_s=rate / trainer.prepared.train.lengths.mean(),
                memory_bytes=memory_in_use(),
                eta_s=trainer.course.seconds_a_step(state.global_step) * (state.max_steps - state.global_step),
            )
