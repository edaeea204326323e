"""Computes the logits of tokenised pairs in one pass: by the model's own code with padding, or without padding.

`trainer.serving.loading` tokenises and calls a scorer; `trainer.serving.forms.catalogue` makes the scorers of all forms.
Imports no Django, and torch only when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from trainer.serving.forms.packed_linear import Arithmetic
from trainer.serving.forms.pairs import EncodedPair
from trainer.serving.forms.refinement import close_rows
from trainer.serving.forms.unpadded import UnpaddedEncoder

# Precision of the products of the forms whose weights are not float32.
PRECISIONS = {"bf16": "bfloat16", "onnx-int8": "int8"}


class Scorer(Protocol):
    """Computes one raw logit per pair. `pads`: pairs of a pass are padded to the longest; `form` is its name.

    `dtype` is the precision of its products.
    """

    pads: bool
    form: str

    @property
    def dtype(self) -> str: ...

    def __call__(self, pairs: Sequence[EncodedPair]) -> list[float]: ...


class PaddedScorer:
    """Calls a `CrossEncoder`; `constants` are inputs of the model that are no tensors of tokens."""

    pads = True

    def __init__(self, model: Any, *, form: str) -> None:
        self.form = form
        self.constants: dict[str, Any] = {}
        self._model = model
        self._left = model.tokenizer.padding_side == "left"
        self._padding = int(model.tokenizer.pad_token_id)

    def calls(self, model: Any) -> bool:
        """Whether it computes with this model itself."""
        return model is self._model

    @property
    def dtype(self) -> str:
        own = str(next(self._model.parameters()).dtype).removeprefix("torch.")
        return PRECISIONS.get(self.form, own)

    def __call__(self, pairs: Sequence[EncodedPair]) -> list[float]:
        import torch

        features = padded(pairs, padding=self._padding, left=self._left)
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(rows).to(self._model.device) for name, rows in features.items()}
            scores = self._model({**tensors, **self.constants})["scores"]
            return [float(score) for score in scores.float().reshape(len(pairs)).cpu().tolist()]


class UnpaddedScorer:
    """An encoder of the BERT family, see `trainer.serving.forms.unpadded`."""

    pads = False

    def __init__(self, model: Any, arithmetic: Arithmetic, *, form: str) -> None:
        self.form = form
        self._encoder = UnpaddedEncoder(model, arithmetic)

    @property
    def dtype(self) -> str:
        return PRECISIONS.get(self.form, "float32")

    def prepare(self, most_tokens: int) -> None:
        """Compile what passes of up to `most_tokens` need, before a request waits for it."""
        self._encoder.prepare(most_tokens)

    def __call__(self, pairs: Sequence[EncodedPair]) -> list[float]:
        ids, types = [pair.ids for pair in pairs], [pair.types for pair in pairs]
        return self._encoder(ids, None if types[0] is None else [each or () for each in types])


class RefinedScorer:
    """Computes in bfloat16, and documents whose logits are closer than `close` to a neighbour's again in float32 (after the
    first places those that errors of this `spread` may turn, see `trainer.serving.forms.refinement`).

    Two documents further apart than the rounding of bfloat16 keep their places, so only the close ones cost twice. Calling it
    gives the first logits; `exact` computes the rows of `unsure`.
    """

    def __init__(self, model: Any, arithmetic: Arithmetic, *, form: str) -> None:
        self.form = form
        self.close, self.spread = math.inf, 0.0  # until they are measured
        self._first = UnpaddedScorer(model, "bf16", form=form)
        self.exact = UnpaddedScorer(model, arithmetic, form=form)
        self.pads = False

    @property
    def dtype(self) -> str:
        return "float32"

    def prepare(self, most_tokens: int) -> None:
        """Compile what passes of up to `most_tokens` need, before a request waits for it."""
        self._first.prepare(most_tokens)
        self.exact.prepare(most_tokens)

    def __call__(self, pairs: Sequence[EncodedPair]) -> list[float]:
        return self._first(pairs)

    def unsure(self, logits: Sequence[float], *, top_n: int | None = None) -> list[int]:
        """The rows to compute again: neighbours in the order that are too close, down to the place `top_n`."""
        return close_rows(logits, self.close, spread=self.spread, top_n=top_n)


def unsure_rows(scorer: Scorer, logits: Sequence[float], *, top_n: int | None = None) -> list[int]:
    """The rows of a list whose order is not certain yet; none for most scorers."""
    return scorer.unsure(logits, top_n=top_n) if isinstance(scorer, RefinedScorer) else []


def release(model: Any, scorer: Scorer) -> None:
    """Drop the weights of a `CrossEncoder` that the scorer does not need; the model still tokenises."""
    import torch

    if isinstance(scorer, UnpaddedScorer | RefinedScorer):
        model.model.base_model.encoder = torch.nn.Module()
    elif not (isinstance(scorer, PaddedScorer) and scorer.calls(model)):
        setattr(model.model, model.model.base_model_prefix, torch.nn.Module())


def padded(pairs: Sequence[EncodedPair], *, padding: int, left: bool) -> dict[str, Any]:
    """int64[n, longest] of token ids, mask and, where pairs have them, segments."""
    import numpy as np

    shape = (len(pairs), max(len(pair) for pair in pairs))
    ids, mask, types = np.full(shape, padding), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, pair in enumerate(pairs):
        place = slice(shape[1] - len(pair), shape[1]) if left else slice(0, len(pair))
        ids[row, place] = pair.ids
        mask[row, place] = 1
        if pair.types is not None:
            types[row, place] = pair.types
    features = {"input_ids": ids, "attention_mask": mask}
    return features if pairs[0].types is None else {**features, "token_type_ids": types}
