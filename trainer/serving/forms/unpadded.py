"""Encoders of the BERT family without padding: the tokens of all texts of a pass stand one behind the other.

Linear layers see one matrix of all tokens; attention is computed text by text. Only the first token of a text is scored, so
the last layer computes its other tokens no further than its keys and values. Sums, residuals and layer norms are float32
regardless of the arithmetic of the products. The matrix gets a few more rows, so that passes of many lengths have few shapes: oneDNN
compiles a kernel for each shape that it has not met. Imports no Django, and torch only when it is called.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.serving.forms.packed_linear import Arithmetic, Product, product
from trainer.serving.forms.pairs import MOST_PADDING

# Position embeddings of RoBERTa's relatives start at the padding id + 1, and their head has a layer of its own.
_SUPPORTED = {
    "BertForSequenceClassification": "bert",
    "RobertaForSequenceClassification": "roberta",
    "XLMRobertaForSequenceClassification": "roberta",
    "CamembertForSequenceClassification": "roberta",
}

# The rows of a pass are a multiple of a power of two, at most of this one.
MOST_STEP = 32


@dataclass(frozen=True, slots=True)
class _Layer:
    inputs: Product  # queries, keys and values side by side
    attended: Product
    attended_norm: Any
    up: Product
    down: Product
    norm: Any


class UnpaddedEncoder:
    """The logits of a classifier with one label, computed from the weights of `model`; thread-safe."""

    def __init__(self, model: Any, arithmetic: Arithmetic) -> None:
        self._is_compiled = arithmetic != "fp32"
        config, base = model.config, model.base_model
        self._heads = config.num_attention_heads
        self._hidden = config.hidden_size
        self._first_position = first_position(model)
        self._embeddings = base.embeddings
        *layers, last = list(base.encoder.layer)
        own = last.attention.self
        self._layers = [_layer(each, arithmetic) for each in layers]
        self._last_keys = _joined([own.key, own.value], arithmetic)
        # The last layer computes one token of each text: float32 costs nothing there, and every logit ends in it.
        self._last_queries = product(own.query.weight, own.query.bias, "fp32")
        self._last_layer = _layer(last, "fp32")
        self._head = head_of(model)

    def __call__(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> list[float]:
        """One raw logit per text. Texts of equal length that stand side by side share one attention."""
        import torch

        lengths = [len(each) for each in ids]
        more = self._more_rows(sum(lengths))
        with torch.inference_mode():
            states = self._embedded(ids, types, lengths, more)
            for layer in self._layers:
                inputs = layer.inputs(states)
                states = self._after(layer, self._attention(inputs, lengths), states)
            states = self._last(states, lengths)
            return [float(each) for each in self._head(states).reshape(len(ids)).tolist()]

    def prepare(self, most_tokens: int) -> None:
        """Compile the products of passes of all sizes up to `most_tokens`; about a second for the first model of its shape."""
        import torch

        if not self._is_compiled or not self._layers:
            return
        layer = self._layers[0]
        with torch.inference_mode():
            for rows in sorted({tokens + more_rows(tokens) for tokens in range(1, most_tokens + 1)}):
                states = torch.zeros(rows, self._hidden)
                layer.inputs(states)
                self._after(layer, states, states)
                self._last_keys(states)

    def _embedded(
        self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None, lengths: Sequence[int], more: int
    ) -> Any:
        """float32[tokens + more, hidden]; nothing reads the last `more` rows."""
        import torch

        own = self._embeddings
        rest = [0] * more
        tokens = torch.tensor([*itertools.chain.from_iterable(ids), *rest])
        segments = torch.zeros_like(tokens) if types is None else torch.tensor([*itertools.chain(*types), *rest])
        start = self._first_position
        places = torch.tensor([place for length in lengths for place in range(start, start + length)] + rest)
        states = own.word_embeddings(tokens) + own.token_type_embeddings(segments)
        return own.LayerNorm(states + own.position_embeddings(places))

    def _more_rows(self, tokens: int) -> int:
        return more_rows(tokens) if self._is_compiled else 0

    def _after(self, layer: _Layer, attended: Any, states: Any) -> Any:
        """The rest of a layer behind its attention."""
        states = layer.attended_norm(layer.attended(attended).float() + states)
        return layer.norm(layer.down(layer.up(states)).float() + states)

    def _attention(self, inputs: Any, lengths: Sequence[int]) -> Any:
        import torch

        found, start = inputs.new_empty(len(inputs), self._hidden), 0
        for length, group in itertools.groupby(lengths):
            number = len(list(group))
            place = slice(start, start + number * length)
            queries, keys, values = inputs[place].view(number, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            own = torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
            found[place].view(number, length, self._heads, -1).copy_(own.transpose(1, 2))
            start = place.stop
        found[start:] = 0.0
        return found

    def _last(self, states: Any, lengths: Sequence[int]) -> Any:
        """The last layer, of the first token of each text only."""
        import torch

        own = states[torch.tensor([0, *itertools.accumulate(lengths[:-1])])]
        queries, both = self._last_queries(own), self._last_keys(states).float()
        found, start, done = torch.empty_like(queries), 0, 0
        for length, group in itertools.groupby(lengths):
            number = len(list(group))
            rows = both[start : start + number * length].view(number, length, 2, self._heads, -1)
            keys, values = rows.permute(2, 0, 3, 1, 4)
            asked = queries[done : done + number].view(number, 1, self._heads, -1).transpose(1, 2)
            attended = torch.nn.functional.scaled_dot_product_attention(asked, keys, values)
            found[done : done + number] = attended.reshape(number, self._hidden)
            start, done = start + number * length, done + number
        return self._after(self._last_layer, found, own)


def more_rows(tokens: int) -> int:
    """Rows to add to a pass of so many tokens: few, at most MOST_PADDING, and so that few sums are possible."""
    most = min(MOST_STEP, int(MOST_PADDING * tokens))
    step = 1 << most.bit_length() - 1 if most else 1
    return -tokens % step


def supports(model: Any) -> bool:
    """Whether the classifier has the layers that `UnpaddedEncoder` computes."""
    config = model.config
    return (
        type(model).__name__ in _SUPPORTED
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
    )


def _layer(layer: Any, arithmetic: Arithmetic) -> _Layer:
    attention = layer.attention
    own, out = attention.self, attention.output
    return _Layer(
        inputs=_joined([own.query, own.key, own.value], arithmetic),
        attended=product(out.dense.weight, out.dense.bias, arithmetic),
        attended_norm=out.LayerNorm,
        up=product(layer.intermediate.dense.weight, layer.intermediate.dense.bias, arithmetic, gelu=True),
        down=product(layer.output.dense.weight, layer.output.dense.bias, arithmetic),
        norm=layer.output.LayerNorm,
    )


def _joined(parts: Sequence[Any], arithmetic: Arithmetic) -> Product:
    """Several linear layers of the same input as one product."""
    import torch

    weights = torch.cat([each.weight.detach() for each in parts])
    return product(weights, torch.cat([each.bias.detach() for each in parts]), arithmetic)


def first_position(model: Any) -> int:
    """The position of the first token."""
    return model.config.pad_token_id + 1 if _SUPPORTED[type(model).__name__] == "roberta" else 0


def head_of(model: Any) -> Any:
    """The logits from the states of the first tokens, float32[n, hidden]."""
    import torch

    if _SUPPORTED[type(model).__name__] == "roberta":
        head = model.classifier
        return lambda states: head.out_proj(torch.tanh(head.dense(states)))
    dense, classifier = model.base_model.pooler.dense, model.classifier
    return lambda states: classifier(torch.tanh(dense(states)))
