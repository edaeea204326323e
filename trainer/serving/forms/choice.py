"""Chooses the form in which a reranker is served: the fastest on this processor that keeps the order.

`choose` times every form that is here on real lists and holds it at the gate of `trainer.serving.forms.order_gate`. Publishing
stores the choice in the manifest, and a host with another processor its own in its cache. Imports no Django.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from labeling.records import FloatArray
from trainer.serving.forms.catalogue import FP32, Form, forms
from trainer.serving.forms.lists import CheckedList
from trainer.serving.forms.order_gate import Agreement, agreement
from trainer.serving.forms.pairs import EncodedPair, batches, distinct
from trainer.serving.forms.processor import processor
from trainer.serving.forms.refinement import spread_of
from trainer.serving.forms.scorers import RefinedScorer, Scorer

# A form must be at least this much faster than float32 to be chosen.
WORTH_IT = 1.1
# Tokens that are timed, several times for each form; the order is checked on all lists.
TIMED_TOKENS, RUNS = 2048, 3
# A model is exported for another engine only if float32 takes this long on the lists: an export takes seconds itself.
WORTH_EXPORT_S = 1.0
PASS_TOKENS = 1024
# The distance of documents that are computed again among the first places: quantiles that are tried, and the tau at which one
# suffices.
QUANTILES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.995, 1.0)
SUFFICES_TAU = 0.9995
# Of few lists, chance passes a small distance: below the first number the largest difference of errors is taken, below the
# second one only large quantiles are tried. A distance that 31 lists passed put 1 pair in 850 of 100 others in the wrong order.
FEW_LISTS, ENOUGH_LISTS, CAUTIOUS = 20, 200, 0.95
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MeasuredForm:
    """One form on one processor: `ms` for 1,000 tokens on one core, its agreement with float32, and why it is not used.

    Figures are 0 where a form could not run; `problem` is empty for a form that may be served. `close`: documents with logits
    closer than this are computed again in float32; `spread`: of the errors, from which each list gets its own distance after the
    first places (0: they have `close` too).
    """

    form: str
    ms: float
    kendall_tau: float
    same_top_ten: float
    largest_difference: float
    problem: str
    close: float = 0.0
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen form, the processor, and the figures of all forms on `lists` lists."""

    form: str
    processor: str
    engines: str
    lists: int
    measured: tuple[MeasuredForm, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for manifest and cache."""
        return {**asdict(self), "measured": [asdict(each) for each in self.measured]}

    @property
    def is_from_here(self) -> bool:
        """Whether it was measured on a processor and with engines like ours."""
        return (self.processor, self.engines) == (processor(), engines())


def choice_from(values: Mapping[str, Any] | None) -> Choice | None:
    """The choice that `Choice.as_dict` made; None where there is none, or it has another shape."""
    try:
        assert values is not None
        known = {each.name for each in fields(MeasuredForm)}
        measured = [{name: each[name] for name in each if name in known} for each in values["measured"]]
        return Choice(**{**values, "measured": tuple(MeasuredForm(**each) for each in measured)})
    except (AssertionError, KeyError, TypeError):
        return None


def choose(model: Any, lists: Sequence[CheckedList], folder: Path) -> Choice:
    """Measure all forms of a `CrossEncoder` in float32; `folder` keeps the files of forms that have some.

    Runs on one thread, as a pass of the server does.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured: list[MeasuredForm] = []
        tokens = sum(len(pair) for each in lists for pair in each.pairs)
        for form in forms():
            exact_s = measured[0].ms * tokens / 1e6 if measured else 0.0
            if form.exports and exact_s < WORTH_EXPORT_S:
                measured.append(
                    _unmeasured(form, "the lists are too few to time a model that has to be exported first")
                )
            else:
                measured.append(_measured(form, model, lists, folder))
    finally:
        torch.set_num_threads(threads)
    passed = [each for each in measured if not each.problem]
    exact = next((each for each in measured if each.form == FP32), None)
    best = min(passed, key=lambda each: each.ms, default=exact)
    if exact is None or best is None or best.ms * WORTH_IT > exact.ms:
        best = exact
    chosen = FP32 if best is None else best.form
    log.info("the reranker is served as %s on %s", chosen, processor())
    return Choice(chosen, processor(), engines(), len(lists), tuple(measured))


def exact_lists(scorer: Scorer, encoded: Sequence[Sequence[EncodedPair]], *, most_s: float) -> list[CheckedList]:
    """The lists with their float32 logits; the later ones are left out when `most_s` seconds are over."""
    begun, found = time.monotonic(), []
    for pairs in encoded:
        found.append(CheckedList(tuple(pairs), logits_of(scorer, pairs)))
        if time.monotonic() - begun > most_s:
            break
    return found


def logits_of(scorer: Scorer, pairs: Sequence[EncodedPair]) -> FloatArray:
    """float64[pairs] of one list, computed in passes of the server's size; unsure documents again, as the server does."""
    found = _passes(scorer, pairs)
    if isinstance(scorer, RefinedScorer) and (rows := scorer.unsure(found.tolist())):
        found[rows] = _passes(scorer.exact, [pairs[row] for row in rows])
    return found


def _passes(scorer: Scorer, pairs: Sequence[EncodedPair]) -> FloatArray:
    computed, places = distinct(pairs)
    found = np.zeros(len(computed))
    for rows in batches([len(pair) for pair in computed], PASS_TOKENS, pads=scorer.pads):
        found[rows] = scorer([computed[row] for row in rows])
    return found[places]


def set_close(scorer: RefinedScorer, lists: Sequence[CheckedList]) -> Agreement:
    """Find the smallest distance at which computing the close documents again passes the gate; returns the agreement.

    Tries quantiles of the difference of two documents' errors. The spread of the errors gives each list its distance after the first
    places.
    Computes no pass: float32 is known from the lists.
    """
    first, exact = [_passes(scorer, each.pairs) for each in lists], [each.exact for each in lists]
    errors = [own - true for own, true in zip(first, exact, strict=True)]
    differences = np.concatenate([np.abs(np.subtract.outer(each, each)).ravel() for each in errors])
    least = 1.0 if len(lists) < FEW_LISTS else CAUTIOUS if len(lists) < ENOUGH_LISTS else 0.0
    scorer.spread = spread_of(first, exact)
    for share in [each for each in QUANTILES if each >= least]:
        scorer.close = float(np.quantile(differences, share))
        refined = []
        for own, true in zip(first, exact, strict=True):
            rows, found = scorer.unsure(own.tolist()), own.copy()
            found[rows] = true[rows]
            refined.append(found)
        agreed = agreement(exact, refined)
        if agreed.kendall_tau >= SUFFICES_TAU and not agreed.problem():
            break
    return agreed


def _measured(form: Form, model: Any, lists: Sequence[CheckedList], folder: Path) -> MeasuredForm:
    if missing := form.missing():
        return _unmeasured(form, missing)
    try:
        scorer = form.make(model, folder)
        distances = (0.0, 0.0)
        if isinstance(scorer, RefinedScorer):
            set_close(scorer, lists)
            distances = scorer.close, scorer.spread
        ms = _ms(scorer, lists, time.perf_counter if form.own_threads else time.thread_time)
        exact = [each.exact for each in lists]
        # The lists hold what float32 computes.
        own = exact if form.name == FP32 else [logits_of(scorer, each.pairs) for each in lists]
        found = agreement(exact, own)
    except Exception as error:  # an engine without a kernel, or a model that it cannot read
        log.info("the reranker does not run as %s", form.name, exc_info=True)
        return _unmeasured(form, f"it does not run here: {str(error).partition(chr(10))[0][:200]}")
    return MeasuredForm(
        form.name, ms, found.kendall_tau, found.same_top_ten, found.largest_difference, found.problem(), *distances
    )


def _unmeasured(form: Form, problem: str) -> MeasuredForm:
    return MeasuredForm(form.name, 0.0, 0.0, 0.0, 0.0, problem)


def _ms(scorer: Scorer, lists: Sequence[CheckedList], clock: Callable[[], float]) -> float:
    """Milliseconds for 1,000 tokens: the fastest of some runs, by the thread's CPU time where the engine computes in it."""
    timed: list[Sequence[EncodedPair]] = []
    tokens = 0
    for each in lists:
        timed.append(each.pairs)
        tokens += sum(len(pair) for pair in each.pairs)
        if tokens >= TIMED_TOKENS:
            break
    times = []
    for _ in range(RUNS):
        begun = clock()
        for pairs in timed:
            logits_of(scorer, pairs)
        times.append(clock() - begun)
    return 1e6 * min(times) / max(1, tokens)


@functools.cache
def engines() -> str:
    """The versions of the engines, on which speed and rounding depend."""
    found = []
    for name in ("torch", "onnxruntime", "openvino"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
